//! The table `jobs`: what one process at a time does, and when it is due.

use std::collections::HashMap;

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;

/// Makes a job that is due by `now` this process's to do, and due again at
/// `next`. False where it is not due, so where another process has it. What is due
/// after `latest` is due now: it was noted before the clock was set back.
pub(crate) async fn take(
    c: &mut Connection,
    name: &str,
    now: Time,
    next: Time,
    latest: Time,
) -> Result<bool, Error> {
    let taken = sql("insert into jobs (name, next_us) values ($1, $3) \
         on conflict (name) do update set next_us = excluded.next_us \
         where jobs.next_us <= $2 or jobs.next_us > $4")
    .bind(name)
    .bind(now.micros())
    .bind(next.micros())
    .bind(latest.micros())
    .execute(c)
    .await
    .map_err(failed("take a job"))?;
    Ok(taken == 1)
}

/// When each job is due that was ever done.
pub(crate) async fn due(c: &mut Connection) -> Result<HashMap<String, Time>, Error> {
    let rows = sql("select name as id, next_us from jobs")
        .fetch_all(c)
        .await
        .map_err(failed("look for jobs"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "jobs");
            Ok((fields.get("id")?, Time::from_micros(fields.get("next_us")?)))
        })
        .collect()
}
