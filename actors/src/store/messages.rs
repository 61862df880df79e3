//! The table `messages`: the input of each execution.

use super::{Connection, failed, sql};
use crate::error::Error;
use crate::id::ExecutionId;
use crate::json::Json;
use crate::message::{ContentType, MessageBody, NewMessage};
use crate::trace::TraceParent;

/// The message of an execution, which always has one.
pub(crate) async fn of_execution(
    c: &mut Connection,
    execution: &ExecutionId,
) -> Result<NewMessage, Error> {
    let inconsistent = |column: &str| Error::Inconsistent {
        table: "messages",
        column: column.to_owned(),
        row: execution.to_string(),
    };
    let row = sql("select m.*, e.traceparent from messages m \
         join executions e on e.id = m.execution_id where m.execution_id = $1")
    .bind(execution.as_str())
    .fetch_optional(c)
    .await
    .map_err(failed("find the message"))?
    .ok_or_else(|| inconsistent("execution_id"))?;
    let bytes = || row.get::<Option<Vec<u8>>>("bytes").ok().flatten();
    let text = |column: &'static str| row.get::<String>(column).map_err(|_| inconsistent(column));
    let body = match text("kind")?.as_str() {
        "text" => MessageBody::Text(text("body")?),
        "json" => MessageBody::Json(Json::parse(&text("body")?).map_err(|_| inconsistent("body"))?),
        "binary" => MessageBody::Binary(bytes().ok_or_else(|| inconsistent("bytes"))?.into()),
        _ => return Err(inconsistent("kind")),
    };
    Ok(NewMessage {
        body,
        content_type: ContentType::parse(&text("content_type")?)
            .ok_or_else(|| inconsistent("content_type"))?,
        environment: serde_json::from_str(&text("environment")?)
            .map_err(|_| inconsistent("environment"))?,
        jwt_header: row.get("jwt_header").map_err(|_| inconsistent("jwt_header"))?,
        // One that cannot be read is of another version of the program: no trace
        // is worth an execution.
        trace: row
            .get::<Option<String>>("traceparent")
            .map_err(|_| inconsistent("traceparent"))?
            .and_then(|text| TraceParent::parse(&text)),
    })
}
