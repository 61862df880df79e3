use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use serde_json::json;
use tempfile::TempDir;

use crate::ports::{free_ports, unique_name};
use crate::process::Process;
use crate::shared::{self, Lease, Plan};
use crate::tls::Certificates;
use crate::{PASSWORD, USER};

const READY: &str = "database system is ready to accept connections";

/// What a server of PostgreSQL is started with.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The address that it listens on.
    pub listen: String,
    /// Takes connections by TLS only, with a certificate of its own authority.
    pub tls: bool,
    /// Further settings, as in `postgresql.conf`: `fsync=off`.
    pub settings: Vec<String>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { listen: "127.0.0.1".to_owned(), tls: false, settings: Vec::new() }
    }
}

/// A real PostgreSQL of one test's own, with the user [`USER`], its
/// [`PASSWORD`] and the database `abax`.
#[derive(Debug)]
pub struct Postgres {
    cluster: Cluster,
    process: Option<Process>,
    // Last, so that it goes after the process.
    _directory: TempDir,
}

impl Postgres {
    /// Starts a server that keeps what it commits as the defaults of PostgreSQL
    /// say.
    ///
    /// # Errors
    ///
    /// PostgreSQL is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&PostgresOptions::default())
    }

    /// Starts a server.
    ///
    /// # Errors
    ///
    /// PostgreSQL (or openssl, for TLS) is not installed or does not start.
    pub fn start_with(options: &PostgresOptions) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let cluster = Cluster::make(directory.path(), options)?;
        let mut server = Self { cluster, process: None, _directory: directory };
        server.restart()?;
        server.psql("postgres", "create database abax")?;
        Ok(server)
    }

    /// The URL of the database `abax`, without the password.
    pub fn url(&self) -> String {
        self.cluster.url("abax")
    }

    /// `ADDRESS:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", self.cluster.host, self.cluster.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    /// The certificate of the authority of a server with TLS, as PEM.
    pub fn authority(&self) -> Option<&Path> {
        self.cluster.certificates.as_ref().map(|c| c.authority.as_path())
    }

    /// The server's processes; empty while it is killed.
    pub fn process_ids(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::tree).unwrap_or_default()
    }

    /// Runs SQL in the database `abax` by psql; returns the rows, a line each,
    /// with `|` between the columns.
    ///
    /// # Errors
    ///
    /// psql fails; its words are in the error.
    pub fn execute(&self, sql: &str) -> Result<String> {
        self.psql("abax", sql)
    }

    /// Kills all processes of the server by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again on the same port with the same data; what runs
    /// is told to stop at once before.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let log = self.cluster.directory.join("log");
        let mut process = Process::spawn(&mut self.cluster.command(), "postgres", &log)?;
        process.wait_for_output(|printed| printed.contains(READY).then_some(()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops all its processes by SIGSTOP: connections stay open, and nobody
    /// answers.
    pub fn suspend(&self) {
        self.process.iter().for_each(Process::suspend);
    }

    /// Undoes [`Postgres::suspend`].
    pub fn resume(&self) {
        self.process.iter().for_each(Process::resume);
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.resume();
            // At once, but with its shared memory given back.
            process.end_by(Signal::SIGQUIT, Duration::from_secs(10));
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String> {
        psql(&self.cluster.url(database), self.authority(), sql)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        // Left by a server that was killed: the line of `postmaster.pid` with
        // key and id of its segment.
        let left = fs::read_to_string(self.cluster.directory.join("data/postmaster.pid"));
        let segment = left.ok().and_then(|text| {
            text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned)
        });
        if let Some(segment) = segment {
            // It fails where the kernel has no such segment any more.
            let _ = Command::new("ipcrm").args(["-m", &segment]).stderr(Stdio::null()).status();
        }
    }
}

/// An empty database of one test on a server that the tests of a run share.
/// Dropped with its handle.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: String,
    _lease: Lease,
}

impl Database {
    /// Makes a database; starts the server if it is the first of the run. The
    /// server does not wait for the disk.
    ///
    /// # Errors
    ///
    /// PostgreSQL is not installed or does not start.
    pub fn create() -> Result<Self> {
        Self::create_from("template1")
    }

    /// As [`Database::create`], with what the database `template` of the same
    /// server has. Nobody may be connected to that.
    ///
    /// # Errors
    ///
    /// There is no such template, PostgreSQL is not installed or does not start.
    pub fn create_from(template: &str) -> Result<Self> {
        let (record, lease) = shared::share("postgres", plan)?;
        let server = record["url"].as_str().context("the record has no url")?.to_owned();
        let name = unique_name();
        let sql = format!("create database {name} template {template}");
        psql(&format!("{server}/postgres"), None, &sql)?;
        Ok(Self { name, server, _lease: lease })
    }

