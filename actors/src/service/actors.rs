//! Rules of actors: register, update, delete.

use tokio::time::Instant;

use super::events::check_link;
use super::{POLL, Service, authorized, authorized_and_locked, must_be_fewer};
use crate::actor::{
    Actor, ActorChange, ActorStatus, ActorUpdate, NewActor, READY_MESSAGE, TokenSetting,
};
use crate::cron::Cron;
use crate::error::Error;
use crate::id::ActorId;
use crate::json::Json;
use crate::permission::{Caller, Level, Tenant};
use crate::search::Hits;
use crate::store;
use crate::store::permissions::{Kind, Object};

/// How far a deletion came while the caller waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Nothing is left of the actor.
    Completely,
    /// Executions are still being stopped; the actor goes when they have ended.
    Stopping,
}

impl Service {
    /// Registers an actor, which is the caller's from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::Restricted`], [`Error::TooLarge`],
    /// [`Error::TooMany`].
    pub async fn register_actor(&self, caller: &Caller, new: NewActor) -> Result<Actor, Error> {
        caller.must_be_a_user()?;
        new.validate(caller, &self.0.config)?;
        let now = self.0.clock.now();
        let cron = Cron::registered(new.cron_schedule.clone(), now)?;
        let token = self.token(&caller.tenant, new.token);
        let mut actor = Actor {
            id: ActorId::generate(),
            tenant: caller.tenant.clone(),
            owner: caller.user.clone(),
            name: new.name.clone(),
            description: String::new(),
            image: String::new(),
            stateless: new.stateless,
            kind: String::new(),
            token,
            webhook: String::new(),
            link: String::new(),
            hints: Vec::new(),
            privileged: false,
            max_workers: None,
            mem_limit: None,
            max_cpus: None,
            use_container_uid: false,
            run_as_executor: false,
            default_environment: Json::empty_object(),
            status: ActorStatus::Submitted,
            status_message: String::new(),
            state: Json::empty_object(),
            created: now,
            updated: now,
            revision: 1,
            queue: String::new(),
            log_ex: None,
            max_run_time: None,
            user: None,
            home: None,
            mounts: Vec::new(),
            cron,
            wanted_workers: 0,
            rest: None,
        };
        apply(&mut actor, new, token);
        actor.place(&self.0.config.host_access(&caller.tenant));
        let registered = actor.clone();
        let caller = caller.clone();
        let most = self.0.config.max_owned;
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    if !caller.is_admin() {
                        let (tenant, user) = (&caller.tenant, &caller.user);
                        let count = store::actors::count_of_owner(c, tenant, user).await?;
                        must_be_fewer("actors", count, most)?;
                    }
                    check_link(c, &caller, &actor).await?;
                    store::actors::insert(c, &actor).await?;
                    store::cron::set(c, &actor.id, &actor.cron).await?;
                    store::revisions::insert(c, &actor, false, now).await?;
                    store::workers::request(c, &actor.id, now).await
                })
            })
            .await?;
        self.actors_changed();
        Ok(registered)
    }

    /// The actors that are shared with the caller by its name or with everybody,
    /// its own among them, oldest first. As with Abaco, an admin's list is no longer
    /// than another's. Of more than fit an answer, the caller's own come before those
    /// of others.
    ///
    /// # Errors
    ///
    /// [`Error::NotByNonce`].
    pub async fn actors(&self, caller: &Caller) -> Result<Hits<Actor>, Error> {
        caller.must_be_a_user()?;
        let mut c = self.0.store.read().await?;
        let found = store::actors::visible_to(&mut c, &caller.tenant, &caller.user).await?;
        Ok(Hits::new(found.0, found.1))
    }

    /// One actor; needs READ.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn actor(&self, caller: &Caller, actor: &str) -> Result<Actor, Error> {
        let mut c = self.0.store.read().await?;
        authorized(&mut c, caller, actor, Level::Read).await
    }

    /// Replaces an actor's settings; needs UPDATE. Another image, or `force`, is
    /// an image update: SUBMITTED again, and the next revision, for which `force`
    /// asks the registry anew. An actor that rests is tried at once. Executions that run end with the image they have. Who
    /// is neither the owner nor an admin has UPDATE in its own name from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], those of registration, and
    /// [`Error::Invalid`] for making a stateful actor stateless.
    pub async fn update_actor(
        &self,
        caller: &Caller,
        actor: &str,
        update: ActorUpdate,
    ) -> Result<Actor, Error> {
        // Who may not know of the actor hears that, whatever the settings are.
        self.actor_for(caller, actor, Level::Update).await?;
        update.settings.validate(caller, &self.0.config)?;
        self.rewrite_actor(caller, actor, update.force, Rewrite::All(Box::new(update.settings)))
            .await
    }

    /// As [`Service::update_actor`], but what is not changed stays, also where the
    /// caller could not set it, and so does who may do what with the actor.
    ///
    /// # Errors
    ///
    /// Those of [`Service::update_actor`].
    pub async fn change_actor(
        &self,
        caller: &Caller,
        actor: &str,
        change: ActorChange,
    ) -> Result<Actor, Error> {
        self.rewrite_actor(caller, actor, change.force, Rewrite::Some(change)).await
    }

    async fn rewrite_actor(
        &self,
        caller: &Caller,
        actor: &str,
        force: bool,
        rewrite: Rewrite,
    ) -> Result<Actor, Error> {
        let now = self.0.clock.now();
        let access = self.0.config.host_access(&caller.tenant);
        let service = self.clone();
        let (caller, actor) = (caller.clone(), actor.to_owned());
        let updated = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    // The whole row is written back.
                    let mut actor =
                        authorized_and_locked(c, &caller, &actor, Level::Update).await?;
                    if actor.status == ActorStatus::ShuttingDown {
                        return Err(Error::ShuttingDown { actor: actor.id.to_string() });
                    }
                    let (settings, token) = rewrite.settings(&service, &caller, &actor)?;
                    if !actor.stateless && settings.stateless {
                        return Err(Error::invalid(
                            "stateless",
                            "a stateful actor cannot become stateless",
                        ));
                    }
                    let schedule = settings.cron_schedule.clone();
                    actor.cron = actor.cron.updated(schedule, settings.cron_on, now)?;
                    let is_new_image = force || settings.image != actor.image;
                    if is_new_image {
                        actor.status = ActorStatus::Submitted;
                        actor.status_message = String::new();
                        actor.revision += 1;
                    }
                    if actor.rest.take().is_some() && !is_new_image {
                        actor.status_message = match actor.status {
                            ActorStatus::Ready => READY_MESSAGE.to_owned(),
                            _ => String::new(),
                        };
                    }
                    let has_new_link = settings.link != actor.link;
                    if rewrite.names() {
                        actor.name.clone_from(&settings.name);
                    }
                    apply(&mut actor, settings, token);
                    actor.place(&access);
                    if has_new_link {
                        check_link(c, &caller, &actor).await?;
                    }
                    // Two updates within a microsecond still differ.
                    actor.updated =
                        now.max(actor.updated.after(std::time::Duration::from_micros(1)));
                    store::actors::update(c, &actor).await?;
                    store::cron::set(c, &actor.id, &actor.cron).await?;
                    if is_new_image {
                        store::revisions::insert(c, &actor, force, now).await?;
                        // Those that there are stay until one has the new image.
                        store::workers::remove_requested(c, &actor.id).await?;
                        store::workers::request(c, &actor.id, now).await?;
                    }
                    if rewrite.grants() && caller.user != actor.owner && !caller.is_admin() {
                        let (tenant, name) = (&actor.tenant, actor.id.as_str());
                        let object = Object { tenant, kind: Kind::Actor, name };
                        store::permissions::set(c, object, &caller.user, Level::Update).await?;
                    }
                    Ok(actor)
                })
            })
            .await?;
        self.actors_changed();
        // Messages that waited for an actor in ERROR may run.
        self.0.queue.actor_changed(&updated.id);
        Ok(updated)
    }

    /// Deletes an actor; needs UPDATE. What runs is halted, all else goes, and when
    /// the last execution has ended, so does the actor. Waits for that up to
    /// [`crate::Config::delete_wait`]; the upkeep does the rest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn delete_actor(&self, caller: &Caller, actor: &str) -> Result<Deleted, Error> {
        let deadline = Instant::now() + self.0.config.delete_wait;
        let now = self.0.clock.now();
        let mut changes = self.0.changes.subscribe();
        let (id, halted) = {
            let (caller, actor) = (caller.clone(), actor.to_owned());
            self.0
                .store
                .write(move |c| {
                    Box::pin(async move {
                        let actor = authorized(c, &caller, &actor, Level::Update).await?;
                        // From here on nothing of it is claimed.
                        store::actors::set_shutting_down(c, &actor.id).await?;
                        let halted =
                            store::executions::request_halt_of_actor(c, &actor.id, now).await?;
                        store::workers::stop_all(c, &actor.id).await?;
                        Ok((actor.id, halted))
                    })
                })
                .await?
        };
        for execution in &halted {
            self.changed(execution);
        }
        let mut more = true;
        loop {
            if more {
                more = self.remove_some_deleted(Some(&id)).await?.more;
            }
            {
                let mut c = self.0.store.read().await?;
                if store::actors::find(&mut c, &id).await?.is_none() {
                    return Ok(Deleted::Completely);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Deleted::Stopping);
            }
            if !more {
                let _ = tokio::time::timeout(left.min(POLL), changes.recv()).await;
            }
        }
    }

    pub(super) async fn actor_for(
        &self,
        caller: &Caller,
        actor: &str,
        needed: Level,
    ) -> Result<Actor, Error> {
        let mut c = self.0.store.read().await?;
        authorized(&mut c, caller, actor, needed).await
    }

    fn token(&self, tenant: &Tenant, wanted: Option<bool>) -> TokenSetting {
        let config = &self.0.config;
        let default = config.tenants.of(tenant, |own| own.default_token, config.default_token);
        wanted.map_or(TokenSetting::Default(default), TokenSetting::Chosen)
    }
}

