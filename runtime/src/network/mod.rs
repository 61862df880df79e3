//! What a container gets of the network, from its namespace to `resolv.conf`.
//!
//! A bridge is made once per boot: interface, address, forwarding, and one table of packet rules.
//! A container costs netlink messages only: a veth pair whose far end is born in the container's
//! namespace, an address, a route. No process is started for it, no rule is added, and nothing is
//! deleted at its end: the kernel clears the interfaces of dead namespaces in batches, while
//! deleting one by hand waits 34 ms.
//!
//! The network is IPv4.

mod bridge;
mod firewall;
mod ipam;
mod netlink;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use ipam::Leases;

pub use bridge::Bridge;

/// Which network a container is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A namespace with a loopback only.
    #[default]
    None,
    /// The host's own namespace.
    Host,
    /// A namespace of its own, on a bridge.
    Bridge(BridgeConfig),
}

/// A bridge and what its containers may reach.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// Name of the interface, at most 15 bytes. Default `abax0`.
    pub name: String,
    /// Addresses of the containers; the first one is the bridge's own. Default 172.29.0.0/16.
    pub subnet: Ipv4Net,
    /// Containers reach neither each other nor the host's own addresses (but `host_ports`) nor
    /// 169.254.0.0/16, where clouds answer questions about the machine. Default off.
    pub isolated: bool,
    /// TCP ports of the host's loopback that containers reach at the bridge's address.
    pub host_ports: Vec<u16>,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            name: "abax0".to_owned(),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 0, 0), 16),
            isolated: false,
            host_ports: Vec::new(),
        }
    }
}

impl BridgeConfig {
    /// Interface names end up in file names, rules and netlink messages.
    fn check(&self) -> Result<(), NetworkError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name = self.name.as_bytes();
        let starts_well = name.first().is_some_and(u8::is_ascii_alphabetic);
        if !starts_well || name.len() > 15 || !name.iter().copied().all(plain) {
            return Err(NetworkError::Name { name: self.name.clone() });
        }
        let subnet = self.subnet;
        if !(8..=30).contains(&subnet.prefix_len()) || subnet.addr() != subnet.network() {
            return Err(NetworkError::Subnet { subnet });
        }
        Ok(())
    }
}

/// What a container got on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// The container's own address, on its `eth0`.
    pub address: Ipv4Addr,
    /// Bits of the address that the subnet has.
    pub prefix_length: u8,
    /// The bridge's address: the default route.
    pub gateway: Ipv4Addr,
    /// The host's end of the veth pair.
    pub interface: String,
}

/// Why a network could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum NetworkError {
    #[error(
        "{name:?} is no name for a bridge: it takes up to 15 letters, digits and -_., a letter first"
    )]
    Name { name: String },
    #[error("{subnet} is no subnet for a bridge: it takes a network address with 8 to 30 bits")]
    Subnet { subnet: Ipv4Net },
    #[error(
        "the subnet {subnet} of the bridge overlaps {route}, which this host reaches by {interface}; choose another `subnet`"
    )]
    SubnetInUse { subnet: Ipv4Net, interface: String, route: Ipv4Net },
    #[error("all addresses of {subnet} are taken; {} says by whom", directory.display())]
    Exhausted { subnet: Ipv4Net, directory: PathBuf },
    #[error("interface {name} exists and is not a bridge; choose another `name`")]
    NotABridge { name: String },
    #[error("could not set up bridge {name}")]
    Bridge { name: String, source: io::Error },
    #[error("could not connect container {container}: could not {step}")]
    Attach { container: String, step: &'static str, source: io::Error },
    #[error("neither nft nor iptables is installed; install the package nftables (or iptables)")]
    NoFirewallTool,
    #[error("could not set packet rules with {tool}")]
    Tool { tool: &'static str, source: io::Error },
    #[error("could not set {path} to {value}")]
    Setting { path: String, value: String, source: io::Error },
    #[error("could not use {}", path.display())]
    State { path: PathBuf, source: io::Error },
}

/// Gives back the addresses of containers that are not alive, on every bridge that this state root
/// knows, such as after a crash. A container must count as alive before it is attached.
///
/// # Errors
///
/// [`NetworkError::State`]: the leases cannot be read or changed.
pub fn sweep(root: &Path, is_alive: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
    let path = root.join("network");
    let failed = |source| NetworkError::State { path: path.clone(), source };
    let bridges = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bridges => bridges.map_err(failed)?,
    };
    for bridge in bridges {
        let leases = bridge.map_err(failed)?.path().join("leases");
        if leases.is_dir() {
            // Which subnet they are of matters only to who takes one.
            Leases::open(leases, Ipv4Net::default())?.sweep(&is_alive)?;
        }
    }
    Ok(())
}

/// `/etc/resolv.conf` for a container in a namespace of its own: the host's, without resolvers on
/// the host's loopback, which it cannot reach.
///
/// Where all are (`systemd-resolved` listens on 127.0.0.53), those behind them are taken from
/// `/run/systemd/resolve/resolv.conf`; where that says nothing, public ones. resolv.conf(5).
pub fn resolv_conf() -> String {
    // A host without the file has no resolvers to hand on.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    resolv_conf_from(&read("/etc/resolv.conf"), || read("/run/systemd/resolve/resolv.conf"))
}

