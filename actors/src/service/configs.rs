//! Rules of configs: make, change, list, remove; and what an execution gets.

use tracing::{debug, warn};

use super::{Service, actor_named, alias_named, authorized_config, must_be_fewer};
use crate::actor::Actor;
use crate::actor_config::{
    ActorConfig, ActorConfigUpdate, NewActorConfig, as_python, check_config_name, check_value,
    items,
};
use crate::error::{Chain, Error, Noun};
use crate::id::ActorId;
use crate::message::check_variable;
use crate::permission::{Caller, Level};
use crate::search::Hits;
use crate::secret::{OpenError, Place, SecretKeys};
use crate::store::configs::Stored;
use crate::store::{self, Connection};

/// What one environment variable holds with its name.
const LARGEST_VARIABLE: usize = 130_000;
/// Secrets that are sealed anew in one go.
const SEALED_AT_ONCE: i64 = 100;

impl Service {
    /// Makes a config, which is the caller's from now on. That needs UPDATE on each
    /// of its actors, and on the alias where one is named by an alias, unless
    /// [`crate::Config::configs_for_any_actor`] says otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for an actor, [`Error::Forbidden`],
    /// [`Error::AlreadyExists`], [`Error::Invalid`], [`Error::TooLarge`],
    /// [`Error::TooMany`].
    pub async fn create_actor_config(
        &self,
        caller: &Caller,
        new: NewActorConfig,
    ) -> Result<ActorConfig, Error> {
        caller.must_be_a_user()?;
        check_config_name(&new.name)?;
        check_value(&new.value)?;
        let items = items(&new.actors)?;
        let keys = self.keys_if(new.is_secret)?;
        let any_actor = self.0.config.configs_for_any_actor;
        let most = self.0.config.max_owned;
        let now = self.0.clock.now();
        let caller = caller.clone();
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    check_items(c, &caller, &items, any_actor).await?;
                    if !caller.is_admin() {
                        let (tenant, user) = (&caller.tenant, &caller.user);
                        let count = store::configs::count_of_owner(c, tenant, user).await?;
                        must_be_fewer("configs", count, most)?;
                    }
                    let config = ActorConfig {
                        tenant: caller.tenant.clone(),
                        name: new.name,
                        owner: caller.user.clone(),
                        value: None,
                        actors: new.actors,
                        created: now,
                        updated: now,
                    };
                    let stored = with_value(config, new.value, keys.as_ref())?;
                    let config = &stored.config;
                    if !store::configs::insert(c, &stored).await? {
                        let (noun, id) = (Noun::Config, config.name.clone());
                        return Err(Error::AlreadyExists { noun, id });
                    }
                    store::configs::set_items(c, &config.tenant, &config.name, &items).await?;
                    Ok(stored.config)
                })
            })
            .await
    }

    /// The configs that the caller may see, oldest first; an admin's are all of the
    /// tenant. Of more than fit an answer, the caller's own come before those of others.
    ///
    /// # Errors
    ///
    /// [`Error::NotByNonce`].
    pub async fn actor_configs(&self, caller: &Caller) -> Result<Hits<ActorConfig>, Error> {
        caller.must_be_a_user()?;
        let mut c = self.0.store.read().await?;
        let (total, seen) =
            store::configs::visible_to(&mut c, &caller.tenant, &caller.user, caller.is_admin())
                .await?;
        Ok(Hits::new(total, seen.into_iter().map(|stored| stored.config).collect()))
    }

    /// One config; needs READ on it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn actor_config(&self, caller: &Caller, name: &str) -> Result<ActorConfig, Error> {
        let mut c = self.0.store.read().await?;
        Ok(authorized_config(&mut c, caller, name, Level::Read).await?.config)
    }

    /// Changes what is given of a config; needs UPDATE on it, and on the actors that
    /// it names in addition as [`Service::create_actor_config`].
    ///
    /// # Errors
    ///
    /// Those of [`Service::create_actor_config`] but that it exists; [`Error::Invalid`]
    /// for showing what was a secret.
    pub async fn update_actor_config(
        &self,
        caller: &Caller,
        name: &str,
        update: ActorConfigUpdate,
    ) -> Result<ActorConfig, Error> {
        if let Some(value) = &update.value {
            check_value(value)?;
        }
        let items = update.actors.as_deref().map(items).transpose()?;
        let all_keys = self.0.config.secret_keys.clone();
        let any_actor = self.0.config.configs_for_any_actor;
        let now = self.0.clock.now();
        let (caller, name) = (caller.clone(), name.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    authorized_config(c, &caller, &name, Level::Update).await?;
                    let missing = || Error::NotFound { noun: Noun::Config, id: name.clone() };
                    let stored = store::configs::lock(c, &caller.tenant, &name).await?;
                    let mut stored = stored.ok_or_else(missing)?;
                    if let Some(items) = &items {
                        let old = store::configs::items(c, &caller.tenant, &name).await?;
                        let new: Vec<String> =
                            items.iter().filter(|item| !old.contains(item)).cloned().collect();
                        check_items(c, &caller, &new, any_actor).await?;
                        store::configs::set_items(c, &caller.tenant, &name, items).await?;
                    }
                    if let Some(actors) = update.actors {
                        stored.config.actors = actors;
                    }
                    let was_secret = stored.config.is_secret();
                    let is_secret = update.is_secret.unwrap_or(was_secret);
                    let value = update.value.or_else(|| stored.config.value.clone());
                    match value {
                        Some(value) => {
                            let keys = keys_if(&all_keys, is_secret)?;
                            stored = with_value(stored.config, value, keys)?;
                        }
                        None if is_secret => {}
                        None => {
                            let problem = "a secret is not shown: give the value that shall be";
                            return Err(Error::invalid("value", problem));
                        }
                    }
                    stored.config.updated = now;
                    store::configs::update(c, &stored).await?;
                    Ok(stored.config)
                })
            })
            .await
    }

    /// Removes a config with its permissions; needs UPDATE on it. Executions that
    /// have it keep it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn delete_actor_config(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        let (caller, name) = (caller.clone(), name.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let stored = authorized_config(c, &caller, &name, Level::Update).await?;
                    store::configs::remove(c, &caller.tenant, &stored.config.name).await
                })
            })
            .await
    }

    /// Seals secrets of older keys under the one that seals now, a few of them; says
    /// how many. What cannot be opened is left as it is, and keeps no other waiting.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn reseal_secrets(&self) -> Result<u64, Error> {
        let keys = &self.0.config.secret_keys;
        let Some(key) = keys.sealing() else { return Ok(0) };
        let (mut count, mut unopened) = (0, 0_u64);
        let mut after = (String::new(), String::new());
        while count < SEALED_AT_ONCE {
            let older = {
                let mut c = self.0.store.read().await?;
                let after = (after.0.as_str(), after.1.as_str());
                store::configs::not_sealed_by(&mut c, key, after, SEALED_AT_ONCE).await?
            };
            let Some(last) = older.last() else { break };
            after = (last.config.tenant.as_str().to_owned(), last.config.name.clone());
            for stored in older {
                match self.reseal(stored).await? {
                    Some(replaced) => count += i64::from(replaced),
                    None => unopened += 1,
                }
            }
        }
        if unopened > 0 {
            warn!(
                configs = unopened,
                "{unopened} secrets cannot be opened with the keys that there are; their key must \
                 come back, or their owners must set them anew"
            );
        }
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Seals one secret anew, if it is still what was read; none where it cannot be
    /// opened.
    async fn reseal(&self, stored: Stored) -> Result<Option<bool>, Error> {
        let keys = &self.0.config.secret_keys;
        let Stored { config, sealed } = stored;
        let Some(old) = sealed else { return Ok(Some(false)) };
        let place = Place { tenant: config.tenant.as_str(), config: &config.name };
        let value = match keys.open(&place, &old) {
            Ok(value) => value,
            Err(error) => {
                debug!(error = %Chain(&error), "could not open the secret of a config");
                return Ok(None);
            }
        };
        let Some(new) = keys.seal(&place, &value) else { return Ok(Some(false)) };
        let replaced = self
            .0
            .store
            .write(move |c| {
                Box::pin(
                    async move { store::configs::replace_sealed(c, &config, &old, &new).await },
                )
            })
            .await?;
        Ok(Some(replaced))
    }

    fn keys_if(&self, is_secret: bool) -> Result<Option<SecretKeys>, Error> {
        Ok(keys_if(&self.0.config.secret_keys, is_secret)?.cloned())
    }
}

