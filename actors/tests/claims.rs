//! What a claim may write, what of it counts, and what comes twice.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{Actor, Caller, Claim, Error, ExecutionStatus, Json, Outcome};
use fixture::{Engine, Fixture, LEASE, claim, host, succeeded};

on_each_engine!(
    what_an_execution_sets_counts_with_its_end,
    what_a_lost_attempt_set_leaves_no_trace,
    a_late_write_of_a_superseded_attempt_is_refused,
    a_state_that_a_user_sets_goes_before_what_the_running_execution_has_set,
    an_execution_sets_the_state_of_another_actor_as_its_owner_would,
    a_cancelled_execution_keeps_what_it_has_set,
    a_finish_may_come_twice,
    output_that_comes_twice_is_kept_once,
    a_lease_that_was_renewed_in_time_is_not_given_up,
);

with_a_broker![
    what_an_execution_sets_counts_with_its_end,
    what_a_lost_attempt_set_leaves_no_trace,
    a_late_write_of_a_superseded_attempt_is_refused,
    a_state_that_a_user_sets_goes_before_what_the_running_execution_has_set,
    an_execution_sets_the_state_of_another_actor_as_its_owner_would,
    a_cancelled_execution_keeps_what_it_has_set,
    a_finish_may_come_twice,
    output_that_comes_twice_is_kept_once,
    a_lease_that_was_renewed_in_time_is_not_given_up,
];

fn number(n: u32) -> Json {
    Json::parse(&n.to_string()).unwrap()
}

/// The owner's token, as an execution has it.
fn by(f: &Fixture, claim: &Claim) -> Caller {
    f.owner.clone().by(claim.key.clone())
}

async fn stateful(f: &Fixture) -> Actor {
    f.register(|new| new.stateless = false).await
}

async fn state(f: &Fixture, caller: &Caller, actor: &Actor) -> Json {
    f.service.actor_state(caller, actor.id.as_str()).await.unwrap()
}

async fn set(f: &Fixture, caller: &Caller, actor: &Actor, n: u32) -> Result<(), Error> {
    f.service.set_actor_state(caller, actor.id.as_str(), number(n)).await.map(drop)
}

async fn what_an_execution_sets_counts_with_its_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (stateful(&f).await, f.host().await);
    for n in 1..=2 {
        f.send(&actor, "x").await;
        let claim = f.claim(&host).await;
        let token = by(&f, &claim);
        let before = state(&f, &f.owner, &actor).await;
        assert_eq!(claim.actor.state, before, "it is given what counts");
        set(&f, &token, &actor, 100 + n).await.unwrap();
        set(&f, &token, &actor, n).await.unwrap();
        assert_eq!(state(&f, &token, &actor).await, number(n), "it reads what it set");
        assert_eq!(state(&f, &f.owner, &actor).await, before, "nobody else does");
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
        assert_eq!(state(&f, &f.owner, &actor).await, number(n));
    }
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(state(&f, &f.owner, &actor).await, number(2), "who sets nothing changes nothing");
}

async fn what_a_lost_attempt_set_leaves_no_trace(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (stateful(&f).await, f.host().await);
    set(&f, &f.owner, &actor, 1).await.unwrap();
    let sent = f.send(&actor, "x").await;
    let lost = f.claim(&host).await;
    set(&f, &by(&f, &lost), &actor, 2).await.unwrap();
    f.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(f.service.sweep().await.unwrap().retried, 1);

    let next = f.claim(&host).await;
    assert_eq!(next.actor.state, number(1), "the next attempt begins with what counts");
    assert_eq!(state(&f, &by(&f, &next), &actor).await, number(1));
    set(&f, &by(&f, &next), &actor, 3).await.unwrap();
    assert!(!f.service.finish(&lost.key, succeeded()).await.unwrap());
    assert_eq!(state(&f, &f.owner, &actor).await, number(1));
    assert!(f.service.finish(&next.key, succeeded()).await.unwrap());
    assert_eq!(state(&f, &f.owner, &actor).await, number(3), "it counts once");

    // Given back, and lost for good.
    let given_back = f.send(&actor, "y").await;
    let claim = f.claim(&host).await;
    set(&f, &by(&f, &claim), &actor, 4).await.unwrap();
    assert!(f.service.release(&claim.key).await.unwrap());
    for n in 5..5 + f.service.config().max_attempts {
        let claim = f.claim(&host).await;
        assert_eq!(claim.actor.state, number(3));
        set(&f, &by(&f, &claim), &actor, n).await.unwrap();
        f.clock.advance(LEASE + Duration::from_secs(1));
        f.service.sweep().await.unwrap();
    }
    assert_eq!(f.execution(&given_back).await.outcome, Some(Outcome::Lost));
    assert_eq!(f.execution(&sent).await.outcome, Some(Outcome::Succeeded));
    assert_eq!(state(&f, &f.owner, &actor).await, number(3));
}

