//! The protocol as a state machine: what the store holds, what each host
//! believes, and the steps that either may take.

use stateright::{Model, Property};

use crate::properties;

/// A slow one, and one that takes over.
const HOSTS: usize = 2;
/// How often an execution is tried.
pub(crate) const MAX_ATTEMPTS: u8 = 2;
/// Claims of one execution: the attempts, and the first, where it is released.
const MAX_EPOCH: u8 = MAX_ATTEMPTS + 1;
/// Executions that the actor has room for.
pub(crate) const CAPACITY: usize = 1;

/// A rule that is left out, to see that the properties notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// `finish` asks for RUNNING, and not for the epoch of the claim.
    FinishIgnoresEpoch,
    /// `finish` asks for the epoch of the claim, and not for RUNNING.
    FinishIgnoresStatus,
    /// Output is appended to whatever attempt is running.
    LogIgnoresEpoch,
    /// A claim leaves the output of the attempt before it.
    LogOutlivesAttempt,
    /// A container's write of the state goes to the actor, and is not staged.
    StateWrittenAtOnce,
    /// A claim leaves what the attempt before it had staged.
    StagedOutlivesAttempt,
    /// A stateful actor's claim does not ask for earlier executions.
    ClaimIgnoresEarlier,
    /// A claim counts what runs, and writes without having kept the count true.
    ClaimWithoutLock,
    /// The last attempt is followed by another one.
    AttemptsWithoutEnd,
    /// Nobody gives back what a lost host had.
    LeasesWithoutSweep,
    /// Nobody asks for executions whose activation was lost.
    ActivationsWithoutSweep,
}

/// The protocol of one actor, its two executions, and some hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) stateful: bool,
    /// Whether hosts drain; where a container was started there is nothing to
    /// release, so states that containers write need not be tried with it.
    pub(crate) drains: bool,
    pub(crate) flaw: Option<Flaw>,
}

/// How an execution was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Succeeded,
    Cancelled,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// Nobody has sent the message yet.
    Unsent,
    Submitted,
    Running,
    Settled(Outcome),
}

/// A row of the table `executions`; the last three fields are the observer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) status: Status,
    pub(crate) epoch: u8,
    pub(crate) attempt: u8,
    pub(crate) lease_ended: bool,
    pub(crate) halt: bool,
    /// The state of the actor that a container has written, until it is settled.
    pub(crate) staged: Option<u8>,
    /// The epochs whose output is in the log, a bit each.
    pub(crate) log: u8,
    /// How often a final status was written.
    pub(crate) settlements: u8,
    /// The epoch of the claim that settled it; none where a sweep did.
    pub(crate) result: Option<u8>,
    /// The epoch of the last write of the state that was accepted.
    pub(crate) wrote: Option<u8>,
}

impl Row {
    const UNSENT: Self = Self {
        status: Status::Unsent,
        epoch: 0,
        attempt: 0,
        lease_ended: false,
        halt: false,
        staged: None,
        log: 0,
        settlements: 0,
        result: None,
        wrote: None,
    };

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status, Status::Submitted | Status::Running)
    }

    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.status, Status::Settled(_))
    }

    fn settle(&mut self, outcome: Outcome, by: Option<u8>) {
        self.status = Status::Settled(outcome);
        self.settlements += 1;
        self.result = by;
        self.lease_ended = false;
        self.halt = false;
        self.staged = None;
    }
}

/// What a host believes to be its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Run {
    execution: usize,
    epoch: u8,
    /// The actor's state when the claim was made: what the container gets.
    read: u8,
    /// Whether there is a container.
    started: bool,
    /// Whether the host has heard of the halt.
    halted: bool,
}

/// A host with one slot. What a dead host had sent may still arrive, as what a
/// slow one sends does: that order is tried too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Host {
    pub(crate) up: bool,
    pub(crate) run: Option<Run>,
    /// With [`Flaw::ClaimWithoutLock`]: an execution there was room for.
    looked: Option<usize>,
}

