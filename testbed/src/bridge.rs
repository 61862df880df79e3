//! What a bridge of a test leaves on the machine.

use std::process::{Command, Output};

/// Removes a bridge with its rules, whether or not it is there: the table of
/// nftables that has its name, and the rules in tables of iptables that name it.
pub fn remove_bridge(name: &str) {
    let _ = Command::new("ip").args(["link", "delete", name]).output();
    let _ = Command::new("nft").args(["delete", "table", "inet", &format!("abax_{name}")]).output();
    for table in ["filter", "nat", "raw"] {
        let rules = Command::new("iptables").args(["-w", "-t", table, "-S"]).output();
        for rule in text(rules).lines() {
            let mut words = rule.split_whitespace();
            if words.next() == Some("-A") && words.clone().any(|word| word == name) {
                let _ =
                    Command::new("iptables").args(["-w", "-t", table, "-D"]).args(words).output();
            }
        }
    }
}

fn text(output: std::io::Result<Output>) -> String {
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
