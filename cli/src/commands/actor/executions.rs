//! `abax actor executions`

use serde_json::{Value, json};

use crate::args::{ActorExecutions, Format};
use crate::client::{Client, text};
use crate::output::{self, Table};

pub(crate) async fn run(
    client: &Client,
    format: Format,
    args: &ActorExecutions,
) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    if let Some(execution) = &args.execution {
        let execution = client.get(&[&id, "executions", execution]).await?;
        return print(format, &execution);
    }
    let summary = client.get(&[&id, "executions"]).await?;
    if format == Format::Json {
        output::json(&summary)?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "STATUS", "OUTCOME", "RECEIVED", "STARTED", "FINISHED"]);
    for execution in summary.get("executions").and_then(Value::as_array).into_iter().flatten() {
        if args.quiet {
            output::line(text(execution, "id"))?;
        } else {
            table.row([
                text(execution, "id"),
                text(execution, "status"),
                text(execution, "outcome"),
                super::time(execution, "message_received_time"),
                super::time(execution, "start_time"),
                super::time(execution, "finish_time"),
            ]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}

/// One execution: how it ended, what it used, and when what happened.
pub(super) fn print(format: Format, execution: &Value) -> anyhow::Result<()> {
    if format == Format::Json {
        output::json(execution)?;
        return Ok(());
    }
    let mut lines = String::new();
    for (label, field) in [
        ("id", "id"),
        ("status", "status"),
        ("outcome", "outcome"),
        ("reason", "reason"),
        ("exit code", "exit_code"),
        ("attempt", "attempt"),
        ("executor", "executor"),
        ("worker", "worker_id"),
    ] {
        let value = text(execution, field);
        if !value.is_empty() {
            lines.push_str(&format!("{label:13} {}\n", output::printable(&value)));
        }
    }
    lines.push_str(&clock(execution));
    output::raw(lines.as_bytes())?;
    Ok(())
}

/// The phase clock: each phase with the time since the one before it.
pub(super) fn clock(execution: &Value) -> String {
    const PHASES: [&str; 9] = [
        "accepted",
        "queued",
        "claimed",
        "image_ready",
        "created",
        "started",
        "first_output",
        "exited",
        "stored",
    ];
    let phases = execution.get("phases").cloned().unwrap_or_else(|| json!({}));
    let mut times: Vec<(&str, jiff::Timestamp)> = PHASES
        .iter()
        .filter_map(|phase| Some((*phase, text(&phases, phase).parse().ok()?)))
        .collect();
    times.sort_by_key(|(_, time)| *time);
    let mut lines = String::new();
    let mut last = None;
    for (phase, time) in times {
        let label = phase.replace('_', " ");
        let at = time.strftime("%H:%M:%S%.6f");
        let since = last.map_or_else(String::new, |last| {
            let micros = time.duration_since(last).as_micros();
            format!("   +{}.{:03} ms", micros / 1000, micros % 1000)
        });
        lines.push_str(&format!("{label:13} {at}{since}\n"));
        last = Some(time);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_what_each_phase_took() {
        let execution = json!({"phases": {
            "accepted": "2026-11-22T10:00:00.000001Z",
            "claimed": "2026-11-22T10:00:00.001501Z",
            "exited": null,
        }});
        assert_eq!(
            clock(&execution),
            "accepted      10:00:00.000001\nclaimed       10:00:00.001501   +1.500 ms\n"
        );
    }
}
