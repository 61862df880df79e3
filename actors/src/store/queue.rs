//! The table `queue`: what waits, for the embedded queue.

use sqlx::Row as _;

use super::{Connection, failed};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};

/// Queues an execution at the place of its acceptance; nothing if it is there.
pub(crate) async fn insert(
    c: &mut Connection,
    execution: &ExecutionId,
    visible: Time,
) -> Result<(), Error> {
    sqlx::query(
        "insert into queue (execution_id, actor_id, sequence, visible_us) \
         select id, actor_id, sequence, $2 from executions where id = $1 \
         on conflict (execution_id) do update set visible_us = excluded.visible_us",
    )
    .bind(execution.as_str())
    .bind(visible.micros())
    .execute(c)
    .await
    .map_err(failed("queue the execution"))?;
    Ok(())
}

pub(crate) async fn remove(c: &mut Connection, execution: &ExecutionId) -> Result<(), Error> {
    sqlx::query("delete from queue where execution_id = $1")
        .bind(execution.as_str())
        .execute(c)
        .await
        .map_err(failed("take the execution from the queue"))?;
    Ok(())
}

pub(crate) async fn remove_of_actor(c: &mut Connection, actor: &ActorId) -> Result<(), Error> {
    sqlx::query("delete from queue where actor_id = $1")
        .bind(actor.as_str())
        .execute(c)
        .await
        .map_err(failed("empty the actor's queue"))?;
    Ok(())
}

/// How many executions of an actor wait.
pub(crate) async fn count_of_actor(c: &mut Connection, actor: &ActorId) -> Result<u64, Error> {
    let count: i64 = sqlx::query_scalar("select count(*) from queue where actor_id = $1")
        .bind(actor.as_str())
        .fetch_one(c)
        .await
        .map_err(failed("count the messages"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(crate) async fn count(c: &mut Connection) -> Result<u64, Error> {
    let count: i64 = sqlx::query_scalar("select count(*) from queue")
        .fetch_one(c)
        .await
        .map_err(failed("count the messages"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// An actor that has something waiting and may run it.
pub(crate) struct Candidate {
    pub(crate) actor: String,
    pub(crate) stateless: bool,
    pub(crate) max_workers: Option<u32>,
    pub(crate) running: u64,
}

/// One row per actor with something waiting, whatever the number of its
/// messages: the recursion steps from actor to actor through the index.
pub(crate) async fn candidates(c: &mut Connection) -> Result<Vec<Candidate>, Error> {
    let rows = sqlx::query(
        "with recursive waiting (actor_id) as ( \
             select min(actor_id) from queue \
             union all \
             select (select min(q.actor_id) from queue q where q.actor_id > waiting.actor_id) \
             from waiting where waiting.actor_id is not null) \
         select a.id, a.stateless, a.max_workers, \
                (select count(*) from executions e \
                 where e.actor_id = a.id and e.status = 'RUNNING') as running \
         from waiting join actors a on a.id = waiting.actor_id \
         where a.status in ('SUBMITTED', 'READY')",
    )
    .fetch_all(c)
    .await
    .map_err(failed("look into the queue"))?;
    rows.iter()
        .map(|row| {
            Ok(Candidate {
                actor: row.try_get("id")?,
                stateless: row.try_get("stateless")?,
                max_workers: row
                    .try_get::<Option<i64>, _>("max_workers")?
                    .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
                running: u64::try_from(row.try_get::<i64, _>("running")?).unwrap_or(0),
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed("look into the queue"))
}

/// The first waiting executions of an actor in order of acceptance, with the
/// moment from which each may be delivered. With `visible_at`, only those that
/// may be delivered then.
pub(crate) async fn head(
    c: &mut Connection,
    actor: &str,
    visible_at: Option<Time>,
    limit: usize,
) -> Result<Vec<(ExecutionId, Time)>, Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select execution_id, visible_us from queue \
         where actor_id = $1 and visible_us <= $2 order by sequence limit $3",
    )
    .bind(actor)
    .bind(visible_at.map_or(i64::MAX, Time::micros))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(c)
    .await
    .map_err(failed("look into the queue"))?;
    rows.into_iter()
        .map(|(id, visible)| {
            let execution = ExecutionId::parse(&id).ok_or_else(|| Error::Inconsistent {
                table: "queue",
                column: "execution_id".to_owned(),
                row: id,
            })?;
            Ok((execution, Time::from_micros(visible)))
        })
        .collect()
}
