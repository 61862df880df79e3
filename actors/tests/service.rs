//! The rules: who may, what may follow what, and which claim counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::collections::HashMap;
use std::time::Duration;

use abax_actors::{
    ActorStatus, ActorUpdate, Caller, ClaimKey, Deleted, Error, Execution, ExecutionStatus, Finish,
    Health, Interruption, Json, NewActor, NewMessage, Noun, Outcome, Phase, Role, Tenant,
    TraceParent,
};
use fixture::{Engine, Fixture, LEASE, PATIENCE, nothing_is_deliverable, succeeded};
use proptest::prelude::*;

on_each_engine![
    nothing_is_claimed_twice,
    an_execution_has_its_phases_and_its_end,
    the_environment_is_that_of_abaco,
    a_message_keeps_its_trace,
    health_counts_what_waits_and_runs_and_who_is_there,
    the_end_told_by_a_superseded_claim_changes_nothing,
    hosts_that_die_again_and_again_lose_the_execution,
    renewed_leases_do_not_end,
    a_drain_spends_no_attempt_and_a_failed_start_does,
    halting_ends_what_waits_and_interrupts_what_runs,
    an_execution_that_was_to_be_halted_is_not_tried_again,
    purging_gives_what_waited_an_end,
    deleting_an_actor_stops_what_runs_and_then_leaves_nothing,
    deleting_an_idle_actor_is_done_at_once,
    only_the_owner_and_admins_of_the_tenant_get_at_an_actor,
    what_is_not_there_is_said_so,
    updates_replace_the_settings_and_keep_what_must_stay,
    states_of_any_json_are_kept_and_stateless_actors_have_none,
    restricted_attributes_are_refused_to_users,
    logs_are_cut_where_the_limit_is_and_say_so,
    logs_expire_by_the_actors_wish_up_to_the_ceiling,
    logs_are_followed_while_they_grow,
    who_follows_a_log_hears_at_once_that_it_begins_anew,
    waiting_ends_with_the_execution_or_with_patience,
    registered_actors_are_prepared_once_at_a_time,
    an_actor_says_what_it_waits_for_until_it_is_ready,
    preparations_that_come_to_nothing_rest_longer_each_time,
];

with_a_broker![
    nothing_is_claimed_twice,
    an_execution_has_its_phases_and_its_end,
    the_environment_is_that_of_abaco,
    a_message_keeps_its_trace,
    health_counts_what_waits_and_runs_and_who_is_there,
    the_end_told_by_a_superseded_claim_changes_nothing,
    hosts_that_die_again_and_again_lose_the_execution,
    renewed_leases_do_not_end,
    a_drain_spends_no_attempt_and_a_failed_start_does,
    halting_ends_what_waits_and_interrupts_what_runs,
    an_execution_that_was_to_be_halted_is_not_tried_again,
    purging_gives_what_waited_an_end,
    deleting_an_actor_stops_what_runs_and_then_leaves_nothing,
    deleting_an_idle_actor_is_done_at_once,
    logs_are_cut_where_the_limit_is_and_say_so,
    logs_expire_by_the_actors_wish_up_to_the_ceiling,
    logs_are_followed_while_they_grow,
    waiting_ends_with_the_execution_or_with_patience,
];

async fn nothing_is_claimed_twice(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.max_workers = Some(1_000)).await;
    let sends = (0..100).map(|i| {
        let (service, owner, actor) = (f.service.clone(), f.owner.clone(), actor.id.clone());
        tokio::spawn(async move {
            let message = NewMessage::text(i.to_string());
            service.send_message(&owner, actor.as_str(), message).await.unwrap().id
        })
    });
    let sent: Vec<_> =
        futures_util::future::join_all(sends).await.into_iter().map(Result::unwrap).collect();
    let claimers = (0..8).map(|i| {
        let service = f.service.clone();
        tokio::spawn(async move {
            let host = fixture::host(&service, &format!("host {i}")).await;
            let mut claimed = Vec::new();
            while let Ok(delivery) =
                tokio::time::timeout(Duration::from_secs(1), fixture::receives(&service)).await
            {
                if let Some(claim) = service.claim(delivery.unwrap(), &host, LEASE).await.unwrap() {
                    claimed.push(claim.key.execution);
                }
            }
            claimed
        })
    });
    let mut count = HashMap::new();
    for claimed in futures_util::future::join_all(claimers).await {
        for execution in claimed.unwrap() {
            *count.entry(execution).or_insert(0) += 1;
        }
    }
    assert_eq!(count.len(), 100);
    for execution in sent {
        assert_eq!(count.get(&execution), Some(&1), "{execution}");
    }
}

