//! The table `workers`: slots of actors on hosts. One without a host has the
//! empty text for it.

use super::{Connection, Fields, failed, sql};
use crate::actor::Actor;
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, HostId, WorkerId};
use crate::worker::{Worker, WorkerStatus};

/// A worker for an execution that the host claims, busy from now on: an idle one
/// of the host, or one that was asked for; where the actor has as many as it may
/// (`capacity`), an idle one of another host; else a fresh one. The actor is locked.
pub(crate) async fn take(
    c: &mut Connection,
    actor: &Actor,
    host: &HostId,
    capacity: u64,
    now: Time,
) -> Result<WorkerId, Error> {
    let here = "update workers set status = 'BUSY', last_execution_us = $3, host_id = $2, \
             host_name = coalesce((select name from hosts where id = $2), ''), \
             image = $4, revision = $5 where id = \
             (select id from workers where actor_id = $1 \
              and ((host_id = $2 and status = 'READY') \
                   or status in ('REQUESTED', 'PULLING IMAGE')) \
              order by case when status = 'READY' then 0 else 1 end, \
                       coalesce(last_execution_us, 0) desc limit 1) returning id";
    let elsewhere = "update workers set status = 'BUSY', last_execution_us = $3, host_id = $2, \
             host_name = coalesce((select name from hosts where id = $2), ''), \
             image = $4, revision = $5 where id = \
             (select id from workers where actor_id = $1 and status = 'READY' \
              and (select count(*) from workers w where w.actor_id = $1 \
                   and w.status <> 'SHUTDOWN_REQUESTED') >= $6 \
              order by coalesce(last_execution_us, 0) limit 1) returning id";
    let taken = |text: &'static str| {
        sql(text)
            .bind(actor.id.as_str())
            .bind(host.as_str())
            .bind(now.micros())
            .bind(&actor.image)
            .bind(actor.revision)
    };
    let mut idle: Option<String> =
        taken(here).optional_scalar(c).await.map_err(failed("take a worker"))?;
    if idle.is_none() {
        idle = taken(elsewhere)
            .bind(i64::try_from(capacity).unwrap_or(i64::MAX))
            .optional_scalar(c)
            .await
            .map_err(failed("take a worker"))?;
    }
    if let Some(id) = idle {
        return WorkerId::parse(&id).ok_or_else(|| Error::Inconsistent {
            table: "workers",
            column: "id".to_owned(),
            row: id,
        });
    }
    let id = WorkerId::generate();
    sql("insert into workers (id, actor_id, host_id, host_name, status, created_us, \
                              last_execution_us, image, revision) \
         values ($1, $2, $3, coalesce((select name from hosts where id = $3), ''), 'BUSY', $4, $4, \
                 $5, $6)")
    .bind(id.as_str())
    .bind(actor.id.as_str())
    .bind(host.as_str())
    .bind(now.micros())
    .bind(&actor.image)
    .bind(actor.revision)
    .execute(c)
    .await
    .map_err(failed("add a worker"))?;
    Ok(id)
}

/// Frees the worker of an execution that ended, or was given back; one that was
/// to go goes.
pub(crate) async fn set_idle(c: &mut Connection, id: &WorkerId) -> Result<(), Error> {
    let freed = sql("update workers set status = 'READY' where id = $1 and status = 'BUSY'")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("free the worker"))?;
    if freed == 0 {
        sql("delete from workers where id = $1 and status = 'SHUTDOWN_REQUESTED'")
            .bind(id.as_str())
            .execute(c)
            .await
            .map_err(failed("remove the worker"))?;
    }
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

/// Asks for a worker, which no host has yet.
pub(crate) async fn request(c: &mut Connection, actor: &ActorId, now: Time) -> Result<(), Error> {
    sql("insert into workers (id, actor_id, host_id, host_name, status, created_us) \
         values ($1, $2, '', '', 'REQUESTED', $3)")
    .bind(WorkerId::generate().as_str())
    .bind(actor.as_str())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("ask for a worker"))?;
    Ok(())
}

/// Notes that a host makes the image ready for the workers that were asked for.
pub(crate) async fn set_pulling(
    c: &mut Connection,
    actor: &ActorId,
    host: &HostId,
) -> Result<(), Error> {
    sql("update workers set status = 'PULLING IMAGE', host_id = $2, \
             host_name = coalesce((select name from hosts where id = $2), '') \
         where actor_id = $1 and status = 'REQUESTED'")
    .bind(actor.as_str())
    .bind(host.as_str())
    .execute(c)
    .await
    .map_err(failed("note the pull"))?;
    Ok(())
}

