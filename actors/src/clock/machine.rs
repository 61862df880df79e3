//! What the clocks of a machine say.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Time;

/// A machine with clocks: the one that we run on, or one whose clocks a test moves.
#[derive(Clone)]
pub struct Machine(Option<Arc<Mutex<Readings>>>);

/// What three clocks say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readings {
    /// The time of day, which anybody may set: CLOCK_REALTIME.
    pub(super) wall: Time,
    /// How long the machine has been on, asleep or not: CLOCK_BOOTTIME.
    pub(super) elapsed: Duration,
    /// How long it has been on and awake: CLOCK_MONOTONIC.
    pub(super) awake: Duration,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Machine").field(&self.read()).finish()
    }
}

impl Machine {
    /// The machine that we run on.
    #[must_use]
    pub fn this() -> Self {
        Self(None)
    }

    /// A machine whose clocks stand until they are moved; the wall clock shows `wall`.
    #[must_use]
    pub fn by_hand(wall: Time) -> Self {
        let readings = Readings { wall, elapsed: Duration::ZERO, awake: Duration::ZERO };
        Self(Some(Arc::new(Mutex::new(readings))))
    }

    /// Time passes on a machine by hand.
    ///
    /// # Panics
    ///
    /// On the machine that we run on, as all that move clocks.
    pub fn pass(&self, by: Duration) {
        let mut hands = self.hands();
        hands.wall = hands.wall.after(by);
        hands.elapsed += by;
        hands.awake += by;
    }

    /// A machine by hand sleeps: it is later, and nothing has happened.
    ///
    /// # Panics
    ///
    /// As [`Machine::pass`].
    pub fn sleep(&self, by: Duration) {
        let mut hands = self.hands();
        hands.wall = hands.wall.after(by);
        hands.elapsed += by;
    }

    /// Somebody sets the wall clock of a machine by hand, `ahead` microseconds.
    ///
    /// # Panics
    ///
    /// As [`Machine::pass`].
    pub fn set_wall(&self, ahead: i64) {
        let mut hands = self.hands();
        hands.wall = Time::from_micros(hands.wall.micros().saturating_add(ahead));
    }

    pub(super) fn read(&self) -> Readings {
        if self.0.is_some() {
            return *self.hands();
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
        let wall = Time::from_micros(jiff::Timestamp::now().as_microsecond());
        Readings {
            wall,
            elapsed: since_start(ClockId::Boottime),
            awake: since_start(ClockId::Monotonic),
        }
    }

    fn hands(&self) -> MutexGuard<'_, Readings> {
        let hands = self.0.as_ref().expect("only a machine by hand is moved");
        hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since_start(clock: ClockId) -> Duration {
    // Neither of them is ever negative.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