async fn an_execution_has_its_phases_and_its_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "hello").await;
    assert_eq!(sent, f.execution(&sent).await, "what is answered is what is kept");
    assert_eq!(f.service.message_count(&f.owner, actor.id.as_str()).await.unwrap(), 1);
    let tick = || f.clock.advance(Duration::from_millis(1));
    tick();
    let claim = f.claim(&host).await;
    assert_eq!(f.service.message_count(&f.owner, actor.id.as_str()).await.unwrap(), 0);
    let running = f.execution(&sent).await;
    assert_eq!(running.status, ExecutionStatus::Running);
    assert_eq!(running.worker, Some(claim.worker.clone()), "set together");
    for phase in [Phase::ImageReady, Phase::Created, Phase::Started, Phase::FirstOutput] {
        tick();
        assert!(f.service.record_phase(&claim.key, phase).await.unwrap());
    }
    let ready = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!((ready.status, ready.status_message.as_str()), (ActorStatus::Ready, " "));
    assert!(f.service.append_logs(&claim.key, 0, b"first ", false).await.unwrap());
    tick();
    let mut finish = Finish::new(Outcome::Failed, "the program exited with 3");
    finish.exit_code = Some(3);
    finish.final_state = Some(Json::parse(r#"{"ExitCode": 3}"#).unwrap());
    finish.usage.cpu_ns = 5;
    finish.usage.io_bytes = 6;
    finish.usage.runtime = Duration::from_micros(1_500_000);
    finish.usage.peak_memory_bytes = Some(7);
    finish.phases.set(Phase::Exited, f.clock.now());
    finish.output = b"last".to_vec();
    finish.output_position = 6;
    tick();
    assert!(f.service.finish(&claim.key, finish.clone()).await.unwrap());
    let done = f.execution(&sent).await;
    assert_eq!(done.status, ExecutionStatus::Complete);
    assert_eq!(done.outcome, Some(Outcome::Failed));
    assert_eq!(done.reason.as_deref(), Some("the program exited with 3"));
    assert_eq!((done.exit_code, &done.final_state), (Some(3), &finish.final_state));
    assert_eq!(done.usage, finish.usage);
    assert_eq!(done.attempt, 1);
    let phases: Vec<_> = done.phases.iter().collect();
    assert_eq!(phases.iter().map(|(p, _)| *p).collect::<Vec<_>>(), Phase::ALL);
    assert!(phases.is_sorted_by_key(|(_, at)| *at), "{phases:?}");
    assert_eq!(f.logs(&sent).await, "first last");
    let summary = f.service.executions(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(
        (summary.total_cpu_ns, summary.total_io_bytes, summary.total_runtime_seconds),
        (5, 6, 1)
    );
    let workers = f.service.workers(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].status, abax_actors::WorkerStatus::Ready);
    // The next one has the same worker.
    f.send(&actor, "again").await;
    assert_eq!(f.claim(&host).await.worker, workers[0].id);
}

async fn a_message_keeps_its_trace(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|_| {}).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for trace in [TraceParent::parse(parent), None] {
        let message = NewMessage { trace: trace.clone(), ..NewMessage::text("x") };
        f.service.send_message(&f.owner, actor.id.as_str(), message).await.unwrap();
        let claim = f.claim(&host).await;
        assert_eq!(claim.message.trace, trace);
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
}

async fn health_counts_what_waits_and_runs_and_who_is_there(engine: Engine) {
    let f = Fixture::new(engine).await;
    let ready = f.service.readiness().await;
    assert!(ready.is_ready() && ready.degraded.is_empty(), "{ready:?}");
    assert_eq!(f.service.health().await.unwrap(), Health::default());
    let host = f.host().await;
    let actor = f.register(|_| {}).await;
    for text in ["first", "second", "third"] {
        let message = NewMessage::text(text);
        f.service.send_message(&f.owner, actor.id.as_str(), message).await.unwrap();
    }
    f.claim(&host).await;
    let health = f.service.health().await.unwrap();
    let load = health.classes["default"];
    assert_eq!((load.waiting, load.running), (2, 1), "{health:?}");
    assert!(load.oldest_waiting.is_some(), "{health:?}");
    assert_eq!((health.classes.len(), health.hosts.working), (1, 1), "{health:?}");
    assert!(health.hosts.slots > 0, "{health:?}");
}

async fn the_environment_is_that_of_abaco(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f
        .register(|new| {
            new.name = Some("named".into());
            new.default_environment = Json::parse(
                r#"{"A": "default", "B": {"x": true}, "N": 1.0, "MSG": "no", "_abaco_actor_id": "no"}"#,
            )
            .unwrap();
        })
        .await;
    let mut message = NewMessage::json(Json::parse(r#"{"a": true, "b": null}"#).unwrap());
    message.environment = vec![("A".into(), "sent".into()), ("x-nonce".into(), "secret".into())];
    let sent = f.service.send_message(&f.owner, actor.id.as_str(), message).await.unwrap();
    let claim = f.claim(&host).await;
    let variables: HashMap<_, _> = claim.environment.iter().cloned().collect();
    assert_eq!(variables.len(), claim.environment.len(), "each name occurs once");
    for (name, value) in [
        ("A", "sent"),
        ("B", "{'x': True}"),
        ("N", "1.0"),
        ("MSG", "{'a': True, 'b': None}"),
        ("MSG_JSON", r#"{"a": true, "b": null}"#),
        ("_abaco_Content_Type", "application/json"),
        ("_abaco_Content-Type", "application/json"),
        ("_abaco_execution_id", sent.id.as_str()),
        ("_abaco_attempt", "1"),
        ("_abaco_username", "owner"),
        ("_abaco_api_server", "http://127.0.0.1:8000"),
        ("_abaco_actor_revision", "1"),
        ("_abaco_access_token", ""),
        ("_abaco_actor_id", actor.id.as_str()),
        ("_abaco_actor_dbid", &format!("ABAX_{}", actor.id)),
        ("_abaco_actor_name", "named"),
        ("_abaco_actor_state", "{}"),
        ("_abaco_worker_id", claim.worker.as_str()),
        ("_abaco_container_repo", "busybox"),
        ("_actor_configs", "{}"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!variables.contains_key("x-nonce"));
    assert!(!format!("{claim:?}").contains("sent"), "environments are not for logs");
}

async fn the_end_told_by_a_superseded_claim_changes_nothing(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let first = f.claim(&host).await;
    f.service.append_logs(&first.key, 0, b"of the first attempt", false).await.unwrap();
    f.clock.advance(LEASE * 2);
    assert_eq!(f.service.sweep().await.unwrap().retried, 1);
    let second = f.claim(&host).await;
    assert_eq!((second.attempt, second.key.execution.clone()), (2, sent.id.clone()));
    assert!(second.key.epoch > first.key.epoch);
    assert_eq!(f.logs(&sent).await, "", "the output of a lost attempt is dropped");

    let mut late = succeeded();
    late.output = b"late".to_vec();
    late.exit_code = Some(1);
    assert!(!f.service.append_logs(&first.key, 0, b"late", false).await.unwrap());
    assert!(!f.service.record_phase(&first.key, Phase::Started).await.unwrap());
    assert!(!f.service.finish(&first.key, late.clone()).await.unwrap());
    assert!(!f.service.release(&first.key).await.unwrap());
    assert!(!f.service.retry(&first.key, Duration::ZERO, "late").await.unwrap());
    let renewal =
        f.service.renew(&host, &[first.key.clone(), second.key.clone()], LEASE).await.unwrap();
    assert_eq!((renewal.lost, renewal.halted), (vec![first.key.clone()], vec![]));
    assert_eq!(f.service.interrupted(&first.key).await.unwrap(), Interruption::Lost);
    assert_eq!(f.execution(&sent).await.status, ExecutionStatus::Running);

    f.service.append_logs(&second.key, 0, b"of the second", false).await.unwrap();
    assert!(f.service.finish(&second.key, succeeded()).await.unwrap());
    let done = f.execution(&sent).await;
    assert!(!f.service.finish(&second.key, late.clone()).await.unwrap(), "it ends once");
    assert!(!f.service.finish(&first.key, late).await.unwrap());
    assert_eq!(f.execution(&sent).await, done);
    assert_eq!(f.logs(&sent).await, "of the second");
}

async fn hosts_that_die_again_and_again_lose_the_execution(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    for attempt in 1..=3 {
        assert_eq!(f.claim(&host).await.attempt, attempt);
        assert_eq!(f.service.sweep().await.unwrap().retried, 0, "the lease holds");
        f.clock.advance(LEASE * 2);
        f.service.sweep().await.unwrap();
    }
    let lost = f.execution(&sent).await;
    assert_eq!((lost.status, lost.outcome), (ExecutionStatus::Error, Some(Outcome::Lost)));
    assert_eq!(lost.reason.as_deref(), Some("the host that ran it was lost; it was tried 3 times"));
    // It is no fault of the actor's, which goes on.
    let ready = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_ne!(ready.status, ActorStatus::Error, "{}", ready.status_message);
    let next = f.send(&actor, "y").await;
    let host = fixture::host(&f.service, "another").await;
    let claim = f.claim(&host).await;
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(f.execution(&next).await.status, ExecutionStatus::Complete);
    assert!(nothing_is_deliverable(&f.service).await);
}

async fn renewed_leases_do_not_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    for _ in 0..5 {
        f.clock.advance(LEASE / 2);
        let renewal =
            f.service.renew(&host, std::slice::from_ref(&claim.key), LEASE).await.unwrap();
        assert_eq!(renewal, abax_actors::Renewal::default());
        f.service.sweep().await.unwrap();
    }
    assert_eq!(f.execution(&sent).await.attempt, 1);
    assert_eq!(f.service.health().await.unwrap().hosts.working, 1);
}

async fn a_drain_spends_no_attempt_and_a_failed_start_does(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    for _ in 0..5 {
        let claim = f.claim(&host).await;
        assert_eq!(claim.attempt, 1);
        assert!(f.service.release(&claim.key).await.unwrap());
    }
    for attempt in 1..=3 {
        let claim = f.claim(&host).await;
        assert_eq!(claim.attempt, attempt);
        let delay = Duration::from_secs(5);
        assert!(f.service.retry(&claim.key, delay, "the registry answered 503").await.unwrap());
        assert!(nothing_is_deliverable(&f.service).await);
        f.clock.advance(delay * 2);
    }
    let ended = f.execution(&sent).await;
    assert_eq!(ended.outcome, Some(Outcome::CouldNotStart));
    assert_eq!(ended.status, ExecutionStatus::Error);
    assert_eq!(ended.reason.as_deref(), Some("the registry answered 503"));
}

async fn halting_ends_what_waits_and_interrupts_what_runs(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    let running = f.send(&actor, "1").await;
    let waiting = f.send(&actor, "2").await;
    let claim = f.claim(&host).await;
    f.service.halt_execution(&f.owner, id, waiting.id.as_str()).await.unwrap();
    let ended = f.execution(&waiting).await;
    assert_eq!((ended.status, ended.outcome), (ExecutionStatus::Error, Some(Outcome::Cancelled)));
    assert_eq!(f.service.message_count(&f.owner, id).await.unwrap(), 0);

    let interrupted = {
        let (service, key) = (f.service.clone(), claim.key.clone());
        tokio::spawn(async move { service.interrupted(&key).await.unwrap() })
    };
    f.service.halt_execution(&f.owner, id, running.id.as_str()).await.unwrap();
    let why = tokio::time::timeout(PATIENCE, interrupted).await.unwrap().unwrap();
    assert_eq!(why, Interruption::Halted);
    let renewal = f.service.renew(&host, std::slice::from_ref(&claim.key), LEASE).await.unwrap();
    assert_eq!(renewal.halted, std::slice::from_ref(&claim.key));
    let finish = Finish::new(Outcome::Cancelled, "halted");
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
    assert_eq!(f.execution(&running).await.status, ExecutionStatus::Complete);
    match f.service.halt_execution(&f.owner, id, running.id.as_str()).await {
        Err(Error::NotHaltable { status: ExecutionStatus::Complete, .. }) => {}
        other => panic!("{other:?}"),
    }
}

async fn an_execution_that_was_to_be_halted_is_not_tried_again(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    f.claim(&host).await;
    f.service.halt_execution(&f.owner, actor.id.as_str(), sent.id.as_str()).await.unwrap();
    f.clock.advance(LEASE * 2);
    assert_eq!(f.service.sweep().await.unwrap().ended, 1);
    assert_eq!(f.execution(&sent).await.outcome, Some(Outcome::Cancelled));
}

async fn purging_gives_what_waited_an_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let running = f.send(&actor, "1").await;
    f.claim(&host).await;
    let waiting = f.send(&actor, "2").await;
    assert_eq!(f.service.purge_messages(&f.owner, actor.id.as_str()).await.unwrap(), 1);
    assert_eq!(f.service.message_count(&f.owner, actor.id.as_str()).await.unwrap(), 0);
    assert_eq!(f.execution(&waiting).await.outcome, Some(Outcome::Cancelled));
    assert_eq!(f.execution(&running).await.status, ExecutionStatus::Running);
}

async fn deleting_an_actor_stops_what_runs_and_then_leaves_nothing(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    f.send(&actor, "1").await;
    f.send(&actor, "2").await;
    let claim = f.claim(&host).await;
    assert_eq!(f.service.delete_actor(&f.owner, id).await.unwrap(), Deleted::Stopping);
    let going = f.service.actor(&f.owner, id).await.unwrap();
    assert_eq!(going.status, ActorStatus::ShuttingDown);
    assert_eq!(f.service.interrupted(&claim.key).await.unwrap(), Interruption::Halted);
    let refused = f.service.send_message(&f.owner, id, NewMessage::text("3")).await;
    assert!(matches!(refused, Err(Error::ShuttingDown { .. })), "{refused:?}");
    let refused = f.service.update_actor(&f.owner, id, ActorUpdate::new("other")).await;
    assert!(matches!(refused, Err(Error::ShuttingDown { .. })), "{refused:?}");
    assert!(nothing_is_deliverable(&f.service).await);

    let finish = Finish::new(Outcome::Cancelled, "its actor was deleted");
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
    let gone = f.service.actor(&f.owner, id).await;
    assert!(matches!(gone, Err(Error::NotFound { noun: Noun::Actor, .. })), "{gone:?}");
    for table in ["actors", "executions", "messages", "log_chunks", "workers"] {
        let count = f.rows.number(&format!("select count(*) from {table}")).await;
        assert_eq!(count, 0, "{table}");
    }
}

async fn deleting_an_idle_actor_is_done_at_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    let deleted = f.service.delete_actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(deleted, Deleted::Completely);
    assert!(f.service.actors(&f.owner).await.unwrap().page.is_empty());
}

async fn only_the_owner_and_admins_of_the_tenant_get_at_an_actor(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    let sent = f.send(&actor, "x").await;
    let execution = sent.id.as_str();
    let other = Caller::new(Tenant::default(), "other", Role::Privileged);
    let foreigner = Caller::new(Tenant::new("ELSEWHERE"), "owner", Role::Admin);
    let s = &f.service;
    // What each call says to one caller.
    let calls = async |caller: &Caller| -> Vec<(&'static str, Result<(), Error>)> {
        vec![
            ("actor", s.actor(caller, id).await.map(drop)),
            ("state", s.actor_state(caller, id).await.map(drop)),
            ("set state", s.set_actor_state(caller, id, Json::empty_object()).await.map(drop)),
            ("send", s.send_message(caller, id, NewMessage::text("x")).await.map(drop)),
            ("count", s.message_count(caller, id).await.map(drop)),
            ("executions", s.executions(caller, id).await.map(drop)),
            ("execution", s.execution(caller, id, execution).await.map(drop)),
            ("message", s.message(caller, id, execution).await.map(drop)),
            ("logs", s.logs(caller, id, execution).await.map(drop)),
            ("workers", s.workers(caller, id).await.map(drop)),
            ("wait", s.wait_for_execution(caller, id, execution, Duration::ZERO).await.map(drop)),
            (
                "follow",
                s.follow_logs(caller, id, execution, None, 0, Duration::ZERO).await.map(drop),
            ),
            (
                "update",
                s.update_actor(caller, id, {
                    let mut update = ActorUpdate::new("busybox");
                    update.settings.stateless = false;
                    update
                })
                .await
                .map(drop),
            ),
        ]
    };
    let endings = async |caller: &Caller| -> Vec<(&'static str, Result<(), Error>)> {
        vec![
            ("halt", s.halt_execution(caller, id, execution).await),
            ("purge", s.purge_messages(caller, id).await.map(drop)),
            ("delete", s.delete_actor(caller, id).await.map(drop)),
        ]
    };
    for (call, result) in calls(&other).await.into_iter().chain(endings(&other).await) {
        assert!(matches!(result, Err(Error::Forbidden { .. })), "{call}: {result:?}");
    }
    for (call, result) in calls(&foreigner).await.into_iter().chain(endings(&foreigner).await) {
        assert!(
            matches!(result, Err(Error::NotFound { noun: Noun::Actor, .. })),
            "{call}: {result:?}"
        );
    }
    for caller in [&f.owner, &f.admin] {
        for (call, result) in calls(caller).await {
            assert!(result.is_ok(), "{call}: {result:?}");
        }
    }
    assert!(s.actors(&f.admin).await.unwrap().page.is_empty(), "lists are one's own");
    assert_eq!(s.actors(&f.owner).await.unwrap().page.len(), 1);
    for (call, result) in endings(&f.admin).await {
        assert!(result.is_ok(), "{call}: {result:?}");
    }
}

async fn what_is_not_there_is_said_so(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let other = f.actor().await;
    let sent = f.send(&other, "x").await;
    let alias = f.service.actor(&f.owner, "jane").await;
    assert!(matches!(alias, Err(Error::NotFound { noun: Noun::NamedActor, .. })), "{alias:?}");
    let unknown = abax_actors::ActorId::generate();
    let gone = f.service.actor(&f.admin, unknown.as_str()).await;
    assert!(matches!(gone, Err(Error::NotFound { noun: Noun::Actor, .. })), "{gone:?}");
    let gone = f.service.delete_actor(&f.admin, unknown.as_str()).await;
    assert!(matches!(gone, Err(Error::NotFound { noun: Noun::Actor, .. })), "{gone:?}");
    for execution in ["", "nothing", sent.id.as_str()] {
        let missing = f.service.execution(&f.owner, actor.id.as_str(), execution).await;
        assert!(
            matches!(missing, Err(Error::NotFound { noun: Noun::Execution, .. })),
            "{execution}: {missing:?}"
        );
    }
}

async fn updates_replace_the_settings_and_keep_what_must_stay(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f
        .register(|new| {
            new.name = Some("name".into());
            new.description = "text".into();
            new.hints = vec!["sync".into()];
            new.stateless = false;
        })
        .await;
    let id = actor.id.as_str();
    let state = Json::parse("[1]").unwrap();
    f.service.set_actor_state(&f.owner, id, state.clone()).await.unwrap();
    f.service.actor_ready(&actor.id, 1, &f.host().await).await.unwrap();
    let stateless = f.service.update_actor(&f.owner, id, ActorUpdate::new("busybox")).await;
    assert!(
        matches!(&stateless, Err(Error::Invalid { field, .. }) if field == "stateless"),
        "{stateless:?}"
    );
    let mut update = ActorUpdate::new("busybox");
    update.settings.stateless = false;
    update.settings.name = Some("ignored".into());
    let same = f.service.update_actor(&f.admin, id, update.clone()).await.unwrap();
    assert_eq!((same.status, same.revision), (ActorStatus::Ready, 1), "the same image");
    assert_eq!((same.owner.as_str(), same.name.as_deref()), ("owner", Some("name")));
    assert_eq!((same.description.as_str(), same.hints.len()), ("", 0));
    assert_eq!((same.state, same.created), (state, actor.created));
    assert!(same.updated > actor.updated);
    update.force = true;
    let forced = f.service.update_actor(&f.owner, id, update).await.unwrap();
    assert_eq!((forced.status, forced.revision), (ActorStatus::Submitted, 2));
}

async fn states_of_any_json_are_kept_and_stateless_actors_have_none(engine: Engine) {
    let f = Fixture::new(engine).await;
    let stateless = f.actor().await;
    let refused =
        f.service.set_actor_state(&f.owner, stateless.id.as_str(), Json::empty_object()).await;
    assert!(matches!(refused, Err(Error::Stateless { .. })), "{refused:?}");
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    assert_eq!(f.service.actor_state(&f.owner, id).await.unwrap(), Json::empty_object());
    for text in [r#""abc""#, "[]", "0", "false", "null", r#"{"n": 12345678901234567890123}"#] {
        let state = Json::parse(text).unwrap();
        f.service.set_actor_state(&f.owner, id, state).await.unwrap();
        assert_eq!(f.service.actor_state(&f.owner, id).await.unwrap().as_str(), text);
    }
    let large = Json::from(serde_json::json!("x".repeat(200_000)));
    let refused = f.service.set_actor_state(&f.owner, id, large).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: "state", .. })), "{refused:?}");
}

