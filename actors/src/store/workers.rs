//! The table `workers`: slots of actors on hosts.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, HostId, WorkerId};
use crate::worker::{Worker, WorkerStatus};

/// An idle worker of the actor on the host, or a fresh one; busy from now on.
pub(crate) async fn take(
    c: &mut Connection,
    actor: &ActorId,
    host: &HostId,
    now: Time,
) -> Result<WorkerId, Error> {
    let idle: Option<String> =
        sql("update workers set status = 'BUSY', last_execution_us = $3 where id = \
             (select id from workers where actor_id = $1 and host_id = $2 and status = 'READY' \
              order by last_execution_us desc limit 1) returning id")
        .bind(actor.as_str())
        .bind(host.as_str())
        .bind(now.micros())
        .optional_scalar(c)
        .await
        .map_err(failed("take a worker"))?;
    if let Some(id) = idle {
        return WorkerId::parse(&id).ok_or_else(|| Error::Inconsistent {
            table: "workers",
            column: "id".to_owned(),
            row: id,
        });
    }
    let id = WorkerId::generate();
    sql("insert into workers (id, actor_id, host_id, host_name, status, created_us, \
                              last_execution_us) \
         values ($1, $2, $3, coalesce((select name from hosts where id = $3), ''), 'BUSY', $4, $4)")
    .bind(id.as_str())
    .bind(actor.as_str())
    .bind(host.as_str())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("add a worker"))?;
    Ok(id)
}

pub(crate) async fn set_idle(c: &mut Connection, id: &WorkerId) -> Result<(), Error> {
    sql("update workers set status = 'READY' where id = $1")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("free the worker"))?;
    Ok(())
}

pub(crate) async fn remove(c: &mut Connection, id: &WorkerId) -> Result<(), Error> {
    sql("delete from workers where id = $1")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("remove the worker"))?;
    Ok(())
}

/// Removes workers that have had nothing to do since `since`.
pub(crate) async fn remove_idle(c: &mut Connection, since: Time) -> Result<(), Error> {
    sql("delete from workers where status = 'READY' \
         and coalesce(last_execution_us, created_us) < $1")
    .bind(since.micros())
    .execute(c)
    .await
    .map_err(failed("remove idle workers"))?;
    Ok(())
}

/// Removes the workers of a process.
pub(crate) async fn remove_of_host(c: &mut Connection, host: &HostId) -> Result<(), Error> {
    sql("delete from workers where host_id = $1")
        .bind(host.as_str())
        .execute(c)
        .await
        .map_err(failed("remove the workers of a host"))?;
    Ok(())
}

/// The workers of an actor, oldest first.
pub(crate) async fn of_actor(c: &mut Connection, actor: &ActorId) -> Result<Vec<Worker>, Error> {
    let rows = sql("select * from workers where actor_id = $1 order by created_us, id")
        .bind(actor.as_str())
        .fetch_all(c)
        .await
        .map_err(failed("list the workers"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "workers");
            Ok(Worker {
                id: fields.parsed("id", |text: String| WorkerId::parse(&text))?,
                actor: fields.parsed("actor_id", |text: String| ActorId::parse(&text))?,
                host: fields.get("host_name")?,
                status: fields.parsed("status", |text: String| WorkerStatus::parse(&text))?,
                created: Time::from_micros(fields.get("created_us")?),
                last_execution: fields
                    .get::<Option<i64>>("last_execution_us")?
                    .map(Time::from_micros),
            })
        })
        .collect()
}