/// The store, the queue and the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) rows: [Row; 2],
    /// The actor's state: a counter that each container raises by one.
    pub(crate) counter: u8,
    /// Whether the queue has an activation; a second one says nothing new.
    pub(crate) activated: bool,
    /// In their order: which of them is which makes no difference.
    pub(crate) hosts: [Host; HOSTS],
    /// Whether a commit of a superseded claim changed the store.
    pub(crate) trespassed: bool,
}

/// A step; the number is that of an execution, or of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A message is accepted; its activation may never reach the queue.
    Accept { execution: usize, activated: bool },
    /// An activation is lost by the broker, or by a host that died with it.
    Lose,
    /// An activation comes again that was delivered before.
    Repeat,
    /// An activation that finds nothing to do, or no room, is dropped.
    Drop,
    /// The sweep asks for a waiting execution that the queue has forgotten.
    Activate,
    /// A host takes an activation and claims; it may not hear that it has.
    Claim { host: usize, execution: usize, heard: bool },
    /// A container is started, however late.
    Start(usize),
    /// Output of a container arrives.
    Append(usize),
    /// The container writes the actor's state.
    Write(usize),
    /// The end of a container arrives; the host may not hear that it has.
    Finish { host: usize, heard: bool },
    /// A host that drains gives back what it has not begun.
    Release(usize),
    /// A host gives back what it could not begin; the attempt counts.
    Retry(usize),
    /// A host renews its lease, and hears of a halt or of its loss.
    Renew(usize),
    /// The lease's time is over, by the clock of whoever sweeps.
    LeaseEnds(usize),
    /// The sweep gives back an execution whose lease has ended.
    GiveBack(usize),
    /// Somebody halts an execution.
    Halt(usize),
    /// A host dies.
    Crash(usize),
    /// It comes back, and knows nothing.
    Restart(usize),
}

impl State {
    /// Whether a run is the one that the row knows.
    fn holds(&self, run: &Run) -> bool {
        let row = &self.rows[run.execution];
        row.status == Status::Running && row.epoch == run.epoch
    }

    pub(crate) fn running(&self) -> usize {
        self.rows.iter().filter(|row| row.status == Status::Running).count()
    }

    /// Whether a living host has the claim that the row knows.
    fn is_held(&self, execution: usize) -> bool {
        self.hosts
            .iter()
            .filter(|host| host.up)
            .filter_map(|host| host.run.as_ref())
            .any(|run| run.execution == execution && self.holds(run))
    }

    fn publish(&mut self) {
        self.activated = true;
    }

    fn publish_if_any_waits(&mut self) {
        if self.rows.iter().any(|row| row.status == Status::Submitted) {
            self.publish();
        }
    }
}

impl Protocol {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Whether a claim may take this execution now.
    fn may_claim(&self, state: &State, execution: usize) -> bool {
        let ordered = self.stateful && !self.has(Flaw::ClaimIgnoresEarlier);
        // With the flaw, each asks for its own only, as one who looks at order alone.
        let room = self.stateful && !ordered || state.running() < CAPACITY;
        state.rows[execution].status == Status::Submitted
            && room
            && (!ordered || !state.rows[..execution].iter().any(Row::is_open))
    }

    fn any_claimable(&self, state: &State) -> bool {
        (0..state.rows.len()).any(|execution| self.may_claim(state, execution))
    }

    /// The conditional update of a claim, and what goes with it.
    fn claim(&self, state: &mut State, host: usize, execution: usize, heard: bool) {
        let read = state.counter;
        let row = &mut state.rows[execution];
        row.status = Status::Running;
        row.epoch += 1;
        row.attempt += 1;
        row.lease_ended = false;
        if !self.has(Flaw::LogOutlivesAttempt) {
            row.log = 0;
        }
        if !self.has(Flaw::StagedOutlivesAttempt) {
            row.staged = None;
        }
        let epoch = row.epoch;
        state.hosts[host].looked = None;
        state.hosts[host].run =
            heard.then_some(Run { execution, epoch, read, started: false, halted: false });
        if self.any_claimable(state) {
            state.publish();
        }
    }

