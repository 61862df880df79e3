//! What one instruction does to the state that the next one sees.
//!
//! The state is the image as it would be if the Dockerfile ended here, plus
//! the build arguments in scope. Nothing here touches a file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dockerfile::expand::{expand, expand_words};
use crate::dockerfile::{Command, Instruction, Problem, Volumes};
use crate::image::{Image, Layer};
use crate::platform::Platform;

/// In scope in every `RUN` when given, without `ARG`, and never recorded.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// True for a name in [`PROXIES`].
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// Build arguments: what the caller gives, and what stands before the first `FROM`.
#[derive(Debug, Default, Clone)]
pub(super) struct Given {
    /// From the caller; the last of one name counts.
    pub(super) arguments: BTreeMap<String, String>,
    /// Global `ARG`s with their values, and those that a platform sets.
    pub(super) global: BTreeMap<String, String>,
}

impl Given {
    /// The arguments that exist without being given: `TARGETARCH` and its kin.
    pub(super) fn platform(platform: &Platform) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        for prefix in ["TARGET", "BUILD"] {
            values.insert(format!("{prefix}PLATFORM"), platform.to_string());
            values.insert(format!("{prefix}OS"), platform.os.clone());
            values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            let variant = platform.variant.clone().unwrap_or_default();
            values.insert(format!("{prefix}VARIANT"), variant);
        }
        values
    }

    /// The value of a name in `FROM`.
    pub(super) fn global(&self, name: &str) -> Option<String> {
        self.global.get(name).cloned()
    }

    /// Takes a global `ARG`.
    pub(super) fn declare_global(&mut self, name: &str, default: Option<String>) {
        if let Some(value) = self.arguments.get(name).cloned().or(default) {
            self.global.insert(name.to_owned(), value);
        }
    }
}

/// An image in the making.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The image's config file as JSON, so that fields which only Docker knows survive.
    image: Map<String, Value>,
    pub(super) layers: Vec<Layer>,
    /// Build arguments in scope.
    arguments: BTreeMap<String, String>,
    /// This Dockerfile has a `CMD`, so `ENTRYPOINT` keeps it.
    has_command: bool,
}

