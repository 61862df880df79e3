//! `abax actor update`
//!
//! The service replaces an actor whole; a person changes one thing. So the
//! present values are read first and sent back with the changes over them.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::args::{ActorUpdate, Format};
use crate::client::{Body, Client, text};
use crate::output;

/// What an update would reset to its default if it were left out.
const KEPT: [&str; 19] = [
    "image",
    "description",
    "stateless",
    "type",
    "token",
    "webhook",
    "link",
    "hints",
    "privileged",
    "max_workers",
    "mem_limit",
    "max_cpus",
    "use_container_uid",
    "default_environment",
    "queue",
    "log_ex",
    "max_run_time",
    "run_as_executor",
    "cron_on",
];

pub(crate) async fn run(client: &Client, format: Format, args: &ActorUpdate) -> anyhow::Result<()> {
    let changes = super::fields(&args.settings)?;
    let actor = client.actor(&args.actor).await?;
    let mut fields = present(&actor);
    fields.extend(changes);
    if let Some(image) = args.image.as_ref().or(args.new_image.as_ref()) {
        fields.insert("image".into(), json!(image));
    }
    if args.stateful {
        fields.insert("stateless".into(), json!(false));
    }
    if args.force {
        fields.insert("force".into(), json!(true));
    }
    let id = text(&actor, "id");
    let actor = client.request(Method::PUT, &[&id], &[], Body::Json(Value::Object(fields))).await?;
    match format {
        Format::Json => output::json(&actor)?,
        Format::Table => output::line(text(&actor, "id"))?,
    }
    Ok(())
}

/// What an actor has now, as fields of an update that changes nothing.
pub(super) fn present(actor: &Value) -> Map<String, Value> {
    KEPT.iter()
        .filter_map(|field| match actor.get(*field) {
            None | Some(Value::Null) => None,
            // The default of all others.
            Some(Value::Bool(false)) if !["stateless", "token"].contains(field) => None,
            // A text is the service's default, which nobody chose.
            Some(Value::String(_)) if *field == "token" => None,
            Some(value) => Some(((*field).to_owned(), value.clone())),
        })
        .collect()
}
