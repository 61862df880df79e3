//! What is done without anybody asking, and by how many.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{Actor, Deleted, ExecutionStatus, NewActor};
use fixture::{Engine, Fixture, LEASE, PATIENCE, succeeded};
use tokio_util::sync::CancellationToken;

on_each_engine![
    many_processes_do_each_job_once,
    jobs_go_on_where_the_clock_was_set_back,
    executions_go_when_their_time_has_come,
    a_deleted_actor_with_many_executions_goes_in_parts,
    output_of_a_lost_attempt_goes_with_it,
    one_schedule_that_fails_holds_up_no_other,
    one_event_that_cannot_be_read_holds_up_no_other,
    hosts_are_called_again_for_work_that_nobody_took,
    hosts_are_not_called_for_what_cannot_run,
];

async fn many_processes_do_each_job_once(engine: Engine) {
    let f = Fixture::with(engine, |config| config.sweep_every = Duration::from_secs(60)).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let stop = CancellationToken::new();
    let mut upkeeps = Vec::new();
    for _ in 0..4 {
        let (service, stop) = (f.again().await, stop.clone());
        upkeeps.push(tokio::spawn(async move { service.upkeep(stop).await }));
    }
    // Whether one of them has swept since.
    let swept = async || {
        let sent = f.send(&actor, "x").await;
        f.claim(&host).await;
        f.clock.advance(LEASE * 2);
        let waited = tokio::time::timeout(PATIENCE, async {
            while f.execution(&sent).await.status == ExecutionStatus::Running {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("somebody sweeps");
        let claim = f.claim(&host).await;
        assert_eq!(claim.attempt, 2, "one of them gave it back, once");
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    };
    swept().await;
    swept().await;
    let rows = f.rows.number("select count(*) from jobs where name = 'sweep'").await;
    assert_eq!(rows, 1);
    stop.cancel();
    for upkeep in upkeeps {
        tokio::time::timeout(PATIENCE, upkeep).await.expect("it ends").unwrap();
    }
}

async fn jobs_go_on_where_the_clock_was_set_back(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    f.claim(&host).await;
    let next = f.clock.now().after(Duration::from_secs(3_600)).micros();
    f.rows.execute(&format!("insert into jobs (name, next_us) values ('sweep', {next})")).await;
    f.clock.advance(LEASE * 2);
    let stop = CancellationToken::new();
    let upkeep = {
        let (service, stop) = (f.service.clone(), stop.clone());
        tokio::spawn(async move { service.upkeep(stop).await })
    };
    let waited = tokio::time::timeout(PATIENCE, async {
        while f.execution(&sent).await.status == ExecutionStatus::Running {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the sweep does not wait for an hour");
    stop.cancel();
    upkeep.await.unwrap();
}

async fn executions_go_when_their_time_has_come(engine: Engine) {
    let day = Duration::from_secs(86_400);
    let f = Fixture::with(engine, |config| config.execution_retention = Some(day)).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    // More than go at once.
    insert_many(&f, &actor, "ERROR", 1_200).await;
    let claim = f.claim(&host).await;
    assert!(f.service.append_logs(&claim.key, 0, b"output", false).await.unwrap());
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    let running = f.send(&actor, "running").await;
    f.claim(&host).await;
    let waiting = f.send(&actor, "waiting").await;
    assert_eq!(f.service.remove_old_executions().await.unwrap(), 0);

    f.clock.advance(day + Duration::from_secs(1));
    assert_eq!(f.service.remove_old_executions().await.unwrap(), 1_201);
    let left = f.service.executions(&f.owner, actor.id.as_str()).await.unwrap().executions;
    let left: Vec<_> = left.into_iter().map(|e| e.id).collect();
    assert_eq!(left, [running.id, waiting.id], "what has not ended stays");
    let of_it = format!("where execution_id = '{}'", sent.id);
    for table in ["messages", "log_chunks"] {
        assert_eq!(f.rows.number(&format!("select count(*) from {table} {of_it}")).await, 0);
    }
}

async fn a_deleted_actor_with_many_executions_goes_in_parts(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let deleted = f.service.delete_actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(deleted, Deleted::Stopping);
    // As where whoever deletes it did not come far.
    insert_many(&f, &actor, "ERROR", 1_200).await;
    let left = async || f.rows.number("select count(*) from executions").await;
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    assert_eq!(left().await, 701, "the end of an execution takes a part along");
    let swept = f.service.sweep().await.unwrap();
    assert_eq!((left().await, swept.actors_removed), (0, 1));
}

#[tokio::test]
async fn a_purge_of_many_is_several_transactions() {
    let f = Fixture::new(Engine::Postgres).await;
    let actor = f.actor().await;
    insert_many(&f, &actor, "SUBMITTED", 6_000).await;
    assert_eq!(f.service.purge_messages(&f.owner, actor.id.as_str()).await.unwrap(), 6_000);
    let transactions = "select count(distinct xmin::text) from executions where status = 'ERROR'";
    assert_eq!(f.rows.number(transactions).await, 2);
}

#[tokio::test]
async fn a_purge_beside_claims_leaves_nothing_behind() {
    let f = Fixture::new(Engine::Postgres).await;
    let actor = f.actor().await;
    insert_many(&f, &actor, "SUBMITTED", 12_000).await;
    // A claim that is under way holds the first of them.
    let mut claim = f.rows.postgres().await;
    sqlx::query("begin").execute(&mut claim).await.unwrap();
    sqlx::query("update executions set status = 'RUNNING' where id = 'many1'")
        .execute(&mut claim)
        .await
        .unwrap();
    let purge = {
        let (service, owner, actor) = (f.service.clone(), f.owner.clone(), actor.id.clone());
        tokio::spawn(async move { service.purge_messages(&owner, actor.as_str()).await })
    };
    f.rows.somebody_waits().await;
    // What is sent from here on is not meant.
    f.send(&actor, "later").await;
    sqlx::query("commit").execute(&mut claim).await.unwrap();
    assert_eq!(purge.await.unwrap().unwrap(), 11_999);
    assert_eq!(f.service.message_count(&f.owner, actor.id.as_str()).await.unwrap(), 1);
}

async fn output_of_a_lost_attempt_goes_with_it(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert!(f.service.append_logs(&claim.key, 0, b"output", false).await.unwrap());
    assert!(f.service.append_results(&claim.key, 1, vec![b"result"[..].into()]).await.unwrap());
    f.clock.advance(LEASE * 2);
    assert_eq!(f.service.sweep().await.unwrap().retried, 1);
    let (actor, id) = (actor.id.as_str(), sent.id.as_str());
    f.service.halt_execution(&f.owner, actor, id).await.unwrap();
    for table in ["log_chunks", "results"] {
        assert_eq!(f.rows.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

async fn one_schedule_that_fails_holds_up_no_other(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hourly = |new: &mut NewActor| new.cron_schedule = Some("now + 1 hour".to_owned());
    let broken = f.register(hourly).await;
    f.clock.advance(Duration::from_secs(1));
    let whole = f.register(hourly).await;
    let sql = format!("update actors set hints = 'no list' where id = '{}'", broken.id);
    f.rows.execute(&sql).await;
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
    let run = f.service.executions(&f.owner, whole.id.as_str()).await.unwrap();
    assert_eq!(run.executions.len(), 1);
}

async fn one_event_that_cannot_be_read_holds_up_no_other(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let heard = f.actor().await;
    let told = f.register(|new| new.link = heard.id.to_string()).await;
    f.rows
        .execute(
            "insert into deliveries (id, tenant, actor_id, event_type, kind, target, payload, \
                                     created_us, next_us) \
             values ('broken', 'ABAX', 'none', 'NONE', 'link', '', '{}', 1, 1)",
        )
        .await;
    assert!(f.service.actor_ready(&told.id, told.revision, &host).await.unwrap());
    assert_eq!(f.claim(&host).await.actor.id, heard.id);
    let waits = "select count(*) from deliveries where id = 'broken' and next_us > 1";
    assert_eq!(f.rows.number(waits).await, 1, "it is put off");
}

/// Executions of an actor, accepted and stored now.
async fn insert_many(f: &Fixture, actor: &Actor, status: &str, count: u32) {
    let now = f.clock.now().micros();
    let insert = format!(
        "insert into executions (id, actor_id, executor, status, actor_revision, accepted_us, \
                                 stored_us) \
         with recursive n (i) as (select 1 union all select i + 1 from n where i < {count}) \
         select 'many' || i, '{}', 'u', '{status}', 1, {now}, {now} from n",
        actor.id
    );
    f.rows.execute(&insert).await;
}

async fn hosts_are_called_again_for_work_that_nobody_took(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    for _ in 0..3 {
        f.send(&actor, "x").await;
    }
    let seconds = |n| f.clock.advance(Duration::from_secs(n));
    let called = async || f.service.activate_overdue().await.unwrap();
    assert_eq!(called().await, 0, "it was called when the messages came");
    seconds(4);
    assert_eq!(called().await, 1, "once, however many messages there are");
    assert_eq!(called().await, 0);
    seconds(11);
    assert_eq!(called().await, 1);
    f.rows.execute("update actors set activated_us = activated_us + 3600000000").await;
    assert_eq!(called().await, 1, "the clock was set back since");
    for _ in 0..3 {
        f.claim(&host).await;
    }
    seconds(11);
    assert_eq!(called().await, 0, "nothing waits");
}

async fn hosts_are_not_called_for_what_cannot_run(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let called = async || {
        f.clock.advance(Duration::from_secs(11));
        f.service.activate_overdue().await.unwrap()
    };
    let stateful = f.register(|new| new.stateless = false).await;
    f.send(&stateful, "1").await;
    f.send(&stateful, "2").await;
    let first = f.claim(&host).await;
    assert_eq!(called().await, 0, "it has no room");
    assert!(f.service.retry(&first.key, Duration::from_secs(60), "later").await.unwrap());
    assert_eq!(called().await, 0, "its first is delayed, and the second waits behind it");
    f.clock.advance(Duration::from_secs(60));
    assert_eq!(called().await, 1);
    assert!(f.service.actor_failed(&stateful.id, 1, "no image").await.unwrap());
    assert_eq!(called().await, 0, "it is in ERROR");
}
