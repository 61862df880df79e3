//! Dockerfile and context to image: the order of work.
//!
//! The whole Dockerfile is read and checked first. Then each step is carried
//! out on the state that the steps before it left: one that only says
//! something about the image changes the state (`stage`), one that changes
//! files makes a layer, by `RUN`ning a container (`run`) or by copying into
//! the mounted root (`copy`). What a step made is kept under everything it
//! depends on (`cache`). There is no daemon: two builds meet only in the
//! store and in the cache, and both write whole files by rename.
//!
//! A build that fails leaves no image behind, only cached steps.

mod stage;

mod archive;
mod copy;
mod run;

mod cache;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::Runtime;
use crate::container::Launcher;
use crate::dockerfile::ignore::{Ignore, IgnoreError};
use crate::dockerfile::{
    self, Copy, CopySource, Dockerfile, Instruction, ParseError, Problem, Stage, Step, expand,
};
use crate::image::{DiffError, Image, Layer, StoreError};
use crate::network::Mode;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{self, PullError, RegistriesConfig};
use crate::snapshot::overlay::Overlay;

use cache::{Cache, Key, Record};
pub use copy::CopyError;
use copy::{Arrival, Tree, Wanted};
pub use run::RunError;
use stage::{Given, State};

/// What to build, and how.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The directory that `COPY` and `ADD` see.
    pub context: PathBuf,
    /// Where it is not `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// Values for `ARG`; one without a value is as if it were not given.
    pub build_args: Vec<(String, Option<String>)>,
    /// The stage to build, by name or number, instead of the last.
    pub target: Option<String>,
    /// Carry out every step, whatever is cached.
    pub no_cache: bool,
    /// Ask the registry for the base image although there is one.
    pub pull: bool,
    /// Where base images come from.
    pub registries: RegistriesConfig,
    /// Network of `RUN`.
    pub network: Mode,
    /// Certificates of the host that `RUN` is to trust; never stored in the image.
    pub ca_bundle: Option<PathBuf>,
    /// Makes the containers of `RUN`; one is started from our own binary where none is given.
    pub launcher: Option<Launcher>,
}

impl BuildOptions {
    /// `docker build context`, with the network `network` for `RUN`.
    #[must_use]
    pub fn new(context: impl Into<PathBuf>, network: Mode) -> Self {
        Self {
            context: context.into(),
            dockerfile: None,
            tags: Vec::new(),
            build_args: Vec::new(),
            target: None,
            no_cache: false,
            pull: false,
            registries: RegistriesConfig::default(),
            network,
            ca_bundle: None,
            launcher: None,
        }
    }
}

