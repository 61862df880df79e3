//! The command line of `abax actor`: clap types, nothing else.
//!
//! Where the old `abaco` tool had a command, its names and letters work here, too.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::Format;

/// `abax actor`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor create --name hello IMAGE\n  abax actor send hello 'a message' --wait\n  abax actor executions hello"
)]
pub(crate) struct Actor {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(subcommand)]
    pub(crate) verb: ActorVerb,
}

/// Which service, and who is asking.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The service's address [default: http://127.0.0.1:8000]
    #[arg(
        long,
        global = true,
        env = "ABAX_SERVER",
        value_name = "URL",
        help_heading = "Service options"
    )]
    pub(crate) server: Option<String>,
    /// The access token; better in ABAX_TOKEN, since arguments are seen by others [default: $TOKEN, else one for the service of this machine]
    #[arg(
        short = 'z',
        long,
        global = true,
        env = "ABAX_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Service options"
    )]
    pub(crate) token: Option<String>,
    /// Where `abax serve` keeps its keys [env: ABAX_DATA] [default: ROOT/service]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Service options")]
    pub(crate) data: Option<PathBuf>,
    /// How to write the result
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Service options")]
    pub(crate) format: Format,
}

/// The verbs of `abax actor`.
#[derive(Debug, Subcommand)]
pub(crate) enum ActorVerb {
    /// Register an image as an actor
    #[command(aliases = ["make", "register"])]
    Create(Box<ActorCreate>),
    /// List your actors
    #[command(visible_alias = "ls", aliases = ["actors", "images"])]
    List(ActorList),
    /// Show one actor
    Show(ActorShow),
    /// Change an actor; what is not named stays
    #[command(alias = "change")]
    Update(Box<ActorUpdate>),
    /// Delete an actor
    #[command(name = "rm", aliases = ["delete", "remove"])]
    Remove(ActorRemove),
    /// Send a message: one execution of the actor
    #[command(aliases = ["submit", "run"])]
    Send(ActorSend),
    /// List an actor's executions, or show one
    Executions(ActorExecutions),
    /// End executions, running or waiting
    #[command(aliases = ["cancel", "stop"])]
    Halt(ActorHalt),
    /// Print what an execution wrote
    Logs(ActorLogs),
    /// Print the results that an execution sent back
    Results(ActorResults),
    /// Count the messages that wait, or drop them
    #[command(alias = "mailbox")]
    Messages(ActorMessages),
    /// Show or set what a stateful actor keeps between executions
    State(ActorState),
    /// List who may use an actor, or share it
    #[command(aliases = ["share", "permission"])]
    Permissions(Sharing),
    /// Work with nonces: secrets that open one actor without a token
    #[command(visible_alias = "nonce")]
    Nonces(Nonces),
    /// Work with aliases: names of actors that can be pointed elsewhere
    #[command(visible_alias = "alias")]
    Aliases(Aliases),
    /// Work with configs: settings and secrets that executions are given
    #[command(visible_alias = "config")]
    Configs(Configs),
    /// List, add and stop an actor's workers
    #[command(alias = "worker")]
    Workers(ActorWorkers),
    /// Show or set when an actor is executed by itself
    Cron(ActorCron),
    /// Show what became of the events of an actor with a link or a webhook
    Events(ActorEvents),
    /// Find actors, executions, workers and logs
    Search(ActorSearch),
    /// Show how much there is in the service
    #[command(after_help = "Example:\n  abax actor utilization")]
    Utilization,
    /// Make the directory of a new actor's project
    Init(ActorInit),
    /// Build a project's image, and create or update its actor
    Deploy(Box<ActorDeploy>),
    /// Show the version of abax and of the service
    #[command(after_help = "Example:\n  abax actor version")]
    Version,
}

