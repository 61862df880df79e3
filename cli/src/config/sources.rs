//! From file, environment and flags to one value for each setting.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::flags::Flag;
use super::table::{self, Preset, SETTINGS, Setting};

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Environment(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What holds for one setting.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    pub(crate) setting: &'static Setting,
    /// None where nothing was said and the default is no value.
    pub(crate) value: Option<Value>,
    pub(crate) origin: Origin,
}

impl Effective {
    /// The value as it may be shown: without a password.
    pub(crate) fn shown(&self) -> String {
        match (&self.value, self.setting.default) {
            (Some(Value::String(text)), _) if self.setting.kind.may_hold_a_secret() => {
                redacted(text)
            }
            (Some(Value::String(text)), _) => text.clone(),
            (Some(value), _) => value.to_string(),
            (None, Preset::Of(key)) => format!("(that of {key})"),
            (None, Preset::Words(words) | Preset::Value(words)) => {
                format!("({})", words.replace('`', ""))
            }
        }
    }
}

/// The address without its password.
pub(crate) fn redacted(address: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(address) else { return "(no address)".to_owned() };
    if url.password().is_some() {
        let _ = url.set_password(Some("redacted"));
    }
    // Drivers take a password here, too.
    if url.query_pairs().any(|(name, _)| name == "password") {
        let kept: Vec<_> = url
            .query_pairs()
            .map(|(n, v)| {
                let hidden = n == "password";
                (n.into_owned(), if hidden { "redacted".to_owned() } else { v.into_owned() })
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    url.into()
}

/// Whether a password stands in the address.
pub(crate) fn has_password(address: &str) -> bool {
    reqwest::Url::parse(address).is_ok_and(|url| {
        url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
    })
}

/// One value for each setting, and all that is wrong with what was said.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    said: BTreeMap<&'static str, (Value, Origin)>,
    pub(crate) problems: Vec<String>,
}

impl Sources {
    /// Takes what the file says.
    pub(crate) fn file(&mut self, path: &Path, text: &str) {
        match text.parse::<Table>() {
            Ok(table) => self.section(path, "", table),
            Err(error) => {
                let line = error
                    .span()
                    .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                let what = error.message().lines().collect::<Vec<_>>().join(", ");
                self.problems.push(format!("{}, line {line}: {what}", path.display()));
            }
        }
    }

    fn section(&mut self, path: &Path, prefix: &str, table: Table) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let is_section =
                || SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}.")));
            match (table::find(&key), value) {
                (Some(setting), value) => {
                    self.say(setting, value, Origin::File(path.to_owned()));
                }
                (None, Value::Table(table)) if is_section() => {
                    self.section(path, &format!("{key}."), table);
                }
                (None, _) if is_section() => self.problems.push(format!(
                    "{}: {key} is a section; write [{key}] on a line of its own",
                    path.display()
                )),
                (None, _) => self.problems.push(format!(
                    "{}: {key} is not a setting; {}",
                    path.display(),
                    hint(&key)
                )),
            }
        }
    }

    /// Takes what the environment says; an empty variable says nothing.
    pub(crate) fn environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for setting in SETTINGS {
            let Some(text) = variable(setting.env).filter(|text| !text.is_empty()) else {
                continue;
            };
            match setting.kind.read(&text) {
                Some(value) => {
                    self.said.insert(setting.key, (value, Origin::Environment(setting.env)));
                }
                None => self.wrong(setting, &Value::String(text), setting.env),
            }
        }
    }

    /// Takes what the command line says.
    pub(super) fn flags(&mut self, flags: Vec<Flag>) {
        for Flag { key, flag, value } in flags {
            let setting = table::find(key).expect("flags are of settings");
            self.say(setting, value, Origin::Flag(flag));
        }
    }

    fn say(&mut self, setting: &'static Setting, value: Value, origin: Origin) {
        if setting.kind.accepts(&value) {
            self.said.insert(setting.key, (value, origin));
        } else {
            self.wrong(setting, &value, &origin.to_string());
        }
    }

    fn wrong(&mut self, setting: &Setting, value: &Value, origin: &str) {
        let shown = match value {
            _ if setting.kind.may_hold_a_secret() => "not understood".to_owned(),
            Value::String(text) => format!("{text:?}"),
            value => value.to_string(),
        };
        self.problems.push(format!(
            "{origin}: {} is {shown}; it must be {}",
            setting.key,
            setting.kind.wanted()
        ));
    }

    /// What holds for each setting, in the order of the table.
    pub(crate) fn effective(&self) -> Vec<Effective> {
        SETTINGS.iter().map(|setting| self.effective_of(setting)).collect()
    }

    fn effective_of(&self, setting: &'static Setting) -> Effective {
        if let Some((value, origin)) = self.said.get(setting.key) {
            return Effective { setting, value: Some(value.clone()), origin: origin.clone() };
        }
        match setting.default {
            Preset::Value(text) => {
                Effective { setting, value: setting.kind.read(text), origin: Origin::Default }
            }
            Preset::Of(key) => {
                let other = self.effective_of(table::find(key).expect("a default is a setting"));
                Effective { setting, value: other.value, origin: other.origin }
            }
            Preset::Words(_) => Effective { setting, value: None, origin: Origin::Default },
        }
    }
}