async fn restricted_attributes_are_refused_to_users(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut new = NewActor::new("busybox");
    new.privileged = true;
    let refused = f.service.register_actor(&f.owner, new.clone()).await;
    assert!(matches!(refused, Err(Error::Restricted { attribute: "privileged" })), "{refused:?}");
    for role in [Role::Privileged, Role::Admin] {
        let caller = Caller::new(Tenant::default(), "maker", role);
        let made = f.service.register_actor(&caller, new.clone()).await.unwrap();
        assert!(made.privileged, "{role:?}");
        let maker = Caller::new(Tenant::default(), "maker", Role::User);
        f.service.delete_actor(&maker, made.id.as_str()).await.unwrap();
    }
}

async fn logs_are_cut_where_the_limit_is_and_say_so(engine: Engine) {
    let f = Fixture::with(engine, |config| config.max_log_bytes = 10).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    f.service.append_logs(&claim.key, 0, b"12345", false).await.unwrap();
    f.service.append_logs(&claim.key, 5, "67é9é".as_bytes(), false).await.unwrap();
    f.service.append_logs(&claim.key, 12, b"more", false).await.unwrap();
    let mut finish = succeeded();
    finish.output = b"and more".to_vec();
    f.service.finish(&claim.key, finish).await.unwrap();
    let logs = f.service.logs(&f.owner, actor.id.as_str(), sent.id.as_str()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&logs.bytes), "1234567é9");
    assert!(logs.truncated && logs.ended);
    assert!(logs.text().contains("TRUNCATED"));
}

