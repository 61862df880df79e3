//! `abax migrate`

use std::time::{Duration, Instant};

use abax_actors::{Error, Schema, Service};

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
    // A migration that has begun may take as long as it takes.
    let (began, patience) = (Instant::now(), Duration::from_secs(args.wait));
    let passes = |error: &Error| error.is_transient() && began.elapsed() < patience;
    let (before, after) =
        parts::io_loop()?.block_on(wait::until("the database", passes, migrate))?;
    let steps = |schema: Schema| schema.found.unwrap_or(0);
    output::line(if before == after {
        format!("the schema is up to date (step {})", steps(after))
    } else {
        format!("the schema has gone from step {} to {}", steps(before), steps(after))
    })?;
    Ok(())
}
