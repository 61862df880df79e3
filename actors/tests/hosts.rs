//! Many hosts on one database: who takes what, who takes nothing, who dies.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Claim, Error, ExecutionStatus, Host, HostId, HostInfo, HostStatus, Outcome, Service,
};
use fixture::{Engine, Fixture, LEASE, host, info, nothing_is_deliverable, receive, succeeded};

on_each_engine!(
    a_stateful_actor_runs_one_at_a_time_across_hosts,
    a_cordoned_host_takes_nothing_until_it_is_uncordoned,
    a_draining_host_takes_nothing_and_gives_back_what_it_cannot_finish,
    what_a_dead_host_had_is_settled_by_another,
    a_restart_gives_back_what_its_own_root_had_and_nothing_else,
    a_forgotten_host_registers_again_under_its_id,
    limits_of_actors_add_up_to_what_a_host_has,
    default_limits_count_where_actors_name_none,
    what_no_host_could_ever_run_ends_and_says_why,
    hosts_take_actors_of_their_classes,
    images_of_late_are_those_of_actors_with_executions,
);

/// Claims what is delivered to a service, for a host; none when it is refused.
async fn try_claim(service: &Service, host: &HostId) -> Option<Claim> {
    let delivery = receive(service).await;
    service.claim(delivery, host, LEASE).await.unwrap()
}

async fn find(f: &Fixture, id: &HostId) -> Host {
    let hosts = f.service.hosts().await.unwrap();
    hosts.into_iter().find(|host| host.id == *id).expect("it is listed")
}

/// What was refused is looked at again here.
fn later(f: &Fixture) {
    f.clock.advance(Duration::from_secs(2));
}

async fn a_stateful_actor_runs_one_at_a_time_across_hosts(engine: Engine) {
    let f = Fixture::new(engine).await;
    let services = [f.again().await, f.again().await];
    let hosts = [host(&services[0], "one").await, host(&services[1], "two").await];
    let actor = f.register(|new| new.stateless = false).await;
    let mut sent = Vec::new();
    for n in 0..6 {
        sent.push(f.send(&actor, &n.to_string()).await.id);
    }
    let mut ran = Vec::new();
    for next in &sent {
        // Both are told of the same one, and one of them gets it.
        let (one, two) = tokio::join!(receive(&services[0]), receive(&services[1]));
        assert_eq!((&one.execution, &two.execution), (next, next));
        let (one, two) = tokio::join!(
            services[0].claim(one, &hosts[0], LEASE),
            services[1].claim(two, &hosts[1], LEASE)
        );
        let claims: Vec<Claim> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
        assert_eq!(claims.len(), 1, "one at a time");
        for service in &services {
            assert!(nothing_is_deliverable(service).await, "while it runs");
        }
        assert!(f.service.finish(&claims[0].key, succeeded()).await.unwrap());
        ran.push(claims[0].key.execution.clone());
        later(&f);
    }
    assert_eq!(ran, sent, "in the order of acceptance");
}

async fn a_cordoned_host_takes_nothing_until_it_is_uncordoned(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, one) = (f.actor().await, host(&f.service, "one").await);
    f.send(&actor, "x").await;
    f.service.cordon("one").await.unwrap();
    assert!(try_claim(&f.service, &one).await.is_none());
    assert!(f.service.renew(&one, &[], LEASE).await.unwrap().cordoned, "it hears of it");

    // As after a restart.
    f.clock.advance(Duration::from_secs(1));
    let next = host(&f.service, "one").await;
    assert!(f.service.renew(&next, &[], LEASE).await.unwrap().cordoned, "so is its next process");
    let two = host(&f.service, "two").await;
    assert!(!f.service.renew(&two, &[], LEASE).await.unwrap().cordoned);
    later(&f);
    assert!(try_claim(&f.service, &next).await.is_none());
    later(&f);
    let claim = try_claim(&f.service, &two).await.expect("the other one takes it");
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());

    f.send(&actor, "y").await;
    f.service.uncordon("one").await.unwrap();
    assert!(!f.service.renew(&next, &[], LEASE).await.unwrap().cordoned);
    assert!(try_claim(&f.service, &next).await.is_some());
    let unknown = f.service.cordon("three").await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
}

