//! What operators and users may know of the whole: how much there is, and what it
//! did. The lists are an admin's, of its own tenant.

use std::collections::HashMap;
use std::time::Duration;

use super::Service;
use crate::actor::Actor;
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::{Caller, Tenant};
use crate::search::Hits;
use crate::store::{self, Room};
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
    /// What it has and did.
    pub sums: ActorSums,
}

/// What an actor has and did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ActorSums {
    /// The actor.
    pub actor: ActorId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Who registered it.
    pub owner: String,
    /// What its executions run.
    pub image: String,
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
    pub actors: Vec<ActorSums>,
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
    /// used, oldest first, as many as fit an answer; for admins.
    ///
    /// # Errors
    ///
    /// [`Error::AdminsOnly`].
    pub async fn all_actors(&self, caller: &Caller) -> Result<Hits<ActorReport>, Error> {
        let (mut sums, fitting) = self.sums(caller).await?;
        let total = sums.len() as u64;
        sums.truncate(fitting);
        let ids: Vec<String> = sums.iter().map(|one| one.actor.to_string()).collect();
        let mut c = self.0.store.read().await?;
        let actors = store::search::all_actors(&mut c, &ids).await?;
        let mut sums: HashMap<_, _> =
            sums.into_iter().map(|one| (one.actor.clone(), one)).collect();
        let reports = actors.into_iter().filter_map(|actor| {
            let sums = sums.remove(&actor.id)?;
            Some(ActorReport { actor, sums })
        });
        Ok(Hits::new(total, reports.collect()))
    }

    /// What all actors of the caller's tenant have and did, oldest first; for admins.
    ///
    /// # Errors
    ///
    /// [`Error::AdminsOnly`].
    pub async fn all_actor_sums(&self, caller: &Caller) -> Result<Vec<ActorSums>, Error> {
        Ok(self.sums(caller).await?.0)
    }

    /// Those of all actors, and how many of the actors fit an answer.
    async fn sums(&self, caller: &Caller) -> Result<(Vec<ActorSums>, usize), Error> {
        admin(caller)?;
        let mut c = self.0.store.read().await?;
        let mut workers: HashMap<_, Vec<Worker>> = HashMap::new();
        for worker in store::statistics::workers(&mut c, &caller.tenant).await? {
            workers.entry(worker.actor.clone()).or_default().push(worker);
        }
        let all = store::statistics::actors(&mut c, &caller.tenant).await?;
        let mut room = Room::new();
        let fitting = all.iter().take_while(|one| room.takes(one.bytes)).count();
        let sums = all.into_iter().map(|one| ActorSums {
            workers: workers.remove(&one.actor).unwrap_or_default(),
            actor: one.actor,
            tenant: caller.tenant.clone(),
            owner: one.owner,
            image: one.image,
            messages: one.waiting,
            executions: one.executions,
            used: Used {
                runtime: Duration::from_micros(one.runtime_us),
                cpu_ns: one.cpu_ns,
                io_bytes: one.io_bytes,
            },
        });
        Ok((sums.collect(), fitting))
    }

    /// What all executions of the caller's tenant used, those that are gone
    /// included; for admins.
    ///
    /// # Errors
    ///
    /// [`Error::AdminsOnly`].
    pub async fn all_executions(&self, caller: &Caller) -> Result<ExecutionsReport, Error> {
        let actors = self.all_actor_sums(caller).await?;
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

impl ActorSums {
    /// As [`Actor::dbid`].
    #[must_use]
    pub fn dbid(&self) -> String {
        format!("{}_{}", self.tenant, self.actor)
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