async fn logs_expire_by_the_actors_wish_up_to_the_ceiling(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    for (log_ex, kept) in [
        (None, hours(12)),
        (Some(3_600), hours(1)),
        (Some(1_000_000), hours(24)),
        (Some(-1), hours(24)),
    ] {
        let actor = f.register(|new| new.log_ex = log_ex).await;
        let sent = f.send(&actor, "x").await;
        // The last one is forgotten after a day.
        let host = f.host().await;
        let claim = f.claim(&host).await;
        let mut finish = succeeded();
        finish.output = b"output".to_vec();
        f.service.finish(&claim.key, finish).await.unwrap();
        f.clock.advance(kept - Duration::from_secs(1));
        f.service.sweep().await.unwrap();
        assert_eq!(f.logs(&sent).await, "output", "{log_ex:?}");
        f.clock.advance(Duration::from_secs(2));
        assert_eq!(f.logs(&sent).await, "", "{log_ex:?}");
        assert_eq!(f.service.sweep().await.unwrap().logs_expired, 1, "{log_ex:?}");
        assert_eq!(f.execution(&sent).await.status, ExecutionStatus::Complete);
    }
}

async fn logs_are_followed_while_they_grow(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let reader = {
        let (service, owner, sent) = (f.service.clone(), f.owner.clone(), sent.clone());
        tokio::spawn(async move {
            let (mut text, mut position) = (String::new(), 0);
            loop {
                let (actor, id) = (sent.actor.as_str(), sent.id.as_str());
                let logs =
                    service.follow_logs(&owner, actor, id, None, position, PATIENCE).await.unwrap();
                text.push_str(&String::from_utf8_lossy(&logs.bytes));
                position = logs.position;
                if logs.ended {
                    return text;
                }
            }
        })
    };
    for (position, part) in [(0, "one "), (4, "two "), (8, "three")] {
        f.service.append_logs(&claim.key, position, part.as_bytes(), false).await.unwrap();
    }
    f.service.finish(&claim.key, succeeded()).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, reader).await.unwrap().unwrap(), "one two three");
    let middle =
        f.service.logs_from(&f.owner, actor.id.as_str(), sent.id.as_str(), 5).await.unwrap();
    assert_eq!(middle.bytes, b"wo three");
}