async fn a_draining_host_takes_nothing_and_gives_back_what_it_cannot_finish(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let (one, two) = (host(&f.service, "one").await, host(&f.service, "two").await);
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&one).await;
    assert_eq!(find(&f, &one).await.running, 1);
    f.service.drain_host(&one).await.unwrap();
    assert_eq!(find(&f, &one).await.status, HostStatus::Draining);
    f.send(&actor, "y").await;
    assert!(try_claim(&f.service, &one).await.is_none());
    let keys = [claim.key.clone()];
    assert!(f.service.renew(&one, &keys, LEASE).await.unwrap().lost.is_empty());
    assert!(f.service.release(&claim.key).await.unwrap());
    f.service.stop_host(&one).await.unwrap();
    assert_eq!(find(&f, &one).await.status, HostStatus::Stopped);

    later(&f);
    let again = f.claim(&two).await;
    assert_eq!((again.key.execution, again.attempt), (sent.id, 1), "it did not count");
}

async fn what_a_dead_host_had_is_settled_by_another(engine: Engine) {
    let f = Fixture::new(engine).await;
    let services = [f.again().await, f.again().await];
    let (one, two) = (host(&services[0], "one").await, host(&services[1], "two").await);
    let actor = f.actor().await;
    let mut lost = Vec::new();
    for n in 0..3 {
        f.send(&actor, &n.to_string()).await;
        lost.push(try_claim(&services[0], &one).await.unwrap());
    }
    for _ in 0..4 {
        f.clock.advance(LEASE / 2);
        services[1].renew(&two, &[], LEASE).await.unwrap();
        f.service.sweep().await.unwrap();
    }
    f.clock.advance(Duration::from_secs(30));
    services[1].renew(&two, &[], LEASE).await.unwrap();
    assert_eq!(find(&f, &two).await.clock_offset_us, Some(0), "a standing clock is never off");
    let statuses = (find(&f, &one).await.status, find(&f, &two).await.status);
    assert_eq!(statuses, (HostStatus::Missing, HostStatus::Working));
    for lost in &lost {
        let claim = try_claim(&services[1], &two).await.unwrap();
        assert_eq!((&claim.key.execution, claim.attempt), (&lost.key.execution, 2));
        assert!(services[1].finish(&claim.key, succeeded()).await.unwrap());
    }
    // It was only away.
    let keys: Vec<_> = lost.iter().map(|claim| claim.key.clone()).collect();
    let renewal = services[0].renew(&one, &keys, LEASE).await.unwrap();
    assert_eq!(renewal.lost, keys);
    assert!(!services[0].finish(&keys[0], succeeded()).await.unwrap());
}

async fn a_restart_gives_back_what_its_own_root_had_and_nothing_else(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    // Of one name by mistake, and both alive.
    let (one, two) = (host(&f.service, "twin").await, host(&f.service, "twin").await);
    let mut claims = Vec::new();
    for host in [&one, &two] {
        f.send(&actor, "x").await;
        claims.push(f.claim(host).await);
    }
    f.clock.advance(Duration::from_secs(1));
    let next = host(&f.service, "twin").await;
    let swept = f.service.recover(std::slice::from_ref(&one)).await.unwrap();
    assert_eq!((swept.retried, swept.ended), (1, 0), "{swept:?}");
    let keys: Vec<_> = claims.iter().map(|claim| claim.key.clone()).collect();
    let renewal = f.service.renew(&two, &keys[1..], LEASE).await.unwrap();
    assert_eq!(renewal.lost, [], "the other one's claim holds");
    assert!(f.service.finish(&keys[1], succeeded()).await.unwrap());
    assert!(!f.service.finish(&keys[0], succeeded()).await.unwrap());
    assert_eq!(f.claim(&next).await.attempt, 2);

    let hosts = f.service.hosts().await.unwrap();
    let known: Vec<_> = hosts.iter().map(|host| (&host.id, host.status)).collect();
    let expected = [(&next, HostStatus::Working), (&two, HostStatus::Working)];
    assert_eq!(known, expected, "the dead one is known to be");
}

