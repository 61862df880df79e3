//! How processes on one database keep together: they hear of each other's
//! changes, and go by one clock.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::Inner;
use super::events::tell_links;
use crate::Chain;
use crate::clock::Clock;
use crate::error::Error;
use crate::store::{Announcement, Heard, Store};

/// How often the clock is compared with the server's.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// The best of so many measurements counts.
const MEASUREMENTS: usize = 3;
/// A machine whose clock is further off is worth a word.
const FAR_OFF: Duration = Duration::from_secs(2);

/// Tasks that end with the service.
pub(super) type Tasks = Vec<AbortOnDropHandle<()>>;

/// Starts what keeps the service together with others on the same database.
pub(super) fn keep(inner: &Arc<Inner>) {
    let mut tasks = Tasks::new();
    let tell = tell_links(Arc::clone(&inner.links_noted), Arc::downgrade(inner));
    tasks.push(AbortOnDropHandle::new(tokio::spawn(tell)));
    if let Some(heard) = inner.store.announcements() {
        let hear = hear(heard, Arc::downgrade(inner));
        tasks.push(AbortOnDropHandle::new(tokio::spawn(hear)));
        let go = go_by_the_servers_clock(inner.store.clone(), inner.clock.clone());
        tasks.push(AbortOnDropHandle::new(tokio::spawn(go)));
    }
    // It is set once, here.
    let _ = inner.tasks.set(tasks);
}

async fn hear(mut heard: Heard, service: Weak<Inner>) {
    while let Some(announcement) = heard.next().await {
        let Some(service) = service.upgrade() else { return };
        match announcement {
            Announcement::Execution(execution) => {
                // Nobody listening is fine.
                let _ = service.changes.send(execution);
            }
            Announcement::Actors => {
                service.actors_changed.notify_one();
                service.queue.tenants_changed();
            }
            Announcement::Work => service.queue.wake_here(),
        }
    }
}

async fn go_by_the_servers_clock(store: Store, clock: Clock) {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let before = clock.offset_micros();
        match set_clock(&store, &clock).await {
            Ok(()) => {
                let after = clock.offset_micros();
                let far = u128::from(after.unsigned_abs()) > FAR_OFF.as_micros();
                if after != before && far {
                    warn!(
                        offset_us = after,
                        "this machine's clock is far from the database's, which counts"
                    );
                }
            }
            Err(error) => debug!(error = %Chain(&error), "could not compare the clocks"),
        }
    }
}

/// Sets the clock by the server's, where there is one.
pub(super) async fn set_clock(store: &Store, clock: &Clock) -> Result<(), Error> {
    let mut best: Option<(i64, Duration)> = None;
    for _ in 0..MEASUREMENTS {
        let Some((time, off)) = store.shared_time().await? else { return Ok(()) };
        let ahead = time.micros().saturating_sub(clock.now().micros());
        if best.is_none_or(|(_, best)| off < best) {
            best = Some((ahead, off));
        }
    }
    if let Some((ahead, off)) = best {
        clock.adjust(ahead, off);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DatabaseConfig, PostgresConfig, QueueConfig};
    use crate::service::Service;

    #[tokio::test]
    async fn a_clock_that_is_wrong_is_set_by_the_servers() {
        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        let config = Config::new(DatabaseConfig::Postgres(config), QueueConfig::Database);
        Service::migrate(&config.database).await.unwrap();
        let clock = Clock::system();
        clock.adjust(-3_600_000_000, Duration::ZERO);
        Service::open(config, clock.clone()).await.unwrap();
        // Server and test run on one machine.
        assert!(clock.offset_micros().abs() < 5_000_000, "{}", clock.offset_micros());
    }
}
