//! `abax actor send`

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::args::{ActorSend, Format};
use crate::client::{Body, Client, text};
use crate::exit::{Silent, Usage};
use crate::output;

pub(crate) async fn run(client: &Client, format: Format, args: &ActorSend) -> anyhow::Result<()> {
    let body = match (&args.message, &args.json, &args.file) {
        (_, Some(json), _) => {
            serde_json::from_str::<IgnoredAny>(json)
                .map_err(|error| Usage(format!("the message is not JSON: {error}")))?;
            Body::JsonText(json.clone())
        }
        (_, _, Some(path)) => Body::Binary(read(path)?),
        (Some(message), ..) => Body::Json(json!({ "message": message })),
        (None, None, None) => return Err(Usage("there is no message".to_owned()).into()),
    };
    let query: Vec<(String, String)> = super::environment(&args.env)?
        .into_iter()
        .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let actor = text(&client.actor(&args.actor).await?, "id");
    let sent = client.request(Method::POST, &[&actor, "messages"], &query, body).await?;
    let execution = text(&sent, "execution_id");
    if !args.wait {
        match format {
            Format::Json => output::json(&sent)?,
            Format::Table => output::line(execution)?,
        }
        return Ok(());
    }

    let waiting = wait(client, format, &actor, &execution);
    let ended = match args.timeout.map(Duration::from_secs) {
        None => waiting.await?,
        Some(limit) => match timeout(limit, waiting).await {
            Ok(ended) => ended?,
            Err(_) => bail!(
                "execution {execution} has not ended after {} s; see `abax actor logs {} {execution} -f`",
                limit.as_secs(),
                args.actor
            ),
        },
    };
    if super::logs::succeeded(&ended) {
        return Ok(());
    }
    // How it ended has been printed; a script sees it in the exit code.
    Err(Silent(1).into())
}

/// The execution when it has ended. For people: its id, its log as it comes,
/// and its clock.
async fn wait(
    client: &Client,
    format: Format,
    actor: &str,
    execution: &str,
) -> anyhow::Result<Value> {
    if format == Format::Json {
        let mut told = false;
        loop {
            let state = client.get_again(&[actor, "executions", execution]).await?;
            if super::logs::is_final(&state) {
                output::json(&state)?;
                return Ok(state);
            }
            if !told && !super::logs::has_started(&state) {
                told = super::logs::tell_waiting(&client.get_again(&[actor]).await?)?;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    // What is not the log goes to standard error, so that a pipe gets the log.
    output::note(&format!("{execution}\n"))?;
    let ended = super::logs::follow(client, actor, execution).await?;
    let mut end = String::new();
    if std::io::stdout().is_terminal() {
        end.push('\n');
    }
    for field in ["status", "outcome", "reason", "exit_code"] {
        let value = text(&ended, field);
        if !value.is_empty() {
            end.push_str(&format!(
                "{:13} {}\n",
                field.replace('_', " "),
                output::printable(&value)
            ));
        }
    }
    end.push_str(&super::executions::clock(&ended));
    output::note(&end)?;
    Ok(ended)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("could not read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("could not read {}", path.display()))
}