async fn who_follows_a_log_hears_at_once_that_it_begins_anew(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let first = f.claim(&host).await;
    assert!(f.service.append_logs(&first.key, 0, b"of the first run", false).await.unwrap());
    let (id, execution) = (actor.id.as_str(), sent.id.as_str());
    let logs = f.service.logs(&f.owner, id, execution).await.unwrap();
    // A drain: it is the same attempt that runs again.
    assert!(f.service.release(&first.key).await.unwrap());
    let second = f.claim(&host).await;
    assert_eq!(second.attempt, first.attempt);
    assert!(f.service.append_logs(&second.key, 0, b"again", false).await.unwrap());
    let follow = f.service.follow_logs(
        &f.owner,
        id,
        execution,
        Some(logs.epoch),
        logs.position,
        PATIENCE * 100,
    );
    let anew = tokio::time::timeout(PATIENCE, follow).await.expect("it says so").unwrap();
    assert_eq!((anew.bytes.as_slice(), anew.position), (&b"again"[..], 5));
    assert_ne!(anew.epoch, logs.epoch);
}

async fn waiting_ends_with_the_execution_or_with_patience(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let wait = async |patience| {
        let (actor, execution) = (actor.id.as_str(), sent.id.as_str());
        f.service.wait_for_execution(&f.owner, actor, execution, patience).await.unwrap().status
    };
    assert_eq!(wait(Duration::from_millis(20)).await, ExecutionStatus::Running);
    let (status, finished) =
        tokio::join!(wait(PATIENCE), f.service.finish(&claim.key, succeeded()));
    assert!(finished.unwrap());
    assert_eq!(status, ExecutionStatus::Complete);
}

