//! What the activations of an actor that a broker carries are counted by; and
//! what one of them finds.
//!
//! As many are under way as executions wait that may run, up to [`spread`]. One
//! that finds no room goes, and is *owed*: whoever makes room publishes it again.

use super::{Connection, Fields, failed, sql};
use crate::actor::ActorStatus;
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::permission::Tenant;
use crate::queue::Activation;

/// Activations of one actor that are under way at once. Each claim publishes the
/// next, so few start as much as many, and an actor is as many turns ahead of
/// others at most.
const SPREAD: u64 = 4;

/// How many activations of an actor with this capacity are under way at most.
pub(crate) fn spread(capacity: u64) -> u64 {
    capacity.min(SPREAD)
}

/// What an actor has to do.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) activation: Activation,
    /// It is neither in error nor being deleted, and does not rest.
    pub(crate) runnable: bool,
    pub(crate) capacity: u64,
    pub(crate) running: u64,
    /// How many executions may run now but for the capacity, up to the spread.
    pub(crate) waiting: u64,
    /// The first of them.
    pub(crate) next: Option<ExecutionId>,
}

impl Work {
    /// How many executions may run that do not.
    pub(crate) fn room(&self) -> u64 {
        if self.runnable { self.capacity.saturating_sub(self.running) } else { 0 }
    }
}

/// What an actor has to do at `now`; none where there is no such actor.
pub(crate) async fn work(
    c: &mut Connection,
    actor: &ActorId,
    now: Time,
    default_capacity: u32,
) -> Result<Option<Work>, Error> {
    let row = sql("select a.id, a.tenant, a.queue, a.status, a.stateless, a.max_workers, \
             a.wanted_workers, a.rests, a.rests_until_us, \
             (select count(*) from executions e \
              where e.actor_id = a.id and e.status = 'RUNNING') as running, \
             (select count(*) from (select 1 from executions e \
              where e.actor_id = a.id and e.status = 'SUBMITTED' and e.visible_us <= $2 \
              limit 4) as waiting) as waiting, \
             (select e.id from executions e \
              where e.actor_id = a.id and e.status = 'SUBMITTED' \
              and (e.visible_us <= $2 or not a.stateless) \
              order by e.sequence limit 1) as next, \
             (select e.visible_us from executions e \
              where e.actor_id = a.id and e.status = 'SUBMITTED' \
              and (e.visible_us <= $2 or not a.stateless) \
              order by e.sequence limit 1) as next_visible_us \
         from actors a where a.id = $1")
    .bind(actor.as_str())
    .bind(now.micros())
    .fetch_optional(c)
    .await
    .map_err(failed("look for work"))?;
    let Some(row) = row else { return Ok(None) };
    let fields = Fields::of(&row, "actors");
    let status = fields.parsed("status", |text: String| ActorStatus::parse(&text))?;
    let capacity = super::waiting::capacity(&fields)?.at_once(default_capacity);
    // A stateful actor's first execution is waited for.
    let visible =
        fields.get::<Option<i64>>("next_visible_us")?.is_some_and(|from| from <= now.micros());
    let next =
        fields.parsed_if_any("next", |text: String| ExecutionId::parse(&text))?.filter(|_| visible);
    let rests =
        fields.get::<Option<i64>>("rests_until_us")?.is_some_and(|until| until > now.micros());
    let waiting = fields.parsed("waiting", |n: i64| u64::try_from(n).ok())?;
    Ok(Some(Work {
        activation: activation(&fields)?,
        runnable: matches!(status, ActorStatus::Submitted | ActorStatus::Ready) && !rests,
        capacity,
        running: fields.parsed("running", |n: i64| u64::try_from(n).ok())?,
        waiting: if next.is_some() { waiting.min(spread(capacity)) } else { 0 },
        next,
    }))
}

/// As [`work`], of the actor of an execution.
pub(crate) async fn work_beside(
    c: &mut Connection,
    execution: &ExecutionId,
    now: Time,
    default_capacity: u32,
) -> Result<Option<Work>, Error> {
    let actor: Option<String> = sql("select actor_id from executions where id = $1")
        .bind(execution.as_str())
        .optional_scalar(c)
        .await
        .map_err(failed("look for work"))?;
    match actor.as_deref().and_then(ActorId::parse) {
        Some(actor) => work(c, &actor, now, default_capacity).await,
        None => Ok(None),
    }
}

