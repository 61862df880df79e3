//! Search: conditions on named fields, words that rank, a phrase that must occur.
//!
//! ```text
//! key, value ──Typing──► Condition ──┬─ on a column: SQL with bound values
//!                                    └─ on text or JSON: here, row by row
//! ```
//!
//! A key is a field's name, a dot, and an operator; without one it means equality.
//! Every value is typed before the first row is read, so that what cannot be
//! compared is said, and no number is ever compared as text. What a database
//! cannot decide alike on both engines (regular expressions, the order of texts,
//! values within JSON) is decided here, on as many rows as [`crate::SearchLimits`] allow.

mod condition;
mod field;
mod json;
mod moment;
mod words;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub(crate) use condition::{Condition, Scalar};
pub(crate) use field::LOG;
use words::{Phrase, Words};

use crate::execution::Logs;
use crate::id::{ActorId, ExecutionId};

/// Conditions of a search, and values of a list in one.
const MOST_TERMS: usize = 100;
/// Conditions of a search that are decided row by row.
const MOST_LOOKED_AT: usize = 8;
/// The largest page.
const LARGEST_PAGE: u32 = 10_000;

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collection {
    /// Actors.
    Actors,
    /// Executions.
    Executions,
    /// Workers.
    Workers,
    /// The logs of executions.
    Logs,
}

impl Collection {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Actors, Self::Executions, Self::Workers, Self::Logs];

    /// The word in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Actors => "actors",
            Self::Executions => "executions",
            Self::Workers => "workers",
            Self::Logs => "logs",
        }
    }

    /// The collection that `text` names, in any letter case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str().eq_ignore_ascii_case(text))
    }
}

/// How the value of a condition gets its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// By the field: `name=1` is the text, `revision=x` is refused, and so is a field
    /// that there is not.
    ByField,
    /// By the value, as Abaco does: `name=1` is a number, which no name is, and a
    /// field that there is not is one that all records lack.
    ByValue,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search {
    pub(crate) collection: Collection,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) words: Words,
    pub(crate) phrase: Option<Phrase>,
    pub(crate) limit: u32,
    pub(crate) skip: u64,
}

impl Search {
    /// Everything in `collection`, the first 100.
    #[must_use]
    pub fn new(collection: Collection) -> Self {
        Self {
            collection,
            conditions: Vec::new(),
            words: Words::default(),
            phrase: None,
            limit: 100,
            skip: 0,
        }
    }

    /// What is searched.
    #[must_use]
    pub fn collection(&self) -> Collection {
        self.collection
    }

    /// Hits on a page at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Hits before the page.
    #[must_use]
    pub fn skip(&self) -> u64 {
        self.skip
    }

    /// Only what fulfils `key=value` too.
    ///
    /// # Errors
    ///
    /// What is wrong with the key or the value, and what would be right.
    pub fn require(&mut self, key: &str, value: &str, typing: Typing) -> Result<(), String> {
        if self.conditions.len() >= MOST_TERMS {
            return Err(format!("a search has at most {MOST_TERMS} conditions"));
        }
        let condition = condition::parse(self.collection, key, value, typing)?;
        let looks = |condition: &Condition| condition.text_column().is_some();
        if looks(&condition)
            && self.conditions.iter().filter(|c| looks(c)).count() >= MOST_LOOKED_AT
        {
            return Err(format!(
                "a search has at most {MOST_LOOKED_AT} conditions of regular expressions, of the \
                 order of texts, and of values inside of JSON"
            ));
        }
        self.conditions.push(condition);
        Ok(())
    }

    /// Only what has `phrase` in one of its texts, in any letter case.
    ///
    /// # Errors
    ///
    /// The phrase is too long.
    pub fn require_phrase(&mut self, phrase: &str) -> Result<(), String> {
        self.phrase = Phrase::new(phrase)?;
        Ok(())
    }

    /// Best first: what has more of the words in `text`. What has none comes last.
    ///
    /// # Errors
    ///
    /// There are too many words.
    pub fn rank_by(&mut self, text: &str) -> Result<(), String> {
        self.words = Words::new(text)?;
        Ok(())
    }

    /// At most `text` hits.
    ///
    /// # Errors
    ///
    /// Not a whole number from 0 to 10,000.
    pub fn set_limit(&mut self, text: &str) -> Result<(), String> {
        match text.trim().parse() {
            Ok(limit) if limit <= LARGEST_PAGE => self.limit = limit,
            _ => return Err(format!("must be a whole number from 0 to {LARGEST_PAGE}")),
        }
        Ok(())
    }

    /// Not the first `text` hits.
    ///
    /// # Errors
    ///
    /// Not a whole number from 0 on.
    pub fn set_skip(&mut self, text: &str) -> Result<(), String> {
        match text.trim().parse() {
            // What a database counts in.
            Ok(skip) if i64::try_from(skip).is_ok() => self.skip = skip,
            _ => return Err("must be a whole number from 0 on".to_owned()),
        }
        Ok(())
    }