    /// Its URL, without the password.
    pub fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs SQL in it by psql; returns the rows, a line each, with `|` between
    /// the columns.
    ///
    /// # Errors
    ///
    /// psql fails; its words are in the error.
    pub fn execute(&self, sql: &str) -> Result<String> {
        psql(&self.url(), None, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database {} with (force)", self.name);
        // It goes with the server at the latest.
        let _ = psql(&format!("{}/postgres", self.server), None, &sql);
    }
}

fn plan() -> Result<Plan> {
    let directory = tempfile::tempdir()?;
    let settings = ["fsync=off", "max_connections=400", "shared_buffers=64MB"];
    let options = PostgresOptions {
        settings: settings.map(str::to_owned).to_vec(),
        ..PostgresOptions::default()
    };
    let cluster = Cluster::make(directory.path(), &options)?;
    let url = cluster.url("");
    let record = json!({ "port": cluster.port, "url": url.trim_end_matches('/') });
    let command = cluster.command();
    // From here on it is the keeper's to remove.
    Ok(Plan { directory: directory.keep(), command, signal: "QUIT", ready: READY, record })
}

/// A data directory and what its server runs with.
#[derive(Debug)]
struct Cluster {
    directory: PathBuf,
    host: String,
    port: u16,
    settings: Vec<String>,
    certificates: Option<Certificates>,
}

impl Cluster {
    fn make(directory: &Path, options: &PostgresOptions) -> Result<Self> {
        let [port] = free_ports()?;
        let certificates =
            if options.tls { Some(Certificates::make(directory, &options.listen)?) } else { None };
        let password = directory.join("password");
        fs::write(&password, PASSWORD)?;
        let owner = owner()?;
        if let Some(owner) = &owner {
            for path in [Some(directory), Some(&password)]
                .into_iter()
                .chain([certificates.as_ref().map(|c| c.key.as_path())])
                .flatten()
            {
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
            }
        }
        if let Some(certificates) = &certificates {
            fs::set_permissions(&certificates.key, fs::Permissions::from_mode(0o600))?;
        }
        let output = as_owner(owner.as_ref())
            .arg(program("initdb")?)
            .arg("-D")
            .arg(directory.join("data"))
            .arg("--pwfile")
            .arg(&password)
            .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"])
            .arg("--no-sync")
            .current_dir("/")
            .output()
            .context("could not run initdb by setpriv (run testbed/install.sh)")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let rule = if options.tls { "hostssl" } else { "host" };
        fs::write(
            directory.join("data/pg_hba.conf"),
            format!("{rule} all all all scram-sha-256\n"),
        )?;
        Ok(Self {
            directory: directory.to_owned(),
            host: options.listen.clone(),
            port,
            settings: options.settings.clone(),
            certificates,
        })
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}:{}/{database}", self.host, self.port)
    }

    /// The server in the foreground. When its parent dies it ends at once, but
    /// gives its shared memory back.
    fn command(&self) -> Command {
        let mut command = as_owner(owner().ok().flatten().as_ref());
        command
            .args(["--pdeathsig", "QUIT", "--"])
            .arg(program("postgres").unwrap_or_else(|_| "postgres".into()))
            .arg("-D")
            .arg(self.directory.join("data"))
            .args(["-c", &format!("listen_addresses={}", self.host)])
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", "unix_socket_directories="])
            .current_dir("/");
        if let Some(tls) = &self.certificates {
            command
                .args(["-c", "ssl=on"])
                .args(["-c", &format!("ssl_cert_file={}", tls.certificate.display())])
                .args(["-c", &format!("ssl_key_file={}", tls.key.display())]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command
    }
}

/// PostgreSQL does not run as root; Debian's package makes a user for it.
fn owner() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    User::from_name("postgres")?
        .context("there is no user postgres (run testbed/install.sh)")
        .map(Some)
}

fn as_owner(owner: Option<&User>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(owner) = owner {
        command
            .args(["--reuid", &owner.uid.to_string(), "--regid", &owner.gid.to_string()])
            .arg("--clear-groups");
    }
    command
}

/// The path of a program that Debian does not put on the PATH.
fn program(name: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().context("PostgreSQL is not installed (run testbed/install.sh)")
}

fn psql(url: &str, authority: Option<&Path>, sql: &str) -> Result<String> {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
    command.env("PGPASSWORD", PASSWORD);
    if let Some(authority) = authority {
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority);
    }
    let output = command.output().context("could not run psql (run testbed/install.sh)")?;
    if !output.status.success() {
        bail!("psql failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
