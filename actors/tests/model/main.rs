//! A model of how an execution is claimed, leased, fenced and settled, and the
//! proof by exhaustion that the rules are enough: every order of steps is
//! tried, with hosts that stop, come back, or act long after their lease ended,
//! with activations lost and doubled, and with commits nobody heard of.
//!
//! | step of the model | in [`abax_actors::Service`] |
//! | --- | --- |
//! | `Accept` | `send_message`, and the activation that it publishes |
//! | `Lose`, `Repeat`, `Drop` | what becomes of activations between `publish` and `claim` |
//! | `Activate` | the sweep, for what waits and no queue knows |
//! | `Claim` | `receive`, then `claim` |
//! | `Append`, `Write` | `append_logs`; `set_actor_state` by an execution's token |
//! | `Finish` | `finish` |
//! | `Release`, `Retry` | `release`, `retry` |
//! | `Renew` | `renew`: prolongs, tells of a halt, tells of a loss |
//! | `LeaseEnds`, `GiveBack` | time passes, and the sweep; together also `recover` |
//! | `Halt` | `halt_execution` |
//! | `Start`, `Crash`, `Restart` | the worker's own |
//!
//! There is no clock in the model: a lease may end at once or never, whatever
//! its holder believes. So nothing that is shown here leans on clocks that
//! agree; they decide only how soon a lost execution goes on.
//!
//! A rule that is left out ([`Flaw`]) must be noticed, which shows that the
//! properties bite.

mod properties;
mod protocol;

use properties::{ATTEMPTS, COUNTER, FENCED, LOG, ONCE, ORDER, ROOM, WINNER, stuck};
use protocol::{Flaw, Protocol};
use stateright::{Checker as _, HasDiscoveries, Model as _};

const STATEFUL: Protocol = Protocol { stateful: true, drains: false, flaw: None };
const STATELESS: Protocol = Protocol { stateful: false, drains: true, flaw: None };

fn holds(protocol: Protocol) {
    let checked = protocol.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
}

/// The protocol without a rule breaks a promise, and it is this one.
#[track_caller]
fn breaks(protocol: Protocol, flaw: Flaw, promise: &'static str) {
    let flawed = Protocol { flaw: Some(flaw), ..protocol };
    let properties = HasDiscoveries::AllOf([promise].into());
    let checked = flawed.checker().finish_when(properties).spawn_bfs().join();
    checked.assert_any_discovery(promise);
}

#[test]
fn a_stateful_actor_keeps_its_promises() {
    holds(STATEFUL);
}

#[test]
fn a_stateless_actor_keeps_its_promises() {
    holds(STATELESS);
}

#[test]
fn every_accepted_execution_can_still_be_settled() {
    for protocol in [STATEFUL, STATELESS] {
        let stuck = stuck(&protocol);
        assert!(stuck.is_none(), "{protocol:?} is stuck: {stuck:#?}");
    }
}

#[test]
fn a_finish_without_the_epoch_is_noticed() {
    for protocol in [STATEFUL, STATELESS] {
        breaks(protocol, Flaw::FinishIgnoresEpoch, WINNER);
        breaks(protocol, Flaw::FinishIgnoresEpoch, FENCED);
    }
}

#[test]
fn a_finish_that_is_repeated_without_the_status_is_noticed() {
    for protocol in [STATEFUL, STATELESS] {
        breaks(protocol, Flaw::FinishIgnoresStatus, ONCE);
    }
}

#[test]
fn output_of_another_attempt_is_noticed() {
    breaks(STATELESS, Flaw::LogIgnoresEpoch, LOG);
    breaks(STATELESS, Flaw::LogIgnoresEpoch, FENCED);
    breaks(STATELESS, Flaw::LogOutlivesAttempt, LOG);
}

#[test]
fn a_state_that_is_not_staged_is_noticed() {
    breaks(STATEFUL, Flaw::StateWrittenAtOnce, COUNTER);
    breaks(STATEFUL, Flaw::StagedOutlivesAttempt, COUNTER);
}

#[test]
fn a_claim_without_the_check_for_earlier_ones_is_noticed() {
    breaks(STATEFUL, Flaw::ClaimIgnoresEarlier, ORDER);
    breaks(STATEFUL, Flaw::ClaimIgnoresEarlier, ROOM);
    breaks(STATEFUL, Flaw::ClaimIgnoresEarlier, COUNTER);
}

#[test]
fn a_claim_without_the_lock_is_noticed() {
    breaks(STATELESS, Flaw::ClaimWithoutLock, ROOM);
}

#[test]
fn attempts_without_end_are_noticed() {
    breaks(STATELESS, Flaw::AttemptsWithoutEnd, ATTEMPTS);
}

#[test]
fn a_missing_sweep_is_noticed() {
    for flaw in [Flaw::LeasesWithoutSweep, Flaw::ActivationsWithoutSweep] {
        let flawed = Protocol { flaw: Some(flaw), ..STATELESS };
        assert!(stuck(&flawed).is_some(), "{flaw:?} leaves nothing stuck");
    }
}
