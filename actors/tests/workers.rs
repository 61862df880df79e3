//! The workers of an actor: slots that come by need and go when they are idle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Actor, ActorStatus, ActorUpdate, Caller, Error, Finish, HostId, HostInfo, Noun, Outcome, Role,
    Tenant, Worker, WorkerStatus, WorkersAsked,
};
use fixture::{Engine, Fixture, LEASE, nothing_is_deliverable, succeeded};

on_each_engine![
    a_worker_is_asked_for_with_the_actor_and_ready_with_its_image,
    a_message_before_that_takes_the_worker_that_was_asked_for,
    an_image_that_cannot_be_had_leaves_no_worker,
    an_image_update_keeps_the_old_worker_until_the_new_is_ready,
    a_stateful_actor_has_one_worker_on_whatever_host,
    stateless_actors_have_no_more_workers_than_they_may,
    admins_ask_for_workers_and_others_may_not,
    asked_for_workers_run_at_once,
    an_idle_worker_is_stopped_at_once_and_a_busy_one_after_its_execution,
    a_worker_that_is_asked_to_stop_as_its_execution_ends_does_not_stay,
    idle_workers_go_and_the_actor_stays_ready,
    a_worker_of_a_host_that_is_gone_goes_or_is_asked_for_again,
    what_never_starts_puts_the_actor_into_error,
    an_actor_whose_hosts_are_away_says_so,
];

async fn workers(f: &Fixture, actor: &Actor) -> Vec<Worker> {
    f.service.workers(&f.owner, actor.id.as_str()).await.unwrap()
}

async fn statuses(f: &Fixture, actor: &Actor) -> Vec<WorkerStatus> {
    workers(f, actor).await.into_iter().map(|worker| worker.status).collect()
}

async fn ready(f: &Fixture, actor: &Actor, host: &HostId) {
    f.service.actor_ready(&actor.id, actor.revision, host).await.unwrap();
}

async fn stateful(f: &Fixture) -> Actor {
    f.register(|new| new.stateless = false).await
}

async fn ask(f: &Fixture, actor: &Actor, wanted: i64) -> WorkersAsked {
    f.service.ask_for_workers(&f.admin, actor.id.as_str(), wanted).await.unwrap()
}

async fn a_worker_is_asked_for_with_the_actor_and_ready_with_its_image(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let asked = workers(&f, &actor).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].status, WorkerStatus::Requested);
    assert_eq!((&asked[0].image, &asked[0].host), (&None, &None));
    f.service.actor_pulls(&actor.id, &host).await.unwrap();
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::PullingImage]);
    ready(&f, &actor, &host).await;
    let worker = workers(&f, &actor).await.remove(0);
    assert_eq!(worker.id, asked[0].id);
    assert_eq!(worker.status, WorkerStatus::Ready);
    assert_eq!(worker.image.as_deref(), Some("busybox"));
    assert_eq!(worker.host, Some(host));
    assert_eq!(worker.host_name, "host");
    assert_eq!(worker.last_health_check, Some(f.clock.now()));
    assert_eq!(worker.last_execution, None);
    let found = f.service.worker(&f.owner, actor.id.as_str(), worker.id.as_str()).await.unwrap();
    assert_eq!(found, worker);
}

async fn a_message_before_that_takes_the_worker_that_was_asked_for(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let asked = workers(&f, &actor).await.remove(0);
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert_eq!(claim.worker, asked.id);
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::Busy]);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    let worker = workers(&f, &actor).await.remove(0);
    assert_eq!(worker.status, WorkerStatus::Ready);
    assert_eq!(worker.last_execution, Some(f.clock.now()));
}

async fn an_image_that_cannot_be_had_leaves_no_worker(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    assert!(f.service.actor_failed(&actor.id, 1, "no image busybox").await.unwrap());
    assert!(workers(&f, &actor).await.is_empty());
}