/// Hears what a build does.
pub trait BuildProgress: Send + Sync {
    /// One thing happened.
    fn event(&self, event: BuildEvent<'_>);

    /// Hears of pulls of base images.
    fn pull(&self) -> &dyn registry::Progress {
        &()
    }
}

/// Silence.
impl BuildProgress for () {
    fn event(&self, _event: BuildEvent<'_>) {}
}

/// What happens in a build, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildEvent<'a> {
    /// A step begins: `Step 2/6 : RUN …`.
    Step {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The instruction, continuation lines joined.
        text: &'a str,
    },
    /// The step is not carried out: what it made is there from before.
    Cached,
    /// The step's command wrote this to its standard output or error.
    Output(&'a [u8]),
    /// The step made a layer.
    Layer(&'a Layer),
    /// Something is odd, and the build goes on.
    Warning(String),
    /// The image is there, under all its names.
    Done {
        /// The image.
        image: &'a Image,
    },
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The Dockerfile is wrong; nothing was done.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The ignore file is wrong.
    #[error("could not read {}", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: IgnoreError,
    },
    /// The context is no directory that we can read.
    #[error("could not open the build context {}", path.display())]
    Context {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No stage has the name that was asked for.
    #[error("{file} has no stage {target}")]
    NoTarget {
        /// The Dockerfile.
        file: String,
        /// As asked for.
        target: String,
    },
    /// A step failed.
    #[error("{file}:{line}: {instruction} failed")]
    Step {
        /// The Dockerfile.
        file: String,
        /// First line of the step.
        line: usize,
        /// Its name.
        instruction: &'static str,
        /// Why.
        source: Box<StepError>,
    },
    /// The image could not be stored.
    #[error("could not store the image")]
    Store {
        /// Why.
        source: StoreError,
    },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The base image is not here, and could not be pulled.
    #[error(transparent)]
    Pull(Box<PullError>),
    /// The base image is here and cannot be read.
    #[error("could not read the image {name}")]
    Image {
        /// As written.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A command failed, or could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A root file system could not be mounted.
    #[error("could not mount the layers below")]
    Mount {
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory of the build could not be made.
    #[error("could not create {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What the step changed could not be made a layer.
    #[error("could not make a layer of the changes")]
    Diff {
        /// Why.
        source: DiffError,
    },
}

/// Where the files of a stage come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    Scratch,
    Stage(usize),
    Image(String),
}

/// Builds an image, and names it as `options` say.
///
/// # Errors
///
/// [`BuildError::Parse`] and others that name a mistake before anything is
/// done; [`BuildError::Step`] for the step that failed.
pub fn build(
    runtime: &Runtime,
    options: &BuildOptions,
    progress: &dyn BuildProgress,
) -> Result<Image, BuildError> {
    let path = options.dockerfile.clone().unwrap_or_else(|| options.context.join("Dockerfile"));
    let name = path.file_name().map_or("Dockerfile".into(), |name| name.to_string_lossy());
    let dockerfile = read_dockerfile(&path, &name)?;
    let ignore = read_ignore(&path, &options.context)?;
    let context = Tree::open(&options.context, ignore)
        .map_err(|source| BuildError::Context { path: options.context.clone(), source })?;

    let mut given = Given::default();
    for (name, value) in &options.build_args {
        if let Some(value) = value {
            given.arguments.insert(name.clone(), value.clone());
        }
    }
    let bases = resolve_bases(&dockerfile, &mut given)?;
    let target = find_target(&dockerfile, options.target.as_deref())?;
    let needed = needed_stages(&dockerfile, &bases, target)?;

    let total = dockerfile.arguments.len()
        + needed.iter().map(|index| dockerfile.stages[*index].steps.len()).sum::<usize>();
    let mut builder = Builder {
        runtime,
        options,
        progress,
        cache: Cache::new(runtime.images()),
        dockerfile: &dockerfile,
        given,
        bases,
        context,
        launcher: OnceCell::new(),
        number: 0,
        total,
        states: vec![None; dockerfile.stages.len()],
    };
    builder.warn_of_unused_arguments();
    for step in &dockerfile.arguments {
        builder.begin(step);
    }
    for index in needed {
        let state = builder.stage(index, &dockerfile.stages[index])?;
        builder.states[index] = Some(state);
    }
    let state = builder.states[target].take().expect("the target is among the needed stages");
    let image = runtime
        .images()
        .create_image_from_json(state.image_json(), &state.layers, &options.tags)
        .map_err(|source| BuildError::Store { source })?;
    progress.event(BuildEvent::Done { image: &image });
    Ok(image)
}

fn read_dockerfile(path: &Path, name: &str) -> Result<Dockerfile, BuildError> {
    use std::io::Read as _;
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        // One byte more than is allowed: the parser says what is wrong then.
        fs::File::open(path)?.take(dockerfile::MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| BuildError::Read { path: path.to_owned(), source })?;
    Ok(dockerfile::parse(name, &text)?)
}

/// `NAME.dockerignore` beside the Dockerfile `NAME`, else `.dockerignore` in the context.
fn read_ignore(dockerfile: &Path, context: &Path) -> Result<Ignore, BuildError> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    for path in [PathBuf::from(own), context.join(".dockerignore")] {
        match fs::read_to_string(&path) {
            Ok(text) => {
                return Ignore::parse(&text).map_err(|source| BuildError::Ignore { path, source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BuildError::Read { path, source }),
        }
    }
    Ok(Ignore::default())
}

/// The base of each stage: `FROM` expanded, and its platform checked.
fn resolve_bases(dockerfile: &Dockerfile, given: &mut Given) -> Result<Vec<Base>, ParseError> {
    let host = Platform::host();
    given.global.extend(Given::platform(&host));
    let escape = dockerfile.escape;
    for step in &dockerfile.arguments {
        let Instruction::Arg(arguments) = &step.instruction else { continue };
        for (name, default) in arguments {
            let default = default
                .as_ref()
                .map(|word| expand::expand(word, escape, &|name| given.global(name)))
                .transpose()
                .map_err(|error| dockerfile.error(step.line, error.into()))?;
            given.declare_global(name, default);
        }
    }
    let mut bases = Vec::new();
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let step = &stage.steps[0];
        let Instruction::From { image, platform, .. } = &step.instruction else { continue };
        let fail = |problem| dockerfile.error(step.line, problem);
        let expanded = |word: &str| {
            expand::expand(word, escape, &|name| given.global(name))
                .map_err(|error| fail(error.into()))
        };
        if let Some(platform) = platform {
            let value = expanded(platform)?;
            let fits = value.parse::<Platform>().is_ok_and(|wanted| host.fits(&wanted));
            if !fits {
                let what = format!("the platform {value} on a host that is {host}");
                return Err(fail(Problem::Unsupported { what }));
            }
        }
        let name = expanded(image)?;
        let earlier = find_stage(&dockerfile.stages[..index], &name);
        bases.push(match earlier {
            Some(stage) => Base::Stage(stage),
            None if name == "scratch" => Base::Scratch,
            None if name.is_empty() => {
                let expected = "an image: the variable in it is empty";
                return Err(fail(Problem::Arguments { instruction: "FROM", expected }));
            }
            None => Base::Image(name),
        });
    }
    Ok(bases)
}

fn find_stage(stages: &[Stage], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    stages.iter().position(|stage| stage.name.as_deref() == Some(&name))
}

fn find_target(dockerfile: &Dockerfile, target: Option<&str>) -> Result<usize, BuildError> {
    let stages = &dockerfile.stages;
    let Some(target) = target else { return Ok(stages.len() - 1) };
    find_stage(stages, target)
        .or_else(|| target.parse().ok().filter(|index| *index < stages.len()))
        .ok_or_else(|| BuildError::NoTarget {
            file: dockerfile.file.clone(),
            target: target.to_owned(),
        })
}

/// The stage that `--from` means, if it means one before `index`.
fn copy_stage(dockerfile: &Dockerfile, index: usize, from: &str) -> Option<usize> {
    let earlier = &dockerfile.stages[..index];
    find_stage(earlier, from).or_else(|| from.parse().ok().filter(|number| *number < earlier.len()))
}

/// The stages that `target` needs, in file order.
fn needed_stages(
    dockerfile: &Dockerfile,
    bases: &[Base],
    target: usize,
) -> Result<Vec<usize>, ParseError> {
    let mut needed = vec![false; dockerfile.stages.len()];
    needed[target] = true;
    // A stage needs only what stands before it.
    for index in (0..=target).rev() {
        if let (true, Base::Stage(base)) = (needed[index], &bases[index]) {
            needed[*base] = true;
        }
        for step in &dockerfile.stages[index].steps {
            if let Instruction::Copy(Copy { from: Some(from), .. }) = &step.instruction {
                match copy_stage(dockerfile, index, from) {
                    Some(stage) if needed[index] => needed[stage] = true,
                    Some(_) => {}
                    // A number, or the name of this stage or a later one, is never an image.
                    None if from.parse::<usize>().is_ok()
                        || find_stage(&dockerfile.stages, from).is_some() =>
                    {
                        let name = from.clone();
                        return Err(dockerfile.error(step.line, Problem::NoStage { name }));
                    }
                    None => {}
                }
            }
        }
    }
    Ok((0..needed.len()).filter(|index| needed[*index]).collect())
}

struct Builder<'a> {
    runtime: &'a Runtime,
    options: &'a BuildOptions,
    progress: &'a dyn BuildProgress,
    cache: Cache,
    dockerfile: &'a Dockerfile,
    given: Given,
    bases: Vec<Base>,
    context: Tree,
    /// Started by the first `RUN` that is not cached.
    launcher: OnceCell<Launcher>,
    number: usize,
    total: usize,
    /// What the stages before left.
    states: Vec<Option<State>>,
}

impl Builder<'_> {
    fn begin(&mut self, step: &Step) {
        self.number += 1;
        let Self { number, total, .. } = *self;
        self.progress.event(BuildEvent::Step { number, total, text: &step.text });
    }

    fn warn_of_unused_arguments(&self) {
        let steps = self.dockerfile.stages.iter().flat_map(|stage| &stage.steps);
        let declared: Vec<&str> = steps
            .chain(&self.dockerfile.arguments)
            .filter_map(|step| match &step.instruction {
                Instruction::Arg(arguments) => Some(arguments),
                _ => None,
            })
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let unused: Vec<&str> = self
            .given
            .arguments
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(name) && !stage::is_proxy(name))
            .collect();
        if !unused.is_empty() {
            let names = unused.join(" ");
            let warning = format!("One or more build-args [{names}] were not consumed");
            self.progress.event(BuildEvent::Warning(warning));
        }
    }

