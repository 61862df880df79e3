//! Errors of the interface: what went wrong, and its status in each dialect.

use std::any::Any;

use abax_actors::{ActorId, Chain, Error, Level, NonceRefusal, Noun};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::dialect::Dialect;

/// What an error means to the caller, one row of the status table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]

pub(crate) enum Meaning {
    /// The request cannot be read: broken JSON, a list where an object belongs.
    Malformed,
    /// It can be read, and its values are not acceptable.
    Invalid,
    /// No credentials, or none that hold.
    Unauthenticated,
    /// Known caller, not allowed.
    Forbidden,
    /// There is one, and the caller may not know that.
    Hidden,
    /// No actor of that id, or none that this caller may know of.
    NoActorId,
    /// No such actor, alias or config, or none that this caller may know of.
    NoActor,
    /// No such execution of this actor.
    NoExecution,
    /// No such result of this execution.
    NoResult,
    /// No such worker of this actor.
    NoWorker,
    /// No such nonce of this actor or alias.
    NoNonce,
    /// Nothing is at this path.
    NoRoute,
    /// Something is at this path, not under this method.
    WrongMethod,
    /// A stateless actor was asked to keep state.
    Stateless,
    /// The thing is not in a status that allows this.
    Conflict,
    /// The execution that asks has lost its claim, so what it writes does not count.
    Superseded,
    /// What the caller read has changed since.
    Changed,
    /// The body is larger than the limit.
    TooLarge,
    /// A message is larger than what an execution can be given.
    MessageTooLarge,
    /// The body is of a kind that this path does not read.
    UnreadableType,
    /// The request did not arrive in time.
    Slow,
    /// The execution that the caller waited for could not be carried out.
    ExecutionFailed,
    /// The caller has more under way than it may.
    TooMany,
    /// The store or the queue is away; the same request may succeed later.
    Unavailable,
    /// A bug of ours.
    Internal,
}

impl Meaning {
    /// The status that says this in `dialect`.
    ///
    /// Abaco tells admins, and nobody else, which ids there are not.
    pub(crate) fn status(self, dialect: Dialect, to_admin: bool) -> StatusCode {
        let (ours, abacos) = match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_REQUEST),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST),
            Self::Forbidden => (StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST),
            Self::Hidden => (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST),
            Self::NoActorId if to_admin => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            Self::NoActorId => (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST),
            Self::NoActor => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            Self::NoExecution | Self::NoNonce => (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST),
            Self::NoWorker | Self::NoResult => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            Self::NoRoute => (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, StatusCode::METHOD_NOT_ALLOWED),
            Self::Stateless => (StatusCode::CONFLICT, StatusCode::NOT_FOUND),
            Self::Conflict => (StatusCode::CONFLICT, StatusCode::BAD_REQUEST),
            // Abaco has no such case.
            Self::Superseded => (StatusCode::CONFLICT, StatusCode::CONFLICT),
            Self::Changed => (StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_FAILED),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE),
            Self::MessageTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST),
            Self::UnreadableType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, StatusCode::BAD_REQUEST),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, StatusCode::BAD_REQUEST),
            Self::ExecutionFailed => (StatusCode::BAD_GATEWAY, StatusCode::BAD_REQUEST),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        if dialect.is_abaco() { abacos } else { ours }
    }
}

/// One field of a request that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// The field's snake name.
    pub name: String,
    /// What is wrong with it, or what it takes.
    pub problem: String,
}

impl FieldError {
    /// The field `name` and what is wrong with it.
    pub(crate) fn new(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { name: name.into(), problem: problem.into() }
    }
}

/// An error as a handler returns it: its meaning and its text, no dialect yet.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    meaning: Meaning,
    message: String,
    /// What Abaco's clients hear instead.
    to_abaco: Option<String>,
    fields: Vec<FieldError>,
    allowed: Option<HeaderValue>,
}

