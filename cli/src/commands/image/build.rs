//! `abax build`

use std::io::{self, Write as _};

use abax_runtime::build::{self, BuildEvent, BuildOptions, BuildProgress};
use abax_runtime::container::Launcher;
use abax_runtime::registry;
use anyhow::Context as _;

use super::pull::{Shown, To};
use crate::args;
use crate::commands::container;
use crate::config::Settings;
use crate::output;

pub(crate) fn run(settings: &Settings, args: &args::Build) -> anyhow::Result<()> {
    let tags =
        args.tags.iter().map(|tag| super::pull::reference(tag)).collect::<Result<Vec<_>, _>>()?;
    // The launcher first, while this process has one thread.
    let launcher = Launcher::start().context("could not start the launcher")?;
    // An interrupted build leaves its last container to the next one.
    let runtime = settings.open_swept_runtime()?;
    let build_args = args
        .build_args
        .iter()
        .map(|item| match item.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (item.clone(), std::env::var(item).ok()),
        })
        .collect();
    let options = BuildOptions {
        dockerfile: args.file.clone(),
        tags: tags.clone(),
        build_args,
        target: args.target.clone(),
        no_cache: args.no_cache,
        pull: args.pull,
        ca_bundle: settings.ca_bundle.clone(),
        launcher: Some(launcher),
        registries: settings.registries.clone(),
        ..BuildOptions::new(&args.path, container::network(settings, args.network))
    };
    let steps = Steps { pull: Shown::new(To::Stdout) };
    let progress: &dyn BuildProgress = if args.quiet { &() } else { &steps };
    let image = build::build(&runtime, &options, progress)
        .with_context(|| format!("could not build {}", args.path.display()))?;
    if args.quiet {
        output::line(image.id().to_string())?;
        return Ok(());
    }
    output::line(format!("Successfully built {}", image.short_id()))?;
    for tag in tags {
        output::line(format!("Successfully tagged {}", tag.familiar()))?;
    }
    Ok(())
}

/// The lines of docker's classic builder. That nobody reads them stops no build.
struct Steps {
    pull: Shown,
}

impl BuildProgress for Steps {
    fn event(&self, event: BuildEvent<'_>) {
        let mut out = io::stdout().lock();
        let _ = match event {
            BuildEvent::Step { number, total, text } => {
                writeln!(out, "Step {number}/{total} : {text}")
            }
            BuildEvent::Cached => writeln!(out, " ---> Using cache"),
            BuildEvent::Output(bytes) => out.write_all(bytes).and_then(|()| out.flush()),
            BuildEvent::Layer(layer) => {
                let id: String = layer.diff_id.hex().chars().take(12).collect();
                writeln!(out, " ---> {id} ({})", output::size(layer.size_bytes))
            }
            BuildEvent::Warning(text) => writeln!(io::stderr(), "warning: {text}"),
            _ => Ok(()),
        };
    }

    fn pull(&self) -> &dyn registry::Progress {
        &self.pull
    }
}
