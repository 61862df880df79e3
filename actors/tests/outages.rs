//! A server that dies, comes back, or says nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use abax_actors::{
    Caller, Clock, Config, DatabaseConfig, Finish, HostInfo, NewActor, NewMessage, Outcome,
    PostgresConfig, QueueConfig, Role, Service, Tenant,
};
use abax_testbed::Postgres;

const LEASE: Duration = Duration::from_secs(120);

async fn service(server: &Postgres) -> Service {
    let mut config = PostgresConfig::new(server.url());
    config.password = Some(abax_testbed::PASSWORD.into());
    let config = Config::new(DatabaseConfig::Postgres(config), QueueConfig::Database);
    Service::migrate(&config.database).await.unwrap();
    Service::open(config, Clock::system()).await.unwrap()
}

/// What was accepted is in the database, however often the server is killed; and
/// nobody does anything so that it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_survives_kills_of_the_server() {
    let mut server = Postgres::start().unwrap();
    let service = service(&server).await;
    let caller = Caller::new(Tenant::default(), "u", Role::Admin);
    let mut new = NewActor::new("busybox");
    new.max_workers = Some(100);
    let actor = service.register_actor(&caller, new).await.unwrap().id;
    let stop = Arc::new(AtomicBool::new(false));

    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (service, caller) = (service.clone(), caller.clone());
            let (actor, stop) = (actor.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut accepted, mut refused) = (Vec::new(), 0);
                while !stop.load(Ordering::SeqCst) {
                    let message = NewMessage::text("x");
                    match service.send_message(&caller, actor.as_str(), message).await {
                        Ok(execution) => accepted.push(execution.id),
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            refused += 1;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (accepted, refused)
            })
        })
        .collect();
    let host = HostInfo::new("host", "1", 4);
    let host = service.register_host(host).await.unwrap();
    let done = Arc::new(AtomicU32::new(0));
    let slots: Vec<_> = (0..4)
        .map(|_| {
            let (service, host, stop) = (service.clone(), host.clone(), stop.clone());
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let mut finished = Vec::new();
                let classes = ["default".to_owned()];
                while !stop.load(Ordering::SeqCst) {
                    let delivery = tokio::time::timeout(
                        Duration::from_millis(200),
                        service.receive(&classes, 1),
                    );
                    let Ok(Ok(delivery)) = delivery.await else { continue };
                    let Ok(Some(claim)) = service.claim(delivery, &host, LEASE).await else {
                        continue;
                    };
                    // As a host does: until the service has it or disowns it.
                    loop {
                        let finish = Finish::new(Outcome::Succeeded, "");
                        match service.finish(&claim.key, finish).await {
                            Ok(true) => {
                                done.fetch_add(1, Ordering::SeqCst);
                                break finished.push(claim.key.execution.clone());
                            }
                            Ok(false) => panic!("the lease has not ended"),
                            Err(error) => assert!(error.is_transient(), "{error:?}"),
                        }
                    }
                }
                finished
            })
        })
        .collect();

    for pause in [300, 1_500] {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        server.restart().unwrap();
    }
    let back = Instant::now();
    while service.send_message(&caller, actor.as_str(), NewMessage::text("x")).await.is_err() {
        assert!(back.elapsed() < Duration::from_secs(10), "it does not recover");
    }
    // And goes on: as much again as there was.
    let before = done.load(Ordering::SeqCst);
    while done.load(Ordering::SeqCst) < before + 20 {
        assert!(back.elapsed() < Duration::from_secs(60), "it does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::SeqCst);

    let mut accepted = HashSet::new();
    for sender in senders {
        let (ids, _refused) = sender.await.unwrap();
        accepted.extend(ids);
    }
    let mut finished = HashSet::new();
    for slot in slots {
        for id in slot.await.unwrap() {
            assert!(finished.insert(id), "settled twice");
        }
    }
    assert!(accepted.len() > 50, "only {} were accepted", accepted.len());
    let kept = service.executions(&caller, actor.as_str()).await.unwrap().executions;
    let ids: HashSet<_> = kept.iter().map(|e| e.id.clone()).collect();
    assert!(accepted.is_subset(&ids), "something accepted is gone");
    // What was not answered may be there all the same, once.
    assert!(ids.len() <= accepted.len() + 8 * 40, "{} of {}", ids.len(), accepted.len());
    let complete: HashSet<_> =
        kept.iter().filter(|e| e.outcome.is_some()).map(|e| e.id.clone()).collect();
    assert!(finished.is_subset(&complete), "something finished is not");
}

/// Nobody waits for a server that has gone silent for longer than a statement
/// may take, and all goes on when it speaks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_holds_nobody_for_ever() {
    let server = Postgres::start().unwrap();
    let service = service(&server).await;
    let caller = Caller::new(Tenant::default(), "u", Role::Admin);
    let actor = service.register_actor(&caller, NewActor::new("busybox")).await.unwrap().id;
    server.suspend();
    let began = Instant::now();
    let sent = service.send_message(&caller, actor.as_str(), NewMessage::text("x")).await;
    let took = began.elapsed();
    server.resume();
    let error = sent.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    let back = Instant::now();
    while service.send_message(&caller, actor.as_str(), NewMessage::text("x")).await.is_err() {
        assert!(back.elapsed() < Duration::from_secs(20), "it does not recover");
    }
}
