//! `abax actor logs`

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::bail;
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
        None => super::newest(client, &id, &args.actor).await?,
    };
    if args.follow && format == Format::Table {
        return tell_failure(&follow(client, &id, &execution, Show::Log).await?);
    }
    // The execution first: a log that is read after the end is whole.
    let state = client.get(&[&id, "executions", &execution]).await?;
    let logs = client.get(&[&id, "executions", &execution, "logs"]).await?;
    match format {
        Format::Json => output::json(&logs)?,
        Format::Table => output::raw(text(&logs, "logs").as_bytes())?,
    }
    tell_failure(&state)
}

/// Says on standard error why an execution ended without success: a log does
/// not tell, and may well be empty.
fn tell_failure(execution: &Value) -> anyhow::Result<()> {
    if !is_final(execution) || succeeded(execution) {
        return Ok(());
    }
    let (id, reason) = (text(execution, "id"), text(execution, "reason"));
    let ended = match text(execution, "outcome") {
        outcome if outcome.is_empty() => text(execution, "status"),
        outcome => outcome,
    };
    let mut line = format!("abax: execution {id} ended as {}", ended.replace('_', " "));
    if !reason.is_empty() {
        line.push_str(": ");
        line.push_str(&reason);
    }
    output::note(&format!("{}\n", output::printable(&line)))
}

/// What is printed of an execution while it is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Log,
    Nothing,
}

/// Waits until the execution has ended, and prints its log as it grows; the
/// execution as it is then.
///
/// # Errors
///
/// Its actor is in ERROR, so that it may never end.
pub(super) async fn follow(
    client: &Client,
    actor: &str,
    execution: &str,
    show: Show,
) -> anyhow::Result<Value> {
    let mut printed = 0;
    let mut claimed = None;
    let mut pause = *POLL.start();
    let mut told = false;
    loop {
        // The status first: a log that is read after the end is whole.
        let state = client.get_again(&[actor, "executions", execution]).await?;
        let ended = is_final(&state);
        if show == Show::Log && text(&state, "status") != "SUBMITTED" {
            // Its host was lost or gave it back, and another began anew: the second
            // time it may be the same attempt.
            let claim = state.pointer("/phases/claimed").cloned();
            if claim != claimed {
                (claimed, printed) = (claim, 0);
            }
            let logs = client.get_again(&[actor, "executions", execution, "logs"]).await?;
            let logs = text(&logs, "logs");
            // A character that came in part is not one yet.
            let whole = if ended { &*logs } else { logs.trim_end_matches('\u{fffd}') };
            if let Some(new) = whole.as_bytes().get(printed..).filter(|new| !new.is_empty()) {
                output::raw(new)?;
                printed = whole.len();
            }
        }
        if ended {
            return Ok(state);
        }
        let submitted = text(&state, "status") == "SUBMITTED";
        if submitted || (!told && !has_started(&state)) {
            let actor = client.get_again(&[actor]).await?;
            // It would wait until the owner updates the actor.
            if submitted && text(&actor, "status") == "ERROR" {
                bail!(
                    "execution {execution} waits: its actor is in ERROR: {}; see `abax actor update`",
                    text(&actor, "status_message")
                );
            }
            told = told || tell_waiting(&actor)?;
        }
        sleep(pause).await;
        pause = (pause * 2).min(*POLL.end());
    }
}

/// Whether nothing more happens to this execution.
pub(super) fn is_final(execution: &Value) -> bool {
    !matches!(text(execution, "status").as_str(), "SUBMITTED" | "RUNNING" | "")
}

/// Whether the execution ended as its sender wished.
pub(super) fn succeeded(execution: &Value) -> bool {
    text(execution, "outcome") == "succeeded" || text(execution, "exit_code") == "0"
}

/// Whether its container runs, or ran.
pub(super) fn has_started(execution: &Value) -> bool {
    execution.pointer("/phases/started").is_some_and(Value::is_string)
}

/// Says on standard error what keeps the executions of `actor` from starting;
/// false where it has no message.
pub(super) fn tell_waiting(actor: &Value) -> anyhow::Result<bool> {
    let message = text(actor, "status_message");
    let message = message.trim();
    if message.is_empty() {
        return Ok(false);
    }
    let what = message.strip_prefix("waiting for ").unwrap_or(message);
    output::note(&format!("abax: waiting: {}\n", output::printable(what)))?;
    Ok(true)
}
