//! `abax admin doctor`: what is wrong, and what to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use abax_actors::{Chain, DatabaseConfig, Diagnosis, Host, HostStatus, Service, Time};
use serde_json::json;

use super::super::reach::{self, PATIENCE};
use super::hosts::ago;
use crate::args::{AdminDoctor, Format};
use crate::config::Settings;
use crate::exit::Silent;
use crate::output;

/// What waits for less than this is in order.
const LONG: Duration = Duration::from_secs(60);
/// A database that takes longer to answer slows every message down.
const SLOW: Duration = Duration::from_millis(50);
/// Nothing breaks by it, but times in logs beside each other mislead.
const CLOCK_OFF: Duration = Duration::from_secs(2);
/// With less free, an image of the usual size may not fit.
const DISK_LOW: u64 = 10 << 30;
/// With less free, logs and layers may not fit.
const DISK_FULL: u64 = 1 << 30;
/// Of a hundred inodes; layers are many small files.
const INODES_LOW: u64 = 5;
/// Examples of one kind in one line.
const EXAMPLES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found, in the order of looking.
#[derive(Debug, Default)]
struct Findings(Vec<(&'static str, Verdict, String)>);

impl Findings {
    fn ok(&mut self, what: &'static str, words: impl Into<String>) {
        self.0.push((what, Verdict::Ok, words.into()));
    }

    fn warn(&mut self, what: &'static str, words: impl Into<String>) {
        self.0.push((what, Verdict::Warn, words.into()));
    }

    fn fail(&mut self, what: &'static str, words: impl Into<String>) {
        self.0.push((what, Verdict::Fail, words.into()));
    }
}

pub(super) async fn run(settings: &Settings, args: &AdminDoctor) -> anyhow::Result<()> {
    let mut found = Findings::default();
    files(settings, &mut found);
    disk(settings, &mut found);
    if let Some(service) = database(settings, &mut found).await {
        work(&service, &mut found).await;
    }
    print(&found, args.format)?;
    if found.0.iter().any(|(_, verdict, _)| *verdict == Verdict::Fail) {
        return Err(Silent(1).into());
    }
    Ok(())
}

/// The settings, and the files that they name.
fn files(settings: &Settings, found: &mut Findings) {
    let checked = settings.check(None);
    for problem in &checked.problems {
        found.fail("settings", problem);
    }
    for warning in &checked.warnings {
        found.warn("settings", warning);
    }
    if checked.problems.is_empty() && checked.warnings.is_empty() {
        found.ok("settings", "keys, passwords and certificates can be read");
    }
}

/// The disk of the state root, where this machine has one.
fn disk(settings: &Settings, found: &mut Findings) {
    let root = &settings.root;
    if !root.exists() {
        found.ok("disk", format!("{} is not on this machine", root.display()));
        return;
    }
    match rustix::fs::statvfs(root) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            // Some file systems do not count inodes.
            let inodes = disk.f_favail.saturating_mul(100).checked_div(disk.f_files);
            let words = format!("{} has {} free", root.display(), output::size(free));
            let remedy = "remove images (abax rmi) or give the disk more";
            if free < DISK_FULL || inodes == Some(0) {
                found.fail("disk", format!("{words}; {remedy}"));
            } else if free < DISK_LOW {
                found.warn("disk", format!("{words}; {remedy}"));
            } else if let Some(inodes) = inodes.filter(|part| *part < INODES_LOW) {
                found.warn("disk", format!("{words}, but {inodes} % of its inodes; {remedy}"));
            } else {
                found.ok("disk", words);
            }
        }
        Err(error) => found.fail("disk", format!("could not look at {}: {error}", root.display())),
    }
}

/// The database: there, with our schema, and quick. None where it is not.
async fn database(settings: &Settings, found: &mut Findings) -> Option<Service> {
    let config = match settings.database() {
        Ok(config) => config,
        Err(error) => {
            found.fail("database", format!("{error:#}"));
            return None;
        }
    };
    let is_file = matches!(config, DatabaseConfig::Sqlite { .. });
    if !is_file {
        match tokio::time::timeout(PATIENCE, Service::schema(&config)).await {
            Ok(Ok(schema)) if schema.found.unwrap_or(0) < schema.needed => {
                found.fail(
                    "schema",
                    format!(
                        "at step {}, and this program needs {}; run `abax migrate`",
                        schema.found.unwrap_or(0),
                        schema.needed
                    ),
                );
                return None;
            }
            Ok(Ok(schema)) => {
                found.ok("schema", format!("at step {}", schema.found.unwrap_or(0)));
            }
            Ok(Err(error)) => {
                found.fail(
                    "database",
                    format!("{}; is it running, and is database.url right?", Chain(&error)),
                );
                return None;
            }
            Err(_) => {
                found.fail(
                    "database",
                    format!(
                        "no answer within {} s; is there a firewall before it?",
                        PATIENCE.as_secs()
                    ),
                );
                return None;
            }
        }
    }
    match super::open(settings).await {
        Ok(service) => Some(service),
        Err(error) => {
            found.fail("database", format!("{error:#}"));
            None
        }
    }
}

