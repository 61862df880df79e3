//! How many calls of one user may wait at once: each holds a connection and a place
//! among those that look for what it waits for, and no user shall have them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abax_actors::{Caller, Tenant};

use crate::error::{ApiError, Meaning};

/// The calls that wait, by user. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Waits {
    most: usize,
    of: Arc<Mutex<HashMap<User, usize>>>,
}

type User = (Tenant, String);

/// One call that waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    user: User,
    waits: Waits,
}

impl Waits {
    /// With at most `most` calls of one user.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, of: Arc::default() }
    }

    /// A place for a call of `caller` that is going to wait.
    ///
    /// # Errors
    ///
    /// `TooMany`: the user has as many as may be.
    pub(crate) fn begin(&self, caller: &Caller) -> Result<Waiting, ApiError> {
        let user = (caller.tenant.clone(), caller.user.clone());
        let mut of = self.lock();
        let count = of.entry(user.clone()).or_default();
        if *count >= self.most {
            let most = self.most;
            return Err(ApiError::new(
                Meaning::TooMany,
                format!("{most} of your calls wait already; try again when one of them has ended"),
            ));
        }
        *count += 1;
        Ok(Waiting { user, waits: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<User, usize>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut of = self.waits.lock();
        if let Some(count) = of.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use abax_actors::Role;

    use super::*;

    #[test]
    fn a_user_has_so_many_places_and_others_have_their_own() {
        let waits = Waits::new(2);
        let caller = |tenant: &str, user: &str| Caller::new(Tenant::new(tenant), user, Role::User);
        let (ada, eve) = (caller("T", "ada"), caller("T", "eve"));
        let first = waits.begin(&ada).unwrap();
        let _second = waits.begin(&ada).unwrap();
        assert_eq!(waits.begin(&ada).unwrap_err().meaning(), Meaning::TooMany);
        let _others = [waits.begin(&eve).unwrap(), waits.begin(&caller("U", "ada")).unwrap()];
        drop(first);
        let again = waits.begin(&ada).unwrap();
        drop((again, _second, _others));
        assert!(waits.lock().is_empty(), "nothing is kept of who does not wait");
    }
}
