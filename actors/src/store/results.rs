//! The table `results`: what executions sent back. A row counts while its epoch
//! is that of its execution.

use std::sync::Arc;

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::ExecutionId;
use crate::results::ResultEntry;

/// Results on their way into the table.
#[derive(Clone)]
pub(crate) struct Batch {
    /// The number of the first; the others follow it.
    pub(crate) first: u64,
    pub(crate) results: Vec<Arc<[u8]>>,
}

/// Adds results of the claim `epoch`, but for those that are there already; false
/// when the claim no longer holds.
pub(crate) async fn append(
    c: &mut Connection,
    execution: &ExecutionId,
    epoch: i64,
    batch: &Batch,
    now: Time,
) -> Result<bool, Error> {
    let held: Option<i64> = sql("select epoch from executions \
         where id = $1 and epoch = $2 and status = 'RUNNING'")
    // The next claim drops what this one leaves, so it must not come in between.
    .on_postgres(
        "select epoch from executions \
         where id = $1 and epoch = $2 and status = 'RUNNING' for no key update",
    )
    .bind(execution.as_str())
    .bind(epoch)
    .optional_scalar(c)
    .await
    .map_err(failed("find the execution"))?;
    if held.is_none() {
        return Ok(false);
    }
    for (number, bytes) in (batch.first..).zip(&batch.results) {
        sql("insert into results (execution_id, number, epoch, bytes, created_us) \
             values ($1, $2, $3, $4, $5) on conflict (execution_id, number) do nothing")
        .bind(execution.as_str())
        .bind(whole(number))
        .bind(epoch)
        .bind(&**bytes)
        .bind(now.micros())
        .execute(c)
        .await
        .map_err(failed("store a result"))?;
    }
    Ok(true)
}

/// The first result of an execution that was not taken, which then counts as
/// taken. Two who ask at once get different ones.
pub(crate) async fn take(
    c: &mut Connection,
    execution: &ExecutionId,
    now: Time,
) -> Result<Option<Vec<u8>>, Error> {
    sql("update results set taken_us = $2 where execution_id = $1 and number = ( \
             select r.number from results r join executions e on e.id = r.execution_id \
             where r.execution_id = $1 and r.epoch = e.epoch and r.taken_us is null \
             order by r.number limit 1) \
         returning bytes")
    .on_postgres(
        "update results set taken_us = $2 where execution_id = $1 and number = ( \
             select r.number from results r join executions e on e.id = r.execution_id \
             where r.execution_id = $1 and r.epoch = e.epoch and r.taken_us is null \
             order by r.number limit 1 for update of r skip locked) \
         returning bytes",
    )
    .bind(execution.as_str())
    .bind(now.micros())
    .optional_scalar(c)
    .await
    .map_err(failed("take a result"))
}

/// Whether a result of an execution was not taken.
pub(crate) async fn has_untaken(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<bool, Error> {
    sql("select exists (select 1 from results r join executions e on e.id = r.execution_id \
             where r.execution_id = $1 and r.epoch = e.epoch and r.taken_us is null)")
    .bind(execution.as_str())
    .scalar(c)
    .await
    .map_err(failed("look for a result"))
}

/// The results of an execution, in the order in which they came.
pub(crate) async fn of_execution(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<Vec<ResultEntry>, Error> {
    let rows = sql("select r.execution_id as id, r.number, length(r.bytes) as size_bytes, \
             r.created_us, r.taken_us \
         from results r join executions e on e.id = r.execution_id \
         where r.execution_id = $1 and r.epoch = e.epoch order by r.number")
    .on_postgres(
        "select r.execution_id as id, r.number, length(r.bytes)::bigint as size_bytes, \
             r.created_us, r.taken_us \
         from results r join executions e on e.id = r.execution_id \
         where r.execution_id = $1 and r.epoch = e.epoch order by r.number",
    )
    .bind(execution.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("list the results"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "results");
            Ok(ResultEntry {
                number: fields.parsed("number", |n: i64| u64::try_from(n).ok())?,
                size_bytes: fields.parsed("size_bytes", |n: i64| u64::try_from(n).ok())?,
                created: Time::from_micros(fields.get("created_us")?),
                taken: fields.get::<Option<i64>>("taken_us")?.is_some(),
            })
        })
        .collect()
}

/// The bytes of one result of an execution.
pub(crate) async fn find(
    c: &mut Connection,
    execution: &ExecutionId,
    number: u64,
) -> Result<Option<Vec<u8>>, Error> {
    sql("select r.bytes from results r join executions e on e.id = r.execution_id \
         where r.execution_id = $1 and r.number = $2 and r.epoch = e.epoch")
    .bind(execution.as_str())
    .bind(whole(number))
    .optional_scalar(c)
    .await
    .map_err(failed("find the result"))
}

/// Drops the results of an execution.
pub(crate) async fn remove(c: &mut Connection, execution: &ExecutionId) -> Result<(), Error> {
    sql("delete from results where execution_id = $1")
        .bind(execution.as_str())
        .execute(c)
        .await
        .map_err(failed("drop the results"))?;
    Ok(())
}

/// Results that one statement drops when they expire.
const EXPIRE_AT_ONCE: u64 = 200;
/// Such statements in a row.
const EXPIRE_BATCHES: usize = 20;

/// Drops results that came before `before`, a bounded number; says how many.
pub(crate) async fn remove_expired(c: &mut Connection, before: Time) -> Result<u64, Error> {
    let mut removed = 0;
    for _ in 0..EXPIRE_BATCHES {
        let batch = sql("delete from results where (execution_id, number) in \
                 (select execution_id, number from results where created_us < $1 \
                  order by created_us limit 200)")
        .bind(before.micros())
        .execute(c)
        .await
        .map_err(failed("expire results"))?;
        removed += batch;
        if batch < EXPIRE_AT_ONCE {
            break;
        }
    }
    Ok(removed)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
