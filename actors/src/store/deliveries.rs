//! The table `deliveries`: events on their way.
//!
//! One is due from `next_us` on, and has ended where that is null.

use std::collections::HashMap;

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::event::{EventDelivery, EventKind, EventTarget};
use crate::id::{ActorId, DeliveryId};
use crate::permission::Tenant;

/// Events of one actor happen one after the other, also within a microsecond.
pub(crate) async fn time_of_next(
    c: &mut Connection,
    actor: &ActorId,
    now: Time,
) -> Result<Time, Error> {
    let last: Option<i64> = sql("select max(created_us) from deliveries where actor_id = $1")
        .bind(actor.as_str())
        .scalar(c)
        .await
        .map_err(failed("note the event"))?;
    let after_last = last.map_or(i64::MIN, |last| last.saturating_add(1));
    Ok(Time::from_micros(after_last.max(now.micros())))
}

pub(crate) async fn insert(c: &mut Connection, delivery: &EventDelivery) -> Result<(), Error> {
    sql("insert into deliveries (id, tenant, actor_id, event_type, kind, target, payload, \
                                 created_us, next_us, last_error) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
    .bind(delivery.id.as_str())
    .bind(delivery.tenant.as_str())
    .bind(delivery.actor.as_str())
    .bind(delivery.event.as_str())
    .bind(delivery.kind.as_str())
    .bind(&delivery.target)
    .bind(&delivery.payload)
    .bind(delivery.created.micros())
    .bind(delivery.next.map(Time::micros))
    .bind(&delivery.last_error)
    .execute(c)
    .await
    .map_err(failed("note the event"))?;
    Ok(())
}

/// Deliveries to linked actors that are due with their ids, in the order of the
/// events; also those that cannot be read.
pub(crate) async fn due_links(
    c: &mut Connection,
    now: Time,
    limit: i64,
) -> Result<Vec<(String, Result<EventDelivery, Error>)>, Error> {
    let rows = sql("select * from deliveries where kind = 'link' and next_us <= $1 \
         order by next_us, created_us limit $2")
    .bind(now.micros())
    .bind(limit)
    .fetch_all(c)
    .await
    .map_err(failed("look for events to deliver"))?;
    rows.iter().map(|row| Ok((Fields::of(row, "deliveries").get("id")?, read(row)))).collect()
}

/// Has a delivery that is due be due at `next`.
pub(crate) async fn put_off_link(c: &mut Connection, id: &str, next: Time) -> Result<(), Error> {
    sql("update deliveries set next_us = $2 where id = $1 and next_us is not null")
        .bind(id)
        .bind(next.micros())
        .execute(c)
        .await
        .map_err(failed("put off the delivery"))?;
    Ok(())
}

/// Whether a webhook is due.
pub(crate) async fn has_due_webhooks(c: &mut Connection, now: Time) -> Result<bool, Error> {
    let next: Option<i64> = sql("select next_us from deliveries \
         where kind = 'webhook' and next_us is not null order by next_us limit 1")
    .optional_scalar(c)
    .await
    .map_err(failed("look for events to deliver"))?;
    Ok(next.is_some_and(|next| next <= now.micros()))
}

/// Whose webhooks are called in turns: an owner in a tenant.
pub(crate) type Party = (String, String);

/// A webhook that is due.
pub(crate) struct Due {
    pub(crate) id: String,
    pub(crate) party: Party,
    /// Which of its party's actors it is of, from 1, the longest due first.
    pub(crate) turn: u64,
}

/// Keeps other processes from taking webhooks until this transaction ends.
pub(crate) async fn lock_webhooks(c: &mut Connection) -> Result<(), Error> {
    // A file has one writer at a time anyway.
    sql("select 1")
        .on_postgres("select pg_advisory_xact_lock(hashtextextended('webhooks', 0))")
        .execute(c)
        .await
        .map_err(failed("lock the webhooks"))?;
    Ok(())
}

/// Whether the delivery `d` is a webhook on its way: it was taken, is not due
/// again yet, and nothing is said of that try.
macro_rules! on_its_way {
    () => {
        "d.kind = 'webhook' and d.next_us > $1 and d.attempts > 0 and d.last_error is null"
    };
}

/// Webhooks that are due, of actors without one on its way: the first ten of each
/// actor in the order of their events, of sixteen actors of each party, and the
/// parties in turns.
pub(crate) async fn due_webhooks(c: &mut Connection, now: Time) -> Result<Vec<Due>, Error> {
    let rows = sql(concat!(
        "select id, tenant, owner, turn from ( \
             select id, tenant, owner, first_us, nth, \
                 dense_rank() over (partition by tenant, owner order by first_us, actor_id) as turn \
             from (select id, tenant, actor_id, first_us, nth, coalesce( \
                       (select a.owner from actors a where a.id = of_actors.actor_id), '') as owner \
                   from (select id, tenant, actor_id, \
                             min(next_us) over (partition by actor_id) as first_us, \
                             row_number() over (partition by actor_id order by created_us) as nth \
                         from deliveries where kind = 'webhook' and next_us <= $1 \
                         and actor_id not in (select d.actor_id from deliveries d where ",
        on_its_way!(),
        ")) of_actors where nth <= 10) of_owners) in_turns \
         where turn <= 16 order by turn, first_us, nth limit 1000"
    ))
    .bind(now.micros())
    .fetch_all(c)
    .await
    .map_err(failed("look for events to deliver"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "deliveries");
            Ok(Due {
                id: fields.get("id")?,
                party: (fields.get("tenant")?, fields.get("owner")?),
                turn: fields.parsed("turn", |n: i64| u64::try_from(n).ok())?,
            })
        })
        .collect()
}

