//! `abax pull`, and the pull of `abax run`.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;

use abax_runtime::digest::Digest;
use abax_runtime::image::{Image, Store};
use abax_runtime::platform::Platform;
use abax_runtime::reference::Reference;
use abax_runtime::registry::{self, Event, LayerStatus, Progress};
use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args;
use crate::config::Settings;
use crate::exit::Usage;
use crate::output;

/// Where the progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Stdout,
    Stderr,
}

pub(crate) fn run(settings: &Settings, args: &args::Pull) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    let reference = reference(&args.image)?;
    let platform = args
        .platform
        .as_deref()
        .map(|text| text.parse().map_err(|e| Usage(format!("--platform {text}: {e}"))))
        .transpose()?;
    fetch(settings, &store, &reference, platform, args.quiet, To::Stdout)?;
    output::line(reference.to_string())?;
    Ok(())
}

/// A name as Docker reads it.
///
/// # Errors
///
/// It is no name of an image.
pub(crate) fn reference(text: &str) -> Result<Reference, Usage> {
    Reference::parse(text)
        .map_err(|error| Usage(format!("{text:?} is no name of an image: {error}")))
}

/// Pulls, and tells the user how far it is.
///
/// # Errors
///
/// The pull failed.
pub(crate) fn fetch(
    settings: &Settings,
    store: &Store,
    reference: &Reference,
    platform: Option<Platform>,
    quiet: bool,
    to: To,
) -> anyhow::Result<Image> {
    let before = store.find(&reference.to_string()).ok().flatten();
    let platform = platform.unwrap_or_else(Platform::host);
    let shown = Shown::new(to);
    if !quiet {
        let version = reference
            .digest()
            .map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), ToString::to_string);
        shown.say(&format!("{version}: Pulling from {}", long(reference)));
    }
    let silent: &dyn Progress = &();
    let progress: &dyn Progress = if quiet { silent } else { &shown };
    let image = registry::pull(store, &settings.registries, reference, &platform, progress)
        .with_context(|| format!("could not pull {}", reference.familiar()))?;
    if !quiet {
        shown.say(&format!("Digest: {}", image.manifest_digest()));
        let same = before.is_some_and(|b| b.manifest_digest() == image.manifest_digest());
        let status = if same { "Image is up to date for" } else { "Downloaded newer image for" };
        shown.say(&format!("Status: {status} {}", reference.familiar()));
    }
    Ok(image)
}

/// Docker names official images with their `library/` here.
fn long(reference: &Reference) -> String {
    if reference.registry() == "docker.io" {
        reference.repository().to_owned()
    } else {
        reference.familiar_name()
    }
}

/// A bar per layer on a terminal, a line per change elsewhere.
pub(super) struct Shown {
    to: To,
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<Digest, (ProgressBar, &'static str)>>,
}

impl Shown {
    pub(super) fn new(to: To) -> Self {
        let terminal = match to {
            To::Stdout => io::stdout().is_terminal(),
            To::Stderr => io::stderr().is_terminal(),
        };
        let bars = terminal.then(|| {
            MultiProgress::with_draw_target(match to {
                To::Stdout => ProgressDrawTarget::stdout(),
                To::Stderr => ProgressDrawTarget::stderr(),
            })
        });
        Self { to, bars, layers: Mutex::default() }
    }

    /// A line among the bars. That nobody reads it stops no pull.
    fn say(&self, line: &str) {
        let write = || {
            let _ = match self.to {
                To::Stdout => writeln!(io::stdout(), "{line}"),
                To::Stderr => writeln!(io::stderr(), "{line}"),
            };
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn layer(&self, digest: &Digest, size: u64, status: LayerStatus) {
        let (word, done) = match status {
            LayerStatus::Exists => ("Already exists", Some(size)),
            LayerStatus::Waiting => ("Waiting", None),
            LayerStatus::Downloading { bytes } => ("Downloading", Some(bytes)),
            LayerStatus::Verifying => ("Verifying Checksum", Some(size)),
            LayerStatus::Unpacking { bytes } => ("Extracting", Some(bytes)),
            LayerStatus::Done => ("Pull complete", Some(size)),
        };
        let mut layers = self.layers.lock().expect("no holder of this lock panics");
        let known = layers.contains_key(digest);
        let (bar, last) = layers.entry(*digest).or_insert_with(|| {
            let bar = match &self.bars {
                None => ProgressBar::hidden(),
                Some(bars) => {
                    let bar = bars.add(ProgressBar::new(size));
                    bar.set_prefix(short(digest));
                    bar
                }
            };
            (bar, "")
        });
        let changed = !known || *last != word;
        *last = word;
        if self.bars.is_none() {
            // Lines where something begins or ends: a log wants no percentages.
            if changed && matches!(word, "Already exists" | "Pull complete") {
                let line = format!("{}: {word}", short(digest));
                drop(layers);
                self.say(&line);
            }
            return;
        }
        if changed {
            let style = match status {
                LayerStatus::Downloading { .. } | LayerStatus::Unpacking { .. } => {
                    "{prefix}: {msg:18} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}"
                }
                _ => "{prefix}: {msg}",
            };
            let style = ProgressStyle::with_template(style)
                .expect("the template is ours")
                .progress_chars("=> ");
            bar.set_style(style);
            bar.set_message(word);
        }
        if let Some(done) = done {
            bar.set_position(done.min(size));
        }
        if matches!(status, LayerStatus::Exists | LayerStatus::Done) {
            bar.finish();
        }
    }
}

impl Progress for Shown {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Layer { digest, size_bytes, status } => self.layer(digest, size_bytes, status),
            Event::Retrying { what, after, error } => {
                self.say(&format!("{what}: {error}; trying again in {:.1} s", after.as_secs_f64()));
            }
            Event::Fallback { from, to, error } => {
                self.say(&format!("{from}: {error}; asking {to}"))
            }
            _ => {}
        }
    }
}

/// The first twelve digits, as docker shows ids.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
