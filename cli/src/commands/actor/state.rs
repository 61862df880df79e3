//! `abax actor state`

use reqwest::Method;
use serde_json::{Value, json};

use crate::args::{ActorState, Format};
use crate::client::{Body, Client, text};
use crate::output;

pub(super) async fn run(client: &Client, format: Format, args: &ActorState) -> anyhow::Result<()> {
    let new = match (&args.state, &args.file) {
        (Some(state), _) => Some(state.clone()),
        (None, Some(path)) => Some(super::read_text(path)?),
        (None, None) => None,
    };
    let new = new.map(|state| super::checked_json("the state", state)).transpose()?;
    let id = text(&client.actor(&args.actor).await?, "id");
    let path = [id.as_str(), "state"];
    let answer = match new {
        Some(state) => {
            let body = Body::JsonText(state);
            client.ask(Method::POST, &path, &[], body, args.if_version.as_deref()).await?
        }
        None => client.ask(Method::GET, &path, &[], Body::None, None).await?,
    };
    let state = answer.result.get("state").unwrap_or(&Value::Null);
    match format {
        Format::Json => output::json(&json!({"state": state, "version": answer.version}))?,
        Format::Table => output::json(state)?,
    }
    Ok(())
}
