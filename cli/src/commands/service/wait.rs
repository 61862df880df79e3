//! The service's door, which is behind a database that may not be there yet.

use std::future::Future;
use std::time::{Duration, Instant};

use abax_actors::{Chain, Clock, DatabaseConfig, Error, Service};
use anyhow::Context as _;
use tokio::sync::watch;
use tracing::{info, warn};

use super::notify;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is waited for is said again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// What whoever asks is told before anything is known.
const FIRST_WORDS: &str = "The service is not ready: it is starting.";

/// What a start does where the schema is older than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldSchema {
    Wait,
    Fail,
}

/// Where [`open`] says what it waits for, in words for everybody, and who tells them on.
pub(super) fn why() -> (watch::Sender<String>, watch::Receiver<String>) {
    watch::channel(FIRST_WORDS.to_owned())
}

/// Without the addresses and names that the log has.
fn words(error: &Error) -> String {
    match error {
        Error::NotMigrated { .. } => format!("The service is not ready: {error}."),
        _ => "The service is not ready: its database is not there yet.".to_owned(),
    }
}

/// Opens the service; waits for as long as its database is not there.
///
/// # Errors
///
/// What does not pass by waiting: a setting that cannot work, a schema that this
/// program cannot work with.
pub(super) async fn open(
    config: abax_actors::Config,
    old_schema: OldSchema,
    why: &watch::Sender<String>,
) -> anyhow::Result<Service> {
    let server = match &config.database {
        DatabaseConfig::Postgres(_) => "PostgreSQL (database.url)".to_owned(),
        DatabaseConfig::Sqlite { path } => {
            // Nothing comes to a file that cannot be opened.
            let what = format!("could not open the database {}", path.display());
            return Service::open(config, Clock::system()).await.context(what);
        }
        _ => "the database".to_owned(),
    };
    let passes = |error: &Error| match error {
        Error::NotMigrated { .. } => old_schema == OldSchema::Wait,
        error => error.is_transient(),
    };
    until(&server, passes, || async {
        let opened = Service::open(config.clone(), Clock::system()).await;
        if let Err(error) = &opened {
            why.send_replace(words(error));
        }
        opened
    })
    .await
}

/// Tries until it succeeds, or fails for good.
///
/// # Errors
///
/// The first that does not pass.
pub(super) async fn until<T, F: Future<Output = Result<T, Error>>>(
    server: &str,
    passes: impl Fn(&Error) -> bool,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut said: Option<(String, Instant)> = None;
    loop {
        let error = match attempt().await {
            Ok(done) => {
                if said.is_some() {
                    info!("{server} is there after {} s", began.elapsed().as_secs());
                }
                return Ok(done);
            }
            Err(error) if passes(&error) => Chain(&error).to_string(),
            Err(error) => return Err(error).with_context(|| format!("could not use {server}")),
        };
        let is_new =
            said.as_ref().is_none_or(|(text, then)| *text != error || then.elapsed() >= SAY_AGAIN);
        if is_new {
            warn!("waiting for {server}: {error}");
            notify::status(&format!("waiting for {server}: {error}"));
            said = Some((error, Instant::now()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
