//! Processes that share a database hear of each other's changes at once, not
//! only when they look.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod fixture;

use std::time::{Duration, Instant};

use fixture::{Engine, Fixture, LEASE, PATIENCE, receives, succeeded};

/// Half of how often they look.
const AT_ONCE: Duration = Duration::from_millis(250);

/// The shortest of ten times: a busy machine makes some of them long.
async fn shortest(mut round: impl AsyncFnMut() -> Duration) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        shortest = shortest.min(round().await);
    }
    shortest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_execution_is_heard_elsewhere() {
    let f = Fixture::new(Engine::Postgres).await;
    let elsewhere = f.again().await;
    let (host, actor) = (f.host().await, f.actor().await);
    let took = shortest(async || {
        let sent = f.send(&actor, "x").await;
        let claim = f.claim(&host).await;
        let waits = {
            let (elsewhere, owner, actor) =
                (elsewhere.clone(), f.owner.clone(), actor.id.to_string());
            tokio::spawn(async move {
                let wait = elsewhere.wait_for_execution(&owner, &actor, sent.id.as_str(), PATIENCE);
                let ended = wait.await.unwrap();
                assert!(ended.status.is_final());
                Instant::now()
            })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
        let finished = Instant::now();
        waits.await.unwrap().saturating_duration_since(finished)
    })
    .await;
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_taken_at_once_by_a_host_of_another_process() {
    let f = Fixture::new(Engine::Postgres).await;
    let elsewhere = f.again().await;
    let (host, actor) = (fixture::host(&elsewhere, "other").await, f.actor().await);
    let took = shortest(async || {
        let waits = {
            let elsewhere = elsewhere.clone();
            tokio::spawn(async move { (receives(&elsewhere).await.unwrap(), Instant::now()) })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sent = f.send(&actor, "x").await;
        let accepted = Instant::now();
        let (delivery, received) = waits.await.unwrap();
        let claim = elsewhere.claim(delivery, &host, LEASE).await.unwrap().unwrap();
        assert_eq!(claim.key.execution, sent.id);
        assert!(elsewhere.finish(&claim.key, succeeded()).await.unwrap());
        received.saturating_duration_since(accepted)
    })
    .await;
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_actor_is_prepared_at_once_by_another_process() {
    let f = Fixture::new(Engine::Postgres).await;
    let elsewhere = f.again().await;
    let took = shortest(async || {
        let waits = {
            let elsewhere = elsewhere.clone();
            tokio::spawn(async move {
                (
                    elsewhere.receive_preparation(&elsewhere.config().queues).await.unwrap(),
                    Instant::now(),
                )
            })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let actor = f.actor().await;
        let registered = Instant::now();
        let (preparation, heard) = waits.await.unwrap();
        assert_eq!(preparation.actor.id, actor.id);
        let host = fixture::host(&elsewhere, "elsewhere").await;
        assert!(elsewhere.actor_ready(&actor.id, 1, &host).await.unwrap());
        heard.saturating_duration_since(registered)
    })
    .await;
    assert!(took < AT_ONCE, "{took:?}");
}
