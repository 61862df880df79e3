//! `abax actor messages`

use reqwest::Method;

use crate::args::{ActorMessages, Format};
use crate::client::{Body, Client, text};
use crate::output;

pub(super) async fn run(
    client: &Client,
    format: Format,
    args: &ActorMessages,
) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    let (method, field) = match args.purge {
        true => (Method::DELETE, "msg"),
        false => (Method::GET, "messages"),
    };
    let answer = client.request(method, &[&id, "messages"], &[], Body::None).await?;
    match format {
        Format::Json => output::json(&answer)?,
        Format::Table => output::line(text(&answer, field))?,
    }
    Ok(())
}