async fn an_image_update_keeps_the_old_worker_until_the_new_is_ready(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = stateful(&f).await;
    ready(&f, &actor, &host).await;
    let old = workers(&f, &actor).await.remove(0);
    f.clock.advance(Duration::from_secs(1));
    let mut update = ActorUpdate::new("busybox:2");
    update.settings.stateless = false;
    let updated = f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    let listed = workers(&f, &actor).await;
    assert_eq!(listed[0], old, "the first is the old one");
    assert_eq!(listed[1].status, WorkerStatus::Requested);
    ready(&f, &updated, &host).await;
    let new = workers(&f, &actor).await;
    assert_eq!(new.len(), 1);
    assert_eq!(new[0].image.as_deref(), Some("busybox:2"));
    assert_eq!(new[0].revision, Some(2));
}

async fn a_stateful_actor_has_one_worker_on_whatever_host(engine: Engine) {
    let f = Fixture::new(engine).await;
    let here = f.host().await;
    let there = fixture::host(&f.service, "there").await;
    let actor = stateful(&f).await;
    ready(&f, &actor, &here).await;
    for host in [&there, &here, &there] {
        f.send(&actor, "x").await;
        let claim = f.claim(host).await;
        let listed = workers(&f, &actor).await;
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].host, &listed[0].id), (&Some(host.clone()), &claim.worker));
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
}

async fn stateless_actors_have_no_more_workers_than_they_may(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hosts = [f.host().await, fixture::host(&f.service, "there").await];
    let actor = f.register(|new| new.max_workers = Some(3)).await;
    for round in 0..3 {
        for _ in 0..5 {
            f.send(&actor, "long").await;
        }
        let mut claims = Vec::new();
        for n in 0..3 {
            claims.push(f.claim(&hosts[(round + n) % 2]).await);
        }
        assert!(nothing_is_deliverable(&f.service).await, "it has no room");
        assert_eq!(statuses(&f, &actor).await, [WorkerStatus::Busy; 3]);
        f.service.purge_messages(&f.owner, actor.id.as_str()).await.unwrap();
        for claim in claims {
            assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
        }
    }
}

async fn admins_ask_for_workers_and_others_may_not(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = stateful(&f).await;
    ready(&f, &actor, &host).await;
    let refused = f.service.ask_for_workers(&f.owner, actor.id.as_str(), 2).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::AdminsOnly { .. }), "{error:?}");
    assert_eq!(error.to_string(), "only admins are authorized to update workers");
    assert_eq!(ask(&f, &actor, 1).await, WorkersAsked { before: 1, added: 0 });
    assert_eq!(ask(&f, &actor, 0).await, WorkersAsked { before: 1, added: 0 });
    f.clock.advance(Duration::from_millis(1));
    assert_eq!(ask(&f, &actor, 2).await, WorkersAsked { before: 1, added: 1 });
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::Ready, WorkerStatus::Requested]);
    // A host provides it, though the actor is READY.
    let classes = &f.service.config().queues;
    let preparation =
        tokio::time::timeout(LEASE, f.service.receive_preparation(classes)).await.unwrap().unwrap();
    assert_eq!(preparation.actor.id, actor.id);
    ready(&f, &preparation.actor, &host).await;
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::Ready; 2]);
    assert_eq!(ask(&f, &actor, 1).await, WorkersAsked { before: 2, added: 0 }, "never fewer");
    f.clock.advance(Duration::from_secs(3_600));
    f.service.renew(&host, &[], LEASE).await.unwrap();
    f.service.sweep().await.unwrap();
    assert_eq!(statuses(&f, &actor).await.len(), 2, "a stateful actor keeps them");

    let first = workers(&f, &actor).await.remove(0);
    f.service.stop_worker(&f.owner, actor.id.as_str(), first.id.as_str()).await.unwrap();
    let left = workers(&f, &actor).await;
    assert!(left.len() == 1 && left[0].id != first.id);
    for unknown in [first.id.as_str(), "nobody"] {
        let missing = f.service.stop_worker(&f.owner, actor.id.as_str(), unknown).await;
        assert!(matches!(missing, Err(Error::NotFound { noun: Noun::Worker, .. })), "{missing:?}");
    }
    let too_many = f.service.ask_for_workers(&f.admin, actor.id.as_str(), 1_001).await;
    assert!(matches!(too_many, Err(Error::Invalid { .. })), "{too_many:?}");
    let elsewhere = Caller::new(Tenant::new("OTHER"), "admin", Role::Admin);
    let foreign = f.service.ask_for_workers(&elsewhere, actor.id.as_str(), 1).await;
    assert!(matches!(foreign, Err(Error::NotFound { .. })), "{foreign:?}");
}

