//! `abax actor nonces`

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;

use super::rows;
use crate::args::{Format, NonceCreate, NonceList, NonceRemove, NonceVerb};
use crate::client::{Body, Client, text};
use crate::output::{self, Table};

pub(super) async fn run(client: &Client, format: Format, verb: &NonceVerb) -> anyhow::Result<()> {
    match verb {
        NonceVerb::List(args) => list(client, format, args).await,
        NonceVerb::Create(args) => create(client, format, args).await,
        NonceVerb::Remove(args) => remove(client, args).await,
    }
}

async fn list(client: &Client, format: Format, args: &NonceList) -> anyhow::Result<()> {
    let of = place(client, &args.actor, args.alias).await?;
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    if let Some(nonce) = &args.nonce {
        let nonce = client.get(&[&of[..], &["nonces", nonce]].concat()).await?;
        match format {
            Format::Json => output::json(&nonce)?,
            Format::Table => super::print_lines(
                &nonce,
                &[
                    ("id", "id"),
                    ("actor", "actor_id"),
                    ("alias", "alias"),
                    ("owner", "owner"),
                    ("level", "level"),
                    ("description", "description"),
                    ("max uses", "max_uses"),
                    ("uses left", "remaining_uses"),
                    ("used", "current_uses"),
                    ("created", "create_time"),
                    ("last used", "last_use_time"),
                ],
            )?,
        }
        return Ok(());
    }
    let nonces = client.get(&[&of[..], &["nonces"]].concat()).await?;
    if format == Format::Json {
        output::json(&nonces)?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "LEVEL", "LEFT", "OWNER", "CREATED", "DESCRIPTION"]);
    for nonce in rows(&nonces) {
        let left = text(nonce, "remaining_uses");
        table.row([
            text(nonce, "id"),
            text(nonce, "level"),
            if left == "-1" { "any".to_owned() } else { left },
            text(nonce, "owner"),
            super::time(nonce, "create_time"),
            text(nonce, "description"),
        ]);
    }
    table.print()?;
    Ok(())
}

async fn create(client: &Client, format: Format, args: &NonceCreate) -> anyhow::Result<()> {
    let of = place(client, &args.actor, args.alias).await?;
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    let body = json!({
        "max_uses": args.max_uses,
        "level": args.level.name(),
        "description": args.description.as_deref().unwrap_or_default(),
    });
    let path = [&of[..], &["nonces"]].concat();
    let nonce = client.request(Method::POST, &path, &[], Body::Json(body)).await?;
    match format {
        Format::Json => output::json(&nonce)?,
        Format::Table => output::line(text(&nonce, "id"))?,
    }
    Ok(())
}

async fn remove(client: &Client, args: &NonceRemove) -> anyhow::Result<()> {
    let of = place(client, &args.actor, args.alias).await?;
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    for nonce in &args.nonces {
        client
            .request(Method::DELETE, &[&of[..], &["nonces", nonce]].concat(), &[], Body::None)
            .await
            .with_context(|| format!("could not remove nonce {nonce}"))?;
        output::line(nonce)?;
    }
    Ok(())
}

/// Where the nonces of an actor are, or the own ones of an alias.
async fn place(client: &Client, name: &str, is_alias: bool) -> anyhow::Result<Vec<String>> {
    if is_alias {
        return Ok(vec!["aliases".to_owned(), name.to_owned()]);
    }
    Ok(vec![text(&client.actor(name).await?, "id")])
}
