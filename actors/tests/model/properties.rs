//! What must hold in every state, and what must be possible at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use stateright::{Model as _, Property};

use crate::protocol::{CAPACITY, MAX_ATTEMPTS, Outcome, Protocol, Row, State, Status};

pub(crate) const ONCE: &str = "an execution is settled at most once";
pub(crate) const WINNER: &str = "a settled execution has its result from its last claim";
pub(crate) const LOG: &str = "a log is that of the last claim";
pub(crate) const COUNTER: &str = "the state counts the settled executions that wrote it";
pub(crate) const FENCED: &str = "commits of superseded claims change nothing";
pub(crate) const ROOM: &str = "an actor runs no more than it may";
pub(crate) const ORDER: &str = "a stateful actor's executions run in order";
pub(crate) const ATTEMPTS: &str = "an execution is tried no more often than it may";

/// All properties of a protocol: those that must always hold, and those without
/// which the model would be too tame to say anything.
pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(ONCE, |_, state: &State| state.rows.iter().all(|r| r.settlements <= 1)),
        Property::always(WINNER, |_, state: &State| {
            state.rows.iter().all(|row| match row.status {
                Status::Settled(Outcome::Succeeded) => row.result == Some(row.epoch),
                Status::Settled(_) => row.result.is_none_or(|epoch| epoch == row.epoch),
                _ => true,
            })
        }),
        Property::always(LOG, |_, state: &State| {
            state.rows.iter().all(|r| r.log & !(1 << r.epoch) == 0)
        }),
        Property::always(COUNTER, |_, state: &State| usize::from(state.counter) == writers(state)),
        Property::always(FENCED, |_, state: &State| !state.trespassed),
        Property::always(ROOM, |_, state: &State| state.running() <= CAPACITY),
        Property::always(ORDER, |protocol: &Protocol, state: &State| {
            // What runs or has run, before an earlier one was settled.
            let [first, second] = &state.rows;
            !protocol.stateful || second.attempt == 0 || first.is_settled()
        }),
        Property::always(ATTEMPTS, |_, state: &State| {
            state.rows.iter().all(|row| row.attempt <= MAX_ATTEMPTS)
        }),
        Property::sometimes("both succeed", |_, state: &State| {
            state.rows.iter().all(|r| r.status == Status::Settled(Outcome::Succeeded))
        }),
        Property::sometimes("an execution is lost", |_, state: &State| {
            ended_as(state, Outcome::Lost)
        }),
        Property::sometimes("an execution is halted", |_, state: &State| {
            state.rows.iter().any(|r| {
                r.status == Status::Settled(Outcome::Cancelled) && r.result == Some(r.epoch)
            })
        }),
        Property::sometimes("the second attempt succeeds", |_, state: &State| {
            state.rows.iter().any(|r| {
                r.status == Status::Settled(Outcome::Succeeded) && r.attempt == MAX_ATTEMPTS
            })
        }),
    ];
    if protocol.stateful {
        all.push(Property::sometimes("both write the state", |_, state: &State| {
            state.counter == 2
        }));
        all.push(Property::sometimes(
            "a write of a lost attempt is dropped",
            |_, state: &State| {
                state.rows.iter().all(Row::is_settled)
                    && state.counter == 0
                    && state.rows.iter().any(|r| r.wrote.is_some())
            },
        ));
    }
    all
}

fn ended_as(state: &State, outcome: Outcome) -> bool {
    state.rows.iter().any(|row| row.status == Status::Settled(outcome))
}

/// The executions that were settled by a claim whose container wrote the state.
fn writers(state: &State) -> usize {
    state
        .rows
        .iter()
        .filter(|row| row.is_settled() && row.result.is_some() && row.wrote == row.result)
        .count()
}

/// A reachable state with a living host from which an accepted execution cannot
/// be settled any more, although nothing fails from then on; none if all is well.
///
/// There are finitely many states: where from each of them some steps without a
/// fault lead to the end, one that goes on taking them gets there. (A checker's
/// `eventually` would follow paths with endless faults, and stop at joins.)
pub(crate) fn stuck(protocol: &Protocol) -> Option<State> {
    let mut numbers = HashMap::new();
    let mut states: Vec<State> = Vec::new();
    for state in protocol.init_states() {
        numbers.insert(state, states.len());
        states.push(state);
    }
    // For each state, those that reach it by a step without a fault.
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); states.len()];
    let mut next = 0;
    while next < states.len() {
        let state = states[next];
        let mut steps = Vec::new();
        protocol.actions(&state, &mut steps);
        for step in steps {
            let Some(reached) = protocol.next_state(&state, step) else { continue };
            let number = match numbers.entry(reached) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    states.push(*new.key());
                    before.push(Vec::new());
                    *new.insert(states.len() - 1)
                }
            };
            if Protocol::is_progress(&state, step) {
                before[number].push(u32::try_from(next).expect("fewer than 2^32 states"));
            }
        }
        next += 1;
    }
    let mut ends = vec![false; states.len()];
    let mut open: Vec<usize> = Vec::new();
    for (number, state) in states.iter().enumerate() {
        if !state.rows.iter().any(Row::is_open) {
            ends[number] = true;
            open.push(number);
        }
    }
    while let Some(number) = open.pop() {
        for &earlier in &before[number] {
            let earlier = earlier as usize;
            if !ends[earlier] {
                ends[earlier] = true;
                open.push(earlier);
            }
        }
    }
    let alive = |state: &State| state.hosts.iter().any(|host| host.up);
    ends.iter().zip(states).find(|(ends, state)| !**ends && alive(state)).map(|(_, state)| state)
}
