//! What does not move and should.

use std::time::{Duration, Instant};

use super::Service;
use crate::clock::Time;
use crate::error::Error;
use crate::store::{self, Broken, Overdue, Waiting};

/// More of one kind is no more to learn from.
const LIMIT: i64 = 50;

/// What was found at one moment. Of each kind the first 50.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The moment, by the database's clock where it is a server.
    pub at: Time,
    /// How long the database took to answer a read.
    pub latency: Duration,
    /// Running executions whose lease is long over: nobody sweeps.
    pub overdue: Vec<Overdue>,
    /// Actors that have room and whose executions wait all the same.
    pub waiting: Vec<Waiting>,
    /// Actors that cannot run.
    pub broken: Vec<Broken>,
}

impl Service {
    /// Looks for leases that were over for `patience`, and for executions that
    /// waited for as long though their actor has room. Reads only.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn diagnose(&self, patience: Duration) -> Result<Diagnosis, Error> {
        let mut c = self.0.store.read().await?;
        let began = Instant::now();
        let broken = store::diagnosis::broken(&mut c, LIMIT).await?;
        let latency = began.elapsed();
        let at = self.0.clock.now();
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        let before = Time::from_micros(at.micros().saturating_sub(patience));
        let overdue = store::diagnosis::overdue(&mut c, before, LIMIT).await?;
        let mut waiting = store::diagnosis::waiting(&mut c, before, LIMIT).await?;
        let default = self.0.config.max_workers_per_actor;
        waiting.retain(|actor| actor.running < actor.capacity.at_once(default));
        Ok(Diagnosis { at, latency, overdue, waiting, broken })
    }
}
