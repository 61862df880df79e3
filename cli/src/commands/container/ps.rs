//! `abax ps`

use abax_runtime::container::{Record, Status};
use serde_json::json;

use crate::args::{self, Format};
use crate::config::Settings;
use crate::output::{self, Table};

pub(crate) fn run(settings: &Settings, args: &args::Ps) -> anyhow::Result<()> {
    // What a killed command left is no container any more.
    let runtime = settings.open_swept_runtime()?;
    let mut records = Record::list(runtime.root())?;
    records.retain(|record| args.all || record.status != Status::Stopped);
    if args.format == Format::Json && !args.quiet {
        let rows: Vec<_> = records
            .iter()
            .map(|record| {
                json!({
                    "id": record.id.as_str(),
                    "name": record.name,
                    "image": record.image,
                    "command": record.command,
                    "status": status(record),
                    "exit_code": record.exit.map(|exit| exit.exit_code()),
                })
            })
            .collect();
        output::json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]);
    for record in &records {
        let id = if args.no_trunc { record.id.as_str() } else { record.id.short() };
        if args.quiet {
            output::line(id)?;
            continue;
        }
        let cut = |text: &str, length: usize| {
            if args.no_trunc || text.chars().count() <= length {
                text.to_owned()
            } else {
                text.chars().take(length - 1).chain(['…']).collect()
            }
        };
        let image = record.image.strip_prefix("sha256:").unwrap_or(&record.image);
        table.row([
            id.to_owned(),
            image.chars().take(if args.no_trunc { usize::MAX } else { 12 }).collect(),
            format!("\"{}\"", cut(&record.command.join(" "), 20)),
            output::ago(record.created),
            status(record),
            record.name.clone().unwrap_or_default(),
        ]);
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}

/// Docker's words: `Up 3 minutes`, `Exited (0) 2 hours ago`.
fn status(record: &Record) -> String {
    let since = |then| output::span(output::now().duration_since(then).unwrap_or_default());
    match (record.status, record.exit, record.started) {
        (Status::Stopped, Some(exit), _) => {
            format!("Exited ({}) {}", exit.exit_code(), output::ago(exit.finished))
        }
        (Status::Stopped, None, _) => "Dead".to_owned(),
        (Status::Running, _, Some(started)) => format!("Up {}", since(started)),
        (Status::Running, _, None) => "Up".to_owned(),
        (Status::Creating | Status::Created, ..) => "Created".to_owned(),
    }
}