/// What an actor can be given.
#[derive(Debug, Args, Default)]
pub(crate) struct ActorSettings {
    /// What the actor does
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Set a default environment variable
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Default environment variables from a file with a JSON object
    #[arg(short = 'E', long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// Memory limit of an execution, such as 512m
    #[arg(long, alias = "memory", value_name = "SIZE")]
    pub(crate) mem_limit: Option<String>,
    /// CPUs of an execution, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// How many executions may run at once
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_workers: Option<u32>,
    /// End an execution after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_run_time: Option<u64>,
    /// Keep logs for this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) log_ex: Option<i64>,
    /// A tag, or a JSON list of tags; may be given more than once
    #[arg(short = 'H', long = "hint", value_name = "TEXT")]
    pub(crate) hints: Vec<String>,
    /// The class of hosts that run it
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// The actor that gets this one's events as messages; empty for none
    #[arg(long, value_name = "ACTOR")]
    pub(crate) link: Option<String>,
    /// The address that this actor's events are posted to; empty for none
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
    /// When to execute it, such as '2027-01-31 09 + 1 day' or 'now + 6 hours'
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) cron: Option<String>,
    /// Give executions an access token of the actor's owner
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) with_token: Option<bool>,
    /// Give executions no access token
    #[arg(short = 'A', long, conflicts_with = "with_token")]
    pub(crate) no_token: bool,
    /// Let executions do on their host what root may; for privileged users
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) privileged: Option<bool>,
    /// Run as the image's user, whatever user the operator assigns; for privileged users
    #[arg(
        short = 'u',
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) use_container_uid: Option<bool>,
    /// Run as whoever sends the message, where the operator knows the users of the hosts
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) run_as_executor: Option<bool>,
}

/// `abax actor create`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor create --name classifier -d 'top-5 labels of a photo' --mem-limit 1g classifier:latest\n  abax actor create --name counter -S --cron 'now + 1 day' counter:v1"
)]
pub(crate) struct ActorCreate {
    /// A name to call it by
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) settings: ActorSettings,
    /// Keep a state between executions, and run them one at a time
    #[arg(short = 'S', long)]
    pub(crate) stateful: bool,
    /// The default; for scripts of the old tool
    #[arg(short = 's', long, hide = true, conflicts_with = "stateful")]
    pub(crate) stateless: bool,
    /// Nothing to do here; for scripts of the old tool
    #[arg(short, long, hide = true)]
    pub(crate) force: bool,
    /// The image
    pub(crate) image: String,
}

/// `abax actor list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor list")]
pub(crate) struct ActorList {
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show this one instead
    pub(crate) actor: Option<String>,
}

/// `abax actor show`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor show classifier")]
pub(crate) struct ActorShow {
    /// Id, alias or name
    pub(crate) actor: String,
}

/// `abax actor update`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax actor update classifier classifier:v2 --mem-limit 2g\n\nAnother image, or --force, makes a new revision: what runs ends with the old image."
)]
pub(crate) struct ActorUpdate {
    #[command(flatten)]
    pub(crate) settings: ActorSettings,
    /// Another image; the same as a second argument
    #[arg(long, value_name = "IMAGE", conflicts_with = "new_image")]
    pub(crate) image: Option<String>,
    /// Fetch the image again, also under the same name
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Make a stateless actor stateful
    #[arg(short = 'S', long)]
    pub(crate) stateful: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// Another image
    #[arg(value_name = "IMAGE")]
    pub(crate) new_image: Option<String>,
}

/// `abax actor rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor rm classifier")]
pub(crate) struct ActorRemove {
    /// Ids, aliases or names
    #[arg(required = true, value_name = "ACTOR")]
    pub(crate) actors: Vec<String>,
}

/// `abax actor send`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor send hello 'a message' --wait\n  abax actor send classifier --json '{\"url\": \"https://example.org/cat.jpg\"}'\n  abax actor send classifier -f photo.jpg\n  abax actor send hello -Z NONCE -m 'from a friend'"
)]
pub(crate) struct ActorSend {
    /// Wait for the end, print the log and when what happened
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Wait for the first result, or else the log, and print nothing but that
    #[arg(short = 'x', long, conflicts_with = "wait")]
    pub(crate) synchronous: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub(crate) timeout: Option<u64>,
    /// A JSON message
    #[arg(long, value_name = "JSON", group = "what")]
    pub(crate) json: Option<String>,
    /// A JSON message from a file, or - for standard input
    #[arg(short = 'F', long, value_name = "FILE", group = "what")]
    pub(crate) json_file: Option<PathBuf>,
    /// A binary message from a file, or - for standard input
    #[arg(short, long, value_name = "FILE", group = "what")]
    pub(crate) file: Option<PathBuf>,
    /// A message that is JSON where it reads as JSON, and text otherwise
    #[arg(short = 'm', long = "message", value_name = "TEXT", group = "what")]
    pub(crate) any: Option<String>,
    /// Set an environment variable for this execution
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Such variables as a query string, such as 'a=1&b=2'
    #[arg(short, long, value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// A nonce of the actor or alias instead of a token
    #[arg(short = 'Z', long, value_name = "NONCE", conflicts_with = "wait")]
    pub(crate) nonce: Option<String>,
    /// Id, alias or name
    pub(crate) actor: String,
    /// A text message
    #[arg(required_unless_present_any = ["json", "json_file", "file", "any"], group = "what")]
    pub(crate) message: Option<String>,
}