    fn stage(&mut self, index: usize, stage: &Stage) -> Result<State, BuildError> {
        let mut state = None;
        for step in &stage.steps {
            self.begin(step);
            let outcome = match &mut state {
                None => self.base(index).map(|base| state = Some(base)),
                Some(state) => self.step(index, step, state),
            };
            outcome.map_err(|failure| match failure {
                Failure::Text(problem) => self.dockerfile.error(step.line, problem).into(),
                Failure::Step(source) => BuildError::Step {
                    file: self.dockerfile.file.clone(),
                    line: step.line,
                    instruction: step.instruction.keyword(),
                    source: Box::new(source),
                },
            })?;
        }
        Ok(state.expect("a stage begins with FROM"))
    }

    fn base(&self, index: usize) -> Result<State, Failure> {
        let base = match &self.bases[index] {
            Base::Scratch => State::scratch(&Platform::host()),
            Base::Stage(stage) => self.state_of(*stage).after(),
            Base::Image(name) => State::of(&self.image(name)?),
        };
        match base.on_build().first() {
            None => Ok(base),
            Some(trigger) => {
                let what = format!("a base image with ONBUILD ({trigger})");
                Err(Problem::Unsupported { what }.into())
            }
        }
    }

    fn state_of(&self, stage: usize) -> &State {
        self.states[stage].as_ref().expect("needed stages are built in file order")
    }

