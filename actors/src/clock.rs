//! The time source; nothing else in the crate asks for the time.

mod machine;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use machine::Machine;
use machine::Readings;

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

/// Where the crate gets the time from: the machine, or a test.
///
/// The machine's wall clock says once what time it is; from then on time goes by
/// what has elapsed, so that nobody who sets the wall clock moves ours. What sets
/// it later is a *reference*, which the service compares it with: the clock of a
/// database that processes share, or else the machine's wall clock after all. A
/// reference that is far off is believed when it says the same the next time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine { machine: Machine, set: Arc<Mutex<Set>> },
    Standing(Arc<AtomicI64>),
}

/// How a clock on a machine stands.
#[derive(Debug)]
struct Set {
    /// The time when nothing had elapsed, in microseconds.
    zero: i64,
    /// How far ahead a reference was that is not believed yet.
    doubted: Option<i64>,
    /// How long the machine has slept in all, when it was looked at last.
    slept: Duration,
    /// The times when it came to be much later at once, the latest last.
    leaps: VecDeque<Leap>,
}

#[derive(Debug)]
struct Leap {
    /// When it was noticed, by the time that the machine has been awake.
    noticed: Duration,
    by: Duration,
}

/// Differences up to this are those of any two clocks, and are followed at once.
const ORDINARY: Duration = Duration::from_secs(2);
/// Leaps that are remembered.
const LEAPS: usize = 64;

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The clock of the machine that this runs on.
    #[must_use]
    pub fn system() -> Self {
        Self::on(Machine::this())
    }

    /// A clock on `machine`, which begins with the time of its wall clock.
    #[must_use]
    pub fn on(machine: Machine) -> Self {
        let Readings { wall, elapsed, awake } = machine.read();
        let set = Set {
            zero: wall.micros().saturating_sub(micros(elapsed)),
            doubted: None,
            slept: elapsed.saturating_sub(awake),
            leaps: VecDeque::new(),
        };
        Self(Source::Machine { machine, set: Arc::new(Mutex::new(set)) })
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
    /// On the clock of a machine, which nobody moves.
    pub fn advance(&self, by: Duration) {
        let Source::Standing(standing) = &self.0 else {
            panic!("only a standing clock is moved");
        };
        standing.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// The time by this clock.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Standing(standing) => Time(standing.load(Ordering::SeqCst)),
            Source::Machine { machine, set } => held(set).at(&machine.read()),
        }
    }

    /// The time by this clock, less what it leapt ahead within the last `within`
    /// that the machine was awake: when the reference was set, or the machine
    /// slept. For what others had no time to do since, such as to renew a lease,
    /// and for what cannot be undone.
    #[must_use]
    pub(crate) fn settled(&self, within: Duration) -> Time {
        let Source::Machine { machine, set } = &self.0 else { return self.now() };
        let readings = machine.read();
        let mut set = held(set);
        set.note_sleep(&readings);
        let recent = |leap: &&Leap| leap.noticed.saturating_add(within) > readings.awake;
        let leapt: Duration = set.leaps.iter().filter(recent).map(|leap| leap.by).sum();
        set.at(&readings).before(leapt)
    }

    /// The time of a clock that a test moves; none where other clocks of the real
    /// world may be asked as well.
    pub(crate) fn standing(&self) -> Option<Time> {
        matches!(self.0, Source::Standing(_)).then(|| self.now())
    }

    /// How far this clock is ahead of the machine's wall clock, in microseconds;
    /// negative where it is behind.
    #[must_use]
    pub fn offset_micros(&self) -> i64 {
        match &self.0 {
            Source::Standing(_) => 0,
            Source::Machine { machine, set } => {
                let readings = machine.read();
                held(set).at(&readings).micros().saturating_sub(readings.wall.micros())
            }
        }
    }

    /// The time by the wall clock of the machine; none on a standing clock.
    pub(crate) fn wall(&self) -> Option<Time> {
        match &self.0 {
            Source::Standing(_) => None,
            Source::Machine { machine, .. } => Some(machine.read().wall),
        }
    }

    /// Sets the clock, and all its clones, by a reference that is `ahead`
    /// microseconds ahead of it, give or take `off`. A difference within that
    /// stays, so that time does not jump to and fro; a standing clock stands.
    pub(crate) fn set(&self, ahead: i64, off: Duration) {
        if let Source::Machine { set, .. } = &self.0
            && u128::from(ahead.unsigned_abs()) > off.as_micros()
        {
            let mut set = held(set);
            set.zero = set.zero.saturating_add(ahead);
        }
    }

    /// As [`Clock::set`], by a reference that may have been set itself: one that is
    /// far off counts from the second time on that it says so. Says whether the
    /// clock leapt.
    pub(crate) fn follow(&self, ahead: i64, off: Duration) -> bool {
        let Source::Machine { machine, set } = &self.0 else { return false };
        let is_ordinary = |difference: i64| {
            u128::from(difference.unsigned_abs()) <= ORDINARY.max(off).as_micros()
        };
        if is_ordinary(ahead) {
            held(set).doubted = None;
            self.set(ahead, off);
            return false;
        }
        let readings = machine.read();
        let mut set = held(set);
        let said_before = set.doubted.is_some_and(|d| is_ordinary(ahead.saturating_sub(d)));
        set.doubted = (!said_before).then_some(ahead);
        if said_before {
            set.zero = set.zero.saturating_add(ahead);
            if let Ok(ahead) = u64::try_from(ahead) {
                set.leap(&readings, Duration::from_micros(ahead));
            }
        }
        said_before
    }
}

