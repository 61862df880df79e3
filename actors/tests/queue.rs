//! What the queue promises: everything comes, in turn and in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::collections::HashSet;
use std::time::Duration;

use abax_actors::{ActorStatus, ActorUpdate, Caller, NewActor, NewMessage, Role, Tenant};
use fixture::{Engine, Fixture, LEASE, claim, nothing_is_deliverable, receive, succeeded};

on_each_engine![
    a_dropped_delivery_comes_back,
    what_cannot_be_claimed_comes_back_later_and_holds_nobody_up,
    a_receiver_that_gives_up_takes_nothing_along,
    a_long_queue_of_one_actor_starves_nobody,
    many_actors_of_one_tenant_starve_no_other,
    a_stateful_actor_runs_one_execution_at_a_time_in_order,
    the_state_that_one_execution_leaves_is_what_the_next_sees,
    max_workers_bounds_what_runs_at_once,
    messages_of_an_actor_in_error_wait_for_its_update,
    two_services_on_one_database_share_the_work,
];

with_a_broker![
    a_dropped_delivery_comes_back,
    what_cannot_be_claimed_comes_back_later_and_holds_nobody_up,
    a_stateful_actor_runs_one_execution_at_a_time_in_order,
    the_state_that_one_execution_leaves_is_what_the_next_sees,
    max_workers_bounds_what_runs_at_once,
    messages_of_an_actor_in_error_wait_for_its_update,
    two_services_on_one_database_share_the_work,
];

async fn a_dropped_delivery_comes_back(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    for _ in 0..3 {
        let delivery = receive(&f.service).await;
        assert_eq!(delivery.execution, sent.id);
        assert!(nothing_is_deliverable(&f.service).await, "it is handed out once at a time");
        drop(delivery);
    }
    receive(&f.service).await.reject();
    receive(&f.service).await.retry_after(Duration::from_secs(5));
    assert!(nothing_is_deliverable(&f.service).await, "not before its delay");
    f.clock.advance(Duration::from_secs(6));
    assert_eq!(receive(&f.service).await.execution, sent.id);
}

async fn what_cannot_be_claimed_comes_back_later_and_holds_nobody_up(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (host, actor) = (f.host().await, f.actor().await);
    let broken = f.send(&actor, "broken").await;
    f.rows.execute("update messages set kind = 'unknown'").await;
    let whole = f.send(&actor, "whole").await;

    let delivery = receive(&f.service).await;
    assert_eq!(delivery.execution, broken.id);
    f.service.claim(delivery, &host, LEASE).await.unwrap_err();
    assert_eq!(f.claim(&host).await.key.execution, whole.id);
    assert!(nothing_is_deliverable(&f.service).await, "it would be tried again and again");
    f.clock.advance(Duration::from_secs(2));
    assert_eq!(receive(&f.service).await.execution, broken.id);
}

async fn a_receiver_that_gives_up_takes_nothing_along(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.max_workers = Some(100)).await;
    for _ in 0..20 {
        f.send(&actor, "x").await;
    }
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    let mut microseconds = 0;
    while seen.len() < 20 {
        microseconds += 50;
        let patience = Duration::from_micros(microseconds);
        if let Ok(delivery) = tokio::time::timeout(patience, fixture::receives(&f.service)).await {
            let delivery = delivery.unwrap();
            assert!(seen.insert(delivery.execution.clone()), "delivered twice");
            held.push(delivery);
        }
        assert!(microseconds < 1_000_000, "only {} of 20 came", seen.len());
    }
}

async fn a_long_queue_of_one_actor_starves_nobody(engine: Engine) {
    let f = Fixture::new(engine).await;
    let busy = f.register(|new| new.max_workers = Some(1_000)).await;
    let sends = (0..1_000).map(|_| f.send(&busy, "x"));
    futures_util::future::join_all(sends).await;
    let _before = receive(&f.service).await;
    let calm = f.actor().await;
    let one = f.send(&calm, "me too").await;
    let next = [receive(&f.service).await, receive(&f.service).await];
    assert!(next.iter().any(|d| d.execution == one.id), "the other actor has its turn");
}

async fn many_actors_of_one_tenant_starve_no_other(engine: Engine) {
    let f = Fixture::new(engine).await;
    for _ in 0..20 {
        let actor = f.actor().await;
        f.send(&actor, "x").await;
    }
    let _before = [receive(&f.service).await, receive(&f.service).await];
    let other = Caller::new(Tenant::new("other"), "somebody", Role::User);
    let mut theirs = HashSet::new();
    for _ in 0..3 {
        let actor = f.service.register_actor(&other, NewActor::new("busybox")).await.unwrap().id;
        f.service.send_message(&other, actor.as_str(), NewMessage::text("x")).await.unwrap();
        theirs.insert(actor);
    }
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(receive(&f.service).await);
    }
    let turns: Vec<_> = held.iter().map(|d| theirs.contains(&d.actor)).collect();
    assert_eq!(turns, [true, false, true, false, true, false], "tenants take turns");
}