/// A host has the actor's image: the workers that were asked for are its, and
/// idle ones of earlier revisions go.
pub(crate) async fn provide(c: &mut Connection, actor: &Actor, host: &HostId) -> Result<(), Error> {
    let provided = sql("update workers set status = 'READY', host_id = $2, \
             host_name = coalesce((select name from hosts where id = $2), ''), \
             image = $3, revision = $4 \
         where actor_id = $1 and status in ('REQUESTED', 'PULLING IMAGE')")
    .bind(actor.id.as_str())
    .bind(host.as_str())
    .bind(&actor.image)
    .bind(actor.revision)
    .execute(c)
    .await
    .map_err(failed("provide workers"))?;
    if provided > 0 {
        sql("delete from workers where actor_id = $1 and status = 'READY' \
             and coalesce(revision, 0) < $2")
        .bind(actor.id.as_str())
        .bind(actor.revision)
        .execute(c)
        .await
        .map_err(failed("remove workers of earlier revisions"))?;
    }
    Ok(())
}

/// Drops what was asked for and cannot be had.
pub(crate) async fn remove_requested(c: &mut Connection, actor: &ActorId) -> Result<(), Error> {
    sql("delete from workers where actor_id = $1 and status in ('REQUESTED', 'PULLING IMAGE')")
        .bind(actor.as_str())
        .execute(c)
        .await
        .map_err(failed("drop the workers that were asked for"))?;
    Ok(())
}

/// Removes a worker of the actor, or has it go when its execution has ended.
/// False where there is none.
pub(crate) async fn stop(
    c: &mut Connection,
    actor: &ActorId,
    id: &WorkerId,
) -> Result<bool, Error> {
    let idle = sql("delete from workers where id = $1 and actor_id = $2 \
         and status not in ('BUSY', 'SHUTDOWN_REQUESTED')")
    .bind(id.as_str())
    .bind(actor.as_str())
    .execute(c)
    .await
    .map_err(failed("stop the worker"))?;
    let busy = sql("update workers set status = 'SHUTDOWN_REQUESTED' \
         where id = $1 and actor_id = $2")
    .bind(id.as_str())
    .bind(actor.as_str())
    .execute(c)
    .await
    .map_err(failed("stop the worker"))?;
    Ok(idle + busy > 0)
}

/// As [`stop`], for all workers of an actor that is being deleted.
pub(crate) async fn stop_all(c: &mut Connection, actor: &ActorId) -> Result<(), Error> {
    for text in [
        "delete from workers where actor_id = $1 and status not in ('BUSY', 'SHUTDOWN_REQUESTED')",
        "update workers set status = 'SHUTDOWN_REQUESTED' where actor_id = $1",
    ] {
        sql(text).bind(actor.as_str()).execute(c).await.map_err(failed("stop the workers"))?;
    }
    Ok(())
}

