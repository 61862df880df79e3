//! Configs: values that an owner keeps once and the executions of several actors
//! get, some of them secret.

use std::fmt;

use crate::alias::check_name;
use crate::clock::Time;
use crate::error::Error;
use crate::json::Json;
use crate::permission::Tenant;

/// A value for the executions of some actors. That of a secret is not shown to
/// anybody; only executions get it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorConfig {
    /// The tenant within which its name means something.
    pub tenant: Tenant,
    /// Its name.
    pub name: String,
    /// Who made it; never changes.
    pub owner: String,
    /// The value; `None` for a secret.
    pub value: Option<String>,
    /// The ids and aliases of its actors as they were given, separated by commas.
    pub actors: String,
    /// When it was made.
    pub created: Time,
    /// When it changed last.
    pub updated: Time,
}

impl ActorConfig {
    /// Whether its value is a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.value.is_none()
    }
}

impl fmt::Debug for ActorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorConfig")
            .field("name", &self.name)
            .field("owner", &self.owner)
            .field("actors", &self.actors)
            .field("value", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// What makes a config.
#[derive(Clone)]
pub struct NewActorConfig {
    /// What it is called.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether the value is a secret.
    pub is_secret: bool,
    /// Ids and aliases of actors, separated by commas.
    pub actors: String,
}

/// What changes a config: what is not given stays.
#[derive(Clone, Default)]
pub struct ActorConfigUpdate {
    /// The value. It must be given where a secret becomes none.
    pub value: Option<String>,
    /// Whether the value is a secret.
    pub is_secret: Option<bool>,
    /// Ids and aliases of actors, separated by commas.
    pub actors: Option<String>,
}

impl fmt::Debug for NewActorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewActorConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for ActorConfigUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorConfigUpdate").field("actors", &self.actors).finish_non_exhaustive()
    }
}

/// Many fit the variable that carries all of an actor.
const LARGEST_VALUE: usize = 65_536;
const MOST_ACTORS: usize = 100;

pub(crate) fn check_config_name(name: &str) -> Result<(), Error> {
    check_name("name", name)
}

pub(crate) fn check_value(value: &str) -> Result<(), Error> {
    if value.len() > LARGEST_VALUE {
        let (limit_bytes, actual_bytes) = (LARGEST_VALUE, value.len());
        return Err(Error::TooLarge { what: "value", limit_bytes, actual_bytes });
    }
    if value.contains('\0') {
        let problem = "holds a NUL character, which no environment can carry";
        return Err(Error::invalid("value", problem));
    }
    Ok(())
}

/// The ids and aliases in a list with commas, each once.
pub(crate) fn items(actors: &str) -> Result<Vec<String>, Error> {
    let mut items: Vec<String> = Vec::new();
    for item in actors.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
        if items.len() > MOST_ACTORS {
            let problem = format!("more than {MOST_ACTORS} actors");
            return Err(Error::invalid("actors", problem));
        }
    }
    if items.is_empty() {
        let problem = "must name an actor by its id or alias, or several separated by commas";
        return Err(Error::invalid("actors", problem));
    }
    Ok(items)
}

/// Names and values as a Python literal of an object.
pub(crate) fn as_python(values: &[(String, String)]) -> String {
    let object: serde_json::Map<String, serde_json::Value> =
        values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    Json::from(serde_json::Value::Object(object)).to_python()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_are_listed_with_commas() {
        assert_eq!(items("a, b ,,a , c.d").unwrap(), ["a", "b", "c.d"]);
        for none in ["", " , ,"] {
            assert!(items(none).is_err(), "{none:?}");
        }
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        assert!(items(&many.join(",")).is_err());
    }

    #[test]
    fn no_value_is_shown() {
        let new = NewActorConfig {
            name: "n".into(),
            value: "hunter2".into(),
            is_secret: false,
            actors: "a".into(),
        };
        assert!(!format!("{new:?}").contains("hunter2"));
        let update =
            ActorConfigUpdate { value: Some("hunter2".into()), ..ActorConfigUpdate::default() };
        assert!(!format!("{update:?}").contains("hunter2"));
    }
}
