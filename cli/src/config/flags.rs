//! What the command line says about settings.

use std::fmt::Display;
use std::path::PathBuf;

use toml::Value;

use crate::args::{self, Command, Global};
use crate::telemetry::LogFormat;

/// A setting that was given as a flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) key: &'static str,
    pub(super) flag: &'static str,
    pub(super) value: Value,
}

/// All settings on the command line.
pub(super) fn given(global: &Global, command: &Command) -> Vec<Flag> {
    let mut all = Flags(Vec::new());
    all.path("root", "--root", &global.root);
    all.path("ca_bundle", "--ca-bundle", &global.ca_bundle);
    all.text("log.level", "--log-level", &global.log_level);
    if let Some(format) = global.log_format {
        let word = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        all.add("log.format", "--log-format", Value::from(word));
    }
    match command {
        Command::Serve(args) => serve(&mut all, args),
        Command::Api(args) => api(&mut all, args),
        Command::Worker(args) => worker(&mut all, args),
        Command::Migrate(args) => all.text("database.url", "--database", &args.database),
        // No verb of `admin` has settings of its own.
        Command::Admin(args) => all.servers(&args.servers),
        Command::Token(args) => {
            all.path("service.data", "--data", &args.data);
            all.path("api.signing_key_file", "--signing-key", &args.signing_key);
        }
        Command::Actor(args) => all.path("service.data", "--data", &args.server.data),
        _ => {}
    }
    all.0
}

fn serve(all: &mut Flags, args: &args::Serve) {
    all.servers(&args.servers);
    all.text("service.listen", "--listen", &args.listen);
    all.text("service.public_url", "--public-url", &args.public_url);
    all.path("service.data", "--data", &args.data);
    all.whole("service.slots", "--slots", args.slots);
    all.whole("service.drain_seconds", "--drain", args.drain);
    all.whole("service.time_limit_seconds", "--time-limit", args.time_limit);
    all.text("service.memory", "--memory", &args.memory);
    all.ports("service.host_ports", "--host-port", &args.host_ports);
}

fn api(all: &mut Flags, args: &args::Api) {
    all.servers(&args.servers);
    all.text("api.listen", "--listen", &args.listen);
    all.text("api.public_url", "--public-url", &args.public_url);
    all.path("api.signing_key_file", "--signing-key", &args.signing_key);
    all.whole("api.drain_seconds", "--drain", args.drain);
}

fn worker(all: &mut Flags, args: &args::Worker) {
    all.servers(&args.servers);
    all.path("api.signing_key_file", "--signing-key", &args.signing_key);
    all.text("worker.name", "--name", &args.name);
    all.whole("worker.slots", "--slots", args.slots);
    all.texts("worker.classes", "--class", &args.classes);
    all.text("worker.memory", "--memory", &args.memory);
    if let Some(cpus) = args.cpus {
        all.add("worker.cpus", "--cpus", Value::Float(cpus));
    }
    all.texts("worker.prepull", "--prepull", &args.prepull);
    all.whole("worker.drain_seconds", "--drain", args.drain);
    all.text("worker.metrics_listen", "--metrics-listen", &args.metrics_listen);
    all.whole("service.time_limit_seconds", "--time-limit", args.time_limit);
    all.ports("service.host_ports", "--host-port", &args.host_ports);
}

struct Flags(Vec<Flag>);

impl Flags {
    fn add(&mut self, key: &'static str, flag: &'static str, value: Value) {
        self.0.push(Flag { key, flag, value });
    }

    fn text(&mut self, key: &'static str, flag: &'static str, given: &Option<impl Display>) {
        if let Some(text) = given {
            self.add(key, flag, Value::String(text.to_string()));
        }
    }

    fn path(&mut self, key: &'static str, flag: &'static str, given: &Option<PathBuf>) {
        self.text(key, flag, &given.as_ref().map(|path| path.display()));
    }

    fn whole(&mut self, key: &'static str, flag: &'static str, given: Option<u64>) {
        if let Some(number) = given {
            self.add(key, flag, Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)));
        }
    }

    /// A flag that may be repeated says nothing when it is not there at all.
    fn texts(&mut self, key: &'static str, flag: &'static str, given: &[String]) {
        if !given.is_empty() {
            let texts = given.iter().map(|text| Value::from(text.as_str())).collect();
            self.add(key, flag, Value::Array(texts));
        }
    }

    fn ports(&mut self, key: &'static str, flag: &'static str, given: &[u16]) {
        if !given.is_empty() {
            let ports = given.iter().map(|port| Value::Integer(i64::from(*port))).collect();
            self.add(key, flag, Value::Array(ports));
        }
    }

    fn servers(&mut self, args: &args::Servers) {
        self.text("database.url", "--database", &args.database);
        self.text("queue.url", "--queue", &args.queue);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::table::SETTINGS;
    use super::*;

    #[test]
    fn every_flag_of_the_table_sets_its_setting() {
        for setting in SETTINGS {
            for flag in setting.flags {
                let (verb, name) = flag.rsplit_once(' ').unwrap_or(("version", flag));
                let mut line: Vec<&str> = vec!["abax", verb];
                if verb == "admin" {
                    line.push("hosts");
                }
                if verb == "actor" {
                    line.push("list");
                }
                let known = |value: &&&str| setting.kind.read(value).is_some();
                let samples =
                    ["127.0.0.1:1", "7", "json", "a", "512m", "1.5", "http://h", "amqp://h"];
                let value = samples.iter().chain(&["postgres://h/d", "info"]).find(known);
                line.push(name);
                line.push(value.unwrap());
                let parsed = args::Abax::try_parse_from(&line).unwrap_or_else(|e| panic!("{e}"));
                let given = given(&parsed.global, &parsed.command);
                let found = given.iter().find(|f| f.key == setting.key);
                let found = found.unwrap_or_else(|| panic!("{line:?} sets no {}", setting.key));
                assert_eq!(found.flag, name);
                assert!(setting.kind.accepts(&found.value), "{line:?}: {found:?}");
            }
        }
    }
}