/// All that the database knows of the service's work.
async fn work(service: &Service, found: &mut Findings) {
    let readiness = service.readiness().await;
    for problem in &readiness.problems {
        found.fail("database", format!("{problem}; nothing is accepted until then"));
    }
    broker(service, found).await;
    let diagnosis = match service.diagnose(LONG).await {
        Ok(diagnosis) => diagnosis,
        Err(error) => return found.fail("database", Chain(&error).to_string()),
    };
    let latency = format!("answers within {} ms", diagnosis.latency.as_millis().max(1));
    if diagnosis.latency > SLOW {
        found.warn(
            "database",
            format!("{latency}, which every message waits for; look at its load"),
        );
    } else if readiness.problems.is_empty() {
        found.ok("database", latency);
    }
    let hosts = match service.hosts().await {
        Ok(hosts) => without_predecessors(hosts),
        Err(error) => return found.fail("hosts", Chain(&error).to_string()),
    };
    clocks(service, &hosts, found);
    known_hosts(&diagnosis, &hosts, found);
    executions(&diagnosis, &hosts, found);
    match service.health().await {
        Ok(health) => {
            for (class, load) in &health.classes {
                let words = format!("class {class}: {} wait, {} run", load.waiting, load.running);
                found.ok("queue", words);
            }
        }
        Err(error) => found.fail("queue", Chain(&error).to_string()),
    }
}

/// The broker, where there is one: there, and how much it holds.
async fn broker(service: &Service, found: &mut Findings) {
    if service.queue_state().is_none() {
        return found.ok("broker", "none; the database calls the hosts");
    }
    if !reach::broker(service).await {
        return found.fail(
            "broker",
            format!(
                "no connection within {} s, so that messages are accepted and delayed; is it \
                 running, and is queue.url right?",
                PATIENCE.as_secs()
            ),
        );
    }
    let began = Instant::now();
    match tokio::time::timeout(PATIENCE, service.waiting_activations()).await {
        Ok(Ok(depths)) => {
            let took = began.elapsed().as_millis().max(1);
            let depths: Vec<_> =
                depths.iter().map(|(class, depth)| format!("{depth} for class {class}")).collect();
            found.ok(
                "broker",
                format!("answers within {took} ms; calls that wait: {}", depths.join(", ")),
            );
        }
        Ok(Err(error)) => found.fail("broker", format!("{}; look at its log", Chain(&error))),
        Err(_) => found.fail(
            "broker",
            "connected, and does not answer; is it out of memory or disk (rabbitmqctl status)?",
        ),
    }
}

/// This machine's clock and those of the hosts, against the database's.
fn clocks(service: &Service, hosts: &[Host], found: &mut Findings) {
    let off = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let mut wrong = 0;
    let mut check = |who: String, offset: i64| {
        if off(offset) > CLOCK_OFF {
            wrong += 1;
            let side = if offset > 0 { "ahead of" } else { "behind" };
            found.warn(
                "clock",
                format!(
                    "that of {who} is {} {side} the database's; run an NTP client there",
                    output::span(off(offset))
                ),
            );
        }
    };
    // The offset is what we add to our time to have the database's.
    check("this machine".to_owned(), -service.clock().offset_micros());
    for host in hosts.iter().filter(|host| host.status == HostStatus::Working) {
        if let Some(offset) = host.clock_offset_us {
            check(format!("host {}", host.info.name), offset);
        }
    }
    if wrong == 0 {
        found.ok("clock", "all agree with the database's");
    }
}

/// Without processes that another of their name has followed: one that was killed
/// counts as there for a while, and is not heard of after the next has begun.
fn without_predecessors(mut hosts: Vec<Host>) -> Vec<Host> {
    let mut latest: BTreeMap<String, Time> = BTreeMap::new();
    for host in &hosts {
        let registered = latest.entry(host.info.name.clone()).or_insert(host.registered);
        *registered = host.registered.max(*registered);
    }
    hosts.retain(|host| {
        let latest = latest[&host.info.name];
        host.registered == latest || host.seen > latest
    });
    hosts
}

