//! The columns of `actors` that hold schedules.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::cron::Cron;
use crate::error::Error;
use crate::id::ActorId;

/// Writes the schedule of an actor.
pub(crate) async fn set(c: &mut Connection, id: &ActorId, cron: &Cron) -> Result<(), Error> {
    sql("update actors set cron_schedule = $2, cron_on = $3, cron_start_us = $4, \
             cron_next_us = $5 where id = $1")
    .bind(id.as_str())
    .bind(&cron.schedule)
    .bind(cron.on)
    .bind(cron.start.map(Time::micros))
    .bind(cron.next.map(Time::micros))
    .execute(c)
    .await
    .map_err(failed("keep the schedule"))?;
    Ok(())
}

pub(super) fn read(fields: &Fields<'_>) -> Result<Cron, Error> {
    let time = |column| Ok::<_, Error>(fields.get::<Option<i64>>(column)?.map(Time::from_micros));
    Ok(Cron {
        schedule: fields.get("cron_schedule")?,
        on: fields.get("cron_on")?,
        next: time("cron_next_us")?,
        start: time("cron_start_us")?,
    })
}

/// Actors whose next time has come, the longest due first; no more than `limit`.
pub(crate) async fn due(c: &mut Connection, now: Time, limit: i64) -> Result<Vec<ActorId>, Error> {
    let rows = sql("select id from actors where cron_next_us <= $1 \
         order by cron_next_us limit $2")
    .bind(now.micros())
    .bind(limit)
    .fetch_all(c)
    .await
    .map_err(failed("look for schedules that are due"))?;
    rows.iter()
        .map(|row| Fields::of(row, "actors").parsed("id", |text: String| ActorId::parse(&text)))
        .collect()
}
