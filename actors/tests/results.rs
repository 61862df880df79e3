//! What executions send back: who reads it, how often, and for how long.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Awaited, Caller, Claim, Error, Execution, Noun, Role, Tenant};
use fixture::{Engine, Fixture, LEASE, PATIENCE, succeeded};

on_each_engine!(
    results_are_taken_once_and_read_by_number_as_often_as_anybody_likes,
    results_that_come_twice_are_kept_once,
    two_readers_get_different_results,
    results_of_a_lost_attempt_are_gone,
    results_expire,
    results_are_for_those_who_may_see_the_execution,
    who_waits_gets_a_result_before_the_end,
);

fn batch(results: &[&[u8]]) -> Vec<Arc<[u8]>> {
    results.iter().map(|result| Arc::from(*result)).collect()
}

async fn append(f: &Fixture, claim: &Claim, first: u64, results: &[&[u8]]) -> bool {
    f.service.append_results(&claim.key, first, batch(results)).await.unwrap()
}

async fn take(f: &Fixture, execution: &Execution) -> Option<Vec<u8>> {
    let (actor, id) = (execution.actor.as_str(), execution.id.as_str());
    f.service.take_result(&f.owner, actor, id).await.unwrap()
}

async fn numbers(f: &Fixture, execution: &Execution) -> Vec<(u64, u64, bool)> {
    let (actor, id) = (execution.actor.as_str(), execution.id.as_str());
    let results = f.service.results(&f.owner, actor, id).await.unwrap();
    results.iter().map(|result| (result.number, result.size_bytes, result.taken)).collect()
}

async fn results_are_taken_once_and_read_by_number_as_often_as_anybody_likes(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    assert_eq!(take(&f, &sent).await, None, "nothing before there is anything");
    let claim = f.claim(&host).await;
    assert!(append(&f, &claim, 1, &[b"one", b"\0two\xff"]).await);
    assert_eq!(take(&f, &sent).await.unwrap(), b"one", "while it runs");
    assert!(append(&f, &claim, 3, &[b""]).await);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());

    assert_eq!(numbers(&f, &sent).await, [(1, 3, true), (2, 5, false), (3, 0, false)]);
    assert_eq!(take(&f, &sent).await.unwrap(), b"\0two\xff");
    assert_eq!(take(&f, &sent).await.unwrap(), b"");
    assert_eq!(take(&f, &sent).await, None);
    let (actor, id) = (actor.id.as_str(), sent.id.as_str());
    for _ in 0..2 {
        assert_eq!(f.service.result(&f.owner, actor, id, 2).await.unwrap(), b"\0two\xff");
    }
    let missing = f.service.result(&f.owner, actor, id, 4).await;
    assert!(matches!(missing, Err(Error::NotFound { noun: Noun::Result, .. })), "{missing:?}");
}

async fn results_that_come_twice_are_kept_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert!(append(&f, &claim, 1, &[b"a", b"b"]).await);
    assert_eq!(take(&f, &sent).await.unwrap(), b"a");
    assert!(append(&f, &claim, 1, &[b"a", b"b"]).await, "the answer was lost");
    assert_eq!(numbers(&f, &sent).await, [(1, 1, true), (2, 1, false)]);
}

async fn two_readers_get_different_results(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let results: Vec<[u8; 1]> = (0..20).map(|n| [n]).collect();
    let results: Vec<&[u8]> = results.iter().map(|result| &result[..]).collect();
    assert!(append(&f, &claim, 1, &results).await);
    let readers = (0..20).map(|_| take(&f, &sent));
    let mut taken: Vec<u8> =
        futures_util::future::join_all(readers).await.into_iter().flatten().flatten().collect();
    // Who asks while another is about to take the only one that is left may get none.
    while let Some(result) = take(&f, &sent).await {
        taken.extend(result);
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..20).collect::<Vec<u8>>());
}

async fn results_of_a_lost_attempt_are_gone(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let lost = f.claim(&host).await;
    assert!(append(&f, &lost, 1, &[b"lost", b"lost"]).await);
    f.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(f.service.sweep().await.unwrap().retried, 1);
    let claim = f.claim(&host).await;
    assert_eq!(take(&f, &sent).await, None);
    assert!(!append(&f, &lost, 3, &[b"late"]).await, "its claim is lost");
    assert!(append(&f, &claim, 1, &[b"kept"]).await);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert!(!append(&f, &claim, 2, &[b"after the end"]).await);
    assert_eq!(numbers(&f, &sent).await, [(1, 4, false)]);

    let sent = f.send(&actor, "y").await;
    let claim = f.claim(&host).await;
    assert!(append(&f, &claim, 1, &[b"given back"]).await);
    assert!(f.service.release(&claim.key).await.unwrap());
    assert_eq!(numbers(&f, &sent).await, []);
}

async fn results_expire(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert!(append(&f, &claim, 1, &[b"a"]).await);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    f.clock.advance(f.service.config().result_expiry);
    f.service.sweep().await.unwrap();
    assert_eq!(numbers(&f, &sent).await.len(), 1);
    f.clock.advance(Duration::from_secs(1));
    f.service.sweep().await.unwrap();
    assert_eq!(numbers(&f, &sent).await, []);
    assert_eq!(f.rows.number("select count(*) from results").await, 0);
}

async fn results_are_for_those_who_may_see_the_execution(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert!(append(&f, &claim, 1, &[b"secret"]).await);
    let other = Caller::new(Tenant::default(), "other", Role::User);
    let foreign = Caller::new(Tenant::new("ELSEWHERE"), "owner", Role::Admin);
    for caller in [other, foreign] {
        let (actor, id) = (actor.id.as_str(), sent.id.as_str());
        assert!(f.service.take_result(&caller, actor, id).await.is_err(), "{caller:?}");
        assert!(f.service.results(&caller, actor, id).await.is_err(), "{caller:?}");
        assert!(f.service.result(&caller, actor, id, 1).await.is_err(), "{caller:?}");
    }
    assert_eq!(take(&f, &sent).await.unwrap(), b"secret");
}

async fn who_waits_gets_a_result_before_the_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let (actor, id) = (actor.id.as_str(), sent.id.as_str());
    let wait = |patience| f.service.wait_for_result(&f.owner, actor, id, patience);
    assert_eq!(wait(Duration::ZERO).await.unwrap(), Awaited::Nothing);
    let (awaited, held) = tokio::join!(wait(PATIENCE), append(&f, &claim, 1, &[b"a", b"b"]));
    assert!(held);
    assert_eq!(awaited.unwrap(), Awaited::Result(b"a".to_vec()));
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(wait(PATIENCE).await.unwrap(), Awaited::Result(b"b".to_vec()));
    let ended = wait(PATIENCE).await.unwrap();
    assert!(matches!(ended, Awaited::Ended(execution) if execution.id == sent.id));
}
