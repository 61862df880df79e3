//! The promises of the broker's half of the queue, with a real broker.

use std::collections::BTreeSet;
use std::time::Duration;

use abax_testbed as testbed;
use tokio::time::{Instant, timeout};

use super::*;

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(url: String, prefix: &str) -> RabbitMqConfig {
    let mut config = RabbitMqConfig::new(url);
    config.password = Some(testbed::PASSWORD.into());
    config.prefix = prefix.to_owned();
    config
}

fn open(broker: &testbed::Broker) -> RabbitMq {
    RabbitMq::open(&config(broker.url(), broker.prefix())).unwrap()
}

fn activation(tenant: &str, actor: &ActorId) -> Activation {
    let (class, tenant) = ("default".to_owned(), Tenant::new(tenant));
    Activation { actor: actor.clone(), tenant, class }
}

fn classes() -> Vec<String> {
    vec!["default".to_owned()]
}

fn tenants(names: &[&str]) -> Vec<Tenant> {
    names.iter().map(|&name| Tenant::new(name)).collect()
}

async fn receive(queue: &RabbitMq, room: u32) -> Handed {
    timeout(PATIENCE, queue.receive(&classes(), room)).await.expect("something arrives")
}

async fn nothing_arrives(queue: &RabbitMq) -> bool {
    timeout(Duration::from_millis(300), queue.receive(&classes(), 1)).await.is_err()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn depth(queue: &RabbitMq, tenant: &str) -> u64 {
    let place = Place { class: "default".to_owned(), tenant: Tenant::new(tenant) };
    queue.depths(&[place]).await.unwrap_or(vec![u64::MAX])[0]
}

#[tokio::test]
async fn what_is_published_arrives_once_and_is_gone_when_acked() {
    let broker = testbed::Broker::share().unwrap();
    let (api, host) = (open(&broker), open(&broker));
    host.set_tenants(tenants(&["one"]));
    let actor = ActorId::generate();
    api.publish(activation("one", &actor));
    let handed = receive(&host, 2).await;
    assert_eq!(*handed.actor(), actor);
    handed.ack();
    assert!(nothing_arrives(&host).await);
    drop(host);
    let next = open(&broker);
    next.set_tenants(tenants(&["one"]));
    assert!(nothing_arrives(&next).await, "the ack reached the broker");
    until("all is confirmed", async || api.state().unpublished == 0).await;
}

#[tokio::test]
async fn one_that_is_dropped_goes_to_the_tail() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    let (first, second) = (ActorId::generate(), ActorId::generate());
    queue.publish(activation("one", &first));
    queue.publish(activation("one", &second));
    let handed = receive(&queue, 1).await;
    assert_eq!(*handed.actor(), first);
    drop(handed);
    let handed = receive(&queue, 1).await;
    assert_eq!(*handed.actor(), second);
    handed.ack();
    let handed = receive(&queue, 1).await;
    assert_eq!(*handed.actor(), first);
    handed.retry_after(Duration::from_millis(700));
    assert!(nothing_arrives(&queue).await, "not before its time");
    assert_eq!(*receive(&queue, 1).await.actor(), first);
}

#[tokio::test]
async fn what_a_dead_host_had_comes_to_another() {
    let broker = testbed::Broker::share().unwrap();
    let (dying, other) = (open(&broker), open(&broker));
    let actor = ActorId::generate();
    dying.set_tenants(tenants(&["one"]));
    dying.publish(activation("one", &actor));
    let handed = receive(&dying, 1).await;
    drop(dying);
    // As after a kill -9: it tells nobody.
    std::mem::forget(handed);
    other.set_tenants(tenants(&["one"]));
    assert_eq!(*receive(&other, 1).await.actor(), actor);
}

#[tokio::test]
async fn a_busy_host_holds_nothing_back() {
    let broker = testbed::Broker::share().unwrap();
    let (busy, idle) = (open(&broker), open(&broker));
    busy.set_tenants(tenants(&["one"]));
    let actors: BTreeSet<_> = (0..8).map(|_| ActorId::generate()).collect();
    for actor in &actors {
        busy.publish(activation("one", actor));
    }
    // It asked with four free slots, takes one, and takes no more.
    let taken = receive(&busy, 4).await;
    idle.set_tenants(tenants(&["one"]));
    let mut seen = BTreeSet::from([taken.actor().clone()]);
    while seen.len() < actors.len() {
        let handed = receive(&idle, 4).await;
        seen.insert(handed.actor().clone());
        handed.ack();
    }
    assert_eq!(seen, actors);
    taken.ack();
    until("nothing is left", async || depth(&idle, "one").await == 0).await;
}

