//! Secrets and certificates of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use abax_actors::{DatabaseConfig, PostgresConfig, QueueConfig, RabbitMqConfig, SecretKeys};
use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Settings, check_certificates};

/// The database file of `abax serve`, below its data directory.
const SQLITE: &str = "abax.db";
/// A password is not this long; another file was named.
const LONGEST_SECRET: u64 = 64 << 10;

/// Something that works and should not stay so.
pub(crate) type Warning = String;

/// What the secret file holds, without the end of its line; and a warning if
/// every user of the machine can read it.
///
/// # Errors
///
/// It cannot be read, is empty, or is far too long.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<(SecretString, Option<Warning>)> {
    let could_not = || format!("could not read {}", path.display());
    let metadata = fs::metadata(path).with_context(could_not)?;
    if metadata.len() > LONGEST_SECRET {
        bail!("{} has {} bytes; that is no password", path.display(), metadata.len());
    }
    let text = SecretString::from(fs::read_to_string(path).with_context(could_not)?);
    let secret = text.expose_secret().trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        bail!("{} is empty; it must hold the password", path.display());
    }
    Ok((SecretString::from(secret.to_owned()), readable_by_all(path, &metadata)))
}

/// The keys of secret configs in a file, and a warning if every user of the
/// machine can read it.
///
/// # Errors
///
/// It cannot be read, or a line of it is no key.
pub(crate) fn read_secret_keys(path: &Path) -> anyhow::Result<(SecretKeys, Option<Warning>)> {
    let (text, warning) = read_secret(path)?;
    let keys = SecretKeys::parse(text.expose_secret())
        .with_context(|| format!("could not use {}", path.display()))?;
    Ok((keys, warning))
}

/// The warning for a secret that is not one on this machine.
pub(super) fn readable_by_all(path: &Path, metadata: &fs::Metadata) -> Option<Warning> {
    (metadata.permissions().mode() & 0o004 != 0)
        .then(|| format!("every user of this machine can read {}; chmod o-rwx {0}", path.display()))
}

impl Settings {
    /// The database of these settings: PostgreSQL, or SQLite below `service.data`.
    ///
    /// # Errors
    ///
    /// A file that is named cannot be used.
    pub(crate) fn database(&self) -> anyhow::Result<DatabaseConfig> {
        let Some(url) = &self.database.url else {
            return Ok(DatabaseConfig::Sqlite { path: self.database_file() });
        };
        let mut config = PostgresConfig::new(url.clone());
        config.password =
            password(self.database.password_file.as_deref()).context("database.password_file")?;
        config.ca_pem =
            certificates(self.database.ca_file.as_deref()).context("database.ca_file")?;
        config.connections = self.database.connections;
        Ok(DatabaseConfig::Postgres(config))
    }

    /// Where SQLite's rows are.
    pub(crate) fn database_file(&self) -> PathBuf {
        self.data().join(SQLITE)
    }

    /// The queue of these settings: RabbitMQ, or the database itself.
    ///
    /// # Errors
    ///
    /// A file that is named cannot be used, or RabbitMQ is to serve SQLite.
    pub(crate) fn queue(&self) -> anyhow::Result<QueueConfig> {
        let Some(url) = &self.queue.url else { return Ok(QueueConfig::Database) };
        if self.database.url.is_none() {
            bail!("queue.url is set and database.url is not: RabbitMQ needs PostgreSQL beside it");
        }
        let mut config = RabbitMqConfig::new(url.clone());
        config.password =
            password(self.queue.password_file.as_deref()).context("queue.password_file")?;
        config.ca_pem = certificates(self.queue.ca_file.as_deref()).context("queue.ca_file")?;
        config.prefix.clone_from(&self.queue.prefix);
        Ok(QueueConfig::RabbitMq(config))
    }
}

fn password(path: Option<&Path>) -> anyhow::Result<Option<SecretString>> {
    // A start looks at the warning by itself: `Settings::check`.
    path.map(|path| read_secret(path).map(|(secret, _)| secret)).transpose()
}

fn certificates(path: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    path.map(check_certificates).transpose()
}
