//! `.dockerignore`: which files of a context a build does not see.
//!
//! Docker's rules: patterns are rooted in the context, a line matches a path
//! or any of its parents, `!` brings back, and the last matching line wins.

use super::{Dialect, Glob};

/// The lines of one ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<(Glob, Effect)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Exclude,
    Include,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: invalid pattern {pattern:?}")]
pub struct IgnoreError {
    /// Line, counted from 1.
    pub line: usize,
    /// What stands there.
    pub pattern: String,
}

impl Ignore {
    /// Reads the text of an ignore file.
    ///
    /// # Errors
    ///
    /// A line with an unclosed `[` or a lone `!`.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let invalid = || IgnoreError { line: index + 1, pattern: line.to_owned() };
            let (pattern, effect) = match line.trim().strip_prefix('!') {
                Some("") => return Err(invalid()),
                Some(pattern) => (pattern.trim(), Effect::Include),
                None => (line.trim(), Effect::Exclude),
            };
            let glob = Glob::new(&clean(pattern), Dialect::Ignore).ok_or_else(invalid)?;
            patterns.push((glob, effect));
        }
        Ok(Self { patterns })
    }

    /// True when a build does not see `path` (relative, `/` between its parts).
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for (glob, effect) in &self.patterns {
            // A line that could not change the outcome is not looked at.
            if (*effect == Effect::Include) != excluded {
                continue;
            }
            let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]);
            if ends.into_iter().any(|end| glob.matches(&path[..end])) {
                excluded = *effect == Effect::Exclude;
            }
        }
        excluded
    }

    /// True when nothing below an excluded directory can come back, so a walk need not enter it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.patterns.iter().all(|(_, effect)| *effect == Effect::Exclude)
    }
}

/// The pattern without `.`, `..`, double and outer slashes.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_line_wins_and_parents_count() {
        for (text, path, expected) in [
            ("", "a", false),
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a", "a", true),
            ("# a", "# a", false),
            ("  a  ", "a", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("**/*.pyc", "x/y/z.pyc", true),
            ("**/*.pyc", "z.pyc", true),
            ("*.pyc", "x/z.pyc", false),
            ("*\n!src", "src/main.rs", false),
            ("*\n!src", "target/x", true),
            ("*\n!src\nsrc/*.log", "src/a.log", true),
            ("a/../b", "b", true),
            ("temp?", "tempa", true),
            ("{a,b}", "a", false),
            ("../x", "x", true),
        ] {
            let ignore = Ignore::parse(text).unwrap();
            assert_eq!(ignore.excludes(path), expected, "{text:?} {path}");
        }
    }

    #[test]
    fn lines_that_are_no_patterns_are_named() {
        assert_eq!(Ignore::parse("a\n[x"), Err(IgnoreError { line: 2, pattern: "[x".to_owned() }));
        assert!(Ignore::parse("!").is_err());
    }
}
