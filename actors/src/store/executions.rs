//! The table `executions`. Statuses change through conditional updates, whose
//! row counts tell lost races.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sql::Row;
use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::execution::{
    Execution, ExecutionStatus, ExecutionsPage, Finish, Outcome, Phase, Phases, Usage,
};
use crate::id::{ActorId, ExecutionId, HostId, WorkerId};
use crate::json::Json;

/// An execution and what only the service knows of it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) execution: Execution,
    pub(crate) epoch: i64,
    pub(crate) sequence: i64,
    pub(crate) lease_until: Option<Time>,
    pub(crate) log_truncated: bool,
    pub(crate) log_expires: Option<Time>,
}

pub(crate) async fn find(c: &mut Connection, id: &ExecutionId) -> Result<Option<Stored>, Error> {
    let row = sql("select * from executions where id = $1")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("find the execution"))?;
    row.map(|row| read(&Fields::of(&row, "executions"))).transpose()
}

/// As [`find`], and nobody else changes the row until this transaction ends.
pub(crate) async fn lock(c: &mut Connection, id: &ExecutionId) -> Result<Option<Stored>, Error> {
    let row = sql("select * from executions where id = $1")
        .on_postgres("select * from executions where id = $1 for no key update")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("find the execution"))?;
    row.map(|row| read(&Fields::of(&row, "executions"))).transpose()
}

/// The host that has claimed an execution.
pub(crate) async fn host_of(c: &mut Connection, id: &ExecutionId) -> Result<Option<HostId>, Error> {
    let host: Option<Option<String>> = sql("select host_id from executions where id = $1")
        .bind(id.as_str())
        .optional_scalar(c)
        .await
        .map_err(failed("find the host"))?;
    Ok(host.flatten().as_deref().and_then(HostId::parse))
}

/// Whether the last `count` executions of an actor at `revision` that ended after
/// a host had claimed them all could not start.
pub(crate) async fn nothing_starts(
    c: &mut Connection,
    actor: &ActorId,
    revision: i64,
    count: i64,
) -> Result<bool, Error> {
    let last: i64 = sql("select count(*) from \
             (select outcome from executions where actor_id = $1 and claimed_revision = $2 \
              and status in ('COMPLETE', 'ERROR') order by sequence desc limit $3) as last \
         where outcome = 'could_not_start'")
    .bind(actor.as_str())
    .bind(revision)
    .bind(count)
    .scalar(c)
    .await
    .map_err(failed("look at the last executions"))?;
    Ok(last >= count)
}

/// A page of the executions of an actor.
pub(crate) async fn of_actor(
    c: &mut Connection,
    actor: &ActorId,
    page: ExecutionsPage,
) -> Result<Vec<Execution>, Error> {
    let text = match page.newest_first {
        false => {
            "select * from executions where actor_id = $1 order by sequence limit $2 offset $3"
        }
        true => {
            "select * from executions where actor_id = $1 order by sequence desc \
             limit $2 offset $3"
        }
    };
    let rows = sql(text)
        .bind(actor.as_str())
        .bind(i64::from(page.limit))
        .bind(whole(page.skip))
        .fetch_all(c)
        .await
        .map_err(failed("list the executions"))?;
    rows.iter().map(|row| Ok(read(&Fields::of(row, "executions"))?.execution)).collect()
}

/// What executions come to.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) executions: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) io_bytes: u64,
    pub(crate) runtime_us: u64,
    /// Of the whole seconds of each.
    pub(crate) runtime_seconds: u64,
}

