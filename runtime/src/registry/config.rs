//! Which registries are reached how.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::error::Error;

/// Which registries are reached how; the default needs no configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// By registry (`docker.io`), what to ask before it, in order: a host with
    /// or without scheme, and with a prefix of repositories if there is a path
    /// (`mirror.example.com`, `http://10.0.0.7:5000`, `harbor.example.com/hub`).
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (`registry.lan:5000`, or without port for all ports) that speak
    /// HTTP without TLS. Loopback addresses do without being listed.
    pub plain_http: Vec<String>,
    /// Registries at addresses of this machine (`localhost:5000`) that strangers may
    /// name; those of `plain_http` and mirrors they may anyway.
    pub local: Vec<String>,
    /// Whether strangers say what is pulled: they reach nothing else at addresses of
    /// this machine, and nobody takes for ever to answer them.
    #[serde(skip)]
    pub named_by_strangers: bool,
    /// PEM file of certificate authorities to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Docker's `config.json` with credentials and credential helpers.
    pub docker_config: Option<PathBuf>,
    /// Layers that are downloaded at the same time.
    pub parallel_downloads: NonZeroUsize,
    /// How often a request is tried that fails for a reason that may pass.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from one to the next.
    pub retry_delay_milliseconds: u64,
    /// How long to wait for a connection, and for the next bytes on it.
    pub timeout_seconds: u64,
}

impl Default for RegistriesConfig {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            plain_http: Vec::new(),
            local: Vec::new(),
            named_by_strangers: false,
            ca_bundle: None,
            docker_config: None,
            parallel_downloads: NonZeroUsize::new(3).expect("three is not zero"),
            attempts: 6,
            retry_delay_milliseconds: 500,
            timeout_seconds: 30,
        }
    }
}

impl RegistriesConfig {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.max(1))
    }

    /// Whether `host` (with its port, if any) is spoken to without TLS.
    pub(super) fn is_plain(&self, host: &str) -> bool {
        let name = without_port(host);
        is_loopback(name) || self.plain_http.iter().any(|plain| plain == host || plain == name)
    }

    /// Whom to ask for an image of `registry`, in order; the registry itself is last.
    pub(super) fn endpoints(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Vec<Endpoint>, Error> {
        let mirrors = self.mirrors.get(registry).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints = Vec::with_capacity(mirrors.len() + 1);
        for mirror in mirrors {
            endpoints.push(self.endpoint(mirror, mirror, repository, true)?);
        }
        // Docker's name for its registry is not the host that serves it.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        endpoints.push(self.endpoint(host, registry, repository, false)?);
        Ok(endpoints)
    }

    fn endpoint(
        &self,
        address: &str,
        shown: &str,
        repository: &str,
        is_mirror: bool,
    ) -> Result<Endpoint, Error> {
        let invalid = || Error::Address { text: address.to_owned() };
        let (scheme, rest) = match address.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some(("https", rest)) => (Some("https"), rest),
            Some(_) => return Err(invalid()),
            None => (None, address),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let scheme = scheme.unwrap_or(if self.is_plain(host) { "http" } else { "https" });
        let repository = match prefix {
            "" => repository.to_owned(),
            prefix => format!("{prefix}/{repository}"),
        };
        let base =
            Url::parse(&format!("{scheme}://{host}/v2/{repository}/")).map_err(|_| invalid())?;
        if host.is_empty() || !base.username().is_empty() || base.password().is_some() {
            return Err(invalid());
        }
        let shown = if is_mirror { host } else { shown };
        Ok(Endpoint { base, host: shown.to_owned(), repository, is_mirror })
    }
}

/// One place that may have an image.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `https://HOST/v2/REPOSITORY/`
    pub(super) base: Url,
    /// As users and docker's configuration call it.
    pub(super) host: String,
    /// With a mirror's prefix.
    pub(super) repository: String,
    pub(super) is_mirror: bool,
}

impl Endpoint {
    pub(super) fn url(&self, kind: &str, name: &str) -> Url {
        self.base.join(&format!("{kind}/{name}")).expect("tags and digests are path segments")
    }
}

/// Whether an address or a name is this machine's own.
pub(super) fn is_loopback(name: &str) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(config: &RegistriesConfig, registry: &str) -> Vec<String> {
        let endpoints = config.endpoints(registry, "library/alpine").unwrap();
        endpoints.iter().map(|endpoint| endpoint.url("manifests", "latest").to_string()).collect()
    }

    #[test]
    fn registries_are_reached_by_https_but_for_loopback_and_listed_ones() {
        let config = RegistriesConfig {
            plain_http: vec!["registry.lan".into(), "other.lan:5000".into()],
            ..Default::default()
        };
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("quay.io", "https://quay.io"),
            ("registry.lan:5000", "http://registry.lan:5000"),
            ("other.lan:5000", "http://other.lan:5000"),
            ("other.lan:5001", "https://other.lan:5001"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("localhost:5000", "http://localhost:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("128.0.0.1:5000", "https://128.0.0.1:5000"),
        ] {
            let expected = format!("{base}/v2/library/alpine/manifests/latest");
            assert_eq!(urls(&config, registry), [expected], "{registry}");
        }
    }

    #[test]
    fn mirrors_come_first_and_may_have_scheme_and_prefix() {
        let mut config = RegistriesConfig::default();
        config.mirrors.insert(
            "docker.io".into(),
            vec!["http://10.0.0.7:5000".into(), "harbor.example.com/hub/".into()],
        );
        assert_eq!(
            urls(&config, "docker.io"),
            [
                "http://10.0.0.7:5000/v2/library/alpine/manifests/latest",
                "https://harbor.example.com/v2/hub/library/alpine/manifests/latest",
                "https://registry-1.docker.io/v2/library/alpine/manifests/latest",
            ]
        );
    }

    #[test]
    fn mirrors_that_are_no_addresses_are_refused() {
        for mirror in ["ftp://mirror", "https://", "http://user:secret@mirror", "a b"] {
            let mut config = RegistriesConfig::default();
            config.mirrors.insert("docker.io".into(), vec![mirror.into()]);
            let error = config.endpoints("docker.io", "library/alpine").unwrap_err();
            assert!(matches!(error, Error::Address { .. }), "{mirror}: {error:?}");
        }
    }
}
