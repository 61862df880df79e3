//! What does not move and should: for who looks for the reason.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::queue::Capacity;

/// A running execution whose lease is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The execution.
    pub execution: ExecutionId,
    /// Its actor.
    pub actor: ActorId,
    /// When its lease was over.
    pub lease_until: Time,
}

/// An actor with an execution that has been waiting for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The actor.
    pub actor: ActorId,
    /// The class of hosts that it needs.
    pub class: String,
    /// Whether it was made ready on a host.
    pub is_ready: bool,
    /// What its hosts say of it.
    pub status_message: String,
    /// Since when the first of its executions has waited.
    pub since: Time,
    /// How many wait.
    pub waiting: u64,
    /// How many run.
    pub running: u64,
    pub(crate) capacity: Capacity,
}

/// An actor that cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The actor.
    pub actor: ActorId,
    /// Why.
    pub status_message: String,
}

/// Leases that were over before `before`, the oldest first.
pub(crate) async fn overdue(
    c: &mut Connection,
    before: Time,
    limit: i64,
) -> Result<Vec<Overdue>, Error> {
    let rows = sql("select id, actor_id, lease_until_us from executions \
         where status = 'RUNNING' and lease_until_us < $1 order by lease_until_us limit $2")
    .bind(before.micros())
    .bind(limit)
    .fetch_all(c)
    .await
    .map_err(failed("look for ended leases"))?;
    rows.iter()
        .map(|row| {
            let row = Fields::of(row, "executions");
            Ok(Overdue {
                execution: row.parsed("id", |id: String| ExecutionId::parse(&id))?,
                actor: row.parsed("actor_id", |id: String| ActorId::parse(&id))?,
                lease_until: Time::from_micros(row.get("lease_until_us")?),
            })
        })
        .collect()
}

/// Actors whose executions could have run since `before`, the oldest first.
pub(crate) async fn waiting(
    c: &mut Connection,
    before: Time,
    limit: i64,
) -> Result<Vec<Waiting>, Error> {
    let rows =
        sql("select a.id, a.queue, a.status, a.status_message, a.stateless, a.max_workers, \
         a.wanted_workers, a.rests, min(e.queued_us) as since_us, count(*) as waiting, \
         (select count(*) from executions r where r.actor_id = a.id and r.status = 'RUNNING') \
         as running \
         from executions e join actors a on a.id = e.actor_id \
         where e.status = 'SUBMITTED' and e.visible_us < $1 and e.queued_us < $1 \
         group by a.id, a.queue, a.status, a.status_message, a.stateless, a.max_workers, \
         a.wanted_workers, a.rests \
         order by since_us limit $2")
        .bind(before.micros())
        .bind(limit)
        .fetch_all(c)
        .await
        .map_err(failed("look for executions that wait"))?;
    rows.iter()
        .map(|row| {
            let row = Fields::of(row, "actors");
            let count = |name| row.parsed(name, |count: i64| u64::try_from(count).ok());
            Ok(Waiting {
                actor: row.parsed("id", |id: String| ActorId::parse(&id))?,
                class: row.get("queue")?,
                is_ready: row.get::<String>("status")? == "READY",
                status_message: row.get("status_message")?,
                since: Time::from_micros(row.get("since_us")?),
                waiting: count("waiting")?,
                running: count("running")?,
                capacity: super::waiting::capacity(&row)?,
            })
        })
        .collect()
}

/// Actors that cannot run.
pub(crate) async fn broken(c: &mut Connection, limit: i64) -> Result<Vec<Broken>, Error> {
    let rows = sql("select id, status_message from actors where status = 'ERROR' \
         order by updated_us desc limit $1")
    .bind(limit)
    .fetch_all(c)
    .await
    .map_err(failed("look for actors that cannot run"))?;
    rows.iter()
        .map(|row| {
            let row = Fields::of(row, "actors");
            Ok(Broken {
                actor: row.parsed("id", |id: String| ActorId::parse(&id))?,
                status_message: row.get("status_message")?,
            })
        })
        .collect()
}