    /// The image `name`: from the store, else from its registry.
    fn image(&self, name: &str) -> Result<Image, StepError> {
        let store = self.runtime.images();
        let unreadable = |source| StepError::Image { name: name.to_owned(), source };
        if !self.options.pull
            && let Some(image) = store.find(name).map_err(unreadable)?
        {
            return Ok(image);
        }
        let reference =
            Reference::parse(name).map_err(|error| unreadable(StoreError::from(error)))?;
        let registries = &self.options.registries;
        registry::pull(store, registries, &reference, &Platform::host(), self.progress.pull())
            .map_err(|error| StepError::Pull(Box::new(error)))
    }

    fn step(&self, index: usize, step: &Step, state: &mut State) -> Result<(), Failure> {
        let escape = self.dockerfile.escape;
        match &step.instruction {
            Instruction::Run { command, network } => {
                let words = state.words(command);
                let environment = state.run_environment(&self.given);
                let created_by = format!("{}{}", environment.prefix(), words.join(" "));
                let network = network.as_deref().unwrap_or_default();
                let key = Key::new(
                    &state.layers,
                    state.config(),
                    &["RUN", &created_by, &words.join("\0"), network],
                );
                let mode = match network {
                    "none" => Mode::None,
                    "host" => Mode::Host,
                    _ => self.options.network.clone(),
                };
                self.made(state, &key, &created_by, |state| {
                    self.run(state, words, environment.all, mode)
                })?;
            }
            Instruction::Copy(copy) => self.copy(index, "COPY", copy, state)?,
            Instruction::Add(copy) => self.copy(index, "ADD", copy, state)?,
            Instruction::Workdir(path) => {
                let path = state.absolute(&state.expand(path, escape)?);
                let path = if path == "/" { "/" } else { path.trim_end_matches('/') };
                let created_by = format!("/bin/sh -c #(nop) WORKDIR {path}");
                let key = Key::new(&state.layers, state.config(), &[&created_by]);
                self.made(state, &key, &created_by, |state| {
                    self.change(state, |root| {
                        let path = copy::clean(path).unwrap_or_default();
                        copy::make_directories(root, &path, (0, 0)).map(drop)
                    })
                })?;
                state.set_working_directory(path);
            }
            instruction => {
                let mut next = state.clone();
                let created_by = next.apply(instruction, escape, &self.given)?;
                let created_by = created_by.unwrap_or_default();
                let key = Key::new(&state.layers, state.config(), &[&created_by]);
                self.made(&mut next, &key, &created_by, |_| Ok(None))?;
                *state = next;
            }
        }
        Ok(())
    }