impl ApiError {
    /// An error of this meaning; `message` tells the caller what to do about it.
    pub(crate) fn new(meaning: Meaning, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { meaning, message, to_abaco: None, fields: Vec::new(), allowed: None }
    }

    /// Something that is there, for somebody who may not know that: who asks under our
    /// own prefix hears what `missing` says of what is not there.
    fn hidden(missing: Self, to_abaco: String) -> Self {
        Self { meaning: Meaning::Hidden, to_abaco: Some(to_abaco), ..missing }
    }

    /// Fields that were refused.
    pub(crate) fn invalid(fields: Vec<FieldError>) -> Self {
        Self { fields, ..Self::new(Meaning::Invalid, "Invalid request") }
    }

    /// A field that the service refuses. Of some, Abaco's clients know how the text begins.
    fn of_field(field: &str, problem: &str) -> Self {
        let (message, problem) = match field {
            "link" => ("Invalid link parameter", problem),
            "cron_schedule" => problem.split_once("; ").unwrap_or((problem, problem)),
            _ => ("Invalid request", problem),
        };
        let fields = vec![FieldError::new(field, problem)];
        Self { fields, ..Self::new(Meaning::Invalid, message) }
    }

    /// An error where the body of a request, and not its URL, may name the actor.
    pub(crate) fn of_body(error: Error) -> Self {
        let error = Self::from(error);
        match error.meaning {
            Meaning::NoActorId => Self { meaning: Meaning::NoActor, ..error },
            _ => error,
        }
    }

    /// A bug of ours, whose details are in the log and nowhere else.
    pub(crate) fn internal() -> Self {
        Self::new(Meaning::Internal, "Something went wrong on our side; the log knows more")
    }

    /// A method that this path does not have; `allowed` lists those it has.
    pub(crate) fn wrong_method(allowed: Option<HeaderValue>) -> Self {
        let listed = allowed.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self {
            message: format!("This path does not take this method; it takes {listed}."),
            allowed,
            ..Self::new(Meaning::WrongMethod, "")
        }
    }

    /// What this error means.
    pub(crate) fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The fields that were refused, if that is what went wrong.
    pub(crate) fn fields(&self) -> &[FieldError] {
        &self.fields
    }

    pub(crate) fn allowed(&self) -> Option<&HeaderValue> {
        self.allowed.as_ref()
    }

    /// The text for the caller. The names of refused fields occur in it, in the dialect's case:
    /// Abaco's clients look for them.
    pub(crate) fn text(&self, dialect: Dialect) -> String {
        if self.fields.is_empty() {
            let to_abaco = self.to_abaco.as_ref().filter(|_| dialect.is_abaco());
            return to_abaco.unwrap_or(&self.message).clone();
        }
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("'{}': '{}'", dialect.key(&field.name), field.problem))
            .collect();
        format!("{}: {{{}}}", self.message, fields.join(", "))
    }
}

