//! `abax actor search`

use reqwest::Method;
use serde_json::Value;

use super::rows;
use crate::args::{ActorSearch, Collection, Format};
use crate::client::{Body, Client, text};
use crate::exit::Usage;
use crate::output::{self, Table};

pub(super) async fn run(client: &Client, format: Format, args: &ActorSearch) -> anyhow::Result<()> {
    let mut query = Vec::new();
    for condition in &args.conditions {
        let (field, value) = condition.split_once('=').ok_or_else(|| {
            Usage(format!("{condition:?} is no condition; write it like status=COMPLETE"))
        })?;
        query.push((field.to_owned(), value.to_owned()));
    }
    let numbers = [("limit", args.limit.map(u64::from)), ("skip", args.skip)];
    query.extend(
        numbers.into_iter().filter_map(|(name, n)| Some((name.to_owned(), n?.to_string()))),
    );
    let texts = [("search", &args.words), ("exactsearch", &args.phrase)];
    query.extend(
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?))),
    );
    let path = ["search", args.collection.name()];
    let found = client.request(Method::GET, &path, &query, Body::None).await?;
    if format == Format::Json {
        output::json(&found)?;
        return Ok(());
    }
    let hits = found.get("search").map(rows).unwrap_or_default();
    if args.quiet {
        for hit in hits {
            output::line(id(args.collection, hit))?;
        }
        return Ok(());
    }
    print(args.collection, hits)?;
    let total = found.pointer("/_metadata/total_count").and_then(Value::as_u64).unwrap_or_default();
    if total > hits.len() as u64 {
        output::note(&format!("{} of {total} are shown\n", hits.len()))?;
    }
    Ok(())
}

fn print(collection: Collection, hits: &[Value]) -> anyhow::Result<()> {
    let mut table = match collection {
        Collection::Actors => Table::new(["ID", "NAME", "IMAGE", "STATUS", "CREATED"]),
        Collection::Executions => Table::new(["ID", "ACTOR", "STATUS", "EXIT CODE", "STARTED"]),
        Collection::Workers => Table::new(["ID", "ACTOR", "STATUS", "IMAGE", "CREATED"]),
        // A log says nothing in a column.
        Collection::Logs => {
            for hit in hits {
                output::line(format!("==> {} <==", output::printable(&id(collection, hit))))?;
                output::raw(text(hit, "logs").as_bytes())?;
            }
            return Ok(());
        }
    };
    for hit in hits {
        let cells = match collection {
            Collection::Actors => ["name", "image", "status", "create_time"],
            Collection::Executions => ["actor_id", "status", "exit_code", "start_time"],
            Collection::Workers | Collection::Logs => {
                ["actor_id", "status", "image", "create_time"]
            }
        };
        let [a, b, c, time] = cells;
        table.row([
            id(collection, hit),
            text(hit, a),
            text(hit, b),
            text(hit, c),
            super::time(hit, time),
        ]);
    }
    table.print()?;
    Ok(())
}

/// What a hit is called; a log has the name of its execution.
fn id(collection: Collection, hit: &Value) -> String {
    if collection != Collection::Logs {
        return text(hit, "id");
    }
    let link = hit.pointer("/_links/execution").and_then(Value::as_str).unwrap_or_default();
    link.rsplit('/').next().unwrap_or_default().to_owned()
}

impl Collection {
    /// The service's word.
    fn name(self) -> &'static str {
        match self {
            Self::Actors => "actors",
            Self::Executions => "executions",
            Self::Workers => "workers",
            Self::Logs => "logs",
        }
    }
}
