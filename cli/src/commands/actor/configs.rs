//! `abax actor configs`

use std::path::Path;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{permissions, rows};
use crate::args::{ConfigsCreate, ConfigsList, ConfigsRemove, ConfigsUpdate, ConfigsVerb, Format};
use crate::client::{Body, Client, text};
use crate::output::{self, Table};

pub(super) async fn run(client: &Client, format: Format, verb: &ConfigsVerb) -> anyhow::Result<()> {
    match verb {
        ConfigsVerb::List(args) => list(client, format, args).await,
        ConfigsVerb::Create(args) => create(client, format, args).await,
        ConfigsVerb::Update(args) => update(client, format, args).await,
        ConfigsVerb::Remove(args) => remove(client, args).await,
        ConfigsVerb::Permissions(args) => {
            permissions::run(client, format, &["configs", &args.of], args).await
        }
    }
}

async fn list(client: &Client, format: Format, args: &ConfigsList) -> anyhow::Result<()> {
    let found = match &args.name {
        Some(name) => Value::Array(vec![client.get(&["configs", name]).await?]),
        None => client.get(&["configs"]).await?,
    };
    if format == Format::Json {
        match &args.name {
            Some(_) => output::json(&found[0])?,
            None => output::json(&found)?,
        }
        return Ok(());
    }
    let mut table = Table::new(["NAME", "VALUE", "SECRET", "ACTORS", "OWNER"]);
    for config in rows(&found) {
        if args.quiet {
            output::line(text(config, "name"))?;
        } else {
            table.row([
                text(config, "name"),
                text(config, "value"),
                text(config, "is_secret"),
                text(config, "actors"),
                text(config, "owner"),
            ]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}

async fn create(client: &Client, format: Format, args: &ConfigsCreate) -> anyhow::Result<()> {
    let body = json!({
        "name": args.name,
        "value": value(args.value.as_deref(), args.file.as_deref())?.unwrap_or_default(),
        "is_secret": args.secret,
        "actors": args.actors.join(","),
    });
    let made = client.request(Method::POST, &["configs"], &[], Body::Json(body)).await?;
    print(format, &made)
}

/// The service replaces a config whole, and leaves a secret as it is where what it
/// shows in its place comes back.
async fn update(client: &Client, format: Format, args: &ConfigsUpdate) -> anyhow::Result<()> {
    let present = client.get(&["configs", &args.name]).await?;
    let mut fields: Map<String, Value> = ["name", "value", "is_secret", "actors"]
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), present.get(*field)?.clone())))
        .collect();
    if let Some(value) = value(args.value.as_deref(), args.file.as_deref())? {
        fields.insert("value".into(), json!(value));
    }
    if let Some(secret) = args.secret {
        fields.insert("is_secret".into(), json!(secret));
    }
    if !args.actors.is_empty() {
        fields.insert("actors".into(), json!(args.actors.join(",")));
    }
    let body = Body::Json(Value::Object(fields));
    let changed = client.request(Method::PUT, &["configs", &args.name], &[], body).await?;
    print(format, &changed)
}

/// The value of the command line, or the file's without the end of its last line.
fn value(value: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    match (value, file) {
        (Some(value), _) => Ok(Some(value.to_owned())),
        (None, Some(path)) => {
            let mut text = super::read_text(path)?;
            if text.ends_with('\n') {
                text.pop();
            }
            Ok(Some(text))
        }
        (None, None) => Ok(None),
    }
}

fn print(format: Format, config: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(config)?,
        Format::Table => output::line(text(config, "name"))?,
    }
    Ok(())
}

async fn remove(client: &Client, args: &ConfigsRemove) -> anyhow::Result<()> {
    for config in &args.configs {
        client
            .request(Method::DELETE, &["configs", config], &[], Body::None)
            .await
            .with_context(|| format!("could not remove config {config}"))?;
        output::line(config)?;
    }
    Ok(())
}
