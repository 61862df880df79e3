//! A site of two hosts: PostgreSQL, and processes that share it. Needs root.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use abax_testbed::{Broker, PASSWORD, Postgres, PostgresOptions, RabbitMq, RabbitMqOptions};

use crate::machine::Machine;

/// How hosts hear of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Database,
    RabbitMq,
}

/// Each host has a state root, bridges and subnets of its own; both have the
/// settings of the site.
pub struct Site {
    // Before the servers: their processes go first.
    pub hosts: [Machine; 2],
    pub database: Postgres,
    pub broker: Option<Broker>,
    /// Its own, where its servers take TLS only.
    pub tls_broker: Option<RabbitMq>,
    directory: tempfile::TempDir,
}

impl Site {
    /// A site whose database is ready.
    pub fn new(queue: Queue) -> Self {
        Self::with_settings(queue, "", "")
    }

    /// The same, with more lines before all sections and in `[service]`.
    pub fn with_settings(queue: Queue, top: &str, service: &str) -> Self {
        let site = Self::unmigrated_with(queue, top, service);
        site.hosts[0].ok(&["migrate"]);
        site
    }

    /// A site whose database is empty.
    pub fn unmigrated(queue: Queue) -> Self {
        Self::unmigrated_with(queue, "", "")
    }

    fn unmigrated_with(queue: Queue, top: &str, service: &str) -> Self {
        let database = Postgres::start().unwrap();
        let broker = (queue == Queue::RabbitMq).then(|| Broker::share().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let of_database = format!("url = \"{}\"\n", database.url());
        let of_queue = broker.as_ref().map(|broker| {
            format!("url = \"{}\"\nprefix = \"{}\"\n", broker.url(), broker.prefix())
        });
        let hosts = hosts(directory.path(), &of_database, of_queue.as_deref(), top, service);
        Self { hosts, database, broker, tls_broker: None, directory }
    }

    /// A site whose database is empty, and whose servers take TLS only, each with a
    /// certificate of an authority of its own.
    pub fn unmigrated_over_tls() -> Self {
        let options = PostgresOptions { tls: true, ..PostgresOptions::default() };
        let database = Postgres::start_with(&options).unwrap();
        let options = RabbitMqOptions { tls: true, ..RabbitMqOptions::default() };
        let broker = RabbitMq::start_with(&options).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let of_database = format!(
            "url = \"{}?sslmode=verify-full\"\nca_file = {:?}\n",
            database.url(),
            database.authority().unwrap()
        );
        let of_queue =
            format!("url = \"{}\"\nca_file = {:?}\n", broker.url(), broker.authority().unwrap());
        let hosts = hosts(directory.path(), &of_database, Some(&of_queue), "", "");
        Self { hosts, database, broker: None, tls_broker: Some(broker), directory }
    }

    /// An image on both hosts whose container runs `script`.
    pub fn import_script(&self, name: &str, script: &str) {
        for host in &self.hosts {
            host.import_script(name, script);
        }
    }
}

/// Two hosts with these lines in their sections `[database]`, `[queue]` and `[service]`, and
/// before all sections.
fn hosts(
    directory: &Path,
    of_database: &str,
    of_queue: Option<&str>,
    top: &str,
    service: &str,
) -> [Machine; 2] {
    let key = secret(directory, "signing.key", "0123456789abcdef0123456789abcdef");
    let password = secret(directory, "password", PASSWORD);
    let mut top = format!(
        "{top}\n[database]\n{of_database}password_file = {password:?}\n\
         [api]\nlisten = \"127.0.0.1:0\"\npublic_url = \"http://127.0.0.1:1\"\n\
         webhook_networks = [\"127.0.0.0/8\"]\nsigning_key_file = {key:?}\n"
    );
    let secret_keys = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let secret_keys = secret(directory, "secret.keys", secret_keys);
    if let Some(of_queue) = of_queue {
        top.push_str(&format!("[queue]\n{of_queue}password_file = {password:?}\n"));
    }
    ["one", "two"].map(|name| {
        let of_service = format!(
            "lease_seconds = 3\ndrain_seconds = 5\nsecret_keys_file = {secret_keys:?}\n{service}"
        );
        let top = format!("{top}[worker]\nname = \"{name}\"\nslots = 4\n");
        let mut machine = Machine::with_settings(&top, &of_service);
        machine.token = Some(machine.ok(&["token"]));
        machine
    })
}

fn secret(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}
