//! How processes on one database keep together: they hear of each other's
//! changes, and go by one clock.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::Inner;
use super::events::tell_links;
use crate::Chain;
use crate::clock::{Clock, Time};
use crate::error::Error;
use crate::store::{Announcement, Heard, Store};

/// How often the clock is compared with its reference.
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
    }
    let keep_time = keep_time(inner.store.clone(), inner.clock.clone());
    tasks.push(AbortOnDropHandle::new(tokio::spawn(keep_time)));
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

async fn keep_time(store: Store, clock: Clock) {
    let mut said = false;
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        if let Err(error) = compare_clocks(&store, &clock).await {
            debug!(error = %Chain(&error), "could not compare the clocks");
        }
        let offset_us = clock.offset_micros();
        let far = u128::from(offset_us.unsigned_abs()) > FAR_OFF.as_micros();
        if far && !said {
            warn!(offset_us, "this machine's wall clock is far from the time that counts");
        }
        said = far;
    }
}

/// Sets the clock by the server's, where there is one.
pub(super) async fn set_clock(store: &Store, clock: &Clock) -> Result<(), Error> {
    if let Some((ahead, off)) = ahead_of(store, clock).await? {
        clock.set(ahead, off);
    }
    Ok(())
}

/// Has the clock follow its reference: the server's clock, or without one the wall
/// clock of the machine.
pub(super) async fn compare_clocks(store: &Store, clock: &Clock) -> Result<(), Error> {
    let measured = match ahead_of(store, clock).await? {
        Some(measured) => Some(measured),
        None => clock.wall().map(|wall| (ahead(wall, clock), Duration::ZERO)),
    };
    let Some((ahead_us, off)) = measured else { return Ok(()) };
    if clock.follow(ahead_us, off) {
        warn!(ahead_us, "the time that counts was set, and this service follows it");
    }
    Ok(())
}

/// How far the server's clock is ahead of ours, and how far that may be off.
async fn ahead_of(store: &Store, clock: &Clock) -> Result<Option<(i64, Duration)>, Error> {
    let mut best: Option<(i64, Duration)> = None;
    for _ in 0..MEASUREMENTS {
        let Some((time, off)) = store.shared_time().await? else { return Ok(None) };
        if best.is_none_or(|(_, best)| off < best) {
            best = Some((ahead(time, clock), off));
        }
    }
    Ok(best)
}

fn ahead(time: Time, clock: &Clock) -> i64 {
    time.micros().saturating_sub(clock.now().micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::NewActor;
    use crate::clock::Machine;
    use crate::config::{Config, DatabaseConfig, PostgresConfig, QueueConfig};
    use crate::host::HostInfo;
    use crate::message::NewMessage;
    use crate::permission::{Caller, Role, Tenant};
    use crate::service::{Service, Swept};

    fn on(database: &abax_testbed::Database) -> Config {
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        Config::new(DatabaseConfig::Postgres(config), QueueConfig::Database)
    }

    #[tokio::test]
    async fn leases_of_a_machine_that_is_behind_are_none_the_shorter() {
        let database = abax_testbed::Database::create().unwrap();
        Service::migrate(&on(&database).database).await.unwrap();
        let clock = Clock::system();
        let behind = Service::open(on(&database), clock.clone()).await.unwrap();
        clock.set(-3_600_000_000, Duration::ZERO);
        let owner = Caller::new(Tenant::default(), "owner", Role::User);
        let actor = behind.register_actor(&owner, NewActor::new("busybox")).await.unwrap();
        let message = NewMessage::text("x");
        behind.send_message(&owner, actor.id.as_str(), message).await.unwrap();
        let classes = behind.config().queues.clone();
        let info = HostInfo { classes: classes.clone(), ..HostInfo::new("host", "1", 8) };
        let host = behind.register_host(info).await.unwrap();
        let delivery = behind.receive(&classes, 1).await.unwrap();
        let lease = Duration::from_secs(600);
        let claim = behind.claim(delivery, &host, lease).await.unwrap().unwrap();
        let other = Service::open(on(&database), Clock::system()).await.unwrap();
        assert_eq!(other.sweep().await.unwrap(), Swept::default());
        let renewal = behind.renew(&host, std::slice::from_ref(&claim.key), lease).await.unwrap();
        assert!(renewal.lost.is_empty());
        assert_eq!(other.sweep().await.unwrap(), Swept::default());
    }

    #[tokio::test]
    async fn without_a_server_the_wall_clock_is_followed_where_it_stands_by_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let database = DatabaseConfig::Sqlite { path: directory.path().join("abax.db") };
        let store = Store::open(&database).await.unwrap();
        let start = Time::from_micros(1_800_000_000_000_000);
        let machine = Machine::by_hand(start);
        let clock = Clock::on(machine.clone());
        let compare = || compare_clocks(&store, &clock);
        machine.set_wall(1_000_000);
        compare().await.unwrap();
        assert_eq!(clock.now().micros(), start.micros() + 1_000_000);
        machine.set_wall(3_600_000_000);
        compare().await.unwrap();
        assert_eq!(clock.now().micros(), start.micros() + 1_000_000, "it may be a mistake");
        compare().await.unwrap();
        assert_eq!(clock.offset_micros(), 0);
    }

    #[tokio::test]
    async fn a_clock_that_is_wrong_is_set_by_the_servers() {
        let database = abax_testbed::Database::create().unwrap();
        let config = on(&database);
        Service::migrate(&config.database).await.unwrap();
        let clock = Clock::system();
        clock.set(-3_600_000_000, Duration::ZERO);
        Service::open(config, clock.clone()).await.unwrap();
        // Server and test run on one machine.
        assert!(clock.offset_micros().abs() < 5_000_000, "{}", clock.offset_micros());
    }
}
