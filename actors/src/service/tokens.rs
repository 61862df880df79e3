//! Tokens that executions have, to act for the owner of their actor.

use std::time::Duration;

use super::{ClaimKey, Service};
use crate::error::Error;
use crate::execution::Phase;
use crate::store;

/// How long after the end of an execution calls count that it made before.
const GRACE: Duration = Duration::from_secs(60);

impl Service {
    /// Whether an execution that was given a token under `claim` may still act by it:
    /// until a minute after its end, and no longer when it is gone. What others read in
    /// its log is worth nothing by then. Whether an attempt was superseded counts where
    /// it writes.
    ///
    /// # Errors
    ///
    /// Only those of every function.
    pub async fn may_still_act(&self, claim: &ClaimKey) -> Result<bool, Error> {
        let mut c = self.0.store.read().await?;
        let Some(stored) = store::executions::find(&mut c, &claim.execution).await? else {
            return Ok(false);
        };
        let execution = stored.execution;
        let ended = execution.phases.at(Phase::Stored);
        let counts = ended.is_some_and(|ended| self.0.clock.now() < ended.after(GRACE));
        Ok(!execution.status.is_final() || counts)
    }
}
