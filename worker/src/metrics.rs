//! Numbers about this worker, for whoever collects them in this process.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const SLOTS: &str = "abax_worker_slots";
const SLOTS_USED: &str = "abax_worker_slots_used";
const LEASES_LOST: &str = "abax_worker_leases_lost_total";
const PULLS: &str = "abax_image_pulls_total";
const PULL_DURATION: &str = "abax_image_pull_duration_seconds";
const START_DURATION: &str = "abax_container_start_duration_seconds";

/// Says what the metrics mean, and begins the counters at zero.
pub(crate) fn describe(slots: usize) {
    describe_gauge!(SLOTS, "Executions that this worker runs at most at once.");
    gauge!(SLOTS).set(f64::from(u32::try_from(slots).unwrap_or(u32::MAX)));
    describe_gauge!(SLOTS_USED, "Executions that this worker has claimed and not cleared away.");
    gauge!(SLOTS_USED).set(0.0);
    describe_counter!(
        LEASES_LOST,
        "Executions that this worker stopped, since their leases were lost."
    );
    counter!(LEASES_LOST).absolute(0);
    describe_counter!(PULLS, "Images that this worker pulled, by result.");
    for result in ["pulled", "failed"] {
        counter!(PULLS, "result" => result).absolute(0);
    }
    describe_histogram!(PULL_DURATION, Unit::Seconds, "How long pulls of images took.");
    describe_histogram!(
        START_DURATION,
        Unit::Seconds,
        "How long it took from a ready image to a started program."
    );
}

/// A used slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct UsedSlot(());

impl UsedSlot {
    pub(crate) fn new() -> Self {
        gauge!(SLOTS_USED).increment(1.0);
        Self(())
    }
}

impl Drop for UsedSlot {
    fn drop(&mut self) {
        gauge!(SLOTS_USED).decrement(1.0);
    }
}

/// The lease of an execution was lost, so it is stopped.
pub(crate) fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

/// An image was asked for at a registry.
pub(crate) fn pulled(succeeded: bool, took: Duration) {
    counter!(PULLS, "result" => if succeeded { "pulled" } else { "failed" }).increment(1);
    histogram!(PULL_DURATION).record(took);
}

/// A container was made and its program started.
pub(crate) fn container_started(took: Duration) {
    histogram!(START_DURATION).record(took);
}
