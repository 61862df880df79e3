//! `abax actor list`

use serde_json::Value;

use crate::args::{ActorList, Format};
use crate::client::{Client, text};
use crate::output::{self, Table};

pub(crate) async fn run(client: &Client, format: Format, args: &ActorList) -> anyhow::Result<()> {
    let actors = client.get(&[]).await?;
    if format == Format::Json {
        output::json(&actors)?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "NAME", "IMAGE", "STATUS", "CREATED"]);
    for actor in actors.as_array().map(Vec::as_slice).unwrap_or_default() {
        if args.quiet {
            output::line(text(actor, "id"))?;
        } else {
            table.row([
                text(actor, "id"),
                text(actor, "name"),
                text(actor, "image"),
                status(actor),
                super::time(actor, "create_time"),
            ]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}

/// The status, and what is wrong where something is.
fn status(actor: &Value) -> String {
    let (status, message) = (text(actor, "status"), text(actor, "status_message"));
    if status == "ERROR" && !message.trim().is_empty() {
        format!("{status}: {message}")
    } else {
        status
    }
}
