//! JSON as the text that was sent: keeps key order and numbers of any size.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::python;

/// How deep arrays and objects may nest.
const DEEPEST: usize = 100;

/// A JSON value, kept as its text.
///
/// `serde_json::Value` would turn an integer above 64 bits into a float, and
/// the option that prevents this changes every crate of a program at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

/// Why a text is not a JSON value that we keep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, by RFC 8259.
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
    /// Arrays and objects nest deeper than anybody needs.
    #[error("nested deeper than {DEEPEST} levels")]
    TooDeep,
    /// A floating-point number that no float holds.
    #[error("the number {0} is too large")]
    NumberTooLarge(String),
}

impl Json {
    /// The value that `text` holds.
    ///
    /// # Errors
    ///
    /// [`JsonError`]: not JSON, too deep, or with a number that no float holds.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(JsonError::Syntax)?;
        let json = Self(raw.get().to_owned());
        json.tree()?;
        Ok(json)
    }

    /// The empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self("{}".to_owned())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `{…}`.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The value as Python would print it: strings without quotes, the rest as
    /// a Python literal (`{'a': True}`). Images call a literal parser on it.
    #[must_use]
    pub fn to_python(&self) -> String {
        python::print(&self.checked_tree())
    }

    /// The members of an object with each value as Python would print it; `None`
    /// for anything but an object.
    #[must_use]
    pub fn members_as_python(&self) -> Option<Vec<(String, String)>> {
        match self.checked_tree() {
            Tree::Object(members) => {
                Some(members.into_iter().map(|(k, v)| (k, python::print(&v))).collect())
            }
            _ => None,
        }
    }

    fn checked_tree(&self) -> Tree {
        self.tree().expect("the text was parsed when it came in")
    }

    fn tree(&self) -> Result<Tree, JsonError> {
        tree(&self.0, 0)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

/// A parsed value whose numbers are still text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Integer(String),
    Float(f64),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

fn tree(text: &str, depth: usize) -> Result<Tree, JsonError> {
    if depth > DEEPEST {
        return Err(JsonError::TooDeep);
    }
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(JsonError::Syntax)?;
            let mut places = HashMap::new();
            let mut object: Vec<(String, Tree)> = Vec::new();
            for (key, value) in members {
                let value = tree(value.get(), depth + 1)?;
                // As Python's dict: the last value, at the place of the first.
                match places.get(&key) {
                    Some(&place) => object[place] = (key, value),
                    None => {
                        places.insert(key.clone(), object.len());
                        object.push((key, value));
                    }
                }
            }
            Tree::Object(object)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(JsonError::Syntax)?;
            Tree::Array(
                items.into_iter().map(|v| tree(v.get(), depth + 1)).collect::<Result<_, _>>()?,
            )
        }
        Some(b'"') => Tree::String(serde_json::from_str(text).map_err(JsonError::Syntax)?),
        Some(b't') => Tree::Bool(true),
        Some(b'f') => Tree::Bool(false),
        Some(b'n') => Tree::Null,
        _ if text.bytes().any(|c| matches!(c, b'.' | b'e' | b'E')) => {
            let float: f64 =
                text.parse().map_err(|_| JsonError::NumberTooLarge(text.to_owned()))?;
            if !float.is_finite() {
                return Err(JsonError::NumberTooLarge(text.to_owned()));
            }
            Tree::Float(float)
        }
        _ if text == "-0" => Tree::Integer("0".to_owned()),
        _ => Tree::Integer(text.to_owned()),
    })
}

/// The members of an object in order, duplicates included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_as_it_was_sent() {
        let text = r#"{"b": 1, "a": 123456789012345678901234567890, "c": 1.50}"#;
        let json = Json::parse(&format!("  {text}\n")).unwrap();
        assert_eq!(json.as_str(), text);
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
    }

    #[test]
    fn hostile_texts_are_refused() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        for text in ["", "{", "abc", "[1,]", "1e999", "\"\\ud800\"", "01", &deep] {
            assert!(Json::parse(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }
}
