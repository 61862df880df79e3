//! Nodes to typed instructions: one variant per instruction of the language.

use super::Problem;
use super::expand;
use super::lexer::{Heredoc, Node, words};

/// An instruction with its arguments, variables not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM [--platform=…] image [AS name]`.
    From {
        /// Image reference, `scratch`, or the name of an earlier stage.
        image: String,
        /// `--platform`.
        platform: Option<String>,
        /// The stage's name, in lower case.
        name: Option<String>,
    },
    /// `ARG name[=default] …`.
    Arg(Vec<(String, Option<String>)>),
    /// `ENV`, both forms.
    Env(Vec<(String, String)>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `RUN`.
    Run {
        /// What runs.
        command: Command,
        /// `--network`: `default` or `none` or `host`.
        network: Option<String>,
    },
    /// `COPY`.
    Copy(Copy),
    /// `ADD`: as `COPY`, but unpacks local archives.
    Add(Copy),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER name[:group]`.
    User(String),
    /// `EXPOSE`, still as text: variables may hold several ports.
    Expose(String),
    /// `VOLUME`.
    Volume(Volumes),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `CMD`.
    Cmd(Command),
    /// `SHELL ["program", "argument", …]`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `MAINTAINER`.
    Maintainer(String),
}

/// The two forms of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// The two forms of `VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volumes {
    /// JSON: each path is one.
    List(Vec<String>),
    /// Words, split after expansion.
    Words(String),
}

/// Arguments of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where files come from, in order; never empty.
    pub sources: Vec<CopySource>,
    /// Where they go.
    pub destination: String,
    /// `--from`: a stage by name or number, or an image.
    pub from: Option<String>,
    /// `--chown=user[:group]`.
    pub owner: Option<String>,
    /// `--chmod=octal`.
    pub mode: Option<String>,
}

/// One source of a `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or wildcard.
    Path(String),
    /// A heredoc: a file whose text stands in the Dockerfile.
    Inline(Heredoc),
}

/// Every instruction of the language, for suggestions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    /// Its name in upper case.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From { .. } => "FROM",
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run { .. } => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Cmd(_) => "CMD",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }

    /// Reads one node.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or that this builder does not do it.
    pub fn read(node: Node, escape: char) -> Result<Self, Problem> {
        let Some(keyword) = KEYWORDS.iter().copied().find(|name| *name == node.keyword) else {
            let found: String = node.keyword.chars().take(60).collect();
            let suggestion = nearest(&found);
            return Err(Problem::UnknownInstruction { found, suggestion });
        };
        let mut arguments = Arguments { keyword, flags: node.flags, rest: &node.rest, escape };
        if arguments.rest.is_empty() {
            return Err(arguments.need("at least one argument"));
        }
        let read = match keyword {
            "FROM" => arguments.from()?,
            "ARG" => Self::Arg(arguments.names()?),
            "ENV" => Self::Env(arguments.pairs()?),
            "LABEL" => Self::Label(arguments.pairs()?),
            "RUN" => arguments.run(&node.heredocs)?,
            "COPY" => Self::Copy(arguments.copy(&node.heredocs)?),
            "ADD" => Self::Add(arguments.copy(&node.heredocs)?),
            "WORKDIR" => Self::Workdir(arguments.word()?),
            "USER" => Self::User(arguments.word()?),
            "STOPSIGNAL" => Self::StopSignal(arguments.word()?),
            "EXPOSE" => Self::Expose(arguments.word()?),
            "VOLUME" => Self::Volume(match arguments.json()? {
                Some(list) if list.is_empty() => return Err(arguments.need("at least one path")),
                Some(list) => Volumes::List(list),
                None => Volumes::Words(arguments.word()?),
            }),
            "ENTRYPOINT" => Self::Entrypoint(arguments.command()?),
            "CMD" => Self::Cmd(arguments.command()?),
            "SHELL" => match arguments.json()? {
                Some(list) if !list.is_empty() => Self::Shell(list),
                _ => return Err(arguments.need("a JSON array of strings: [\"/bin/sh\", \"-c\"]")),
            },
            "MAINTAINER" => Self::Maintainer(arguments.rest.to_owned()),
            _ => return Err(Problem::Unsupported { what: keyword.to_owned() }),
        };
        match arguments.flags.into_iter().next() {
            None => Ok(read),
            Some((flag, _)) => Err(Problem::Flag { instruction: keyword, flag }),
        }
    }
}

struct Arguments<'a> {
    keyword: &'static str,
    flags: Vec<(String, Option<String>)>,
    rest: &'a str,
    escape: char,
}

