//! The command line: clap types, nothing else.

mod actor;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::actor::*;
use crate::telemetry::LogFormat;

/// Run functions as containers: one fresh container per message, in milliseconds.
///
/// The docker verbs (pull, build, run, images …) work on this machine without
/// a daemon. `abax serve` starts the service, and the `actor` verbs talk to it.
#[derive(Debug, Parser)]
#[command(
    name = "abax",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Examples:\n  abax run --rm -it alpine sh\n  abax serve\n  abax actor create --name hello IMAGE\n  abax actor send hello 'a message' --wait"
)]
pub(crate) struct Abax {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every verb understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where images, containers and the service's data are kept [env: ABAX_ROOT] [default: /var/lib/abax]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) root: Option<PathBuf>,
    /// Settings in TOML [default: /etc/abax/abax.toml, if it is there]
    #[arg(
        long,
        global = true,
        env = "ABAX_CONFIG",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Certificates (PEM) to trust here, in builds and in containers [env: ABAX_CA_BUNDLE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// What goes to the log on standard error: error, warn, info, debug, trace, or a filter [env: ABAX_LOG]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options")]
    pub(crate) log_level: Option<String>,
    /// How its lines look [env: ABAX_LOG_FORMAT] [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Global options")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new container
    Run(Box<Run>),
    /// List containers
    Ps(Ps),
    /// Remove containers
    Rm(Rm),
    /// Download an image from a registry
    Pull(Pull),
    /// List images
    Images(Images),
    /// Build an image from a Dockerfile
    Build(Box<Build>),
    /// Make an image from the tar archive of a root file system
    Import(Import),
    /// Give an image one more name
    Tag(Tag),
    /// Remove names of images, and images without a name
    Rmi(Rmi),
    /// Run the service: HTTP API, queue and worker in one process
    Serve(Box<Serve>),
    /// Run the HTTP API of a service of several machines
    Api(Box<Api>),
    /// Run the executions of a service of several machines on this one
    Worker(Box<Worker>),
    /// Bring the schema of the database up to date
    Migrate(Migrate),
    /// See and steer the hosts of a service, and look for what is wrong
    Admin(Admin),
    /// See what the settings are and where they come from
    Config(Config),
    /// Make an access token for the service on this machine
    Token(Token),
    /// Work with the actors of a service
    Actor(Actor),
    /// Show the version of abax and of what it runs on
    Version(Version),
}

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// JSON for programs
    Json,
}

/// `abax version`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax version --format json")]
pub(crate) struct Version {
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `abax run`
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  abax run --rm busybox echo hello\n  abax run --rm -it -v ./data:/data -w /data python:3.13-slim bash\n\nExit status: the command's own; 125 abax failed, 126 the command cannot be executed,\n127 the command is not there, 128+n it was killed by signal n."
)]
pub(crate) struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Set an environment variable; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE per line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Make a directory or file of this machine visible in the container
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "TARGET[:size=SIZE]")]
    pub(crate) tmpfs: Vec<String>,
    /// The directory that the command starts in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User (and group) by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Replace the image's entrypoint; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// bridge: own address behind NAT; host: this machine's network; none: loopback only
    #[arg(long, alias = "net", value_enum, default_value_t, value_name = "MODE")]
    pub(crate) network: NetworkMode,
    /// A name for the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The host name seen inside [default: the first 12 digits of the container's id]
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Pass standard input to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Memory limit, such as 512m or 2g
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together, such as 1g; -1 for unlimited swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// How many CPUs the container may use, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// CPU weight against other containers (1024 is the usual one)
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<u64>,
    /// How many processes and threads there may be; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Run a small init as process 1 that forwards signals and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) pull: PullPolicy,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Not supported; abax says so instead of running with less
    #[arg(long, hide = true)]
    pub(crate) privileged: bool,
    /// The image, by name, digest or id
    pub(crate) image: String,
    /// The command and its arguments instead of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Which network a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum NetworkMode {
    /// Loopback only
    None,
    /// This machine's own network
    Host,
    /// An address of its own behind NAT
    #[default]
    #[value(alias = "default")]
    Bridge,
}

/// When `run` pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum PullPolicy {
    /// Before every run
    Always,
    /// When the image is not here
    #[default]
    Missing,
    /// Not at all
    Never,
}

