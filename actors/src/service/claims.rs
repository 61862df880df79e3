//! The protocol between the service and the hosts that run executions, up to
//! the end of the container.
//!
//! ```text
//! register_host ─► recover ─► receive ─► claim ─► record_phase, append_logs … ─► finish
//!                                          └──── renew, until settled ────┘  └─► release, retry
//! ```
//!
//! A claim holds while its epoch is the row's. A host that hears that a claim
//! is lost kills the container and tells nobody.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::error;

use super::configs::{ForExecution, for_execution};
use super::events::{Noted, note};
use super::{POLL, Service};
use crate::actor::{Actor, ActorStatus};
use crate::clock::Time;
use crate::environment::environment;
use crate::error::{Chain, Error};
use crate::event::{Event, EventKind};
use crate::execution::{Execution, ExecutionStatus, Outcome, Phase, Phases};
use crate::host::{DefaultLimits, Needs};
use crate::id::{ActorId, ExecutionId, HostId, WorkerId};
use crate::message::NewMessage;
use crate::metrics;
use crate::queue::{Activation, Capacity, Delivery};
use crate::revision::RevisionImage;
use crate::secret::SecretKeys;
use crate::store::executions::{Lease, Stored};
use crate::store::hosts::Stored as Host;
use crate::store::logs::Piece;
use crate::store::{self, Connection};
use crate::tenant::TenantsSettings;

/// When an execution that its actor has no room for is looked at again.
const NO_ROOM: Duration = Duration::from_millis(200);
/// When an execution is looked at again here that this host may not take, or not
/// now: others may meanwhile.
const NOT_HERE: Duration = Duration::from_millis(500);
/// When an execution whose claim failed is tried again: what is wrong with the
/// store or its row is not over at once.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// How often it is said that a secret cannot be opened.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a claim is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which claim of it.
    pub epoch: i64,
}

/// An execution that is a host's to run.
#[derive(Clone)]
#[non_exhaustive]
pub struct Claim {
    /// What to renew, report and settle it by.
    pub key: ClaimKey,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The actor as it was when the claim was made.
    pub actor: Actor,
    /// The execution as it is now.
    pub execution: Execution,
    /// The image that it runs. Where it is not pinned yet, say what was found by
    /// [`Service::pin_image`], and run what that answers.
    pub image: RevisionImage,
    /// What it handles.
    pub message: NewMessage,
    /// The worker it is shown under.
    pub worker: WorkerId,
    /// The environment of the container; the image's own stands below it.
    /// `_abaco_access_token` is empty. Never to be logged.
    pub environment: Vec<(String, String)>,
}

impl Claim {
    /// The user and group of the hosts as which it runs; none for the image's.
    #[must_use]
    pub fn user(&self) -> Option<(u32, u32)> {
        let Actor { use_container_uid, run_as_executor, user, .. } = &self.actor;
        match self.execution.executor_user {
            _ if *use_container_uid => None,
            Some(executor) => Some(executor),
            // What was sent when it did not run as its senders is nobody's, not its owner's.
            None => user.filter(|_| !run_as_executor),
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("key", &self.key)
            .field("attempt", &self.attempt)
            .field("actor", &self.actor.id)
            .field("worker", &self.worker)
            .field("environment", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// What a host hears when it renews its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Claims that do not hold any more: kill the container, tell nobody.
    pub lost: Vec<ClaimKey>,
    /// Claims that hold and shall end: stop the container, finish as cancelled.
    pub halted: Vec<ClaimKey>,
    /// The host may not take more for now.
    pub cordoned: bool,
    /// The host is not known any more, since nothing was heard of it for too long:
    /// register it again.
    pub forgotten: bool,
}

/// Why a running execution must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Somebody asked for it: finish as cancelled.
    Halted,
    /// The claim does not hold any more: tell nobody.
    Lost,
}

/// What became of a delivery.
enum Claimed {
    Yes(Box<Claim>),
    /// Nothing to run: it ended, or somebody else has it.
    Gone,
    /// Not now: its actor runs what it may.
    NoRoom,
    /// Not by this host, or not now: it takes nothing, or has no room for so much.
    NotHere,
    /// Not by this process, which cannot open a secret that it gets.
    Sealed(Error),
    /// No host could ever run it, so it has ended.
    Hopeless,
    /// No process can give its actor's executions what they are to get, until
    /// somebody changes that: they wait.
    Misconfigured {
        revision: i64,
        reason: String,
    },
}

/// When it was said last that a secret could not be opened: each execution that
/// waits for it would say so twice a second.
#[derive(Debug, Default)]
pub(super) struct Sealed(Mutex<Option<Instant>>);

impl Sealed {
    fn say(&self, error: &Error) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            *said = Some(Instant::now());
            error!(
                error = %Chain(error),
                "an execution waits for a process that can open the secret of its config: \
                 give this one the same secret keys as the others"
            );
        }
    }
}

