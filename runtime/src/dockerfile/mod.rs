//! The Dockerfile language: text to stages of instructions.
//!
//! Three steps, each with its own file: [`lexer`] turns text into nodes (one
//! logical line each), [`instruction`] turns nodes into typed instructions,
//! and [`parse`] here groups them into stages. [`expand`] is applied later,
//! when a build knows what the variables hold; [`ignore`] reads the
//! `.dockerignore` beside the file.
//!
//! The whole file is checked before anything of it is carried out: what the
//! language has and this builder does not is refused here, with its line.

mod glob;

pub mod lexer;

pub mod instruction;

pub mod expand;

pub mod ignore;

pub(crate) use glob::{Dialect, Glob};
pub use instruction::{Command, Copy, CopySource, Instruction, Volumes};

use lexer::Node;

/// A Dockerfile larger than this is refused.
pub const MAX_BYTES: usize = 1 << 20;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The name that error messages use.
    pub file: String,
    /// The escape character: `\`, or a backtick after `# escape=`.
    pub escape: char,
    /// `ARG` instructions before the first `FROM`; they are in scope in `FROM` only.
    pub arguments: Vec<Step>,
    /// The stages in file order; never empty.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// An error at `line` of this file.
    #[must_use]
    pub fn error(&self, line: usize, problem: Problem) -> ParseError {
        ParseError { file: self.file.clone(), line, problem }
    }
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// The `FROM` itself, then the instructions of the stage.
    pub steps: Vec<Step>,
}