/// How an update rewrites the settings of an actor.
#[derive(Clone)]
enum Rewrite {
    /// All but the name; they were checked.
    All(Box<NewActor>),
    Some(ActorChange),
}

impl Rewrite {
    /// What the settings of `actor` become.
    fn settings(
        &self,
        service: &Service,
        caller: &Caller,
        actor: &Actor,
    ) -> Result<(NewActor, TokenSetting), Error> {
        match self {
            Self::All(settings) => {
                Ok((NewActor::clone(settings), service.token(&caller.tenant, settings.token)))
            }
            Self::Some(change) => {
                let before = NewActor::of(actor);
                let mut settings = before.clone();
                change.apply(&mut settings);
                settings.validate_beside(Some(&before), change.force, caller, &service.0.config)?;
                let token = match settings.token == before.token {
                    true => actor.token,
                    false => service.token(&caller.tenant, settings.token),
                };
                Ok((settings, token))
            }
        }
    }

    /// Whether it may give another name.
    fn names(&self) -> bool {
        matches!(self, Self::Some(_))
    }

    /// Whether whoever does it has UPDATE in its own name afterwards, as with Abaco:
    /// who had it as everybody of the tenant keeps it when they lose it.
    fn grants(&self) -> bool {
        matches!(self, Self::All(_))
    }
}

/// Puts validated settings in place; the name stays.
fn apply(actor: &mut Actor, new: NewActor, token: TokenSetting) {
    actor.description = new.description;
    actor.image = new.image;
    actor.stateless = new.stateless;
    actor.kind = new.kind;
    actor.token = token;
    actor.webhook = new.webhook;
    actor.link = new.link;
    actor.hints = new.hints;
    actor.privileged = new.privileged;
    actor.max_workers = new.max_workers.and_then(|n| u32::try_from(n).ok());
    actor.mem_limit = new.mem_limit;
    actor.max_cpus = new.max_cpus.and_then(|n| u64::try_from(n).ok());
    actor.use_container_uid = new.use_container_uid;
    actor.run_as_executor = new.run_as_executor;
    actor.default_environment = new.default_environment;
    actor.queue = new.queue;
    actor.log_ex = new.log_ex;
    actor.max_run_time = new.max_run_time.and_then(|n| u32::try_from(n).ok());
}
