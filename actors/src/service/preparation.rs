//! Images of new actors, made ready before their first message.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::events::{Noted, note};
use super::{POLL, Service};
use crate::actor::{Actor, ActorStatus, READY_MESSAGE, Rest};
use crate::clock::{Clock, Time};
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::id::{ActorId, HostId};
use crate::revision::{PinnedImage, RevisionImage};
use crate::store;
use crate::store::actors::Unprepared;

/// When a preparation that came to nothing is tried again; twice as long after
/// each further one.
const PREPARE_AGAIN: Duration = Duration::from_secs(5);
/// Images of actors that had executions since then are likely to be needed.
const OF_LATE: Duration = Duration::from_secs(86_400);
/// How many of those a host is told of.
const MOST_OF_LATE: usize = 100;
/// Preparations of one owner's actors that go on at once in a process: others have
/// theirs whatever becomes of these.
const MOST_OF_ONE_OWNER: usize = 3;
/// The longest that a preparation rests between two tries.
const PREPARE_AGAIN_MOST: Duration = Duration::from_secs(60);

/// An actor whose image a host shall make ready. Dropped while the actor is
/// still SUBMITTED, it comes back after a while.
#[derive(Debug)]
pub struct Preparation {
    /// The actor; report with its id and revision.
    pub actor: Actor,
    /// The image that its revision runs; as with [`super::Claim::image`].
    pub image: RevisionImage,
    _guard: PreparingGuard,
}

impl Service {
    /// The next actor of one of `classes` whose image no host has had yet; waits
    /// until there is one.
    /// The host makes the image ready, and says so with [`Service::actor_ready`]
    /// or [`Service::actor_failed`]; after [`Service::actor_waits`] or nothing at
    /// all the actor comes back, each time later, up to a minute. Messages to the
    /// actor are delivered meanwhile: this only brings it to READY before its
    /// first message.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn receive_preparation(&self, classes: &[String]) -> Result<Preparation, Error> {
        loop {
            let changed = self.0.actors_changed.notified();
            let mut c = self.0.store.read().await?;
            let now = self.0.clock.now();
            let mut actors = store::actors::to_prepare(&mut c, now).await?;
            actors.retain(|actor| classes.contains(&actor.queue));
            if let Some((chosen, guard)) = self.0.preparing.begin(actors, &self.0.clock) {
                // Another receiver may find more.
                self.0.actors_changed.notify_one();
                let actor = store::actors::find(&mut c, &chosen.id).await?;
                // One that was updated or deleted meanwhile is another.
                if let Some(actor) = actor.filter(|actor| actor.revision == chosen.revision) {
                    let image = store::revisions::of_actor(&mut c, &actor).await?;
                    return Ok(Preparation { actor, image, _guard: guard });
                }
                continue;
            }
            drop(c);
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    /// The images of actors of `classes` that had executions within the last day,
    /// each as it is pinned, where it is: what a host that just started
    /// will be asked for.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn images_of_late(
        &self,
        classes: &[String],
    ) -> Result<Vec<(String, Option<PinnedImage>)>, Error> {
        let since = self.0.clock.now().before(OF_LATE);
        let mut c = self.0.store.read().await?;
        let mut images = store::actors::images_since(&mut c, since).await?;
        images.retain(|image| classes.contains(&image.class));
        images.truncate(MOST_OF_LATE);
        Ok(images.into_iter().map(|image| (image.reference, image.pinned)).collect())
    }

