//! `abax actor rm`

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;

use crate::args::{ActorRemove, Format};
use crate::client::{Body, Client, text};
use crate::output;

pub(crate) async fn run(client: &Client, format: Format, args: &ActorRemove) -> anyhow::Result<()> {
    let mut removed = Vec::new();
    for name in &args.actors {
        let id = text(&client.actor(name).await?, "id");
        client
            .request(Method::DELETE, &[&id], &[], Body::None)
            .await
            .with_context(|| format!("could not delete actor {name}"))?;
        match format {
            Format::Json => removed.push(id),
            Format::Table => output::line(id)?,
        }
    }
    if format == Format::Json {
        output::json(&json!(removed))?;
    }
    Ok(())
}