    fn give_back(&self, state: &mut State, execution: usize, attempt_counts: bool) {
        let row = &mut state.rows[execution];
        if row.halt {
            row.settle(Outcome::Cancelled, None);
        } else if attempt_counts
            && row.attempt >= MAX_ATTEMPTS
            && !self.has(Flaw::AttemptsWithoutEnd)
        {
            row.settle(Outcome::Lost, None);
        } else {
            row.status = Status::Submitted;
            row.lease_ended = false;
            row.attempt -= u8::from(!attempt_counts);
            if !self.has(Flaw::LogOutlivesAttempt) {
                row.log = 0;
            }
            if !self.has(Flaw::StagedOutlivesAttempt) {
                row.staged = None;
            }
        }
        state.publish_if_any_waits();
    }

    /// What a claim's own commits do to the store, and what its host learns.
    fn commit(&self, state: &mut State, host: usize, step: Step) -> Option<()> {
        let run = state.hosts[host].run?;
        let holds = state.holds(&run);
        let up = state.hosts[host].up;
        let row = &mut state.rows[run.execution];
        match step {
            Step::Append(_) if run.started => {
                let any = self.has(Flaw::LogIgnoresEpoch) && row.status == Status::Running;
                if holds || any {
                    row.log |= 1 << run.epoch;
                }
            }
            Step::Write(_) if run.started && self.stateful => {
                if holds {
                    row.wrote = Some(run.epoch);
                    if self.has(Flaw::StateWrittenAtOnce) {
                        state.counter = run.read + 1;
                    } else {
                        row.staged = Some(run.read + 1);
                    }
                }
            }
            Step::Finish { heard, .. } if run.started || run.halted => {
                let running = row.status == Status::Running;
                let current = row.epoch == run.epoch;
                if (running || self.has(Flaw::FinishIgnoresStatus))
                    && (current || self.has(Flaw::FinishIgnoresEpoch))
                {
                    if let Some(staged) = row.staged {
                        state.counter = staged;
                    }
                    let ended = if run.halted { Outcome::Cancelled } else { Outcome::Succeeded };
                    row.settle(ended, Some(run.epoch));
                    state.publish_if_any_waits();
                }
                if heard {
                    state.hosts[host].run = None;
                }
            }
            Step::Release(_) if up && !run.started && self.drains && run.epoch == 1 => {
                if holds {
                    self.give_back(state, run.execution, false);
                }
                state.hosts[host].run = None;
            }
            Step::Retry(_) if up && !run.started => {
                if holds {
                    self.give_back(state, run.execution, true);
                }
                state.hosts[host].run = None;
            }
            Step::Renew(_) if up => {
                if holds {
                    row.lease_ended = false;
                    let halt = row.halt;
                    state.hosts[host].run.as_mut()?.halted = halt;
                } else {
                    // The container is killed.
                    state.hosts[host].run = None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn take(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Accept { execution, activated } => {
                let earlier = state.rows[..execution].iter().all(|r| r.status != Status::Unsent);
                let row = &mut state.rows[execution];
                (row.status == Status::Unsent && earlier).then_some(())?;
                row.status = Status::Submitted;
                if activated {
                    state.publish();
                }
            }
            Step::Lose => std::mem::take(&mut state.activated).then_some(())?,
            Step::Repeat => state.publish(),
            Step::Drop => {
                (!self.any_claimable(state)).then_some(())?;
                std::mem::take(&mut state.activated).then_some(())?;
            }
            Step::Activate => {
                let swept = !self.has(Flaw::ActivationsWithoutSweep);
                (swept && !state.activated && self.any_claimable(state)).then_some(())?;
                state.publish();
            }
            Step::Claim { host, execution, heard } => {
                let Host { up, run, looked } = &state.hosts[host];
                (*up && run.is_none()).then_some(())?;
                match looked {
                    // The row alone is asked again, as the update's condition.
                    Some(chosen) if *chosen == execution => {
                        state.hosts[host].looked = None;
                        if state.rows[execution].status == Status::Submitted {
                            self.claim(state, host, execution, heard);
                        }
                    }
                    Some(_) => return None,
                    None => {
                        self.may_claim(state, execution).then_some(())?;
                        std::mem::take(&mut state.activated).then_some(())?;
                        if self.has(Flaw::ClaimWithoutLock) {
                            state.hosts[host].looked = Some(execution);
                        } else {
                            self.claim(state, host, execution, heard);
                        }
                    }
                }
            }
            Step::Start(host) => {
                let Host { up, run, .. } = &mut state.hosts[host];
                let run = run.as_mut()?;
                (*up && !run.started && !run.halted).then_some(())?;
                run.started = true;
            }
            Step::Append(host)
            | Step::Write(host)
            | Step::Finish { host, .. }
            | Step::Release(host)
            | Step::Retry(host)
            | Step::Renew(host) => {
                let holds = state.hosts[host].run.as_ref().is_some_and(|run| state.holds(run));
                let before = (!holds).then_some((state.rows, state.counter));
                self.commit(state, host, step)?;
                if let Some((rows, counter)) = before {
                    state.trespassed |= rows != state.rows || counter != state.counter;
                }
            }
            Step::LeaseEnds(execution) => {
                let row = &mut state.rows[execution];
                (row.status == Status::Running && !row.lease_ended).then_some(())?;
                row.lease_ended = true;
            }
            Step::GiveBack(execution) => {
                let row = &state.rows[execution];
                // Attempts without end would have epochs without end.
                let known = row.epoch <= MAX_EPOCH && !self.has(Flaw::LeasesWithoutSweep);
                (row.status == Status::Running && row.lease_ended && known).then_some(())?;
                self.give_back(state, execution, true);
            }
            Step::Halt(execution) => {
                let row = &mut state.rows[execution];
                match row.status {
                    Status::Submitted => {
                        row.settle(Outcome::Cancelled, None);
                        state.publish_if_any_waits();
                    }
                    Status::Running if !row.halt => row.halt = true,
                    _ => return None,
                }
            }
            Step::Crash(host) => {
                let host = &mut state.hosts[host];
                host.up.then_some(())?;
                host.up = false;
                (host.run, host.looked) = (None, None);
            }
            Step::Restart(host) => {
                let host = &mut state.hosts[host];
                (!host.up).then_some(())?;
                *host = Host { up: true, run: None, looked: None };
            }
        }
        Some(())
    }

    /// Whether a step needs no fault: what happens by itself while the hosts
    /// that are up stay so, and nothing is lost on the way.
    pub(crate) fn is_progress(state: &State, step: Step) -> bool {
        match step {
            Step::Accept { activated, .. } => activated,
            Step::Claim { heard, .. } | Step::Finish { heard, .. } => heard,
            // A lease ends where nobody renews it.
            Step::LeaseEnds(execution) => !state.is_held(execution),
            Step::Drop
            | Step::Activate
            | Step::Start(_)
            | Step::Append(_)
            | Step::Write(_)
            | Step::Renew(_)
            | Step::GiveBack(_) => true,
            Step::Lose
            | Step::Repeat
            | Step::Release(_)
            | Step::Retry(_)
            | Step::Halt(_)
            | Step::Crash(_)
            | Step::Restart(_) => false,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let host = Host { up: true, run: None, looked: None };
        vec![State {
            rows: [Row::UNSENT, Row::UNSENT],
            counter: 0,
            activated: false,
            hosts: [host; HOSTS],
            trespassed: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend([Step::Lose, Step::Repeat, Step::Drop, Step::Activate]);
        for execution in 0..state.rows.len() {
            steps.extend([
                Step::Accept { execution, activated: true },
                Step::Accept { execution, activated: false },
                Step::LeaseEnds(execution),
                Step::GiveBack(execution),
                Step::Halt(execution),
            ]);
            for host in 0..state.hosts.len() {
                steps.extend([true, false].map(|heard| Step::Claim { host, execution, heard }));
            }
        }
        for (host, known) in state.hosts.iter().enumerate() {
            steps.push(if known.up { Step::Crash(host) } else { Step::Restart(host) });
            if known.run.is_some() {
                steps.extend([
                    Step::Start(host),
                    Step::Append(host),
                    Step::Write(host),
                    Step::Finish { host, heard: true },
                    Step::Finish { host, heard: false },
                    Step::Release(host),
                    Step::Retry(host),
                    Step::Renew(host),
                ]);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = *last;
        self.take(&mut next, step)?;
        next.hosts.sort_unstable();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