#[tokio::test]
async fn an_idle_host_takes_many_at_once() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    // It began with one free slot, and has many now.
    assert!(timeout(Duration::from_millis(500), queue.receive(&classes(), 1)).await.is_err());
    let actors: BTreeSet<_> = (0..8).map(|_| ActorId::generate()).collect();
    for actor in &actors {
        queue.publish(activation("one", actor));
    }
    let mut held = Vec::new();
    for room in (1..=8).rev() {
        held.push(receive(&queue, room).await);
    }
    let seen: BTreeSet<_> = held.iter().map(|handed| handed.actor().clone()).collect();
    assert_eq!(seen, actors, "all are held at once, unsettled");
}

#[tokio::test]
async fn tenants_take_turns() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["loud", "calm"]));
    let (loud, calm) = (ActorId::generate(), ActorId::generate());
    for n in 0..200 {
        // Actors of their own: one actor's part is bounded.
        queue.publish(activation("loud", &if n == 0 { loud.clone() } else { ActorId::generate() }));
    }
    until("all is published", async || queue.state().unpublished == 0).await;
    queue.publish(activation("calm", &calm));
    until("all is published", async || queue.state().unpublished == 0).await;
    let mut before = 0;
    loop {
        let handed = receive(&queue, 2).await;
        let found = *handed.actor() == calm;
        handed.ack();
        if found {
            break;
        }
        before += 1;
    }
    assert!(before <= 3, "{before} of the other tenant came first");
}

#[tokio::test]
async fn classes_keep_to_themselves() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    let (special, ordinary) = (ActorId::generate(), ActorId::generate());
    let mut of_special = activation("one", &special);
    of_special.class = "special".to_owned();
    queue.publish(of_special.clone());
    assert!(nothing_arrives(&queue).await);
    queue.publish(activation("one", &ordinary));
    assert_eq!(*receive(&queue, 1).await.actor(), ordinary);
    until("it waits", async || queue.depths(&[Place::of(&of_special)]).await.unwrap() == [1]).await;
    let both = ["default".to_owned(), "special".to_owned()];
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let handed = timeout(PATIENCE, queue.receive(&both, 2)).await.unwrap();
        seen.insert(handed.actor().clone());
        handed.ack();
    }
}

#[tokio::test]
async fn a_queue_that_was_deleted_comes_back() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    let actor = ActorId::generate();
    queue.publish(activation("one", &actor));
    receive(&queue, 1).await.ack();
    assert!(nothing_arrives(&queue).await);
    let connection = queue.shared.broker.publishing.borrow().clone().unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{}.default.one", broker.prefix());
    channel.queue_delete(name.into(), Default::default()).await.unwrap();
    queue.publish(activation("one", &actor));
    assert_eq!(*receive(&queue, 1).await.actor(), actor);
}

#[tokio::test]
async fn a_message_of_strangers_is_dropped() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    let actor = ActorId::generate();
    queue.publish(activation("one", &actor));
    receive(&queue, 1).await.ack();
    let stranger = format!(
        "rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, <<>>), \
         <<\"{}.default.one\">>, [], <<255, 254>>).",
        broker.prefix()
    );
    broker.evaluate(&stranger).unwrap();
    queue.publish(activation("one", &actor));
    assert_eq!(*receive(&queue, 1).await.actor(), actor);
}

#[tokio::test]
async fn one_actor_fills_no_memory_while_the_broker_is_away() {
    let queue = RabbitMq::open(&config("amqp://abax@127.0.0.1:9/%2f".into(), "none")).unwrap();
    let busy = ActorId::generate();
    for _ in 0..5_000 {
        queue.publish(activation("one", &busy));
    }
    queue.publish(activation("one", &ActorId::generate()));
    let state = queue.state();
    assert!(!state.connected);
    assert!(state.unpublished < 50, "{state:?}");
    queue.depths(&[]).await.unwrap_err();
}

