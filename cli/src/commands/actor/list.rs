//! `abax actor list`

use crate::args::{ActorList, Format};
use crate::client::{Client, text};
use crate::output::{self, Table};

pub(crate) async fn run(client: &Client, format: Format, args: &ActorList) -> anyhow::Result<()> {
    if let Some(actor) = &args.actor {
        return super::print_actor(format, &client.actor(actor).await?);
    }
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
                text(actor, "status"),
                super::time(actor, "create_time"),
            ]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}
