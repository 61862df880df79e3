//! The table `actors`.

use super::{Connection, Fields, Room, failed, sql};
use crate::actor::{Actor, ActorStatus, Rest, TokenSetting};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::json::Json;
use crate::permission::{EVERYBODY, Level, Tenant};
use crate::revision::PinnedImage;

pub(crate) async fn insert(c: &mut Connection, actor: &Actor) -> Result<(), Error> {
    let text = "insert into actors (id, tenant, owner, name, description, image, stateless, kind, \
               token, token_chosen, webhook, link, hints, privileged, max_workers, mem_limit, \
               max_cpus, use_container_uid, default_environment, status, status_message, state, \
               created_us, updated_us, revision, queue, log_ex, max_run_time, uid, gid, tasdir, \
               mounts, run_as_executor) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
               $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
    write(c, text, actor, "register the actor").await
}

/// Writes every column that may change; id, tenant, owner and creation stay. A rest
/// is over with it.
pub(crate) async fn update(c: &mut Connection, actor: &Actor) -> Result<(), Error> {
    let text = "update actors set name = $4, description = $5, image = $6, stateless = $7, \
               kind = $8, token = $9, token_chosen = $10, webhook = $11, link = $12, hints = $13, \
               privileged = $14, max_workers = $15, mem_limit = $16, max_cpus = $17, \
               use_container_uid = $18, default_environment = $19, status = $20, \
               status_message = $21, state = $22, updated_us = $24, revision = $25, queue = $26, \
               log_ex = $27, max_run_time = $28, uid = $29, gid = $30, tasdir = $31, \
               mounts = $32, run_as_executor = $33, rests = 0, rests_until_us = null \
               where id = $1 and tenant = $2 and owner = $3 and created_us = $23";
    write(c, text, actor, "update the actor").await
}

async fn write(
    c: &mut Connection,
    text: &'static str,
    actor: &Actor,
    doing: &'static str,
) -> Result<(), Error> {
    let hints = serde_json::to_string(&actor.hints).expect("texts become JSON");
    let mounts = serde_json::to_string(&actor.mounts).expect("texts become JSON");
    let (token, token_chosen) = match actor.token {
        TokenSetting::Chosen(wanted) => (wanted, true),
        TokenSetting::Default(wanted) => (wanted, false),
    };
    sql(text)
        .bind(actor.id.as_str())
        .bind(actor.tenant.as_str())
        .bind(&actor.owner)
        .bind(&actor.name)
        .bind(&actor.description)
        .bind(&actor.image)
        .bind(actor.stateless)
        .bind(&actor.kind)
        .bind(token)
        .bind(token_chosen)
        .bind(&actor.webhook)
        .bind(&actor.link)
        .bind(hints)
        .bind(actor.privileged)
        .bind(actor.max_workers.map(i64::from))
        .bind(&actor.mem_limit)
        .bind(actor.max_cpus.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
        .bind(actor.use_container_uid)
        .bind(actor.default_environment.as_str())
        .bind(actor.status.as_str())
        .bind(&actor.status_message)
        .bind(actor.state.as_str())
        .bind(actor.created.micros())
        .bind(actor.updated.micros())
        .bind(actor.revision)
        .bind(&actor.queue)
        .bind(actor.log_ex)
        .bind(actor.max_run_time.map(i64::from))
        .bind(actor.user.map(|(uid, _)| i64::from(uid)))
        .bind(actor.user.map(|(_, gid)| i64::from(gid)))
        .bind(&actor.home)
        .bind(mounts)
        .bind(actor.run_as_executor)
        .execute(c)
        .await
        .map_err(failed(doing))?;
    Ok(())
}

pub(crate) async fn find(c: &mut Connection, id: &ActorId) -> Result<Option<Actor>, Error> {
    let row = sql("select * from actors where id = $1")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("find the actor"))?;
    row.map(|row| read(&Fields::of(&row, "actors"))).transpose()
}

