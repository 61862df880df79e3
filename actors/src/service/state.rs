//! Rules of what stateful actors keep: read, set, set if nobody else did.

use super::{ClaimKey, Service, authorized, authorized_and_locked};
use crate::actor::Actor;
use crate::error::Error;
use crate::json::Json;
use crate::message::check_variable;
use crate::permission::{Caller, Level};
use crate::store::{self, Connection};

/// Which writing of an actor's state somebody has read: another after every write.
/// What a running execution has set is told apart by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateVersion(String);

impl StateVersion {
    /// The version that `text` stands for.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Digits, letters and dashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(writes: i64, staged: Option<&Json>) -> Self {
        match staged {
            None => Self(writes.to_string()),
            Some(state) => Self(format!("{writes}-{:016x}", fingerprint(state.as_str()))),
        }
    }
}

/// FNV-1a, by Fowler, Noll and Vo: it tells states of one execution apart, and
/// guards nothing.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Service {
    /// What a stateful actor keeps between executions; needs READ. A stateless
    /// one has `{}`. An execution of the actor reads what it has set itself.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn actor_state(&self, caller: &Caller, actor: &str) -> Result<Json, Error> {
        Ok(self.versioned_actor_state(caller, actor).await?.0)
    }

    /// As [`Service::actor_state`], with what [`Service::set_actor_state_if`] takes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn versioned_actor_state(
        &self,
        caller: &Caller,
        actor: &str,
    ) -> Result<(Json, StateVersion), Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        current(&mut c, caller, &actor).await
    }

    /// Sets the state of a stateful actor; needs UPDATE. The next execution sees
    /// it, not the running one; the last writer wins.
    ///
    /// What an execution of the actor sets counts when it ends, and not at all
    /// when its attempt is lost. A state that anybody else sets counts at once, and
    /// instead of what the running execution has set so far.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Stateless`],
    /// [`Error::Superseded`] when the execution is not this attempt's any more, and
    /// [`Error::TooLarge`] or [`Error::Invalid`] when it fits no environment variable.
    pub async fn set_actor_state(
        &self,
        caller: &Caller,
        actor: &str,
        state: Json,
    ) -> Result<Actor, Error> {
        Ok(self.set_actor_state_if(caller, actor, state, None).await?.0)
    }

    /// As [`Service::set_actor_state`], unless the state has none of the versions
    /// `read` any more, where they are given. Gives the version that it has now.
    ///
    /// # Errors
    ///
    /// [`Error::StateChanged`] beside those.
    pub async fn set_actor_state_if(
        &self,
        caller: &Caller,
        actor: &str,
        state: Json,
        read: Option<Vec<StateVersion>>,
    ) -> Result<(Actor, StateVersion), Error> {
        let limit = self.0.config.max_message_bytes;
        let (caller, actor) = (caller.clone(), actor.to_owned());
        self.0
            .store
            .write(move |c| {
                Box::pin(async move {
                    // Who writes meanwhile does so behind this.
                    let mut actor =
                        authorized_and_locked(c, &caller, &actor, Level::Update).await?;
                    if actor.stateless {
                        return Err(Error::Stateless { actor: actor.id.to_string() });
                    }
                    check_variable("state", state.as_str(), limit)?;
                    check_variable("state", &state.to_python(), limit)?;
                    if let Some(read) = read {
                        let (_, version) = current(c, &caller, &actor).await?;
                        if !read.contains(&version) {
                            return Err(Error::StateChanged { actor: actor.id.to_string() });
                        }
                    }
                    if let Some(ClaimKey { execution, epoch }) = &caller.claim
                        && store::actors::of_execution(c, execution)
                            .await?
                            .is_none_or(|its| its.id == actor.id)
                    {
                        if !store::state::stage(c, execution, *epoch, &state).await? {
                            let execution = execution.to_string();
                            return Err(Error::Superseded { execution });
                        }
                    } else {
                        store::state::set(c, &actor.id, &state).await?;
                        store::state::unstage(c, &actor.id).await?;
                    }
                    actor.state = state;
                    let version = current(c, &caller, &actor).await?.1;
                    Ok((actor, version))
                })
            })
            .await
    }
}

/// The state that the caller sees, and its version.
async fn current(
    c: &mut Connection,
    caller: &Caller,
    actor: &Actor,
) -> Result<(Json, StateVersion), Error> {
    let (state, writes) = store::state::of_actor(c, &actor.id).await?;
    if let Some(ClaimKey { execution, epoch }) = &caller.claim
        && let Some(staged) = store::state::staged(c, &actor.id, execution, *epoch).await?
    {
        let version = StateVersion::of(writes, Some(&staged));
        return Ok((staged, version));
    }
    Ok((state, StateVersion::of(writes, None)))
}
