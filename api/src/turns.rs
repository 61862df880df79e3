//! Turns of what reads much: each user has few answers of that sort under way at
//! once, from the first row to the last byte that it takes off us, and waits for
//! its own to end and nobody else's.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use abax_actors::{Caller, Tenant};
use axum::body::{Body, Bytes, HttpBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers of one user that are under way at once.
const AT_ONCE: usize = 2;

type User = (Tenant, String);

/// The turns of all users. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<User, Arc<Semaphore>>>>);

/// One turn, which ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    user: User,
    turns: Turns,
    // Before anybody looks whether it was the last.
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// The next turn of `caller`.
    pub(crate) async fn take(&self, caller: &Caller) -> Turn {
        let user = (caller.tenant.clone(), caller.user.clone());
        let of_user = Arc::clone(
            self.lock().entry(user.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))),
        );
        // One that is given up while it waits leaves an entry behind, as this one does.
        let mut held = Held { user, turns: self.clone(), permit: None };
        let permit = of_user.acquire_owned().await.expect("the semaphore is never closed");
        held.permit = Some(permit);
        Turn { _held: Arc::new(held) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<User, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.permit = None;
        let mut turns = self.turns.lock();
        // Who has a turn or waits for one has the semaphore too.
        if turns.get(&self.user).is_some_and(|of_user| Arc::strong_count(of_user) == 1) {
            turns.remove(&self.user);
        }
    }
}

/// The same body, which keeps a turn until it is sent or given up.
pub(crate) fn keeping(turn: Turn, body: Body) -> Body {
    Body::new(Keeping { body, _turn: turn })
}

struct Keeping {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Frame = hyper::body::Frame<Bytes>;
type SizeHint = hyper::body::SizeHint;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use abax_actors::Role;

    use super::*;

    #[tokio::test]
    async fn who_reads_much_waits_for_its_own_answers_only() {
        let turns = Turns::default();
        let caller = |user: &str| Caller::new(Tenant::new("T"), user, Role::User);
        let (ada, eve) = (caller("ada"), caller("eve"));
        let (first, second) = (turns.take(&ada).await, turns.take(&ada).await);
        let others = turns.take(&eve).await;
        let waits = tokio::time::timeout(Duration::from_millis(20), turns.take(&ada)).await;
        assert!(waits.is_err(), "it has as many as may be");
        let body = keeping(first.clone(), Body::from("text"));
        drop(first);
        let waits = tokio::time::timeout(Duration::from_millis(20), turns.take(&ada)).await;
        assert!(waits.is_err(), "its answer is being sent");
        assert_eq!(axum::body::to_bytes(body, 10).await.unwrap(), "text");
        let next = turns.take(&ada).await;
        drop((second, next, others));
        assert!(turns.lock().is_empty(), "nothing is kept of who has no turn");
    }
}