    /// Says that a host has begun to make the image of an actor ready, which takes
    /// a while: the workers that were asked for show it.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_pulls(&self, actor: &ActorId, host: &HostId) -> Result<(), Error> {
        let (actor, host) = (actor.clone(), host.clone());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move { store::workers::set_pulling(c, &actor, &host).await })
            })
            .await
    }

    /// Says that a host has the image of an actor at `revision`: SUBMITTED → READY,
    /// and the workers that were asked for are that host's. False when the actor is
    /// not SUBMITTED at that revision any more.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_ready(
        &self,
        actor: &ActorId,
        revision: i64,
        host: &HostId,
    ) -> Result<bool, Error> {
        self.set_actor_status(actor, revision, ActorStatus::Ready, READY_MESSAGE, Some(host)).await
    }

    /// Says which image a host found for a revision of an actor, and hears which one
    /// the revision runs: that of the first host to say it. `None` when the actor is
    /// gone.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn pin_image(
        &self,
        actor: &ActorId,
        image: &RevisionImage,
        found: PinnedImage,
    ) -> Result<Option<PinnedImage>, Error> {
        let now = self.0.clock.now();
        let (actor, image) = (actor.clone(), image.clone());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move { store::revisions::pin(c, &actor, &image, &found, now).await })
            })
            .await
    }

    /// Says what an actor at `revision` waits for: it stays SUBMITTED, with
    /// `reason` as its message until the next report. False, and nothing is
    /// written, when the message says so already or the actor is not SUBMITTED at
    /// that revision any more.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_waits(
        &self,
        actor: &ActorId,
        revision: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        self.set_actor_status(actor, revision, ActorStatus::Submitted, reason, None).await
    }

    /// Says that the image of an actor at `revision` could not be had, for a `reason`
    /// that may pass: the actor rests, longer each time, and its message says why and
    /// until when. What was claimed for it is given back besides. None where it rests
    /// already, is not at that revision any more, or runs nothing anyway.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_rests(
        &self,
        actor: &ActorId,
        revision: i64,
        reason: &str,
    ) -> Result<Option<Rest>, Error> {
        let now = self.0.clock.now();
        let (id, reason) = (actor.clone(), reason.to_owned());
        let rest = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let Some(actor) = store::actors::lock(c, &id).await? else { return Ok(None) };
                    let runs = matches!(actor.status, ActorStatus::Submitted | ActorStatus::Ready);
                    if actor.revision != revision || !runs {
                        return Ok(None);
                    }
                    let Some(rest) = Rest::after(actor.rest, now) else { return Ok(None) };
                    let message = format!("{reason}; next try at {}", rest.until.iso_millis());
                    store::actors::set_rest(c, &id, rest, &message).await?;
                    Ok(Some(rest))
                })
            })
            .await?;
        if let Some(rest) = rest {
            let pause = rest.until.micros().saturating_sub(now.micros());
            let pause = Duration::from_micros(u64::try_from(pause).unwrap_or(0));
            self.0.queue.rests(actor, pause);
        }
        Ok(rest)
    }

    /// Says that the image of an actor at `revision` cannot be had, and why: the
    /// actor is in ERROR until its owner updates it, and its messages wait. Not
    /// for faults of ours or of the network that pass: those are retried.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn actor_failed(
        &self,
        actor: &ActorId,
        revision: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        self.set_actor_status(actor, revision, ActorStatus::Error, reason, None).await
    }

    async fn set_actor_status(
        &self,
        actor: &ActorId,
        revision: i64,
        status: ActorStatus,
        message: &str,
        host: Option<&HostId>,
    ) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let (id, message, host) = (actor.clone(), message.to_owned(), host.cloned());
        let (set, rested, noted) = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let set = store::actors::set_status(c, &id, revision, status, &message).await?;
                    let rested = !set
                        && status == ActorStatus::Ready
                        && store::actors::end_rest(c, &id, revision).await?;
                    let only = |set| (set, rested, Noted::default());
                    let Some(actor) = store::actors::find(c, &id).await? else {
                        return Ok(only(set));
                    };
                    if let Some(host) = host.filter(|_| actor.revision == revision) {
                        store::workers::provide(c, &actor, &host).await?;
                    }
                    let kind = match status {
                        ActorStatus::Ready => EventKind::ActorReady,
                        ActorStatus::Error => EventKind::ActorError,
                        ActorStatus::Submitted | ActorStatus::ShuttingDown => {
                            return Ok(only(set));
                        }
                    };
                    if !set {
                        return Ok(only(false));
                    }
                    if status == ActorStatus::Error {
                        store::workers::remove_requested(c, &id).await?;
                    }
                    let event = Event::of_status(kind, &message);
                    Ok((true, rested, note(c, &actor, &event, now).await?))
                })
            })
            .await?;
        self.tell(noted);
        if rested || (set && status == ActorStatus::Ready) {
            // What waited while the actor rested may run.
            self.0.queue.actor_changed(actor);
        }
        Ok(set)
    }
}

/// An actor at a revision.
type Prepared = (ActorId, i64);

/// The preparations of this process: those under way, and those that came to
/// nothing so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Preparing(Arc<Mutex<HashMap<Prepared, Tries>>>);

#[derive(Debug)]
struct Tries {
    /// Whose it is: tenant and user.
    owner: (String, String),
    /// Those that came to nothing.
    failed: u32,
    /// When the next may begin; none while one is under way.
    again: Option<Time>,
}

impl Preparing {
    /// Begins with one of `actors`, which are all that are to be prepared, whose time
    /// has come: of the owners, one that has the fewest under way here, and of its
    /// actors the first.
    fn begin(
        &self,
        actors: Vec<Unprepared>,
        clock: &Clock,
    ) -> Option<(Unprepared, PreparingGuard)> {
        let now = clock.now();
        let keys: HashSet<Prepared> =
            actors.iter().map(|actor| (actor.id.clone(), actor.revision)).collect();
        let mut preparing = self.0.lock().expect("nothing panics while it holds the preparations");
        preparing.retain(|key, tries| tries.again.is_none() || keys.contains(key));
        let mut under_way: HashMap<&(String, String), usize> = HashMap::new();
        for tries in preparing.values().filter(|tries| tries.again.is_none()) {
            *under_way.entry(&tries.owner).or_default() += 1;
        }
        let (_, actor, owner) = actors
            .into_iter()
            .filter(|actor| {
                let tries = preparing.get(&(actor.id.clone(), actor.revision));
                tries.is_none_or(|tries| tries.again.is_some_and(|again| again <= now))
            })
            .map(|actor| {
                let owner = (actor.tenant.clone(), actor.owner.clone());
                (under_way.get(&owner).copied().unwrap_or(0), actor, owner)
            })
            .filter(|(count, ..)| *count < MOST_OF_ONE_OWNER)
            .min_by_key(|(count, ..)| *count)?;
        let key = (actor.id.clone(), actor.revision);
        preparing.entry(key.clone()).or_insert(Tries { owner, failed: 0, again: None }).again =
            None;
        let guard = PreparingGuard { preparing: self.clone(), key, clock: clock.clone() };
        Some((actor, guard))
    }
}

#[derive(Debug)]
struct PreparingGuard {
    preparing: Preparing,
    key: Prepared,
    clock: Clock,
}

impl Drop for PreparingGuard {
    fn drop(&mut self) {
        if let Ok(mut preparing) = self.preparing.0.lock()
            // What is under way stays until it is dropped.
            && let Some(tries) = preparing.get_mut(&self.key)
        {
            let rest = PREPARE_AGAIN.saturating_mul(2_u32.saturating_pow(tries.failed));
            tries.failed = tries.failed.saturating_add(1);
            // From the end of a try: one may take longer than the rest after it.
            tries.again = Some(self.clock.now().after(rest.min(PREPARE_AGAIN_MOST)));
        }
    }
}