/// `abax actor executions`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor executions hello\n  abax actor executions hello lzqzGWXpZ8pr"
)]
pub(crate) struct ActorExecutions {
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// Show this one
    pub(crate) execution: Option<String>,
}

/// `abax actor halt`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor halt hello lzqzGWXpZ8pr")]
pub(crate) struct ActorHalt {
    /// Id, alias or name
    pub(crate) actor: String,
    /// The executions' ids; what runs is asked to end first, and killed if it does not
    #[arg(required = true, value_name = "EXECUTION")]
    pub(crate) executions: Vec<String>,
}

/// `abax actor logs`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor logs hello -f\n  abax actor logs hello lzqzGWXpZ8pr"
)]
pub(crate) struct ActorLogs {
    /// Go on until the execution ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// The execution's id [default: the newest]
    pub(crate) execution: Option<String>,
}

/// `abax actor results`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor results classifier\n  abax actor results classifier lzqzGWXpZ8pr --number 2 > second\n\nAll results are printed one after the other as they are. Reading them takes none away."
)]
pub(crate) struct ActorResults {
    /// Only this one; the first is 1
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) number: Option<u32>,
    /// Id, alias or name
    pub(crate) actor: String,
    /// The execution's id [default: the newest]
    pub(crate) execution: Option<String>,
}

/// `abax actor messages`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor messages hello\n  abax actor messages hello --purge"
)]
pub(crate) struct ActorMessages {
    /// Drop the messages that wait; what runs goes on
    #[arg(short = 'X', long)]
    pub(crate) purge: bool,
    /// Id, alias or name
    pub(crate) actor: String,
}

/// `abax actor state`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor state counter\n  abax actor state counter '{\"count\": 0}'\n  abax actor state counter --format json     with the version that --if-version takes"
)]
pub(crate) struct ActorState {
    /// The new state as JSON from a file, or - for standard input
    #[arg(short = 'F', long, value_name = "FILE", conflicts_with = "state")]
    pub(crate) file: Option<PathBuf>,
    /// Set it only in the place of this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
    /// Id, alias or name
    pub(crate) actor: String,
    /// The new state as JSON
    #[arg(value_name = "JSON")]
    pub(crate) state: Option<String>,
}

/// Who may do what with an actor, an alias or a config.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor permissions classifier\n  abax actor permissions classifier --user alice --level execute\n  abax actor permissions classifier -u ABACO_WORLD -p READ\n\nLevel none takes a user's entry back. ABACO_WORLD is everybody of the tenant."
)]
pub(crate) struct Sharing {
    /// Whom to give a level
    #[arg(short, long, value_name = "USER", requires = "level")]
    pub(crate) user: Option<String>,
    /// What they may do; each level includes those before it
    #[arg(short = 'p', long, value_enum, ignore_case = true, requires = "user")]
    pub(crate) level: Option<Level>,
    /// What it is about, by id or name
    #[arg(value_name = "NAME")]
    pub(crate) of: String,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing
    None,
    /// See it
    Read,
    /// Send messages
    Execute,
    /// Change and delete it, and share it
    Update,
}

/// `abax actor nonces`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor nonces create hello --max-uses 3 --level read\n  abax actor nonces create --alias greeter\n  abax actor nonces list hello"
)]
pub(crate) struct Nonces {
    #[command(subcommand)]
    pub(crate) verb: NonceVerb,
}

