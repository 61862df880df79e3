//! `abax actor events`

use super::rows;
use crate::args::{ActorEvents, Format};
use crate::client::{Client, text};
use crate::output::{self, Table};

pub(super) async fn run(client: &Client, format: Format, args: &ActorEvents) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    if args.webhook {
        let webhook = client.get(&[&id, "webhook"]).await?;
        match format {
            Format::Json => output::json(&webhook)?,
            Format::Table => {
                super::print_lines(&webhook, &[("url", "url"), ("secret", "signing_secret")])?
            }
        }
        return Ok(());
    }
    let deliveries = client.get(&[&id, "deliveries"]).await?;
    if format == Format::Json {
        output::json(&deliveries)?;
        return Ok(());
    }
    let mut table = Table::new(["TIME", "EVENT", "TO", "STATUS", "TRIES", "LAST ANSWER"]);
    for delivery in rows(&deliveries) {
        let error = text(delivery, "last_error");
        table.row([
            super::time(delivery, "event_time"),
            text(delivery, "event_type"),
            text(delivery, "target"),
            text(delivery, "status"),
            text(delivery, "attempts"),
            if error.is_empty() { text(delivery, "last_status") } else { error },
        ]);
    }
    table.print()?;
    Ok(())
}
