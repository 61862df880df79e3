//! `abax rmi`

use anyhow::bail;

use crate::args;
use crate::config::Settings;
use crate::output;

pub(crate) fn run(settings: &Settings, args: &args::Rmi) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    for name in &args.images {
        let image = super::must_find(&store, name)?;
        let names: Vec<_> = store
            .list()?
            .into_iter()
            .filter(|one| one.image.manifest_digest() == image.manifest_digest())
            .filter_map(|one| one.reference)
            .collect();
        // A name removes that name; an id removes the image, when that is clear.
        let by_name = super::pull::reference(name)
            .ok()
            .filter(|reference| names.iter().any(|one| one == reference));
        match by_name {
            Some(reference) => {
                store.untag(&reference)?;
                output::line(format!("Untagged: {}", reference.familiar()))?;
            }
            None if names.len() > 1 && !args.force => bail!(
                "image {name} has {} names: {}; remove them by name, or all of them with -f",
                names.len(),
                names.iter().map(|one| one.familiar()).collect::<Vec<_>>().join(", ")
            ),
            None => {
                for reference in names {
                    store.untag(&reference)?;
                    output::line(format!("Untagged: {}", reference.familiar()))?;
                }
                store.remove(&image)?;
                output::line(format!("Deleted: {}", image.id()))?;
            }
        }
    }
    Ok(())
}
