//! `abax rm`

use abax_runtime::container::{self, Running};
use anyhow::Context as _;

use crate::args;
use crate::config::Settings;
use crate::output;

pub(crate) fn run(settings: &Settings, args: &args::Rm) -> anyhow::Result<()> {
    let runtime = settings.open_runtime()?;
    let running = if args.force { Running::Kill } else { Running::Refuse };
    for name in &args.containers {
        container::remove(&runtime, name, running)
            .with_context(|| format!("could not remove {name}"))?;
        output::line(name)?;
    }
    Ok(())
}
