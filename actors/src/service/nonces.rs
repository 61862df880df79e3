//! Rules of nonces: make, look, remove, use.

use super::{Service, actor_named, alias_named, authorized, must_be_fewer};
use crate::error::{Error, NonceRefusal, Noun};
use crate::id::ActorId;
use crate::nonce::{NewNonce, Nonce, NonceId, NonceOf, NoncePlace};
use crate::permission::{Caller, Level, Role, Scope};
use crate::store::{self, Connection};

/// No nonce of ours is longer.
const LONGEST: usize = 300;

impl Service {
    /// Makes a nonce; needs UPDATE on the actor, and on the alias if it is for one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`],
    /// [`Error::TooMany`].
    pub async fn create_nonce(
        &self,
        caller: &Caller,
        of: &NonceOf,
        new: NewNonce,
    ) -> Result<Nonce, Error> {
        let id = NonceId::generate(&caller.tenant);
        let created = self.0.clock.now();
        let most = self.0.config.max_owned;
        let (caller, of) = (caller.clone(), of.clone());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let (place, actor) = place(c, &caller, &of, Level::Update).await?;
                    new.validate(matches!(place, NoncePlace::Alias(_)))?;
                    if store::actors::lock(c, &actor).await?.is_none() {
                        return Err(Error::NotFound { noun: Noun::Actor, id: actor.to_string() });
                    }
                    let count = store::nonces::count(c, &caller.tenant, &place).await?;
                    must_be_fewer("nonces", count, most)?;
                    let uses = u64::try_from(new.max_uses).ok();
                    let nonce = Nonce {
                        id,
                        tenant: caller.tenant.clone(),
                        place,
                        owner: caller.user.clone(),
                        roles: vec![caller.role.as_str().to_owned()],
                        level: new.level,
                        description: new.description,
                        max_uses: uses,
                        current_uses: 0,
                        remaining_uses: uses,
                        created,
                        last_used: None,
                    };
                    store::nonces::insert(c, &nonce).await?;
                    Ok(nonce)
                })
            })
            .await
    }

    /// The nonces of an actor or alias, oldest first; needs READ as
    /// [`Service::create_nonce`] needs UPDATE. Those that are good for more than the
    /// caller is let do are not shown, since who has them can use them; and those of
    /// others only to who may remove them, since they hold when the caller's own right
    /// is taken away.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn nonces(&self, caller: &Caller, of: &NonceOf) -> Result<Vec<Nonce>, Error> {
        let mut c = self.0.store.read().await?;
        let (place, level) = readable(&mut c, caller, of).await?;
        let all = store::nonces::of_place(&mut c, &caller.tenant, &place).await?;
        Ok(all.into_iter().filter(|nonce| may_have(caller, level, nonce)).collect())
    }

    /// One nonce; needs READ as [`Service::nonces`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn nonce(&self, caller: &Caller, of: &NonceOf, id: &str) -> Result<Nonce, Error> {
        let mut c = self.0.store.read().await?;
        let (place, level) = readable(&mut c, caller, of).await?;
        let nonce = find(&mut c, caller, &place, id).await?;
        let missing = || Error::NotFound { noun: Noun::Nonce, id: id.to_owned() };
        if may_have(caller, level, &nonce) { Ok(nonce) } else { Err(missing()) }
    }

    /// Removes a nonce, which is good for nothing from now on; needs UPDATE as
    /// [`Service::create_nonce`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn delete_nonce(&self, caller: &Caller, of: &NonceOf, id: &str) -> Result<(), Error> {
        let (caller, of, id) = (caller.clone(), of.clone(), id.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let (place, _) = place(c, &caller, &of, Level::Update).await?;
                    let nonce = find(c, &caller, &place, &id).await?;
                    store::nonces::remove(c, &nonce.id).await
                })
            })
            .await
    }

    /// Who is calling by the nonce `id`, for something that needs `needed` on what
    /// the URL names. That counts as a use, whatever becomes of the call; one that
    /// needs more than the nonce is good for does not.
    ///
    /// # Errors
    ///
    /// [`Error::Nonce`].
    pub async fn redeem_nonce(
        &self,
        id: &str,
        of: &NonceOf,
        needed: Level,
    ) -> Result<Caller, Error> {
        if id.len() > LONGEST || id.contains('\0') {
            return Err(NonceRefusal::Unknown.into());
        }
        let now = self.0.clock.now();
        // Whoever guesses has no place among those that write.
        let known = {
            let mut c = self.0.store.read().await?;
            store::nonces::find(&mut c, id).await?.filter(|nonce| nonce.place.is(of))
        };
        let known = known.ok_or(NonceRefusal::Unknown)?;
        if known.level < needed {
            return Err(NonceRefusal::TooLow.into());
        }
        if known.remaining_uses == Some(0) {
            return Err(NonceRefusal::UsedUp.into());
        }
        let (id, of) = (id.to_owned(), of.clone());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let nonce = store::nonces::find(c, &id).await?.filter(|n| n.place.is(&of));
                    let nonce = nonce.ok_or(NonceRefusal::Unknown)?;
                    if nonce.level < needed {
                        return Err(NonceRefusal::TooLow.into());
                    }
                    let (actor, alias) = match nonce.place {
                        NoncePlace::Actor(actor) => (actor, None),
                        NoncePlace::Alias(alias) => {
                            let found = store::aliases::find(c, &nonce.tenant, &alias).await?;
                            (found.ok_or(NonceRefusal::Unknown)?.actor, Some(alias))
                        }
                    };
                    if !store::nonces::use_up(c, &nonce.id, now).await? {
                        return Err(NonceRefusal::UsedUp.into());
                    }
                    let role = Role::highest_of(&nonce.roles);
                    let scope = Scope { actor, alias, level: nonce.level };
                    let caller = Caller::new(nonce.tenant, nonce.owner, role);
                    Ok(Caller { scope: Some(scope), ..caller })
                })
            })
            .await
    }
}

