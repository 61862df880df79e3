//! The table `hosts`: processes that take executions.

use super::{Connection, Fields, failed, sql};
use crate::actor::parse_memory;
use crate::clock::Time;
use crate::error::Error;
use crate::host::{DefaultLimits, HostInfo, Needs};
use crate::id::HostId;

/// A row.
pub(crate) struct Stored {
    pub(crate) id: HostId,
    pub(crate) info: HostInfo,
    pub(crate) cordoned: bool,
    pub(crate) draining: bool,
    pub(crate) stopped: Option<Time>,
    pub(crate) clock_offset_us: Option<i64>,
    pub(crate) registered: Time,
    pub(crate) seen: Time,
}

/// Registers a process; cordoned where the last one of its name is. One that is
/// registered already stays as it is, and has been seen.
pub(crate) async fn register(
    c: &mut Connection,
    id: &HostId,
    info: &HostInfo,
    now: Time,
) -> Result<(), Error> {
    let whole = |n: Option<u64>| n.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    sql("insert into hosts (id, name, version, slots, memory_bytes, milli_cpus, classes, \
                            registered_us, seen_us, address, cordoned) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, \
                 coalesce((select h.cordoned from hosts h where h.name = $2 \
                           order by h.registered_us desc limit 1), false)) \
         on conflict (id) do update set seen_us = excluded.seen_us")
    .bind(id.as_str())
    .bind(info.name.as_str())
    .bind(info.version.as_str())
    .bind(i64::from(info.slots))
    .bind(whole(info.memory_bytes))
    .bind(whole(info.milli_cpus))
    .bind(serde_json::Value::from(info.classes.clone()).to_string())
    .bind(now.micros())
    .bind(info.address.map(|address| address.to_string()))
    .execute(c)
    .await
    .map_err(failed("register the host"))?;
    Ok(())
}

/// Notes that a host lives, and how far its clock is ahead; says whether it is
/// cordoned, and nothing where it is not known.
pub(crate) async fn set_seen(
    c: &mut Connection,
    id: &HostId,
    now: Time,
    clock_offset_us: i64,
) -> Result<Option<bool>, Error> {
    sql("update hosts set seen_us = $2, clock_offset_us = $3 where id = $1 returning cordoned")
        .bind(id.as_str())
        .bind(now.micros())
        .bind(clock_offset_us)
        .optional_scalar(c)
        .await
        .map_err(failed("note that the host lives"))
}

pub(crate) async fn find(c: &mut Connection, id: &HostId) -> Result<Option<Stored>, Error> {
    let row = sql("select * from hosts where id = $1")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("find the host"))?;
    row.map(|row| read(&Fields::of(&row, "hosts"))).transpose()
}

/// Keeps other claims of the host waiting until this transaction ends. After the
/// lock of the actor, before those of executions.
pub(crate) async fn lock(c: &mut Connection, id: &HostId) -> Result<(), Error> {
    sql("select id from hosts where id = $1")
        .on_postgres("select id from hosts where id = $1 for no key update")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("lock the host"))?;
    Ok(())
}

/// All that are remembered, by name, the latest process of each first.
pub(crate) async fn all(c: &mut Connection) -> Result<Vec<Stored>, Error> {
    let rows = sql("select * from hosts order by name, registered_us desc, id")
        .fetch_all(c)
        .await
        .map_err(failed("list the hosts"))?;
    rows.iter().map(|row| read(&Fields::of(row, "hosts"))).collect()
}

/// How many executions each host runs that runs any.
pub(crate) async fn running(c: &mut Connection) -> Result<Vec<(HostId, u64)>, Error> {
    let rows = sql("select host_id as id, count(*) as running from executions \
         where status = 'RUNNING' and host_id is not null group by host_id")
    .fetch_all(c)
    .await
    .map_err(failed("count what hosts run"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "executions");
            Ok((
                fields.parsed("id", |text: String| HostId::parse(&text))?,
                fields.parsed("running", |n: i64| u64::try_from(n).ok())?,
            ))
        })
        .collect()
}

