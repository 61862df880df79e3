//! Errors by what they mean to the caller.

use std::fmt;
use std::sync::Arc;

/// The kinds of things that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Noun {
    /// An actor, by an id.
    Actor,
    /// An actor, by what is no id, so by an alias.
    NamedActor,
    /// An alias.
    Alias,
    /// An alias and its actor, where both are needed.
    AliasAndActor,
    /// A nonce.
    Nonce,
    /// A config.
    Config,
    /// An execution.
    Execution,
    /// A host.
    Host,
    /// A worker of an actor.
    Worker,
    /// A result of an execution, by its number.
    Result,
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actor | Self::NamedActor => "actor",
            Self::Alias => "alias",
            Self::AliasAndActor => "alias and actor",
            Self::Nonce => "nonce",
            Self::Config => "config",
            Self::Execution => "execution",
            Self::Host => "host",
            Self::Worker => "worker",
            Self::Result => "result",
        })
    }
}

/// Why a nonce does not hold, in the words that Abaco's clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NonceRefusal {
    /// There is none, or it is for another actor or alias.
    #[error("Nonce does not exist.")]
    Unknown,
    /// It is for less than this.
    #[error("Nonce does not have sufficient permissions level.")]
    TooLow,
    /// It was used as often as it may be.
    #[error("No remaining uses left for this nonce.")]
    UsedUp,
}

/// Why the service did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none, or it is not the caller's to know of (another tenant's).
    #[error("no {noun} {id}")]
    NotFound {
        /// What was looked for.
        noun: Noun,
        /// The id or alias that was given.
        id: String,
    },
    /// The caller may not do this; whether it may know of the thing, `has` tells.
    #[error("you do not have {needed} access to {noun} {id}")]
    Forbidden {
        /// What it is.
        noun: Noun,
        /// Which one.
        id: String,
        /// The access that is missing: `READ`, `EXECUTE` or `UPDATE`.
        needed: crate::Level,
        /// What the caller has; with `NONE`, it is not the caller's to know that there
        /// is such a thing.
        has: crate::Level,
    },
    /// Who points an alias at an actor needs UPDATE on that one too.
    #[error("you do not have UPDATE access to the actor you want to associate with this alias")]
    AliasTarget {
        /// The actor as it was given.
        actor: String,
        /// What the caller has; with `NONE`, it is not the caller's to know of it.
        has: crate::Level,
    },
    /// What the owner may do, nobody else takes away.
    #[error("{user} is the owner, whose access only the owner or an admin may lower")]
    OwnersAccess {
        /// The owner.
        user: String,
    },
    /// The alias stands in a config of somebody else, who did not mean another actor.
    #[error("alias {alias} stands in config {config}, which you may not change")]
    AliasInConfig {
        /// Which alias.
        alias: String,
        /// Which config.
        config: String,
    },
    /// The nonce does not let anybody do this.
    #[error("{0}")]
    Nonce(#[from] NonceRefusal),
    /// Nonces are for one actor, and this is for none in particular.
    #[error("nonces work below their actor or alias only")]
    NotByNonce,
    /// There is one of this name already.
    #[error("{noun} {id} already exists")]
    AlreadyExists {
        /// What it is.
        noun: Noun,
        /// Its name.
        id: String,
    },
    /// Somebody has as many of a thing as one may have.
    #[error(
        "there are {most} {what} already, which is as many as one may have: remove some, or ask \
         the operator for more"
    )]
    TooMany {
        /// What there is so much of.
        what: &'static str,
        /// As many as there may be.
        most: u64,
    },
    /// An attribute that this caller may not set.
    #[error("only admins and privileged users may set {attribute}")]
    Restricted {
        /// The attribute, in snake case.
        attribute: &'static str,
    },
    /// Something that only admins may do.
    #[error("only admins are authorized to {what}")]
    AdminsOnly {
        /// What it is.
        what: &'static str,
    },
    /// The state was changed since it was read, by the version that came with it.
    #[error("the state of actor {actor} was changed meanwhile; read it, and try again")]
    StateChanged {
        /// Which actor.
        actor: String,
    },
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, in snake case; a message's body is `message`.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// More bytes than are taken.
    #[error("{what} has {actual_bytes} bytes; at most {limit_bytes} are accepted")]
    TooLarge {
        /// What is too large: `message`, `state` or `environment`.
        what: &'static str,
        /// The most that is accepted.
        limit_bytes: usize,
        /// What it has.
        actual_bytes: usize,
    },
    /// A stateless actor has no state to set.
    #[error("actor {actor} is stateless")]
    Stateless {
        /// Which actor.
        actor: String,
    },
    /// What asks is an execution whose claim does not hold any more: it ended, or
    /// another attempt has taken its place.
    #[error("execution {execution} is not run by this attempt any more")]
    Superseded {
        /// Which execution.
        execution: String,
    },
    /// The actor runs as whoever sends it something, and this user is nobody there.
    #[error("the actor runs as its senders, and the operator's list of users does not have {user}")]
    NoIdentity {
        /// Who sent it.
        user: String,
    },
    /// The execution ended already, so there is nothing to halt.
    #[error("execution {execution} is {status} and cannot be halted")]
    NotHaltable {
        /// Which execution.
        execution: String,
        /// Where it stands.
        status: crate::ExecutionStatus,
    },
    /// The actor is being deleted and takes nothing any more.
    #[error("actor {actor} is being deleted")]
    ShuttingDown {
        /// Which actor.
        actor: String,
    },
    /// The database does not take or give rows now: locked, full, gone.
    /// The same call may succeed later.
    #[error("the database is not available to {doing}")]
    StoreUnavailable {
        /// What was attempted.
        doing: &'static str,
        /// What the database said.
        source: Arc<sqlx::Error>,
    },
    /// The queue does not take or give messages now.
    #[error("the queue is not available")]
    QueueUnavailable,
    /// The schema could not be brought up to date.
    #[error("could not migrate the database")]
    Migrate {
        /// Which step failed, and how.
        source: sqlx::migrate::MigrateError,
    },
    /// The schema lacks what this program needs.
    #[error(
        "the database's schema is at step {}, and this program needs step {needed}: \
         run `abax migrate`",
        found.unwrap_or(0)
    )]
    NotMigrated {
        /// The last step that was taken, if any was.
        found: Option<i64>,
        /// The step that is needed.
        needed: i64,
    },
    /// A secret cannot be opened with the keys of this process.
    #[error("could not open the secret of config {config}")]
    Sealed {
        /// Which config.
        config: String,
        /// What is wrong.
        source: crate::secret::OpenError,
    },
    /// A row does not hold what we wrote.
    #[error("{table}.{column} of {row} holds what cannot be read")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// The row's id.
        row: String,
    },
    /// The database refused a statement of ours: a bug.
    #[error("could not {doing}")]
    Store {
        /// What was attempted.
        doing: &'static str,
        /// What the database said.
        source: Arc<sqlx::Error>,
    },
}

impl Error {
    /// True where the same call may succeed later with nothing changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::StoreUnavailable { .. } | Self::QueueUnavailable)
    }

    /// What the database said, where it is the database that failed.
    pub(crate) fn of_database(&self) -> Option<&Arc<sqlx::Error>> {
        match self {
            Self::StoreUnavailable { source, .. } | Self::Store { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }
}

/// An error and its sources on one line: `error = %Chain(&error)` in a log.
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
