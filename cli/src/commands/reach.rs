//! Database and broker of the settings, for verbs that ask and go.

use std::time::{Duration, Instant};

use abax_actors::{Clock, Service};
use anyhow::Context as _;

use crate::config::Settings;

/// How long a server may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The service of these settings.
///
/// # Errors
///
/// The database cannot be used, or does not answer in time.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Service> {
    let config = abax_actors::Config::new(settings.database()?, settings.queue()?);
    tokio::time::timeout(PATIENCE, Service::open(config, Clock::system()))
        .await
        .with_context(|| format!("the server did not answer within {} s", PATIENCE.as_secs()))?
        .context("could not open it")
}

/// Whether the broker is connected to in time; yes where there is none.
pub(crate) async fn broker(service: &Service) -> bool {
    let began = Instant::now();
    while service.queue_state().is_some_and(|state| !state.connected) {
        if began.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}