/// `abax ps`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax ps -a")]
pub(crate) struct Ps {
    /// Also those that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten anything
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `abax rm`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax rm -f $(abax ps -aq)")]
pub(crate) struct Rm {
    /// Kill those that still run
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids, which may be shortened
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `abax pull`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax pull python:3.13-slim\n  abax pull localhost:5000/team/model:v2"
)]
pub(crate) struct Pull {
    /// Print the image's name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Another platform than this machine's, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// The image's name
    pub(crate) image: String,
}

/// `abax images`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax images\n  abax images --digests python\n  abax images -q"
)]
pub(crate) struct Images {
    /// Also images without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the manifests' digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Only images of this repository (and tag)
    pub(crate) repository: Option<String>,
}

/// `abax build`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax build -t classifier .\n  abax build -t tool:v2 -f docker/Dockerfile --build-arg VERSION=2 ."
)]
pub(crate) struct Build {
    /// A name for the image; may be given more than once
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a build argument; NAME alone takes its value from here
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Do every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pub(crate) pull: bool,
    /// The network that RUN steps have
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub(crate) network: NetworkMode,
    /// Print the image's id only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The directory that COPY and ADD take their files from
    pub(crate) path: PathBuf,
}

/// `abax import`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax import rootfs.tar.gz debian:local\n  tar -C rootfs -c . | abax import - tool -c 'CMD [\"/bin/tool\"]'"
)]
pub(crate) struct Import {
    /// Set something in the image: ENV, CMD, ENTRYPOINT, WORKDIR, USER, LABEL, EXPOSE
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// A tar archive (plain, gzip or zstd), or - for standard input
    pub(crate) file: PathBuf,
    /// A name for the image
    pub(crate) reference: Option<String>,
}

/// `abax tag`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax tag classifier registry.example.org/lab/classifier:v1")]
pub(crate) struct Tag {
    /// An image by name or id
    pub(crate) image: String,
    /// The new name
    pub(crate) name: String,
}

/// `abax rmi`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax rmi classifier:v1")]
pub(crate) struct Rmi {
    /// Remove all names of an image that is given by id
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `abax serve`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax serve\n  abax serve --listen 0.0.0.0:8000 --slots 8\n\nIn another terminal:\n  export TOKEN=$(abax token)\n  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8000/v3/actors"
)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) servers: Servers,
    /// Where to listen; port 0 takes a free one [env: ABAX_LISTEN] [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the database and the keys are kept [env: ABAX_DATA] [default: ROOT/service]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many executions run at once [env: ABAX_SLOTS] [default: 4 per CPU]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) slots: Option<u64>,
    /// How long a stop waits for running executions, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,
    /// The address that users and executions reach the service at [env: ABAX_PUBLIC_URL] [default: what requests call it]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Let executions reach this port of this machine's loopback, at host.abax.internal
    #[arg(long = "host-port", value_name = "PORT")]
    pub(crate) host_ports: Vec<u16>,
    /// End executions after this many seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time_limit: Option<u64>,
    /// Memory of an execution whose actor sets none, such as 512m [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
}

/// `abax api`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax api --listen 0.0.0.0:8000 --public-url https://abax.example.org \\\n    --database postgres://abax@db/abax --queue amqp://abax@mq/%2f --signing-key /etc/abax/signing.key"
)]
pub(crate) struct Api {
    #[command(flatten)]
    pub(crate) servers: Servers,
    /// Where to listen; port 0 takes a free one [env: ABAX_API_LISTEN] [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address that users and executions reach the service at [env: ABAX_API_PUBLIC_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// The key of access tokens, the same in all processes [env: ABAX_API_SIGNING_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// How long a stop waits for open requests, in seconds [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,
}

