use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ports::{free_ports, unique_name};
use crate::process::Process;
use crate::shared::{self, Lease, Plan};
use crate::tls::Certificates;
use crate::{PASSWORD, USER};

const READY: &str = "Server startup complete";

/// What a RabbitMQ is started with.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// The address that it listens on for clients.
    pub listen: String,
    /// Takes connections by TLS only, with a certificate of its own authority.
    pub tls: bool,
    /// Further lines of `rabbitmq.conf`.
    pub settings: Vec<String>,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self { listen: "127.0.0.1".to_owned(), tls: false, settings: Vec::new() }
    }
}

/// A real RabbitMQ of one test's own, with the user [`USER`] and its
/// [`PASSWORD`]. It takes seconds to start; tests that do not hurt their server
/// share a [`Broker`].
#[derive(Debug)]
pub struct RabbitMq {
    node: Node,
    process: Option<Process>,
    // Last, so that it goes after the process.
    _directory: TempDir,
}

impl RabbitMq {
    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// RabbitMQ is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&RabbitMqOptions::default())
    }

    /// Starts an empty server.
    ///
    /// # Errors
    ///
    /// RabbitMQ (or openssl, for TLS) is not installed or does not start.
    pub fn start_with(options: &RabbitMqOptions) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let node = Node::make(directory.path(), options)?;
        let mut server = Self { node, process: None, _directory: directory };
        server.restart()?;
        Ok(server)
    }

    /// The URL of its virtual host `/`, without the password.
    pub fn url(&self) -> String {
        self.node.url()
    }

    /// `ADDRESS:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", self.node.host, self.node.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// The certificate of the authority of a server with TLS, as PEM.
    pub fn authority(&self) -> Option<&Path> {
        self.node.certificates.as_ref().map(|c| c.authority.as_path())
    }

    /// The server's processes; empty while it is killed.
    pub fn process_ids(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::tree).unwrap_or_default()
    }

    /// Evaluates Erlang in the server, like `rabbitmqctl eval` but in
    /// milliseconds: `rabbit_amqqueue:list_names().` The answer is as Erlang
    /// prints it.
    ///
    /// # Errors
    ///
    /// The server does not run, or does not know the expression.
    pub fn evaluate(&self, erlang: &str) -> Result<String> {
        evaluate(&self.node.directory, self.node.epmd, erlang)
    }

    /// What the server printed since it was started last.
    pub fn log(&self) -> String {
        let printed = fs::read(self.node.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Kills all processes of the server by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again on the same ports with the same data; what runs
    /// is killed before.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = self.node.directory.join("log");
        let mut process = Process::spawn(&mut self.node.command(), "rabbitmq-server", &log)?;
        process.wait_for_output(|printed| printed.contains(READY).then_some(()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops all its processes by SIGSTOP: connections stay open, and nobody
    /// answers.
    pub fn suspend(&self) {
        self.process.iter().for_each(Process::suspend);
    }

    /// Undoes [`RabbitMq::suspend`].
    pub fn resume(&self) {
        self.process.iter().for_each(Process::resume);
    }
}

/// A RabbitMQ that the tests of a run share. Each test takes names that begin
/// with its own [`Broker::prefix`]; its queues go with its handle.
#[derive(Debug)]
pub struct Broker {
    url: String,
    directory: PathBuf,
    epmd: u16,
    prefix: String,
    _lease: Lease,
}

impl Broker {
    /// Starts the server if this is the first of the run.
    ///
    /// # Errors
    ///
    /// RabbitMQ is not installed or does not start.
    pub fn share() -> Result<Self> {
        let (record, lease) = shared::share("rabbitmq", plan)?;
        let text = |name: &str| -> Result<String> {
            Ok(record[name].as_str().with_context(|| format!("the record has no {name}"))?.into())
        };
        let epmd = record["epmd"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            url: text("url")?,
            directory: text("directory")?.into(),
            epmd: epmd.context("the record has no epmd")?,
            prefix: unique_name(),
            _lease: lease,
        })
    }

    /// The URL of its virtual host `/`, without the password.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What the names of this test's queues begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// As [`RabbitMq::evaluate`].
    ///
    /// # Errors
    ///
    /// The server does not know the expression.
    pub fn evaluate(&self, erlang: &str) -> Result<String> {
        evaluate(&self.directory, self.epmd, erlang)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // They go with the server at the latest.
        let _ = self.evaluate(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"testbed\">>) \
              || Q <- rabbit_amqqueue:list(), \
                 binary:match(element(4, amqqueue:get_name(Q)), <<\"{}\">>) =:= {{0, {}}}], ok.",
            self.prefix,
            self.prefix.len()
        ));
    }
}

fn plan() -> Result<Plan> {
    let directory = tempfile::tempdir()?;
    let node = Node::make(directory.path(), &RabbitMqOptions::default())?;
    let record: Value = json!({
        "port": node.port, "epmd": node.epmd, "url": node.url(), "directory": node.directory,
    });
    let command = node.command();
    // From here on it is the keeper's to remove.
    Ok(Plan { directory: directory.keep(), command, signal: "KILL", ready: READY, record })
}

/// A node's directory and ports.
#[derive(Debug)]
struct Node {
    directory: PathBuf,
    host: String,
    port: u16,
    distribution: u16,
    epmd: u16,
    certificates: Option<Certificates>,
}

impl Node {
    fn make(directory: &Path, options: &RabbitMqOptions) -> Result<Self> {
        let [port, distribution, epmd] = free_ports()?;
        let mut settings = format!(
            "default_user = {USER}\n\
             default_pass = {PASSWORD}\n\
             vm_memory_high_watermark.absolute = 1GiB\n\
             disk_free_limit.absolute = 50MB\n\
             raft.wal_max_size_bytes = 33554432\n\
             log.console.level = info\n"
        );
        let mut certificates = None;
        if options.tls {
            let tls = Certificates::make(directory, &options.listen)?;
            settings += &format!(
                "listeners.tcp = none\n\
                 listeners.ssl.1 = {}:{port}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n",
                options.listen,
                tls.authority.display(),
                tls.certificate.display(),
                tls.key.display()
            );
            certificates = Some(tls);
        } else {
            settings += &format!("listeners.tcp.1 = {}:{port}\n", options.listen);
        }
        for line in &options.settings {
            settings += &format!("{line}\n");
        }
        fs::write(directory.join("rabbitmq.conf"), settings)?;
        fs::write(directory.join("rabbitmq-env.conf"), "")?;
        fs::write(directory.join("enabled_plugins"), "[].\n")?;
        for made in ["home", "mnesia", "logs", "config", "schema"] {
            fs::create_dir(directory.join(made))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            host: options.listen.clone(),
            port,
            distribution,
            epmd,
            certificates,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.certificates.is_some() { "amqps" } else { "amqp" };
        format!("{scheme}://{USER}@{}:{}/%2f", self.host, self.port)
    }

    /// The server in the foreground, which dies with its parent. The port
    /// mapper of Erlang is its child and dies with it; else it would be a
    /// daemon that outlives the test.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "sh", "-c"])
            .arg(
                "setpriv --pdeathsig KILL -- epmd -port \"$ERL_EPMD_PORT\" & \
                 exec setpriv --pdeathsig KILL -- /usr/lib/rabbitmq/bin/rabbitmq-server",
            )
            .current_dir("/");
        let at = |name: &str| self.directory.join(name);
        for (key, value) in [
            ("HOME", at("home")),
            ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", at("mnesia")),
            ("RABBITMQ_LOG_BASE", at("logs")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", at("config")),
            ("RABBITMQ_SCHEMA_DIR", at("schema")),
            ("RABBITMQ_PID_FILE", at("pid")),
        ] {
            command.env(key, value);
        }
        command
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_LOGS", "-")
            // Makes the script become the server instead of watching it.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env("RABBITMQ_SERVER_START_ARGS", "-noinput")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            );
        command
    }
}

const NODE: &str = "abax@localhost";

fn evaluate(directory: &Path, epmd: u16, erlang: &str) -> Result<String> {
    use std::io::Write as _;
    let cookie = fs::read_to_string(directory.join("home/.erlang.cookie"))?;
    let mut call = Command::new("erl_call")
        .args(["-n", NODE, "-c", cookie.trim(), "-e"])
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("HOME", directory.join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not run erl_call (run testbed/install.sh)")?;
    call.stdin.take().context("stdin is piped")?.write_all(format!("{erlang}\n").as_bytes())?;
    let output = call.wait_with_output()?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    match answer.strip_prefix("{ok, ").and_then(|rest| rest.trim_end().strip_suffix('}')) {
        Some(answer) => Ok(answer.to_owned()),
        None => bail!("{answer}{}", String::from_utf8_lossy(&output.stderr)),
    }
}