impl Service {
    /// The next execution of an actor of one of `classes` that may run; waits until
    /// there is one. Ask only with a free slot; `room` is how many there are.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    ///
    /// # Errors
    ///
    /// Only those of every function; wait a little before the next try.
    pub async fn receive(&self, classes: &[String], room: u32) -> Result<Delivery, Error> {
        self.0.queue.receive(classes, room).await
    }

    /// Makes a delivered execution the host's for the time of `lease`, and settles
    /// the delivery. `None` when there is nothing to run: it ended, another host
    /// has it, its actor has no room now, or this host takes nothing or has not
    /// enough memory or CPUs left for the limits of the actor (it comes back). What
    /// no host of the last day could run ends as could not start.
    ///
    /// # Errors
    ///
    /// Only those of every function; the delivery comes back after a while.
    pub async fn claim(
        &self,
        delivery: Delivery,
        host: &HostId,
        lease: Duration,
    ) -> Result<Option<Claim>, Error> {
        let now = self.0.clock.now();
        let execution = delivery.execution.clone();
        let host = host.clone();
        let called = self.0.queue.broker().is_some();
        let default_capacity = self.0.config.max_workers_per_actor;
        let default_limits = self.0.config.default_limits;
        let api_server = self.0.config.api_server.clone();
        let tenants = self.0.config.tenants.clone();
        let standing = self.0.clock.standing();
        let keys = self.0.config.secret_keys.clone();
        let actor = delivery.actor.clone();
        let claimed = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let by = By {
                        host,
                        now,
                        lease: Lease { lasts: lease, from: now, standing },
                        default_capacity,
                        default_limits,
                        api_server,
                        tenants,
                        keys,
                    };
                    let claimed = claim(c, &execution, &by).await?;
                    if called {
                        follow(c, &actor, claimed, &by).await
                    } else {
                        Ok((claimed, Follow::Nothing))
                    }
                })
            })
            .await;
        let claimed = claimed.map(|(claimed, follow)| {
            match (follow, self.0.queue.broker()) {
                (Follow::Publish(activation), _) => self.0.queue.activate(activation),
                (Follow::Owed, Some(broker)) => broker.owed(&delivery.actor),
                _ => {}
            }
            claimed
        });
        match claimed {
            Ok(Claimed::Yes(claim)) => {
                delivery.ack();
                self.changed(&claim.key.execution);
                Ok(Some(*claim))
            }
            Ok(Claimed::Gone) => {
                delivery.ack();
                Ok(None)
            }
            Ok(Claimed::Hopeless) => {
                metrics::execution_finished(Outcome::CouldNotStart, &Phases::default());
                self.changed(&delivery.execution);
                delivery.ack();
                self.0.queue.wake();
                Ok(None)
            }
            Ok(Claimed::NotHere) => {
                delivery.retry_after(NOT_HERE);
                Ok(None)
            }
            Ok(Claimed::Sealed(error)) => {
                self.0.sealed.say(&error);
                delivery.retry_after(NOT_HERE);
                Ok(None)
            }
            Ok(Claimed::Misconfigured { revision, reason }) => {
                let reason =
                    format!("{reason}; change its configs, and then update the actor with force");
                let failed = self.actor_failed(&delivery.actor, revision, &reason).await;
                delivery.retry_after(CLAIM_AGAIN);
                failed.map(|_| None)
            }
            Ok(Claimed::NoRoom) => {
                if called {
                    // Whoever makes room publishes it again.
                    delivery.ack();
                } else {
                    delivery.retry_after(NO_ROOM);
                }
                Ok(None)
            }
            Err(error) => {
                if let Some(broker) = self.0.queue.broker()
                    && !error.is_transient()
                {
                    broker.put_off(&delivery.execution, CLAIM_AGAIN).await;
                }
                delivery.retry_after(CLAIM_AGAIN);
                Err(error)
            }
        }
    }

    /// Prolongs the leases of claims to `lease` from now, and says which of them
    /// are lost and which shall end, and whether the host may take more. Call it
    /// several times per lease, with every claim that is not settled, or none: it
    /// also says that the host lives.
    ///
    /// # Errors
    ///
    /// Only those of every function; the leases go on running out.
    pub async fn renew(
        &self,
        host: &HostId,
        claims: &[ClaimKey],
        lease: Duration,
    ) -> Result<Renewal, Error> {
        let now = self.0.clock.now();
        let (host, claims) = (host.clone(), claims.to_vec());
        // The service's clock goes by the database's, the machine's own does not.
        let ahead = self.0.clock.offset_micros().saturating_neg();
        let standing = self.0.clock.standing();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let lease = Lease { lasts: lease, from: now, standing };
                    let cordoned = store::hosts::set_seen(c, &host, now, ahead).await?;
                    let mut renewal = Renewal {
                        cordoned: cordoned.unwrap_or(false),
                        forgotten: cordoned.is_none(),
                        ..Renewal::default()
                    };
                    for key in claims {
                        let halted =
                            store::executions::renew(c, &key.execution, key.epoch, &host, lease)
                                .await?;
                        match halted {
                            None => renewal.lost.push(key),
                            Some(true) => renewal.halted.push(key),
                            Some(false) => {}
                        }
                    }
                    Ok(renewal)
                })
            })
            .await
    }

    /// Waits until a claim must stop: a halt is asked for, or the claim is lost
    /// or settled. At once when it happens in this process.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn interrupted(&self, claim: &ClaimKey) -> Result<Interruption, Error> {
        loop {
            let mut changes = self.0.changes.subscribe();
            let stored = {
                let mut c = self.0.store.read().await?;
                store::executions::find(&mut c, &claim.execution).await?
            };
            match stored {
                Some(stored)
                    if stored.epoch == claim.epoch
                        && stored.execution.status == ExecutionStatus::Running =>
                {
                    if stored.execution.halt_requested {
                        return Ok(Interruption::Halted);
                    }
                }
                _ => return Ok(Interruption::Lost),
            }
            Self::may_have_changed(&mut changes, &claim.execution, POLL).await;
        }
    }

    /// Notes that a claim reached `phase` now. `ImageReady` makes a SUBMITTED
    /// actor READY, and ends the rest of one that rested. False when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn record_phase(&self, claim: &ClaimKey, phase: Phase) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let key = claim.clone();
        let (held, rested, noted) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let rested = match phase {
                        Phase::ImageReady => {
                            store::actors::end_rest_by(c, execution, *epoch).await?
                        }
                        _ => None,
                    };
                    let held =
                        store::executions::record_phase(c, execution, *epoch, phase, now).await?;
                    let mut noted = Noted::default();
                    if held
                        && phase == Phase::ImageReady
                        && let Some(actor) = store::actors::set_ready_by(c, execution).await?
                    {
                        noted = became_ready(c, &actor, execution, now).await?;
                    }
                    Ok((held, rested, noted))
                })
            })
            .await?;
        self.tell(noted);
        if let Some(actor) = rested {
            self.0.queue.actor_changed(&actor);
        }
        self.changed(&claim.execution);
        Ok(held)
    }

    /// Appends output of a claim, which begins at `position` of all its output, in
    /// bytes; what the log has of it already is left out, so that who did not get
    /// the answer may ask again. What exceeds [`crate::Config::max_log_bytes`] is
    /// cut, and the log says so; `truncated` says that the host cut already. False
    /// when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn append_logs(
        &self,
        claim: &ClaimKey,
        position: u64,
        bytes: &[u8],
        truncated: bool,
    ) -> Result<bool, Error> {
        let limit = self.0.config.max_log_bytes;
        let (key, bytes) = (claim.clone(), bytes.to_vec());
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    let piece = Piece { position, bytes: &bytes, truncated };
                    store::logs::append(c, execution, *epoch, piece, limit).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        Ok(held)
    }
}

