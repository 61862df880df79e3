//! What operators and users may know of the whole: how much there is, and what it
//! did. The lists are an admin's, of its own tenant.

use std::collections::HashMap;
use std::time::Duration;

use super::Service;
use crate::actor::Actor;
use crate::error::Error;
use crate::permission::Caller;
use crate::store;
use crate::worker::Worker;

/// How much there is, in all tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Utilization {
    /// Actors that are registered.
    pub current_actors: u64,
    /// Those that ever were.
    pub total_actors: u64,
    /// Workers of all actors.
    pub workers: u64,
    /// Executions that wait for hosts of the class `default`.
    pub waiting: u64,
}

/// An actor as admins see it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ActorReport {
    /// The actor.
    pub actor: Actor,
    /// Its workers, oldest first.
    pub workers: Vec<Worker>,
    /// Messages that wait.
    pub messages: u64,
    /// Executions that it has.
    pub executions: u64,
    /// What they used together.
    pub used: Used,
}

/// What executions used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// From start to exit.
    pub runtime: Duration,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes read and written.
    pub io_bytes: u64,
}

/// The actors of a tenant and what they did, with those that are gone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExecutionsReport {
    /// Those that are there, oldest first.
    pub actors: Vec<ActorReport>,
    /// Actors that are gone.
    pub actors_gone: u64,
    /// Those of them that ever had an execution.
    pub actors_gone_with_executions: u64,
    /// Executions that are gone, with their actors or since their time had come.
    pub executions_gone: u64,
    /// What those used.
    pub used_by_gone: Used,
}

impl Service {
    /// How much there is, in all tenants.
    ///
    /// # Errors
    ///
    /// [`Error::NotByNonce`].
    pub async fn utilization(&self, caller: &Caller) -> Result<Utilization, Error> {
        caller.must_be_a_user()?;
        let mut c = self.0.store.read().await?;
        let counts = store::statistics::counts(&mut c, "default").await?;
        Ok(Utilization {
            current_actors: counts.actors,
            total_actors: counts.actors + counts.actors_gone,
            workers: counts.workers,
            waiting: counts.waiting,
        })
    }

    /// All actors of the caller's tenant with their workers and what their executions
    /// used; for admins.
    ///
    /// # Errors
    ///
    /// [`Error::AdminsOnly`].
    pub async fn all_actors(&self, caller: &Caller) -> Result<Vec<ActorReport>, Error> {
        admin(caller)?;
        let mut c = self.0.store.read().await?;
        let mut workers: HashMap<_, Vec<Worker>> = HashMap::new();
        for worker in store::statistics::workers(&mut c, &caller.tenant).await? {
            workers.entry(worker.actor.clone()).or_default().push(worker);
        }
        let actors = store::statistics::actors(&mut c, &caller.tenant).await?;
        let reports = actors.into_iter().map(|sums| ActorReport {
            workers: workers.remove(&sums.actor.id).unwrap_or_default(),
            actor: sums.actor,
            messages: sums.waiting,
            executions: sums.executions,
            used: Used {
                runtime: Duration::from_micros(sums.runtime_us),
                cpu_ns: sums.cpu_ns,
                io_bytes: sums.io_bytes,
            },
        });
        Ok(reports.collect())
    }

    /// What all executions of the caller's tenant used, those that are gone
    /// included; for admins.
    ///
    /// # Errors
    ///
    /// [`Error::AdminsOnly`].
    pub async fn all_executions(&self, caller: &Caller) -> Result<ExecutionsReport, Error> {
        let actors = self.all_actors(caller).await?;
        let mut c = self.0.store.read().await?;
        let gone = store::statistics::gone(&mut c, &caller.tenant).await?;
        Ok(ExecutionsReport {
            actors,
            actors_gone: gone.actors,
            actors_gone_with_executions: gone.actors_with_executions,
            executions_gone: gone.executions,
            used_by_gone: Used {
                runtime: Duration::from_micros(gone.runtime_us),
                cpu_ns: gone.cpu_ns,
                io_bytes: gone.io_bytes,
            },
        })
    }
}

impl Used {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            runtime: self.runtime.saturating_add(other.runtime),
            cpu_ns: self.cpu_ns.saturating_add(other.cpu_ns),
            io_bytes: self.io_bytes.saturating_add(other.io_bytes),
        }
    }
}

fn admin(caller: &Caller) -> Result<(), Error> {
    caller.must_be_a_user()?;
    match caller.is_admin() {
        true => Ok(()),
        false => Err(Error::AdminsOnly { what: "see the actors of everybody" }),
    }
}
