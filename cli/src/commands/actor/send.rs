//! `abax actor send`

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::logs::Show;
use crate::args::{ActorSend, Format};
use crate::client::{Body, Client, Done, NONCE, text};
use crate::exit::{Silent, Usage};
use crate::output;

pub(crate) async fn run(client: &Client, format: Format, args: &ActorSend) -> anyhow::Result<()> {
    let body = body(args)?;
    let mut query: Vec<(String, String)> = super::environment(&args.env)?
        .into_iter()
        .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
        .collect();
    if let Some(given) = &args.query {
        query.extend(reqwest::Url::parse(&format!("q:?{given}"))?.query_pairs().into_owned());
    }
    let own;
    let (client, actor) = match &args.nonce {
        // It opens this one actor, under the name that it was made for.
        Some(nonce) => {
            query.push((NONCE.to_owned(), nonce.clone()));
            own = client.without_token();
            (&own, args.actor.clone())
        }
        None => (client, text(&client.actor(&args.actor).await?, "id")),
    };
    let path = [actor.as_str(), "messages"];
    if args.synchronous {
        query.push(("_abaco_synchronous".to_owned(), "true".to_owned()));
        let bytes = match client.bytes_or_accepted(Method::POST, &path, &query, body).await? {
            Done::Bytes(bytes) => bytes,
            // The service has waited for as long as it does.
            Done::Accepted(sent) => {
                let execution = text(&sent, "execution_id");
                bail!(
                    "execution {execution} has not ended yet, and goes on; see `abax actor logs {} \
                     {execution} -f`",
                    args.actor
                );
            }
        };
        return Ok(output::raw(&bytes)?);
    }
    let sent = client.request(Method::POST, &path, &query, body).await?;
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
        let ended = super::logs::follow(client, actor, execution, Show::Nothing).await?;
        output::json(&ended)?;
        return Ok(ended);
    }
    // What is not the log goes to standard error, so that a pipe gets the log.
    output::note(&format!("{execution}\n"))?;
    let ended = super::logs::follow(client, actor, execution, Show::Log).await?;
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

/// The message, of whatever kind.
fn body(args: &ActorSend) -> anyhow::Result<Body> {
    const WHAT: &str = "the message";
    if let Some(json) = &args.json {
        return Ok(Body::JsonText(super::checked_json(WHAT, json.clone())?));
    }
    if let Some(path) = &args.json_file {
        return Ok(Body::JsonText(super::checked_json(WHAT, super::read_text(path)?)?));
    }
    if let Some(path) = &args.file {
        return Ok(Body::Binary(super::read(path)?));
    }
    if let Some(message) = &args.any
        && super::checked_json(WHAT, message.clone()).is_ok()
    {
        return Ok(Body::JsonText(message.clone()));
    }
    match args.message.as_ref().or(args.any.as_ref()) {
        Some(message) => Ok(Body::Json(json!({ "message": message }))),
        None => Err(Usage("there is no message".to_owned()).into()),
    }
}
