//! Packet rules of a bridge: masquerade to the outside, what its containers may reach, and the
//! host's ports that they may.
//!
//! One nftables table per bridge, written once in one transaction; no container adds a rule. An
//! accept in our table cannot overrule a drop in somebody else's, such as the `FORWARD` policy of a
//! Docker daemon; where the iptables tool exists, accepting rules stand in its tables too.
//! Where only iptables exists, it gets all rules.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;

use super::{BridgeConfig, NetworkError, ipam};

/// Which tool keeps the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tool {
    Nft,
    Iptables,
}

/// The nftables table of a bridge. Its names allow neither `-` nor `.` everywhere.
pub(super) fn table(bridge: &str) -> String {
    format!("abax_{}", bridge.replace(['-', '.'], "_"))
}

/// Puts the rules of a bridge in place, those from before replaced.
pub(super) fn apply(config: &BridgeConfig) -> Result<Tool, NetworkError> {
    let through_nft = match run("nft", &["-f", "-"], &script(config)) {
        Err(NetworkError::Tool { source, .. }) if source.kind() == io::ErrorKind::NotFound => false,
        result => result.map(|()| true)?,
    };
    let rules = if through_nft { passing_rules(config) } else { all_rules(config) };
    for (table, insert, rule) in rules {
        match ensure(table, insert, &rule) {
            Ok(()) => {}
            Err(NetworkError::Tool { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return if through_nft { Ok(Tool::Nft) } else { Err(NetworkError::NoFirewallTool) };
            }
            // An iptables that cannot reach its own tables has no policy that could be in our way.
            Err(_) if through_nft => break,
            Err(error) => return Err(error),
        }
    }
    Ok(if through_nft { Tool::Nft } else { Tool::Iptables })
}

/// The table as `nft -f -` reads it: nft(8).
fn script(config: &BridgeConfig) -> String {
    let BridgeConfig { name: bridge, subnet, isolated, host_ports } = config;
    let (table, gateway) = (table(bridge), ipam::gateway(*subnet));
    let ports = join(host_ports, ", ");
    let has_ports = !host_ports.is_empty();
    let mut rules = Vec::new();
    // Adding before deleting makes it no error that there is none.
    rules.push(format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{"));
    rules.push("chain raw { type filter hook prerouting priority raw; policy accept;".to_owned());
    // With route_localnet on, the host's loopback would be open to whoever addresses it.
    rules.push(format!("iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop"));
    rules.push(format!("iifname \"{bridge}\" meta nfproto ipv6 drop"));
    rules.push("}".to_owned());
    rules.push(
        "chain destination { type nat hook prerouting priority dstnat; policy accept;".to_owned(),
    );
    if has_ports {
        rules.push(format!(
            "iifname \"{bridge}\" ip daddr {gateway} tcp dport {{ {ports} }} dnat ip to 127.0.0.1"
        ));
    }
    rules.push("}".to_owned());
    rules.push(
        "chain source { type nat hook postrouting priority srcnat; policy accept;".to_owned(),
    );
    rules.push(format!("ip saddr {subnet} oifname != {{ \"{bridge}\", \"lo\" }} masquerade"));
    rules.push("}".to_owned());
    if *isolated {
        rules.push(
            "chain input { type filter hook input priority filter; policy accept;".to_owned(),
        );
        rules.push(format!("iifname \"{bridge}\" ct state established,related accept"));
        if has_ports {
            rules.push(format!(
                "iifname \"{bridge}\" ip daddr 127.0.0.1 tcp dport {{ {ports} }} ct status dnat accept"
            ));
        }
        rules.push(format!("iifname \"{bridge}\" drop"));
        rules.push("}".to_owned());
        rules.push(
            "chain forward { type filter hook forward priority filter; policy accept;".to_owned(),
        );
        rules.push(format!("iifname \"{bridge}\" ip daddr 169.254.0.0/16 drop"));
        rules.push(format!("iifname \"{bridge}\" oifname \"{bridge}\" drop"));
        rules.push(format!("oifname \"{bridge}\" ct state established,related accept"));
        rules.push(format!("oifname \"{bridge}\" drop"));
        rules.push("}".to_owned());
    }
    rules.push("}".to_owned());
    rules.join("\n")
}

/// Table of iptables, whether at the top, and the chain with its rule.
type Rule = (&'static str, bool, String);

/// What lets our packets through tables that are not ours.
fn passing_rules(config: &BridgeConfig) -> Vec<Rule> {
    let bridge = &config.name;
    let mut rules = vec![
        ("filter", true, format!("FORWARD -i {bridge} -j ACCEPT")),
        (
            "filter",
            true,
            format!("FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ),
    ];
    if !config.host_ports.is_empty() {
        rules.push((
            "filter",
            true,
            format!("INPUT -i {bridge} -m conntrack --ctstate DNAT -j ACCEPT"),
        ));
    }
    rules
}

/// All rules in iptables. Each is put at the top, so the last one here is the first to be asked.
fn all_rules(config: &BridgeConfig) -> Vec<Rule> {
    let BridgeConfig { name: bridge, subnet, isolated, host_ports } = config;
    let gateway = ipam::gateway(*subnet);
    let mut rules = vec![
        ("raw", true, format!("PREROUTING -i {bridge} -d 127.0.0.0/8 -j DROP")),
        ("nat", false, format!("POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE")),
    ];
    if *isolated {
        rules.push(("filter", true, format!("INPUT -i {bridge} -j DROP")));
        rules.push(("filter", true, format!("FORWARD -o {bridge} -j DROP")));
    }
    rules.extend(passing_rules(config));
    if *isolated {
        rules.push((
            "filter",
            true,
            format!("INPUT -i {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ));
        rules.push(("filter", true, format!("FORWARD -i {bridge} -d 169.254.0.0/16 -j DROP")));
        rules.push(("filter", true, format!("FORWARD -i {bridge} -o {bridge} -j DROP")));
    }
    for port in host_ports {
        rules.push((
            "nat",
            true,
            format!("PREROUTING -i {bridge} -d {gateway} -p tcp --dport {port} -j DNAT --to-destination 127.0.0.1"),
        ));
    }
    rules
}

/// Adds a rule of iptables(8) unless it is there.
fn ensure(table: &str, at_top: bool, rule: &str) -> Result<(), NetworkError> {
    let arguments = |action| {
        let mut arguments = vec!["-w", "-t", table, action];
        arguments.extend(rule.split(' '));
        arguments
    };
    match run("iptables", &arguments("-C"), "") {
        Err(NetworkError::Tool { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            run("iptables", &arguments(if at_top { "-I" } else { "-A" }), "")
        }
        result => result,
    }
}

fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Tool { tool, source };
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("asked for just now");
    // A tool that ends without reading says why on stderr.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(io::Error::other(message)))
}

fn join(ports: &[u16], separator: &str) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(separator)
}

/// True where packets for `one` could be meant for `other`.
pub(super) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}