/// The keys, if they are needed.
fn keys_if(keys: &SecretKeys, is_secret: bool) -> Result<Option<&SecretKeys>, Error> {
    if is_secret && keys.sealing().is_none() {
        let problem = "this service has no key to keep secrets under";
        return Err(Error::invalid("is_secret", problem));
    }
    Ok(is_secret.then_some(keys))
}

/// The config with this value, sealed where there are keys.
fn with_value(
    mut config: ActorConfig,
    value: String,
    keys: Option<&SecretKeys>,
) -> Result<Stored, Error> {
    let Some(keys) = keys else {
        config.value = Some(value);
        return Ok(Stored { config, sealed: None });
    };
    config.value = None;
    let place = Place { tenant: config.tenant.as_str(), config: &config.name };
    let sealed = keys.seal(&place, &value);
    let problem = "this service cannot keep secrets";
    let sealed = sealed.ok_or_else(|| Error::invalid("is_secret", problem))?;
    Ok(Stored { config, sealed: Some(sealed) })
}

/// Checks that there are actors of these ids and aliases, and then that the
/// caller may say what they get.
async fn check_items(
    c: &mut Connection,
    caller: &Caller,
    items: &[String],
    any_actor: bool,
) -> Result<(), Error> {
    let mut refused = None;
    for item in items {
        let is_alias = ActorId::parse(item).is_none();
        // It is not removed or pointed elsewhere from here on until the config stands
        // there: what the caller may do is looked up under the lock.
        if is_alias && store::aliases::lock(c, &caller.tenant, item).await?.is_none() {
            return Err(Error::NotFound { noun: Noun::NamedActor, id: item.clone() });
        }
        let (_, mut level) = actor_named(c, caller, item).await?;
        if is_alias {
            level = level.min(alias_named(c, caller, item).await?.1);
        }
        if level < Level::Update && refused.is_none() {
            refused = Some((item.clone(), level));
        }
    }
    match refused {
        Some((id, has)) if !any_actor => {
            Err(Error::Forbidden { noun: Noun::Actor, id, needed: Level::Update, has })
        }
        _ => Ok(()),
    }
}