/// The actor of an execution.
pub(crate) async fn of_execution(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<Option<Actor>, Error> {
    let row =
        sql("select a.* from actors a join executions e on e.actor_id = a.id where e.id = $1")
            .bind(execution.as_str())
            .fetch_optional(c)
            .await
            .map_err(failed("find the actor"))?;
    row.map(|row| read(&Fields::of(&row, "actors"))).transpose()
}

/// As [`find`], and nobody else claims executions of it or changes it until this
/// transaction ends. Before any lock on its executions.
pub(crate) async fn lock(c: &mut Connection, id: &ActorId) -> Result<Option<Actor>, Error> {
    let row = sql("select * from actors where id = $1")
        .on_postgres("select * from actors where id = $1 for no key update")
        .bind(id.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("find the actor"))?;
    row.map(|row| read(&Fields::of(&row, "actors"))).transpose()
}

/// Keeps other transactions that check links of the tenant's actors waiting until
/// this one ends. After the lock of the actor whose link it is; its holder waits
/// for no other.
pub(crate) async fn lock_links(c: &mut Connection, tenant: &Tenant) -> Result<(), Error> {
    // A file has one writer at a time anyway.
    sql("select $1")
        .on_postgres("select pg_advisory_xact_lock(hashtextextended('links of ' || $1, 0))")
        .bind(tenant.as_str())
        .execute(c)
        .await
        .map_err(failed("lock the links"))?;
    Ok(())
}

/// How a request names an actor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    Id(&'a ActorId),
    Alias(&'a str),
}

/// The actor of that name in `tenant`, and the level that its entries give `user`.
pub(crate) async fn find_for(
    c: &mut Connection,
    tenant: &Tenant,
    named: Named<'_>,
    user: &str,
) -> Result<Option<(Actor, Level)>, Error> {
    let (statement, name) = match named {
        Named::Id(id) => (
            sql("select a.*, own.level as own_level, everybody.level as everybodys_level \
                 from actors a \
                 left join permissions own on own.tenant = a.tenant and own.kind = 'actor' \
                     and own.object = a.id and own.user_name = $3 \
                 left join permissions everybody on everybody.tenant = a.tenant \
                     and everybody.kind = 'actor' and everybody.object = a.id \
                     and everybody.user_name = $4 \
                 where a.id = $2 and a.tenant = $1"),
            id.as_str(),
        ),
        Named::Alias(alias) => (
            sql("select a.*, own.level as own_level, everybody.level as everybodys_level \
                 from aliases n join actors a on a.id = n.actor_id \
                 left join permissions own on own.tenant = a.tenant and own.kind = 'actor' \
                     and own.object = a.id and own.user_name = $3 \
                 left join permissions everybody on everybody.tenant = a.tenant \
                     and everybody.kind = 'actor' and everybody.object = a.id \
                     and everybody.user_name = $4 \
                 where n.alias = $2 and n.tenant = $1"),
            alias,
        ),
    };
    let row = statement
        .bind(tenant.as_str())
        .bind(name)
        .bind(user)
        .bind(EVERYBODY)
        .fetch_optional(c)
        .await
        .map_err(failed("find the actor"))?;
    row.map(|row| {
        let fields = Fields::of(&row, "actors");
        let level = |column| -> Result<Level, Error> {
            let level = fields.parsed_if_any(column, |word: String| Level::of_word(&word))?;
            Ok(level.unwrap_or(Level::None))
        };
        let level = level("own_level")?.max(level("everybodys_level")?);
        Ok((read(&fields)?, level))
    })
    .transpose()
}

/// How many actors there are that entries of `user`, or those for everybody, let it
/// see, and those of them that fit an answer, oldest first; of too many, the user's
/// own before those of others.
pub(crate) async fn visible_to(
    c: &mut Connection,
    tenant: &Tenant,
    user: &str,
) -> Result<(u64, Vec<Actor>), Error> {
    let rows = sql("select id, created_us, cast(octet_length(description) + octet_length(hints) \
             + octet_length(default_environment) + octet_length(state) as bigint) as bytes \
         from actors where tenant = $1 and id in ( \
             select object from permissions where tenant = $1 and kind = 'actor' \
             and user_name in ($2, $3) and level <> 'NONE') \
         order by case when owner = $2 then 0 else 1 end, created_us, id")
    .bind(tenant.as_str())
    .bind(user)
    .bind(EVERYBODY)
    .fetch_all(c)
    .await
    .map_err(failed("list the actors"))?;
    let mut fitting = Vec::new();
    let mut room = Room::new();
    for row in &rows {
        let fields = Fields::of(row, "actors");
        let bytes: i64 = fields.get("bytes")?;
        if !room.takes(usize::try_from(bytes).unwrap_or(usize::MAX)) {
            break;
        }
        fitting.push((fields.get::<i64>("created_us")?, fields.get::<String>("id")?));
    }
    fitting.sort_unstable();
    let ids: Vec<String> = fitting.into_iter().map(|(_, id)| id).collect();
    Ok((rows.len() as u64, super::search::all_actors(c, &ids).await?))
}

/// How many actors `user` has in `tenant`.
pub(crate) async fn count_of_owner(
    c: &mut Connection,
    tenant: &Tenant,
    user: &str,
) -> Result<u64, Error> {
    let count: i64 = sql("select count(*) from actors where tenant = $1 and owner = $2")
        .bind(tenant.as_str())
        .bind(user)
        .scalar(c)
        .await
        .map_err(failed("count the actors"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// An actor that waits for its image, as far as it takes to choose among many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unprepared {
    pub(crate) id: ActorId,
    pub(crate) revision: i64,
    pub(crate) queue: String,
    pub(crate) tenant: String,
    pub(crate) owner: String,
}

/// Actors whose image no host has had yet, and those for which workers were asked
/// for, oldest first; without those that rest at `now`. Of the first, nothing but the
/// index is read.
pub(super) const TO_PREPARE: &str = "select id, revision, queue, tenant, owner, created_us \
         from actors where status = 'SUBMITTED' \
             and (rests_until_us is null or rests_until_us <= $1) \
     union all \
     select id, revision, queue, tenant, owner, created_us \
         from actors where status = 'READY' \
             and (rests_until_us is null or rests_until_us <= $1) and id in \
         (select actor_id from workers where status in ('REQUESTED', 'PULLING IMAGE')) \
     order by 6";

/// What [`TO_PREPARE`] finds.
pub(crate) async fn to_prepare(c: &mut Connection, now: Time) -> Result<Vec<Unprepared>, Error> {
    let rows = sql(TO_PREPARE)
        .bind(now.micros())
        .fetch_all(c)
        .await
        .map_err(failed("look for actors to prepare"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            Ok(Unprepared {
                id: fields.parsed("id", |text: String| ActorId::parse(&text))?,
                revision: fields.get("revision")?,
                queue: fields.get("queue")?,
                tenant: fields.get("tenant")?,
                owner: fields.get("owner")?,
            })
        })
        .collect()
}

/// Actors that are as they were before a time and wait for their image without a word
/// why; a few of them. Nothing but the index is read.
pub(super) const TOLD_NOTHING: &str = "select id, revision, queue from actors \
     where status = 'SUBMITTED' and status_message = '' and updated_us < $1 \
     order by updated_us limit 1000";

/// What [`TOLD_NOTHING`] finds for `since`: ids, revisions and queues.
pub(crate) async fn told_nothing(
    c: &mut Connection,
    since: Time,
) -> Result<Vec<(ActorId, i64, String)>, Error> {
    let rows = sql(TOLD_NOTHING)
        .bind(since.micros())
        .fetch_all(c)
        .await
        .map_err(failed("look for actors that wait"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            let id = fields.parsed("id", |text: String| ActorId::parse(&text))?;
            Ok((id, fields.get("revision")?, fields.get("queue")?))
        })
        .collect()
}

/// An image that executions of late were of.
pub(crate) struct ImageOfLate {
    pub(crate) class: String,
    pub(crate) reference: String,
    pub(crate) pinned: Option<PinnedImage>,
}

/// The images of actors whose last execution was accepted since `since`, the most
/// recent first.
pub(crate) async fn images_since(
    c: &mut Connection,
    since: Time,
) -> Result<Vec<ImageOfLate>, Error> {
    let rows = sql("select image as id, digest, coalesce(made, false) as made, queue, \
             max(accepted_us) as accepted_us from ( \
             select a.image, a.queue, r.digest, r.made, \
                 (select e.accepted_us from executions e \
                  where e.actor_id = a.id order by e.sequence desc limit 1) as accepted_us \
             from actors a left join revisions r \
                 on r.actor_id = a.id and r.revision = a.revision \
             where a.status in ('SUBMITTED', 'READY')) late \
         where accepted_us >= $1 group by image, digest, made, queue order by 5 desc")
    .bind(since.micros())
    .fetch_all(c)
    .await
    .map_err(failed("look for images of late"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "actors");
            Ok(ImageOfLate {
                class: fields.get("queue")?,
                reference: fields.get("id")?,
                pinned: super::revisions::pinned(&fields)?,
            })
        })
        .collect()
}

/// Moves a SUBMITTED or READY actor to `status`, if it is still at `revision`;
/// to SUBMITTED only another message.
pub(crate) async fn set_status(
    c: &mut Connection,
    id: &ActorId,
    revision: i64,
    status: ActorStatus,
    message: &str,
) -> Result<bool, Error> {
    let from: &'static str = match status {
        ActorStatus::Submitted => {
            "update actors set status = $3, status_message = $4 \
             where id = $1 and revision = $2 and status = 'SUBMITTED' and status_message <> $4"
        }
        ActorStatus::Ready => {
            "update actors set status = $3, status_message = $4, \
             rests = 0, rests_until_us = null \
             where id = $1 and revision = $2 and status = 'SUBMITTED'"
        }
        _ => {
            "update actors set status = $3, status_message = $4, \
             rests = 0, rests_until_us = null \
             where id = $1 and revision = $2 and status in ('SUBMITTED', 'READY')"
        }
    };
    let done = sql(from)
        .bind(id.as_str())
        .bind(revision)
        .bind(status.as_str())
        .bind(message.replace('\0', "\u{fffd}"))
        .execute(c)
        .await
        .map_err(failed("set the actor's status"))?;
    Ok(done == 1)
}

/// Makes the actor of a claimed execution READY, if the image that was claimed
/// is still the one it wants; says which it is, if it was not READY before.
pub(crate) async fn set_ready_by(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<Option<Actor>, Error> {
    let row = sql("update actors set status = 'READY', status_message = ' ', \
             rests = 0, rests_until_us = null \
         where status = 'SUBMITTED' and (id, revision) in \
             (select actor_id, claimed_revision from executions where id = $1) returning *")
    .bind(execution.as_str())
    .fetch_optional(c)
    .await
    .map_err(failed("set the actor's status"))?;
    row.map(|row| read(&Fields::of(&row, "actors"))).transpose()
}

/// Lets an actor rest that is under our lock, with a message that says why.
pub(crate) async fn set_rest(
    c: &mut Connection,
    id: &ActorId,
    rest: Rest,
    message: &str,
) -> Result<(), Error> {
    sql("update actors set rests = $2, rests_until_us = $3, status_message = $4 where id = $1")
        .bind(id.as_str())
        .bind(i64::from(rest.failures))
        .bind(rest.until.micros())
        .bind(message.replace('\0', "\u{fffd}"))
        .execute(c)
        .await
        .map_err(failed("let the actor rest"))?;
    Ok(())
}

/// Ends the rest of an actor at `revision`, of which a host has the image; says
/// whether there was one.
pub(crate) async fn end_rest(
    c: &mut Connection,
    id: &ActorId,
    revision: i64,
) -> Result<bool, Error> {
    let done = sql("update actors set rests = 0, rests_until_us = null, \
             status_message = case when status = 'READY' then ' ' else '' end \
         where id = $1 and revision = $2 and rests > 0 and status in ('SUBMITTED', 'READY')")
    .bind(id.as_str())
    .bind(revision)
    .execute(c)
    .await
    .map_err(failed("end the actor's rest"))?;
    Ok(done == 1)
}

/// As [`end_rest`], by a claim that holds; says whose it was. Before any lock on the
/// execution.
pub(crate) async fn end_rest_by(
    c: &mut Connection,
    execution: &ExecutionId,
    epoch: i64,
) -> Result<Option<ActorId>, Error> {
    let id: Option<String> = sql("update actors set rests = 0, rests_until_us = null, \
             status_message = case when status = 'READY' then ' ' else '' end \
         where rests > 0 and status in ('SUBMITTED', 'READY') and (id, revision) in \
             (select actor_id, claimed_revision from executions \
              where id = $1 and epoch = $2 and status = 'RUNNING') returning id")
    .bind(execution.as_str())
    .bind(epoch)
    .optional_scalar(c)
    .await
    .map_err(failed("end the actor's rest"))?;
    Ok(id.as_deref().and_then(ActorId::parse))
}

/// Notes how many workers were asked for.
pub(crate) async fn set_wanted_workers(
    c: &mut Connection,
    id: &ActorId,
    wanted: u64,
) -> Result<(), Error> {
    sql("update actors set wanted_workers = $2 where id = $1 and wanted_workers <> $2")
        .bind(id.as_str())
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .execute(c)
        .await
        .map_err(failed("note how many workers are wanted"))?;
    Ok(())
}

pub(crate) async fn set_shutting_down(c: &mut Connection, id: &ActorId) -> Result<(), Error> {
    sql("update actors set status = 'SHUTTING_DOWN' where id = $1")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("delete the actor"))?;
    Ok(())
}

/// What [`remove_ended`] did.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) actors: u64,
    /// Executions of them that had waited.
    pub(crate) waited: u64,
    /// There may be more to remove.
    pub(crate) more: bool,
}

