//! What a registry answers when it does not give what was asked, and which of it passes.

use std::error::Error as _;
use std::time::Duration;
use std::{fmt, io};

use serde::Deserialize;

/// Why one request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection came about.
    #[error("registry {host} is not reachable")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Name resolution, TCP or TLS.
        source: Cause,
    },
    /// The connection broke, or nothing came for too long.
    #[error("the connection to registry {host} broke off")]
    Interrupted {
        /// Host and port.
        host: String,
        /// What happened.
        source: Cause,
    },
    /// Strangers do not name what is at addresses of this machine.
    #[error(
        "registry {host} is at an address of the host itself, where images of actors come from \
         only if its operator names it in `registries.local`"
    )]
    OwnAddress {
        /// Host and port.
        host: String,
    },
    /// It sends so little that it would take for ever.
    #[error("registry {host} sends too slowly")]
    TooSlow {
        /// Host and port.
        host: String,
    },
    /// A body ended before, or went on after, what was promised.
    #[error("{url} is {actual_bytes} bytes long instead of {expected_bytes}")]
    Length {
        /// What was asked for.
        url: String,
        /// The descriptor's size.
        expected_bytes: u64,
        /// What came; one that is too long is not read to its end.
        actual_bytes: u64,
    },
    /// A status that is no success.
    #[error("{url}: the registry answered {status}{}", listed(problems))]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The distribution spec's errors in the body.
        problems: Vec<Problem>,
        /// How long the registry asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The registry lets nobody in without credentials, and we have none for it.
    #[error(
        "registry {host} gives {repository} only to those who log in (or there is no such repository)"
    )]
    CredentialsMissing {
        /// Host and port.
        host: String,
        /// What was asked for.
        repository: String,
    },
    /// The registry does not take the credentials that we have for it.
    #[error("registry {host} refuses {repository} to {user}{}", listed(problems))]
    CredentialsRefused {
        /// Host and port.
        host: String,
        /// What was asked for.
        repository: String,
        /// Who asked.
        user: String,
        /// The distribution spec's errors in the body.
        problems: Vec<Problem>,
    },
    /// A body that is longer than we take.
    #[error("{url} is longer than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// What we take.
        limit_bytes: u64,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: {problem}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// A host or URL in the configuration or in a reference that is none.
    #[error("{text:?} is no address of a registry")]
    Address {
        /// What was given.
        text: String,
    },
    /// HTTPS cannot be set up on this machine.
    #[error("could not set up HTTPS: are there certificates of authorities on this machine?")]
    Setup {
        /// What the TLS library says.
        source: reqwest::Error,
    },
    /// The CA bundle of the configuration.
    #[error("could not read the CA bundle {}", path.display())]
    CaBundle {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The pull that this request belongs to has failed elsewhere.
    #[error("given up")]
    Stopped,
}

impl Error {
    /// True where the same request may succeed later with nothing changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !source.is_certificate(),
            Self::Interrupted { .. } | Self::TooSlow { .. } => true,
            Self::Length { expected_bytes, actual_bytes, .. } => actual_bytes < expected_bytes,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::OwnAddress { .. }
            | Self::CredentialsMissing { .. }
            | Self::CredentialsRefused { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Address { .. }
            | Self::Setup { .. }
            | Self::CaBundle { .. }
            | Self::Stopped => false,
        }
    }

    /// True where the registry says that what was asked for does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }
}

/// One error in the body of a registry's answer: distribution-spec, "Error codes".
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// As `MANIFEST_UNKNOWN` or `TOOMANYREQUESTS`.
    #[serde(default)]
    pub code: String,
    /// For people; may be empty.
    #[serde(default)]
    pub message: String,
}

impl Problem {
    /// The errors in a body; none where it is not the spec's JSON.
    pub(super) fn parse(body: &[u8]) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Problem>,
        }
        let mut problems =
            serde_json::from_slice::<Body>(body).map(|body| body.errors).unwrap_or_default();
        problems.truncate(8);
        for problem in &mut problems {
            for text in [&mut problem.code, &mut problem.message] {
                // Strangers' text goes to a terminal.
                *text = text.chars().filter(|c| !c.is_control()).take(200).collect();
            }
        }
        problems
    }
}

fn listed(problems: &[Problem]) -> String {
    let mut text = String::new();
    for Problem { code, message } in problems {
        text += if text.is_empty() { " (" } else { "; " };
        text += if message.is_empty() { code } else { message };
    }
    if !text.is_empty() {
        text.push(')');
    }
    text
}

/// What went wrong below HTTP, in the words of the innermost error.
#[derive(Debug)]
pub struct Cause {
    error: reqwest::Error,
}

impl Cause {
    pub(super) fn new(error: reqwest::Error) -> Self {
        Self { error: error.without_url() }
    }

    /// The innermost error of the operating system.
    fn kind(&self) -> Option<io::ErrorKind> {
        self.chain()
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .filter(|error| error.raw_os_error().is_some())
            .last()
            .map(io::Error::kind)
    }

    fn chain(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(self.error.source(), |error| (*error).source())
    }

    fn is_certificate(&self) -> bool {
        self.to_string().contains("certificate")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind() {
            return kind.fmt(f);
        }
        if self.error.is_timeout() {
            return f.write_str("timed out");
        }
        match self.chain().last() {
            // What TLS makes of an HTTP server's words.
            Some(innermost) if innermost.to_string().contains("InvalidContentType") => f.write_str(
                "it does not speak HTTPS (if it should be reached by plain HTTP, list it under plain_http)",
            ),
            Some(innermost) => write!(f, "{innermost}"),
            None => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_not_the_specs_json_has_no_problems() {
        for body in ["", "<html>", "[]", r#"{"errors":null}"#, r#"{"errors":[7]}"#] {
            assert_eq!(Problem::parse(body.as_bytes()), [], "{body}");
        }
    }

    #[test]
    fn problems_are_printed_without_control_characters() {
        let body = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m!","detail":{"a":1}},{"code":"NAME_UNKNOWN"}]}"#;
        assert_eq!(listed(&Problem::parse(body.as_bytes())), " (no[31m!; NAME_UNKNOWN)");
    }

    #[test]
    fn overload_passes_and_refusal_does_not() {
        for (status, transient) in [
            (400, false),
            (403, false),
            (404, false),
            (408, true),
            (429, true),
            (500, true),
            (503, true),
        ] {
            let error = Error::Status {
                url: String::new(),
                status,
                problems: Vec::new(),
                retry_after: None,
            };
            assert_eq!(error.is_transient(), transient, "{status}");
        }
    }
}