/// The verbs of `abax actor nonces`.
#[derive(Debug, Subcommand)]
pub(crate) enum NonceVerb {
    /// List the nonces of an actor or alias, or show one
    #[command(visible_alias = "ls")]
    List(NonceList),
    /// Make a nonce; its id is the secret
    #[command(alias = "make")]
    Create(NonceCreate),
    /// Remove nonces
    #[command(name = "rm", aliases = ["delete", "remove"])]
    Remove(NonceRemove),
}

/// `abax actor nonces list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor nonces list hello")]
pub(crate) struct NonceList {
    /// The name is an alias, and the nonces are its own
    #[arg(long)]
    pub(crate) alias: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// Show this one
    pub(crate) nonce: Option<String>,
}

/// `abax actor nonces create`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor nonces create hello --max-uses 3 --level read")]
pub(crate) struct NonceCreate {
    /// How often it may be used; -1 for any number
    #[arg(short, long, value_name = "NUMBER", default_value_t = -1, allow_negative_numbers = true)]
    pub(crate) max_uses: i64,
    /// What it lets do
    #[arg(short, long, value_enum, ignore_case = true, default_value = "execute")]
    pub(crate) level: Level,
    /// What it is for
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The name is an alias, and the nonce is for it
    #[arg(long)]
    pub(crate) alias: bool,
    /// Id, alias or name
    pub(crate) actor: String,
}

/// `abax actor nonces rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor nonces rm hello ABAX_lzqzGWXpZ8pr")]
pub(crate) struct NonceRemove {
    /// The name is an alias, and the nonces are its own
    #[arg(long)]
    pub(crate) alias: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// The nonces' ids
    #[arg(required = true, value_name = "NONCE")]
    pub(crate) nonces: Vec<String>,
}

/// `abax actor aliases`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor aliases create classifier photo.labels\n  abax actor aliases update photo.labels classifier-v2\n  abax actor aliases list"
)]
pub(crate) struct Aliases {
    #[command(subcommand)]
    pub(crate) verb: AliasVerb,
}

/// The verbs of `abax actor aliases`.
#[derive(Debug, Subcommand)]
pub(crate) enum AliasVerb {
    /// List aliases, or show one
    #[command(visible_alias = "ls")]
    List(AliasList),
    /// Give an actor an alias
    #[command(alias = "make")]
    Create(AliasCreate),
    /// Point an alias to another actor
    #[command(alias = "change")]
    Update(AliasUpdate),
    /// Remove aliases
    #[command(name = "rm", aliases = ["delete", "remove"])]
    Remove(AliasRemove),
    /// List who may use an alias, or share it
    #[command(alias = "share")]
    Permissions(Sharing),
}

/// `abax actor aliases list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor aliases list")]
pub(crate) struct AliasList {
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show this one
    pub(crate) alias: Option<String>,
}

/// `abax actor aliases create`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor aliases create classifier photo.labels")]
pub(crate) struct AliasCreate {
    /// Nothing to do here; for scripts of the old tool
    #[arg(short, hide = true)]
    pub(crate) plain: bool,
    /// Id, alias or name of the actor
    pub(crate) actor: String,
    /// The new name
    pub(crate) alias: String,
}

/// `abax actor aliases update`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor aliases update photo.labels classifier-v2")]
pub(crate) struct AliasUpdate {
    /// The alias
    pub(crate) alias: String,
    /// Id, alias or name of the other actor
    pub(crate) actor: String,
}

/// `abax actor aliases rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor aliases rm photo.labels")]
pub(crate) struct AliasRemove {
    /// The aliases
    #[arg(required = true, value_name = "ALIAS")]
    pub(crate) aliases: Vec<String>,
}

/// `abax actor configs`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor configs create THRESHOLD 0.7 --actor classifier\n  abax actor configs create KEY --secret --file key.txt --actor classifier --actor other\n  abax actor configs list"
)]
pub(crate) struct Configs {
    #[command(subcommand)]
    pub(crate) verb: ConfigsVerb,
}

/// The verbs of `abax actor configs`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigsVerb {
    /// List configs, or show one; secrets are not shown
    #[command(visible_alias = "ls")]
    List(ConfigsList),
    /// Make a config
    #[command(alias = "make")]
    Create(ConfigsCreate),
    /// Change a config; what is not named stays
    #[command(alias = "change")]
    Update(ConfigsUpdate),
    /// Remove configs
    #[command(name = "rm", aliases = ["delete", "remove"])]
    Remove(ConfigsRemove),
    /// List who may use a config, or share it
    #[command(alias = "share")]
    Permissions(Sharing),
}