/// What the limits of the executions that a host runs add up to.
pub(crate) async fn reserved(
    c: &mut Connection,
    id: &HostId,
    default: DefaultLimits,
) -> Result<Needs, Error> {
    let rows = sql("select a.id, a.mem_limit, a.max_cpus, count(*) as running \
         from executions e join actors a on a.id = e.actor_id \
         where e.status = 'RUNNING' and e.host_id = $1 \
         group by a.id, a.mem_limit, a.max_cpus")
    .bind(id.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("add up what the host runs"))?;
    rows.iter().try_fold(Needs::default(), |sum, row| {
        let fields = Fields::of(row, "actors");
        let memory: Option<String> = fields.get("mem_limit")?;
        let cpus = fields.parsed_if_any("max_cpus", |n: i64| u64::try_from(n).ok())?;
        let needs = Needs::of(memory.as_deref().and_then(parse_memory), cpus, default);
        Ok(sum.and(needs, fields.parsed("running", |n: i64| u64::try_from(n).ok())?))
    })
}

/// Keeps the processes of a name from taking more, or lets them; says how many
/// there are.
pub(crate) async fn set_cordoned(
    c: &mut Connection,
    name: &str,
    cordoned: bool,
) -> Result<u64, Error> {
    sql("update hosts set cordoned = $2 where name = $1")
        .bind(name)
        .bind(cordoned)
        .execute(c)
        .await
        .map_err(failed("cordon the host"))
}

pub(crate) async fn set_draining(c: &mut Connection, id: &HostId) -> Result<(), Error> {
    sql("update hosts set draining = true where id = $1")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("drain the host"))?;
    Ok(())
}

pub(crate) async fn set_stopped(c: &mut Connection, id: &HostId, now: Time) -> Result<(), Error> {
    sql("update hosts set draining = true, stopped_us = $2, seen_us = $2 where id = $1")
        .bind(id.as_str())
        .bind(now.micros())
        .execute(c)
        .await
        .map_err(failed("note that the host has stopped"))?;
    Ok(())
}

/// Notes that a process ended that did not say so.
pub(crate) async fn set_dead(c: &mut Connection, id: &HostId, now: Time) -> Result<(), Error> {
    sql("update hosts set stopped_us = $2 where id = $1 and stopped_us is null")
        .bind(id.as_str())
        .bind(now.micros())
        .execute(c)
        .await
        .map_err(failed("note that the host has ended"))?;
    Ok(())
}

/// Forgets hosts not seen since `since` that have nothing running; one that is
/// cordoned is remembered as long as it is the last of its name.
pub(crate) async fn remove_unseen(c: &mut Connection, since: Time) -> Result<(), Error> {
    sql("delete from hosts where seen_us < $1 and not exists \
             (select 1 from executions e where e.status = 'RUNNING' and e.host_id = hosts.id) \
         and (not cordoned or exists (select 1 from hosts later where later.name = hosts.name \
                                      and later.registered_us > hosts.registered_us))")
    .bind(since.micros())
    .execute(c)
    .await
    .map_err(failed("forget hosts"))?;
    Ok(())
}

fn read(fields: &Fields<'_>) -> Result<Stored, Error> {
    let whole = |n: i64| u64::try_from(n).ok();
    let time = |name| Ok::<_, Error>(fields.get::<Option<i64>>(name)?.map(Time::from_micros));
    Ok(Stored {
        id: fields.parsed("id", |text: String| HostId::parse(&text))?,
        info: HostInfo {
            address: fields.parsed_if_any("address", |text: String| text.parse().ok())?,
            name: fields.get("name")?,
            version: fields.get("version")?,
            slots: fields.parsed("slots", |n: i64| u32::try_from(n).ok())?,
            memory_bytes: fields.parsed_if_any("memory_bytes", whole)?,
            milli_cpus: fields.parsed_if_any("milli_cpus", whole)?,
            classes: fields.parsed("classes", |text: String| serde_json::from_str(&text).ok())?,
        },
        cordoned: fields.get("cordoned")?,
        draining: fields.get("draining")?,
        stopped: time("stopped_us")?,
        clock_offset_us: fields.get("clock_offset_us")?,
        registered: Time::from_micros(fields.get("registered_us")?),
        seen: Time::from_micros(fields.get("seen_us")?),
    })
}