/// What all executions of an actor come to.
pub(crate) async fn totals_of_actor(c: &mut Connection, actor: &ActorId) -> Result<Totals, Error> {
    // Sums are of another type on PostgreSQL.
    let rows = sql("select 'all of them' as id, count(*) as executions, \
             cast(coalesce(sum(cpu_ns), 0) as bigint) as cpu_ns, \
             cast(coalesce(sum(io_bytes), 0) as bigint) as io_bytes, \
             cast(coalesce(sum(runtime_us), 0) as bigint) as runtime_us, \
             cast(coalesce(sum(runtime_us / 1000000), 0) as bigint) as runtime_seconds \
         from executions where actor_id = $1")
    .bind(actor.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("add up the executions"))?;
    let fields = Fields::of(&rows[0], "executions");
    let number = |column| fields.parsed(column, |n: i64| u64::try_from(n).ok());
    Ok(Totals {
        executions: number("executions")?,
        cpu_ns: number("cpu_ns")?,
        io_bytes: number("io_bytes")?,
        runtime_us: number("runtime_us")?,
        runtime_seconds: number("runtime_seconds")?,
    })
}

pub(crate) async fn count_running(c: &mut Connection, actor: &ActorId) -> Result<u64, Error> {
    let count: i64 =
        sql("select count(*) from executions where actor_id = $1 and status = 'RUNNING'")
            .bind(actor.as_str())
            .scalar(c)
            .await
            .map_err(failed("count the running executions"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Whether an execution of the actor that was accepted earlier has not ended.
pub(crate) async fn has_earlier_open(
    c: &mut Connection,
    actor: &ActorId,
    sequence: i64,
) -> Result<bool, Error> {
    sql("select exists (select 1 from executions where actor_id = $1 \
                        and status = 'SUBMITTED' and sequence < $2) \
             or exists (select 1 from executions where actor_id = $1 \
                        and status = 'RUNNING' and sequence < $2)")
    .bind(actor.as_str())
    .bind(sequence)
    .scalar(c)
    .await
    .map_err(failed("look for earlier executions"))
}

/// What a claim writes.
pub(crate) struct NewClaim<'a> {
    /// The epoch that the row has now.
    pub(crate) epoch: i64,
    pub(crate) host: &'a HostId,
    pub(crate) worker: &'a WorkerId,
    /// The actor's revision, which decides the image.
    pub(crate) revision: i64,
    pub(crate) now: Time,
    pub(crate) lease: Lease,
}

/// How long a host has an execution: counted by the clock of the database where it
/// has one, which is the same for all hosts at every moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) lasts: Duration,
    /// The moment, where the database has no clock.
    pub(crate) from: Time,
    /// The moment by the clock of a test, which counts instead of all others.
    pub(crate) standing: Option<Time>,
}

impl Lease {
    /// The moment that it is counted from; none where that is the server's to say.
    fn from(self, c: &Connection) -> Option<i64> {
        match c {
            Connection::Sqlite(_) => Some(self.from.micros()),
            Connection::Postgres(_) => self.standing.map(Time::micros),
        }
    }

    fn lasts(self) -> i64 {
        i64::try_from(self.lasts.as_micros()).unwrap_or(i64::MAX)
    }
}

/// The time by the clock of the server, as a statement begins.
macro_rules! now_on_postgres {
    () => {
        "(extract(epoch from statement_timestamp()) * 1000000)::bigint"
    };
}

/// Makes a waiting execution a host's, under the next epoch and attempt.
pub(crate) async fn claim(
    c: &mut Connection,
    id: &ExecutionId,
    claim: &NewClaim<'_>,
) -> Result<bool, Error> {
    macro_rules! text {
        ($until:expr) => {
            concat!(
                "update executions set status = 'RUNNING', epoch = epoch + 1, \
                     attempt = attempt + 1, host_id = $3, worker_id = $4, \
                     claimed_revision = $5, claimed_us = $6, image_ready_us = null, \
                     created_us = null, started_us = null, first_output_us = null, \
                     exited_us = null, log_bytes = 0, log_truncated = false, \
                     staged_state = null, lease_until_us = ",
                $until,
                " where id = $1 and epoch = $2 and status = 'SUBMITTED'"
            )
        };
    }
    let done = sql(text!("$7 + $8"))
        .on_postgres(text!(concat!("coalesce($7, ", now_on_postgres!(), ") + $8")))
        .bind(id.as_str())
        .bind(claim.epoch)
        .bind(claim.host.as_str())
        .bind(claim.worker.as_str())
        .bind(claim.revision)
        .bind(claim.now.micros())
        .bind(claim.lease.from(c))
        .bind(claim.lease.lasts())
        .execute(c)
        .await
        .map_err(failed("claim the execution"))?;
    Ok(done == 1)
}

/// Prolongs a lease; says whether it was still the host's, and whether a halt
/// is asked for.
pub(crate) async fn renew(
    c: &mut Connection,
    id: &ExecutionId,
    epoch: i64,
    host: &HostId,
    lease: Lease,
) -> Result<Option<bool>, Error> {
    macro_rules! text {
        ($until:expr) => {
            concat!(
                "update executions set lease_until_us = ",
                $until,
                " where id = $1 and epoch = $2 and host_id = $3 and status = 'RUNNING' \
                 returning halt_requested_us"
            )
        };
    }
    let halt: Option<Option<i64>> = sql(text!("$4 + $5"))
        .on_postgres(text!(concat!("coalesce($4, ", now_on_postgres!(), ") + $5")))
        .bind(id.as_str())
        .bind(epoch)
        .bind(host.as_str())
        .bind(lease.from(c))
        .bind(lease.lasts())
        .optional_scalar(c)
        .await
        .map_err(failed("renew the lease"))?;
    Ok(halt.map(|halt| halt.is_some()))
}

pub(crate) async fn record_phase(
    c: &mut Connection,
    id: &ExecutionId,
    epoch: i64,
    phase: Phase,
    at: Time,
) -> Result<bool, Error> {
    // A phase is noted once.
    let text = match phase {
        Phase::ImageReady => {
            "update executions set image_ready_us = coalesce(image_ready_us, $3) \
             where id = $1 and epoch = $2 and status = 'RUNNING'"
        }
        Phase::Created => {
            "update executions set created_us = coalesce(created_us, $3) \
             where id = $1 and epoch = $2 and status = 'RUNNING'"
        }
        Phase::Started => {
            "update executions set started_us = coalesce(started_us, $3) \
             where id = $1 and epoch = $2 and status = 'RUNNING'"
        }
        Phase::FirstOutput => {
            "update executions set first_output_us = coalesce(first_output_us, $3) \
             where id = $1 and epoch = $2 and status = 'RUNNING'"
        }
        Phase::Exited => {
            "update executions set exited_us = coalesce(exited_us, $3) \
             where id = $1 and epoch = $2 and status = 'RUNNING'"
        }
        // The service notes these itself.
        Phase::Accepted | Phase::Queued | Phase::Claimed | Phase::Stored => return Ok(true),
    };
    let done = sql(text)
        .bind(id.as_str())
        .bind(epoch)
        .bind(at.micros())
        .execute(c)
        .await
        .map_err(failed("record a phase"))?;
    Ok(done == 1)
}

/// Ends a claimed execution, if the claim still holds.
pub(crate) async fn finish(
    c: &mut Connection,
    id: &ExecutionId,
    epoch: i64,
    finish: &Finish,
    now: Time,
    log_expires: Option<Time>,
) -> Result<bool, Error> {
    let phase = |phase| finish.phases.at(phase).map(Time::micros);
    // The host's own times count: what was noted before was noted late.
    let done =
        sql("update executions set status = $3, outcome = $4, reason = $5, exit_code = $6, \
             final_state = $7, cpu_ns = $8, io_bytes = $9, runtime_us = $10, \
             peak_memory_bytes = $11, image_ready_us = coalesce($12, image_ready_us), \
             created_us = coalesce($13, created_us), started_us = coalesce($14, started_us), \
             first_output_us = coalesce($15, first_output_us), \
             exited_us = coalesce($16, exited_us), stored_us = $17, log_expires_us = $18, \
             lease_until_us = null, staged_state = null \
         where id = $1 and epoch = $2 and status = 'RUNNING'")
        .bind(id.as_str())
        .bind(epoch)
        .bind(finish.outcome.status().as_str())
        .bind(finish.outcome.as_str())
        .bind((!finish.reason.is_empty()).then(|| printable(&finish.reason)))
        .bind(finish.exit_code.map(i64::from))
        .bind(finish.final_state.as_ref().map(Json::as_str))
        .bind(whole(finish.usage.cpu_ns))
        .bind(whole(finish.usage.io_bytes))
        .bind(i64::try_from(finish.usage.runtime.as_micros()).unwrap_or(i64::MAX))
        .bind(finish.usage.peak_memory_bytes.map(whole))
        .bind(phase(Phase::ImageReady))
        .bind(phase(Phase::Created))
        .bind(phase(Phase::Started))
        .bind(phase(Phase::FirstOutput))
        .bind(phase(Phase::Exited))
        .bind(now.micros())
        .bind(log_expires.map(Time::micros))
        .execute(c)
        .await
        .map_err(failed("finish the execution"))?;
    Ok(done == 1)
}

/// What becomes of the attempt number of an execution that goes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It counts.
    Spent,
    /// It does not: the host stops, or could not even begin.
    Kept,
}