/// Notes that an activation went that found no room.
pub(crate) async fn owe(c: &mut Connection, actor: &ActorId, spread: u64) -> Result<(), Error> {
    sql("update actors set activations_owed = activations_owed + 1 \
         where id = $1 and activations_owed < $2")
    .bind(actor.as_str())
    .bind(i64::try_from(spread).unwrap_or(i64::MAX))
    .execute(c)
    .await
    .map_err(failed("note the activation"))?;
    Ok(())
}

/// Takes one that is owed, for whoever publishes it now.
pub(crate) async fn pay(c: &mut Connection, actor: &ActorId) -> Result<Option<Activation>, Error> {
    let row = sql("update actors set activations_owed = activations_owed - 1 \
         where id = $1 and activations_owed > 0 returning id, tenant, queue")
    .bind(actor.as_str())
    .fetch_optional(c)
    .await
    .map_err(failed("note the activation"))?;
    row.map(|row| activation(&Fields::of(&row, "actors"))).transpose()
}

/// As [`pay`], of the actor of an execution.
pub(crate) async fn pay_beside(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<Option<Activation>, Error> {
    let row = sql("update actors set activations_owed = activations_owed - 1 \
         where id = (select actor_id from executions where id = $1) and activations_owed > 0 \
         returning id, tenant, queue")
    .bind(execution.as_str())
    .fetch_optional(c)
    .await
    .map_err(failed("note the activation"))?;
    row.map(|row| activation(&Fields::of(&row, "actors"))).transpose()
}

/// Lets a waiting execution that cannot be claimed now wait until `until`, so
/// that it holds nobody up.
pub(crate) async fn put_off(
    c: &mut Connection,
    execution: &ExecutionId,
    until: Time,
) -> Result<(), Error> {
    sql("update executions set visible_us = $2 \
         where id = $1 and status = 'SUBMITTED' and visible_us < $2")
    .bind(execution.as_str())
    .bind(until.micros())
    .execute(c)
    .await
    .map_err(failed("put the execution off"))?;
    Ok(())
}

/// All tenants that have actors.
pub(crate) async fn tenants(c: &mut Connection) -> Result<Vec<Tenant>, Error> {
    // Steps from tenant to tenant through the index, however many actors each has.
    let names: Vec<String> = sql("with recursive known (tenant) as ( \
             select min(tenant) from actors \
             union all \
             select (select min(a.tenant) from actors a where a.tenant > known.tenant) \
             from known where known.tenant is not null) \
         select tenant from known where tenant is not null")
    .scalars(c)
    .await
    .map_err(failed("list the tenants"))?;
    Ok(names.into_iter().map(Tenant::new).collect())
}

/// How many actors have something waiting, by class and tenant.
pub(crate) async fn waiting_actors(
    c: &mut Connection,
) -> Result<Vec<(String, Tenant, u64)>, Error> {
    let rows = sql("with recursive waiting (actor_id) as ( \
             select min(actor_id) from executions where status = 'SUBMITTED' \
             union all \
             select (select min(e.actor_id) from executions e \
                     where e.status = 'SUBMITTED' and e.actor_id > waiting.actor_id) \
             from waiting where waiting.actor_id is not null) \
         select a.queue as id, a.tenant, count(*) as actors \
         from waiting join actors a on a.id = waiting.actor_id group by a.queue, a.tenant")
    .fetch_all(c)
    .await
    .map_err(failed("count the waiting actors"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            let actors = fields.parsed("actors", |n: i64| u64::try_from(n).ok())?;
            Ok((fields.get("id")?, Tenant::new(fields.get::<String>("tenant")?), actors))
        })
        .collect()
}

fn activation(fields: &Fields<'_>) -> Result<Activation, Error> {
    Ok(Activation {
        actor: fields.parsed("id", |text: String| ActorId::parse(&text))?,
        tenant: Tenant::new(fields.get::<String>("tenant")?),
        class: fields.get("queue")?,
    })
}
