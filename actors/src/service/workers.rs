//! Rules of workers: list, ask for more, stop one.

use super::{Service, authorized};
use crate::error::{Error, Noun};
use crate::id::WorkerId;
use crate::permission::{Caller, Level};
use crate::store;
use crate::worker::Worker;

/// Workers that an admin may ask for.
const MOST: i64 = 1_000;

/// What asking for workers came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkersAsked {
    /// How many there were.
    pub before: u64,
    /// How many were asked for besides.
    pub added: u64,
}

impl Service {
    /// The workers of an actor, oldest first; needs READ.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn workers(&self, caller: &Caller, actor: &str) -> Result<Vec<Worker>, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        store::workers::of_actor(&mut c, &actor.id).await
    }

    /// One worker of an actor; needs READ.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn worker(
        &self,
        caller: &Caller,
        actor: &str,
        worker: &str,
    ) -> Result<Worker, Error> {
        let workers = self.workers(caller, actor).await?;
        workers.into_iter().find(|found| found.id.as_str() == worker).ok_or_else(|| missing(worker))
    }

    /// Has an actor have `wanted` workers at least, whatever its own limit: so many
    /// of its executions may run at once, until they have been idle for a while.
    /// Only for admins. A stateful actor's executions run one after the other all
    /// the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdminsOnly`], [`Error::Invalid`] for more than
    /// a thousand.
    pub async fn ask_for_workers(
        &self,
        caller: &Caller,
        actor: &str,
        wanted: i64,
    ) -> Result<WorkersAsked, Error> {
        // Who may not know of the actor hears that.
        let known = self.actor_for(caller, actor, Level::Read).await?;
        if !caller.is_admin() {
            return Err(Error::AdminsOnly { what: "update workers" });
        }
        if wanted > MOST {
            return Err(Error::invalid("num", format!("at most {MOST} workers can be asked for")));
        }
        let wanted = u64::try_from(wanted).unwrap_or(1).max(1);
        let (id, now) = (known.id.clone(), self.0.clock.now());
        let asked = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(actor) = store::actors::lock(c, &id).await? else {
                        return Err(Error::NotFound { noun: Noun::Actor, id: id.to_string() });
                    };
                    let before = store::workers::count(c, &actor.id).await?;
                    let added = wanted.saturating_sub(before);
                    for _ in 0..added {
                        store::workers::request(c, &actor.id, now).await?;
                    }
                    let wanted = wanted.max(u64::from(actor.wanted_workers));
                    store::actors::set_wanted_workers(c, &actor.id, wanted).await?;
                    Ok(WorkersAsked { before, added })
                })
            })
            .await?;
        self.actors_changed();
        self.0.queue.actor_changed(&known.id);
        Ok(asked)
    }

    /// Stops a worker; needs UPDATE on its actor. One that is idle has gone when
    /// this returns, one that is busy goes when its execution has ended.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn stop_worker(
        &self,
        caller: &Caller,
        actor: &str,
        worker: &str,
    ) -> Result<(), Error> {
        let (caller, actor, worker) = (caller.clone(), actor.to_owned(), worker.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let actor = authorized(c, &caller, &actor, Level::Update).await?;
                    store::actors::lock(c, &actor.id).await?;
                    let id = WorkerId::parse(&worker).ok_or_else(|| missing(&worker))?;
                    if !store::workers::stop(c, &actor.id, &id).await? {
                        return Err(missing(&worker));
                    }
                    let left = store::workers::count(c, &actor.id).await?;
                    let wanted = left.min(u64::from(actor.wanted_workers));
                    store::actors::set_wanted_workers(c, &actor.id, wanted).await
                })
            })
            .await
    }
}

fn missing(worker: &str) -> Error {
    Error::NotFound { noun: Noun::Worker, id: worker.to_owned() }
}
