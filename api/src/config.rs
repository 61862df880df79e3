//! What the HTTP side needs to know: parsed once, checked at start.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::{Issuer, Issuers};
use crate::dialect::Dialect;

/// Settings of the HTTP interface. [`Config::check`] runs before the first socket opens.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Scheme and authority under which callers reach the service, for links:
    /// `https://abax.example.org`. None: what the request's `Host` says.
    pub api_server: Option<String>,
    /// The dialect under `/actors` without a version.
    pub bare_dialect: Dialect,
    /// Those whose tokens are taken beside our own; tried in this order.
    pub issuers: Vec<Issuer>,
    /// Certificates (PEM) that are trusted beside the system's where keys of issuers
    /// are fetched.
    pub ca_pem: Option<Vec<u8>>,
    /// Calls of one user that may wait at once in this process: synchronous messages
    /// and logs that are followed.
    pub waits_per_user: usize,
    /// The largest message body taken.
    pub message_limit_bytes: usize,
    /// The largest body of any other request.
    pub body_limit_bytes: usize,
    /// How long a synchronous message may wait for its execution.
    pub sync_deadline: Duration,
    /// How long the head of a request may take to arrive, and how long an idle connection stays open.
    pub head_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How long open requests may go on after a stop.
    pub drain: Duration,
    /// Networks that webhooks may reach beside the public internet and this service
    /// itself: none.
    pub webhook_networks: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            api_server: None,
            bare_dialect: Dialect::Abax,
            issuers: Vec::new(),
            ca_pem: None,
            waits_per_user: 100,
            message_limit_bytes: 2 << 20,
            body_limit_bytes: 1 << 20,
            sync_deadline: Duration::from_secs(55),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(20),
            webhook_networks: Vec::new(),
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The base of all links is not one.
    #[error("{value} is not of the form https://host or http://host:port")]
    ApiServer {
        /// What was configured.
        value: String,
    },
    /// Somebody whose tokens are to be taken, in a way that cannot work.
    #[error("issuer {name}: {problem}")]
    Issuer {
        /// What the settings call it.
        name: String,
        /// Why not.
        problem: String,
    },
    /// A limit or time of zero would refuse every request.
    #[error("{name} is zero, so that every request would fail")]
    Zero {
        /// The setting's name.
        name: &'static str,
    },
}

impl Config {
    /// Checks the settings and takes off what does no harm (a slash at the end of `api_server`).
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn check(mut self) -> Result<Self, ConfigError> {
        if let Some(value) = &mut self.api_server {
            value.truncate(value.trim_end_matches('/').len());
            let authority =
                value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
            if !authority.is_some_and(is_authority) {
                return Err(ConfigError::ApiServer { value: value.clone() });
            }
        }
        for (name, is_zero) in [
            ("waits_per_user", self.waits_per_user == 0),
            ("message_limit_bytes", self.message_limit_bytes == 0),
            ("body_limit_bytes", self.body_limit_bytes == 0),
            ("sync_deadline", self.sync_deadline.is_zero()),
            ("head_timeout", self.head_timeout.is_zero()),
            ("body_timeout", self.body_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::Zero { name });
            }
        }
        Ok(self)
    }

    /// Checks those whose tokens are to be taken, without asking them anything.
    ///
    /// # Errors
    ///
    /// The first that cannot work.
    pub fn check_issuers(&self) -> Result<(), ConfigError> {
        Issuers::new(&self.issuers, self.ca_pem.as_deref()).map(|_| ())
    }
}

/// True for `host`, `host:port` and `[::1]:port`, without user names and paths.
pub(crate) fn is_authority(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 261
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_scheme_and_authority() {
        for (value, ok) in [
            ("https://abax.example.org", true),
            ("https://abax.example.org/", true),
            ("http://[::1]:8000", true),
            ("abax.example.org", false),
            ("https://", false),
            ("https://host/path", false),
            ("https://user@host", false),
        ] {
            let config = Config { api_server: Some(value.to_owned()), ..Config::default() };
            assert_eq!(config.check().is_ok(), ok, "{value}");
        }
    }
}
