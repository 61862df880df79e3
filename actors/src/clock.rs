//! The time source; nothing else in the crate asks for the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A moment: microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// The moment `micros` microseconds after 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, always three digits: the form of Abaco's times.
    #[must_use]
    pub fn iso_millis(self) -> String {
        self.format(3)
    }

    /// `YYYY-MM-DDTHH:MM:SS.uuuuuuZ`, always six digits.
    #[must_use]
    pub fn iso_micros(self) -> String {
        self.format(6)
    }

    /// This moment and `duration`, or the last moment there is.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This moment less `duration`, or the first moment there is.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    fn format(self, digits: u8) -> String {
        // Rows hold what we wrote, and jiff holds any year that a clock can say.
        let timestamp = jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        // Truncated, not rounded: a moment is never shown before it came.
        let unit = 10_i64.pow(u32::from(6 - digits));
        let whole = self.0.div_euclid(unit).saturating_mul(unit);
        let timestamp = jiff::Timestamp::from_microsecond(whole).unwrap_or(timestamp);
        format!("{timestamp:.width$}", width = usize::from(digits))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso_micros())
    }
}

/// Where the crate gets the time from: the system, or a test.
///
/// Processes that share a database on a server go by its clock: the service
/// measures how far the machine's own is from it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        /// What is added to the machine's time, in microseconds.
        offset: Arc<AtomicI64>,
    },
    Standing(Arc<AtomicI64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The wall clock of this machine, until it is set by another.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { offset: Arc::default() })
    }

    /// A clock that stands at `start` until it is moved with [`Clock::advance`].
    #[must_use]
    pub fn standing_at(start: Time) -> Self {
        Self(Source::Standing(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// Moves a standing clock, and all its clones, forward.
    ///
    /// # Panics
    ///
    /// On the system clock, which nobody moves.
    pub fn advance(&self, by: Duration) {
        let Source::Standing(standing) = &self.0 else {
            panic!("only a standing clock is moved");
        };
        standing.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// The time by this clock.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Standing(standing) => Time(standing.load(Ordering::SeqCst)),
            Source::System { offset } => {
                Time(machine_micros().saturating_add(offset.load(Ordering::Relaxed)))
            }
        }
    }

    /// How far this clock is ahead of the machine's, in microseconds; negative
    /// where it is behind.
    #[must_use]
    pub fn offset_micros(&self) -> i64 {
        match &self.0 {
            Source::Standing(_) => 0,
            Source::System { offset } => offset.load(Ordering::Relaxed),
        }
    }

    /// Sets the system clock, and all its clones, by another that is `ahead`
    /// microseconds ahead of it, give or take `off`. A difference within that
    /// stays, so that time does not jump to and fro; a standing clock stands.
    pub(crate) fn adjust(&self, ahead: i64, off: Duration) {
        if let Source::System { offset } = &self.0
            && u128::from(ahead.unsigned_abs()) > off.as_micros()
        {
            offset.fetch_add(ahead, Ordering::Relaxed);
        }
    }
}

fn machine_micros() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    let now = jiff::Timestamp::now();
    now.as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_by_another_and_does_not_jump_for_nothing() {
        let clock = Clock::system();
        let same = clock.clone();
        clock.adjust(3_600_000_000, Duration::from_millis(5));
        clock.adjust(-20_000, Duration::from_millis(5));
        assert_eq!(same.offset_micros(), 3_599_980_000);
        clock.adjust(-4_000, Duration::from_millis(5));
        assert_eq!(same.offset_micros(), 3_599_980_000, "that may be the way of the answer");
        let hour = same.now().since(Clock::system().now());
        assert!(hour > Duration::from_secs(3_598), "{hour:?}");
        let standing = Clock::standing_at(Time::from_micros(5));
        standing.adjust(1_000, Duration::ZERO);
        assert_eq!(standing.now(), Time::from_micros(5));
    }

    #[test]
    fn times_have_all_their_digits() {
        for (micros, millis_text, micros_text) in [
            (0, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000000Z"),
            (1_120_000, "1970-01-01T00:00:01.120Z", "1970-01-01T00:00:01.120000Z"),
            (946_684_800_000_999, "2000-01-01T00:00:00.000Z", "2000-01-01T00:00:00.000999Z"),
        ] {
            let time = Time::from_micros(micros);
            assert_eq!(time.iso_millis(), millis_text);
            assert_eq!(time.iso_micros(), micros_text);
        }
    }
}