/// `abax worker`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax worker --name node-7 --slots 16 --class default --class gpu \\\n    --database postgres://abax@db/abax --queue amqp://abax@mq/%2f --signing-key /etc/abax/signing.key"
)]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) servers: Servers,
    /// The key of access tokens, the same in all processes [env: ABAX_API_SIGNING_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// What the host is called, unlike all others [env: ABAX_WORKER_NAME] [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How many executions run at once [env: ABAX_WORKER_SLOTS] [default: 4 per CPU]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) slots: Option<u64>,
    /// A queue to take work from; may be given more than once [env: ABAX_WORKER_CLASSES] [default: all]
    #[arg(long = "class", value_name = "NAME")]
    pub(crate) classes: Vec<String>,
    /// Memory that executions may have together, such as 60g [env: ABAX_WORKER_MEMORY] [default: the machine's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// CPUs that executions may have together [env: ABAX_WORKER_CPUS] [default: the machine's]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// An image to make ready at the start; may be given more than once [env: ABAX_WORKER_PREPULL]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) prepull: Vec<String>,
    /// How long a stop waits for running executions, in seconds [env: ABAX_WORKER_DRAIN_SECONDS] [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<u64>,
    /// Where to answer /metrics, /healthz and /readyz [env: ABAX_WORKER_METRICS_LISTEN] [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Let executions reach this port of this machine's loopback, at host.abax.internal
    #[arg(long = "host-port", value_name = "PORT")]
    pub(crate) host_ports: Vec<u16>,
    /// End executions after this many seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time_limit: Option<u64>,
}

/// Where rows and work come from.
#[derive(Debug, Args)]
pub(crate) struct Servers {
    /// The PostgreSQL server, as postgres://USER@HOST/DATABASE [env: ABAX_DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// The RabbitMQ server, as amqp://USER@HOST/VHOST [env: ABAX_QUEUE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) queue: Option<String>,
}

/// `abax migrate`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax migrate --database postgres://abax@db/abax\n\nIt may be run at any time and by several at once; what is up to date stays as it is."
)]
pub(crate) struct Migrate {
    /// The PostgreSQL server, as postgres://USER@HOST/DATABASE [env: ABAX_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Wait this long for the database to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) wait: u64,
}

/// `abax admin`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax admin hosts\n  abax admin cordon node-7\n  abax admin doctor\n\nThese verbs talk to the database and the broker themselves, with the settings of the service."
)]
pub(crate) struct Admin {
    #[command(flatten)]
    pub(crate) servers: Servers,
    #[command(subcommand)]
    pub(crate) verb: AdminVerb,
}

/// The verbs of `abax admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminVerb {
    /// List the hosts that run executions
    Hosts(AdminHosts),
    /// Give hosts no new work; what runs there goes on
    Cordon(AdminCordon),
    /// Give hosts work again
    Uncordon(AdminCordon),
    /// Check database, broker, hosts, clocks and executions, and say what to do
    Doctor(AdminDoctor),
}

/// `abax admin hosts`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax admin hosts --format json")]
pub(crate) struct AdminHosts {
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `abax admin cordon` and `abax admin uncordon`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax admin cordon node-7 && abax admin uncordon node-7")]
pub(crate) struct AdminCordon {
    /// Names or ids
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
}

/// `abax admin doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  abax admin doctor\n\nExit status: 1 where a line says fail, 0 where the worst is warn."
)]
pub(crate) struct AdminDoctor {
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `abax config`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abax --config abax.toml config check")]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

/// The verbs of `abax config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Print every setting and where it comes from, and all that is wrong with them
    Check(ConfigCheck),
}

/// `abax config check`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abax config check\n  abax config check --format json\n\nExit status: 1 where something is wrong; all of it is on standard error."
)]
pub(crate) struct ConfigCheck {
    /// Also ask whether this process would have what it needs
    #[arg(long, value_enum)]
    pub(crate) role: Option<Role>,
    /// Also try the database and the broker
    #[arg(long)]
    pub(crate) connect: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// A process of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// `abax serve`
    Serve,
    /// `abax api`
    Api,
    /// `abax worker`
    Worker,
    /// `abax migrate`
    Migrate,
}

/// `abax token`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  export TOKEN=$(abax token)\n  abax token --user alice --role user --lifetime 12h"
)]
pub(crate) struct Token {
    /// Whom the token speaks for
    #[arg(long, default_value = "admin")]
    pub(crate) user: String,
    /// What they may do
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: TokenRole,
    /// How long it is valid, such as 30m, 12h or 7d
    #[arg(long, default_value = "30d")]
    pub(crate) lifetime: String,
    /// The tenant
    #[arg(long, default_value = "ABAX")]
    pub(crate) tenant: String,
    /// The service's signing key, where it is shared by several processes [env: ABAX_API_SIGNING_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// Where `abax serve` keeps its keys [env: ABAX_DATA] [default: ROOT/service]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum TokenRole {
    /// Their own actors, and those that are shared with them
    User,
    /// As users, with attributes that are restricted
    Privileged,
    /// Everything
    #[default]
    Admin,
}