/// Puts a claimed execution back among the waiting, if the claim still holds;
/// it may run again from `visible` on.
pub(crate) async fn give_back(
    c: &mut Connection,
    id: &ExecutionId,
    epoch: i64,
    attempt: Attempt,
    now: Time,
    visible: Time,
) -> Result<bool, Error> {
    let done = sql(
        "update executions set status = 'SUBMITTED', attempt = attempt - $3, queued_us = $4, \
             visible_us = $5, lease_until_us = null, host_id = null, worker_id = null, claimed_us = null, \
             image_ready_us = null, created_us = null, started_us = null, \
             first_output_us = null, exited_us = null, staged_state = null \
         where id = $1 and epoch = $2 and status = 'RUNNING'",
    )
    .bind(id.as_str())
    .bind(epoch)
    .bind(i64::from(attempt == Attempt::Kept))
    .bind(now.micros())
    .bind(visible.micros())
    .execute(c)
    .await
    .map_err(failed("give the execution back"))?;
    Ok(done == 1)
}

/// Ends a waiting execution that will not run.
pub(crate) async fn cancel_waiting(
    c: &mut Connection,
    id: &ExecutionId,
    outcome: Outcome,
    reason: &str,
    now: Time,
) -> Result<bool, Error> {
    let done =
        sql("update executions set status = 'ERROR', outcome = $2, reason = $3, stored_us = $4 \
         where id = $1 and status = 'SUBMITTED'")
        .bind(id.as_str())
        .bind(outcome.as_str())
        .bind(reason)
        .bind(now.micros())
        .execute(c)
        .await
        .map_err(failed("cancel the execution"))?;
    Ok(done == 1)
}