async fn asked_for_workers_run_at_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.max_workers = Some(1)).await;
    ready(&f, &actor, &host).await;
    for _ in 0..3 {
        f.send(&actor, "x").await;
    }
    let first = f.claim(&host).await;
    assert!(nothing_is_deliverable(&f.service).await, "its own limit");
    ask(&f, &actor, 2).await;
    let second = f.claim(&host).await;
    assert!(nothing_is_deliverable(&f.service).await, "what the admin asked for");
    for claim in [first, second] {
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
    let third = f.claim(&host).await;
    assert!(f.service.finish(&third.key, succeeded()).await.unwrap());
    // It holds until they go.
    f.clock.advance(Duration::from_secs(31));
    f.service.renew(&host, &[], LEASE).await.unwrap();
    f.service.sweep().await.unwrap();
    assert!(workers(&f, &actor).await.is_empty());
    assert_eq!(f.service.actor(&f.owner, actor.id.as_str()).await.unwrap().wanted_workers, 0);
}

async fn an_idle_worker_is_stopped_at_once_and_a_busy_one_after_its_execution(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let stop = async |worker: &str| {
        f.service.stop_worker(&f.owner, actor.id.as_str(), worker).await.unwrap();
    };
    stop(claim.worker.as_str()).await;
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::ShutdownRequested]);
    stop(claim.worker.as_str()).await;
    // Others are not held up.
    f.send(&actor, "y").await;
    let other = f.claim(&host).await;
    assert_ne!(other.worker, claim.worker);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(f.execution(&sent).await.outcome, Some(Outcome::Succeeded));
    assert_eq!(statuses(&f, &actor).await, [WorkerStatus::Busy]);
    assert!(f.service.finish(&other.key, succeeded()).await.unwrap());
    stop(other.worker.as_str()).await;
    assert!(workers(&f, &actor).await.is_empty());
    f.send(&actor, "z").await;
    f.claim(&host).await;
}

async fn a_worker_that_is_asked_to_stop_as_its_execution_ends_does_not_stay(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    let ended = f.claim(&host).await;
    assert!(f.service.finish(&ended.key, succeeded()).await.unwrap());
    // It was BUSY when it was asked.
    f.rows.execute("update workers set status = 'SHUTDOWN_REQUESTED'").await;
    f.send(&actor, "y").await;
    let busy = f.claim(&host).await;
    f.service.stop_worker(&f.owner, actor.id.as_str(), busy.worker.as_str()).await.unwrap();
    f.service.sweep().await.unwrap();
    let left = workers(&f, &actor).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].id, busy.worker, "one that has an execution has it until its end");
}