/// Docker's choice for a host that names none.
const PUBLIC_RESOLVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

fn resolv_conf_from(host: &str, behind: impl FnOnce() -> String) -> String {
    let resolver = |line: &str| {
        let mut words = line.split_whitespace();
        let is_one = words.next() == Some("nameserver");
        // A scope (fe80::1%eth0) means nothing in another namespace.
        is_one.then(|| words.next().unwrap_or_default().parse::<IpAddr>().ok())
    };
    let usable = |line: &str| match resolver(line) {
        Some(Some(IpAddr::V4(address))) => !address.is_loopback() && !address.is_unspecified(),
        Some(Some(IpAddr::V6(_)) | None) => false, // The bridge carries IPv4 only.
        None => true,
    };
    let has_resolver =
        |text: &str| text.lines().any(|line| resolver(line).is_some() && usable(line));
    let lines = |text: &str, keep: &dyn Fn(&str) -> bool| -> String {
        text.lines().filter(|line| keep(line)).flat_map(|line| [line, "\n"]).collect()
    };
    if has_resolver(host) {
        return lines(host, &usable);
    }
    let behind = behind();
    if has_resolver(&behind) {
        return lines(&behind, &usable);
    }
    lines(host, &|line| resolver(line).is_none()) + PUBLIC_RESOLVERS
}

/// `/etc/hosts` for a container in a namespace of its own: the loopback's names, its own name, and
/// the host as `host.abax.internal` (and by Docker's name for it). hosts(5).
pub fn hosts(hostname: &str, attachment: Option<&Attachment>) -> String {
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if let Some(Attachment { address, gateway, .. }) = attachment {
        hosts += &format!("{gateway}\thost.abax.internal host.docker.internal\n");
        hosts += &format!("{address}\t{hostname}\n");
    } else {
        hosts += &format!("127.0.1.1\t{hostname}\n");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_the_hosts_loopback_are_replaced() {
        let none = String::new;
        let behind = || "nameserver 192.0.2.7\nsearch inner.example\n".to_owned();
        for (host, behind, expected) in [
            ("nameserver 192.0.2.1\n", none as fn() -> String, "nameserver 192.0.2.1\n"),
            (
                "# made by hand\nsearch a.example\nnameserver 127.0.0.1\nnameserver 192.0.2.1\noptions ndots:2\n",
                none,
                "# made by hand\nsearch a.example\nnameserver 192.0.2.1\noptions ndots:2\n",
            ),
            (
                "nameserver 127.0.0.53\noptions edns0\n",
                behind,
                "nameserver 192.0.2.7\nsearch inner.example\n",
            ),
            (
                "nameserver 127.0.0.53\noptions edns0\n",
                none,
                "options edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n",
            ),
            ("nameserver ::1\n", none, PUBLIC_RESOLVERS),
            ("", none, PUBLIC_RESOLVERS),
        ] {
            assert_eq!(resolv_conf_from(host, behind), expected, "{host:?}");
        }
    }

    #[test]
    fn a_sweep_finds_the_leases_of_every_bridge() {
        let root = tempfile::tempdir().unwrap();
        sweep(root.path(), |_| false).unwrap();
        let open = |bridge: &str| {
            let directory = root.path().join("network").join(bridge).join("leases");
            Leases::open(directory, "10.9.0.0/30".parse().unwrap()).unwrap()
        };
        open("one").take("dead").unwrap();
        open("two").take("alive").unwrap();
        sweep(root.path(), |id| id == "alive").unwrap();
        open("one").take("next").unwrap();
        assert!(open("two").take("next").is_err());
    }

    #[test]
    fn hosts_name_the_container_and_the_host() {
        let attachment = Attachment {
            address: Ipv4Addr::new(172, 29, 0, 9),
            prefix_length: 16,
            gateway: Ipv4Addr::new(172, 29, 0, 1),
            interface: "abax0".into(),
        };
        let text = hosts("box", Some(&attachment));
        assert!(text.contains("172.29.0.9\tbox\n"), "{text}");
        assert!(text.contains("172.29.0.1\thost.abax.internal host.docker.internal\n"), "{text}");
        assert!(hosts("box", None).contains("127.0.1.1\tbox\n"));
    }

    #[test]
    fn bridge_settings_that_cannot_work_are_refused() {
        for (name, subnet, valid) in [
            ("abax0", "172.29.0.0/16", true),
            ("br-1.x_y", "10.0.0.0/30", true),
            ("", "172.29.0.0/16", false),
            ("sixteen-letters-", "172.29.0.0/16", false),
            ("a b", "172.29.0.0/16", false),
            ("../x", "172.29.0.0/16", false),
            ("abax0", "172.29.0.1/16", false),
            ("abax0", "172.29.0.0/31", false),
            ("abax0", "0.0.0.0/0", false),
        ] {
            let config = BridgeConfig {
                name: name.into(),
                subnet: subnet.parse().unwrap(),
                ..Default::default()
            };
            assert_eq!(config.check().is_ok(), valid, "{name:?} {subnet}");
        }
    }
}