/// Removes actors that are shutting down, with all that is theirs, but for what
/// runs and the actors of that; `only` one, or all. A part of it, where there is
/// much: a million executions take longer than a statement may.
pub(crate) async fn remove_ended(
    c: &mut Connection,
    only: Option<&ActorId>,
) -> Result<Removed, Error> {
    let (executions, waited) = super::executions::remove_of_deleted(c, only).await?;
    let actors = sql("delete from actors where status = 'SHUTTING_DOWN' \
         and ($1 is null or id = $1) \
         and not exists (select 1 from executions e where e.actor_id = actors.id) \
         returning id, tenant, had_executions")
    .bind(only.map(ActorId::as_str))
    .fetch_all(c)
    .await
    .map_err(failed("remove deleted actors"))?;
    for row in &actors {
        let fields = Fields::of(row, "actors");
        let tenant: String = fields.get("tenant")?;
        super::statistics::add_actor(c, &tenant, fields.get("had_executions")?).await?;
    }
    let actors = actors.len() as u64;
    Ok(Removed { actors, waited, more: executions >= super::executions::REMOVED_AT_ONCE })
}

pub(super) fn read(fields: &Fields<'_>) -> Result<Actor, Error> {
    let json = |text: String| Json::parse(&text).ok();
    let token: bool = fields.get("token")?;
    let id = |column| fields.parsed_if_any(column, |n: i64| u32::try_from(n).ok());
    Ok(Actor {
        id: fields.parsed("id", |text: String| ActorId::parse(&text))?,
        tenant: Tenant::new(fields.get::<String>("tenant")?),
        owner: fields.get("owner")?,
        name: fields.get("name")?,
        description: fields.get("description")?,
        image: fields.get("image")?,
        stateless: fields.get("stateless")?,
        kind: fields.get("kind")?,
        token: if fields.get("token_chosen")? {
            TokenSetting::Chosen(token)
        } else {
            TokenSetting::Default(token)
        },
        webhook: fields.get("webhook")?,
        link: fields.get("link")?,
        hints: fields.parsed("hints", |text: String| serde_json::from_str(&text).ok())?,
        privileged: fields.get("privileged")?,
        max_workers: fields.parsed_if_any("max_workers", |n: i64| u32::try_from(n).ok())?,
        mem_limit: fields.get("mem_limit")?,
        max_cpus: fields.parsed_if_any("max_cpus", |n: i64| u64::try_from(n).ok())?,
        use_container_uid: fields.get("use_container_uid")?,
        run_as_executor: fields.get("run_as_executor")?,
        default_environment: fields.parsed("default_environment", json)?,
        status: fields.parsed("status", |text: String| ActorStatus::parse(&text))?,
        status_message: fields.get("status_message")?,
        state: fields.parsed("state", json)?,
        created: Time::from_micros(fields.get("created_us")?),
        updated: Time::from_micros(fields.get("updated_us")?),
        revision: fields.get("revision")?,
        queue: fields.get("queue")?,
        log_ex: fields.get("log_ex")?,
        max_run_time: fields.parsed_if_any("max_run_time", |n: i64| u32::try_from(n).ok())?,
        user: match (id("uid")?, id("gid")?) {
            (Some(uid), Some(gid)) => Some((uid, gid)),
            _ => None,
        },
        home: fields.get("tasdir")?,
        mounts: fields.parsed("mounts", |text: String| serde_json::from_str(&text).ok())?,
        cron: super::cron::read(fields)?,
        wanted_workers: fields.parsed("wanted_workers", |n: i64| u32::try_from(n).ok())?,
        rest: match fields.get::<Option<i64>>("rests_until_us")? {
            None => None,
            Some(until) => Some(Rest {
                failures: fields.parsed("rests", |n: i64| u32::try_from(n).ok())?,
                until: Time::from_micros(until),
            }),
        },
    })
}
