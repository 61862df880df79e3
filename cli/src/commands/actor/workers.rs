//! `abax actor workers`

use reqwest::Method;
use serde_json::json;

use super::rows;
use crate::args::{ActorWorkers, Format};
use crate::client::{Body, Client, text};
use crate::output::{self, Table};

pub(super) async fn run(
    client: &Client,
    format: Format,
    args: &ActorWorkers,
) -> anyhow::Result<()> {
    let id = text(&client.actor(&args.actor).await?, "id");
    if let Some(num) = args.num {
        let body = Body::Json(json!({"num": num}));
        let answer = client.ask(Method::POST, &[&id, "workers"], &[], body, None).await?;
        output::line(answer.message)?;
        return Ok(());
    }
    if let Some(worker) = &args.stop {
        let path = [id.as_str(), "workers", worker];
        let answer = client.ask(Method::DELETE, &path, &[], Body::None, None).await?;
        output::line(answer.message)?;
        return Ok(());
    }
    if let Some(worker) = &args.worker {
        let worker = client.get(&[&id, "workers", worker]).await?;
        match format {
            Format::Json => output::json(&worker)?,
            Format::Table => super::print_lines(
                &worker,
                &[
                    ("id", "id"),
                    ("status", "status"),
                    ("host", "host_name"),
                    ("image", "image"),
                    ("revision", "revision"),
                    ("created", "create_time"),
                    ("last ran", "last_execution_time"),
                    ("last seen", "last_health_check_time"),
                ],
            )?,
        }
        return Ok(());
    }
    let workers = client.get(&[&id, "workers"]).await?;
    if format == Format::Json {
        output::json(&workers)?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "STATUS", "HOST", "IMAGE", "CREATED", "LAST RAN"]);
    for worker in rows(&workers) {
        if args.quiet {
            output::line(text(worker, "id"))?;
        } else {
            table.row([
                text(worker, "id"),
                text(worker, "status"),
                text(worker, "host_name"),
                text(worker, "image"),
                super::time(worker, "create_time"),
                super::time(worker, "last_execution_time"),
            ]);
        }
    }
    if !args.quiet {
        table.print()?;
    }
    Ok(())
}
