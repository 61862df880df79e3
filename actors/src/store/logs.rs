//! The table `log_chunks`: output in the pieces in which it came.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::ExecutionId;

/// Output on its way into the log.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// How much output of the attempt came before.
    pub(crate) position: u64,
    pub(crate) bytes: &'a [u8],
    /// Whether something that came before now was dropped.
    pub(crate) truncated: bool,
}

/// Appends output of the claim `epoch`, as far as the limit allows, and but for
/// what the log has already; false when the claim no longer holds.
pub(crate) async fn append(
    c: &mut Connection,
    execution: &ExecutionId,
    epoch: i64,
    piece: Piece<'_>,
    limit_bytes: u64,
) -> Result<bool, Error> {
    let row = sql("select id, log_bytes, log_truncated from executions \
         where id = $1 and epoch = $2 and status = 'RUNNING'")
    // Who appends meanwhile does so behind it.
    .on_postgres(
        "select id, log_bytes, log_truncated from executions \
         where id = $1 and epoch = $2 and status = 'RUNNING' for no key update",
    )
    .bind(execution.as_str())
    .bind(epoch)
    .fetch_optional(c)
    .await
    .map_err(failed("find the log"))?;
    let Some(row) = row else { return Ok(false) };
    let fields = Fields::of(&row, "executions");
    let position: i64 = fields.get("log_bytes")?;
    let already_truncated: bool = fields.get("log_truncated")?;
    // What was appended by a call whose answer got lost comes again.
    let known = u64::try_from(position).unwrap_or(0).saturating_sub(piece.position);
    let known = usize::try_from(known).unwrap_or(usize::MAX).min(piece.bytes.len());
    let (bytes, truncated) = (&piece.bytes[known..], piece.truncated);
    let room = if already_truncated {
        // Nothing follows a cut.
        0
    } else {
        usize::try_from(limit_bytes.saturating_sub(u64::try_from(position).unwrap_or(0)))
            .unwrap_or(usize::MAX)
    };
    let kept = cut(bytes, room);
    let truncated = truncated || kept.len() < bytes.len();
    if !kept.is_empty() {
        sql("insert into log_chunks (execution_id, position, bytes) values ($1, $2, $3)")
            .bind(execution.as_str())
            .bind(position)
            .bind(kept)
            .execute(c)
            .await
            .map_err(failed("append to the log"))?;
    }
    if !kept.is_empty() || (truncated && !already_truncated) {
        sql("update executions set log_bytes = log_bytes + $2, \
                 log_truncated = log_truncated or $3 where id = $1")
        .bind(execution.as_str())
        .bind(i64::try_from(kept.len()).unwrap_or(i64::MAX))
        .bind(truncated)
        .execute(c)
        .await
        .map_err(failed("append to the log"))?;
    }
    Ok(true)
}

/// At most `room` bytes, and no part of a character at the end.
fn cut(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let mut end = room;
    // A character of UTF-8 has at most three bytes after its first.
    while end > 0 && room - end < 3 && bytes[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &bytes[..end]
}

/// The output from `position` on.
pub(crate) async fn from(
    c: &mut Connection,
    execution: &ExecutionId,
    position: u64,
) -> Result<Vec<u8>, Error> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    // The chunk that holds the position may begin before it.
    let chunks = sql(
        "select execution_id as id, position, bytes from log_chunks where execution_id = $1 and position >= coalesce( \
             (select max(position) from log_chunks where execution_id = $1 and position <= $2), 0) \
         order by position",
    )
    .bind(execution.as_str())
    .bind(position)
    .fetch_all(c)
    .await
    .map_err(failed("read the log"))?;
    let mut log = Vec::new();
    for row in chunks {
        let fields = Fields::of(&row, "log_chunks");
        let start: i64 = fields.get("position")?;
        let bytes: Vec<u8> = fields.get("bytes")?;
        let skip = usize::try_from(position.saturating_sub(start)).unwrap_or(0).min(bytes.len());
        log.extend_from_slice(&bytes[skip..]);
    }
    Ok(log)
}

/// Drops the output of an execution.
pub(crate) async fn remove(c: &mut Connection, execution: &ExecutionId) -> Result<(), Error> {
    sql("delete from log_chunks where execution_id = $1")
        .bind(execution.as_str())
        .execute(c)
        .await
        .map_err(failed("drop the log"))?;
    Ok(())
}

/// Logs that one statement drops when they expire.
const EXPIRE_AT_ONCE: u64 = 200;
/// Such statements in a row.
const EXPIRE_BATCHES: usize = 20;

/// Drops logs that expired, a bounded number; says of how many executions.
pub(crate) async fn remove_expired(c: &mut Connection, now: Time) -> Result<u64, Error> {
    let mut removed = 0;
    for _ in 0..EXPIRE_BATCHES {
        let batch = remove_batch_of_expired(c, now).await?;
        removed += batch;
        if batch < EXPIRE_AT_ONCE {
            break;
        }
    }
    Ok(removed)
}

async fn remove_batch_of_expired(c: &mut Connection, now: Time) -> Result<u64, Error> {
    sql("delete from log_chunks where execution_id in \
             (select id from executions where log_expires_us < $1 \
              order by log_expires_us limit 200)")
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("expire logs"))?;
    // One that came in between is left with its output for the next time.
    sql("update executions set log_expires_us = null, log_bytes = 0, log_truncated = false \
         where sequence in (select sequence from executions where log_expires_us < $1 \
                            order by log_expires_us limit 200) \
         and not exists (select 1 from log_chunks l where l.execution_id = executions.id)")
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("expire logs"))
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_cut_leaves_whole_characters() {
        for (text, room, kept) in
            [("abc", 5, "abc"), ("abc", 2, "ab"), ("aé", 2, "a"), ("a😀", 4, "a"), ("é", 0, "")]
        {
            assert_eq!(cut(text.as_bytes(), room), kept.as_bytes(), "{text} {room}");
        }
        assert_eq!(cut(&[0x80; 10], 8), &[0x80; 5], "what is not UTF-8 loses three bytes at most");
    }
}