/// `abax actor configs list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor configs list")]
pub(crate) struct ConfigsList {
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show this one
    pub(crate) name: Option<String>,
}

/// `abax actor configs create`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax actor configs create KEY --secret --file key.txt --actor classifier"
)]
pub(crate) struct ConfigsCreate {
    /// Keep the value sealed, and show it to executions only
    #[arg(long)]
    pub(crate) secret: bool,
    /// The value from a file, or - for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// An actor whose executions get it, by id or alias; may be given more than once
    #[arg(short, long = "actor", value_name = "ACTOR", required = true)]
    pub(crate) actors: Vec<String>,
    /// The config's name, which is the variable's as well
    pub(crate) name: String,
    /// The value; better in a file where it is a secret, since arguments are seen by others
    #[arg(required_unless_present = "file")]
    pub(crate) value: Option<String>,
}

/// `abax actor configs update`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor configs update THRESHOLD 0.8")]
pub(crate) struct ConfigsUpdate {
    /// Keep the value sealed from now on, or with --secret=false no longer
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) secret: Option<bool>,
    /// The value from a file, or - for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// The actors whose executions get it, instead of those that did
    #[arg(short, long = "actor", value_name = "ACTOR")]
    pub(crate) actors: Vec<String>,
    /// The config's name
    pub(crate) name: String,
    /// The value
    pub(crate) value: Option<String>,
}

/// `abax actor configs rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax actor configs rm THRESHOLD")]
pub(crate) struct ConfigsRemove {
    /// The configs
    #[arg(required = true, value_name = "CONFIG")]
    pub(crate) configs: Vec<String>,
}

/// `abax actor workers`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor workers classifier\n  abax actor workers classifier --num 2\n  abax actor workers classifier --stop lzqzGWXpZ8pr"
)]
pub(crate) struct ActorWorkers {
    /// See that there are at least this many; for administrators
    #[arg(short, long, value_name = "NUMBER", group = "does")]
    pub(crate) num: Option<u32>,
    /// Show this one
    #[arg(short, long, value_name = "WORKER", group = "does")]
    pub(crate) worker: Option<String>,
    /// Stop this one, once it has nothing to do
    #[arg(long, value_name = "WORKER", group = "does")]
    pub(crate) stop: Option<String>,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, alias or name
    pub(crate) actor: String,
}

/// `abax actor cron`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor cron report\n  abax actor cron report '2027-01-31 09 + 1 month'\n  abax actor cron report 'now + 6 hours'\n  abax actor cron report --off\n\nA schedule is the first hour (UTC), and how many hours, days, weeks or months follow."
)]
pub(crate) struct ActorCron {
    /// Execute it by its schedule
    #[arg(long, conflicts_with = "off")]
    pub(crate) on: bool,
    /// Keep the schedule, and do not execute it
    #[arg(long)]
    pub(crate) off: bool,
    /// Id, alias or name
    pub(crate) actor: String,
    /// The schedule, which is on from then
    pub(crate) schedule: Option<String>,
}

/// `abax actor events`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  abax actor events hello\n  abax actor events hello --webhook")]
pub(crate) struct ActorEvents {
    /// Show the webhook instead, and the key that signs what is posted there
    #[arg(long)]
    pub(crate) webhook: bool,
    /// Id, alias or name
    pub(crate) actor: String,
}

/// `abax actor search`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor search executions status=COMPLETE start_time.gt=2027-01-01\n  abax actor search actors image.like=classifier\n  abax actor search logs --phrase 'out of cheese'\n\nOperators: eq neq lt lte gt gte in nin between like nlike. All conditions hold at once."
)]
pub(crate) struct ActorSearch {
    /// Words that bring a hit to the front
    #[arg(long, value_name = "WORDS")]
    pub(crate) words: Option<String>,
    /// A phrase that a hit contains
    #[arg(long, value_name = "TEXT")]
    pub(crate) phrase: Option<String>,
    /// How many to show
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u32>,
    /// How many to pass over
    #[arg(long, value_name = "NUMBER")]
    pub(crate) skip: Option<u64>,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Where to look
    #[arg(value_enum, ignore_case = true)]
    pub(crate) collection: Collection,
    /// What a hit is like
    #[arg(value_name = "FIELD[.OPERATOR]=VALUE")]
    pub(crate) conditions: Vec<String>,
}