async fn a_forgotten_host_registers_again_under_its_id(engine: Engine) {
    let f = Fixture::new(engine).await;
    let one = host(&f.service, "one").await;
    host(&f.service, "cordoned").await;
    f.service.cordon("cordoned").await.unwrap();
    f.clock.advance(Duration::from_secs(2 * 86_400));
    f.service.sweep().await.unwrap();
    let left: Vec<_> = f.service.hosts().await.unwrap();
    assert_eq!(left.len(), 1, "one that is cordoned is remembered: {left:?}");

    let renewal = f.service.renew(&one, &[], LEASE).await.unwrap();
    assert!(renewal.forgotten && !renewal.cordoned);
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    assert!(try_claim(&f.service, &one).await.is_none(), "nobody knows it");
    f.service.register_host_as(&one, info(&f.service, "one")).await.unwrap();
    assert!(!f.service.renew(&one, &[], LEASE).await.unwrap().forgotten);
    later(&f);
    assert!(try_claim(&f.service, &one).await.is_some());
}

async fn limits_of_actors_add_up_to_what_a_host_has(engine: Engine) {
    let f = Fixture::new(engine).await;
    let services = [f.again().await, f.again().await];
    let offer = |service: &Service, name: &str| HostInfo {
        memory_bytes: Some(1 << 30),
        milli_cpus: Some(2_000),
        ..info(service, name)
    };
    let one = services[0].register_host(offer(&services[0], "one")).await.unwrap();
    let two = services[1].register_host(offer(&services[1], "two")).await.unwrap();
    let large = f
        .register(|new| {
            new.max_workers = Some(10);
            new.mem_limit = Some("600m".into());
        })
        .await;
    let busy = f.register(|new| new.max_cpus = Some(1_500_000_000)).await;
    let any = f.actor().await;
    for actor in [&large, &large, &large] {
        f.send(actor, "x").await;
    }
    let first = try_claim(&services[0], &one).await.expect("600 of 1024 MiB");
    assert!(try_claim(&services[0], &one).await.is_none(), "1200 of 1024 MiB");
    let second = try_claim(&services[1], &two).await.expect("the other host has room");
    assert_ne!(first.key, second.key);
    f.send(&busy, "x").await;
    f.send(&any, "x").await;
    let mut claimed = Vec::new();
    for _ in 0..8 {
        later(&f);
        services[0].renew(&one, std::slice::from_ref(&first.key), LEASE).await.unwrap();
        let waits = Duration::from_millis(300);
        let Ok(delivery) = tokio::time::timeout(waits, fixture::receives(&services[0])).await
        else {
            continue;
        };
        claimed.extend(services[0].claim(delivery.unwrap(), &one, LEASE).await.unwrap());
    }
    let actors: Vec<_> = claimed.iter().map(|claim| claim.actor.id.clone()).collect();
    assert_eq!(actors.len(), 2, "{actors:?}");
    assert!(actors.contains(&busy.id) && actors.contains(&any.id), "what fits goes on");

    assert!(services[0].finish(&first.key, succeeded()).await.unwrap());
    later(&f);
    let third = try_claim(&services[0], &one).await.expect("there is room again");
    assert_eq!(third.actor.id, large.id);
}

async fn default_limits_count_where_actors_name_none(engine: Engine) {
    let f = Fixture::with(engine, |config| {
        config.default_limits.memory_bytes = Some(400 << 20);
        config.default_limits.nano_cpus = Some(500_000_000);
    })
    .await;
    let offer = HostInfo {
        memory_bytes: Some(1 << 30),
        milli_cpus: Some(1_600),
        ..info(&f.service, "one")
    };
    let one = f.service.register_host(offer).await.unwrap();
    let any = f.actor().await;
    for _ in 0..3 {
        f.send(&any, "x").await;
    }
    let first = try_claim(&f.service, &one).await.expect("400 of 1024 MiB");
    try_claim(&f.service, &one).await.expect("800 of 1024 MiB, 1.0 of 1.6 CPUs");
    assert!(try_claim(&f.service, &one).await.is_none(), "1200 of 1024 MiB");
    let small = f.register(|new| new.mem_limit = Some("100m".into())).await;
    f.send(&small, "x").await;
    let third = try_claim(&f.service, &one).await.expect("900 of 1024 MiB, 1.5 of 1.6 CPUs");
    assert_eq!(third.actor.id, small.id);
    assert!(f.service.finish(&first.key, succeeded()).await.unwrap());
    later(&f);
    assert!(try_claim(&f.service, &one).await.is_some(), "there is room again");
}

