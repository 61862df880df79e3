//! Who may do what to an actor.
//!
//! Now: the owner and admins of the same tenant may do everything, others
//! nothing. Levels are those of Abaco, so that sharing comes by adding rows.

use std::fmt;

use crate::actor::Actor;
use crate::service::ClaimKey;

/// A name space of users and actors; nothing crosses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    /// `ABAX`.
    fn default() -> Self {
        Self::new("ABAX")
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller is beside being a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Ordinary use.
    User,
    /// May set the restricted attributes of its own actors.
    Privileged,
    /// Passes every permission check of its tenant.
    Admin,
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant in which it acts.
    pub tenant: Tenant,
    /// Its user name.
    pub user: String,
    /// What it is beside being a user.
    pub role: Role,
    /// The claim that acts for the user, where it is an execution of an actor:
    /// what it sets as its actor's state counts with its end.
    pub claim: Option<ClaimKey>,
}

impl Caller {
    /// The user `user` of `tenant` with `role`.
    #[must_use]
    pub fn new(tenant: Tenant, user: impl Into<String>, role: Role) -> Self {
        Self { tenant, user: user.into(), role, claim: None }
    }

    /// The same user, by an execution that runs under `claim`.
    #[must_use]
    pub fn by(self, claim: ClaimKey) -> Self {
        Self { claim: Some(claim), ..self }
    }

    pub(crate) fn may_set_restricted(&self) -> bool {
        self.role >= Role::Privileged
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

/// How much of an actor somebody may use; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// See it, its executions, logs and state.
    Read,
    /// Send it messages.
    Execute,
    /// Change, halt, delete.
    Update,
}

impl Level {
    /// The level that `caller` has on `actor`, which is of the same tenant.
    pub(crate) fn of(caller: &Caller, actor: &Actor) -> Self {
        if caller.is_admin() || caller.user == actor.owner { Self::Update } else { Self::None }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Read => "READ",
            Self::Execute => "EXECUTE",
            Self::Update => "UPDATE",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_includes_those_before_it() {
        assert!(Level::None < Level::Read);
        assert!(Level::Read < Level::Execute);
        assert!(Level::Execute < Level::Update);
    }
}
