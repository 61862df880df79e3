//! What single settings cannot show: whether they go together, and whether the
//! files that they name can be used.

use std::path::Path;

use abax_actors::TenantsSettings;
use anyhow::Context as _;

use super::secret::{Warning, read_secret, read_secret_keys, readable_by_all};
use super::sources::has_password;
use super::{Settings, check_certificates};

/// Which process the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Serve,
    Api,
    Worker,
    Migrate,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// With these the process cannot work.
    pub(crate) problems: Vec<String>,
    /// With these it can, and should not.
    pub(crate) warnings: Vec<Warning>,
}

impl Settings {
    /// Looks at everything, for a process of `role` if one is named.
    pub(crate) fn check(&self, role: Option<Role>) -> Findings {
        let mut found = Findings::default();
        self.check_servers(&mut found);
        self.check_public_urls(&mut found);
        self.check_trust(&mut found);
        if self.service.bridge == self.network.bridge {
            found.problems.push(
                "service.bridge and network.bridge are the same; executions need a bridge of their own"
                    .to_owned(),
            );
        }
        let (ours, theirs) = (self.service.subnet, self.network.subnet);
        if ours.contains(&theirs) || theirs.contains(&ours) {
            found.problems.push(format!(
                "service.subnet {ours} and network.subnet {theirs} overlap; choose two that do not"
            ));
        }
        if !self.service.queues.iter().any(|queue| queue == "default") {
            found
                .problems
                .push("service.queues lacks default, which actors have that name none".to_owned());
        }
        for class in &self.worker.classes {
            if !self.service.queues.contains(class) {
                found.warnings.push(format!(
                    "worker.classes has {class}, which no actor can name; add it to service.queues"
                ));
            }
        }
        if let Err(error) = self.host_access() {
            found.problems.push(format!("{error:#}"));
        }
        if let Some(path) = &self.api.signing_key_file {
            check_key(path, &mut found);
        }
        if let Some(path) = &self.service.secret_keys_file {
            match read_secret_keys(path) {
                Ok((_, warning)) => found.warnings.extend(warning),
                Err(error) => found.problems.push(format!("service.secret_keys_file: {error:#}")),
            }
        }
        if let Some(role) = role {
            let missing = self.missing(role);
            found.problems.extend(missing);
        }
        found
    }

    fn check_servers(&self, found: &mut Findings) {
        let (database, queue) = (&self.database, &self.queue);
        for (section, url, password_file, ca_file) in [
            ("database", &database.url, &database.password_file, &database.ca_file),
            ("queue", &queue.url, &queue.password_file, &queue.ca_file),
        ] {
            // Whoever sets up a unit or a pod for both servers may use one of them.
            let Some(url) = url else {
                if password_file.is_some() || ca_file.is_some() {
                    found.warnings.push(format!(
                        "{section}.url is not set, so the rest of [{section}] is not used"
                    ));
                }
                continue;
            };
            if let Some(path) = password_file {
                match read_secret(path) {
                    Ok((_, warning)) => found.warnings.extend(warning),
                    Err(error) => {
                        found.problems.push(format!("{section}.password_file: {error:#}"))
                    }
                }
            }
            if let Some(path) = ca_file
                && let Err(error) = check_certificates(path)
            {
                found.problems.push(format!("{section}.ca_file: {error:#}"));
            }
            if has_password(url) {
                found.warnings.push(format!(
                    "{section}.url has a password in it, which processes and logs may show; \
                     put it into a file that {section}.password_file names"
                ));
            }
        }
        if queue.url.is_some() && database.url.is_none() {
            found.problems.push(
                "queue.url is set and database.url is not: RabbitMQ needs PostgreSQL beside it"
                    .to_owned(),
            );
        }
        if let Some(url) = &database.url
            && !is_loopback(url)
            && !url.contains("sslmode=verify-full")
        {
            found.warnings.push(
                "database.url does not ask for a checked certificate; add ?sslmode=verify-full"
                    .to_owned(),
            );
        }
        if let Some(url) = &queue.url
            && !is_loopback(url)
            && !url.starts_with("amqps:")
        {
            found.warnings.push(
                "queue.url crosses the network without TLS; write amqps:// if the broker has it"
                    .to_owned(),
            );
        }
    }