async fn what_no_host_could_ever_run_ends_and_says_why(engine: Engine) {
    let f = Fixture::new(engine).await;
    let offer = |name: &str, memory: u64| HostInfo {
        memory_bytes: Some(memory << 20),
        ..info(&f.service, name)
    };
    let small = f.service.register_host(offer("small", 512)).await.unwrap();
    let large = f.service.register_host(offer("large", 4_096)).await.unwrap();
    f.service.stop_host(&large).await.unwrap();
    let fits = f.register(|new| new.mem_limit = Some("3g".into())).await;
    let waits = f.send(&fits, "x").await;
    assert!(try_claim(&f.service, &small).await.is_none());
    assert_eq!(f.execution(&waits).await.status, ExecutionStatus::Submitted, "large may be back");

    let never = f.register(|new| new.mem_limit = Some("100g".into())).await;
    let hopeless = f.send(&never, "x").await;
    assert!(try_claim(&f.service, &small).await.is_none());
    let ended = f.execution(&hopeless).await;
    assert_eq!(ended.outcome, Some(Outcome::CouldNotStart));
    assert_eq!(ended.status, ExecutionStatus::Error);
    let reason = ended.reason.unwrap();
    for words in ["102400 MiB", "4096 MiB", "class default"] {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    later(&f);
    f.service.register_host(offer("large", 4_096)).await.unwrap();
    assert!(try_claim(&f.service, &large).await.is_none(), "a stopped process takes nothing");
}

async fn hosts_take_actors_of_their_classes(engine: Engine) {
    let f = Fixture::new(engine).await;
    let special =
        HostInfo { classes: vec!["special".to_owned()], ..HostInfo::new("special", "1", 8) };
    let special = f.service.register_host(special).await.unwrap();
    let ordinary = f.service.register_host(HostInfo::new("ordinary", "1", 8)).await.unwrap();
    let (one, two) = (f.actor().await, f.register(|new| new.queue = "special".into()).await);
    let of_one = f.send(&one, "x").await;
    let waits = Duration::from_millis(200);
    let class = ["special".to_owned()];
    let nothing = tokio::time::timeout(waits, f.service.receive(&class, 1)).await;
    assert!(nothing.is_err(), "it is not of the class");
    let of_two = f.send(&two, "x").await;
    let delivery = f.service.receive(&class, 1).await.unwrap();
    assert_eq!(delivery.execution, of_two.id);
    assert!(f.service.claim(delivery, &ordinary, LEASE).await.unwrap().is_none(), "nor its host");
    later(&f);
    let delivery = f.service.receive(&class, 1).await.unwrap();
    assert!(f.service.claim(delivery, &special, LEASE).await.unwrap().is_some());
    let delivery = f.service.receive(&["default".to_owned()], 1).await.unwrap();
    assert_eq!(delivery.execution, of_one.id);
}

async fn images_of_late_are_those_of_actors_with_executions(engine: Engine) {
    let f = Fixture::new(engine).await;
    for (image, class, messages, then) in [
        ("old", "default", 1, Duration::from_secs(2 * 86_400)),
        ("recent", "default", 2, Duration::from_secs(1)),
        ("recent", "default", 1, Duration::from_secs(1)),
        ("latest", "default", 1, Duration::from_secs(3_600)),
        ("special", "special", 1, Duration::ZERO),
        ("never", "default", 0, Duration::ZERO),
    ] {
        let actor = f
            .register(|new| {
                new.image = image.into();
                new.queue = class.into();
            })
            .await;
        for _ in 0..messages {
            f.send(&actor, "x").await;
        }
        f.clock.advance(then);
    }
    let images = f.service.images_of_late(&["default".to_owned()]).await.unwrap();
    let names: Vec<_> = images.into_iter().map(|(image, _)| image).collect();
    assert_eq!(names, ["latest", "recent"]);
}