/// Where the last execution of an actor that waits stands; none where none does.
pub(crate) async fn last_waiting(
    c: &mut Connection,
    actor: &ActorId,
) -> Result<Option<i64>, Error> {
    sql("select sequence from executions where actor_id = $1 and status = 'SUBMITTED' \
         order by sequence desc limit 1")
    .bind(actor.as_str())
    .optional_scalar(c)
    .await
    .map_err(failed("look for waiting executions"))
}

/// Ends 5,000 executions of an actor at most that wait no further behind than
/// `last`, the oldest first; says how many. Those that are claimed in this moment
/// are not counted, and more may be left.
pub(crate) async fn cancel_waiting_of_actor(
    c: &mut Connection,
    actor: &ActorId,
    last: i64,
    reason: &str,
    now: Time,
) -> Result<u64, Error> {
    sql("update executions set status = 'ERROR', outcome = 'cancelled', reason = $2, \
             stored_us = $3 where status = 'SUBMITTED' and sequence in \
             (select sequence from executions where actor_id = $1 and status = 'SUBMITTED' \
              and sequence <= $4 order by sequence limit 5000)")
    .bind(actor.as_str())
    .bind(reason)
    .bind(now.micros())
    .bind(last)
    .execute(c)
    .await
    .map_err(failed("cancel the waiting executions"))
}

pub(crate) async fn request_halt(
    c: &mut Connection,
    id: &ExecutionId,
    now: Time,
) -> Result<bool, Error> {
    let done = sql("update executions set halt_requested_us = coalesce(halt_requested_us, $2) \
         where id = $1 and status = 'RUNNING'")
    .bind(id.as_str())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("halt the execution"))?;
    Ok(done == 1)
}

