//! Words that rank, and phrases that must occur, in the texts of a record.

use regex::{Regex, RegexBuilder};

/// Words that a search ranks by.
const MOST_WORDS: usize = 50;
/// Characters of a phrase.
const LONGEST_PHRASE: usize = 1_000;

/// Words that rank records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut words: Vec<String> = tokens(text).map(str::to_lowercase).collect();
        words.sort_unstable();
        words.dedup();
        if words.len() > MOST_WORDS {
            return Err(format!("at most {MOST_WORDS} words rank a search"));
        }
        Ok(Self(words))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How well `text` fits: each word counts the less the more often it occurred
    /// before, and the more the larger its share of the text is.
    pub(crate) fn score(&self, text: &str) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let mut counts = vec![0_u32; self.0.len()];
        let mut length = 0_u32;
        for token in tokens(text) {
            length = length.saturating_add(1);
            for (word, count) in self.0.iter().zip(&mut counts) {
                if same(word, token) {
                    *count = count.saturating_add(1);
                }
            }
        }
        counts
            .into_iter()
            .filter(|count| *count > 0)
            .map(|count| {
                let frequency = 2.0 - 0.5_f64.powi(i32::try_from(count - 1).unwrap_or(i32::MAX));
                let share = f64::from(count) / f64::from(length);
                frequency * (0.5 + 0.5 * share)
            })
            .sum()
    }
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|token| !token.is_empty())
}

/// Whether `token` is `word`, which is lower case.
fn same(word: &str, token: &str) -> bool {
    if word.is_ascii() && token.is_ascii() {
        return word.eq_ignore_ascii_case(token);
    }
    token.chars().flat_map(char::to_lowercase).eq(word.chars())
}

/// A phrase that must occur, in any letter case.
#[derive(Clone, Debug)]
pub(crate) struct Phrase(Regex);

impl Phrase {
    /// None for an empty phrase, which occurs everywhere.
    pub(super) fn new(phrase: &str) -> Result<Option<Self>, String> {
        if phrase.chars().count() > LONGEST_PHRASE {
            return Err(format!("longer than {LONGEST_PHRASE} characters"));
        }
        if phrase.is_empty() {
            return Ok(None);
        }
        let regex = RegexBuilder::new(&regex::escape(phrase)).case_insensitive(true).build();
        regex.map(|regex| Some(Self(regex))).map_err(|_| "too long".to_owned())
    }

    pub(crate) fn occurs_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_rank_by_how_often_and_how_densely_they_occur() {
        let words = Words::new("Sleep loop sleep").unwrap();
        let ranked = ["sleep, sleep, loop and more", "sleep loop", "a sleep", "sleeping", ""];
        let scores: Vec<f64> = ranked.iter().map(|text| words.score(text)).collect();
        for pair in scores.windows(2) {
            assert!(pair[0] >= pair[1], "{scores:?}");
        }
        assert!(scores[2] > 0.0 && scores[3].abs() < 1e-9, "{scores:?}");
        assert!(Words::new("Éclair").unwrap().score("an éclair") > 0.0);
        assert!(Words::new(&"a b ".repeat(100)).is_ok(), "words that repeat count once");
    }

    #[test]
    fn a_phrase_occurs_in_any_case_and_stands_for_itself() {
        let phrase = Phrase::new("abacosamples/Test.").unwrap().unwrap();
        assert!(phrase.occurs_in("image ABACOSAMPLES/test. here"));
        assert!(!phrase.occurs_in("abacosamples/tests"));
        assert!(Phrase::new("").unwrap().is_none());
        assert!(Phrase::new(&"x".repeat(1_001)).is_err());
    }
}
