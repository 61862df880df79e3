//! Numbers about all that there is, and all that there was: what is gone is in the
//! table `totals`.

use std::collections::BTreeMap;

use super::executions::Totals;
use super::{Connection, Fields, failed, sql, workers};
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::Tenant;
use crate::worker::Worker;

/// How many there are, in all tenants.
pub(crate) struct Counts {
    pub(crate) actors: u64,
    pub(crate) actors_gone: u64,
    pub(crate) workers: u64,
    pub(crate) waiting: u64,
}

/// An actor, and what its executions add up to.
pub(crate) struct Sums {
    pub(crate) actor: ActorId,
    pub(crate) owner: String,
    pub(crate) image: String,
    /// What its texts have.
    pub(crate) bytes: usize,
    pub(crate) waiting: u64,
    pub(crate) executions: u64,
    pub(crate) runtime_us: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) io_bytes: u64,
}

/// What is gone had together.
#[derive(Default)]
pub(crate) struct Gone {
    pub(crate) actors: u64,
    pub(crate) actors_with_executions: u64,
    pub(crate) executions: u64,
    pub(crate) runtime_us: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) io_bytes: u64,
}

/// Counts everything; `queue` is the class whose waiting executions count.
pub(crate) async fn counts(c: &mut Connection, queue: &str) -> Result<Counts, Error> {
    let row = sql("select '' as id, (select count(*) from actors) as actors, \
             (select cast(coalesce(sum(actors), 0) as bigint) from totals) as actors_gone, \
             (select count(*) from workers) as workers, \
             (select count(*) from executions e join actors a on a.id = e.actor_id \
              where e.status = 'SUBMITTED' and a.queue = $1) as waiting")
    .bind(queue)
    .fetch_optional(c)
    .await
    .map_err(failed("count what there is"))?
    .ok_or_else(|| failed("count what there is")(sqlx::Error::RowNotFound))?;
    let fields = Fields::of(&row, "totals");
    Ok(Counts {
        actors: whole(&fields, "actors")?,
        actors_gone: whole(&fields, "actors_gone")?,
        workers: whole(&fields, "workers")?,
        waiting: whole(&fields, "waiting")?,
    })
}

/// The actors of a tenant, oldest first.
pub(crate) async fn actors(c: &mut Connection, tenant: &Tenant) -> Result<Vec<Sums>, Error> {
    let rows = sql("select a.id, a.owner, a.image, \
             cast(octet_length(a.description) + octet_length(a.hints) \
                 + octet_length(a.default_environment) + octet_length(a.state) as bigint) as bytes, \
             coalesce(s.waiting, 0) as waiting, \
             coalesce(s.executions, 0) as executions, coalesce(s.runtime, 0) as runtime, \
             coalesce(s.cpu, 0) as cpu, coalesce(s.io, 0) as io \
         from actors a left join ( \
             select e.actor_id, count(*) as executions, \
                 cast(sum(case when e.status = 'SUBMITTED' then 1 else 0 end) as bigint) as waiting, \
                 cast(sum(e.runtime_us) as bigint) as runtime, \
                 cast(sum(e.cpu_ns) as bigint) as cpu, cast(sum(e.io_bytes) as bigint) as io \
             from executions e where e.actor_id in (select id from actors where tenant = $1) \
             group by e.actor_id) s on s.actor_id = a.id \
         where a.tenant = $1 order by a.created_us, a.id")
    .bind(tenant.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("add up what actors did"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            Ok(Sums {
                actor: fields.parsed("id", |text: String| ActorId::parse(&text))?,
                owner: fields.get("owner")?,
                image: fields.get("image")?,
                bytes: usize::try_from(fields.get::<i64>("bytes")?).unwrap_or(usize::MAX),
                waiting: whole(&fields, "waiting")?,
                executions: whole(&fields, "executions")?,
                runtime_us: whole(&fields, "runtime")?,
                cpu_ns: whole(&fields, "cpu")?,
                io_bytes: whole(&fields, "io")?,
            })
        })
        .collect()
}