    /// True where rows must be looked at one by one.
    pub(crate) fn needs_texts(&self) -> bool {
        self.phrase.is_some()
            || !self.words.is_empty()
            || self.conditions.iter().any(|c| c.text_column().is_some())
    }

    /// Whether a row fulfils what is decided row by row, and how well it fits the
    /// words; `text` has what is in a column. One condition takes a moment on a large
    /// text, so `goes_on` is asked before each.
    ///
    /// # Errors
    ///
    /// What `goes_on` says.
    pub(crate) fn score<'t, E>(
        &self,
        text: impl Fn(&str) -> Option<&'t str>,
        goes_on: impl Fn() -> Result<(), E>,
    ) -> Result<Option<f64>, E> {
        for condition in &self.conditions {
            if let Some(column) = condition.text_column() {
                goes_on()?;
                if !condition.holds(text(column)) {
                    return Ok(None);
                }
            }
        }
        if self.phrase.is_none() && self.words.is_empty() {
            return Ok(Some(0.0));
        }
        let (mut score, mut has_phrase) = (0.0, self.phrase.is_none());
        for column in field::texts(self.collection) {
            let Some(text) = text(column) else { continue };
            goes_on()?;
            let text = match field::is_json(self.collection, column) {
                true => Cow::Owned(json::text(text)),
                false => Cow::Borrowed(text),
            };
            has_phrase = has_phrase || self.phrase.as_ref().is_some_and(|p| p.occurs_in(&text));
            score += self.words.score(&text);
        }
        Ok(has_phrase.then_some(score))
    }

    /// True where the best comes first, and not the oldest.
    pub(crate) fn is_ranked(&self) -> bool {
        !self.words.is_empty()
    }

    /// The columns that are looked at row by row.
    pub(crate) fn text_columns(&self) -> Vec<&'static str> {
        let mut columns: BTreeSet<_> =
            self.conditions.iter().filter_map(Condition::text_column).collect();
        if self.phrase.is_some() || !self.words.is_empty() {
            columns.extend(field::texts(self.collection));
        }
        columns.into_iter().collect()
    }
}

/// The hits of a search.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hits<T> {
    /// How many there are, those of other pages included.
    pub total: u64,
    /// Those of the page.
    pub page: Vec<T>,
}

impl<T> Hits<T> {
    pub(crate) fn new(total: u64, page: Vec<T>) -> Self {
        Self { total, page }
    }
}

/// A log that was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FoundLog {
    /// The actor whose execution wrote it.
    pub actor: ActorId,
    /// The owner of that actor.
    pub owner: String,
    /// The execution that wrote it.
    pub execution: ExecutionId,
    /// All of it.
    pub logs: Logs,
}

/// Which records are searched.
#[derive(Clone, Copy, Debug)]
pub enum Within<'a> {
    /// Those whose actor is shared with the caller by name, or with everybody.
    Readable,
    /// Those of one actor; needs READ on it.
    Actor(&'a str),
    /// Those of one execution of an actor; needs READ on the actor.
    Execution {
        /// The actor.
        actor: &'a str,
        /// The execution.
        execution: &'a str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded() {
        let mut search = Search::new(Collection::Actors);
        for text in ["-1", "x", "", "10001", "1.5", "99999999999999999999"] {
            assert!(search.set_limit(text).is_err(), "{text}");
        }
        for text in ["-1", "x", "9223372036854775808"] {
            assert!(search.set_skip(text).is_err(), "{text}");
        }
        search.set_limit("0").unwrap();
        search.set_skip("4").unwrap();
        assert_eq!((search.limit(), search.skip()), (0, 4));
    }

    #[test]
    fn what_is_decided_row_by_row_is_bounded_and_can_be_broken_off() {
        let mut search = Search::new(Collection::Actors);
        for n in 0..MOST_LOOKED_AT {
            search.require(&format!("state.k{n}.nlike"), "x", Typing::ByField).unwrap();
        }
        for key in ["description.like", "state.k", "name.gt"] {
            assert!(search.require(key, "x", Typing::ByField).is_err(), "{key}");
        }
        search.require("name", "x", Typing::ByField).unwrap();
        let asked = std::cell::Cell::new(0);
        let score = |most| {
            asked.set(0);
            search.score(
                |_| Some("{}"),
                || {
                    asked.set(asked.get() + 1);
                    if asked.get() <= most { Ok(()) } else { Err("no time") }
                },
            )
        };
        assert_eq!((score(100), asked.get()), (Ok(Some(0.0)), MOST_LOOKED_AT));
        assert_eq!((score(2), asked.get()), (Err("no time"), 3), "before each condition");
    }

    #[test]
    fn collections_are_named_in_any_case() {
        assert_eq!(Collection::parse("Actors"), Some(Collection::Actors));
        assert_eq!(Collection::parse("nonces"), None);
    }
}