impl Arguments<'_> {
    fn need(&self, expected: &'static str) -> Problem {
        Problem::Arguments { instruction: self.keyword, expected }
    }

    /// Takes the value of a flag that may be given once.
    fn flag(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(index) = self.flags.iter().position(|(flag, _)| flag == name) else {
            return Ok(None);
        };
        let (flag, value) = self.flags.remove(index);
        let instruction = self.keyword;
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or(Problem::FlagValue { instruction, flag })?;
        expand::check(&value, self.escape)?;
        Ok(Some(value))
    }

    fn refuse(&self, flags: &[&str]) -> Result<(), Problem> {
        match self.flags.iter().find(|(flag, _)| flags.contains(&flag.as_str())) {
            None => Ok(()),
            Some((flag, _)) => {
                Err(Problem::Unsupported { what: format!("{} --{flag}", self.keyword) })
            }
        }
    }

    /// The rest as one value whose syntax is checked.
    fn word(&self) -> Result<String, Problem> {
        expand::check(self.rest, self.escape)?;
        Ok(self.rest.to_owned())
    }

    /// The rest as a JSON array of strings; `None` when it is none.
    fn json(&self) -> Result<Option<Vec<String>>, Problem> {
        if !self.rest.starts_with('[') {
            return Ok(None);
        }
        match serde_json::from_str::<Vec<serde_json::Value>>(self.rest) {
            // As in Docker, what looks like JSON and is not is text for the shell.
            Err(_) => Ok(None),
            Ok(values) => values
                .into_iter()
                .map(|value| match value {
                    serde_json::Value::String(text) => Ok(text),
                    _ => Err(self.need("strings only when it is written as a JSON array")),
                })
                .collect::<Result<_, _>>()
                .map(Some),
        }
    }

    fn command(&self) -> Result<Command, Problem> {
        Ok(match self.json()? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest.to_owned()),
        })
    }

    fn from(&mut self) -> Result<Instruction, Problem> {
        let platform = self.flag("platform")?;
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        let (image, name) = match words[..] {
            [image] => (image, None),
            [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (image, Some(name)),
            _ => return Err(self.need("an image, and AS with a name if the stage has one")),
        };
        expand::check(image, self.escape)?;
        let name = name.map(stage_name).transpose()?;
        Ok(Instruction::From { image: image.to_owned(), platform, name })
    }

    fn names(&self) -> Result<Vec<(String, Option<String>)>, Problem> {
        words(self.rest, self.escape)
            .into_iter()
            .map(|word| {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                let name = expand::expand(name, self.escape, &|_| None)?;
                expand::check(value.as_deref().unwrap_or_default(), self.escape)?;
                if name.is_empty() || name.contains(char::is_whitespace) {
                    return Err(Problem::Invalid { what: "argument name", value: word });
                }
                Ok((name, value))
            })
            .collect()
    }

    /// `NAME=value …`, or the old form `NAME value with spaces`.
    fn pairs(&self) -> Result<Vec<(String, String)>, Problem> {
        let words = words(self.rest, self.escape);
        let first = words.first().ok_or_else(|| self.need("at least one argument"))?;
        let pairs: Vec<(String, String)> = if first.contains('=') {
            words
                .into_iter()
                .map(|word| match word.split_once('=') {
                    Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                    None => Err(Problem::Invalid { what: "name=value pair", value: word }),
                })
                .collect::<Result<_, _>>()?
        } else {
            let (name, value) = self
                .rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| self.need("a name and a value"))?;
            vec![(name.to_owned(), value.trim_start().to_owned())]
        };
        for (name, value) in &pairs {
            if name.is_empty() {
                return Err(Problem::Invalid { what: "name", value: format!("={value}") });
            }
            expand::check(name, self.escape)?;
            expand::check(value, self.escape)?;
        }
        Ok(pairs)
    }

    fn run(&mut self, heredocs: &[Heredoc]) -> Result<Instruction, Problem> {
        self.refuse(&["mount", "security", "device"])?;
        let network = self.flag("network")?;
        if let Some(value) = network.as_ref()
            && !matches!(value.as_str(), "default" | "none" | "host")
        {
            return Err(Problem::Invalid { what: "network", value: value.clone() });
        }
        let command = match heredocs {
            [] => self.command()?,
            // Nothing but a heredoc: its text is the script.
            [heredoc] if words(self.rest, self.escape).len() == 1 => {
                if heredoc.content.starts_with("#!") {
                    return Err(Problem::Unsupported { what: "a heredoc with #! in RUN".into() });
                }
                Command::Shell(heredoc.content.clone())
            }
            // Otherwise the shell reads the heredocs itself.
            _ => {
                let mut script = self.rest.to_owned();
                for heredoc in heredocs {
                    script.push('\n');
                    script.push_str(&heredoc.content);
                    script.push_str(&heredoc.name);
                }
                Command::Shell(script)
            }
        };
        if command == Command::Exec(Vec::new()) {
            return Err(self.need("a command"));
        }
        Ok(Instruction::Run { command, network })
    }

    fn copy(&mut self, heredocs: &[Heredoc]) -> Result<Copy, Problem> {
        self.refuse(&["link", "parents", "exclude", "checksum", "keep-git-dir", "unpack"])?;
        let owner = self.flag("chown")?;
        let mode = self.flag("chmod")?;
        let from = if self.keyword == "COPY" { self.flag("from")? } else { None };
        let mut words = match self.json()? {
            Some(words) => words,
            None => words(self.rest, self.escape),
        };
        let destination = words
            .pop()
            .filter(|_| !words.is_empty())
            .ok_or_else(|| self.need("at least one source and a destination"))?;
        expand::check(&destination, self.escape)?;
        let mut inline = heredocs.iter();
        let sources = words
            .into_iter()
            .map(|word| {
                let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
                if digits.starts_with("<<")
                    && let Some(heredoc) = inline.next()
                {
                    return Ok(CopySource::Inline(heredoc.clone()));
                }
                if self.keyword == "ADD" && is_remote(&word) {
                    return Err(Problem::Unsupported { what: format!("ADD of {word}") });
                }
                expand::check(&word, self.escape)?;
                Ok(CopySource::Path(word))
            })
            .collect::<Result<_, _>>()?;
        Ok(Copy { sources, destination, from, owner, mode })
    }
}

/// True for what `ADD` would fetch.
pub(crate) fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| source.to_ascii_lowercase().starts_with(scheme))
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if valid {
        Ok(lower)
    } else {
        Err(Problem::Invalid { what: "stage name", value: name.to_owned() })
    }
}

/// The keyword at most two edits away.
fn nearest(found: &str) -> Option<&'static str> {
    KEYWORDS
        .iter()
        .map(|keyword| (distance(found, keyword), *keyword))
        .min()
        .filter(|(distance, _)| *distance <= 2 && *distance < found.len())
        .map(|(_, keyword)| keyword)
}

/// Edit distance (insert, delete, replace) between two short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
