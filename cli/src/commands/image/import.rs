//! `abax import`

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;

use crate::args;
use crate::config::Settings;
use crate::output;

pub(crate) fn run(settings: &Settings, args: &args::Import) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    let name = args.reference.as_deref().map(super::pull::reference).transpose()?;
    let mut archive: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(
            File::open(&args.file)
                .with_context(|| format!("could not open {}", args.file.display()))?,
        )
    };
    let image = abax_runtime::image::import(&store, &mut archive, &args.changes, name.as_ref())
        .with_context(|| format!("could not import {}", args.file.display()))?;
    output::line(image.id().to_string())?;
    Ok(())
}