/// The workers of a tenant's actors, oldest first.
pub(crate) async fn workers(c: &mut Connection, tenant: &Tenant) -> Result<Vec<Worker>, Error> {
    let rows = sql("select w.*, h.seen_us, h.address \
         from workers w join actors a on a.id = w.actor_id \
         left join hosts h on h.id = w.host_id where a.tenant = $1 order by w.created_us, w.id")
    .bind(tenant.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("list the workers"))?;
    rows.iter().map(|row| workers::read(&Fields::of(row, "workers"))).collect()
}

/// What is gone of a tenant.
pub(crate) async fn gone(c: &mut Connection, tenant: &Tenant) -> Result<Gone, Error> {
    let row = sql("select tenant as id, totals.* from totals where tenant = $1")
        .bind(tenant.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("look at what is gone"))?;
    let Some(row) = row else { return Ok(Gone::default()) };
    let fields = Fields::of(&row, "totals");
    Ok(Gone {
        actors: whole(&fields, "actors")?,
        actors_with_executions: whole(&fields, "actors_with_executions")?,
        executions: whole(&fields, "executions")?,
        runtime_us: whole(&fields, "runtime_us")?,
        cpu_ns: whole(&fields, "cpu_ns")?,
        io_bytes: whole(&fields, "io_bytes")?,
    })
}

/// Notes that executions are gone, by the ids of their actors, which are still there.
pub(crate) async fn add_executions(
    c: &mut Connection,
    gone: BTreeMap<String, Totals>,
) -> Result<(), Error> {
    for (actor, totals) in gone {
        sql("insert into totals (tenant, executions, runtime_us, cpu_ns, io_bytes) \
             select tenant, $2, $3, $4, $5 from actors where id = $1 \
             on conflict (tenant) do update set \
                 executions = totals.executions + excluded.executions, \
                 runtime_us = totals.runtime_us + excluded.runtime_us, \
                 cpu_ns = totals.cpu_ns + excluded.cpu_ns, \
                 io_bytes = totals.io_bytes + excluded.io_bytes")
        .on_postgres(
            "insert into totals (tenant, executions, runtime_us, cpu_ns, io_bytes) \
             select tenant, $2::bigint, $3::bigint, $4::bigint, $5::bigint from actors \
             where id = $1 \
             on conflict (tenant) do update set \
                 executions = totals.executions + excluded.executions, \
                 runtime_us = totals.runtime_us + excluded.runtime_us, \
                 cpu_ns = totals.cpu_ns + excluded.cpu_ns, \
                 io_bytes = totals.io_bytes + excluded.io_bytes",
        )
        .bind(actor.clone())
        .bind(number(totals.executions))
        .bind(number(totals.runtime_us))
        .bind(number(totals.cpu_ns))
        .bind(number(totals.io_bytes))
        .execute(c)
        .await
        .map_err(failed("count what is gone"))?;
        sql("update actors set had_executions = true where id = $1 and not had_executions")
            .bind(actor)
            .execute(c)
            .await
            .map_err(failed("count what is gone"))?;
    }
    Ok(())
}

/// Notes that an actor of `tenant` is gone.
pub(crate) async fn add_actor(
    c: &mut Connection,
    tenant: &str,
    had_executions: bool,
) -> Result<(), Error> {
    sql("insert into totals (tenant, actors, actors_with_executions) values ($1, 1, $2) \
         on conflict (tenant) do update set actors = totals.actors + 1, \
             actors_with_executions = totals.actors_with_executions + $2")
    .bind(tenant)
    .bind(i64::from(had_executions))
    .execute(c)
    .await
    .map_err(failed("count what is gone"))?;
    Ok(())
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn whole(fields: &Fields<'_>, column: &'static str) -> Result<u64, Error> {
    fields.parsed(column, |number: i64| u64::try_from(number).ok())
}
