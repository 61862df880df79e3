//! The actor verbs: a service over HTTP.

mod create;
mod delete;
mod executions;
mod list;
mod logs;
mod send;
mod show;
mod update;

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::args::{self, ActorVerb, Format};
use crate::client::Client;
use crate::commands::service::keys;
use crate::config::Settings;
use crate::exit::Usage;
use crate::output;

/// A token of our own making is for one command, which may follow a log for long.
const OWN_TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);

/// `abax actor …`
///
/// # Errors
///
/// Whatever the verb could not do.
pub(crate) fn run(settings: &Settings, args: &args::Actor) -> anyhow::Result<()> {
    let token = token(settings, &args.server)?;
    let client = Client::new(args.server.server.as_deref(), token, settings.ca_bundle.as_deref())?;
    let format = args.server.format;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the I/O loop")?;
    tokio.block_on(async {
        match &args.verb {
            ActorVerb::Create(args) => create::run(&client, format, args).await,
            ActorVerb::List(args) => list::run(&client, format, args).await,
            ActorVerb::Show(args) => show::run(&client, format, args).await,
            ActorVerb::Update(args) => update::run(&client, format, args).await,
            ActorVerb::Remove(args) => delete::run(&client, format, args).await,
            ActorVerb::Send(args) => send::run(&client, format, args).await,
            ActorVerb::Executions(args) => executions::run(&client, format, args).await,
            ActorVerb::Logs(args) => logs::run(&client, format, args).await,
        }
    })
}

/// The flag or `ABAX_TOKEN`, else `TOKEN`, else an administrator's: one by the
/// signing key of the settings, or the one that `abax serve` keeps on this
/// machine. These are sent to nobody but this machine's service or the one of
/// the settings.
fn token(settings: &Settings, server: &args::Server) -> anyhow::Result<Option<SecretString>> {
    if let Some(token) = &server.token {
        return Ok(Some(SecretString::from(token.clone())));
    }
    if let Some(token) = std::env::var("TOKEN").ok().filter(|token| !token.is_empty()) {
        return Ok(Some(SecretString::from(token)));
    }
    if !server.server.as_deref().is_none_or(|url| is_ours(settings, url)) {
        return Ok(None);
    }
    if let Some(path) = &settings.api.signing_key_file {
        // Most users may not read the key, and have tokens of their own.
        if std::fs::File::open(path).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied) {
            return Ok(None);
        }
        let keys = keys::existing(settings)?;
        return Ok(
            keys.map(|keys| keys::mint(&keys, "admin", "ABAX", &["admin"], OWN_TOKEN_LIFETIME))
        );
    }
    let path = settings.data().join(keys::ADMIN_TOKEN);
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(Some(SecretString::from(token.trim().to_owned()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

/// Whether the service at `url` is on this machine, or the one of the settings.
fn is_ours(settings: &Settings, url: &str) -> bool {
    let same = |known: &String| known.trim_end_matches('/') == url.trim_end_matches('/');
    settings.api.public_url.as_ref().is_some_and(same)
        || reqwest::Url::parse(url).is_ok_and(|url| {
            url.host_str()
                .is_some_and(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]")
        })
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
fn environment(items: &[String]) -> Result<Map<String, Value>, Usage> {
    let mut environment = Map::new();
    for item in items {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = std::env::var(item).map_err(|_| {
                    Usage(format!("-e {item}: write NAME=VALUE; {item} is not set here"))
                })?;
                (item.as_str(), value)
            }
        };
        if name.is_empty() {
            return Err(Usage(format!("-e {item}: a variable needs a name")));
        }
        environment.insert(name.to_owned(), Value::String(value));
    }
    Ok(environment)
}

/// The settings that were given, as fields of a request.
fn fields(settings: &args::ActorSettings) -> Result<Map<String, Value>, Usage> {
    let mut fields = Map::new();
    if let Some(description) = &settings.description {
        fields.insert("description".into(), json!(description));
    }
    if !settings.env.is_empty() {
        fields.insert("default_environment".into(), environment(&settings.env)?.into());
    }
    if let Some(limit) = &settings.mem_limit {
        output::parse_size(limit)?;
        fields.insert("mem_limit".into(), json!(limit));
    }
    if let Some(cpus) = settings.cpus {
        fields.insert("max_cpus".into(), json!(output::nano_cpus(cpus)?));
    }
    if let Some(workers) = settings.max_workers {
        fields.insert("max_workers".into(), json!(workers));
    }
    if !settings.hints.is_empty() {
        fields.insert("hints".into(), json!(settings.hints));
    }
    Ok(fields)
}

/// A time of the service without its `T`, `Z` and fractions.
fn time(value: &Value, field: &str) -> String {
    let text = crate::client::text(value, field);
    text.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ")
}

/// An actor, for people or programs.
fn print_actor(format: Format, actor: &Value) -> anyhow::Result<()> {
    use crate::client::text;
    if format == Format::Json {
        output::json(actor)?;
        return Ok(());
    }
    let mut lines = String::new();
    for (label, field) in [
        ("id", "id"),
        ("name", "name"),
        ("image", "image"),
        ("status", "status"),
        ("reason", "status_message"),
        ("description", "description"),
        ("owner", "owner"),
        ("stateless", "stateless"),
        ("memory limit", "mem_limit"),
        ("max workers", "max_workers"),
        ("revision", "revision"),
        ("created", "create_time"),
        ("updated", "last_update_time"),
    ] {
        let value = match field {
            "create_time" | "last_update_time" => time(actor, field),
            _ => text(actor, field),
        };
        if !value.trim().is_empty() {
            lines.push_str(&format!("{label:13} {}\n", output::printable(&value)));
        }
    }
    if let Some(Value::Object(environment)) = actor.get("default_environment") {
        for (name, value) in environment {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            lines.push_str(&format!(
                "{:13} {}={}\n",
                "environment",
                output::printable(name),
                output::printable(&value)
            ));
        }
    }
    output::raw(lines.as_bytes())?;
    Ok(())
}