    fn check_public_urls(&self, found: &mut Findings) {
        let ours = self.service.public_url.as_ref();
        // That of the API is ours where it has none of its own.
        let of_api = self.api.public_url.as_ref().filter(|url| Some(*url) != ours);
        for (key, url) in [("service.public_url", ours), ("api.public_url", of_api)] {
            let Some(url) = url else { continue };
            let config = abax_api::Config { api_server: Some(url.clone()), ..Default::default() };
            if let Err(error) = config.check() {
                found.problems.push(format!("{key}: {error}"));
            } else if is_loopback(url) || is_no_address(url) {
                found.warnings.push(format!(
                    "{key} is {url}, which other machines do not reach, nor executions, whose \
                     loopback is their own; name an address of this one that they reach"
                ));
            }
        }
    }

    fn check_trust(&self, found: &mut Findings) {
        let tenants = self.tenants().unwrap_or_else(|error| {
            found.problems.push(format!("{error:#}"));
            TenantsSettings::default()
        });
        for (name, tenant) in tenants.iter() {
            let server = tenant.api_server.clone();
            let config = abax_api::Config { api_server: server, ..Default::default() };
            if let Err(error) = config.check() {
                found.problems.push(format!("service.tenants.{name}.public_url: {error}"));
            }
        }
        let mut config = abax_api::Config::default();
        let ended = self.trust(&mut config);
        if let Err(error) = ended.and_then(|()| config.check_issuers().context("api.issuers")) {
            found.problems.push(format!("{error:#}"));
        }
        for (name, issuer) in &self.api.issuers {
            let Some(url) = &issuer.jwks_url else { continue };
            if url.starts_with("http:") && !is_loopback(url) {
                found.warnings.push(format!(
                    "api.issuers.{name}.jwks_url crosses the network without TLS, where anybody \
                     may put in keys of their own; write https:// if the issuer has it"
                ));
            }
        }
    }

    /// What a process of `role` needs and was not given.
    pub(crate) fn missing(&self, role: Role) -> Vec<String> {
        let mut missing = Vec::new();
        let name = match role {
            Role::Serve => return missing,
            Role::Api => "abax api",
            Role::Worker => "abax worker",
            Role::Migrate => "abax migrate",
        };
        if self.database.url.is_none() {
            missing.push(format!(
                "{name} needs database.url (ABAX_DATABASE_URL), a PostgreSQL server that all \
                 processes share; for one machine without one there is `abax serve`"
            ));
        }
        if matches!(role, Role::Api | Role::Worker) && self.api.signing_key_file.is_none() {
            missing.push(format!(
                "{name} needs api.signing_key_file (ABAX_API_SIGNING_KEY_FILE), the same key in \
                 all processes; `openssl rand -out signing.key 32` makes one"
            ));
        }
        if matches!(role, Role::Api | Role::Worker) && self.api.public_url.is_none() {
            missing.push(format!(
                "{name} needs api.public_url (ABAX_API_PUBLIC_URL), the address at which users \
                 and executions reach the service"
            ));
        }
        missing
    }
}

fn check_key(path: &Path, found: &mut Findings) {
    match std::fs::read(path) {
        Ok(key) => {
            if let Err(error) = abax_api::Keys::new(&key) {
                found.problems.push(format!("api.signing_key_file: {}: {error}", path.display()));
            }
        }
        Err(error) => found
            .problems
            .push(format!("api.signing_key_file: could not read {}: {error}", path.display())),
    }
    if let Ok(metadata) = std::fs::metadata(path) {
        found.warnings.extend(readable_by_all(path, &metadata));
    }
}

/// What is listened on, and cannot be called.
fn is_no_address(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| matches!(url.host_str(), Some("0.0.0.0" | "[::]")))
}

fn is_loopback(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| {
        url.host_str().is_none_or(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]")
    })
}