/// Whether a nonce may be shown to a caller that has `level` where it is for; one that
/// is good for nothing may.
fn may_have(caller: &Caller, level: Level, nonce: &Nonce) -> bool {
    let may_use = level == Level::Update || nonce.owner == caller.user;
    nonce.level == Level::None || nonce.level <= level && may_use
}

/// What nonces are kept under, and the actor that it is or stands for, if the
/// caller has `needed` on it: on both, where it is an alias.
async fn place(
    c: &mut Connection,
    caller: &Caller,
    of: &NonceOf,
    needed: Level,
) -> Result<(NoncePlace, ActorId), Error> {
    match of {
        NonceOf::Actor(actor) => {
            let actor = authorized(c, caller, actor, needed).await?;
            Ok((NoncePlace::Actor(actor.id.clone()), actor.id))
        }
        NonceOf::Alias(alias) => {
            let (alias, on_alias) = alias_named(c, caller, alias).await?;
            let (actor, on_actor) = actor_named(c, caller, alias.actor.as_str()).await?;
            if on_alias.min(on_actor) < needed {
                let (noun, id) = (Noun::AliasAndActor, alias.alias);
                // Who may know of the alias, and not of its actor, hears that it may not.
                return Err(Error::Forbidden { noun, id, needed, has: on_alias });
            }
            Ok((NoncePlace::Alias(alias.alias), actor.id))
        }
    }
}

/// What nonces are kept under, if the caller has READ on it, and what it has.
async fn readable(
    c: &mut Connection,
    caller: &Caller,
    of: &NonceOf,
) -> Result<(NoncePlace, Level), Error> {
    let (place, actor) = place(c, caller, of, Level::Read).await?;
    let (_, mut level) = actor_named(c, caller, actor.as_str()).await?;
    if let NoncePlace::Alias(alias) = &place {
        level = level.min(alias_named(c, caller, alias).await?.1);
    }
    Ok((place, level))
}

async fn find(
    c: &mut Connection,
    caller: &Caller,
    place: &NoncePlace,
    id: &str,
) -> Result<Nonce, Error> {
    let missing = || Error::NotFound { noun: Noun::Nonce, id: id.to_owned() };
    if id.len() > LONGEST || id.contains('\0') {
        return Err(missing());
    }
    let nonce = store::nonces::find(c, id).await?;
    nonce.filter(|n| n.place == *place && n.tenant == caller.tenant).ok_or_else(missing)
}