impl State {
    /// `FROM scratch`.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let mut image = Map::new();
        image.insert("os".into(), json!(platform.os));
        image.insert("architecture".into(), json!(platform.architecture));
        if let Some(variant) = &platform.variant {
            image.insert("variant".into(), json!(variant));
        }
        Self { image, layers: Vec::new(), arguments: BTreeMap::new(), has_command: false }.whole()
    }

    /// `FROM` an image.
    pub(super) fn of(image: &Image) -> Self {
        let mut json = image.config_json().as_object().cloned().unwrap_or_default();
        // Of the container that the base was made in.
        for field in ["container", "container_config", "docker_version", "id", "parent", "rootfs"] {
            json.remove(field);
        }
        let layers = image.layers().to_vec();
        Self { image: json, layers, arguments: BTreeMap::new(), has_command: false }.whole()
    }

    /// `FROM` an earlier stage: its image, without its arguments.
    pub(super) fn after(&self) -> Self {
        let (image, layers) = (self.image.clone(), self.layers.clone());
        Self { image, layers, arguments: BTreeMap::new(), has_command: false }
    }

    /// Makes sure that `config` and `history` are there.
    fn whole(mut self) -> Self {
        for (field, empty) in [("config", json!({})), ("history", json!([]))] {
            let value = self.image.entry(field).or_insert(Value::Null);
            if value.is_null() {
                *value = empty;
            }
        }
        self
    }

    /// The config part: environment, command and so on.
    pub(super) fn config(&self) -> &Value {
        &self.image["config"]
    }

    fn set(&mut self, field: &str, value: Value) {
        if let Some(config) = self.image.get_mut("config").and_then(Value::as_object_mut) {
            config.insert(field.to_owned(), value);
        }
    }

    /// The whole config file.
    pub(super) fn image_json(&self) -> Value {
        Value::Object(self.image.clone())
    }

    fn strings(&self, field: &str) -> Vec<String> {
        let list = self.config()[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn string(&self, field: &str) -> Option<&str> {
        self.config()[field].as_str().filter(|text| !text.is_empty())
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.strings("Env")
            .into_iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (pair, String::new()),
            })
            .collect()
    }

    /// Triggers that the base wants run.
    pub(super) fn on_build(&self) -> Vec<String> {
        self.strings("OnBuild")
    }

    /// The value of a variable for expansion: `ENV` hides `ARG`.
    fn lookup(&self, name: &str) -> Option<String> {
        let mut environment = self.environment();
        environment.reverse();
        environment
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .or_else(|| self.arguments.get(name).cloned())
    }

    /// `word` with its variables replaced.
    pub(super) fn expand(&self, word: &str, escape: char) -> Result<String, Problem> {
        Ok(expand(word, escape, &|name| self.lookup(name))?)
    }

    /// A heredoc's text with its variables replaced; quotes mean nothing in it.
    pub(super) fn expand_text(&self, text: &str, escape: char) -> Result<String, Problem> {
        Ok(crate::dockerfile::expand::expand_text(text, escape, &|name| self.lookup(name))?)
    }

    fn expand_words(&self, text: &str, escape: char) -> Result<Vec<String>, Problem> {
        Ok(expand_words(text, escape, &|name| self.lookup(name))?)
    }

    /// `/`, or what `WORKDIR` said last.
    pub(super) fn working_directory(&self) -> String {
        self.string("WorkingDir").unwrap_or("/").to_owned()
    }

    /// `path` as an absolute path, seen from the working directory; a trailing `/` stays.
    pub(super) fn absolute(&self, path: &str) -> String {
        let joined = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.working_directory())
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                _ => parts.push(part),
            }
        }
        let is_directory = path.ends_with('/')
            || path.is_empty()
            || matches!(path.rsplit('/').next(), Some("." | ".."));
        let end = if is_directory && !parts.is_empty() { "/" } else { "" };
        format!("/{}{end}", parts.join("/"))
    }

    /// The words that a command becomes.
    pub(super) fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let mut words = self.strings("Shell");
                if words.is_empty() {
                    words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                words.push(text.clone());
                words
            }
        }
    }

    /// Build arguments that a `RUN` gets as environment, those that are recorded apart from proxies.
    pub(super) fn run_environment(&self, given: &Given) -> RunEnvironment {
        let environment = self.environment();
        let is_set = |name: &str| environment.iter().any(|(key, _)| key == name);
        let recorded: Vec<(String, String)> = self
            .arguments
            .iter()
            .filter(|(name, _)| !is_set(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut all = recorded.clone();
        for (name, value) in &given.arguments {
            if is_proxy(name) && !is_set(name) && !self.arguments.contains_key(name) {
                all.push((name.clone(), value.clone()));
            }
        }
        RunEnvironment { recorded, all }
    }

    /// Carries out an instruction that changes nothing but the image's config,
    /// and says what history calls it; `None` for one that changes files.
    pub(super) fn apply(
        &mut self,
        instruction: &Instruction,
        escape: char,
        given: &Given,
    ) -> Result<Option<String>, Problem> {
        let text = match instruction {
            Instruction::Arg(arguments) => {
                let mut text = "ARG".to_owned();
                for (name, default) in arguments {
                    let default =
                        default.as_ref().map(|word| self.expand(word, escape)).transpose()?;
                    text.push_str(&format!(" {name}"));
                    if let Some(default) = &default {
                        text.push_str(&format!("={default}"));
                    }
                    let value = given.arguments.get(name).cloned().or(default);
                    // One that was declared before the first FROM brings its value from there.
                    if let Some(value) = value.or_else(|| given.global(name)) {
                        self.arguments.insert(name.clone(), value);
                    }
                }
                text
            }
            Instruction::Env(pairs) => {
                let mut environment = self.environment();
                let pairs = self.expand_pairs(pairs, escape)?;
                for (name, value) in &pairs {
                    match environment.iter_mut().find(|(key, _)| key == name) {
                        Some((_, old)) => old.clone_from(value),
                        None => environment.push((name.clone(), value.clone())),
                    }
                }
                let environment: Vec<_> =
                    environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.set("Env", json!(environment));
                format!("ENV {}", joined(&pairs))
            }
            Instruction::Label(pairs) => {
                let pairs = self.expand_pairs(pairs, escape)?;
                let mut labels = self.config()["Labels"].as_object().cloned().unwrap_or_default();
                for (name, value) in &pairs {
                    labels.insert(name.clone(), json!(value));
                }
                self.set("Labels", Value::Object(labels));
                format!("LABEL {}", joined(&pairs))
            }
            Instruction::User(user) => {
                let user = self.expand(user, escape)?;
                self.set("User", json!(user));
                format!("USER {user}")
            }
            Instruction::Expose(ports) => {
                let mut exposed =
                    self.config()["ExposedPorts"].as_object().cloned().unwrap_or_default();
                let mut names = Vec::new();
                for word in self.expand_words(ports, escape)? {
                    for port in parse_ports(&word)? {
                        exposed.insert(port.clone(), json!({}));
                        names.push(port);
                    }
                }
                self.set("ExposedPorts", Value::Object(exposed));
                format!("EXPOSE {}", names.join(" "))
            }
            Instruction::Volume(volumes) => {
                let volumes = match volumes {
                    Volumes::Words(text) => self.expand_words(text, escape)?,
                    Volumes::List(list) => list
                        .iter()
                        .map(|path| self.expand(path, escape))
                        .collect::<Result<_, _>>()?,
                };
                let mut all = self.config()["Volumes"].as_object().cloned().unwrap_or_default();
                for path in &volumes {
                    if path.trim().is_empty() {
                        return Err(Problem::Invalid { what: "volume", value: path.clone() });
                    }
                    all.insert(path.clone(), json!({}));
                }
                self.set("Volumes", Value::Object(all));
                format!("VOLUME [{}]", volumes.join(" "))
            }
            Instruction::Cmd(command) => {
                let words = self.words(command);
                self.has_command = true;
                self.set("Cmd", json!(words));
                format!("CMD {}", quoted(&words))
            }
            Instruction::Entrypoint(command) => {
                let words = self.words(command);
                // The base's arguments were meant for the base's entry point.
                if !self.has_command {
                    self.set("Cmd", Value::Null);
                }
                self.set("Entrypoint", json!(words));
                format!("ENTRYPOINT {}", quoted(&words))
            }
            Instruction::Shell(words) => {
                self.set("Shell", json!(words));
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::StopSignal(signal) => {
                let signal = self.expand(signal, escape)?;
                let name = signal.strip_prefix("SIG").unwrap_or(&signal);
                let is_signal = !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'));
                if !is_signal {
                    return Err(Problem::Invalid { what: "signal", value: signal });
                }
                self.set("StopSignal", json!(signal));
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Maintainer(name) => {
                self.image.insert("author".into(), json!(name));
                format!("MAINTAINER {name}")
            }
            Instruction::From { .. }
            | Instruction::Run { .. }
            | Instruction::Copy(_)
            | Instruction::Add(_)
            | Instruction::Workdir(_) => return Ok(None),
        };
        Ok(Some(format!("/bin/sh -c #(nop)  {text}")))
    }

    /// Makes `path` the working directory.
    pub(super) fn set_working_directory(&mut self, path: &str) {
        self.set("WorkingDir", json!(path));
    }

    fn expand_pairs(
        &self,
        pairs: &[(String, String)],
        escape: char,
    ) -> Result<Vec<(String, String)>, Problem> {
        // All with the values from before this instruction.
        pairs
            .iter()
            .map(|(name, value)| Ok((self.expand(name, escape)?, self.expand(value, escape)?)))
            .collect()
    }

    /// Adds a step to the history, and its layer if it has one.
    pub(super) fn record(&mut self, created: &str, created_by: &str, layer: Option<Layer>) {
        let mut entry = json!({ "created": created, "created_by": created_by });
        if let Some(author) = self.image.get("author") {
            entry["author"] = author.clone();
        }
        if layer.is_none() {
            entry["empty_layer"] = json!(true);
        }
        if let Some(history) = self.image.get_mut("history").and_then(Value::as_array_mut) {
            history.push(entry);
        }
        self.image.insert("created".into(), json!(created));
        self.layers.extend(layer);
    }
}

/// What a `RUN` finds in its environment beside the image's own.
#[derive(Debug)]
pub(super) struct RunEnvironment {
    /// Declared by `ARG`: part of history and cache key.
    pub(super) recorded: Vec<(String, String)>,
    /// The same and the proxies.
    pub(super) all: Vec<(String, String)>,
}

impl RunEnvironment {
    /// As Docker's history has it: `|2 A=1 B=2 ` before the command.
    pub(super) fn prefix(&self) -> String {
        if self.recorded.is_empty() {
            return String::new();
        }
        let count = self.recorded.len();
        format!("|{count} {} ", joined(&self.recorded))
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// `["a" "b"]`, as Docker prints a list of words.
fn quoted(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// `80`, `80/udp`, `8000-8005/tcp` as single ports with their protocol.
fn parse_ports(word: &str) -> Result<Vec<String>, Problem> {
    let invalid = || Problem::Invalid { what: "port", value: word.to_owned() };
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid());
    }
    // Docker takes `host:container` here and forgets the host's part.
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first == 0 || first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn applied(text: &str, given: &Given) -> Result<(State, Vec<String>), Problem> {
        let dockerfile = parse("Dockerfile", text.as_bytes()).map_err(|error| error.problem)?;
        let mut state = State::scratch(&Platform::host());
        let mut history = Vec::new();
        for step in &dockerfile.stages[0].steps[1..] {
            history.extend(state.apply(&step.instruction, dockerfile.escape, given)?);
        }
        Ok((state, history))
    }

    #[test]
    fn instructions_set_the_config_as_docker_does() {
        for (text, field, expected) in [
            ("ENV A=1 B=\"x y\"", "Env", json!(["A=1", "B=x y"])),
            ("ENV A=1\nENV A=2 B=$A", "Env", json!(["A=2", "B=1"])),
            ("ENV A x  y", "Env", json!(["A=x  y"])),
            ("ARG V=3\nENV A=$V", "Env", json!(["A=3"])),
            ("ARG V=3\nENV V=4\nENV A=$V", "Env", json!(["V=4", "A=4"])),
            ("LABEL a=b \"c d\"=e", "Labels", json!({"a": "b", "c d": "e"})),
            ("USER 1:2", "User", json!("1:2")),
            ("EXPOSE 80 53/udp", "ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
            ("EXPOSE 1-2", "ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}})),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            ("CMD echo $A", "Cmd", json!(["/bin/sh", "-c", "echo $A"])),
            ("CMD [\"a\"]\nENTRYPOINT [\"b\"]", "Cmd", json!(["a"])),
            ("SHELL [\"bash\", \"-c\"]\nCMD x", "Cmd", json!(["bash", "-c", "x"])),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
        ] {
            let (state, _) = applied(&format!("FROM scratch\n{text}"), &Given::default())
                .unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(state.config()[field], expected, "{text}");
        }
    }

    #[test]
    fn history_reads_as_dockers() {
        let text =
            "FROM scratch\nENV A=1 B=\"x y\"\nCMD [\"sh\", \"-c\"]\nCMD x\nLABEL a=b\nARG Q=7";
        let (_, history) = applied(text, &Given::default()).unwrap();
        assert_eq!(
            history,
            [
                "/bin/sh -c #(nop)  ENV A=1 B=x y",
                "/bin/sh -c #(nop)  CMD [\"sh\" \"-c\"]",
                "/bin/sh -c #(nop)  CMD [\"/bin/sh\" \"-c\" \"x\"]",
                "/bin/sh -c #(nop)  LABEL a=b",
                "/bin/sh -c #(nop)  ARG Q=7",
            ]
        );
    }

    #[test]
    fn arguments_are_in_scope_only_when_declared() {
        let mut given = Given::default();
        given.arguments.insert("A".into(), "given".into());
        given.arguments.insert("B".into(), "unused".into());
        given.arguments.insert("HTTP_PROXY".into(), "http://proxy".into());
        given.global.insert("G".into(), "global".into());
        given.global.insert("H".into(), "global".into());
        let text = "FROM scratch\nARG A=default\nARG C=c D\nARG G\nARG H=own\nENV C=env";
        let (state, _) = applied(text, &given).unwrap();
        let environment = state.run_environment(&given);
        assert_eq!(environment.prefix(), "|3 A=given G=global H=own ");
        assert!(environment.all.contains(&("HTTP_PROXY".into(), "http://proxy".into())));
        assert!(!environment.all.iter().any(|(name, _)| name == "B"));
    }

    #[test]
    fn bad_values_are_refused() {
        for text in ["EXPOSE x", "EXPOSE 0", "EXPOSE 80/icmp", "EXPOSE 9-3", "STOPSIGNAL a b"] {
            let text = format!("FROM scratch\n{text}");
            assert!(applied(&text, &Given::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_seen_from_the_working_directory() {
        let mut state = State::scratch(&Platform::host());
        for (path, from_root, from_work) in [
            ("a", "/a", "/app/a"),
            ("a/", "/a/", "/app/a/"),
            (".", "/", "/app/"),
            ("./", "/", "/app/"),
            ("..", "/", "/"),
            ("../../x", "/x", "/x"),
            ("/b/./c/../d", "/b/d", "/b/d"),
            ("/", "/", "/"),
        ] {
            state.set_working_directory("/");
            assert_eq!(state.absolute(path), from_root, "{path}");
            state.set_working_directory("/app");
            assert_eq!(state.absolute(path), from_work, "{path}");
        }
    }
}
