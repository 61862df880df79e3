//! `abax actor results`

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::args::{ActorResults, Format};
use crate::client::{Body, Client, Refused, text};
use crate::output;

pub(super) async fn run(
    client: &Client,
    format: Format,
    args: &ActorResults,
) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    let execution = match &args.execution {
        Some(execution) => execution.clone(),
        None => super::newest(client, &id, &args.actor).await?,
    };
    // An unknown execution is said so, and not taken for one without results.
    client.get(&[&id, "executions", &execution]).await?;
    if let Some(number) = args.number {
        let bytes = result(client, &id, &execution, number).await?;
        match format {
            Format::Json => output::json(&json!({"number": number, "size": bytes.len()}))?,
            Format::Table => output::raw(&bytes)?,
        }
        return Ok(());
    }
    let mut sizes = Vec::new();
    for number in 1.. {
        let bytes = match result(client, &id, &execution, number).await {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => break,
            Err(error) => return Err(error),
        };
        match format {
            Format::Json => sizes.push(json!({"number": number, "size": bytes.len()})),
            Format::Table => output::raw(&bytes)?,
        }
    }
    if format == Format::Json {
        output::json(&sizes)?;
    }
    Ok(())
}

async fn result(
    client: &Client,
    actor: &str,
    execution: &str,
    number: u32,
) -> anyhow::Result<Vec<u8>> {
    let path = [actor, "executions", execution, "results", &number.to_string()];
    client.bytes(Method::GET, &path, &[], Body::None).await
}

/// Whether there is no result of that number, so none after it.
fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}
