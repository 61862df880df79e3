//! Nonces: secrets in a URL by which anybody may use an actor as its owner may,
//! up to a level and for a number of times.

use std::fmt;

use crate::clock::Time;
use crate::error::Error;
use crate::id::{self, ActorId};
use crate::permission::{Level, Tenant};

/// What a nonce is known by, which is all that it takes to use it: `Debug` does
/// not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceId(String);

impl NonceId {
    /// A fresh one; twice as long as other ids, since nobody may guess it.
    pub(crate) fn generate(tenant: &Tenant) -> Self {
        let [first, second] = [id::random_text(), id::random_text()];
        Self(format!("{tenant}_{first}{second}"))
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text of it, for whoever may have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NonceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nonce {
    /// The secret.
    pub id: NonceId,
    /// The tenant in which whoever uses it acts.
    pub tenant: Tenant,
    /// In the URL of what it counts.
    pub place: NoncePlace,
    /// Who made it, and acts through it.
    pub owner: String,
    /// What its owner was beside being a user when it was made.
    pub roles: Vec<String>,
    /// The most that it is good for.
    pub level: Level,
    /// A free text.
    pub description: String,
    /// How often it may be used; `None` for without end.
    pub max_uses: Option<u64>,
    /// How often it was used.
    pub current_uses: u64,
    /// How often it may still be used; `None` for without end.
    pub remaining_uses: Option<u64>,
    /// When it was made.
    pub created: Time,
    /// When it was used last.
    pub last_used: Option<Time>,
}

/// What a nonce stands in the URL of: the one or the other, though an alias
/// stands for an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoncePlace {
    /// An actor, by its id.
    Actor(ActorId),
    /// An alias.
    Alias(String),
}

impl NoncePlace {
    /// Whether it is what a URL names. An alias in the place of an actor is that
    /// alias, not its actor.
    pub(crate) fn is(&self, of: &NonceOf) -> bool {
        match (self, of) {
            (Self::Actor(actor), NonceOf::Actor(text)) => actor.as_str() == text,
            (Self::Actor(_), NonceOf::Alias(_)) => false,
            (Self::Alias(alias), NonceOf::Actor(text) | NonceOf::Alias(text)) => alias == text,
        }
    }
}

/// What a URL names that has nonces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NonceOf {
    /// An actor, by its id or by an alias.
    Actor(String),
    /// An alias itself.
    Alias(String),
}

/// What makes a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNonce {
    /// See [`Nonce::level`]; EXECUTE. Less than UPDATE for one of an alias.
    pub level: Level,
    /// At least 1, or -1 for without end, as it is when nothing is said.
    pub max_uses: i64,
    /// See [`Nonce::description`].
    pub description: String,
}

impl Default for NewNonce {
    fn default() -> Self {
        Self { level: Level::Execute, max_uses: -1, description: String::new() }
    }
}

const LONGEST_DESCRIPTION: usize = 10_000;

impl NewNonce {
    /// Checks everything, for a nonce of an alias or else of an actor.
    pub(crate) fn validate(&self, of_alias: bool) -> Result<(), Error> {
        if of_alias && self.level == Level::Update {
            let problem = "a nonce of an alias is for NONE, READ or EXECUTE";
            return Err(Error::invalid("level", problem));
        }
        if self.max_uses < 1 && self.max_uses != -1 {
            return Err(Error::invalid("max_uses", "must be at least 1, or -1 for without end"));
        }
        if self.description.len() > LONGEST_DESCRIPTION {
            let problem = format!("longer than {LONGEST_DESCRIPTION} bytes");
            return Err(Error::invalid("description", problem));
        }
        if self.description.contains('\0') {
            return Err(Error::invalid("description", "holds a NUL character"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_long_begin_with_their_tenant_and_are_not_shown() {
        let id = NonceId::generate(&Tenant::new("A_B"));
        let (tenant, secret) = id.as_str().rsplit_once('_').unwrap();
        assert_eq!(tenant, "A_B");
        assert!(
            secret.len() >= 20 && secret.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{secret}"
        );
        assert_eq!(format!("{id:?}"), "[redacted]");
    }

    #[test]
    fn uses_and_levels_have_bounds() {
        let new = |level, max_uses| NewNonce { level, max_uses, ..NewNonce::default() };
        for (nonce, of_alias, field) in [
            (NewNonce::default(), true, None),
            (new(Level::Update, 1), false, None),
            (new(Level::Update, 1), true, Some("level")),
            (new(Level::None, i64::MAX), true, None),
            (new(Level::Read, 0), false, Some("max_uses")),
            (new(Level::Read, -2), false, Some("max_uses")),
        ] {
            let found = match nonce.validate(of_alias) {
                Ok(()) => None,
                Err(Error::Invalid { field, .. }) => Some(field),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found.as_deref(), field, "{nonce:?}");
        }
    }
}
