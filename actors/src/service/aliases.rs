//! Rules of aliases: make, point elsewhere, list, remove.

use super::{Service, actor_named, authorized_alias, authorized_config, must_be_fewer};
use crate::actor::{Actor, ActorStatus};
use crate::alias::{Alias, check_alias};
use crate::error::{Error, Noun};
use crate::permission::{Caller, Level};
use crate::store::permissions::{Kind, Object};
use crate::store::{self, Connection};

impl Service {
    /// Makes `alias` a name of an actor, on which that needs UPDATE. It is the
    /// caller's from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for the actor, [`Error::Forbidden`],
    /// [`Error::AlreadyExists`], [`Error::Invalid`] for a name that is none,
    /// [`Error::ShuttingDown`], [`Error::TooMany`].
    pub async fn create_alias(
        &self,
        caller: &Caller,
        alias: &str,
        actor: &str,
    ) -> Result<Alias, Error> {
        caller.must_be_a_user()?;
        check_alias(alias)?;
        let created = self.0.clock.now();
        let most = self.0.config.max_owned;
        let (caller, alias, actor) = (caller.clone(), alias.to_owned(), actor.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let (target, level) = target(c, &caller, &actor).await?;
                    if level < Level::Update {
                        let (noun, id) = (Noun::Actor, actor);
                        let needed = Level::Update;
                        return Err(Error::Forbidden { noun, id, needed, has: level });
                    }
                    if !caller.is_admin() {
                        let (tenant, user) = (&caller.tenant, &caller.user);
                        let count = store::aliases::count_of_owner(c, tenant, user).await?;
                        must_be_fewer("aliases", count, most)?;
                    }
                    lock_target(c, &target).await?;
                    let alias = Alias {
                        tenant: caller.tenant.clone(),
                        alias,
                        actor: target.id,
                        owner: caller.user.clone(),
                        created,
                    };
                    if !store::aliases::insert(c, &alias).await? {
                        return Err(Error::AlreadyExists { noun: Noun::Alias, id: alias.alias });
                    }
                    Ok(alias)
                })
            })
            .await
    }

    /// The aliases that the caller may see itself, and those of actors that it may
    /// see, oldest first; an admin's are all of the tenant.
    ///
    /// # Errors
    ///
    /// [`Error::NotByNonce`].
    pub async fn aliases(&self, caller: &Caller) -> Result<Vec<Alias>, Error> {
        caller.must_be_a_user()?;
        let mut c = self.0.store.read().await?;
        let user = (!caller.is_admin()).then_some(caller.user.as_str());
        store::aliases::visible_to(&mut c, &caller.tenant, user).await
    }

    /// One alias; needs READ on it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn alias(&self, caller: &Caller, alias: &str) -> Result<Alias, Error> {
        let mut c = self.0.store.read().await?;
        authorized_alias(&mut c, caller, alias, Level::Read).await
    }

    /// Points an alias at another actor; needs UPDATE on both, and on the configs
    /// that its actors get by it, which the other would get from now on. A caller
    /// that is no admin has UPDATE on the alias in its own name from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::AliasTarget`],
    /// [`Error::AliasInConfig`], [`Error::ShuttingDown`].
    pub async fn update_alias(
        &self,
        caller: &Caller,
        alias: &str,
        actor: &str,
    ) -> Result<Alias, Error> {
        let (caller, alias, actor) = (caller.clone(), alias.to_owned(), actor.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    authorized_alias(c, &caller, &alias, Level::Update).await?;
                    let (target, level) = target(c, &caller, &actor).await?;
                    if level < Level::Update {
                        return Err(Error::AliasTarget { actor, has: level });
                    }
                    lock_target(c, &target).await?;
                    let tenant = &caller.tenant;
                    let gone = || Error::NotFound { noun: Noun::Alias, id: alias.clone() };
                    // As it is now, and with all the configs that name it.
                    let locked = store::aliases::lock(c, tenant, &alias).await?;
                    let mut alias = locked.ok_or_else(gone)?;
                    if target.id != alias.actor {
                        check_configs(c, &caller, &alias.alias).await?;
                    }
                    let name = alias.alias.as_str();
                    store::aliases::point_at(c, tenant, name, &target.id).await?;
                    if caller.user != alias.owner && !caller.is_admin() {
                        let object = Object { tenant, kind: Kind::Alias, name };
                        store::permissions::set(c, object, &caller.user, Level::Update).await?;
                    }
                    alias.actor = target.id;
                    Ok(alias)
                })
            })
            .await
    }

    /// Removes an alias with its permissions and nonces; needs UPDATE on it. Configs
    /// do not go to actors by it any more.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn delete_alias(&self, caller: &Caller, alias: &str) -> Result<(), Error> {
        let (caller, alias) = (caller.clone(), alias.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let alias = authorized_alias(c, &caller, &alias, Level::Update).await?;
                    store::aliases::remove(c, &caller.tenant, &alias.alias).await
                })
            })
            .await
    }
}

/// The actor that an alias is to stand for; whatever it is called by, it is the
/// actor that is missing.
async fn target(c: &mut Connection, caller: &Caller, actor: &str) -> Result<(Actor, Level), Error> {
    actor_named(c, caller, actor).await.map_err(|error| match error {
        Error::NotFound { id, .. } => Error::NotFound { noun: Noun::Actor, id },
        other => other,
    })
}

/// Keeps the actor until this transaction ends.
async fn lock_target(c: &mut Connection, target: &Actor) -> Result<(), Error> {
    match store::actors::lock(c, &target.id).await? {
        Some(actor) if actor.status != ActorStatus::ShuttingDown => Ok(()),
        _ => Err(Error::ShuttingDown { actor: target.id.to_string() }),
    }
}

/// Who points an alias elsewhere hands the configs in which it stands to another
/// actor: it must be somebody who might have said so there.
async fn check_configs(c: &mut Connection, caller: &Caller, alias: &str) -> Result<(), Error> {
    for config in store::configs::with_item(c, &caller.tenant, alias).await? {
        match authorized_config(c, caller, &config, Level::Update).await {
            Ok(_) => {}
            Err(Error::Forbidden { .. }) => {
                return Err(Error::AliasInConfig { alias: alias.to_owned(), config });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}
