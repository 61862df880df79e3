//! `$VAR`, `${VAR}`, `${VAR:-word}`, `${VAR:+word}`, `${VAR:?word}`, quotes and escapes.
//!
//! The rules are those of Docker's shell lexer, which are close to a POSIX
//! shell's: single quotes keep everything, double quotes keep spaces, and the
//! escape character keeps the character behind it.

/// An expanded word longer than this is refused, so that `ENV A=$A$A` cannot
/// double its way through the memory.
const MAX_EXPANDED_BYTES: usize = 1 << 20;
/// How deep `${A:-${B:-…}}` may nest.
const MAX_DEPTH: usize = 32;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// A quote is opened and not closed.
    #[error("a {quote} quote is not closed in {word:?}")]
    Quote {
        /// `single` or `double`.
        quote: &'static str,
        /// The word.
        word: String,
    },
    /// `${` without `}`.
    #[error("a }} is missing in {word:?}")]
    Brace {
        /// The word.
        word: String,
    },
    /// `${}`, `${:…}` or an operator that does not exist here.
    #[error("bad substitution in {word:?}")]
    Substitution {
        /// The word.
        word: String,
    },
    /// `${VAR:?message}` and the variable is not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it.
        message: String,
    },
    /// Longer or deeper than we allow.
    #[error("{word:?} expands to more than {MAX_EXPANDED_BYTES} bytes or nests too deep")]
    TooLarge {
        /// The start of the word.
        word: String,
    },
}

/// Expands `word`, taking values of variables from `lookup`.
///
/// # Errors
///
/// When quotes or braces do not match, or a required variable is missing.
pub fn expand(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    let mut expander = Expander::new(word, escape, lookup);
    let text = expander.until(None, 0)?;
    Ok(text.joined)
}

/// Expands `text` and splits it at white space outside quotes, also at that
/// which variables bring along, as `EXPOSE $PORTS` wants it.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_words(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    let mut expander = Expander::new(text, escape, lookup);
    let text = expander.until(None, 0)?;
    Ok(text.into_words())
}

/// Expands a heredoc: variables and escapes as in double quotes, and quotes are text.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_text(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    Expander::new(text, escape, lookup).in_quotes(None, 0)
}

