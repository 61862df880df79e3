//! `abax actor logs`

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::time::sleep;

use crate::args::{ActorLogs, Format};
use crate::client::{Client, text};
use crate::output;

/// How often a log is asked for its new part: soon at first, since most
/// executions are short.
const POLL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(250);

pub(crate) async fn run(client: &Client, format: Format, args: &ActorLogs) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    let execution = match &args.execution {
        Some(execution) => execution.clone(),
        None => newest(client, &id).await?.with_context(|| {
            format!("{} has no executions yet; see `abax actor send`", args.actor)
        })?,
    };
    if args.follow && format == Format::Table {
        follow(client, &id, &execution).await?;
        return Ok(());
    }
    let logs = client.get(&[&id, "executions", &execution, "logs"]).await?;
    match format {
        Format::Json => output::json(&logs)?,
        Format::Table => output::raw(text(&logs, "logs").as_bytes())?,
    }
    Ok(())
}

/// The id of the execution that was accepted last.
async fn newest(client: &Client, actor: &str) -> anyhow::Result<Option<String>> {
    let summary = client.get(&[actor, "executions"]).await?;
    let executions = summary.get("executions").and_then(Value::as_array);
    Ok(executions.and_then(|all| all.last()).map(|last| text(last, "id")))
}

/// Prints the log as it grows, until the execution has ended; the execution as
/// it is then.
pub(super) async fn follow(client: &Client, actor: &str, execution: &str) -> anyhow::Result<Value> {
    let mut printed = 0;
    let mut attempt = String::new();
    let mut pause = *POLL.start();
    loop {
        // The status first: a log that is read after the end is whole.
        let state = client.get(&[actor, "executions", execution]).await?;
        let ended = is_final(&state);
        if text(&state, "status") != "SUBMITTED" {
            // Its host was lost, and another began anew.
            if text(&state, "attempt") != attempt {
                attempt = text(&state, "attempt");
                printed = 0;
            }
            let logs = client.get(&[actor, "executions", execution, "logs"]).await?;
            let logs = text(&logs, "logs");
            if let Some(new) = logs.as_bytes().get(printed..).filter(|new| !new.is_empty()) {
                output::raw(new)?;
                printed = logs.len();
            }
        }
        if ended {
            return Ok(state);
        }
        if text(&state, "status") == "SUBMITTED" {
            let actor = client.get(&[actor]).await?;
            // It would wait until the owner updates the actor.
            if text(&actor, "status") == "ERROR" {
                bail!(
                    "execution {execution} waits: its actor is in ERROR: {}; see `abax actor update`",
                    text(&actor, "status_message")
                );
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(*POLL.end());
    }
}

/// Whether nothing more happens to this execution.
pub(super) fn is_final(execution: &Value) -> bool {
    !matches!(text(execution, "status").as_str(), "SUBMITTED" | "RUNNING" | "")
}
