//! Rules of permissions: who may see and change who may do what.

use super::{Service, authorized, authorized_alias, authorized_config};
use crate::error::{Error, Noun};
use crate::permission::{Caller, Level, Permission, Shareable};
use crate::store::permissions::{Kind, Object};
use crate::store::{self, Connection};

/// Entries that one object may have.
const MOST_ENTRIES: usize = 1_000;
const LONGEST_USER: usize = 256;

impl Service {
    /// Who may do what with something, in the order in which it was said; needs
    /// READ on it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn permissions(
        &self,
        caller: &Caller,
        of: &Shareable,
    ) -> Result<Vec<Permission>, Error> {
        let mut c = self.0.store.read().await?;
        let (kind, name) = object(&mut c, caller, of, Level::Read).await?;
        let object = Object { tenant: &caller.tenant, kind, name: &name };
        store::permissions::all(&mut c, object).await
    }

    /// Lets `user` do no more and no less than `level` with something, whatever it
    /// might do before; needs UPDATE on it. Returns all permissions of it.
    ///
    /// The user `ABACO_WORLD` is everybody: each has what it has, or more.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`], and
    /// [`Error::OwnersAccess`] where others take from the owner.
    pub async fn set_permission(
        &self,
        caller: &Caller,
        of: &Shareable,
        user: &str,
        level: Level,
    ) -> Result<Vec<Permission>, Error> {
        let (caller, of, user) = (caller.clone(), of.clone(), user.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let (kind, name) = object(c, &caller, &of, Level::Update).await?;
                    check_user(&user)?;
                    let object = Object { tenant: &caller.tenant, kind, name: &name };
                    let owner = lock(c, object).await?.ok_or_else(|| missing(kind, &name))?;
                    let is_owners = caller.is_admin() || caller.user == owner;
                    if user == owner && level < Level::Update && !is_owners {
                        return Err(Error::OwnersAccess { user });
                    }
                    let known = store::permissions::all(c, object).await?;
                    if known.len() >= MOST_ENTRIES && known.iter().all(|entry| entry.user != user) {
                        return Err(Error::invalid(
                            "user",
                            format!("there are permissions for {MOST_ENTRIES} users already"),
                        ));
                    }
                    store::permissions::set(c, object, &user, level).await?;
                    store::permissions::all(c, object).await
                })
            })
            .await
    }
}

/// What entries are kept under, if the caller has `needed` on it.
async fn object(
    c: &mut Connection,
    caller: &Caller,
    of: &Shareable,
    needed: Level,
) -> Result<(Kind, String), Error> {
    Ok(match of {
        Shareable::Actor(actor) => {
            let actor = authorized(c, caller, actor, needed).await?;
            (Kind::Actor, actor.id.to_string())
        }
        Shareable::Alias(alias) => {
            (Kind::Alias, authorized_alias(c, caller, alias, needed).await?.alias)
        }
        Shareable::Config(name) => {
            (Kind::Config, authorized_config(c, caller, name, needed).await?.config.name)
        }
    })
}

/// Keeps an object until this transaction ends, so that no entry outlives it, and says
/// whose it is; none where it is gone.
async fn lock(c: &mut Connection, object: Object<'_>) -> Result<Option<String>, Error> {
    let Object { tenant, kind, name } = object;
    Ok(match kind {
        Kind::Actor => match crate::id::ActorId::parse(name) {
            Some(id) => store::actors::lock(c, &id).await?.map(|actor| actor.owner),
            None => None,
        },
        Kind::Alias => store::aliases::lock(c, tenant, name).await?.map(|alias| alias.owner),
        Kind::Config => {
            store::configs::lock(c, tenant, name).await?.map(|stored| stored.config.owner)
        }
    })
}

fn missing(kind: Kind, name: &str) -> Error {
    let noun = match kind {
        Kind::Actor => Noun::Actor,
        Kind::Alias => Noun::Alias,
        Kind::Config => Noun::Config,
    };
    Error::NotFound { noun, id: name.to_owned() }
}

fn check_user(user: &str) -> Result<(), Error> {
    if user.trim().is_empty() {
        return Err(Error::invalid("user", "must name a user, or be ABACO_WORLD for everybody"));
    }
    if user.len() > LONGEST_USER || user.chars().any(char::is_control) {
        return Err(Error::invalid("user", format!("is no name of at most {LONGEST_USER} bytes")));
    }
    Ok(())
}
