//! Text to nodes: parser directives, comments, continuation lines, heredocs.
//!
//! Follows the parser of BuildKit: a comment or an empty line inside a
//! continued instruction does not end it, and a line that ends in two escape
//! characters is not continued.

use super::{MAX_BYTES, Problem};

/// A file as nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The escape character in effect.
    pub escape: char,
    /// The instructions, in order.
    pub nodes: Vec<Node>,
}

/// One instruction, not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// First line, counted from 1.
    pub line: usize,
    /// Last line, heredocs included.
    pub last_line: usize,
    /// The instruction's name in upper case.
    pub keyword: String,
    /// Flags: name and value, in order.
    pub flags: Vec<(String, Option<String>)>,
    /// What follows name and flags, continuation lines joined.
    pub rest: String,
    /// The whole instruction, continuation lines joined.
    pub original: String,
    /// The heredocs that it announces, in order.
    pub heredocs: Vec<Heredoc>,
}

/// A heredoc: `<<NAME` and the lines up to `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; a file copied from it has this name.
    pub name: String,
    /// Whether variables in it are expanded: its name was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are removed.
    pub strip_tabs: bool,
    /// The lines, each with its newline.
    pub content: String,
}

/// Reads `text` into nodes.
///
/// # Errors
///
/// The line, counted from 1, and what is wrong there.
pub fn read(text: &[u8]) -> Result<Source, (usize, Problem)> {
    if text.len() > MAX_BYTES {
        return Err((1, Problem::TooLarge));
    }
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let good = &text[..error.valid_up_to()];
        (1 + good.iter().filter(|byte| **byte == b'\n').count(), Problem::NotUtf8)
    })?;
    let lines: Vec<&str> =
        text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();

    let (escape, mut next) = directives(&lines)?;
    let mut nodes = Vec::new();
    while next < lines.len() {
        let first = next;
        let line = lines[next].trim_start();
        next += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (mut logical, mut continued) = split_continuation(line, escape);
        while continued && next < lines.len() {
            let line = lines[next];
            next += 1;
            if line.trim_start().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let (more, goes_on) = split_continuation(line, escape);
            logical.push_str(&more);
            continued = goes_on;
        }
        if logical.trim().is_empty() {
            continue;
        }
        let mut node = node(logical.trim(), escape, first + 1);
        for heredoc in announced(&node, escape) {
            let (heredoc, end) = body(heredoc, &lines, next)
                .map_err(|name| (first + 1, Problem::UnterminatedHeredoc { name }))?;
            node.heredocs.push(heredoc);
            next = end;
        }
        node.last_line = next;
        nodes.push(node);
    }
    Ok(Source { escape, nodes })
}

/// The escape character and the number of lines that are directives.
fn directives(lines: &[&str]) -> Result<(char, usize), (usize, Problem)> {
    let mut seen: Vec<String> = Vec::new();
    let mut escape = '\\';
    for (index, line) in lines.iter().enumerate() {
        let directive = line.trim_start().strip_prefix('#').and_then(|text| text.split_once('='));
        let Some((name, value)) = directive else { return Ok((escape, index)) };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "escape" | "syntax" | "check") {
            return Ok((escape, index));
        }
        if seen.contains(&name) {
            return Err((index + 1, Problem::DuplicateDirective { name }));
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => return Err((index + 1, Problem::EscapeCharacter { value: value.to_owned() })),
            };
        }
        seen.push(name);
    }
    Ok((escape, lines.len()))
}

/// The line without its continuation mark, and whether it had one.
fn split_continuation(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(text) if !text.ends_with(escape) => (text.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

fn node(logical: &str, escape: char, line: usize) -> Node {
    let (keyword, rest) = logical.split_once(|c: char| c.is_whitespace()).unwrap_or((logical, ""));
    let (flags, rest) = flags(rest.trim_start(), escape);
    Node {
        line,
        last_line: line,
        keyword: keyword.to_uppercase(),
        flags,
        rest: rest.trim().to_owned(),
        original: logical.to_owned(),
        heredocs: Vec::new(),
    }
}

type Flags = Vec<(String, Option<String>)>;

/// Takes leading `--name[=value]` words; a lone `--` ends them.
fn flags(mut rest: &str, escape: char) -> (Flags, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        let mut characters = rest.char_indices();
        while let Some((index, c)) = characters.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = index;
                    break;
                }
                None if c == '"' || c == '\'' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ if c == escape && quote != Some('\'') => {
                    // The flag's value is expanded later: keep the escape.
                    word.push(c);
                    word.extend(characters.next().map(|(_, c)| c));
                }
                _ => word.push(c),
            }
        }
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        let word = word.trim_start_matches('-');
        flags.push(match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        });
    }
    (flags, rest)
}

/// Words of `text` split at white space outside quotes; quotes and escapes stay in.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(characters.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The heredocs that an instruction's first logical line announces, still empty.
fn announced(node: &Node, escape: char) -> Vec<Heredoc> {
    // The exec form has no heredocs: `["a", "<<b"]` is data.
    if !matches!(node.keyword.as_str(), "RUN" | "COPY" | "ADD") || node.rest.starts_with('[') {
        return Vec::new();
    }
    let mut heredocs = Vec::new();
    for word in words(&node.rest, escape) {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(name) = word.strip_prefix("<<") else { continue };
        let (name, strip_tabs) = match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let bare: String = name.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
        if bare.is_empty() || bare.contains(['<', '$', '(']) {
            continue;
        }
        let expand = bare.len() == name.len();
        heredocs.push(Heredoc { name: bare, expand, strip_tabs, content: String::new() });
    }
    heredocs
}

/// Fills `heredoc` from `lines`; the index after its end, or its name when it has none.
fn body(mut heredoc: Heredoc, lines: &[&str], first: usize) -> Result<(Heredoc, usize), String> {
    for (index, line) in lines.iter().enumerate().skip(first) {
        let line = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return Ok((heredoc, index + 1));
        }
        heredoc.content.push_str(line);
        heredoc.content.push('\n');
    }
    Err(heredoc.name)
}
