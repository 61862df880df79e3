//! `abax actor utilization`

use crate::args::Format;
use crate::client::Client;
use crate::output;

pub(super) async fn run(client: &Client, format: Format) -> anyhow::Result<()> {
    let utilization = client.get(&["utilization"]).await?;
    match format {
        Format::Json => output::json(&utilization)?,
        Format::Table => super::print_lines(
            &utilization,
            &[
                ("actors", "currentActors"),
                ("ever made", "totalActors"),
                ("workers", "workers"),
                ("waiting", "commandQueue"),
            ],
        )?,
    }
    Ok(())
}
