//! `abax run`

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use abax_runtime::Runtime;
use abax_runtime::cgroup::Limits;
use abax_runtime::container::{Container, Launcher, Mount, MountSource, Options, Stdio};
use abax_runtime::image::Image;
use anyhow::{Context as _, anyhow, bail};

use crate::args::{self, PullPolicy};
use crate::commands::image::pull;
use crate::config::Settings;
use crate::exit::Usage;
use crate::output;
use crate::terminal::{self, Signals};

/// The exit code of the container's first process.
///
/// # Errors
///
/// The container could not be made or started.
pub(crate) fn run(settings: &Settings, args: &args::Run) -> anyhow::Result<u8> {
    if args.privileged {
        bail!(
            "--privileged is not supported; run without it, or use -v for what the container needs"
        );
    }
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        return Err(
            Usage("-t with -i: standard input is not a terminal; leave out -t".to_owned()).into()
        );
    }
    let options = options(settings, args)?;
    // The launcher first, while this process has one thread.
    let launcher = Launcher::start().context("could not start the launcher")?;
    let runtime = settings.open_runtime()?;
    let image = image(settings, &runtime, args)?;
    let stdio = stdio(args.interactive, args.tty)?;

    let mut signals = Signals::take().context("could not take over the signals")?;
    let container = Container::create(&runtime, &launcher, &image, options, stdio)
        .context("could not create the container")?;
    let started = container.start();
    let accompanied = match started {
        Ok(()) => terminal::accompany(&container, &mut signals, args.interactive),
        Err(error) => {
            // Nothing ran in it, so there is nothing to look at later.
            let _ = container.delete();
            return Err(error).context("could not start the container");
        }
    };
    if accompanied.is_err() {
        container.kill_all();
    }
    let exit = container.wait().context("could not wait for the container")?;
    if exit.out_of_memory {
        let limit = args.memory.as_deref().unwrap_or("the memory limit");
        // What the exit code 137 alone does not say.
        let _ =
            writeln!(io::stderr(), "abax: killed: out of memory (limit {limit}); raise it with -m");
    }
    if args.rm {
        container.delete().context("could not remove the container")?;
    }
    accompanied?;
    Ok(u8::try_from(exit.exit_code()).unwrap_or(125))
}

/// The image; pulled first when the policy says so.
fn image(settings: &Settings, runtime: &Runtime, args: &args::Run) -> anyhow::Result<Image> {
    let here = match args.pull {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never => runtime.images().find(&args.image)?,
    };
    if let Some(image) = here {
        return Ok(image);
    }
    let reference = pull::reference(&args.image)?;
    match args.pull {
        PullPolicy::Never => bail!(
            "there is no image {} here, and --pull never; see `abax images`",
            reference.familiar()
        ),
        PullPolicy::Missing if !args.quiet => {
            // As docker says it.
            let _ =
                writeln!(io::stderr(), "Unable to find image '{}' locally", reference.familiar());
        }
        PullPolicy::Missing | PullPolicy::Always => {}
    }
    pull::fetch(settings, runtime.images(), &reference, None, args.quiet, pull::To::Stderr)
}

/// With a terminal the container gets its own; else it gets ours, and no
/// input unless that is asked for.
fn stdio(interactive: bool, tty: bool) -> anyhow::Result<Stdio> {
    if tty {
        return Ok(Stdio::Terminal(terminal::size()));
    }
    let duplicate =
        |fd: io::Result<OwnedFd>| fd.context("could not pass on standard input and output");
    let stdin: OwnedFd = if interactive {
        duplicate(io::stdin().as_fd().try_clone_to_owned())?
    } else {
        File::open("/dev/null").context("could not open /dev/null")?.into()
    };
    Ok(Stdio::Fds {
        stdin,
        stdout: duplicate(io::stdout().as_fd().try_clone_to_owned())?,
        stderr: duplicate(io::stderr().as_fd().try_clone_to_owned())?,
    })
}

