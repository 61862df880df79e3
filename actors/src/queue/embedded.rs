//! The queue as a look at the rows that wait: no broker needed.
//!
//! What is delivered and not yet claimed is known to this process only: a
//! crash forgets it, and so everything unclaimed is deliverable again. A second
//! process on the same database may be handed the same execution; one of the two
//! claims it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::turns::{Line, Turns};
use super::{Delivery, Hold};
use crate::clock::{Clock, Time};
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::store::waiting::Candidate;
use crate::store::{self, Announcement, Connection, Store};

/// How long to wait for what another process may have queued, or for a delay
/// to end.
const POLL: Duration = Duration::from_millis(500);
/// A line of fewer actors is made anew for each delivery.
const SHORT: usize = 100;
/// A longer one lasts for so many times as long as it took to make, so that
/// looking takes a small part of the time, however many actors wait.
const LASTS: u32 = 10;

#[derive(Clone)]
pub(crate) struct Embedded(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    workers_per_actor: u32,
    /// One receiver looks at a time; the others wait for their turn.
    looking: tokio::sync::Mutex<Looked>,
    changed: Notify,
    taken: Mutex<Taken>,
}

/// What the last look at all actors with something waiting found.
struct Looked {
    line: Line,
    /// The classes that it was for.
    classes: Vec<String>,
    /// When it is too old.
    until: Instant,
}

impl Default for Looked {
    fn default() -> Self {
        Self { line: Line::default(), classes: Vec::new(), until: Instant::now() }
    }
}

#[derive(Default)]
struct Taken {
    reserved: HashMap<ExecutionId, Reserved>,
    turns: Turns,
}

struct Reserved {
    actor: ActorId,
    /// Handed out, or not before this moment.
    until: Option<Time>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("reserved", &self.0.taken().reserved.len()).finish()
    }
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it holds the reservations")
    }
}

impl Embedded {
    pub(crate) fn new(store: Store, clock: Clock, workers_per_actor: u32) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            workers_per_actor,
            looking: tokio::sync::Mutex::new(Looked::default()),
            changed: Notify::new(),
            taken: Mutex::default(),
        }))
    }

    /// Tells the other processes that something may be deliverable.
    pub(crate) fn announce(&self) {
        self.0.store.announce(Announcement::Work);
    }

    pub(crate) fn wake(&self) {
        self.0.changed.notify_one();
    }

    pub(crate) async fn receive(&self, classes: &[String]) -> Result<Delivery, Error> {
        let mut looked = self.0.looking.lock().await;
        loop {
            // Made before looking, so that nothing is missed in between.
            let changed = self.0.changed.notified();
            if let Some(delivery) = self.look(&mut looked, classes).await? {
                // Another receiver may find more.
                self.wake();
                return Ok(delivery);
            }
            // What comes meanwhile into a long line does not make us look sooner.
            tokio::time::sleep_until(looked.until).await;
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    /// Goes along the line of actors, or a new one when it is old or at its end.
    async fn look(
        &self,
        looked: &mut Looked,
        classes: &[String],
    ) -> Result<Option<Delivery>, Error> {
        let mut connection = self.0.store.read().await?;
        if looked.until > Instant::now() && looked.classes == classes {
            let delivery = self.first_in_line(&mut connection, &mut looked.line).await?;
            if delivery.is_some() {
                return Ok(delivery);
            }
        }
        let began = Instant::now();
        let default_capacity = self.0.workers_per_actor;
        let now = self.0.clock.now();
        let mut candidates =
            store::waiting::candidates(&mut connection, now, default_capacity).await?;
        candidates.retain(|candidate| classes.contains(&candidate.class));
        let short = candidates.len() < SHORT;
        looked.line = self.0.taken().turns.line_up(candidates);
        classes.clone_into(&mut looked.classes);
        let lasts = if short { Duration::ZERO } else { began.elapsed() * LASTS };
        looked.until = Instant::now() + lasts;
        self.first_in_line(&mut connection, &mut looked.line).await
    }

    async fn first_in_line(
        &self,
        c: &mut Connection,
        line: &mut Line,
    ) -> Result<Option<Delivery>, Error> {
        let now = self.0.clock.now();
        while let Some(candidate) = line.next() {
            let Some(execution) = self.free(c, &candidate, now).await? else { continue };
            let actor = candidate.actor.clone();
            let mut taken = self.0.taken();
            taken.turns.take(&candidate);
            line.put_last(candidate);
            let reserved = Reserved { actor: actor.clone(), until: None };
            taken.reserved.insert(execution.clone(), reserved);
            let reservation =
                Reservation { queue: self.clone(), execution: Some(execution.clone()) };
            let hold = Hold::Reserved(reservation);
            return Ok(Some(Delivery { execution, actor, hold }));
        }
        Ok(None)
    }

    /// The next execution of an actor that may run and that nobody has, if there
    /// is one and room for it.
    async fn free(
        &self,
        c: &mut Connection,
        candidate: &Candidate,
        now: Time,
    ) -> Result<Option<ExecutionId>, Error> {
        let Candidate { actor, capacity, .. } = candidate;
        let reserved = {
            let mut taken = self.0.taken();
            taken.reserved.retain(|_, r| r.until.is_none_or(|until| until > now));
            taken.reserved.values().filter(|r| r.actor == *actor).count()
        };
        let running = store::executions::count_running(c, actor).await?;
        let at_once = capacity.at_once(self.0.workers_per_actor);
        if running.saturating_add(reserved as u64) >= at_once {
            return Ok(None);
        }
        // A stateful actor's first execution is waited for, also when it is
        // delayed; a stateless one's is passed by.
        let (visible_at, limit) =
            if capacity.stateless { (Some(now), reserved + 1) } else { (None, 1) };
        let head = store::waiting::head(c, actor, visible_at, limit).await?;
        let taken = self.0.taken();
        let free = head
            .into_iter()
            .find(|(id, visible)| *visible <= now && !taken.reserved.contains_key(id));
        Ok(free.map(|(execution, _)| execution))
    }
}

/// Keeps an execution from being delivered twice by this process.
#[derive(Debug)]
pub(crate) struct Reservation {
    queue: Embedded,
    execution: Option<ExecutionId>,
}

impl Reservation {
    /// Ends it; the row waits no more, or is about to be delivered again.
    pub(crate) fn settle(mut self) {
        self.end();
    }

    /// Ends it after `delay`.
    pub(crate) fn hold(mut self, delay: Duration) {
        if let Some(execution) = self.execution.take() {
            let until = self.queue.0.clock.now().after(delay);
            let mut taken = self.queue.0.taken();
            if let Some(reserved) = taken.reserved.get_mut(&execution) {
                reserved.until = Some(until);
            }
        }
    }

    fn end(&mut self) {
        if let Some(execution) = self.execution.take() {
            self.queue.0.taken().reserved.remove(&execution);
            self.queue.wake();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end();
    }
}