    /// Records a step: what the cache has of it, else what `make` makes.
    fn made(
        &self,
        state: &mut State,
        key: &Key,
        created_by: &str,
        make: impl FnOnce(&State) -> Result<Option<Layer>, StepError>,
    ) -> Result<(), StepError> {
        let cached = if self.options.no_cache { None } else { self.cache.find(key) };
        let record = match cached {
            Some(record) => {
                self.progress.event(BuildEvent::Cached);
                record
            }
            None => {
                let layer = make(state)?;
                if let Some(layer) = &layer {
                    self.progress.event(BuildEvent::Layer(layer));
                }
                let record = Record { created: now(), layer };
                self.cache.keep(key, &record);
                record
            }
        };
        state.record(&record.created, created_by, record.layer);
        Ok(())
    }

    fn copy(
        &self,
        index: usize,
        keyword: &str,
        copy: &Copy,
        state: &mut State,
    ) -> Result<(), Failure> {
        let escape = self.dockerfile.escape;
        let expand = |word: &str| state.expand(word, escape);
        let mut wanted = Vec::new();
        for source in &copy.sources {
            wanted.push(match source {
                CopySource::Path(path) => {
                    let path = expand(path)?;
                    if keyword == "ADD" && dockerfile::instruction::is_remote(&path) {
                        return Err(Problem::Unsupported { what: format!("ADD of {path}") }.into());
                    }
                    Wanted::Path(path)
                }
                CopySource::Inline(heredoc) if heredoc.expand => Wanted::Text {
                    name: heredoc.name.clone(),
                    text: state.expand_text(&heredoc.content, escape)?,
                },
                CopySource::Inline(heredoc) => {
                    Wanted::Text { name: heredoc.name.clone(), text: heredoc.content.clone() }
                }
            });
        }
        let destination = expand(&copy.destination)?;
        let owner = copy.owner.as_deref().map(expand).transpose()?;
        let mode = copy.mode.as_deref().map(expand).transpose()?;
        let parsed_mode = mode.as_deref().map(copy::parse_mode).transpose()?;

        let other;
        let tree = match &copy.from {
            None => &self.context,
            Some(from) => {
                let layers = match copy_stage(self.dockerfile, index, from) {
                    Some(stage) => self.state_of(stage).layers.clone(),
                    None => self.image(from)?.layers().to_vec(),
                };
                other = self.tree_of(&layers)?;
                other.tree()
            }
        };
        let selection = tree.select(&wanted)?;
        let hash = tree.hash(&selection)?.hex();
        let mut flags = String::new();
        for (flag, value) in [("chown", &owner), ("chmod", &mode)] {
            if let Some(value) = value {
                flags.push_str(&format!("--{flag}={value} "));
            }
        }
        let kind = selection.kind();
        let created_by =
            format!("/bin/sh -c #(nop) {keyword} {flags}{kind}:{hash} in {destination} ");
        let key = Key::new(&state.layers, state.config(), &[&created_by]);
        let destination = state.absolute(&destination);
        self.made(state, &key, &created_by, |state| {
            self.change(state, |root| {
                let owner = owner.as_deref().map(|owner| copy::parse_owner(root, owner));
                let arrival = Arrival {
                    destination: &destination,
                    owner: owner.transpose()?.unwrap_or_default(),
                    mode: parsed_mode,
                    unpack: keyword == "ADD",
                };
                copy::copy(tree, &selection, root, &arrival)
            })
        })?;
        Ok(())
    }

