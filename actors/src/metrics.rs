//! Numbers about the service, for whoever collects them in this process.
//!
//! Labels have few values, whatever users do: classes, outcomes, phases; never
//! an id or a name that a user chose.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::clock::Time;
use crate::event::EventTarget;
use crate::execution::{Outcome, Phase, Phases};

const MESSAGES_ACCEPTED: &str = "abax_messages_accepted_total";
const EXECUTIONS_FINISHED: &str = "abax_executions_finished_total";
const PHASE_DURATION: &str = "abax_execution_phase_duration_seconds";
const LEASES_LOST: &str = "abax_leases_lost_total";
const ATTEMPTS_REPEATED: &str = "abax_attempts_repeated_total";
const TRANSACTIONS: &str = "abax_store_transactions_total";
const TRANSACTION_DURATION: &str = "abax_store_transaction_duration_seconds";
const TRANSACTION_RETRIES: &str = "abax_store_retries_total";
const EVENTS_DELIVERED: &str = "abax_event_deliveries_total";
const QUEUE_CONNECTED: &str = "abax_queue_connected";
const ACTIVATIONS: &str = "abax_activations_published_total";
const ACTIVATIONS_RETURNED: &str = "abax_activations_returned_total";
const ACTIVATIONS_PENDING: &str = "abax_activations_pending";

/// Says what the metrics of this crate mean, and begins the counters at zero: a
/// rate over a counter that appears with its first event misses that event.
/// Call it once, after the process has its recorder.
pub fn describe_metrics() {
    describe_counter!(
        MESSAGES_ACCEPTED,
        "Messages accepted: committed, and answered with success."
    );
    counter!(MESSAGES_ACCEPTED).absolute(0);
    describe_counter!(EXECUTIONS_FINISHED, "Executions that ended, by outcome.");
    for outcome in Outcome::ALL {
        counter!(EXECUTIONS_FINISHED, "outcome" => outcome.as_str()).absolute(0);
    }
    describe_histogram!(
        PHASE_DURATION,
        Unit::Seconds,
        "How long executions were in a phase: queued (accepted or given back, until claimed), \
         image, create, start, run, store."
    );
    describe_counter!(
        LEASES_LOST,
        "Leases that ran out, so that the execution was taken from its host."
    );
    counter!(LEASES_LOST).absolute(0);
    describe_counter!(ATTEMPTS_REPEATED, "Executions that wait for another attempt, by reason.");
    for again in [Again::HostLost, Again::Restarted, Again::CouldNotStart, Again::Released] {
        counter!(ATTEMPTS_REPEATED, "reason" => again.as_str()).absolute(0);
    }
    describe_counter!(TRANSACTIONS, "Transactions of the store that write, by result.");
    for result in ["committed", "failed"] {
        counter!(TRANSACTIONS, "result" => result).absolute(0);
    }
    describe_histogram!(
        TRANSACTION_DURATION,
        Unit::Seconds,
        "How long transactions of the store that write took, with their commit."
    );
    describe_counter!(TRANSACTION_RETRIES, "Transactions of the store that were tried again.");
    counter!(TRANSACTION_RETRIES).absolute(0);
    describe_counter!(
        EVENTS_DELIVERED,
        "Events whose delivery has ended, to a link or a webhook: delivered or given up."
    );
    for kind in [EventTarget::Link, EventTarget::Webhook] {
        for result in ["delivered", "given_up"] {
            counter!(EVENTS_DELIVERED, "kind" => kind.as_str(), "result" => result).absolute(0);
        }
    }
    describe_gauge!(
        QUEUE_CONNECTED,
        "1 while activations reach the broker, 0 while they do not; 1 where the database is the queue."
    );
    describe_counter!(ACTIVATIONS, "Activations that the broker confirmed.");
    counter!(ACTIVATIONS).absolute(0);
    describe_counter!(
        ACTIVATIONS_RETURNED,
        "Activations that the broker returned, since their queue was not there."
    );
    counter!(ACTIVATIONS_RETURNED).absolute(0);
    describe_gauge!(ACTIVATIONS_PENDING, "Activations that this process has not published yet.");
}

/// A message was accepted.
pub(crate) fn message_accepted() {
    counter!(MESSAGES_ACCEPTED).increment(1);
}

/// `count` executions ended without having run.
pub(crate) fn executions_cancelled(count: u64) {
    counter!(EXECUTIONS_FINISHED, "outcome" => Outcome::Cancelled.as_str()).increment(count);
}

/// An execution ended; `phases` are those of its last attempt.
pub(crate) fn execution_finished(outcome: Outcome, phases: &Phases) {
    counter!(EXECUTIONS_FINISHED, "outcome" => outcome.as_str()).increment(1);
    for (name, from, to) in [
        ("queued", Phase::Queued, Phase::Claimed),
        ("image", Phase::Claimed, Phase::ImageReady),
        ("create", Phase::ImageReady, Phase::Created),
        ("start", Phase::Created, Phase::Started),
        ("run", Phase::Started, Phase::Exited),
        ("store", Phase::Exited, Phase::Stored),
    ] {
        if let (Some(from), Some(to)) = (phases.at(from), phases.at(to)) {
            histogram!(PHASE_DURATION, "phase" => name).record(seconds(from, to));
        }
    }
}

/// From one moment to another, which a clock that was set may show before it.
fn seconds(from: Time, to: Time) -> f64 {
    let micros = to.micros().saturating_sub(from.micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
}

/// Why an execution waits again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Its lease ran out.
    HostLost,
    /// Its host began anew and knew it dead.
    Restarted,
    /// A failure that may pass.
    CouldNotStart,
    /// Its host gave it back, since it stops.
    Released,
}

impl Again {
    fn as_str(self) -> &'static str {
        match self {
            Self::HostLost => "lease_lost",
            Self::Restarted => "restarted",
            Self::CouldNotStart => "could_not_start",
            Self::Released => "released",
        }
    }
}

/// `count` executions wait for another attempt.
pub(crate) fn attempts_repeated(why: Again, count: u64) {
    counter!(ATTEMPTS_REPEATED, "reason" => why.as_str()).increment(count);
}

/// `count` leases ran out.
pub(crate) fn leases_lost(count: u64) {
    counter!(LEASES_LOST).increment(count);
}

/// A transaction that writes came to its end.
pub(crate) fn transaction(committed: bool, took: Duration) {
    let result = if committed { "committed" } else { "failed" };
    counter!(TRANSACTIONS, "result" => result).increment(1);
    histogram!(TRANSACTION_DURATION).record(took);
}

/// A transaction is run again, since the database broke it off.
pub(crate) fn transaction_retried() {
    counter!(TRANSACTION_RETRIES).increment(1);
}

/// The delivery of an event has ended.
pub(crate) fn event_delivered(kind: EventTarget, arrived: bool) {
    let result = if arrived { "delivered" } else { "given_up" };
    counter!(EVENTS_DELIVERED, "kind" => kind.as_str(), "result" => result).increment(1);
}

/// The broker of the queue is connected, or not any more.
pub(crate) fn queue_connected(connected: bool) {
    gauge!(QUEUE_CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

/// So many activations are not published yet.
#[expect(clippy::cast_precision_loss, reason = "a number for a graph")]
pub(crate) fn activations_pending(count: usize) {
    gauge!(ACTIVATIONS_PENDING).set(count as f64);
}

/// The broker confirmed an activation.
pub(crate) fn activation_published() {
    counter!(ACTIVATIONS).increment(1);
}

/// The broker returned an activation.
pub(crate) fn activation_returned() {
    counter!(ACTIVATIONS_RETURNED).increment(1);
}
