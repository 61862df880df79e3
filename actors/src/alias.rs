//! Aliases: names for actors, which may be pointed at another one.

use crate::clock::Time;
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::Tenant;

/// A name for an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alias {
    /// The tenant within which it means something.
    pub tenant: Tenant,
    /// The name.
    pub alias: String,
    /// The actor that it stands for.
    pub actor: ActorId,
    /// Who made it; never changes.
    pub owner: String,
    /// When it was made.
    pub created: Time,
}

/// Words that stand in a URL where a name would.
const RESERVED: [&str; 13] = [
    "executions",
    "nonces",
    "logs",
    "messages",
    "adapters",
    "admin",
    "aliases",
    "configs",
    "search",
    "utilization",
    // The prefix of Abaco's second version.
    "v2",
    // What URLs are rid of on their way.
    ".",
    "..",
];
/// What would not come through a URL or a list unharmed.
const FORBIDDEN: &str = " :/?#[]@!$&'()*+,;=%";
const LONGEST: usize = 1_000;

/// Checks the name of a new alias.
pub(crate) fn check_alias(name: &str) -> Result<(), Error> {
    check_name("alias", name)?;
    if let Some(found) = name.chars().find(|c| ['\\', '"'].contains(c)) {
        return Err(Error::invalid("alias", format!("must not have the character {found:?}")));
    }
    if ActorId::parse(name).is_some() {
        return Err(Error::invalid("alias", "looks like the id of an actor; choose another name"));
    }
    Ok(())
}

/// Checks a name that is to stand in URLs.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    if name.len() > LONGEST {
        return Err(Error::invalid(field, format!("longer than {LONGEST} bytes")));
    }
    if RESERVED.contains(&name) {
        return Err(Error::invalid(field, format!("{name:?} is a reserved word")));
    }
    let forbidden = |c: char| FORBIDDEN.contains(c) || c.is_whitespace() || c.is_control();
    if let Some(found) = name.chars().find(|c| forbidden(*c)) {
        return Err(Error::invalid(field, format!("must not have the character {found:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_through_urls_unharmed() {
        for name in ["jane", "jane.doe", "my-alias_2", "myadmin", "aliases2", "ä", "{x}", "v3"] {
            assert!(check_alias(name).is_ok(), "{name}");
        }
        let id = ActorId::generate().to_string();
        for name in [
            "",
            "a b",
            "a\tb",
            "a\u{a0}b",
            "a/b",
            "a:b",
            "a,b",
            "a=b",
            "a%41",
            "a\\b",
            "a\"b",
            "a\0b",
            "admin",
            "aliases",
            "configs",
            "search",
            "utilization",
            "messages",
            "v2",
            ".",
            "..",
            &id,
        ] {
            match check_alias(name) {
                Err(Error::Invalid { field, .. }) => assert_eq!(field, "alias", "{name}"),
                other => panic!("{name:?}: {other:?}"),
            }
        }
        assert!(check_alias(&"x".repeat(1_001)).is_err());
        // Configs may have two more.
        assert!(check_name("name", "a\\\"b").is_ok());
    }
}