#[tokio::test]
async fn a_receiver_that_gives_up_takes_nothing_along() {
    let broker = testbed::Broker::share().unwrap();
    let queue = open(&broker);
    queue.set_tenants(tenants(&["one"]));
    let actors: BTreeSet<_> = (0..20).map(|_| ActorId::generate()).collect();
    for actor in &actors {
        queue.publish(activation("one", actor));
    }
    let (mut seen, mut microseconds) = (BTreeSet::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < actors.len() {
        microseconds = (microseconds + 50) % 10_000;
        let patience = Duration::from_micros(microseconds);
        if let Ok(handed) = timeout(patience, queue.receive(&classes(), 4)).await {
            seen.insert(handed.actor().clone());
            handed.ack();
        }
        assert!(Instant::now() < deadline, "only {} of 20 came", seen.len());
    }
}

#[tokio::test]
async fn a_broker_by_tls_is_trusted_by_its_own_authority_only() {
    let options = testbed::RabbitMqOptions { tls: true, ..testbed::RabbitMqOptions::default() };
    let server = testbed::RabbitMq::start_with(&options).unwrap();
    let mut trusting = config(server.url(), "abax");
    trusting.ca_pem = Some(std::fs::read(server.authority().unwrap()).unwrap());
    let queue = RabbitMq::open(&trusting).unwrap();
    queue.set_tenants(tenants(&["one"]));
    let actor = ActorId::generate();
    queue.publish(activation("one", &actor));
    assert_eq!(*receive(&queue, 1).await.actor(), actor);
    let stranger = RabbitMq::open(&config(server.url(), "abax")).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!stranger.state().connected, "its certificate is of an unknown authority");
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_loses_no_publish() {
    let mut server = testbed::RabbitMq::start().unwrap();
    let queue = RabbitMq::open(&config(server.url(), "abax")).unwrap();
    queue.set_tenants(tenants(&["one"]));
    let receiving = queue.clone();
    let received = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let seen = std::sync::Arc::clone(&received);
    let receiver = tokio::spawn(async move {
        loop {
            let handed = receiving.receive(&classes(), 4).await;
            seen.lock().unwrap().insert(handed.actor().clone());
            handed.ack();
        }
    });
    let mut sent = BTreeSet::new();
    for round in 0..600 {
        let actor = ActorId::generate();
        queue.publish(activation("one", &actor));
        sent.insert(actor);
        if round == 200 {
            // In the middle of everything; the test's thread waits, too.
            server.kill();
        }
        if round == 400 {
            assert!(queue.state().unpublished > 0);
            server.restart().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("all arrives", async || received.lock().unwrap().len() == sent.len()).await;
    assert_eq!(*received.lock().unwrap(), sent);
    receiver.abort();
}

#[tokio::test]
async fn a_broker_that_stops_answering_holds_nobody_up() {
    let server = testbed::RabbitMq::start().unwrap();
    let queue = RabbitMq::open(&config(server.url(), "abax")).unwrap();
    queue.set_tenants(tenants(&["one"]));
    let first = ActorId::generate();
    queue.publish(activation("one", &first));
    receive(&queue, 1).await.ack();
    server.suspend();
    let begun = Instant::now();
    let actors: BTreeSet<_> = (0..1_000).map(|_| ActorId::generate()).collect();
    for actor in &actors {
        queue.publish(activation("one", actor));
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    until("the silence is noticed", async || !queue.state().connected).await;
    server.resume();
    let mut seen = BTreeSet::new();
    while seen.len() < actors.len() {
        let handed = receive(&queue, 8).await;
        // The ack of the first may have been lost, and then it comes again.
        if actors.contains(handed.actor()) {
            seen.insert(handed.actor().clone());
        }
        handed.ack();
    }
}

#[tokio::test]
async fn a_user_needs_no_rights_but_on_its_own_names() {
    let broker = testbed::Broker::share().unwrap();
    let (prefix, user) = (broker.prefix(), format!("u{}", broker.prefix()));
    let allowed = format!(
        "rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"pw\">>, <<\"testbed\">>), \
         rabbit_auth_backend_internal:set_permissions(<<\"{user}\">>, <<\"/\">>, \
         <<\"^{prefix}\\\\.\">>, <<\"^(amq\\\\.default|{prefix}\\\\..*)$\">>, \
         <<\"^{prefix}\\\\.\">>, <<\"testbed\">>)."
    );
    assert_eq!(broker.evaluate(&allowed).unwrap(), "ok");
    let mut config = config(broker.url().replace("abax@", &format!("{user}@")), prefix);
    config.password = Some("pw".into());
    let queue = RabbitMq::open(&config).unwrap();
    queue.set_tenants(tenants(&["one"]));
    let actor = ActorId::generate();
    queue.publish(activation("one", &actor));
    assert_eq!(*receive(&queue, 1).await.actor(), actor);
    until("it may ask", async || depth(&queue, "one").await == 0).await;
}
