//! What is done without anybody asking, by one process at a time: each job is a
//! row that says when it is due, and whoever moves that on does it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::upkeep::TO_SET_RIGHT;
use super::{Service, Swept};
use crate::Chain;
use crate::clock::Time;
use crate::config::QueueConfig;
use crate::error::Error;
use crate::store;

/// How often a process looks for jobs that are due.
const LOOK: Duration = Duration::from_secs(1);
/// How often hosts are called for work that nobody has taken.
const ACTIVATE_EVERY: Duration = Duration::from_secs(2);
/// Work that is younger was called for when it came.
const ACTIVATE_AFTER: Duration = Duration::from_secs(3);
/// Hosts are not called again for the same actor before.
const ACTIVATE_AGAIN: Duration = Duration::from_secs(10);
/// Actors that hosts are called for in one go.
const ACTIVATE_AT_ONCE: u32 = 1_000;
/// How often executions are removed whose time has come.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How often secrets of older keys are looked for.
const RESEAL_EVERY: Duration = Duration::from_secs(60);
/// Transactions in a row that remove executions; the rest is left for the next
/// time.
const REMOVE_BATCHES: u32 = 200;
/// How often schedules are looked at, whose times are hours.
const SCHEDULE_EVERY: Duration = Duration::from_secs(15);
/// How often events are looked for that nobody has delivered.
const DELIVER_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Sweep,
    Activate,
    Retain,
    Schedule,
    Deliver,
    Reseal,
}

impl Job {
    const ALL: [Self; 6] =
        [Self::Sweep, Self::Activate, Self::Retain, Self::Schedule, Self::Deliver, Self::Reseal];

    /// Its row.
    fn name(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Activate => "activate",
            Self::Retain => "retain",
            Self::Schedule => "schedule",
            Self::Deliver => "deliver",
            Self::Reseal => "reseal",
        }
    }
}

impl Service {
    /// Does what is due until `stop`, in any number of processes: each job is done
    /// by one of them at a time. What fails is logged and done again.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // What is half done then, the next process finds, as after a crash.
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = self.do_what_is_due() => done,
            };
            if let Err(error) = done {
                warn!(error = %Chain(&error), "could not look for jobs that are due");
            }
        }
    }

    async fn do_what_is_due(&self) -> Result<(), Error> {
        let due = {
            let mut c = self.0.store.read().await?;
            store::jobs::due(&mut c).await?
        };
        for job in Job::ALL {
            let now = self.0.clock.now();
            let Some(every) = self.every(job) else { continue };
            let (name, next, latest) = (job.name(), now.after(every), now.after(every * 2));
            if due.get(name).is_some_and(|due| *due > now && *due <= latest) {
                continue;
            }
            let taken = self
                .0
                .store
                .write(move |c| {
                    Box::pin(async move { store::jobs::take(c, name, now, next, latest).await })
                })
                .await?;
            if taken && let Err(error) = self.perform(job).await {
                warn!(error = %Chain(&error), job = name, "could not {name}");
            }
        }
        Ok(())
    }

    /// How often a job is done; never, where there is nothing for it to do.
    fn every(&self, job: Job) -> Option<Duration> {
        let config = &self.0.config;
        match job {
            Job::Sweep => Some(config.sweep_every),
            // Without a broker everybody looks at the rows.
            Job::Activate => {
                (!matches!(config.queue, QueueConfig::Database)).then_some(ACTIVATE_EVERY)
            }
            Job::Retain => Some(RETAIN_EVERY),
            Job::Schedule => Some(SCHEDULE_EVERY),
            Job::Deliver => Some(DELIVER_EVERY),
            Job::Reseal => config.secret_keys.sealing().map(|_| RESEAL_EVERY),
        }
    }

    async fn perform(&self, job: Job) -> Result<(), Error> {
        match job {
            Job::Sweep => {
                let swept = self.sweep().await?;
                if swept != Swept::default() {
                    let Swept { retried, ended, .. } = swept;
                    info!(retried, ended, "swept: {retried} to try again, {ended} ended");
                }
            }
            Job::Activate => {
                let activated = self.activate_overdue().await?;
                if activated > 0 {
                    info!(activated, "called hosts again for {activated} actors");
                }
            }
            Job::Retain => {
                let removed = self.remove_old_executions().await?;
                if removed > 0 {
                    info!(removed, "removed {removed} executions whose time has come");
                }
                self.remove_old_deliveries().await?;
            }
            Job::Schedule => {
                let executed = self.run_schedules().await?;
                if executed > 0 {
                    info!(executed, "executed {executed} actors by their schedules");
                }
            }
            Job::Deliver => {
                let delivered = self.deliver_to_links_for_a_while().await?;
                if delivered > 0 {
                    info!(delivered, "told linked actors of {delivered} events that were left");
                }
            }
            Job::Reseal => {
                let sealed = self.reseal_secrets().await?;
                if sealed > 0 {
                    info!(sealed, "sealed {sealed} secrets of older keys under the first key");
                }
            }
        }
        Ok(())
    }

    /// Calls hosts for actors that have had work for a while: a call was lost, or
    /// the work came back by itself. Says for how many.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn activate_overdue(&self) -> Result<u64, Error> {
        if self.queue_state().is_some_and(|state| !state.connected) {
            // They would only pile up here.
            return Ok(0);
        }
        let now = self.0.clock.now();
        let default_capacity = self.0.config.max_workers_per_actor;
        let overdue = store::waiting::Overdue {
            now,
            since: before(now, ACTIVATE_AFTER),
            called_before: before(now, ACTIVATE_AGAIN),
            default_capacity,
            limit: ACTIVATE_AT_ONCE,
        };
        let activations = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move { store::waiting::call_for_overdue(c, overdue).await })
            })
            .await?;
        let count = activations.len() as u64;
        if let Some(broker) = self.0.queue.broker() {
            broker.repeat(activations).await?;
        } else if count > 0 {
            self.0.queue.wake();
        }
        Ok(count)
    }

    /// Removes executions that ended longer ago than
    /// [`crate::Config::execution_retention`], with their messages and logs. Says
    /// how many.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn remove_old_executions(&self) -> Result<u64, Error> {
        let Some(retention) = self.0.config.execution_retention else { return Ok(0) };
        let ended_before = self.0.clock.settled(TO_SET_RIGHT).before(retention);
        let mut removed = 0;
        for _ in 0..REMOVE_BATCHES {
            let batch = self
                .0
                .store
                .write(move |c| {
                    Box::pin(async move { store::executions::remove_ended(c, ended_before).await })
                })
                .await?;
            removed += batch;
            if batch < store::executions::REMOVED_AT_ONCE {
                break;
            }
        }
        Ok(removed)
    }
}

fn before(now: Time, ago: Duration) -> Time {
    Time::from_micros(
        now.micros().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)),
    )
}
