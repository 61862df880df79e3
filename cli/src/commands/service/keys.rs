//! The signing key, the tokens that come from it, and the keys of secrets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use abax_actors::{Clock, SecretKeys};
use abax_api::Keys;
use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use tracing::info;

use crate::config::{Settings, read_secret_keys};
use crate::output;

/// The token that the actor verbs use on this machine, below the data directory.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
const SIGNING_KEY: &str = "signing.key";
const SECRET_KEYS: &str = "secret.keys";

const TENANT: &str = "ABAX";
const KEY_BYTES: usize = 32;
/// The admin token is made anew by a start that finds it older than this.
const ADMIN_TOKEN_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// The keys of these settings, if there are some: `api.signing_key_file`, else
/// what `abax serve` made.
///
/// # Errors
///
/// They are there and cannot be used, or are named and not there.
pub(crate) fn existing(settings: &Settings) -> anyhow::Result<Option<Keys>> {
    if settings.api.signing_key_file.is_some() {
        return shared(settings).map(Some);
    }
    let path = settings.data().join(SIGNING_KEY);
    match fs::read(&path) {
        Ok(key) => {
            Keys::new(&key).map(Some).with_context(|| format!("could not use {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

/// The keys of `api.signing_key_file`.
///
/// # Errors
///
/// None is named, or it cannot be used.
pub(super) fn shared(settings: &Settings) -> anyhow::Result<Keys> {
    let Some(path) = &settings.api.signing_key_file else {
        bail!("api.signing_key_file is not set");
    };
    let key = fs::read(path)
        .with_context(|| format!("api.signing_key_file: could not read {}", path.display()))?;
    Keys::new(&key).with_context(|| format!("api.signing_key_file: {}", path.display()))
}

/// The keys of these settings, made on the first start.
///
/// # Errors
///
/// They cannot be used or not be made.
pub(super) fn existing_or_new(settings: &Settings) -> anyhow::Result<Keys> {
    if let Some(keys) = existing(settings)? {
        return Ok(keys);
    }
    let mut key = [0_u8; KEY_BYTES];
    rand::fill(&mut key);
    let data = settings.data();
    write_secret(&data, SIGNING_KEY, &key)?;
    info!("made a signing key in {}", data.display());
    Ok(Keys::new(&key)?)
}

/// The keys of secret configs: `service.secret_keys_file`, else what `abax serve`
/// made, else none.
///
/// # Errors
///
/// They are there and cannot be used, or are named and not there.
pub(super) fn of_secrets(settings: &Settings) -> anyhow::Result<SecretKeys> {
    let (path, named) = match &settings.service.secret_keys_file {
        Some(path) => (path.clone(), true),
        None => (settings.data().join(SECRET_KEYS), false),
    };
    if !named && !path.exists() {
        return Ok(SecretKeys::default());
    }
    // What is wrong with the file's mode is said by the check of all settings.
    read_secret_keys(&path).map(|(keys, _)| keys).context("service.secret_keys_file")
}

/// Makes the key of secret configs on the first start, where none is named.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn make_for_secrets(settings: &Settings) -> anyhow::Result<()> {
    let data = settings.data();
    if settings.service.secret_keys_file.is_some() || data.join(SECRET_KEYS).exists() {
        return Ok(());
    }
    write_secret(&data, SECRET_KEYS, SecretKeys::generate().expose_secret().as_bytes())?;
    info!("made a key for secret configs in {}", data.display());
    Ok(())
}

/// A token of the first start's making, renewed when it is old or not of our key.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn admin_token(data: &Path, keys: &Keys) -> anyhow::Result<()> {
    let path = data.join(ADMIN_TOKEN);
    let now = Clock::system().now();
    let holds = fs::read_to_string(&path).is_ok_and(|token| keys.verify(token.trim(), now).is_ok());
    let young = fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|then| {
        output::now().duration_since(then).unwrap_or_default() < ADMIN_TOKEN_LIFETIME / 2
    });
    if holds && young {
        return Ok(());
    }
    let token = mint(keys, "admin", TENANT, &["admin"], ADMIN_TOKEN_LIFETIME);
    write_secret(data, ADMIN_TOKEN, token.expose_secret().as_bytes())
}

/// A token that begins by this machine's clock: whoever asks for one need not reach
/// the database, whose clock counts in the end.
pub(crate) fn mint(
    keys: &Keys,
    user: &str,
    tenant: &str,
    roles: &[&str],
    lifetime: Duration,
) -> SecretString {
    keys.mint(user, tenant, roles, Clock::system().now(), lifetime)
}

/// A file for the owner's eyes, whole or not there.
fn write_secret(data: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (path, temporary) = (data.join(name), data.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(data)?.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}
