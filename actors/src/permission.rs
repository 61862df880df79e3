//! Who may do what to an actor, an alias or a config.
//!
//! Each has entries, a level for a user. What a caller has is the higher one of
//! its own entry and of that for everybody; admins have all of their tenant's. The
//! three are apart: an alias gives nobody a right on its actor.
//!
//! A caller that came by a nonce has what the nonce's owner has, but on that one
//! actor or alias only, and no more than the nonce's level.

use std::fmt;

use crate::error::Error;
use crate::id::ActorId;
use crate::service::ClaimKey;

/// The user name of the entry that counts for everybody of the tenant.
pub(crate) const EVERYBODY: &str = "ABACO_WORLD";

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

impl Role {
    /// Its name on nonces.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Privileged => "privileged",
            Self::Admin => "admin",
        }
    }

    /// The role of somebody who has these names of roles.
    pub(crate) fn highest_of(names: &[String]) -> Self {
        let role = |name: &String| {
            [Self::Privileged, Self::Admin].into_iter().find(|role| role.as_str() == name)
        };
        names.iter().filter_map(role).max().unwrap_or(Self::User)
    }
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
    /// What a nonce lets it do, where it came by one.
    pub(crate) scope: Option<Scope>,
}

/// What a nonce is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) actor: ActorId,
    /// The alias that it was made for, if it was made for one.
    pub(crate) alias: Option<String>,
    pub(crate) level: Level,
}

impl Caller {
    /// The user `user` of `tenant` with `role`.
    #[must_use]
    pub fn new(tenant: Tenant, user: impl Into<String>, role: Role) -> Self {
        Self { tenant, user: user.into(), role, claim: None, scope: None }
    }

    /// The same user, by an execution that runs under `claim`.
    #[must_use]
    pub fn by(self, claim: ClaimKey) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// The level on an actor of its tenant whose entries give it `entries`.
    pub(crate) fn level_on_actor(&self, actor: &ActorId, entries: Level) -> Level {
        self.within(entries, |scope| scope.actor == *actor)
    }

    /// The level on an alias of its tenant whose entries give it `entries`.
    pub(crate) fn level_on_alias(&self, alias: &str, entries: Level) -> Level {
        self.within(entries, |scope| scope.alias.as_deref() == Some(alias))
    }

    /// The level on a config of its tenant whose entries give it `entries`.
    pub(crate) fn level_on_config(&self, entries: Level) -> Level {
        self.within(entries, |_| false)
    }

    fn within(&self, entries: Level, covers: impl FnOnce(&Scope) -> bool) -> Level {
        let level = if self.is_admin() { Level::Update } else { entries };
        match &self.scope {
            None => level,
            Some(scope) if covers(scope) => level.min(scope.level),
            Some(_) => Level::None,
        }
    }

    /// Fails for a nonce: it is for one actor, and this is for no actor in particular.
    pub(crate) fn must_be_a_user(&self) -> Result<(), Error> {
        if self.scope.is_some() { Err(Error::NotByNonce) } else { Ok(()) }
    }

    /// Whoever has a nonce is nobody in particular, whatever its maker may do.
    pub(crate) fn may_set_restricted(&self) -> bool {
        self.role >= Role::Privileged && self.scope.is_none()
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
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Read, Self::Execute, Self::Update];

    /// The word in rows, requests and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Read => "READ",
            Self::Execute => "EXECUTE",
            Self::Update => "UPDATE",
        }
    }

    /// The level that `word` names.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], which lists the words that there are.
    pub fn parse(word: &str) -> Result<Self, Error> {
        Self::of_word(word)
            .ok_or_else(|| Error::invalid("level", "must be one of NONE, READ, EXECUTE and UPDATE"))
    }

    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that others may be let use, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shareable {
    /// An actor, by its id or by an alias.
    Actor(String),
    /// An alias.
    Alias(String),
    /// A config.
    Config(String),
}

/// What somebody may do with something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Who; `ABACO_WORLD` is everybody.
    pub user: String,
    /// What.
    pub level: Level,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_includes_those_before_it() {
        assert!(Level::None < Level::Read);
        assert!(Level::Read < Level::Execute);
        assert!(Level::Execute < Level::Update);
        for level in Level::ALL {
            assert_eq!(Level::of_word(level.as_str()), Some(level));
        }
        assert!(Level::parse("WRITE").unwrap_err().to_string().contains("EXECUTE"));
    }

    #[test]
    fn a_nonce_gives_at_most_its_level_and_on_nothing_else() {
        let (actor, other) = (ActorId::generate(), ActorId::generate());
        let scope = |alias: Option<&str>| Scope {
            actor: actor.clone(),
            alias: alias.map(str::to_owned),
            level: Level::Execute,
        };
        for role in [Role::User, Role::Privileged, Role::Admin] {
            let mut caller = Caller::new(Tenant::default(), "u", role);
            caller.scope = Some(scope(None));
            assert_eq!(caller.level_on_actor(&actor, Level::Update), Level::Execute);
            assert_eq!(caller.level_on_actor(&other, Level::Update), Level::None);
            assert_eq!(caller.level_on_alias("a", Level::Update), Level::None);
            assert_eq!(caller.level_on_config(Level::Update), Level::None);
            assert!(caller.must_be_a_user().is_err());
            caller.scope = Some(scope(Some("a")));
            assert_eq!(caller.level_on_alias("a", Level::Update), Level::Execute);
            assert_eq!(caller.level_on_alias("b", Level::Update), Level::None);
        }
        let mut caller = Caller::new(Tenant::default(), "u", Role::User);
        caller.scope = Some(scope(None));
        assert_eq!(caller.level_on_actor(&actor, Level::Read), Level::Read, "the owner's right");
    }

    #[test]
    fn roles_are_known_by_their_names() {
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        for role in [Role::User, Role::Privileged, Role::Admin] {
            assert_eq!(Role::highest_of(&names(&[role.as_str(), "user", "else"])), role);
        }
        assert_eq!(Role::highest_of(&[]), Role::User);
    }
}
