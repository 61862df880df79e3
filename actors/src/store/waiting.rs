//! The waiting list: executions that are SUBMITTED, in the order of acceptance.
//!
//! Each may run from its `visible_us` on.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::queue::{Activation, Capacity};

/// What a row of `actors` says of how many executions may run at once.
pub(super) fn capacity(fields: &Fields<'_>) -> Result<Capacity, Error> {
    let small = |n: i64| u32::try_from(n).ok();
    Ok(Capacity {
        stateless: fields.get("stateless")?,
        max_workers: fields.parsed_if_any("max_workers", small)?,
        wanted_workers: fields.parsed("wanted_workers", small)?,
        on_trial: fields.get::<i64>("rests")? > 0,
    })
}

/// How many executions of an actor wait.
pub(crate) async fn count_of_actor(c: &mut Connection, actor: &ActorId) -> Result<u64, Error> {
    let count: i64 =
        sql("select count(*) from executions where actor_id = $1 and status = 'SUBMITTED'")
            .bind(actor.as_str())
            .scalar(c)
            .await
            .map_err(failed("count the messages"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// An actor that has something waiting and may run it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) actor: ActorId,
    pub(crate) tenant: Tenant,
    /// The class of the hosts that serve it.
    pub(crate) class: String,
    pub(crate) capacity: Capacity,
}

/// One row per actor with something waiting and room for it at `now`, whatever the
/// number of its messages: the recursion steps from actor to actor through the index.
pub(crate) async fn candidates(
    c: &mut Connection,
    now: Time,
    default_capacity: u32,
) -> Result<Vec<Candidate>, Error> {
    let rows = sql("with recursive waiting (actor_id) as ( \
             select min(actor_id) from executions where status = 'SUBMITTED' \
             union all \
             select (select min(e.actor_id) from executions e \
                     where e.status = 'SUBMITTED' and e.actor_id > waiting.actor_id) \
             from waiting where waiting.actor_id is not null) \
         select a.id, a.tenant, a.queue, a.stateless, a.max_workers, a.wanted_workers, a.rests \
         from waiting join actors a on a.id = waiting.actor_id \
         where a.status in ('SUBMITTED', 'READY') \
         and (a.rests_until_us is null or a.rests_until_us <= $2) \
         and (select count(*) from executions e \
              where e.actor_id = a.id and e.status = 'RUNNING') \
             < case when not a.stateless or a.rests > 0 then 1 \
                    when a.wanted_workers > coalesce(a.max_workers, $1) then a.wanted_workers \
                    else coalesce(a.max_workers, $1) end")
    .bind(i64::from(default_capacity))
    .bind(now.micros())
    .fetch_all(c)
    .await
    .map_err(failed("look into the queue"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            Ok(Candidate {
                actor: fields.parsed("id", |text: String| ActorId::parse(&text))?,
                tenant: Tenant::new(fields.get::<String>("tenant")?),
                class: fields.get("queue")?,
                capacity: capacity(&fields)?,
            })
        })
        .collect()
}

/// The first waiting executions of an actor in order of acceptance, with the
/// moment from which each may be delivered. With `visible_at`, only those that
/// may be delivered then.
pub(crate) async fn head(
    c: &mut Connection,
    actor: &ActorId,
    visible_at: Option<Time>,
    limit: usize,
) -> Result<Vec<(ExecutionId, Time)>, Error> {
    let rows = sql("select id, visible_us from executions \
         where actor_id = $1 and status = 'SUBMITTED' and visible_us <= $2 \
         order by sequence limit $3")
    .bind(actor.as_str())
    .bind(visible_at.map_or(i64::MAX, Time::micros))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(c)
    .await
    .map_err(failed("look into the queue"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "executions");
            Ok((
                fields.parsed("id", |text: String| ExecutionId::parse(&text))?,
                Time::from_micros(fields.get("visible_us")?),
            ))
        })
        .collect()
}

/// Which actors hosts are called for again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overdue {
    pub(crate) now: Time,
    /// Something of it could have run since then.
    pub(crate) since: Time,
    /// Nobody was called for it since then, unless that was before the clock was set
    /// back.
    pub(crate) called_before: Time,
    /// What actors may run at once that do not say.
    pub(crate) default_capacity: u32,
    pub(crate) limit: u32,
}

/// Notes that hosts are called for actors that have had work and room for a
/// while; says for which, and for how many executions of each.
pub(crate) async fn call_for_overdue(
    c: &mut Connection,
    overdue: Overdue,
) -> Result<Vec<(Activation, u64)>, Error> {
    let rows = sql("update actors set activated_us = $1, activations_owed = 0 where id in ( \
             with recursive waiting (actor_id) as ( \
                 select min(actor_id) from executions where status = 'SUBMITTED' \
                 union all \
                 select (select min(e.actor_id) from executions e \
                         where e.status = 'SUBMITTED' and e.actor_id > waiting.actor_id) \
                 from waiting where waiting.actor_id is not null) \
             select a.id from waiting join actors a on a.id = waiting.actor_id \
             where a.status in ('SUBMITTED', 'READY') \
             and (a.activated_us < $3 or a.activated_us > $1) \
             and (a.rests_until_us is null or a.rests_until_us <= $1) \
             and (select count(*) from executions e \
                  where e.actor_id = a.id and e.status = 'RUNNING') \
                 < case when not a.stateless or a.rests > 0 then 1 \
                        when a.wanted_workers > coalesce(a.max_workers, $4) \
                        then a.wanted_workers else coalesce(a.max_workers, $4) end \
             and case when a.stateless \
                 then exists (select 1 from executions e where e.actor_id = a.id \
                              and e.status = 'SUBMITTED' and e.visible_us <= $2) \
                 else (select e.visible_us from executions e where e.actor_id = a.id \
                       and e.status = 'SUBMITTED' order by e.sequence limit 1) <= $2 end \
             order by a.activated_us limit $5) \
         returning id, tenant, queue, stateless, max_workers, wanted_workers, rests, \
             (select count(*) from executions e \
              where e.actor_id = actors.id and e.status = 'RUNNING') as running, \
             (select count(*) from (select 1 from executions e \
              where e.actor_id = actors.id and e.status = 'SUBMITTED' and e.visible_us <= $1 \
              limit 4) as waiting) as waiting")
    .bind(overdue.now.micros())
    .bind(overdue.since.micros())
    .bind(overdue.called_before.micros())
    .bind(i64::from(overdue.default_capacity))
    .bind(i64::from(overdue.limit))
    .fetch_all(c)
    .await
    .map_err(failed("look for overdue work"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            let capacity = capacity(&fields)?.at_once(overdue.default_capacity);
            let count = |column| fields.parsed(column, |n: i64| u64::try_from(n).ok());
            let room = capacity.saturating_sub(count("running")?);
            let activation = Activation {
                actor: fields.parsed("id", |text: String| ActorId::parse(&text))?,
                tenant: Tenant::new(fields.get::<String>("tenant")?),
                class: fields.get("queue")?,
            };
            Ok((activation, room.min(count("waiting")?)))
        })
        .collect()
}