/// Has an actor's event told, and its workers be the host's that has its image for
/// an execution.
async fn became_ready(
    c: &mut Connection,
    actor: &Actor,
    execution: &ExecutionId,
    now: Time,
) -> Result<Noted, Error> {
    if let Some(host) = store::executions::host_of(c, execution).await? {
        store::workers::provide(c, actor, &host).await?;
    }
    let event = Event::of_status(EventKind::ActorReady, &actor.status_message);
    note(c, actor, &event, now).await
}

/// Who claims, when and how.
#[derive(Clone)]
struct By {
    host: HostId,
    now: Time,
    lease: Lease,
    default_capacity: u32,
    default_limits: DefaultLimits,
    api_server: String,
    tenants: TenantsSettings,
    keys: SecretKeys,
}

/// What becomes of the activation that a claim was called by.
enum Follow {
    /// It is used up.
    Nothing,
    /// Another follows it.
    Publish(Activation),
    /// Another would follow it, but there is no room: it is noted.
    Owed,
}

/// What an activation comes to: an execution, if the actor has one that may run,
/// though it is not the one that was first when the activation came. The next
/// activation follows it, if more wait than are called for.
async fn follow(
    c: &mut Connection,
    actor: &ActorId,
    mut claimed: Claimed,
    by: &By,
) -> Result<(Claimed, Follow), Error> {
    let mut work = store::activations::work(c, actor, by.now, by.default_capacity).await?;
    if matches!(claimed, Claimed::Gone)
        && let Some(next) = work.as_ref().and_then(|work| work.next.clone())
    {
        claimed = claim(c, &next, by).await?;
        work = store::activations::work(c, actor, by.now, by.default_capacity).await?;
    }
    let Some(work) = work.filter(|work| work.runnable) else {
        return Ok((claimed, Follow::Nothing));
    };
    let spread = store::activations::spread(work.capacity);
    let more = match claimed {
        Claimed::Yes(_) => work.waiting >= spread,
        Claimed::NoRoom | Claimed::Hopeless => work.waiting > 0,
        // It comes back by itself.
        Claimed::Gone | Claimed::NotHere | Claimed::Sealed(_) | Claimed::Misconfigured { .. } => {
            false
        }
    };
    if !more {
        return Ok((claimed, Follow::Nothing));
    }
    if work.room() > 0 && matches!(claimed, Claimed::Yes(_) | Claimed::Hopeless) {
        return Ok((claimed, Follow::Publish(work.activation)));
    }
    store::activations::owe(c, actor, spread).await?;
    Ok((claimed, Follow::Owed))
}