/// What the service's errors mean here, and what is said of them.
///
/// An error of ours ends here, so here it is logged.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::NotFound { noun: Noun::Actor, id } => {
                Self::new(Meaning::NoActorId, format!("No actor found with identifier: {id}."))
            }
            Error::NotFound { noun: Noun::NamedActor, id } => {
                Self::new(Meaning::NoActor, format!("Actor with identifier '{id}' not found."))
            }
            Error::NotFound { noun: Noun::Nonce, .. } => {
                Self::new(Meaning::NoNonce, "Nonce not found.")
            }
            Error::NotFound { noun: Noun::Execution, id } => {
                Self::new(Meaning::NoExecution, format!("No executions found with id {id}."))
            }
            Error::NotFound { noun: Noun::Worker, .. } => {
                Self::new(Meaning::NoWorker, "Worker not found.")
            }
            Error::NotFound { .. } => Self::new(Meaning::NoActor, format!("Not found: {error}.")),
            Error::Forbidden { noun, id, needed, has } => {
                let message = format!(
                    "Not authorized -- you do not have access to this {noun} ({needed} is needed)."
                );
                if *has > Level::None {
                    return Self::new(Meaning::Forbidden, message);
                }
                let noun = match noun {
                    Noun::Actor if ActorId::parse(id).is_none() => Noun::NamedActor,
                    Noun::AliasAndActor => Noun::Alias,
                    other => *other,
                };
                Self::hidden(Error::NotFound { noun, id: id.clone() }.into(), message)
            }
            Error::AliasTarget { actor, has: Level::None } => {
                let missing = Error::NotFound { noun: Noun::Actor, id: actor.clone() };
                Self::hidden(missing.into(), format!("Not authorized -- {error}."))
            }
            Error::AliasTarget { .. }
            | Error::AliasInConfig { .. }
            | Error::OwnersAccess { .. } => {
                Self::new(Meaning::Forbidden, format!("Not authorized -- {error}."))
            }
            Error::Nonce(NonceRefusal::TooLow) => Self::new(Meaning::Forbidden, error.to_string()),
            Error::Nonce(_) => Self::new(Meaning::Unauthenticated, error.to_string()),
            Error::NotByNonce => {
                Self::new(Meaning::Unauthenticated, format!("Not authorized. {error}."))
            }
            Error::AlreadyExists { .. } => {
                Self::new(Meaning::Conflict, format!("Refused: {error}."))
            }
            Error::Restricted { attribute } => Self::new(
                Meaning::Forbidden,
                format!(
                    "Not authorized -- only admins and privileged users may set {} ({attribute}).",
                    restricted(attribute)
                ),
            ),
            Error::Invalid { field, problem } => Self::of_field(field, problem),
            Error::TooLarge { what: "message", .. } => {
                Self::new(Meaning::MessageTooLarge, format!("Too large: {error}."))
            }
            Error::TooLarge { .. } => Self::new(Meaning::TooLarge, format!("Too large: {error}.")),
            Error::NoIdentity { .. } => {
                Self::new(Meaning::Forbidden, format!("Not authorized -- {error}."))
            }
            Error::Stateless { .. } => Self::new(Meaning::Stateless, "actor is stateless."),
            Error::NotHaltable { .. } => Self::new(
                Meaning::Conflict,
                format!("Cannot force quit an execution not in RUNNING status: {error}."),
            ),
            Error::AdminsOnly { .. } => Self::new(
                Meaning::Forbidden,
                format!("Not authorized -- {error}. Abaco Admin role required."),
            ),
            Error::StateChanged { .. } => Self::new(Meaning::Changed, format!("Refused: {error}.")),
            Error::Superseded { .. } => {
                Self::new(Meaning::Superseded, format!("Refused: {error}."))
            }
            Error::ShuttingDown { .. } | Error::TooMany { .. } => {
                Self::new(Meaning::Conflict, format!("Refused: {error}."))
            }
            Error::StoreUnavailable { .. } | Error::QueueUnavailable => {
                error!(error = %Chain(&error), "could not serve a request for now");
                Self::new(
                    Meaning::Unavailable,
                    "The service cannot do this at the moment; try again in a few seconds",
                )
            }
            Error::Migrate { .. }
            | Error::Sealed { .. }
            | Error::Inconsistent { .. }
            | Error::Store { .. } => {
                error!(error = %Chain(&error), "could not serve a request");
                Self::internal()
            }
            // The compiler asks for it; a new variant belongs above.
            _ => {
                error!(error = %Chain(&error), "could not serve a request: an error without a meaning here");
                Self::internal()
            }
        }
    }
}

/// What a restricted attribute is about, as Abaco's users know it.
fn restricted(attribute: &str) -> String {
    match attribute {
        "privileged" => "up privileged actors".to_owned(),
        "max_cpus" => "max CPUs".to_owned(),
        "use_container_uid" => "the use of the container uid".to_owned(),
        other => other.replace('_', " "),
    }
}

/// The answer of a handler that panicked.
pub(crate) fn of_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    error!(panic = %text, "a handler panicked: {text}");
    ApiError::internal().into_response()
}