/// What the configs of an actor come to for an execution.
pub(super) enum ForExecution {
    /// Names and values, in the order of the names.
    Values(Vec<(String, String)>),
    /// This process cannot open one of them; others may.
    NotHere(Error),
    /// No process can give them to an execution, and why.
    Never(String),
}

/// What the configs of `actor` give its executions.
pub(super) async fn for_execution(
    c: &mut Connection,
    actor: &Actor,
    keys: &SecretKeys,
) -> Result<ForExecution, Error> {
    let mut values = Vec::new();
    for Stored { config, sealed } in store::configs::of_actor(c, &actor.tenant, &actor.id).await? {
        let value = match (config.value, sealed) {
            (_, Some(sealed)) => {
                let place = Place { tenant: config.tenant.as_str(), config: &config.name };
                match keys.open(&place, &sealed) {
                    Ok(value) => value,
                    Err(source @ OpenError::UnknownKey { .. }) => {
                        let error = Error::Sealed { config: config.name, source };
                        return Ok(ForExecution::NotHere(error));
                    }
                    Err(source) => {
                        let error = Error::Sealed { config: config.name, source };
                        return Ok(ForExecution::Never(Chain(&error).to_string()));
                    }
                }
            }
            (value, None) => value.unwrap_or_default(),
        };
        values.push((config.name, value));
    }
    Ok(match check_variable("configs", &as_python(&values), LARGEST_VARIABLE) {
        Ok(()) => ForExecution::Values(values),
        Err(error) => ForExecution::Never(format!("the actor's configs do not fit: {error}")),
    })
}
