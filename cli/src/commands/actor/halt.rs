//! `abax actor halt`

use anyhow::Context as _;
use reqwest::Method;

use crate::args::ActorHalt;
use crate::client::{Body, Client, text};
use crate::output;

pub(super) async fn run(client: &Client, args: &ActorHalt) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    for execution in &args.executions {
        client
            .request(Method::DELETE, &[&id, "executions", execution], &[], Body::None)
            .await
            .with_context(|| format!("could not halt execution {execution}"))?;
        output::line(execution)?;
    }
    Ok(())
}
