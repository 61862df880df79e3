//! One execution, from claim to result.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use abax_actors::{
    Actor, ActorId, Chain, Claim, ClaimKey, Delivery, Error, Finish, HostId, HostInfo, Outcome,
    Phases, PinnedImage, Rest, RevisionImage, Service,
};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{Instrument as _, Span, debug, error, info, info_span, warn};

use crate::Config;
use crate::image::PinError;
use crate::lease::{Entry, Interruption, Running, lease_until};
use crate::metrics::{self, UsedSlot};
use crate::output::{Output, Piece};
use crate::results::Results;
use crate::sandbox::{Ended, Live, Sandbox};
use crate::trace;
use crate::trouble::Trouble;

/// How often the output of a running execution goes to the service.
const FLUSH: Duration = Duration::from_millis(500);
/// What ends sooner than this is not asked whether it shall end: the question
/// costs more than the answer is worth.
const LISTEN_AFTER: Duration = Duration::from_millis(50);
/// How long an execution waits that this host could not start.
const RETRY: Duration = Duration::from_secs(5);

/// What all executions of this process share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    /// What it told the service of itself.
    pub(crate) info: HostInfo,
    pub(crate) service: Service,
    pub(crate) sandbox: Sandbox,
    pub(crate) running: Arc<Running>,
    pub(crate) trouble: Trouble,
    pub(crate) config: Config,
}

impl Host {
    /// Which image a revision runs of which this host found `found`.
    pub(crate) async fn pin(
        &self,
        actor: &ActorId,
        image: &RevisionImage,
        found: PinnedImage,
    ) -> Result<PinnedImage, PinError> {
        let pinned = self.service.pin_image(actor, image, found).await;
        pinned.map_err(PinError::Service)?.ok_or(PinError::Gone)
    }

    /// Lets an actor rest whose image a registry did not give. Who looks at the actor
    /// sees why; the log says it once, however often it is tried.
    pub(crate) async fn lacks_image(&self, actor: &Actor, error: &str) {
        let reason = format!("waiting for image {}: {error}", actor.image);
        match self.service.actor_rests(&actor.id, actor.revision, &reason).await {
            Ok(Some(Rest { failures: 1, until })) => {
                let until = until.iso_millis();
                warn!(error, actor.id = %actor.id, "actor {} rests until {until}", actor.id);
            }
            Ok(_) => debug!(error, actor.id = %actor.id, "an image could not be had"),
            Err(error) => {
                warn!(error = %Chain(&error), "could not let actor {} rest", actor.id);
            }
        }
    }
}

/// Claims what was delivered and takes it to its end. Errors end here: they
/// are in the log, and the lease sees to the rest.
///
/// A pull cannot be broken off: the thread that waits for one, of an execution
/// that was stopped, is left to the caller.
pub(crate) async fn execute(host: Arc<Host>, delivery: Delivery) -> Option<JoinHandle<Ended>> {
    // The lease counts from before we asked for it.
    let lease_until = lease_until(Instant::now().into_std(), host.config.lease);
    let asked = host.service.clock().now();
    let id = delivery.execution.clone();
    let claim = match host.service.claim(delivery, &host.id, host.config.lease).await {
        Ok(Some(claim)) => claim,
        // Somebody else has it, or it was cancelled.
        Ok(None) => return None,
        Err(error) => {
            warn!(error = %Chain(&error), execution.id = %id, "could not claim execution {id}");
            return None;
        }
    };
    let span = trace::execution(&claim, asked, host.service.clock().now());
    carry_out(host, claim, lease_until).instrument(span).await
}