impl Set {
    fn at(&self, readings: &Readings) -> Time {
        Time(self.zero.saturating_add(micros(readings.elapsed)))
    }

    fn note_sleep(&mut self, readings: &Readings) {
        let slept = readings.elapsed.saturating_sub(readings.awake);
        let more = slept.saturating_sub(self.slept);
        // What elapses between the two readings is no sleep.
        if more > ORDINARY {
            self.slept = slept;
            self.leap(readings, more);
        }
    }

    fn leap(&mut self, readings: &Readings, by: Duration) {
        if self.leaps.len() == LEAPS {
            self.leaps.pop_front();
        }
        self.leaps.push_back(Leap { noticed: readings.awake, by });
    }
}

fn held(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const HOUR_US: i64 = 3_600_000_000;
    const START: Time = Time(1_800_000_000_000_000);

    #[test]
    fn a_clock_is_set_by_another_and_does_not_jump_for_nothing() {
        let clock = Clock::system();
        let same = clock.clone();
        clock.set(HOUR_US, Duration::from_millis(5));
        clock.set(-20_000, Duration::from_millis(5));
        let set = |ahead: i64| (same.offset_micros() - ahead).abs() < 1_000_000;
        assert!(set(HOUR_US - 20_000), "{}", same.offset_micros());
        let on_a_shelf = Clock::on(Machine::by_hand(START));
        on_a_shelf.set(-4_000, Duration::from_millis(5));
        assert_eq!(on_a_shelf.offset_micros(), 0, "that may be the way of the answer");
        let standing = Clock::standing_at(Time::from_micros(5));
        standing.set(1_000, Duration::ZERO);
        assert_eq!(standing.now(), Time::from_micros(5));
    }

    #[test]
    fn the_system_goes_by_all_three_readings() {
        let clock = Clock::system();
        let before = clock.now();
        assert!(clock.offset_micros().abs() < 1_000_000);
        assert!(clock.settled(HOUR) >= before, "a machine that slept before we began");
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now() > before);
    }

    #[test]
    fn whoever_sets_the_wall_clock_does_not_move_ours() {
        let machine = Machine::by_hand(START);
        let clock = Clock::on(machine.clone());
        for step in [HOUR_US, -3 * HOUR_US] {
            machine.set_wall(step);
            assert_eq!(clock.now(), START);
        }
        machine.pass(HOUR);
        assert_eq!(clock.now(), START.after(HOUR));
        assert_eq!(clock.offset_micros(), 2 * HOUR_US, "and says how far off that one is");
    }

    #[test]
    fn a_reference_that_is_far_off_is_believed_the_second_time() {
        let machine = Machine::by_hand(START);
        let clock = Clock::on(machine.clone());
        assert!(!clock.follow(1_000_000, Duration::ZERO));
        assert_eq!(clock.now(), START.after(Duration::from_secs(1)), "near ones at once");
        clock.set(-1_000_000, Duration::ZERO);
        assert!(!clock.follow(HOUR_US, Duration::ZERO));
        assert!(!clock.follow(0, Duration::ZERO), "it was set back");
        assert!(!clock.follow(HOUR_US, Duration::ZERO));
        assert!(!clock.follow(-HOUR_US, Duration::ZERO), "another difference is a new one");
        assert_eq!(clock.now(), START);
        assert!(clock.follow(-HOUR_US - 1_000, Duration::ZERO));
        assert_eq!(clock.now(), START.before(HOUR).before(Duration::from_millis(1)));
        assert_eq!(clock.settled(HOUR), clock.now(), "nobody is late by that");
    }

    #[test]
    fn what_has_leapt_ahead_settles() {
        let machine = Machine::by_hand(START);
        let clock = Clock::on(machine.clone());
        let minute = HOUR / 60;
        clock.follow(HOUR_US, Duration::ZERO);
        clock.follow(HOUR_US, Duration::ZERO);
        assert_eq!((clock.now(), clock.settled(minute)), (START.after(HOUR), START));
        machine.pass(minute / 2);
        machine.sleep(2 * HOUR);
        assert_eq!(clock.now(), START.after(HOUR * 3 + minute / 2));
        assert_eq!(clock.settled(minute), START.after(minute / 2));
        machine.pass(minute / 2);
        assert_eq!(clock.settled(minute), START.after(HOUR + minute), "the first has");
        assert_eq!(clock.settled(HOUR), START.after(minute));
        machine.pass(minute / 2);
        assert_eq!(clock.settled(minute), clock.now());
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