async fn registered_actors_are_prepared_once_at_a_time(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let receive = async || {
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, f.service.receive_preparation(&f.service.config().queues))
            .await
            .ok()
    };
    let first = receive().await.expect("there is one").unwrap();
    assert_eq!(first.actor, actor);
    assert!(receive().await.is_none(), "it is being prepared");
    drop(first);
    f.clock.advance(Duration::from_secs(6));
    let again = receive().await.expect("nobody reported").unwrap();
    let host = f.host().await;
    let (id, revision) = (&again.actor.id, again.actor.revision);
    assert!(f.service.actor_ready(id, revision, &host).await.unwrap());
    drop(again);
    f.clock.advance(Duration::from_secs(60));
    assert!(receive().await.is_none(), "it is ready");
}

async fn an_actor_says_what_it_waits_for_until_it_is_ready(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let seen = async || {
        let actor = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
        (actor.status, actor.status_message)
    };
    let waits = async |revision, reason: &str| {
        f.service.actor_waits(&actor.id, revision, reason).await.unwrap()
    };
    assert!(waits(1, "no registry").await);
    assert_eq!(seen().await, (ActorStatus::Submitted, "no registry".to_owned()));
    assert!(!waits(1, "no registry").await, "it says so already");
    assert!(waits(1, "no answer").await);
    assert_eq!(seen().await, (ActorStatus::Submitted, "no answer".to_owned()));

    let update = ActorUpdate::new("another");
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    assert_eq!(seen().await, (ActorStatus::Submitted, String::new()));
    assert!(!waits(1, "no registry").await, "of the image before");
    assert_eq!(seen().await, (ActorStatus::Submitted, String::new()));
    assert!(waits(2, "no registry").await);

    assert!(f.service.actor_ready(&actor.id, 2, &f.host().await).await.unwrap());
    assert_eq!(seen().await, (ActorStatus::Ready, " ".to_owned()));
    assert!(!waits(2, "no registry").await, "it has its image");
    assert_eq!(seen().await, (ActorStatus::Ready, " ".to_owned()));
}

