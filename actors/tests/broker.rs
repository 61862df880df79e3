//! What the queue promises with a broker, whatever becomes of the broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abax_actors::{
    Actor, ActorId, Caller, Config, ExecutionId, HostId, NewActor, NewMessage, QueueConfig,
    RabbitMqConfig, Role, Service, Tenant,
};
use abax_testbed::RabbitMq;
use fixture::{Engine, Fixture, LEASE, PATIENCE, host, succeeded};

/// Activations of one actor that are under way at once, at most.
const SPREAD: u64 = 4;

/// Waits until `holds`, or fails after a while.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + 4 * PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Activations that wait at the broker.
async fn waiting(service: &Service) -> u64 {
    match service.waiting_activations().await {
        Ok(classes) => classes.values().sum(),
        Err(_) => u64::MAX,
    }
}

/// Everything that was called for is at the broker.
async fn published(service: &Service) {
    until("all is published", async || service.queue_state().unwrap().unpublished == 0).await;
}

/// Claims the next execution and says of which actor it is.
async fn claim(service: &Service, host: &HostId) -> abax_actors::Claim {
    let next = async {
        loop {
            let delivery = fixture::receives(service).await.unwrap();
            if let Some(claim) = service.claim(delivery, host, LEASE).await.unwrap() {
                return claim;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("something can be claimed")
}

/// Claims the next execution, ends it, and says of which actor it was.
async fn run(service: &Service, host: &HostId) -> ActorId {
    let claim = claim(service, host).await;
    assert!(service.finish(&claim.key, succeeded()).await.unwrap());
    claim.actor.id
}

async fn send_many(service: &Service, owner: &Caller, actor: &Actor, count: usize) {
    for _ in 0..count.div_ceil(50) {
        let sends = (0..50.min(count))
            .map(|_| service.send_message(owner, actor.id.as_str(), NewMessage::text("x")));
        for sent in futures_util::future::join_all(sends).await {
            sent.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_messages_of_one_actor_starve_no_other() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let host = f.host().await;
    let busy = f.register(|new| new.max_workers = Some(1_000)).await;
    send_many(&f.service, &f.owner, &busy, 5_000).await;
    published(&f.service).await;
    assert!(waiting(&f.service).await < 100, "few activations call for many executions");
    for _ in 0..10 {
        assert_eq!(run(&f.service, &host).await, busy.id);
    }
    let calm = f.actor().await;
    f.send(&calm, "me too").await;
    published(&f.service).await;
    let mut before = 0;
    while run(&f.service, &host).await != calm.id {
        before += 1;
    }
    // What the busy one has under way, also since it was sent by many at once.
    assert!(before <= 20, "{before} of the other actor's ran first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_however_many_actors_each_has() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let host = f.host().await;
    let mut loud = HashSet::new();
    for _ in 0..40 {
        let actor = f.actor().await;
        f.send(&actor, "x").await;
        loud.insert(actor.id);
    }
    let other = Caller::new(Tenant::new("a tenant / of others"), "somebody", Role::User);
    for _ in 0..10 {
        let new = NewActor::new("busybox");
        let calm = f.service.register_actor(&other, new).await.unwrap();
        let text = NewMessage::text("x");
        f.service.send_message(&other, calm.id.as_str(), text).await.unwrap();
    }
    published(&f.service).await;
    // The host has found the new tenant.
    while loud.contains(&run(&f.service, &host).await) {}
    let mut ran = Vec::new();
    for _ in 0..18 {
        ran.push(loud.contains(&run(&f.service, &host).await));
    }
    let of_loud = ran.iter().filter(|of_loud| **of_loud).count();
    assert!((6..=12).contains(&of_loud), "of the first tenant: {ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_grows_from_nothing_to_all_it_may_have() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let actor = f.register(|new| new.max_workers = Some(24)).await;
    let hosts = [f.again().await, f.again().await, f.again().await];
    send_many(&f.service, &f.owner, &actor, 50).await;
    let mut claiming = tokio::task::JoinSet::new();
    for (n, service) in hosts.iter().enumerate() {
        let id = host(service, &format!("host {n}")).await;
        for _ in 0..8 {
            let (service, id) = (service.clone(), id.clone());
            claiming.spawn(async move { claim(&service, &id).await });
        }
    }
    let claims = claiming.join_all().await;
    let distinct: HashSet<_> = claims.iter().map(|claim| &claim.key.execution).collect();
    assert_eq!(distinct.len(), 24, "none is run twice");
    let sql = "select count(*) from executions where status = 'RUNNING'";
    assert_eq!(f.rows.number(sql).await, 24);
    // As many as it may have: no more is delivered until one of them ends.
    let id = host(&f.service, "one more").await;
    let more = tokio::time::timeout(Duration::from_millis(500), claim(&f.service, &id));
    assert!(more.await.is_err());
    assert!(f.service.finish(&claims[0].key, succeeded()).await.unwrap());
    claim(&f.service, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_whose_activations_were_lost_is_called_for_again() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let host = f.host().await;
    let mut waiting_for: HashMap<ActorId, usize> = HashMap::new();
    for n in 1..=5 {
        let actor = f.actor().await;
        for _ in 0..n {
            f.send(&actor, "x").await;
        }
        waiting_for.insert(actor.id, n);
    }
    published(&f.service).await;
    let broker = f.broker.as_ref().unwrap();
    let purge = format!(
        "[rabbit_amqqueue:purge(Q) || Q <- rabbit_amqqueue:list(), \
         binary:match(element(4, amqqueue:get_name(Q)), <<\"{}\">>) =:= {{0, {}}}], ok.",
        broker.prefix(),
        broker.prefix().len()
    );
    assert_eq!(broker.evaluate(&purge).unwrap(), "ok");
    assert!(fixture::nothing_is_deliverable(&f.service).await);
    assert_eq!(f.service.activate_overdue().await.unwrap(), 0, "not at once");
    f.clock.advance(Duration::from_secs(15));
    assert_eq!(f.service.activate_overdue().await.unwrap(), 5);
    assert_eq!(f.service.activate_overdue().await.unwrap(), 0, "once for each");
    for _ in 0..15 {
        *waiting_for.get_mut(&run(&f.service, &host).await).unwrap() -= 1;
    }
    assert!(waiting_for.values().all(|n| *n == 0), "{waiting_for:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_calls_for_what_it_accepted_and_gave_back() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let mut actors = Vec::new();
    for _ in 0..40 {
        actors.push(f.actor().await);
    }
    let ending = f.again().await;
    until("it is connected", async || ending.queue_state().unwrap().connected).await;
    let sends = actors
        .iter()
        .map(|to| ending.send_message(&f.owner, to.id.as_str(), NewMessage::text("x")));
    for sent in futures_util::future::join_all(sends).await {
        sent.unwrap();
    }
    ending.flush().await;
    assert_eq!(ending.queue_state().unwrap().unpublished, 0);
    drop(ending);
    until("all are called for", async || waiting(&f.service).await == 40).await;

    let ending = f.again().await;
    let id = host(&ending, "ends").await;
    for _ in 0..3 {
        let claim = claim(&ending, &id).await;
        assert!(ending.release(&claim.key).await.unwrap());
    }
    ending.flush().await;
    drop(ending);
    until("nothing is owed to the sweep", async || waiting(&f.service).await == 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_does_not_wait_for_a_broker_that_is_away() {
    let f = Fixture::new(Engine::Postgres).await;
    let mut config = f.service.config().clone();
    config.queue = QueueConfig::RabbitMq(RabbitMqConfig::new("amqp://127.0.0.1:1"));
    let ending = Service::open(config, f.clock.clone()).await.unwrap();
    let actor = f.actor().await;
    ending.send_message(&f.owner, actor.id.as_str(), NewMessage::text("x")).await.unwrap();
    assert_eq!(ending.queue_state().unwrap().unpublished, 1);
    let flushed = tokio::time::timeout(Duration::from_secs(1), ending.flush()).await;
    flushed.expect("it would not come soon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_full_holds_nothing_back() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let (full, idle) = (f.again().await, f.again().await);
    let (full_host, idle_host) = (host(&full, "full").await, host(&idle, "idle").await);
    let mut sent = HashSet::new();
    for _ in 0..10 {
        let actor = f.actor().await;
        sent.insert(f.send(&actor, "x").await.id);
    }
    // It had room for more when it asked, and then never asks again.
    let first = claim(&full, &full_host).await;
    sent.remove(&first.key.execution);
    while !sent.is_empty() {
        let claim = claim(&idle, &idle_host).await;
        assert!(sent.remove(&claim.key.execution));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_holds_little_however_much_waits() {
    let f = Fixture::new(Engine::RabbitMq).await;
    let host = f.host().await;
    let mut actors = Vec::new();
    for n in 0..4 {
        actors.push(f.register(|new| new.max_workers = Some(if n == 0 { 1 } else { 2 + n })).await);
    }
    let bound = actors.len() as u64 * SPREAD;
    let mut most = 0;
    // More arrives than is run, one host has two slots, and the sweep runs too.
    let mut running = Vec::new();
    for round in 0..120 {
        for actor in &actors {
            f.send(actor, "x").await;
        }
        while running.len() < 2 {
            running.push(claim(&f.service, &host).await.key);
        }
        let done = running.remove(0);
        assert!(f.service.finish(&done, succeeded()).await.unwrap());
        f.clock.advance(Duration::from_secs(1));
        if round % 10 == 0 {
            f.service.activate_overdue().await.unwrap();
            published(&f.service).await;
            most = most.max(waiting(&f.service).await);
        }
    }
    // The sweep may double them before it sees that they are enough.
    assert!(most <= 2 * bound, "{most} activations for {} actors", actors.len());
}

/// A service on a broker of the test's own.
async fn with_own_broker() -> (RabbitMq, Fixture) {
    let server = RabbitMq::start().unwrap();
    let mut rabbitmq = RabbitMqConfig::new(server.url());
    rabbitmq.password = Some(abax_testbed::PASSWORD.into());
    let change = |config: &mut Config| config.queue = QueueConfig::RabbitMq(rabbitmq);
    (server, Fixture::with(Engine::Postgres, change).await)
}

/// Hosts that run whatever comes, until they are aborted.
fn hosts(
    f: &Fixture,
    services: Vec<Service>,
    ran: &Arc<Mutex<Vec<ExecutionId>>>,
) -> tokio::task::JoinSet<()> {
    let mut hosts = tokio::task::JoinSet::new();
    for (n, service) in services.into_iter().enumerate() {
        let (ran, clock) = (Arc::clone(ran), f.clock.clone());
        hosts.spawn(async move {
            let id = host(&service, &format!("host {n}")).await;
            loop {
                let Ok(delivery) = fixture::receives(&service).await else { continue };
                if let Ok(Some(claim)) = service.claim(delivery, &id, LEASE).await {
                    assert!(service.finish(&claim.key, succeeded()).await.unwrap());
                    ran.lock().unwrap().push(claim.key.execution);
                    clock.advance(Duration::from_millis(5));
                }
            }
        });
    }
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_load_costs_no_execution() {
    let (mut server, f) = with_own_broker().await;
    let actors = [
        f.actor().await,
        f.register(|new| new.stateless = false).await,
        f.register(|new| new.max_workers = Some(2)).await,
    ];
    let ran = Arc::new(Mutex::new(Vec::new()));
    let mut hosts = hosts(&f, vec![f.again().await, f.again().await], &ran);
    let mut sent = HashSet::new();
    let mut slowest = Duration::ZERO;
    for round in 0..150 {
        if round == 50 {
            server.kill();
        }
        if round == 100 {
            assert!(!f.service.queue_state().unwrap().connected);
            let degraded = f.service.readiness().await.degraded;
            assert!(degraded.iter().any(|text| text.contains("queue")), "{degraded:?}");
            server.restart().unwrap();
        }
        for actor in &actors {
            let begun = Instant::now();
            sent.insert(f.send(actor, "x").await.id);
            slowest = slowest.max(begun.elapsed());
        }
    }
    assert!(slowest < Duration::from_secs(5), "a message took {slowest:?}");
    until("everything ran", async || {
        f.clock.advance(Duration::from_secs(1));
        f.service.activate_overdue().await.unwrap();
        ran.lock().unwrap().len() >= sent.len()
    })
    .await;
    hosts.shutdown().await;
    let ran = ran.lock().unwrap();
    assert_eq!(ran.len(), sent.len(), "nothing ran twice");
    assert_eq!(ran.iter().cloned().collect::<HashSet<_>>(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_says_nothing_holds_no_message_up() {
    let (server, f) = with_own_broker().await;
    let actor = f.actor().await;
    let ran = Arc::new(Mutex::new(Vec::new()));
    let mut hosts = hosts(&f, vec![f.again().await], &ran);
    f.send(&actor, "x").await;
    until("the first ran", async || ran.lock().unwrap().len() == 1).await;
    server.suspend();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begun = Instant::now();
        f.send(&actor, "x").await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "a message took {slowest:?}");
    until("the silence is noticed", async || !f.service.queue_state().unwrap().connected).await;
    server.resume();
    until("everything ran", async || {
        f.clock.advance(Duration::from_secs(1));
        f.service.activate_overdue().await.unwrap();
        ran.lock().unwrap().len() == 101
    })
    .await;
    hosts.shutdown().await;
}