/// Checks the syntax of `word` alone: no value of a variable makes it fail.
///
/// # Errors
///
/// As [`expand`], but for missing required variables.
pub fn check(word: &str, escape: char) -> Result<(), ExpandError> {
    for value in [None, Some("x".to_owned())] {
        match expand(word, escape, &|_| value.clone()) {
            Ok(_) | Err(ExpandError::Required { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Expander<'a> {
    word: &'a str,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Bytes that may still be added.
    budget: usize,
}

/// Text under expansion: as one string, and where it falls into words.
#[derive(Default)]
struct Text {
    joined: String,
    words: Vec<String>,
    word: Option<String>,
}

impl Text {
    fn keep(&mut self, text: &str) {
        self.joined.push_str(text);
        self.word.get_or_insert_default().push_str(text);
    }

    fn split(&mut self, text: &str) {
        self.joined.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() {
                self.words.extend(self.word.take());
            } else {
                self.word.get_or_insert_default().push(c);
            }
        }
    }

    fn into_words(mut self) -> Vec<String> {
        self.words.extend(self.word.take());
        self.words
    }
}

impl<'a> Expander<'a> {
    fn new(word: &'a str, escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let rest = word.chars().peekable();
        Self { word, rest, escape, lookup, budget: MAX_EXPANDED_BYTES }
    }

    fn short(&self) -> String {
        self.word.chars().take(200).collect()
    }

    fn spend(&mut self, text: &str) -> Result<(), ExpandError> {
        self.budget = self
            .budget
            .checked_sub(text.len())
            .ok_or_else(|| ExpandError::TooLarge { word: self.short() })?;
        Ok(())
    }

    fn until(&mut self, stop: Option<char>, depth: usize) -> Result<Text, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::TooLarge { word: self.short() });
        }
        let mut text = Text::default();
        while let Some(c) = self.rest.peek().copied() {
            if Some(c) == stop {
                self.rest.next();
                return Ok(text);
            }
            match c {
                '\'' => {
                    let quoted = self.single_quoted()?;
                    self.spend(&quoted)?;
                    text.keep(&quoted);
                }
                '"' => {
                    let quoted = self.double_quoted(depth)?;
                    text.keep(&quoted);
                }
                '$' => {
                    let value = self.dollar(depth)?;
                    self.spend(&value)?;
                    text.split(&value);
                }
                _ if c == self.escape => {
                    self.rest.next();
                    if let Some(escaped) = self.rest.next() {
                        text.keep(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => {
                    self.rest.next();
                    text.split(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        match stop {
            None => Ok(text),
            Some(_) => Err(ExpandError::Brace { word: self.short() }),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        self.rest.next();
        let mut quoted = String::new();
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(quoted),
                Some(c) => quoted.push(c),
                None => {
                    return Err(ExpandError::Quote { quote: "single", word: self.short() });
                }
            }
        }
    }

    fn double_quoted(&mut self, depth: usize) -> Result<String, ExpandError> {
        self.rest.next();
        self.in_quotes(Some('"'), depth)
    }

    /// As between double quotes, up to `end` or to the end of the text.
    fn in_quotes(&mut self, end: Option<char>, depth: usize) -> Result<String, ExpandError> {
        let mut quoted = String::new();
        loop {
            let c = self.rest.peek().copied();
            if c == end {
                self.rest.next();
                return Ok(quoted);
            }
            match c {
                Some('$') => {
                    let value = self.dollar(depth)?;
                    self.spend(&value)?;
                    quoted.push_str(&value);
                }
                Some(c) if c == self.escape => {
                    self.rest.next();
                    match self.rest.next() {
                        Some(next) if next == '$' || next == self.escape || Some(next) == end => {
                            quoted.push(next);
                        }
                        // Before any other character the escape is itself.
                        Some(next) => quoted.extend([c, next]),
                        None => {}
                    }
                }
                Some(c) => {
                    self.rest.next();
                    quoted.push(c);
                }
                None => {
                    return Err(ExpandError::Quote { quote: "double", word: self.short() });
                }
            }
        }
    }

    fn dollar(&mut self, depth: usize) -> Result<String, ExpandError> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok((self.lookup)(&name).unwrap_or_default());
        }
        self.rest.next();
        let name = self.name();
        if name.is_empty() {
            return Err(match self.rest.peek() {
                None => ExpandError::Brace { word: self.short() },
                Some(_) => ExpandError::Substitution { word: self.short() },
            });
        }
        let value = (self.lookup)(&name);
        let mut operator = self.rest.next();
        let value = match operator {
            Some('}') => return Ok(value.unwrap_or_default()),
            // With the colon, an empty value counts as none.
            Some(':') => {
                operator = self.rest.next();
                value.filter(|value| !value.is_empty())
            }
            _ => value,
        };
        match operator {
            Some('-' | '+' | '?') => {}
            Some(_) => return Err(ExpandError::Substitution { word: self.short() }),
            None => return Err(ExpandError::Brace { word: self.short() }),
        }
        let alternative = self.until(Some('}'), depth + 1)?.joined;
        match operator {
            Some('-') => Ok(value.unwrap_or(alternative)),
            Some('+') => Ok(value.map(|_| alternative).unwrap_or_default()),
            _ => value.ok_or_else(|| ExpandError::Required {
                name,
                message: if alternative.is_empty() { "not set".to_owned() } else { alternative },
            }),
        }
    }

    /// A name, a number, or one of the shell's special parameters (which are never set here).
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.rest.next());
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "PORTS" => Some("80 81".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_quotes_and_escapes_expand_as_in_docker() {
        for (word, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$A", "one"),
            ("${A}", "one"),
            ("x${A}y", "xoney"),
            ("$A.txt", "one.txt"),
            ("$AB", ""),
            ("$", "$"),
            ("a$", "a$"),
            ("$.", "$."),
            ("\\$A", "$A"),
            ("\\\\$A", "\\one"),
            ("'$A'", "$A"),
            ("\"$A\"", "one"),
            ("\"\\$A\"", "$A"),
            ("\"a\\nb\"", "a\\nb"),
            ("'it'\\''s'", "it's"),
            ("a\\ b", "a b"),
            ("trailing\\", "trailing"),
            ("${NONE}", ""),
            ("${NONE:-word}", "word"),
            ("${NONE-word}", "word"),
            ("${EMPTY:-word}", "word"),
            ("${EMPTY-word}", ""),
            ("${A:-word}", "one"),
            ("${A:+word}", "word"),
            ("${EMPTY:+word}", ""),
            ("${EMPTY+word}", "word"),
            ("${NONE:+word}", ""),
            ("${NONE:-$A}", "one"),
            ("${NONE:-${NONE:-deep}}", "deep"),
            ("${NONE:-a\\}b}", "a}b"),
            ("${NONE:-\"a b\"}", "a b"),
            ("${A:?must be set}", "one"),
            ("$1", ""),
            ("$12a", "a"),
            ("äö$A", "äöone"),
        ] {
            assert_eq!(expand(word, '\\', &variables).as_deref(), Ok(expected), "{word}");
        }
        assert_eq!(expand("C:\\$A`$", '`', &variables).as_deref(), Ok("C:\\one$"));
    }

    #[test]
    fn bad_words_are_refused() {
        for word in ["'a", "\"a", "${A", "${", "${}", "${:-a}", "${A!b}", "${A:", "${A:}", "${A:-b"]
        {
            assert!(expand(word, '\\', &variables).is_err(), "{word}");
            assert!(check(word, '\\').is_err(), "{word}");
        }
        assert_eq!(
            expand("${NONE:?give one}", '\\', &variables),
            Err(ExpandError::Required { name: "NONE".into(), message: "give one".into() })
        );
        assert_eq!(check("${NONE:?give one}", '\\'), Ok(()));
    }

    #[test]
    fn words_split_outside_quotes_also_inside_values() {
        for (text, expected) in [
            ("80 443", vec!["80", "443"]),
            ("$PORTS/tcp", vec!["80", "81/tcp"]),
            ("\"$PORTS\" x", vec!["80 81", "x"]),
            ("  a\t'b c' ", vec!["a", "b c"]),
            ("\"\"", vec![""]),
            ("$NONE", vec![]),
        ] {
            assert_eq!(expand_words(text, '\\', &variables).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let deep = format!("{}x{}", "${N:-".repeat(10_000), "}".repeat(10_000));
        assert!(matches!(expand(&deep, '\\', &variables), Err(ExpandError::TooLarge { .. })));
        let long = "x".repeat(100_000);
        let wide = "$A".repeat(11);
        assert!(matches!(
            expand(&wide, '\\', &|_| Some(long.clone())),
            Err(ExpandError::TooLarge { .. })
        ));
    }
}
