//! The actor verbs: a service over HTTP.

mod aliases;
mod configs;
mod create;
mod cron;
mod delete;
mod deploy;
mod events;
mod executions;
mod halt;
mod init;
mod list;
mod logs;
mod messages;
mod nonces;
mod permissions;
mod results;
mod search;
mod send;
mod show;
mod state;
mod update;
mod utilization;
mod version;
mod workers;

use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::args::{self, ActorVerb, Format};
use crate::client::{Client, text};
use crate::commands::service::keys;
use crate::config::Settings;
use crate::exit::{Usage, WritingOutput};
use crate::output;

/// A token of our own making is for one command, which may follow a log for long.
const OWN_TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);

/// `abax actor …`
///
/// # Errors
///
/// Whatever the verb could not do.
pub(crate) fn run(settings: &Settings, args: &args::Actor) -> anyhow::Result<()> {
    // These read and write files here, and one of them starts containers, which a
    // process does before it has threads.
    match &args.verb {
        ActorVerb::Init(args) => return init::run(args),
        ActorVerb::Deploy(args) => deploy::build(settings, args)?,
        _ => {}
    }
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
            ActorVerb::Halt(args) => halt::run(&client, args).await,
            ActorVerb::Logs(args) => logs::run(&client, format, args).await,
            ActorVerb::Results(args) => results::run(&client, format, args).await,
            ActorVerb::Messages(args) => messages::run(&client, format, args).await,
            ActorVerb::State(args) => state::run(&client, format, args).await,
            ActorVerb::Permissions(args) => {
                let actor = text(&client.actor(&args.of).await?, "id");
                permissions::run(&client, format, &[&actor], args).await
            }
            ActorVerb::Nonces(args) => nonces::run(&client, format, &args.verb).await,
            ActorVerb::Aliases(args) => aliases::run(&client, format, &args.verb).await,
            ActorVerb::Configs(args) => configs::run(&client, format, &args.verb).await,
            ActorVerb::Workers(args) => workers::run(&client, format, args).await,
            ActorVerb::Cron(args) => cron::run(&client, format, args).await,
            ActorVerb::Events(args) => events::run(&client, format, args).await,
            ActorVerb::Search(args) => search::run(&client, format, args).await,
            ActorVerb::Utilization => utilization::run(&client, format).await,
            ActorVerb::Deploy(args) => deploy::register(&client, format, args).await,
            ActorVerb::Version => version::run(&client, format).await,
            ActorVerb::Init(_) => Ok(()),
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
fn fields(settings: &args::ActorSettings) -> anyhow::Result<Map<String, Value>> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    set("description", settings.description.as_ref().map(|text| json!(text)));
    set("default_environment", default_environment(settings)?.map(Value::Object));
    if let Some(limit) = &settings.mem_limit {
        output::parse_size(limit)?;
        set("mem_limit", Some(json!(limit)));
    }
    set("max_cpus", settings.cpus.map(output::nano_cpus).transpose()?.map(|nanos| json!(nanos)));
    set("max_workers", settings.max_workers.map(|workers| json!(workers)));
    set("max_run_time", settings.max_run_time.map(|seconds| json!(seconds)));
    set("log_ex", settings.log_ex.map(|seconds| json!(seconds)));
    set("hints", hints(&settings.hints).map(|hints| json!(hints)));
    set("queue", settings.queue.as_ref().map(|queue| json!(queue)));
    set("link", settings.link.as_ref().map(|link| json!(link)));
    set("webhook", settings.webhook.as_ref().map(|webhook| json!(webhook)));
    if let Some(schedule) = &settings.cron {
        set("cron_schedule", Some(json!(schedule)));
        set("cron_on", Some(json!(true)));
    }
    let token = if settings.no_token { Some(false) } else { settings.with_token };
    set("token", token.map(|token| json!(token)));
    set("privileged", settings.privileged.map(|privileged| json!(privileged)));
    set("use_container_uid", settings.use_container_uid.map(|image_s| json!(image_s)));
    set("run_as_executor", settings.run_as_executor.map(|sender_s| json!(sender_s)));
    Ok(fields)
}

/// What the file says, and over it what the command line says.
fn default_environment(
    settings: &args::ActorSettings,
) -> anyhow::Result<Option<Map<String, Value>>> {
    let mut all = match &settings.env_file {
        Some(path) => Some(json_object(path)?),
        None => None,
    };
    if !settings.env.is_empty() {
        all.get_or_insert_default().extend(environment(&settings.env)?);
    }
    Ok(all)
}

/// A file that holds one JSON object.
fn json_object(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let bytes =
        std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Usage(format!("{}: it holds no JSON object", path.display())).into()),
        Err(error) => Err(Usage(format!("{}: it is not JSON: {error}", path.display())).into()),
    }
}

/// Tags as they were given, one by one or as JSON lists of them.
fn hints(given: &[String]) -> Option<Vec<String>> {
    let all = given.iter().flat_map(|hint| {
        let list: Option<Vec<String>> =
            hint.trim_start().starts_with('[').then(|| serde_json::from_str(hint).ok()).flatten();
        list.unwrap_or_else(|| vec![hint.clone()])
    });
    (!given.is_empty()).then(|| all.collect())
}

/// The bytes of a file, or of standard input where it is `-`.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("could not read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// As [`read`], for what must be text.
fn read_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Usage(format!("{}: it is not UTF-8", path.display())).into())
}

/// JSON as somebody wrote it.
fn checked_json(what: &str, json: String) -> Result<String, Usage> {
    serde_json::from_str::<IgnoredAny>(&json)
        .map_err(|error| Usage(format!("{what} is not JSON: {error}")))?;
    Ok(json)
}

/// The id of the execution that was accepted last.
async fn newest(client: &Client, id: &str, name: &str) -> anyhow::Result<String> {
    let summary = client.get(&[id, "executions"]).await?;
    let executions = summary.get("executions").and_then(Value::as_array);
    let newest = executions.and_then(|all| all.last()).map(|last| text(last, "id"));
    newest.with_context(|| format!("{name} has no executions yet; see `abax actor send`"))
}

/// The objects of a list.
fn rows(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An object as lines of a label and a value; what is empty has no line.
fn print_lines(value: &Value, fields: &[(&str, &str)]) -> Result<(), WritingOutput> {
    let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or_default().max(13);
    let mut lines = String::new();
    for (label, field) in fields {
        let shown = if field.ends_with("_time") { time(value, field) } else { text(value, field) };
        if !shown.trim().is_empty() {
            lines.push_str(&format!("{label:width$} {}\n", output::printable(&shown)));
        }
    }
    output::raw(lines.as_bytes())
}

/// A time of the service without its `T`, `Z` and fractions.
fn time(value: &Value, field: &str) -> String {
    let text = text(value, field);
    text.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ")
}

/// An actor, for people or programs.
fn print_actor(format: Format, actor: &Value) -> anyhow::Result<()> {
    if format == Format::Json {
        output::json(actor)?;
        return Ok(());
    }
    print_lines(
        actor,
        &[
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
            ("max run time", "max_run_time"),
            ("schedule", "cron_schedule"),
            ("next run", "cron_next_ex"),
            ("link", "link"),
            ("webhook", "webhook"),
            ("revision", "revision"),
            ("created", "create_time"),
            ("updated", "last_update_time"),
        ],
    )?;
    let mut lines = String::new();
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