fn options(settings: &Settings, args: &args::Run) -> anyhow::Result<Options> {
    let mut env = Vec::new();
    for path in &args.env_file {
        env.extend(env_file(path)?);
    }
    for item in &args.env {
        env.extend(variable(item)?);
    }
    let mut mounts = Vec::new();
    for volume in &args.volumes {
        mounts.push(bind(volume)?);
    }
    for tmpfs in &args.tmpfs {
        mounts.push(tmpfs_mount(tmpfs)?);
    }
    let memory_swap_bytes = match args.memory_swap.as_deref() {
        None => None,
        Some("-1") => Some(-1),
        Some(text) => Some(i64::try_from(output::parse_size(text)?).context("too much swap")?),
    };
    Ok(Options {
        name: args.name.clone(),
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|command| if command.is_empty() { Vec::new() } else { vec![command.clone()] }),
        args: args.command.clone(),
        env,
        working_directory: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        network: super::network(settings, args.network),
        mounts,
        terminal: args.tty,
        limits: Limits {
            memory_bytes: args.memory.as_deref().map(output::parse_size).transpose()?,
            memory_swap_bytes,
            nano_cpus: args.cpus.map(output::nano_cpus).transpose()?,
            cpu_shares: args.cpu_shares,
            pids: match args.pids_limit {
                None | Some(-1 | 0) => None,
                Some(n) => Some(u64::try_from(n).map_err(|_| {
                    Usage(format!("--pids-limit {n}: write a number, or -1 for no limit"))
                })?),
            },
        },
        read_only: args.read_only,
        init: args.init,
        keep: !args.rm,
        ca_bundle: settings.ca_bundle.clone(),
        ..Options::default()
    })
}

/// `-e NAME=VALUE`; `-e NAME` takes the value from here, and nothing where it
/// is not set.
fn variable(item: &str) -> Result<Option<(String, String)>, Usage> {
    let (name, value) = match item.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (item, std::env::var(item).ok()),
    };
    if name.is_empty() {
        return Err(Usage(format!("-e {item}: a variable needs a name")));
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// Docker's env files: a variable per line, `#` comments, no quotes.
fn env_file(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the environment file {}", path.display()))?;
    let mut env = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(anyhow!(
                "{}:{}: {name:?} is no name of a variable",
                path.display(),
                number + 1
            ));
        }
        env.extend(variable(line)?);
    }
    Ok(env)
}

/// `-v SOURCE:TARGET[:ro]`. A source that is not there is made as a directory,
/// as docker does.
fn bind(volume: &str) -> anyhow::Result<Mount> {
    let wrong = |why: &str| {
        Usage(format!("-v {volume}: {why}; write it like ./data:/data or /srv:/srv:ro"))
    };
    let mut parts = volume.split(':');
    let (source, target, mode) = (parts.next(), parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(wrong("too many colons").into());
    }
    let (Some(source), Some(target)) = (source, target) else {
        return Err(wrong("it has no target").into());
    };
    let mut read_only = false;
    for word in mode.unwrap_or("rw").split(',') {
        match word {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            _ => return Err(wrong(&format!("{word:?} is no mode that abax knows")).into()),
        }
    }
    if !target.starts_with('/') {
        return Err(wrong("the target is not an absolute path").into());
    }
    if target == "/" {
        return Err(wrong("the target cannot be /").into());
    }
    if !(source.starts_with('/')
        || source.starts_with("./")
        || source.starts_with("../")
        || source == "."
        || source == "..")
    {
        return Err(wrong("the source is no path (there are no named volumes)").into());
    }
    let source =
        std::path::absolute(source).with_context(|| format!("could not resolve {source}"))?;
    if !source.exists() {
        std::fs::create_dir_all(&source)
            .with_context(|| format!("could not create the source {}", source.display()))?;
    }
    Ok(Mount { source: MountSource::Bind(source), target: PathBuf::from(target), read_only })
}

/// `--tmpfs TARGET[:size=SIZE,ro,…]`
fn tmpfs_mount(text: &str) -> anyhow::Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut read_only) = (None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(output::parse_size(value)?),
            None if option == "ro" => read_only = true,
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
            _ => {
                return Err(Usage(format!(
                    "--tmpfs {text}: {option:?} is no option that abax knows"
                ))
                .into());
            }
        }
    }
    if !target.starts_with('/') {
        return Err(Usage(format!("--tmpfs {text}: the target is not an absolute path")).into());
    }
    Ok(Mount {
        source: MountSource::Tmpfs { size_bytes: size },
        target: PathBuf::from(target),
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_docker_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().display().to_string();
        let mount = bind(&format!("{source}:/data:ro")).unwrap();
        assert!(mount.read_only);
        assert_eq!(mount.target, Path::new("/data"));
        let new = format!("{source}/made/here");
        bind(&format!("{new}:/data")).unwrap();
        assert!(Path::new(&new).is_dir(), "a missing source is made");
        for wrong in ["x", "name:/data", "/a:b", "/a:/b:rx", "/a:/b:ro:x", "/a:/"] {
            let error = bind(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_environment_file_names_its_bad_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "# comment\n\nA=1\nB=two words # kept\n").unwrap();
        assert_eq!(
            env_file(&path).unwrap(),
            [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two words # kept".to_owned())]
        );
        std::fs::write(&path, "A=1\nmy name=2\n").unwrap();
        assert!(env_file(&path).unwrap_err().to_string().contains(":2:"));
    }
}