async fn preparations_that_come_to_nothing_rest_longer_each_time(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let receive = async || {
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, f.service.receive_preparation(&f.service.config().queues))
            .await
            .ok()
    };
    for rest in [5, 10, 20, 40, 60, 60] {
        // The rest begins when the try has ended.
        let preparation = receive().await.expect("its time has come").unwrap();
        f.clock.advance(Duration::from_secs(100));
        drop(preparation);
        f.clock.advance(Duration::from_secs(rest - 1));
        assert!(receive().await.is_none(), "{rest}");
        f.clock.advance(Duration::from_secs(1));
    }
    drop(receive().await.expect("its time has come").unwrap());
    let update = ActorUpdate::new("another");
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    assert_eq!(receive().await.expect("at once").unwrap().actor.revision, 2);
}

/// What anybody may do next.
#[derive(Clone, Debug)]
enum Call {
    Claim,
    Renew,
    Phase,
    Append,
    Finish(usize),
    OldFinish,
    Release,
    Retry,
    Halt,
    Purge,
    LeaseEnds,
    Sweep,
    Recover,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        4 => Just(Call::Claim),
        1 => Just(Call::Renew),
        1 => Just(Call::Phase),
        1 => Just(Call::Append),
        2 => (0..Outcome::ALL.len()).prop_map(Call::Finish),
        1 => Just(Call::OldFinish),
        1 => Just(Call::Release),
        1 => Just(Call::Retry),
        1 => Just(Call::Halt),
        1 => Just(Call::Purge),
        2 => Just(Call::LeaseEnds),
        2 => Just(Call::Sweep),
        1 => Just(Call::Recover),
    ];
    proptest::collection::vec(call, 1..25)
}