/// Asks what runs of an actor to end; says which.
pub(crate) async fn request_halt_of_actor(
    c: &mut Connection,
    actor: &ActorId,
    now: Time,
) -> Result<Vec<ExecutionId>, Error> {
    let ids: Vec<String> =
        sql("update executions set halt_requested_us = coalesce(halt_requested_us, $2) \
         where actor_id = $1 and status = 'RUNNING' returning id")
        .bind(actor.as_str())
        .bind(now.micros())
        .scalars(c)
        .await
        .map_err(failed("halt the actor's executions"))?;
    read_ids(ids)
}

/// Running executions whose lease ended before `before`, those that nobody else
/// looks after in this moment. On a server they ended by its clock as well, unless
/// that of a test is `standing`: a process whose own clock is wrong ends nobody's.
pub(crate) async fn with_expired_lease(
    c: &mut Connection,
    before: Time,
    standing: Option<Time>,
) -> Result<Vec<Stored>, Error> {
    let rows = sql("select * from executions where status = 'RUNNING' \
             and lease_until_us < min($1, coalesce($2, $1)) \
         order by lease_until_us limit 1000")
    .on_postgres(concat!(
        "select * from executions where status = 'RUNNING' \
             and lease_until_us < least($1::bigint, coalesce($2, ",
        now_on_postgres!(),
        ")) order by lease_until_us limit 1000 for no key update skip locked",
    ))
    .bind(before.micros())
    .bind(standing.map(Time::micros))
    .fetch_all(c)
    .await
    .map_err(failed("look for ended leases"))?;
    rows.iter().map(|row| read(&Fields::of(row, "executions"))).collect()
}

/// What a process runs.
pub(crate) async fn of_host(c: &mut Connection, host: &HostId) -> Result<Vec<Stored>, Error> {
    let rows = sql("select * from executions where status = 'RUNNING' and host_id = $1")
        .bind(host.as_str())
        .fetch_all(c)
        .await
        .map_err(failed("look for executions of a host"))?;
    rows.iter().map(|row| read(&Fields::of(row, "executions"))).collect()
}

/// Executions that [`remove_ended`] and [`remove_of_deleted`] remove at most.
pub(crate) const REMOVED_AT_ONCE: u64 = 500;

/// Removes executions that ended before `before`, with all that is theirs, the
/// oldest first; says how many. The limit stands in the text: a plan for any
/// limit would read the whole table.
pub(crate) async fn remove_ended(c: &mut Connection, before: Time) -> Result<u64, Error> {
    let removed = sql("delete from executions where sequence in \
             (select sequence from executions \
              where status in ('COMPLETE', 'ERROR') and stored_us < $1 \
              order by stored_us limit 500) \
         returning id, status, actor_id, runtime_us, cpu_ns, io_bytes")
    .bind(before.micros())
    .fetch_all(c)
    .await
    .map_err(failed("remove old executions"))?;
    count_removed(c, &removed).await?;
    Ok(removed.len() as u64)
}

/// Removes executions of actors that are being deleted, but for those that run,
/// with all that is theirs; of `only` one actor, or of all. Says how many, and how
/// many of them had waited.
pub(crate) async fn remove_of_deleted(
    c: &mut Connection,
    only: Option<&ActorId>,
) -> Result<(u64, u64), Error> {
    let removed = sql("delete from executions where sequence in \
             (select e.sequence from actors a join executions e on e.actor_id = a.id \
              where a.status = 'SHUTTING_DOWN' and ($1 is null or a.id = $1) \
              and e.status <> 'RUNNING' limit 500) \
         returning id, status, actor_id, runtime_us, cpu_ns, io_bytes")
    .bind(only.map(ActorId::as_str))
    .fetch_all(c)
    .await
    .map_err(failed("remove executions of deleted actors"))?;
    let waited = count_removed(c, &removed).await?;
    Ok((removed.len() as u64, waited))
}