async fn a_late_write_of_a_superseded_attempt_is_refused(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (stateful(&f).await, f.host().await);
    f.send(&actor, "x").await;
    let lost = f.claim(&host).await;
    f.clock.advance(LEASE + Duration::from_secs(1));
    f.service.sweep().await.unwrap();
    let refused = |result: Result<(), Error>, when: &str| {
        assert!(matches!(result, Err(Error::Superseded { .. })), "{when}: {result:?}");
    };
    refused(set(&f, &by(&f, &lost), &actor, 1).await, "while it waits");
    let next = f.claim(&host).await;
    refused(set(&f, &by(&f, &lost), &actor, 1).await, "while the next attempt runs");
    assert!(f.service.finish(&next.key, succeeded()).await.unwrap());
    refused(set(&f, &by(&f, &lost), &actor, 1).await, "after the end");
    refused(set(&f, &by(&f, &next), &actor, 1).await, "after its own end");
    assert_eq!(state(&f, &f.owner, &actor).await, Json::empty_object());
}

async fn a_state_that_a_user_sets_goes_before_what_the_running_execution_has_set(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (stateful(&f).await, f.host().await);
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let token = by(&f, &claim);
    set(&f, &token, &actor, 1).await.unwrap();
    set(&f, &f.owner, &actor, 2).await.unwrap();
    assert_eq!(state(&f, &f.owner, &actor).await, number(2), "at once");
    assert_eq!(state(&f, &token, &actor).await, number(2), "for the execution too");
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(state(&f, &f.owner, &actor).await, number(2));

    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    set(&f, &f.owner, &actor, 3).await.unwrap();
    set(&f, &by(&f, &claim), &actor, 4).await.unwrap();
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(state(&f, &f.owner, &actor).await, number(4), "the last writer wins");
}

async fn an_execution_sets_the_state_of_another_actor_as_its_owner_would(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, other, host) = (stateful(&f).await, stateful(&f).await, f.host().await);
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    set(&f, &by(&f, &claim), &other, 1).await.unwrap();
    assert_eq!(state(&f, &f.owner, &other).await, number(1));
    assert_eq!(state(&f, &by(&f, &claim), &actor).await, Json::empty_object());
}

async fn a_cancelled_execution_keeps_what_it_has_set(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (stateful(&f).await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    set(&f, &by(&f, &claim), &actor, 1).await.unwrap();
    f.service.halt_execution(&f.owner, actor.id.as_str(), sent.id.as_str()).await.unwrap();
    // Its host was about to stop besides.
    assert!(f.service.release(&claim.key).await.unwrap());
    assert_eq!(f.execution(&sent).await.outcome, Some(Outcome::Cancelled));
    assert_eq!(state(&f, &f.owner, &actor).await, number(1), "its claim held to the end");
}

async fn a_finish_may_come_twice(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let first = f.claim(&host).await;
    let mut finish = succeeded();
    finish.output = b"once".to_vec();
    finish.usage.runtime = Duration::from_nanos(1_234_567);
    assert!(f.service.finish(&first.key, finish.clone()).await.unwrap());
    assert!(f.service.finish(&first.key, finish.clone()).await.unwrap(), "its answer got lost");
    assert_eq!(f.logs(&sent).await, "once");
    let mut another = finish.clone();
    another.exit_code = Some(1);
    assert!(!f.service.finish(&first.key, another).await.unwrap());

    f.send(&actor, "x").await;
    let lost = f.claim(&host).await;
    f.clock.advance(LEASE + Duration::from_secs(1));
    f.service.sweep().await.unwrap();
    assert!(!f.service.finish(&lost.key, finish.clone()).await.unwrap(), "it waits again");
    let next = f.claim(&host).await;
    assert!(f.service.finish(&next.key, finish.clone()).await.unwrap());
    assert!(!f.service.finish(&lost.key, finish).await.unwrap(), "another attempt ended so");
}

async fn output_that_comes_twice_is_kept_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    for (position, bytes) in [(0, "one "), (0, "one two "), (4, "two "), (8, "three ")] {
        assert!(
            f.service.append_logs(&claim.key, position, bytes.as_bytes(), false).await.unwrap()
        );
    }
    let mut finish = succeeded();
    finish.output = b"three four".to_vec();
    finish.output_position = 8;
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
    assert_eq!(f.logs(&sent).await, "one two three four");
}

async fn a_lease_that_was_renewed_in_time_is_not_given_up(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    for _ in 0..20 {
        f.send(&actor, "x").await;
    }
    let other = f.again().await;
    let one = host(&other, "one").await;
    let mut claims = Vec::new();
    while claims.len() < usize::try_from(f.service.config().max_workers_per_actor).unwrap().min(20)
    {
        claims.push(claim(&other, &one).await.key);
    }
    f.clock.advance(LEASE + Duration::from_secs(1));
    // Whichever comes first: what is renewed is not given up, what is given up
    // is not renewed.
    let (renewed, swept) = tokio::join!(other.renew(&one, &claims, LEASE), f.service.sweep());
    let lost = renewed.unwrap().lost.len();
    assert_eq!(swept.unwrap().retried, lost as u64);
    let mut running = 0;
    for summary in f.service.executions(&f.owner, actor.id.as_str()).await.unwrap().executions {
        running += usize::from(summary.status == ExecutionStatus::Running);
    }
    assert_eq!(running, claims.len() - lost);
}