async fn idle_workers_go_and_the_actor_stays_ready(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let plain = f.actor().await;
    let sync = f.register(|new| new.hints = vec!["sync".to_owned()]).await;
    let stateful = stateful(&f).await;
    for actor in [&plain, &sync, &stateful] {
        ready(&f, actor, &host).await;
    }
    ask(&f, &sync, 2).await;
    ready(&f, &sync, &host).await;
    f.send(&sync, "x").await;
    f.clock.advance(Duration::from_secs(1));
    let claim = f.claim(&host).await;
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    let after = async |seconds| {
        f.clock.advance(Duration::from_secs(seconds));
        f.service.renew(&host, &[], LEASE).await.unwrap();
        f.service.sweep().await.unwrap();
        let mut counts = Vec::new();
        for actor in [&plain, &sync, &stateful] {
            counts.push(workers(&f, actor).await.len());
        }
        counts
    };
    assert_eq!(after(20).await, [1, 2, 1]);
    assert_eq!(after(15).await, [0, 1, 1], "one is kept for the hint");
    assert_eq!(workers(&f, &sync).await[0].id, claim.worker, "the one that ran last");
    assert_eq!(after(500).await, [0, 1, 1]);
    assert_eq!(after(100).await, [0, 0, 1]);
    assert_eq!(after(86_400).await, [0, 0, 0]);
    for actor in [&plain, &stateful] {
        let actor = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
        assert_eq!(actor.status, ActorStatus::Ready);
        f.send(&actor, "x").await;
        let claim = f.claim(&host).await;
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
}

async fn a_worker_of_a_host_that_is_gone_goes_or_is_asked_for_again(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let (plain, stateful) = (f.actor().await, stateful(&f).await);
    for actor in [&plain, &stateful] {
        ready(&f, actor, &host).await;
    }
    f.send(&plain, "x").await;
    let claim = f.claim(&host).await;
    // It is to go when it has ended, which nobody will say.
    f.service.stop_worker(&f.owner, plain.id.as_str(), claim.worker.as_str()).await.unwrap();
    assert_eq!(statuses(&f, &plain).await, [WorkerStatus::ShutdownRequested]);
    f.clock.advance(Duration::from_secs(61));
    let other = fixture::host(&f.service, "other").await;
    // Its lease has ended with it.
    assert_eq!(f.service.sweep().await.unwrap().retried, 1);
    assert!(workers(&f, &plain).await.is_empty());
    assert_eq!(statuses(&f, &stateful).await, [WorkerStatus::Requested]);
    ready(&f, &stateful, &other).await;
    assert_eq!(workers(&f, &stateful).await[0].host, Some(other.clone()));
    // Nobody provides what was asked for.
    let asked = f.actor().await;
    f.clock.advance(Duration::from_secs(301));
    f.service.renew(&other, &[], LEASE).await.unwrap();
    f.service.sweep().await.unwrap();
    assert!(workers(&f, &asked).await.is_empty());
    assert_eq!(statuses(&f, &stateful).await, [WorkerStatus::Ready]);
    // A later process of the host takes over what the earlier had.
    f.service.recover(&[other]).await.unwrap();
    assert_eq!(statuses(&f, &stateful).await, [WorkerStatus::Requested]);
}

async fn what_never_starts_puts_the_actor_into_error(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    ready(&f, &actor, &host).await;
    let status = async || f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    let fail = async |outcome| {
        f.send(&actor, "x").await;
        let claim = f.claim(&host).await;
        let finish = Finish::new(outcome, "could not run /nowhere: no such file");
        assert!(f.service.finish(&claim.key, finish).await.unwrap());
    };
    for _ in 0..5 {
        fail(Outcome::CouldNotStart).await;
    }
    // One that starts, whatever becomes of it, begins the count anew.
    fail(Outcome::Failed).await;
    for _ in 0..5 {
        fail(Outcome::CouldNotStart).await;
    }
    assert_eq!(status().await.status, ActorStatus::Ready);
    fail(Outcome::CouldNotStart).await;
    let failed = status().await;
    assert_eq!(failed.status, ActorStatus::Error);
    for part in ["Error executing container", "/nowhere", "force"] {
        assert!(failed.status_message.contains(part), "{}", failed.status_message);
    }
    // What waits is kept for the owner's update.
    f.send(&actor, "waits").await;
    assert!(nothing_is_deliverable(&f.service).await);
    let mut update = ActorUpdate::new("busybox");
    update.force = true;
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    let claim = f.claim(&host).await;
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
}

async fn an_actor_whose_hosts_are_away_says_so(engine: Engine) {
    let f = Fixture::new(engine).await;
    let info = HostInfo::new("plain", "1", 8);
    let host = f.service.register_host(info).await.unwrap();
    let (plain, special) = (f.actor().await, f.register(|new| new.queue = "special".into()).await);
    let message = async |actor: &Actor| {
        f.service.actor(&f.owner, actor.id.as_str()).await.unwrap().status_message
    };
    f.service.sweep().await.unwrap();
    assert_eq!(message(&special).await, "", "one may come");
    f.clock.advance(Duration::from_secs(16));
    f.service.renew(&host, &[], LEASE).await.unwrap();
    f.service.sweep().await.unwrap();
    assert!(message(&special).await.contains("serves the queue special"));
    assert_eq!(message(&plain).await, "", "its host is there");
    f.clock.advance(Duration::from_secs(120));
    f.service.sweep().await.unwrap();
    assert!(message(&plain).await.contains("serves the queue default"));
    ready(&f, &plain, &host).await;
    assert_eq!(message(&plain).await, " ");
}