/// What can be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Collection {
    /// Actors that are yours or shared with you
    Actors,
    /// Their executions
    Executions,
    /// Their workers
    Workers,
    /// What their executions wrote
    Logs,
}

/// `abax actor init`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax actor init --name counter -d 'counts what comes in'\n\nIt makes the directory NAME with a Dockerfile, reactor.py and reactor.rc, which `abax actor deploy` builds and registers."
)]
pub(crate) struct ActorInit {
    /// The actor's name, and the directory's
    #[arg(short, long)]
    pub(crate) name: String,
    /// What it does
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) description: String,
    /// The language of the template
    #[arg(short, long, default_value = "python3", value_parser = ["python3", "sh"])]
    pub(crate) language: String,
    /// The namespace of the image, such as registry.example.org/lab
    #[arg(short = 'O', long, value_name = "NAMESPACE")]
    pub(crate) organization: Option<String>,
    /// Where to make it [default: ./NAME]
    #[arg(short = 'B', long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// The image that the Dockerfile begins with [default: by the language]
    pub(crate) image: Option<String>,
}

/// `abax actor deploy`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax actor deploy                 in a directory made by `abax actor init`\n  abax actor deploy -U              updates the actor that was deployed from here\n  abax actor deploy -R              builds, and registers nothing\n\nThe image is built into the images of this machine. Hosts of a larger site get it from\na registry: put it there by docker or skopeo, and deploy with --no-build.\nA file secrets.json becomes the actor's default environment. The actor's id is kept in\n.ACTOR_ID."
)]
pub(crate) struct ActorDeploy {
    /// The Dockerfile
    #[arg(short = 'F', long, value_name = "FILE", default_value = "Dockerfile")]
    pub(crate) file: PathBuf,
    /// The project's settings
    #[arg(short = 'B', long, value_name = "FILE", default_value = "reactor.rc")]
    pub(crate) settings: PathBuf,
    /// The namespace of the image instead of the settings'
    #[arg(short = 'O', long, value_name = "NAMESPACE")]
    pub(crate) organization: Option<String>,
    /// The image's name instead of the settings'
    #[arg(short = 'c', long, value_name = "NAME")]
    pub(crate) image_name: Option<String>,
    /// The image's tag instead of the settings'
    #[arg(short = 't', long, value_name = "TAG")]
    pub(crate) image_tag: Option<String>,
    /// Stateless, whatever the settings say
    #[arg(short = 's', long, conflicts_with = "stateful")]
    pub(crate) stateless: bool,
    /// Stateful, whatever the settings say
    #[arg(short = 'S', long)]
    pub(crate) stateful: bool,
    /// Give executions no access token, whatever the settings say
    #[arg(short = 'A', long)]
    pub(crate) no_token: bool,
    /// A tag of the actor; may be given more than once
    #[arg(short = 'H', long = "hint", value_name = "TEXT")]
    pub(crate) hints: Vec<String>,
    /// Do not look for a newer base image
    #[arg(short = 'p', long)]
    pub(crate) no_pull: bool,
    /// Do every step of the build again
    #[arg(short = 'k', long)]
    pub(crate) no_cache: bool,
    /// Build nothing: the image is there
    #[arg(short = 'K', long, conflicts_with = "build_only")]
    pub(crate) no_build: bool,
    /// Update this actor, or the one of .ACTOR_ID
    #[arg(short = 'U', long, value_name = "ACTOR", num_args = 0..=1, action = ArgAction::Set)]
    #[expect(clippy::option_option, reason = "the flag may stand alone")]
    pub(crate) update: Option<Option<String>>,
    /// Do not keep the actor's id
    #[arg(short = 'D', long)]
    pub(crate) no_id: bool,
    /// Build, and register nothing
    #[arg(short = 'R', long)]
    pub(crate) build_only: bool,
}
