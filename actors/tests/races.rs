//! What is decided while another transaction changes the same row: only on a
//! server, since a file has one writer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use abax_actors::{ActorStatus, ActorUpdate, Deleted, Error, Json};
use fixture::{Engine, Fixture};
use sqlx::{AssertSqlSafe, PgConnection};

/// Changes rows as another process does that has not committed yet.
async fn changes(f: &Fixture, change: &str) -> PgConnection {
    let mut other = f.rows.postgres().await;
    let begun = format!("begin; {change}");
    sqlx::raw_sql(AssertSqlSafe(begun)).execute(&mut other).await.unwrap();
    other
}

async fn commits(f: &Fixture, mut other: PgConnection) {
    f.rows.somebody_waits().await;
    sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_an_actor_takes_nothing_back_that_changed_meanwhile() {
    let f = Fixture::new(Engine::Postgres).await;
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    let update = || {
        let mut update = ActorUpdate::new(actor.image.clone());
        update.settings.stateless = false;
        f.service.update_actor(&f.owner, id, update)
    };
    // As an execution that ends with a state.
    let other = changes(&f, "update actors set state = '7', status = 'READY'").await;
    let (updated, ()) = tokio::join!(update(), commits(&f, other));
    assert_eq!(updated.unwrap().status, ActorStatus::Ready);
    assert_eq!(f.service.actor_state(&f.owner, id).await.unwrap(), Json::parse("7").unwrap());

    let other = changes(&f, "update actors set status = 'SHUTTING_DOWN'").await;
    let (updated, ()) = tokio::join!(update(), commits(&f, other));
    assert!(matches!(updated, Err(Error::ShuttingDown { .. })), "{updated:?}");
    assert_eq!(f.service.delete_actor(&f.owner, id).await.unwrap(), Deleted::Completely);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_holds_for_what_is_claimed_or_given_back_meanwhile() {
    let f = Fixture::new(Engine::Postgres).await;
    let actor = f.actor().await;
    let sent = f.send(&actor, "x").await;
    let halt = || f.service.halt_execution(&f.owner, actor.id.as_str(), sent.id.as_str());
    let other = changes(&f, "update executions set status = 'RUNNING', epoch = 1").await;
    let (halted, ()) = tokio::join!(halt(), commits(&f, other));
    halted.unwrap();
    assert!(f.execution(&sent).await.halt_requested, "it runs, and is asked to stop");

    let sent = f.send(&actor, "y").await;
    let of_it = format!("where id = '{}'", sent.id);
    f.rows.execute(&format!("update executions set status = 'RUNNING' {of_it}")).await;
    let halt = || f.service.halt_execution(&f.owner, actor.id.as_str(), sent.id.as_str());
    let give_back = format!("update executions set status = 'SUBMITTED' {of_it}");
    let other = changes(&f, &give_back).await;
    let (halted, ()) = tokio::join!(halt(), commits(&f, other));
    halted.unwrap();
    let ended = f.execution(&sent).await;
    assert!(ended.status.is_final(), "it waits, and has ended: {}", ended.status);
}
