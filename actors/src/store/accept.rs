//! Accepting a message: the hottest write, so one statement where the engine can.

use super::sql::Sql;
use super::{Connection, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::message::{MessageBody, NewMessage};
use crate::trace::TraceParent;

/// What is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accept {
    pub(crate) execution: ExecutionId,
    pub(crate) actor: ActorId,
    pub(crate) executor: String,
    /// Who that is on the hosts, where the actor runs as its senders.
    pub(crate) executor_user: Option<(u32, u32)>,
    pub(crate) message: NewMessage,
    pub(crate) now: Time,
    /// Up to how many of the actor's executions that could run are counted.
    pub(crate) count_to: u64,
}

/// Stores an execution with its message, and says how many executions of the
/// actor could run now, this one counted; none when the actor has gone or is going.
/// One that is stored already, by a try whose answer was lost, stays as it is.
pub(crate) async fn accept(c: &mut Connection, accept: &Accept) -> Result<Option<u64>, Error> {
    match c {
        Connection::Sqlite(_) => by_statements(c, accept).await,
        Connection::Postgres(_) => at_once(c, accept).await,
    }
}

async fn by_statements(c: &mut Connection, accept: &Accept) -> Result<Option<u64>, Error> {
    let inserted = sql(
        "insert into executions (id, actor_id, executor, status, actor_revision, accepted_us, \
                                 queued_us, visible_us, traceparent, executor_uid, \
                                 executor_gid) \
         select $1, id, $3, 'SUBMITTED', revision, $4, $4, $4, $5, $6, $7 from actors \
         where id = $2 and status <> 'SHUTTING_DOWN'",
    )
    .bind(accept.execution.as_str())
    .bind(accept.actor.as_str())
    .bind(&accept.executor)
    .bind(accept.now.micros())
    .bind(trace(&accept.message))
    .bind(accept.executor_user.map(|(uid, _)| i64::from(uid)))
    .bind(accept.executor_user.map(|(_, gid)| i64::from(gid)))
    .execute(c)
    .await
    .map_err(failed("store the execution"))?;
    if inserted == 0 {
        return Ok(None);
    }
    let statement =
        sql("insert into messages (execution_id, kind, body, bytes, content_type, environment, \
                                   jwt_header) \
             values ($1, $2, $3, $4, $5, $6, $7)")
        .bind(accept.execution.as_str());
    bind_message(statement, &accept.message)
        .execute(c)
        .await
        .map_err(failed("store the message"))?;
    let waiting: i64 = sql("select count(*) from (select 1 from executions \
             where actor_id = $1 and status = 'SUBMITTED' and visible_us <= $2 \
             limit $3) as waiting")
    .bind(accept.actor.as_str())
    .bind(accept.now.micros())
    .bind(i64::try_from(accept.count_to).unwrap_or(i64::MAX))
    .scalar(c)
    .await
    .map_err(failed("count the messages"))?;
    Ok(Some(u64::try_from(waiting).unwrap_or(0)))
}

/// One round trip. All parts of the statement see the rows as they were before
/// it, so its own execution is counted apart.
async fn at_once(c: &mut Connection, accept: &Accept) -> Result<Option<u64>, Error> {
    let statement = sql("with actor as ( \
             select id, revision from actors \
             where id = $2 and status <> 'SHUTTING_DOWN' for key share), \
         execution as ( \
             insert into executions (id, actor_id, executor, status, actor_revision, \
                                     accepted_us, queued_us, visible_us, traceparent, \
                                     executor_uid, executor_gid) \
             select $1, id, $3, 'SUBMITTED', revision, $4, $4, $4, $6, $7, $8 from actor \
             on conflict (id) do nothing returning id), \
         message as ( \
             insert into messages (execution_id, kind, body, bytes, content_type, environment, \
                                   jwt_header) \
             select id, $9, $10, $11, $12, $13, $14 from execution) \
         select 1 + (select count(*) from (select 1 from executions \
                     where actor_id = $2 and status = 'SUBMITTED' and visible_us <= $4 \
                     limit $5) as waiting) \
         from actor")
    .bind(accept.execution.as_str())
    .bind(accept.actor.as_str())
    .bind(&accept.executor)
    .bind(accept.now.micros())
    .bind(i64::try_from(accept.count_to).unwrap_or(i64::MAX))
    .bind(trace(&accept.message))
    .bind(accept.executor_user.map(|(uid, _)| i64::from(uid)))
    .bind(accept.executor_user.map(|(_, gid)| i64::from(gid)));
    let waiting: Option<i64> = bind_message(statement, &accept.message)
        .optional_scalar(c)
        .await
        .map_err(failed("store the execution"))?;
    Ok(waiting.map(|waiting| u64::try_from(waiting).unwrap_or(0)))
}

/// Kind, body, bytes, content type, environment, header: the next six placeholders.
fn bind_message<'a>(statement: Sql<'a>, message: &'a NewMessage) -> Sql<'a> {
    let (kind, body, bytes) = match &message.body {
        MessageBody::Text(text) => ("text", text.as_str(), None),
        MessageBody::Json(json) => ("json", json.as_str(), None),
        MessageBody::Binary(bytes) => ("binary", "", Some(&**bytes)),
    };
    let environment = serde_json::to_string(&message.environment).expect("texts become JSON");
    statement
        .bind(kind)
        .bind(body)
        .bind(bytes)
        .bind(message.content_type.as_str())
        .bind(environment)
        .bind(&message.jwt_header)
}

fn trace(message: &NewMessage) -> Option<String> {
    message.trace.as_ref().map(TraceParent::to_string)
}
