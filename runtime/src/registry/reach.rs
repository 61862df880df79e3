//! What a pull may reach whose image a stranger named: not the machine that pulls.
//! A registry may be anywhere, send its clients elsewhere, and have any name.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::config::{RegistriesConfig, is_loopback, without_port};
use super::error::Error;
use super::http::host_of;

impl RegistriesConfig {
    /// Fails for an address of this machine that the operator did not name. Names are
    /// looked up later, by [`Outside`].
    pub(super) fn check_reach(&self, url: &Url) -> Result<(), Error> {
        if !self.named_by_strangers || self.is_named(&host_of(url)) {
            return Ok(());
        }
        let name = url.host_str().unwrap_or_default();
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if is_loopback(name) || literal.is_ok_and(is_of_this_machine) {
            return Err(Error::OwnAddress { host: host_of(url) });
        }
        Ok(())
    }

    /// Whether the operator named `host`, with its port, if any, or without one.
    fn is_named(&self, host: &str) -> bool {
        let name = without_port(host);
        self.named().any(|named| named == host || named == name)
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        let mirrors = self.mirrors.values().flatten().map(|mirror| {
            let rest = mirror.split_once("://").map_or(mirror.as_str(), |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default()
        });
        let listed = self.plain_http.iter().chain(&self.local).chain(self.mirrors.keys());
        listed.map(String::as_str).chain(mirrors)
    }
}

/// Looks names up, and gives no address of this machine for one that the operator did
/// not name. The connection goes to what was given, so that a name cannot mean another
/// address by then.
pub(super) struct Outside {
    named: Vec<String>,
}

impl Outside {
    pub(super) fn new(config: &RegistriesConfig) -> Self {
        let named = config.named().map(|host| without_port(host).to_owned());
        // What is asked for by this name was refused before: it is a proxy's.
        Self { named: named.chain(["localhost".to_owned()]).collect() }
    }
}

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let is_named = self.named.contains(&host);
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let there_was_one = !found.is_empty();
            let outside: Vec<SocketAddr> =
                found.into_iter().filter(|at| is_named || !is_of_this_machine(at.ip())).collect();
            match there_was_one && outside.is_empty() {
                true => Err(Own.into()),
                false => Ok(Box::new(outside.into_iter()) as Addrs),
            }
        })
    }
}

/// All addresses of a name are this machine's.
#[derive(Debug, thiserror::Error)]
#[error("it is at an address of this machine")]
struct Own;

/// Whether a request failed for that.
pub(super) fn is_own(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<Own>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether only this machine answers there, or what is on its own link: cloud hosts
/// learn their passwords from such an address.
fn is_of_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return true;
    }
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[..6] == [0; 6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_reach_of_this_machine_what_its_operator_named() {
        let mut config = RegistriesConfig { named_by_strangers: true, ..Default::default() };
        config.local = vec!["localhost:5000".to_owned()];
        config.plain_http = vec!["127.0.0.2".to_owned()];
        config.mirrors.insert("docker.io".into(), vec!["http://[::1]:6000/hub".into()]);
        for (url, may) in [
            ("http://localhost:5000/v2/", true),
            ("http://127.0.0.2:1/v2/", true),
            ("http://[::1]:6000/v2/", true),
            ("https://registry.example/v2/", true),
            ("https://10.1.2.3/v2/", true),
            ("http://localhost:5001/v2/", false),
            ("http://a.localhost/v2/", false),
            ("http://127.0.0.1:9999/v2/", false),
            ("http://127.1/v2/", false),
            ("http://[::1]/v2/", false),
            ("http://[::ffff:127.0.0.1]/v2/", false),
            ("http://0.0.0.0:80/v2/", false),
            ("http://[::]/v2/", false),
            ("http://169.254.169.254/latest/", false),
            ("https://[fe80::1]/v2/", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(config.check_reach(&url).is_ok(), may, "{url}");
        }
        config.named_by_strangers = false;
        config.check_reach(&Url::parse("http://127.0.0.1:9999/").unwrap()).unwrap();
    }
}
