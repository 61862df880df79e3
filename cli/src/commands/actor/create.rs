//! `abax actor create`

use reqwest::Method;
use serde_json::{Value, json};

use crate::args::{ActorCreate, Format};
use crate::client::{Body, Client, text};
use crate::output;

pub(crate) async fn run(client: &Client, format: Format, args: &ActorCreate) -> anyhow::Result<()> {
    let mut fields = super::fields(&args.settings)?;
    fields.insert("image".into(), json!(args.image));
    if let Some(name) = &args.name {
        fields.insert("name".into(), json!(name));
    }
    fields.insert("stateless".into(), json!(!args.stateful));
    let actor = client.request(Method::POST, &[], &[], Body::Json(Value::Object(fields))).await?;
    match format {
        Format::Json => output::json(&actor)?,
        // The id alone, so that a script can keep it.
        Format::Table => output::line(text(&actor, "id"))?,
    }
    Ok(())
}
