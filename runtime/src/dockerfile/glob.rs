//! Wildcards of `.dockerignore` and of `COPY`, on paths with `/`.
//!
//! Matched by stepping through all places a pattern can be in at once, so a
//! pattern with many stars costs pattern × path and never more.

/// Whose rules a pattern follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `.dockerignore`: `**` crosses directories.
    Ignore,
    /// `COPY` sources, Go's `filepath.Match`: `**` is two stars.
    Copy,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: any one character but `/`.
    One,
    /// `*`: any number of characters but `/`.
    Star,
    /// `**/` and `**` before more: nothing, or what [`Token::Inside`] takes.
    Directories,
    /// Always behind `Directories`: anything that ends in `/`.
    Inside,
    /// `**` at the end: anything.
    Anything,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Compiles `pattern`; `None` when a `[` is not closed or holds nothing.
    pub(crate) fn new(pattern: &str, dialect: Dialect) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' if dialect == Dialect::Ignore && rest.peek() == Some(&'*') => {
                    rest.next();
                    rest.next_if_eq(&'/');
                    if rest.peek().is_some() {
                        tokens.push(Token::Directories);
                        Token::Inside
                    } else {
                        Token::Anything
                    }
                }
                '*' => Token::Star,
                '?' => Token::One,
                '\\' => Token::Literal(rest.next().unwrap_or('\\')),
                '[' => class(&mut rest)?,
                _ => Token::Literal(c),
            };
            tokens.push(token);
        }
        Some(Self { tokens })
    }

    /// True when the whole of `path` matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let end = self.tokens.len();
        let mut places = vec![false; end + 1];
        places[0] = true;
        self.skip(&mut places);
        for c in path.chars() {
            let mut next = vec![false; end + 1];
            for (index, token) in self.tokens.iter().enumerate() {
                if !places[index] {
                    continue;
                }
                match token {
                    Token::Literal(literal) => next[index + 1] |= *literal == c,
                    Token::One => next[index + 1] |= c != '/',
                    Token::Star => next[index] |= c != '/',
                    Token::Anything => next[index] = true,
                    Token::Directories => {}
                    Token::Inside => {
                        next[index] = true;
                        next[index + 1] |= c == '/';
                    }
                    Token::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        next[index + 1] |= c != '/' && inside != *negated;
                    }
                }
            }
            self.skip(&mut next);
            places = next;
        }
        places[end]
    }

    /// Moves on from tokens that may match nothing.
    fn skip(&self, places: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            if places[index] {
                match token {
                    Token::Star | Token::Anything => places[index + 1] = true,
                    Token::Directories => {
                        places[index + 1] = true;
                        places[index + 2] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = rest.next_if(|c| matches!(c, '^' | '!')).is_some();
    let mut ranges = Vec::new();
    loop {
        let mut low = rest.next()?;
        if low == ']' && !ranges.is_empty() {
            return Some(Token::Class { negated, ranges });
        }
        if low == '\\' {
            low = rest.next()?;
        }
        let mut high = low;
        if rest.next_if_eq(&'-').is_some() {
            high = rest.next()?;
            if high == '\\' {
                high = rest.next()?;
            }
        }
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        use Dialect::{Copy, Ignore};
        for (pattern, dialect, path, expected) in [
            ("a.txt", Copy, "a.txt", true),
            ("a.txt", Copy, "b/a.txt", false),
            ("*.txt", Copy, "a.txt", true),
            ("*.txt", Copy, "b/a.txt", false),
            ("*/a.txt", Copy, "b/a.txt", true),
            ("a?c", Copy, "abc", true),
            ("a?c", Copy, "a/c", false),
            ("[a-c]x", Copy, "bx", true),
            ("[^a-c]x", Copy, "bx", false),
            ("[]a]x", Copy, "]x", true),
            ("\\*", Copy, "*", true),
            ("\\*", Copy, "a", false),
            ("**/a", Ignore, "a", true),
            ("**/a", Ignore, "b/c/a", true),
            ("**/a", Ignore, "ba", false),
            ("a/**", Ignore, "a/b/c", true),
            ("a/**", Ignore, "ab", false),
            ("a/**/b", Ignore, "a/b", true),
            ("a/**/b", Ignore, "a/x/y/b", true),
            ("a/**/b", Ignore, "a/xb", false),
            ("**", Ignore, "anything/at/all", true),
            ("*", Ignore, "a/b", false),
            ("{a,b}", Ignore, "a", false),
            ("{a,b}", Ignore, "{a,b}", true),
        ] {
            let glob = Glob::new(pattern, dialect).unwrap();
            assert_eq!(glob.matches(path), expected, "{pattern} {path}");
        }
        assert_eq!(Glob::new("[a", Copy), None);
    }

    #[test]
    fn many_stars_stay_cheap() {
        let glob = Glob::new(&"*a".repeat(200), Dialect::Ignore).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(2_000))));
    }
}
