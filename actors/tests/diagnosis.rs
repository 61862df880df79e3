//! What does not move is found, and what has a reason not to is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use fixture::{Engine, Fixture, LEASE};

on_each_engine![what_stands_still_is_found];

async fn what_stands_still_is_found(engine: Engine) {
    let patience = Duration::from_secs(60);
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    // Its one worker has something to do: no reason to look further.
    let busy = f.register(|new| new.max_workers = Some(1)).await;
    f.send(&busy, "runs").await;
    let claim = f.claim(&host).await;
    f.send(&busy, "waits for its turn").await;
    let idle = f.actor().await;
    f.send(&idle, "waits though there is room").await;
    assert!(f.service.actor_ready(&idle.id, idle.revision, &host).await.unwrap());
    let broken = f.actor().await;
    f.service.actor_failed(&broken.id, broken.revision, "no such image").await.unwrap();

    let found = f.service.diagnose(patience).await.unwrap();
    assert!(found.waiting.is_empty() && found.overdue.is_empty(), "{found:?}");
    assert_eq!(found.broken.len(), 1);
    assert_eq!(found.broken[0].actor, broken.id);
    assert!(found.broken[0].status_message.contains("no such image"), "{found:?}");

    f.clock.advance(LEASE + patience + Duration::from_secs(1));
    let found = f.service.diagnose(patience).await.unwrap();
    assert_eq!(found.overdue.len(), 1, "{found:?}");
    assert_eq!(found.overdue[0].execution, claim.execution.id);
    let waiting: Vec<_> = found.waiting.iter().map(|w| (&w.actor, w.waiting, w.is_ready)).collect();
    assert_eq!(waiting, [(&idle.id, 1, true)]);
}
