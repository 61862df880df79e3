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

use super::{Delivery, Hold, capacity};
use crate::clock::{Clock, Time};
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::store::{self, Announcement, Store};

/// How long to wait for what another process may have queued, or for a delay
/// to end.
const POLL: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct Embedded(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    workers_per_actor: u32,
    /// One receiver looks at a time; the others wait for their turn.
    looking: tokio::sync::Mutex<()>,
    changed: Notify,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    reserved: HashMap<ExecutionId, Reserved>,
    /// When each tenant and each actor had its last turn, in turns.
    tenants: HashMap<Tenant, u64>,
    turns: HashMap<ActorId, u64>,
    turn: u64,
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
            looking: tokio::sync::Mutex::new(()),
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
        let _looking = self.0.looking.lock().await;
        loop {
            // Made before looking, so that nothing is missed in between.
            let changed = self.0.changed.notified();
            if let Some(delivery) = self.look(classes).await? {
                // Another receiver may find more.
                self.wake();
                return Ok(delivery);
            }
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    async fn look(&self, classes: &[String]) -> Result<Option<Delivery>, Error> {
        let now = self.0.clock.now();
        let mut connection = self.0.store.read().await?;
        let mut candidates = store::waiting::candidates(&mut connection).await?;
        candidates.retain(|candidate| classes.contains(&candidate.class));
        let mut reserved_by_actor: HashMap<ActorId, usize> = HashMap::new();
        {
            let mut taken = self.0.taken();
            taken.reserved.retain(|_, r| r.until.is_none_or(|until| until > now));
            for reserved in taken.reserved.values() {
                *reserved_by_actor.entry(reserved.actor.clone()).or_default() += 1;
            }
            // Who has waited longest for a turn is first: the tenant, then the
            // actor of its actors.
            candidates.sort_by_key(|c| {
                let tenant = taken.tenants.get(&c.tenant).copied().unwrap_or(0);
                (tenant, taken.turns.get(&c.actor).copied().unwrap_or(0))
            });
            if taken.turns.len() > candidates.len() + 1_000 {
                let waiting: std::collections::HashSet<_> =
                    candidates.iter().map(|c| &c.actor).collect();
                taken.turns.retain(|actor, _| waiting.contains(actor));
                let tenants: std::collections::HashSet<_> =
                    candidates.iter().map(|c| &c.tenant).collect();
                taken.tenants.retain(|tenant, _| tenants.contains(tenant));
            }
        }
        for candidate in candidates {
            let reserved = reserved_by_actor.get(&candidate.actor).copied().unwrap_or(0);
            let capacity =
                capacity(candidate.stateless, candidate.max_workers, self.0.workers_per_actor);
            if candidate.running.saturating_add(reserved as u64) >= capacity {
                continue;
            }
            // A stateful actor's first execution is waited for, also when it is
            // delayed; a stateless one's is passed by.
            let (visible_at, limit) =
                if candidate.stateless { (Some(now), reserved + 1) } else { (None, 1) };
            let head =
                store::waiting::head(&mut connection, &candidate.actor, visible_at, limit).await?;
            let mut taken = self.0.taken();
            let free = head
                .into_iter()
                .find(|(id, visible)| *visible <= now && !taken.reserved.contains_key(id));
            let Some((execution, _)) = free else { continue };
            let actor = candidate.actor;
            taken.turn += 1;
            let turn = taken.turn;
            taken.turns.insert(actor.clone(), turn);
            taken.tenants.insert(candidate.tenant, turn);
            let reserved = Reserved { actor: actor.clone(), until: None };
            taken.reserved.insert(execution.clone(), reserved);
            let reservation =
                Reservation { queue: self.clone(), execution: Some(execution.clone()) };
            let hold = Hold::Reserved(reservation);
            return Ok(Some(Delivery { execution, actor, hold }));
        }
        Ok(None)
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