/// How many workers of the actor are there to stay.
pub(crate) async fn count(c: &mut Connection, actor: &ActorId) -> Result<u64, Error> {
    let count: i64 = sql("select count(*) from workers \
         where actor_id = $1 and status <> 'SHUTDOWN_REQUESTED'")
    .bind(actor.as_str())
    .scalar(c)
    .await
    .map_err(failed("count the workers"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// From when on workers have had nothing to do, or were not heard of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleSince {
    /// Those of stateless actors.
    pub(crate) stateless: Time,
    /// The one that a stateless actor with the hint `sync` keeps.
    pub(crate) sync: Time,
    /// Those of any actor.
    pub(crate) any: Time,
    /// Those that no host has begun to provide.
    pub(crate) requested: Time,
    /// Those whose host was last seen then, or has stopped.
    pub(crate) host: Time,
}

/// Removes workers that are idle for longer than theirs may be, of an actor that
/// has nothing waiting; those that were asked for in vain; and those whose hosts
/// are gone.
pub(crate) async fn remove_idle(
    c: &mut Connection,
    since: IdleSince,
    now: Time,
) -> Result<(), Error> {
    sql("delete from workers where status = 'READY' and ( \
             coalesce(last_execution_us, created_us) < $3 \
             or coalesce(last_execution_us, created_us) < $1 and exists ( \
                 select 1 from actors a where a.id = workers.actor_id and a.stateless \
                 and (a.hints not like '%\"sync\"%' \
                      or coalesce(workers.last_execution_us, workers.created_us) < $2 \
                      or exists (select 1 from workers w where w.actor_id = a.id \
                                 and w.id <> workers.id \
                                 and coalesce(w.last_execution_us, w.created_us) \
                                     > coalesce(workers.last_execution_us, workers.created_us))) \
                 and not exists (select 1 from executions e \
                                 where e.actor_id = a.id and e.status = 'SUBMITTED')) \
             or exists (select 1 from actors a where a.id = workers.actor_id \
                        and a.revision > coalesce(workers.revision, 0) \
                        and exists (select 1 from workers w where w.actor_id = a.id \
                                    and w.status in ('READY', 'BUSY') \
                                    and w.revision = a.revision)))")
    .bind(since.stateless.micros())
    .bind(since.sync.micros())
    .bind(since.any.micros())
    .execute(c)
    .await
    .map_err(failed("remove idle workers"))?;
    sql("delete from workers where status in ('REQUESTED', 'PULLING IMAGE') and created_us < $1")
        .bind(since.requested.micros())
        .execute(c)
        .await
        .map_err(failed("remove workers that were asked for in vain"))?;
    // Its execution ended in the moment in which it was asked to stop.
    sql("delete from workers where status = 'SHUTDOWN_REQUESTED' and not exists \
             (select 1 from executions e where e.actor_id = workers.actor_id \
              and e.status = 'RUNNING' and e.worker_id = workers.id)")
    .execute(c)
    .await
    .map_err(failed("remove workers that were asked to stop"))?;
    // One that has an execution goes with its lease.
    sql("update workers set status = 'REQUESTED', host_id = '', host_name = '', created_us = $2 \
         where status in ('READY', 'BUSY', 'PULLING IMAGE') and not exists \
             (select 1 from hosts h where h.id = workers.host_id and h.seen_us >= $1 \
              and h.stopped_us is null) \
         and not exists (select 1 from executions e where e.actor_id = workers.actor_id \
                         and e.status = 'RUNNING' and e.worker_id = workers.id) \
         and exists (select 1 from actors a where a.id = workers.actor_id and not a.stateless)")
    .bind(since.host.micros())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("ask again for workers of hosts that are gone"))?;
    sql("delete from workers where status <> 'REQUESTED' and not exists \
             (select 1 from hosts h where h.id = workers.host_id and h.seen_us >= $1 \
              and h.stopped_us is null) \
         and not exists (select 1 from executions e where e.actor_id = workers.actor_id \
                         and e.status = 'RUNNING' and e.worker_id = workers.id)")
    .bind(since.host.micros())
    .execute(c)
    .await
    .map_err(failed("remove workers of hosts that are gone"))?;
    // What an admin asked for holds as long as it is there.
    sql("update actors set wanted_workers = 0 where wanted_workers > 0 and not exists \
             (select 1 from workers w where w.actor_id = actors.id)")
    .execute(c)
    .await
    .map_err(failed("forget the workers that were asked for"))?;
    Ok(())
}

/// Takes the workers of a process that is dead from it: a stateful actor's is asked
/// for again, others go.
pub(crate) async fn remove_of_host(
    c: &mut Connection,
    host: &HostId,
    now: Time,
) -> Result<(), Error> {
    sql("update workers set status = 'REQUESTED', host_id = '', host_name = '', created_us = $2 \
         where host_id = $1 and status <> 'SHUTDOWN_REQUESTED' \
         and exists (select 1 from actors a where a.id = workers.actor_id and not a.stateless)")
    .bind(host.as_str())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("ask again for the workers of a host"))?;
    sql("delete from workers where host_id = $1")
        .bind(host.as_str())
        .execute(c)
        .await
        .map_err(failed("remove the workers of a host"))?;
    Ok(())
}

/// The workers of an actor, oldest first.
pub(crate) async fn of_actor(c: &mut Connection, actor: &ActorId) -> Result<Vec<Worker>, Error> {
    let rows = sql(
        "select w.*, h.seen_us, h.address from workers w left join hosts h on h.id = w.host_id \
         where w.actor_id = $1 order by w.created_us, w.id",
    )
    .bind(actor.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("list the workers"))?;
    rows.iter().map(|row| read(&Fields::of(row, "workers"))).collect()
}

/// A row of a worker, with the time at which its host was heard of.
pub(super) fn read(fields: &Fields<'_>) -> Result<Worker, Error> {
    let time = |column| Ok::<_, Error>(fields.get::<Option<i64>>(column)?.map(Time::from_micros));
    Ok(Worker {
        id: fields.parsed("id", |text: String| WorkerId::parse(&text))?,
        actor: fields.parsed("actor_id", |text: String| ActorId::parse(&text))?,
        host: HostId::parse(&fields.get::<String>("host_id")?),
        host_name: fields.get("host_name")?,
        host_address: fields.parsed_if_any("address", |text: String| text.parse().ok())?,
        status: fields.parsed("status", |text: String| WorkerStatus::parse(&text))?,
        image: fields.get("image")?,
        revision: fields.get("revision")?,
        created: Time::from_micros(fields.get("created_us")?),
        last_execution: time("last_execution_us")?,
        last_health_check: time("seen_us")?,
    })
}