/// What a name that is none may have been meant to be.
fn hint(key: &str) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let near = SETTINGS
        .iter()
        .map(|setting| {
            let whole = distance(key, setting.key);
            // The right name in the wrong section is near as well.
            let part = if last(key) == last(setting.key) { 2 } else { usize::MAX };
            (whole.min(part), setting.key)
        })
        .min();
    match near {
        Some((far, name)) if far <= 3 => format!("did you mean {name}?"),
        _ => "remove it, or see docs/configuration.md for what there is".to_owned(),
    }
}

/// How many letters to change, add or remove between the two (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sources: &Sources, key: &str) -> (String, Origin) {
        let found = sources.effective_of(table::find(key).unwrap());
        (found.shown(), found.origin)
    }

    #[test]
    fn flags_stand_over_environment_over_file_over_default() {
        let path = Path::new("/etc/abax/abax.toml");
        let mut sources = Sources::default();
        assert_eq!(of(&sources, "network.bridge"), ("abax0".to_owned(), Origin::Default));
        sources.file(path, "ca_bundle = \"/c\"\n[network]\nbridge = \"a\"\n");
        let from_file = |value: &str| (value.to_owned(), Origin::File(path.to_owned()));
        assert_eq!(of(&sources, "network.bridge"), from_file("a"));
        // The default of one setting is another, from wherever that is.
        assert_eq!(of(&sources, "registries.ca_bundle"), from_file("/c"));
        sources.environment(|name| (name == "ABAX_NETWORK_BRIDGE").then(|| "b".to_owned()));
        assert_eq!(of(&sources, "network.bridge").0, "b");
        let value = Value::from("c");
        sources.flags(vec![Flag { key: "network.bridge", flag: "--bridge", value }]);
        assert_eq!(of(&sources, "network.bridge"), ("c".to_owned(), Origin::Flag("--bridge")));
        assert!(sources.problems.is_empty(), "{:?}", sources.problems);
    }

    #[test]
    fn all_that_is_wrong_is_named_with_its_place_and_its_remedy() {
        let mut sources = Sources::default();
        sources.file(
            Path::new("x.toml"),
            "rooot = \"/x\"\n[service]\nmemroy = \"1g\"\nslots = 0\n[network]\nlisten = 1\n",
        );
        sources.environment(|name| (name == "ABAX_PUBLIC_URL").then(|| "ftp://s3cret@h".into()));
        let problems = sources.problems.join("\n");
        for part in [
            "x.toml: rooot is not a setting; did you mean root?",
            "x.toml: service.memroy is not a setting; did you mean service.memory?",
            "x.toml: service.slots is 0; it must be a whole number from 1 to 400",
            "x.toml: network.listen is not a setting; did you mean api.listen?",
            "ABAX_PUBLIC_URL: service.public_url is not understood; it must be an address like http",
        ] {
            assert!(problems.contains(part), "no {part:?} in:\n{problems}");
        }
        assert_eq!(sources.problems.len(), 5, "{problems}");
        assert!(!problems.contains("s3cret"), "{problems}");
        let mut sources = Sources::default();
        sources.file(Path::new("x.toml"), "root = \"/x\"\nnetwork = 3\n[service\n");
        assert!(sources.problems[0].starts_with("x.toml, line 3: "), "{:?}", sources.problems);
    }

    #[test]
    fn passwords_are_not_shown() {
        for address in [
            "postgres://abax:s3cret@db/abax",
            "postgres://abax@db/abax?password=s3cret&sslmode=verify-full",
            "amqps://abax:s3cret@mq/%2f",
        ] {
            assert!(has_password(address), "{address}");
            assert!(!redacted(address).contains("s3cret"), "{address}");
        }
        assert!(!has_password("postgres://abax@db/abax"));
        assert_eq!(redacted("amqp://abax@mq:5672/%2f"), "amqp://abax@mq:5672/%2f");
    }
}