fn known_hosts(diagnosis: &Diagnosis, hosts: &[Host], found: &mut Findings) {
    let working: Vec<_> = hosts.iter().filter(|host| host.status == HostStatus::Working).collect();
    if working.is_empty() {
        found.fail("hosts", "none takes executions; start `abax worker` (or `abax serve`)");
    }
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for host in &working {
        *by_name.entry(&host.info.name).or_default() += 1;
    }
    for (name, _) in by_name.iter().filter(|(_, count)| **count > 1) {
        found.warn(
            "hosts",
            format!(
                "two that work are called {name}, so that nobody can tell them apart or cordon \
                 one of them; give one another worker.name"
            ),
        );
    }
    for host in hosts {
        let name = &host.info.name;
        let seen = ago(diagnosis.at, host.seen);
        match host.status {
            // Another process of that name has followed.
            HostStatus::Missing if by_name.contains_key(name.as_str()) => {}
            HostStatus::Missing => found.warn(
                "hosts",
                format!(
                    "{name} was last seen {seen}; what it ran is tried elsewhere. Look at its \
                     machine, and at its way to the database"
                ),
            ),
            HostStatus::Working if host.cordoned => found.warn(
                "hosts",
                format!("{name} is cordoned; `abax admin uncordon {name}` gives it work again"),
            ),
            HostStatus::Working if host.info.version != env!("CARGO_PKG_VERSION") => found.warn(
                "hosts",
                format!(
                    "{name} runs version {}, and this is {}; finish the upgrade",
                    host.info.version,
                    env!("CARGO_PKG_VERSION")
                ),
            ),
            HostStatus::Working => found.ok(
                "hosts",
                format!(
                    "{name}: {} of {} slots, seen {}",
                    host.running,
                    host.info.slots,
                    seen.to_lowercase()
                ),
            ),
            _ => {}
        }
    }
}

fn executions(diagnosis: &Diagnosis, hosts: &[Host], found: &mut Findings) {
    let mut fine = true;
    if let Some(first) = diagnosis.overdue.first() {
        fine = false;
        found.fail(
            "executions",
            format!(
                "{} run under a lease that is over, since {} for {}; no `abax api` or `abax serve` \
                 does the upkeep",
                diagnosis.overdue.len(),
                ago(diagnosis.at, first.lease_until),
                examples(diagnosis.overdue.iter().map(|one| one.execution.as_str())),
            ),
        );
    }
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for actor in &diagnosis.waiting {
        let free = hosts
            .iter()
            .filter(|host| host.status == HostStatus::Working && !host.cordoned)
            .filter(|host| host.info.classes.contains(&actor.class));
        let (mut hosts, mut slots) = (0, 0);
        for host in free {
            hosts += 1;
            slots += u64::from(host.info.slots).saturating_sub(host.running);
        }
        let reason = if hosts == 0 {
            format!("no host of class {} works; start one, or uncordon one", actor.class)
        } else if !actor.is_ready {
            format!("their images are not ready: {}", actor.status_message)
        } else if slots == 0 {
            format!("all slots of class {} are taken; add hosts or slots", actor.class)
        } else {
            "there is room for them, and nobody takes them; look at the broker and at the logs of \
             the hosts"
                .to_owned()
        };
        by_reason.entry(reason).or_default().push(actor.actor.as_str());
    }
    for (reason, actors) in by_reason {
        fine = false;
        let words = format!(
            "{} actors wait for more than {}: {reason} ({})",
            actors.len(),
            output::span(LONG),
            examples(actors.iter().copied())
        );
        if reason.starts_with("there is room") {
            found.fail("executions", words);
        } else {
            found.warn("executions", words);
        }
    }
    if let Some(first) = diagnosis.broken.first() {
        found.warn(
            "actors",
            format!(
                "{} cannot run ({}): {}; `abax actor update --force` tries again",
                diagnosis.broken.len(),
                examples(diagnosis.broken.iter().map(|one| one.actor.as_str())),
                first.status_message,
            ),
        );
    }
    if fine {
        found.ok("executions", "none stands still");
    }
}

/// The first of many.
fn examples<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<_> = all.collect();
    let mut text = all.iter().take(EXAMPLES).copied().collect::<Vec<_>>().join(", ");
    if all.len() > EXAMPLES {
        text.push_str(" …");
    }
    text
}

fn print(found: &Findings, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let all: Vec<_> = found
                .0
                .iter()
                .map(|(what, verdict, words)| {
                    json!({"check": what, "verdict": verdict.word(), "message": words})
                })
                .collect();
            output::json(&all)?;
        }
        Format::Table => {
            for (what, verdict, words) in &found.0 {
                let words = output::printable(words);
                output::line(format!("{:<5} {what:<11} {words}", verdict.word()))?;
            }
        }
    }
    Ok(())
}