async fn claim(c: &mut Connection, id: &ExecutionId, by: &By) -> Result<Claimed, Error> {
    let &By { ref host, now, lease, default_capacity, ref api_server, ref keys, .. } = by;
    let Some(stored) = store::executions::find(c, id).await? else {
        return Ok(Claimed::Gone);
    };
    // From here on nobody else claims anything of the actor; what was claimed
    // before the lock was ours is seen by what is read under it.
    let Some(actor) = store::actors::lock(c, &stored.execution.actor).await? else {
        return Ok(Claimed::Gone);
    };
    let Some(stored) = store::executions::find(c, id).await? else {
        return Ok(Claimed::Gone);
    };
    if stored.execution.status != ExecutionStatus::Submitted {
        return Ok(Claimed::Gone);
    }
    // Capacity and order are decided here, whatever the queue delivered.
    let rests = actor.rest.is_some_and(|rest| rest.is_on(now));
    if !matches!(actor.status, ActorStatus::Submitted | ActorStatus::Ready) || rests {
        return Ok(Claimed::NoRoom);
    }
    let capacity = Capacity::of(&actor).at_once(default_capacity);
    if store::executions::count_running(c, &actor.id).await? >= capacity {
        return Ok(Claimed::NoRoom);
    }
    if !actor.stateless
        && store::executions::has_earlier_open(c, &actor.id, stored.sequence).await?
    {
        return Ok(Claimed::NoRoom);
    }
    if let Some(refused) = refused_by_host(c, &actor, id, by).await? {
        return Ok(refused);
    }
    let configs = match for_execution(c, &actor, keys).await? {
        ForExecution::Values(configs) => configs,
        ForExecution::NotHere(error) => return Ok(Claimed::Sealed(error)),
        ForExecution::Never(reason) => {
            return Ok(Claimed::Misconfigured { revision: actor.revision, reason });
        }
    };
    let worker = store::workers::take(c, &actor, host, capacity, now).await?;
    let claimed = store::executions::claim(
        c,
        id,
        &store::executions::NewClaim {
            epoch: stored.epoch,
            host,
            worker: &worker,
            revision: actor.revision,
            now,
            lease,
        },
    )
    .await?;
    if !claimed {
        store::workers::set_idle(c, &worker).await?;
        return Ok(Claimed::Gone);
    }
    // Output and results of an attempt that was lost.
    store::logs::remove(c, id).await?;
    store::results::remove(c, id).await?;
    let message = store::messages::of_execution(c, id).await?;
    let image = store::revisions::of_actor(c, &actor).await?;
    let Some(Stored { execution, epoch, .. }) = store::executions::find(c, id).await? else {
        return Ok(Claimed::Gone);
    };
    let api_server = by.tenants.api_server(&actor.tenant, api_server);
    let environment = environment(&actor, &execution, &message, &worker, api_server, &configs);
    Ok(Claimed::Yes(Box::new(Claim {
        key: ClaimKey { execution: id.clone(), epoch },
        attempt: execution.attempt,
        actor,
        execution,
        image,
        message,
        worker,
        environment,
    })))
}