async fn carry_out(
    host: Arc<Host>,
    claim: Claim,
    lease_until: std::time::Instant,
) -> Option<JoinHandle<Ended>> {
    let _slot = UsedSlot::new();
    let key = claim.key.clone();
    let (entry, wake) = match host.running.enter(key.clone(), lease_until) {
        Ok(entered) => entered,
        Err(error) => {
            error!(error = %Chain(&error), "could not begin execution {}", key.execution);
            give_back(&host, &key).await;
            return None;
        }
    };
    debug!(attempt = claim.execution.attempt, "execution {} claimed", key.execution);

    let told = host.service.config();
    let live = Arc::new(Live {
        output: Output::new(host.config.log_limit_bytes),
        results: Results::new(told.max_result_bytes, told.max_results_bytes),
        phases: Mutex::new(Phases::default()),
        clock: host.service.clock().clone(),
    });
    let claim = Arc::new(claim);
    let mut thread = tokio::task::spawn_blocking({
        let (host, claim, live) = (Arc::clone(&host), Arc::clone(&claim), Arc::clone(&live));
        let (stop, span) = (Arc::clone(&entry.stop), Span::current());
        let runtime = Handle::current();
        move || {
            span.in_scope(|| {
                let pin = |found| runtime.block_on(host.pin(&claim.actor.id, &claim.image, found));
                host.sandbox.run(&host.config, &claim, &live, &stop, &wake, pin)
            })
        }
    });
    let watched = watch(&host, &key, &live, &entry, &mut thread).await;
    let waits_for_image = matches!(watched, Ok(Watched::NeverBegins));
    let mut ended = match watched {
        Ok(Watched::Ended(ended)) => *ended,
        Ok(Watched::NeverBegins) => Ended::before_it_began(),
        Err(panicked) => {
            error!(error = %Chain(&panicked), "execution {} was dropped by a bug", key.execution);
            Ended {
                finish: Finish::new(Outcome::CouldNotStart, "the worker failed; see its log"),
                may_pass: false,
                of_host: false,
                lacks_image: false,
                container: None,
            }
        }
    };

    if ended.of_host {
        host.trouble.failed(Instant::now().into_std());
    } else if ended.container.is_some() {
        host.trouble.started();
    }
    if ended.lacks_image && !entry.stop.at_once() {
        host.lacks_image(&claim.actor, &ended.finish.reason).await;
    }
    match entry.stop.reason() {
        // Another worker has it; what we know of it is of no use to anybody.
        Some(Interruption::LeaseLost) => dropped(&key),
        Some(Interruption::Draining)
            if ended.may_pass || ended.finish.outcome == Outcome::Cancelled =>
        {
            give_back(&host, &key).await;
        }
        // Where a halt is asked for, these end it as cancelled. It waits with its actor.
        None | Some(Interruption::Halted) if ended.may_pass && ended.lacks_image => {
            give_back(&host, &key).await;
        }
        None | Some(Interruption::Halted) if ended.may_pass => {
            let reason = &ended.finish.reason;
            warn!(error = %reason, "execution {} could not start", key.execution);
            if let Err(error) = host.service.retry(&key, RETRY, reason).await {
                warn!(error = %Chain(&error), "could not give back execution {}", key.execution);
            }
        }
        _ => {
            if let Some(rest) = live.output.next() {
                ended.finish.output = rest.bytes;
                ended.finish.output_position = rest.position;
                ended.finish.output_truncated = rest.truncated;
            }
            hand_on_results(&host, &key, &live, &entry).await;
            ended.finish.phases = *live.phases.lock().expect("no holder of this lock panics");
            trace::ended(&Span::current(), ended.finish.outcome);
            finish(&host, &claim, &entry, ended.finish).instrument(info_span!("finish")).await;
        }
    }
    // Off the way of the result, but within the slot: what is not cleared away
    // counts as running.
    if let Some(container) = ended.container {
        let deleted = tokio::task::spawn_blocking(move || container.delete()).await;
        match deleted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = %Chain(&error), "could not clear away a container"),
            Err(error) => {
                error!(error = %Chain(&error), "clearing away a container failed by a bug")
            }
        }
    }
    drop(entry);
    waits_for_image.then_some(thread)
}

/// What became of the thread that was watched.
enum Watched {
    Ended(Box<Ended>),
    /// It still waits for its image, and will make no container of it.
    NeverBegins,
}

