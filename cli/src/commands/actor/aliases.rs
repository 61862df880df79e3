//! `abax actor aliases`

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{permissions, rows};
use crate::args::{AliasCreate, AliasList, AliasRemove, AliasUpdate, AliasVerb, Format};
use crate::client::{Body, Client, text};
use crate::output::{self, Table};

pub(super) async fn run(client: &Client, format: Format, verb: &AliasVerb) -> anyhow::Result<()> {
    match verb {
        AliasVerb::List(args) => list(client, format, args).await,
        AliasVerb::Create(args) => create(client, format, args).await,
        AliasVerb::Update(args) => update(client, format, args).await,
        AliasVerb::Remove(args) => remove(client, args).await,
        AliasVerb::Permissions(args) => {
            permissions::run(client, format, &["aliases", &args.of], args).await
        }
    }
}

async fn list(client: &Client, format: Format, args: &AliasList) -> anyhow::Result<()> {
    let found = match &args.alias {
        Some(alias) => Value::Array(vec![client.get(&["aliases", alias]).await?]),
        None => client.get(&["aliases"]).await?,
    };
    if format == Format::Json {
        match &args.alias {
            Some(_) => output::json(&found[0])?,
            None => output::json(&found)?,
        }
        return Ok(());
    }
    let mut table = Table::new(["ALIAS", "ACTOR", "OWNER"]);
    for alias in rows(&found) {
        if args.quiet {
            output::line(text(alias, "alias"))?;
        } else {
            table.row([text(alias, "alias"), text(alias, "actor_id"), text(alias, "owner")]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}

async fn create(client: &Client, format: Format, args: &AliasCreate) -> anyhow::Result<()> {
    let actor = text(&client.actor(&args.actor).await?, "id");
    let body = json!({"alias": args.alias, "actor_id": actor});
    let made = client.request(Method::POST, &["aliases"], &[], Body::Json(body)).await?;
    print(format, &made)
}

async fn update(client: &Client, format: Format, args: &AliasUpdate) -> anyhow::Result<()> {
    let actor = text(&client.actor(&args.actor).await?, "id");
    let body = Body::Json(json!({"actor_id": actor}));
    let changed = client.request(Method::PUT, &["aliases", &args.alias], &[], body).await?;
    print(format, &changed)
}

fn print(format: Format, alias: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(alias)?,
        Format::Table => output::line(text(alias, "alias"))?,
    }
    Ok(())
}

async fn remove(client: &Client, args: &AliasRemove) -> anyhow::Result<()> {
    for alias in &args.aliases {
        client
            .request(Method::DELETE, &["aliases", alias], &[], Body::None)
            .await
            .with_context(|| format!("could not remove alias {alias}"))?;
        output::line(alias)?;
    }
    Ok(())
}