/// One instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// First line, counted from 1.
    pub line: usize,
    /// Last line of the instruction.
    pub last_line: usize,
    /// The instruction as written, continuation lines joined.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What is wrong with a Dockerfile, and where: `Dockerfile:7: unknown instruction FORM`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct ParseError {
    /// Name of the file.
    pub file: String,
    /// Line of the instruction, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// The kinds of mistakes in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is larger than [`MAX_BYTES`].
    #[error("the file is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The file is not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// Only comments and white space.
    #[error("the file has no instructions")]
    Empty,
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("invalid escape character {value:?}; it must be \\ or `")]
    EscapeCharacter {
        /// What was asked for.
        value: String,
    },
    /// The same parser directive twice.
    #[error("only one {name} parser directive can be used")]
    DuplicateDirective {
        /// The directive.
        name: String,
    },
    /// No instruction has this name.
    #[error("unknown instruction {found}{}", did_you_mean(*suggestion))]
    UnknownInstruction {
        /// The word in the place of the instruction, upper case.
        found: String,
        /// The instruction that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Part of the language, but not of this builder.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// Instruction, flag or form.
        what: String,
    },
    /// A flag that the instruction does not have, or has twice.
    #[error("{instruction} has no flag --{flag}, or it is given twice")]
    Flag {
        /// Instruction.
        instruction: &'static str,
        /// Name without dashes.
        flag: String,
    },
    /// A flag without its value.
    #[error("the flag --{flag} of {instruction} needs a value")]
    FlagValue {
        /// Instruction.
        instruction: &'static str,
        /// Name without dashes.
        flag: String,
    },
    /// Too few or too many arguments.
    #[error("{instruction} needs {expected}")]
    Arguments {
        /// Instruction.
        instruction: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A value that the instruction cannot mean.
    #[error("invalid {what} {value:?}")]
    Invalid {
        /// What the value should have been.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Before the first `FROM` stand only `ARG` instructions.
    #[error("{instruction} stands before the first FROM")]
    BeforeFrom {
        /// Instruction.
        instruction: &'static str,
    },
    /// Two stages have one name.
    #[error("the stage name {name} is used twice")]
    DuplicateStage {
        /// The name.
        name: String,
    },
    /// Something names a stage that does not come before it.
    #[error("no stage {name} stands before this line")]
    NoStage {
        /// The name or number as written.
        name: String,
    },
    /// The file ends inside a heredoc.
    #[error("the heredoc {name} has no end")]
    UnterminatedHeredoc {
        /// The word that should have ended it.
        name: String,
    },
    /// A `$` expression that cannot be read.
    #[error(transparent)]
    Expand(#[from] expand::ExpandError),
}

fn did_you_mean(suggestion: Option<&'static str>) -> String {
    suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// Reads a Dockerfile; `file` is the name used in error messages.
///
/// # Errors
///
/// The first mistake in file order, with its line.
pub fn parse(file: &str, text: &[u8]) -> Result<Dockerfile, ParseError> {
    let at = |line, problem| ParseError { file: file.to_owned(), line, problem };
    let source = lexer::read(text).map_err(|(line, problem)| at(line, problem))?;
    let mut dockerfile = Dockerfile {
        file: file.to_owned(),
        escape: source.escape,
        arguments: Vec::new(),
        stages: Vec::new(),
    };
    for node in source.nodes {
        let Node { line, last_line, .. } = node;
        let text = node.original.clone();
        let instruction =
            Instruction::read(node, source.escape).map_err(|problem| at(line, problem))?;
        let name = match &instruction {
            Instruction::From { name, .. } => Some(name.clone()),
            _ => None,
        };
        let step = Step { line, last_line, text, instruction };
        if let Some(name) = name {
            if let Some(name) = &name
                && dockerfile.stages.iter().any(|stage| stage.name.as_ref() == Some(name))
            {
                return Err(at(line, Problem::DuplicateStage { name: name.clone() }));
            }
            dockerfile.stages.push(Stage { name, steps: vec![step] });
        } else if let Some(stage) = dockerfile.stages.last_mut() {
            stage.steps.push(step);
        } else if matches!(step.instruction, Instruction::Arg(_)) {
            dockerfile.arguments.push(step);
        } else {
            let instruction = step.instruction.keyword();
            return Err(at(line, Problem::BeforeFrom { instruction }));
        }
    }
    if dockerfile.stages.is_empty() {
        let line = dockerfile.arguments.last().map_or(1, |step| step.line);
        return Err(at(line, Problem::Empty));
    }
    Ok(dockerfile)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// One line per step, for the fixtures.
    fn printed(dockerfile: &Dockerfile) -> String {
        let mut text = format!("escape {:?}\n", dockerfile.escape);
        let stages = dockerfile.stages.iter().flat_map(|stage| &stage.steps);
        for step in dockerfile.arguments.iter().chain(stages) {
            let Step { line, last_line, instruction, .. } = step;
            text.push_str(&format!("{line}-{last_line} {instruction:?}\n"));
        }
        text
    }

    #[test]
    fn fixtures_parse_as_written_beside_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "dockerfile") {
                continue;
            }
            let parsed = parse("Dockerfile", &std::fs::read(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let expected = path.with_extension("expected");
            let expected = std::fs::read_to_string(&expected).unwrap_or_default();
            assert_eq!(printed(&parsed), expected, "{}", path.display());
            count += 1;
        }
        assert!(count >= 5, "only {count} fixtures");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, expected) in [
            ("", "Dockerfile:1: the file has no instructions"),
            ("# only\n\n# comments", "Dockerfile:1: the file has no instructions"),
            ("FROM a\n\nFORM b", "Dockerfile:3: unknown instruction FORM (did you mean FROM?)"),
            ("FROM a\nXYZZY b", "Dockerfile:2: unknown instruction XYZZY"),
            ("RUN x", "Dockerfile:1: RUN stands before the first FROM"),
            ("FROM", "Dockerfile:1: FROM needs at least one argument"),
            (
                "FROM a b",
                "Dockerfile:1: FROM needs an image, and AS with a name if the stage has one",
            ),
            ("FROM a AS 9x", "Dockerfile:1: invalid stage name \"9x\""),
            ("FROM a AS x\nFROM b AS X", "Dockerfile:2: the stage name x is used twice"),
            ("FROM a\nENV A", "Dockerfile:2: ENV needs a name and a value"),
            ("FROM a\nENV A=1 B", "Dockerfile:2: invalid name=value pair \"B\""),
            ("FROM a\nENV =1", "Dockerfile:2: invalid name \"=1\""),
            ("FROM a\nCOPY x", "Dockerfile:2: COPY needs at least one source and a destination"),
            (
                "FROM a\nCOPY --chwon=1 x y",
                "Dockerfile:2: COPY has no flag --chwon, or it is given twice",
            ),
            ("FROM a\nCOPY --chown x y", "Dockerfile:2: the flag --chown of COPY needs a value"),
            (
                "FROM a\nRUN \\\n  --mount=type=cache,target=/x y",
                "Dockerfile:2: RUN --mount is not supported yet",
            ),
            (
                "FROM a\nADD https://example.org/x /x",
                "Dockerfile:2: ADD of https://example.org/x is not supported yet",
            ),
            ("FROM a\nHEALTHCHECK NONE", "Dockerfile:2: HEALTHCHECK is not supported yet"),
            ("FROM a\nONBUILD RUN x", "Dockerfile:2: ONBUILD is not supported yet"),
            ("FROM a\nRUN <<EOF\nx", "Dockerfile:2: the heredoc EOF has no end"),
            (
                "FROM a\nSHELL /bin/sh",
                "Dockerfile:2: SHELL needs a JSON array of strings: [\"/bin/sh\", \"-c\"]",
            ),
            (
                "FROM a\nCMD [\"a\", 1]",
                "Dockerfile:2: CMD needs strings only when it is written as a JSON array",
            ),
            ("FROM a\nWORKDIR ${X", "Dockerfile:2: a } is missing in \"${X\""),
            ("FROM a\nENV A='x", "Dockerfile:2: a single quote is not closed in \"'x\""),
            (
                "# escape=x\nFROM a",
                "Dockerfile:1: invalid escape character \"x\"; it must be \\ or `",
            ),
            (
                "# escape=`\n# escape=`\nFROM a",
                "Dockerfile:2: only one escape parser directive can be used",
            ),
        ] {
            let error = parse("Dockerfile", text.as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text:?}");
        }
        let error = parse("D", b"FROM a\nRUN \xff").unwrap_err();
        assert_eq!(error.to_string(), "D:2: the line is not UTF-8");
        let large = vec![b'#'; MAX_BYTES + 1];
        assert_eq!(parse("D", &large).unwrap_err().problem, Problem::TooLarge);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse("Dockerfile", &text);
        }

        #[test]
        fn shuffled_pieces_of_the_language_never_panic(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "FROM ", "a", "\n", "RUN ", "COPY ", "ENV ", "A=", "<<EOF", "EOF", "\\",
                    "`", "\"", "'", "$", "${", "}", ":-", "#", "escape=", " ", "[", "]", ",",
                    "--chown=", "--", "\t", "ARG ", "LABEL ", "\r\n", "é", "EXPOSE ", "1",
                ]),
                0..60,
            )
        ) {
            let text = pieces.concat();
            if let Ok(dockerfile) = parse("Dockerfile", text.as_bytes()) {
                prop_assert!(!dockerfile.stages.is_empty());
                for stage in &dockerfile.stages {
                    for step in &stage.steps {
                        prop_assert!(step.line >= 1 && step.line <= step.last_line);
                    }
                }
            }
            let _ = expand::expand(&text, '\\', &|_| Some("v".to_owned()));
            let _ = ignore::Ignore::parse(&text);
        }
    }
}