/// Hands on output and phases while the container runs, and hears of its halt.
async fn watch(
    host: &Host,
    key: &ClaimKey,
    live: &Live,
    entry: &Entry,
    thread: &mut JoinHandle<Ended>,
) -> Result<Watched, JoinError> {
    let mut ticks = interval_at(Instant::now() + FLUSH, FLUSH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Phases::default();
    let interrupted = async {
        sleep(LISTEN_AFTER).await;
        loop {
            match host.service.interrupted(key).await {
                Ok(interruption) => return interruption,
                Err(error) => {
                    debug!(error = %Chain(&error), "could not ask whether to stop");
                    sleep(FLUSH).await;
                }
            }
        }
    };
    tokio::pin!(interrupted);
    let mut heard = false;
    loop {
        // A flush is not a branch: what was taken from the buffer must arrive.
        tokio::select! {
            ended = &mut *thread => return ended.map(|ended| Watched::Ended(Box::new(ended))),
            interruption = &mut interrupted, if !heard => {
                heard = true;
                entry.stop.interrupt(interruption.into());
            }
            () = live.results.arrived() => {
                // Whoever waits for a result waits for nothing else.
                hand_on_some_results(host, key, live, entry).await;
                continue;
            }
            _ = ticks.tick() => {}
        }
        if entry.stop.never_begins() {
            return Ok(Watched::NeverBegins);
        }
        if entry.stop.lost() {
            continue;
        }
        let now = *live.phases.lock().expect("no holder of this lock panics");
        for (phase, time) in now.iter() {
            if told.at(phase).is_none() {
                match host.service.record_phase(key, phase).await {
                    Ok(_) => told.set(phase, time),
                    Err(error) => warn!(error = %Chain(&error), "could not record a phase"),
                }
            }
        }
        hand_on_some_results(host, key, live, entry).await;
        if let Some(piece) = live.output.next() {
            let Piece { position, bytes, truncated } = &piece;
            match host.service.append_logs(key, *position, bytes, *truncated).await {
                Ok(_) => live.output.handed(&piece),
                // It comes again with what follows.
                Err(error) => debug!(error = %Chain(&error), "could not hand on output"),
            }
        }
    }
}

/// Hands on the results that are there. False where some are left for the next time.
async fn hand_on_some_results(host: &Host, key: &ClaimKey, live: &Live, entry: &Entry) -> bool {
    let Some(batch) = live.results.next() else { return true };
    if entry.stop.lost() {
        return true;
    }
    match host.service.append_results(key, batch.first, batch.results.clone()).await {
        Ok(_) => live.results.handed(&batch),
        Err(error) if error.is_transient() => {
            debug!(error = %Chain(&error), "could not hand on results");
            return false;
        }
        Err(error) => {
            error!(error = %Chain(&error), "could not store results of execution {}", key.execution);
            live.results.handed(&batch);
        }
    }
    true
}

/// Hands on all results before the execution ends; tries for as long as the lease is ours.
async fn hand_on_results(host: &Host, key: &ClaimKey, live: &Live, entry: &Entry) {
    for attempt in 1_u32.. {
        if hand_on_some_results(host, key, live, entry).await {
            return;
        }
        sleep(pause_before(attempt)).await;
    }
}

/// Settles the execution; tries for as long as the lease is ours.
async fn finish(host: &Host, claim: &Claim, entry: &Entry, finish: Finish) {
    let id = &claim.key.execution;
    let outcome = finish.outcome;
    let duration_ms = u64::try_from(finish.usage.runtime.as_millis()).unwrap_or(u64::MAX);
    for attempt in 1_u32.. {
        if entry.stop.lost() {
            return dropped(&claim.key);
        }
        match host.service.finish(&claim.key, finish.clone()).await {
            Ok(true) => {
                info!(
                    outcome = %outcome, exit_code = finish.exit_code,
                    duration_ms, "execution {id} {outcome}"
                );
                return;
            }
            Ok(false) => return dropped(&claim.key),
            Err(error) if error.is_transient() => pause(attempt, &error).await,
            Err(error) => {
                error!(error = %Chain(&error), "could not store the end of execution {id}");
                return;
            }
        }
    }
}

fn dropped(key: &ClaimKey) {
    let id = &key.execution;
    metrics::lease_lost();
    warn!("lost the lease of execution {id}; what became of it here is dropped");
}

async fn give_back(host: &Host, key: &ClaimKey) {
    match host.service.release(key).await {
        Ok(_) => info!("execution {} given back to the queue", key.execution),
        Err(error) => {
            warn!(error = %Chain(&error), "could not give back execution {}", key.execution)
        }
    }
}

async fn pause(attempt: u32, error: &Error) {
    debug!(error = %Chain(error), "trying again");
    sleep(pause_before(attempt)).await;
}

/// Up to five seconds, a little longer each time.
fn pause_before(attempt: u32) -> Duration {
    Duration::from_millis(50 * u64::from(attempt.min(100)))
}
