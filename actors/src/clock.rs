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
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The wall clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `start` until it is moved with [`Clock::advance`].
    #[must_use]
    pub fn standing_at(start: Time) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// Moves a standing clock, and all its clones, forward.
    ///
    /// # Panics
    ///
    /// On the system clock, which nobody moves.
    pub fn advance(&self, by: Duration) {
        let standing = self.0.as_ref().expect("only a standing clock is moved");
        standing.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// The time by this clock.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.0 {
            Some(standing) => Time(standing.load(Ordering::SeqCst)),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
                let now = jiff::Timestamp::now();
                Time(now.as_microsecond())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
