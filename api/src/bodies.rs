//! Bodies of requests in memory: so much of one user's at once, and so much of
//! everybody's together, however slowly they come and whatever becomes of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abax_actors::{Caller, Tenant};

use crate::error::{ApiError, Meaning};

/// Bodies of the largest sort that one user may have under way.
const OF_ONE_USER: usize = 4;
/// Those that all users may.
const OF_ALL: usize = 16;

/// Whose body it is, among the extensions of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sender(Tenant, String);

impl Sender {
    /// That it is `caller`'s.
    pub(crate) fn of(caller: &Caller) -> Self {
        Self(caller.tenant.clone(), caller.user.clone())
    }
}

/// The bytes under way. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    largest: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    by_sender: HashMap<Sender, usize>,
}

/// What one body holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bodies: Bodies,
    sender: Option<Sender>,
    bytes: usize,
}

impl Bodies {
    /// Where no body has more than `largest` bytes.
    pub(crate) fn new(largest: usize) -> Self {
        Self { largest, held: Arc::default() }
    }

    /// What a body of `sender` holds: nothing so far.
    pub(crate) fn share(&self, sender: Option<Sender>) -> Share {
        Share { bodies: self.clone(), sender, bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Holds `bytes` more.
    ///
    /// # Errors
    ///
    /// `TooMany` where the sender has as much under way as one may, `Unavailable` where
    /// all have.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let largest = self.bodies.largest;
        let mut held = self.bodies.lock();
        let senders = self.sender.as_ref().and_then(|sender| held.by_sender.get(sender)).copied();
        let senders = senders.unwrap_or(0).saturating_add(bytes);
        if senders > largest.saturating_mul(OF_ONE_USER) {
            return Err(ApiError::new(
                Meaning::TooMany,
                "You are sending too much at once; try again when some of it has arrived.",
            ));
        }
        let all = held.bytes.saturating_add(bytes);
        if all > largest.saturating_mul(OF_ALL) {
            return Err(ApiError::new(
                Meaning::Unavailable,
                "Too much is being sent to this service at the moment; try again in a few seconds.",
            ));
        }
        held.bytes = all;
        if let Some(sender) = &self.sender {
            held.by_sender.insert(sender.clone(), senders);
        }
        drop(held);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.bodies.lock();
        held.bytes = held.bytes.saturating_sub(self.bytes);
        let Some(sender) = &self.sender else { return };
        if let Some(bytes) = held.by_sender.get_mut(sender) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                held.by_sender.remove(sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use abax_actors::Role;

    use super::*;

    #[test]
    fn a_user_holds_so_much_and_all_together_some_more() {
        let bodies = Bodies::new(10);
        let share = |user: &str| {
            let caller = Caller::new(Tenant::new("T"), user, Role::User);
            bodies.share(Some(Sender::of(&caller)))
        };
        let (mut first, mut second) = (share("ada"), share("ada"));
        first.grow(30).unwrap();
        second.grow(10).unwrap();
        assert_eq!(second.grow(1).unwrap_err().meaning(), Meaning::TooMany);
        let mut others: Vec<Share> = ["b", "c", "d"].map(&share).into();
        for other in &mut others {
            other.grow(40).unwrap();
        }
        assert_eq!(share("e").grow(1).unwrap_err().meaning(), Meaning::Unavailable);
        drop(first);
        second.grow(30).unwrap();
        drop((second, others));
        let held = bodies.lock();
        assert!(held.bytes == 0 && held.by_sender.is_empty(), "{held:?}");
    }
}
