//! `abax tag`

use anyhow::Context as _;

use crate::args;
use crate::config::Settings;

pub(crate) fn run(settings: &Settings, args: &args::Tag) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    let name = super::pull::reference(&args.name)?;
    let image = super::must_find(&store, &args.image)?;
    store.tag(&image, &name).with_context(|| format!("could not tag {}", args.image))?;
    Ok(())
}
