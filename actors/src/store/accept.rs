//! Accepting a message: the hottest write, so one statement where the engine can.

use super::{Connection, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::{ActorId, ExecutionId};
use crate::json::Json;
use crate::message::{MessageBody, NewMessage};
use crate::trace::TraceParent;

/// What is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accept {
    pub(crate) execution: ExecutionId,
    pub(crate) actor: ActorId,
    pub(crate) executor: String,
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
                                 queued_us, visible_us, traceparent) \
         select $1, id, $3, 'SUBMITTED', revision, $4, $4, $4, $5 from actors \
         where id = $2 and status <> 'SHUTTING_DOWN'",
    )
    .bind(accept.execution.as_str())
    .bind(accept.actor.as_str())
    .bind(&accept.executor)
    .bind(accept.now.micros())
    .bind(trace(&accept.message).as_deref())
    .execute(c)
    .await
    .map_err(failed("store the execution"))?;
    if inserted == 0 {
        return Ok(None);
    }
    let (kind, body) = body(&accept.message)?;
    sql("insert into messages (execution_id, kind, body, content_type, environment) \
         values ($1, $2, $3, $4, $5)")
    .bind(accept.execution.as_str())
    .bind(kind)
    .bind(body)
    .bind(accept.message.content_type.as_str())
    .bind(environment(&accept.message))
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
    let (kind, body) = body(&accept.message)?;
    let waiting: Option<i64> = sql("with actor as ( \
             select id, revision from actors \
             where id = $2 and status <> 'SHUTTING_DOWN' for key share), \
         execution as ( \
             insert into executions (id, actor_id, executor, status, actor_revision, \
                                     accepted_us, queued_us, visible_us, traceparent) \
             select $1, id, $3, 'SUBMITTED', revision, $4, $4, $4, $10 from actor \
             on conflict (id) do nothing returning id), \
         message as ( \
             insert into messages (execution_id, kind, body, content_type, environment) \
             select id, $5, $6, $7, $8 from execution) \
         select 1 + (select count(*) from (select 1 from executions \
                     where actor_id = $2 and status = 'SUBMITTED' and visible_us <= $4 \
                     limit $9) as waiting) \
         from actor")
    .bind(accept.execution.as_str())
    .bind(accept.actor.as_str())
    .bind(&accept.executor)
    .bind(accept.now.micros())
    .bind(kind)
    .bind(body)
    .bind(accept.message.content_type.as_str())
    .bind(environment(&accept.message))
    .bind(i64::try_from(accept.count_to).unwrap_or(i64::MAX))
    .bind(trace(&accept.message).as_deref())
    .optional_scalar(c)
    .await
    .map_err(failed("store the execution"))?;
    Ok(waiting.map(|waiting| u64::try_from(waiting).unwrap_or(0)))
}

fn body(message: &NewMessage) -> Result<(&'static str, &str), Error> {
    match &message.body {
        MessageBody::Text(text) => Ok(("text", text.as_str())),
        MessageBody::Json(json) => Ok(("json", Json::as_str(json))),
        MessageBody::Binary(_) => {
            Err(Error::invalid("message", "binary messages are not supported yet"))
        }
    }
}

fn environment(message: &NewMessage) -> String {
    serde_json::to_string(&message.environment).expect("texts become JSON")
}

fn trace(message: &NewMessage) -> Option<String> {
    message.trace.as_ref().map(TraceParent::to_string)
}