async fn a_stateful_actor_runs_one_execution_at_a_time_in_order(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.stateless = false).await;
    let mut sent = Vec::new();
    for i in 0..5 {
        sent.push(f.send(&actor, &i.to_string()).await.id);
    }
    let mut ran = Vec::new();
    for i in 0..5 {
        if i == 2 {
            // One that goes back stays first.
            let first = f.claim(&host).await;
            assert!(f.service.retry(&first.key, Duration::from_secs(9), "later").await.unwrap());
            assert!(nothing_is_deliverable(&f.service).await, "the others wait behind it");
            f.clock.advance(Duration::from_secs(10));
        }
        let claim = f.claim(&host).await;
        assert!(nothing_is_deliverable(&f.service).await, "one at a time");
        ran.push(claim.key.execution.clone());
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
    assert_eq!(ran, sent);
}

async fn the_state_that_one_execution_leaves_is_what_the_next_sees(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.stateless = false).await;
    f.send(&actor, "1").await;
    f.send(&actor, "2").await;
    let state = |claim: &abax_actors::Claim| {
        let found = claim.environment.iter().find(|(n, _)| n == "_abaco_actor_state");
        found.unwrap().1.clone()
    };
    let first = f.claim(&host).await;
    assert_eq!(state(&first), "{}");
    let new_state = abax_actors::Json::parse(r#"{"n": 1, "s": "it's"}"#).unwrap();
    f.service.set_actor_state(&f.owner, actor.id.as_str(), new_state).await.unwrap();
    assert!(f.service.finish(&first.key, succeeded()).await.unwrap());
    assert_eq!(state(&f.claim(&host).await), r#"{'n': 1, 's': "it's"}"#);
}

async fn max_workers_bounds_what_runs_at_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.max_workers = Some(2)).await;
    for _ in 0..4 {
        f.send(&actor, "x").await;
    }
    let first = f.claim(&host).await;
    let _second = f.claim(&host).await;
    assert!(nothing_is_deliverable(&f.service).await);
    assert!(f.service.finish(&first.key, succeeded()).await.unwrap());
    let _third = f.claim(&host).await;
    assert!(nothing_is_deliverable(&f.service).await);
}

async fn messages_of_an_actor_in_error_wait_for_its_update(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    assert!(f.service.actor_failed(&actor.id, 1, "no image busybox").await.unwrap());
    let sent = f.send(&actor, "x").await;
    assert!(nothing_is_deliverable(&f.service).await);
    let failed = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(failed.status, ActorStatus::Error);
    assert_eq!(failed.status_message, "no image busybox");
    let update = ActorUpdate::new("busybox:1");
    let updated = f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    assert_eq!((updated.status, updated.revision), (ActorStatus::Submitted, 2));
    assert!(!f.service.actor_ready(&actor.id, 1, &host).await.unwrap(), "of the image before");
    let claim = claim(&f.service, &host).await;
    assert_eq!(claim.key.execution, sent.id);
    assert_eq!(claim.actor.image, "busybox:1");
}

async fn two_services_on_one_database_share_the_work(engine: Engine) {
    let f = Fixture::new(engine).await;
    let other = f.again().await;
    let actor = f.register(|new| new.max_workers = Some(1_000)).await;
    let mut sent = HashSet::new();
    for i in 0..40 {
        // Both accept.
        let service = if i % 2 == 0 { &f.service } else { &other };
        let execution =
            service.send_message(&f.owner, actor.id.as_str(), NewMessage::text("x")).await.unwrap();
        sent.insert(execution.id);
    }
    let work = async |service: abax_actors::Service, name: &'static str| {
        let host = fixture::host(&service, name).await;
        let mut done = Vec::new();
        while let Ok(delivery) =
            tokio::time::timeout(Duration::from_secs(1), fixture::receives(&service)).await
        {
            if let Some(claim) = service.claim(delivery.unwrap(), &host, LEASE).await.unwrap() {
                assert!(service.finish(&claim.key, succeeded()).await.unwrap());
                done.push(claim.key.execution);
            }
        }
        done
    };
    let (a, b) = tokio::join!(work(f.service.clone(), "a"), work(other, "b"));
    assert_eq!(a.len() + b.len(), 40, "nothing is claimed twice");
    assert_eq!(a.into_iter().chain(b).collect::<HashSet<_>>(), sent);
}