/// Why a host does not take an execution of an actor, if it does not.
async fn refused_by_host(
    c: &mut Connection,
    actor: &Actor,
    execution: &ExecutionId,
    by: &By,
) -> Result<Option<Claimed>, Error> {
    let &By { ref host, now, default_limits, .. } = by;
    let Some(Host { info, cordoned, draining, .. }) = store::hosts::find(c, host).await? else {
        return Ok(Some(Claimed::NotHere));
    };
    if cordoned || draining || !info.serves(&actor.queue) {
        return Ok(Some(Claimed::NotHere));
    }
    let needs = Needs::of(actor.memory_limit_bytes(), actor.max_cpus, default_limits);
    if needs.is_nothing() {
        return Ok(None);
    }
    if needs.fit(&info) {
        // What this host claims besides is seen under its lock.
        store::hosts::lock(c, host).await?;
        let all = store::hosts::reserved(c, host, default_limits).await?.and(needs, 1);
        return Ok((!all.fit(&info)).then_some(Claimed::NotHere));
    }
    // A larger host that is away for an hour will be back.
    let hosts = store::hosts::all(c).await?;
    let of_class = hosts.iter().map(|host| &host.info).filter(|info| info.serves(&actor.queue));
    if of_class.clone().any(|info| needs.fit(info)) {
        return Ok(Some(Claimed::NotHere));
    }
    let reason = needs.too_large_for(&actor.queue, of_class);
    let outcome = Outcome::CouldNotStart;
    store::executions::cancel_waiting(c, execution, outcome, &reason, now).await?;
    Ok(Some(Claimed::Hopeless))
}