/// Adds what was removed to the totals; says how many had waited.
async fn count_removed(c: &mut Connection, removed: &[Row]) -> Result<u64, Error> {
    let mut gone: BTreeMap<String, Totals> = BTreeMap::new();
    let mut waited = 0;
    for row in removed {
        let fields = Fields::of(row, "executions");
        let number = |column| fields.parsed(column, |n: i64| u64::try_from(n).ok());
        let status: String = fields.get("status")?;
        waited += u64::from(status == "SUBMITTED");
        let totals = gone.entry(fields.get("actor_id")?).or_default();
        totals.executions += 1;
        totals.cpu_ns += number("cpu_ns")?;
        totals.io_bytes += number("io_bytes")?;
        totals.runtime_us += number("runtime_us")?;
    }
    super::statistics::add_executions(c, gone).await?;
    Ok(waited)
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What a container or a registry said, without the characters that no database
/// can store.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn read_ids(ids: Vec<String>) -> Result<Vec<ExecutionId>, Error> {
    ids.into_iter()
        .map(|id| {
            ExecutionId::parse(&id).ok_or_else(|| Error::Inconsistent {
                table: "executions",
                column: "id".to_owned(),
                row: id,
            })
        })
        .collect()
}

pub(super) fn read(fields: &Fields<'_>) -> Result<Stored, Error> {
    let mut phases = Phases::default();
    for (phase, column) in [
        (Phase::Accepted, "accepted_us"),
        (Phase::Queued, "queued_us"),
        (Phase::Claimed, "claimed_us"),
        (Phase::ImageReady, "image_ready_us"),
        (Phase::Created, "created_us"),
        (Phase::Started, "started_us"),
        (Phase::FirstOutput, "first_output_us"),
        (Phase::Exited, "exited_us"),
        (Phase::Stored, "stored_us"),
    ] {
        if let Some(micros) = fields.get::<Option<i64>>(column)? {
            phases.set(phase, Time::from_micros(micros));
        }
    }
    let whole = |n: i64| u64::try_from(n).ok();
    let id = |column| fields.parsed_if_any(column, |n: i64| u32::try_from(n).ok());
    let execution = Execution {
        id: fields.parsed("id", |text: String| ExecutionId::parse(&text))?,
        actor: fields.parsed("actor_id", |text: String| ActorId::parse(&text))?,
        executor: fields.get("executor")?,
        executor_user: match (id("executor_uid")?, id("executor_gid")?) {
            (Some(uid), Some(gid)) => Some((uid, gid)),
            _ => None,
        },
        status: fields.parsed("status", |text: String| ExecutionStatus::parse(&text))?,
        outcome: fields.parsed_if_any("outcome", |text: String| Outcome::parse(&text))?,
        reason: fields.get("reason")?,
        attempt: fields.parsed("attempt", |n: i64| u32::try_from(n).ok())?,
        actor_revision: fields.get("actor_revision")?,
        worker: fields.parsed_if_any("worker_id", |text: String| WorkerId::parse(&text))?,
        phases,
        exit_code: fields.parsed_if_any("exit_code", |n: i64| i32::try_from(n).ok())?,
        final_state: fields.parsed_if_any("final_state", |text: String| Json::parse(&text).ok())?,
        usage: Usage {
            cpu_ns: fields.parsed("cpu_ns", whole)?,
            io_bytes: fields.parsed("io_bytes", whole)?,
            runtime: Duration::from_micros(fields.parsed("runtime_us", whole)?),
            peak_memory_bytes: fields.parsed_if_any("peak_memory_bytes", whole)?,
        },
        halt_requested: fields.get::<Option<i64>>("halt_requested_us")?.is_some(),
    };
    Ok(Stored {
        execution,
        epoch: fields.get("epoch")?,
        sequence: fields.get("sequence")?,
        lease_until: fields.get::<Option<i64>>("lease_until_us")?.map(Time::from_micros),
        log_truncated: fields.get("log_truncated")?,
        log_expires: fields.get::<Option<i64>>("log_expires_us")?.map(Time::from_micros),
    })
}
