//! `abax migrate`

use std::time::Duration;

use abax_actors::{Error, Schema, Service};
use anyhow::Context as _;

use super::{check, parts, wait};
use crate::args;
use crate::config::{Role, Settings};
use crate::output;

/// Brings the schema up to date, and says from where to where.
///
/// # Errors
///
/// The database is not there in time, or refuses.
pub(crate) fn run(settings: &Settings, args: &args::Migrate) -> anyhow::Result<()> {
    check(settings, Role::Migrate)?;
    let database = settings.database()?;
    let migrate = || async {
        let before = Service::schema(&database).await?;
        Service::migrate(&database).await?;
        Ok::<_, Error>((before, Service::schema(&database).await?))
    };
    let tokio = parts::io_loop()?;
    let (before, after) = tokio.block_on(async {
        let patience = Duration::from_secs(args.wait);
        let migrated = wait::until("the database", Error::is_transient, migrate);
        match tokio::time::timeout(patience, migrated).await {
            Ok(migrated) => migrated,
            // Once more, for the reason.
            Err(_) => migrate()
                .await
                .with_context(|| format!("the database was not there within {} s", args.wait)),
        }
    })?;
    let steps = |schema: Schema| schema.found.unwrap_or(0);
    output::line(if before == after {
        format!("the schema is up to date (step {})", steps(after))
    } else {
        format!("the schema has gone from step {} to {}", steps(before), steps(after))
    })?;
    Ok(())
}