async fn perform(f: &Fixture, sent: &Execution, calls: &[Call]) {
    let host = f.host().await;
    let mut claims: Vec<ClaimKey> = Vec::new();
    let mut ended: Option<Execution> = None;
    let mut before = sent.status;
    for call in calls {
        let last = claims.last().cloned();
        match (call, last) {
            (Call::Claim, _) => {
                let patience = Duration::from_millis(5);
                if let Ok(delivery) =
                    tokio::time::timeout(patience, fixture::receives(&f.service)).await
                {
                    let claim = f.service.claim(delivery.unwrap(), &host, LEASE).await.unwrap();
                    claims.extend(claim.map(|c| c.key));
                }
            }
            (Call::Renew, Some(_)) => drop(f.service.renew(&host, &claims, LEASE).await.unwrap()),
            (Call::Phase, Some(key)) => {
                f.service.record_phase(&key, Phase::Started).await.unwrap();
            }
            (Call::Append, Some(key)) => {
                f.service.append_logs(&key, 0, b"x", false).await.unwrap();
            }
            (Call::Finish(i), Some(key)) => {
                f.service.finish(&key, Finish::new(Outcome::ALL[*i], "r")).await.unwrap();
            }
            (Call::OldFinish, Some(_)) if claims.len() > 1 => {
                assert!(!f.service.finish(&claims[0], succeeded()).await.unwrap());
            }
            (Call::Release, Some(key)) => drop(f.service.release(&key).await.unwrap()),
            (Call::Retry, Some(key)) => {
                f.service.retry(&key, Duration::ZERO, "r").await.unwrap();
            }
            (Call::Halt, _) => {
                let (actor, id) = (sent.actor.as_str(), sent.id.as_str());
                let _ = f.service.halt_execution(&f.owner, actor, id).await;
            }
            (Call::Purge, _) => {
                f.service.purge_messages(&f.owner, sent.actor.as_str()).await.unwrap();
            }
            (Call::LeaseEnds, _) => f.clock.advance(LEASE * 2),
            (Call::Sweep, _) => drop(f.service.sweep().await.unwrap()),
            (Call::Recover, _) => {
                f.service.recover(std::slice::from_ref(&host)).await.unwrap();
            }
            _ => {}
        }
        let now = f.execution(sent).await;
        assert!(
            now.status == before || now.status.is_final() || before.next().contains(&now.status),
            "{call:?}: {before} → {}",
            now.status
        );
        assert!(now.attempt <= 3, "{call:?}");
        assert_eq!(now.outcome.is_some(), now.status.is_final(), "{call:?}");
        if let Some(ended) = &ended {
            assert_eq!(*ended, now, "{call:?} changed an execution that had ended");
        } else if now.status.is_final() {
            ended = Some(now.clone());
        }
        before = now.status;
    }
}

#[test]
fn no_sequence_of_calls_leaves_a_final_status_on_sqlite() {
    no_sequence_of_calls_leaves_a_final_status(Engine::Sqlite);
}

#[test]
fn no_sequence_of_calls_leaves_a_final_status_on_postgres() {
    no_sequence_of_calls_leaves_a_final_status(Engine::Postgres);
}

fn no_sequence_of_calls_leaves_a_final_status(engine: Engine) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let f = runtime.block_on(Fixture::new(engine));
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() };
    proptest!(config, |(calls in calls())| {
        runtime.block_on(async {
            let actor = f.actor().await;
            let sent = f.send(&actor, "x").await;
            perform(&f, &sent, &calls).await;
            let _ = f.service.delete_actor(&f.owner, actor.id.as_str()).await.unwrap();
            f.clock.advance(LEASE * 2);
            f.service.sweep().await.unwrap();
        });
    });
}