    /// Mounts the layers of `state` with an empty one on top, lets `change`
    /// work in it, and makes a layer of what it changed.
    fn change(
        &self,
        state: &State,
        change: impl FnOnce(BorrowedFd<'_>) -> Result<(), CopyError>,
    ) -> Result<Option<Layer>, StepError> {
        use std::os::fd::AsFd as _;
        let scratch = Scratch::new(self.runtime.root())?;
        let upper = scratch.directory("upper")?;
        let work = scratch.directory("work")?;
        let lower = self.lower(&state.layers, &scratch)?;
        let root = Overlay { lower: &lower, upper: Some((&upper, &work)), volatile: true }
            .mount()
            .map_err(|source| StepError::Mount { source })?;
        change(root.as_fd())?;
        // Unmounted before the upper directory is moved.
        drop(root);
        self.layer_of(&upper)
    }

    /// The layer that the upper directory of an overlay makes; none of an empty one.
    fn layer_of(&self, upper: &Path) -> Result<Option<Layer>, StepError> {
        let mut entries = fs::read_dir(upper)
            .map_err(|source| StepError::Directory { path: upper.to_owned(), source })?;
        if entries.next().is_none() {
            return Ok(None);
        }
        let layer = self.runtime.images().adopt_layer(upper);
        layer.map(Some).map_err(|source| StepError::Diff { source })
    }

    /// The directories of `layers`, the top first; an empty one where there are none.
    fn lower(&self, layers: &[Layer], scratch: &Scratch) -> Result<Vec<PathBuf>, StepError> {
        let store = self.runtime.images();
        let mut lower: Vec<PathBuf> =
            layers.iter().rev().map(|layer| store.layer_directory(&layer.diff_id)).collect();
        // Overlayfs wants one below an upper directory, and two where there is none.
        while lower.len() < 2 {
            lower.push(scratch.directory(["empty", "void"][lower.len()])?);
        }
        Ok(lower)
    }

    /// The files of other layers, to copy from.
    fn tree_of(&self, layers: &[Layer]) -> Result<Mounted, StepError> {
        let scratch = Scratch::new(self.runtime.root())?;
        let lower = self.lower(layers, &scratch)?;
        let root: OwnedFd = Overlay { lower: &lower, upper: None, volatile: false }
            .mount()
            .map_err(|source| StepError::Mount { source })?;
        Ok(Mounted { tree: Tree::of(root), _scratch: scratch })
    }
}

/// A mounted tree and what has to stay as long as it is mounted.
struct Mounted {
    tree: Tree,
    _scratch: Scratch,
}

impl Mounted {
    fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// A directory under `ROOT/tmp`, gone when dropped.
struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new(root: &Path) -> Result<Self, StepError> {
        let parent = root.join("tmp");
        let directory = tempfile::Builder::new()
            .prefix("build.")
            .tempdir_in(&parent)
            .map_err(|source| StepError::Directory { path: parent, source })?;
        Ok(Self { directory })
    }

    fn directory(&self, name: &str) -> Result<PathBuf, StepError> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        fs::create_dir(&path)
            // It becomes the root directory of containers, whatever our umask is.
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(|source| StepError::Directory { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Why a step failed: its text makes no sense, or it could not be carried out.
enum Failure {
    Text(Problem),
    Step(StepError),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Text(problem)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        Self::Step(error.into())
    }
}

#[expect(clippy::disallowed_methods, reason = "history says when a step was carried out")]
fn now() -> String {
    jiff::Timestamp::now().to_string()
}
