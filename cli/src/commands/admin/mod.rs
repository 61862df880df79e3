//! `abax admin`: a service seen from its database.

mod doctor;
mod hosts;

use abax_actors::Service;
use anyhow::{Context as _, bail};

use super::reach;
use crate::args::{self, AdminVerb};
use crate::config::Settings;

/// `abax admin …`
///
/// # Errors
///
/// Whatever the verb could not do.
pub(crate) fn run(settings: &Settings, args: &args::Admin) -> anyhow::Result<()> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the I/O loop")?;
    tokio.block_on(async {
        match &args.verb {
            AdminVerb::Hosts(args) => hosts::list(&open(settings).await?, args).await,
            AdminVerb::Cordon(args) => hosts::cordon(&open(settings).await?, args).await,
            AdminVerb::Uncordon(args) => hosts::uncordon(&open(settings).await?, args).await,
            AdminVerb::Doctor(args) => doctor::run(settings, args).await,
        }
    })
}

/// The service of these settings.
async fn open(settings: &Settings) -> anyhow::Result<Service> {
    // A file that is not there would be made.
    if settings.database.url.is_none() && !settings.database_file().exists() {
        bail!(
            "there is no database in {}; name its directory with --root or ABAX_DATA, or the \
             server with --database",
            settings.data().display()
        );
    }
    reach::open(settings).await.context("could not use the database")
}
