//! Rules of results: what a host brings of an execution, and who reads it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ClaimKey, POLL, Service, authorized, execution_of};
use crate::error::{Error, Noun};
use crate::execution::Execution;
use crate::permission::{Caller, Level};
use crate::results::ResultEntry;
use crate::store;
use crate::store::results::Batch;

/// What came first of an execution that somebody waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Awaited {
    /// A result, which counts as taken.
    Result(Vec<u8>),
    /// Its end, and no result is left to take.
    Ended(Box<Execution>),
    /// Nothing in time: it goes on.
    Nothing,
}

impl Service {
    /// Adds results of a claim, of which the first has the number `first`; those
    /// that are there already are left out, so that who did not get the answer may
    /// ask again. False when the claim is lost.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn append_results(
        &self,
        claim: &ClaimKey,
        first: u64,
        results: Vec<Arc<[u8]>>,
    ) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let (key, batch) = (claim.clone(), Batch { first, results });
        let held = self
            .0
            .store
            .write(move |c| {
                Box::pin(async move {
                    let ClaimKey { execution, epoch } = &key;
                    store::results::append(c, execution, *epoch, &batch, now).await
                })
            })
            .await?;
        self.changed(&claim.execution);
        Ok(held)
    }

    /// The results of an execution, in the order in which they came; needs READ on
    /// its actor. None when they expired.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn results(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
    ) -> Result<Vec<ResultEntry>, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        let execution = execution_of(&mut c, &actor, execution).await?.execution.id;
        store::results::of_execution(&mut c, &execution).await
    }

    /// The bytes of the result `number` of an execution; needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn result(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
        number: u64,
    ) -> Result<Vec<u8>, Error> {
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        let execution = execution_of(&mut c, &actor, execution).await?.execution.id;
        store::results::find(&mut c, &execution, number)
            .await?
            .ok_or_else(|| Error::NotFound { noun: Noun::Result, id: number.to_string() })
    }

    /// The first result of an execution that nobody took, which then counts as
    /// taken; needs READ on its actor. `None` when there is none (yet).
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn take_result(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let id = {
            let mut c = self.0.store.read().await?;
            let actor = authorized(&mut c, caller, actor, Level::Read).await?;
            let id = execution_of(&mut c, &actor, execution).await?.execution.id;
            // Who asks again and again for nothing holds up no writer.
            if !store::results::has_untaken(&mut c, &id).await? {
                return Ok(None);
            }
            id
        };
        let now = self.0.clock.now();
        self.0
            .store
            .write(move |c| Box::pin(async move { store::results::take(c, &id, now).await }))
            .await
    }

    /// Waits up to `patience` for a result of an execution, which it takes, or for
    /// its end; needs READ on its actor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn wait_for_result(
        &self,
        caller: &Caller,
        actor: &str,
        execution: &str,
        patience: Duration,
    ) -> Result<Awaited, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let mut changes = self.0.changes.subscribe();
            // Before the result: what is there at the end was there before it.
            let now = self.execution(caller, actor, execution).await?;
            if let Some(result) = self.take_result(caller, actor, execution).await? {
                return Ok(Awaited::Result(result));
            }
            if now.status.is_final() {
                return Ok(Awaited::Ended(Box::new(now)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Awaited::Nothing);
            }
            Self::may_have_changed(&mut changes, &now.id, left.min(POLL)).await;
        }
    }
}