/// Of how many of their actors parties have webhooks on their way.
pub(crate) async fn webhooks_on_their_way(
    c: &mut Connection,
    now: Time,
) -> Result<HashMap<Party, u64>, Error> {
    let rows = sql(concat!(
        "select '' as id, tenant, owner, count(*) as actors from ( \
             select tenant, actor_id, coalesce( \
                 (select a.owner from actors a where a.id = of_actors.actor_id), '') as owner \
             from (select distinct d.tenant, d.actor_id from deliveries d where ",
        on_its_way!(),
        ") of_actors) of_owners group by tenant, owner"
    ))
    .bind(now.micros())
    .fetch_all(c)
    .await
    .map_err(failed("look for events on their way"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "deliveries");
            let count = fields.parsed("actors", |n: i64| u64::try_from(n).ok())?;
            Ok(((fields.get("tenant")?, fields.get("owner")?), count))
        })
        .collect()
}

/// Makes a webhook the caller's until `until`, when it is due again; it counts as
/// tried.
pub(crate) async fn take_webhook(
    c: &mut Connection,
    id: &str,
    until: Time,
) -> Result<Option<EventDelivery>, Error> {
    let row = sql("update deliveries set next_us = $2, attempts = attempts + 1, \
             last_status = null, last_error = null where id = $1 returning *")
    .bind(id)
    .bind(until.micros())
    .fetch_optional(c)
    .await
    .map_err(failed("take an event to deliver"))?;
    row.as_ref().map(read).transpose()
}

/// Counts a try for the webhooks of an actor that are due, without one, where it is
/// the one of number `attempts`. Says how many.
pub(crate) async fn put_off_webhooks(
    c: &mut Connection,
    actor: &ActorId,
    now: Time,
    attempts: u32,
    tried: &Tried,
) -> Result<u64, Error> {
    sql("update deliveries set attempts = $3, next_us = $4, last_status = null, \
             last_error = $5 \
         where actor_id = $1 and kind = 'webhook' and next_us <= $2 and attempts = $3 - 1")
    .bind(actor.as_str())
    .bind(now.micros())
    .bind(i64::from(attempts))
    .bind(tried.next.map(Time::micros))
    .bind(&tried.error)
    .execute(c)
    .await
    .map_err(failed("put off events"))
}

/// How a delivery, or one try of it, came out.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    /// When it arrived.
    pub(crate) delivered: Option<Time>,
    /// When it is tried again.
    pub(crate) next: Option<Time>,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
}

/// Makes a delivery to a linked actor the caller's, once for all. False when it
/// has been another's.
pub(crate) async fn take_link(c: &mut Connection, id: &DeliveryId) -> Result<bool, Error> {
    let taken = sql("update deliveries set next_us = null, attempts = attempts + 1 \
         where id = $1 and next_us is not null")
    .bind(id.as_str())
    .execute(c)
    .await
    .map_err(failed("take the delivery"))?;
    Ok(taken == 1)
}

/// Notes how a try came out, unless another arrived before.
pub(crate) async fn tried(c: &mut Connection, id: &DeliveryId, tried: &Tried) -> Result<(), Error> {
    sql("update deliveries set delivered_us = $2, next_us = $3, last_status = $4, \
             last_error = $5 where id = $1 and delivered_us is null")
    .bind(id.as_str())
    .bind(tried.delivered.map(Time::micros))
    .bind(tried.next.map(Time::micros))
    .bind(tried.status.map(i64::from))
    .bind(&tried.error)
    .execute(c)
    .await
    .map_err(failed("note the delivery"))?;
    Ok(())
}

/// The deliveries of an actor's events, the latest first.
pub(crate) async fn of_actor(
    c: &mut Connection,
    actor: &ActorId,
    limit: i64,
) -> Result<Vec<EventDelivery>, Error> {
    let rows = sql("select * from deliveries where actor_id = $1 \
         order by created_us desc, kind limit $2")
    .bind(actor.as_str())
    .bind(limit)
    .fetch_all(c)
    .await
    .map_err(failed("list the deliveries"))?;
    rows.iter().map(read).collect()
}

/// Deliveries that [`remove_ended`] removes at most.
pub(crate) const REMOVED_AT_ONCE: u64 = 1_000;

/// Removes deliveries of events before `before` that have ended; says how many.
pub(crate) async fn remove_ended(c: &mut Connection, before: Time) -> Result<u64, Error> {
    sql("delete from deliveries where id in \
             (select id from deliveries where next_us is null and created_us < $1 \
              order by created_us limit 1000)")
    .bind(before.micros())
    .execute(c)
    .await
    .map_err(failed("remove old deliveries"))
}

fn read(row: &super::sql::Row) -> Result<EventDelivery, Error> {
    let fields = Fields::of(row, "deliveries");
    let time = |column| Ok::<_, Error>(fields.get::<Option<i64>>(column)?.map(Time::from_micros));
    Ok(EventDelivery {
        id: fields.parsed("id", |text: String| DeliveryId::parse(&text))?,
        tenant: Tenant::new(fields.get::<String>("tenant")?),
        actor: fields.parsed("actor_id", |text: String| ActorId::parse(&text))?,
        event: fields.parsed("event_type", |text: String| EventKind::parse(&text))?,
        kind: fields.parsed("kind", |text: String| EventTarget::parse(&text))?,
        target: fields.get("target")?,
        payload: fields.get("payload")?,
        created: Time::from_micros(fields.get("created_us")?),
        attempts: fields.parsed("attempts", |n: i64| u32::try_from(n).ok())?,
        next: time("next_us")?,
        delivered: time("delivered_us")?,
        last_status: fields.parsed_if_any("last_status", |n: i64| u16::try_from(n).ok())?,
        last_error: fields.get("last_error")?,
    })
}
