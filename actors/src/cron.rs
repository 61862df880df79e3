//! Schedules: when an actor is executed without a message.
//!
//! ```text
//! START + NUMBER UNIT     2078-09-06 20 + 3 months      now + 1 hour
//! ```
//!
//! START is an hour in UTC that has not passed, or `now`; the unit is `hour`,
//! `day`, `week` or `month`, also in the plural. The times are START and each
//! NUMBER UNIT after it. Months are those of the calendar, and each is counted
//! from START: of one that begins on the 31st, the days are 31, 28, 31, 30.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::clock::Time;
use crate::error::Error;

const HOUR_US: i64 = 3_600_000_000;
/// Repetitions further apart than this are a mistake.
const LONGEST: i64 = 100_000;

/// When an actor is executed without a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cron {
    /// The schedule, as it was given.
    pub schedule: Option<String>,
    /// Whether anything is executed by it; its times pass all the same.
    pub on: bool,
    /// The next of its times; none where there is no schedule, or no further time.
    pub next: Option<Time>,
    /// From where its times are counted.
    pub(crate) start: Option<Time>,
}

impl Cron {
    /// The next time as Abaco writes it: `YYYY-M-D H`, in UTC and without zeros
    /// before a number.
    #[must_use]
    pub fn next_text(&self) -> Option<String> {
        let at = civil(self.next?)?;
        Some(format!("{}-{}-{} {}", at.year(), at.month(), at.day(), at.hour()))
    }

    /// What a new actor has that gives `schedule`: one that is given is on.
    pub(crate) fn registered(schedule: Option<String>, now: Time) -> Result<Self, Error> {
        let on = schedule.as_ref().is_some_and(|text| !text.is_empty());
        Self::default().updated(schedule, on, now)
    }

    /// What becomes of it when an update gives `schedule`, or none, which keeps the
    /// one that there is; the empty text takes it away. The one that there is
    /// already goes on where it stands.
    pub(crate) fn updated(
        &self,
        schedule: Option<String>,
        on: bool,
        now: Time,
    ) -> Result<Self, Error> {
        let Some(text) = schedule.filter(|text| self.schedule.as_ref() != Some(text)) else {
            return Ok(Self { on, ..self.clone() });
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        let schedule = Schedule::parse(&text, now)?;
        let start = Some(schedule.start);
        Ok(Self { schedule: Some(text), on, next: start, start })
    }

    /// The first time after `now`.
    pub(crate) fn first_after(&self, now: Time) -> Option<Time> {
        let (_, repeated) = self.schedule.as_deref()?.split_once(" + ")?;
        let repeated = Repetition::parse(repeated)?;
        Schedule { start: self.start?, repeated }.first_after(now)
    }
}

/// A schedule whose start is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    start: Time,
    repeated: Repetition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repetition {
    number: i64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Hours,
    Days,
    Weeks,
    Months,
}

impl Schedule {
    /// Reads a schedule that is given at `now`.
    fn parse(text: &str, now: Time) -> Result<Self, Error> {
        let (start, repeated) = text.split_once(" + ").ok_or_else(|| {
            malformed("write START + NUMBER UNIT, as in 2078-09-06 20 + 3 months or now + 1 hour")
        })?;
        let repeated = Repetition::parse(repeated).ok_or_else(|| {
            malformed("after the + stand a whole number from 1 on and hours, days, weeks or months")
        })?;
        let this_hour = Time::from_micros(now.micros().div_euclid(HOUR_US) * HOUR_US);
        if start.eq_ignore_ascii_case("now") {
            return Ok(Self { start: this_hour, repeated });
        }
        let start = hour(start).ok_or_else(|| {
            malformed("before the + stands an hour that there is, as YYYY-MM-DD HH, or now")
        })?;
        if start < this_hour {
            return Err(Error::invalid(
                "cron_schedule",
                "The starting datetime is old; give this hour (UTC) or a later one, or now",
            ));
        }
        Ok(Self { start, repeated })
    }

    fn first_after(self, now: Time) -> Option<Time> {
        let Repetition { number, unit } = self.repeated;
        let passed = now.micros().saturating_sub(self.start.micros());
        if passed < 0 {
            return Some(self.start);
        }
        let hours = match unit {
            Unit::Hours => 1,
            Unit::Days => 24,
            Unit::Weeks => 7 * 24,
            Unit::Months => return self.first_month_after(now),
        };
        let every = number.checked_mul(hours * HOUR_US)?;
        let until = every.checked_mul(passed / every + 1)?;
        Some(Time::from_micros(self.start.micros().checked_add(until)?))
    }

    fn first_month_after(self, now: Time) -> Option<Time> {
        let (from, to) = (civil(self.start)?, civil(now)?);
        let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month() - from.month());
        // The time of this month may have come, or be to come.
        let first = months / self.repeated.number;
        (first..=first + 1)
            .filter_map(|n| {
                let span = Span::new().try_months(n.checked_mul(self.repeated.number)?).ok()?;
                moment(from.checked_add(span).ok()?)
            })
            .find(|time| *time > now)
    }
}

impl Repetition {
    /// `3 months`.
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once(' ')?;
        let number = digits(number).filter(|number| (1..=LONGEST).contains(number))?;
        let unit = match unit {
            "hour" | "hours" => Unit::Hours,
            "day" | "days" => Unit::Days,
            "week" | "weeks" => Unit::Weeks,
            "month" | "months" => Unit::Months,
            _ => return None,
        };
        Some(Self { number, unit })
    }
}

/// `YYYY-M-D H`, with zeros or without.
fn hour(text: &str) -> Option<Time> {
    let (date, hour) = text.split_once(' ')?;
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let small = |n: i64| i8::try_from(n).ok();
    let year = i16::try_from(year).ok()?;
    let (month, day, hour) = (small(month)?, small(day)?, small(digits(hour)?)?);
    moment(DateTime::new(year, month, day, hour, 0, 0, 0).ok()?)
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn civil(time: Time) -> Option<DateTime> {
    let timestamp = Timestamp::from_microsecond(time.micros()).ok()?;
    Some(TimeZone::UTC.to_datetime(timestamp))
}

fn moment(at: DateTime) -> Option<Time> {
    let timestamp = TimeZone::UTC.to_timestamp(at).ok()?;
    Some(Time::from_micros(timestamp.as_microsecond()))
}

fn malformed(right: &str) -> Error {
    let problem = format!("The cron schedule is not in the correct format; {right}");
    Error::invalid("cron_schedule", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Time {
        hour(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn problem(text: &str) -> String {
        match Cron::registered(Some(text.to_owned()), at("2026-11-23 4")) {
            Err(Error::Invalid { field, problem }) if field == "cron_schedule" => problem,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_schedule_begins_where_it_says() {
        let now = Time::from_micros(at("2026-11-23 4").micros() + HOUR_US / 2);
        for (text, next) in [
            ("2026-11-24 23 + 6 hours", "2026-11-24 23"),
            ("2078-09-6 20 + 3 months", "2078-9-6 20"),
            ("2026-11-23 4 + 1 day", "2026-11-23 4"),
            ("now + 1 hour", "2026-11-23 4"),
            ("Now + 2 weeks", "2026-11-23 4"),
        ] {
            let cron = Cron::registered(Some(text.to_owned()), now).unwrap();
            assert_eq!(cron.schedule.as_deref(), Some(text));
            assert_eq!(cron.next_text().as_deref(), Some(next), "{text}");
            assert!(cron.on, "{text}");
        }
        assert_eq!(Cron::registered(None, now).unwrap(), Cron::default());
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_is() {
        for text in [
            " ",
            "tomorrow",
            "now+1 hour",
            "now + 1",
            "now + hour",
            "now + 0 hours",
            "now + -1 hours",
            "now + +1 hours",
            "now + 1.5 hours",
            "now + 1  hour",
            "now + 99999999999999999999 hours",
            "now + 1 hour + 1 hour",
            "2078-02-30 10 + 1 day",
            "2078-13-01 10 + 1 day",
            "2078-01-01 24 + 1 day",
            "2078-01-01 + 1 day",
            "2078-01-01-01 10 + 1 day",
            "2020-06-21 14 + 6 flimflams",
        ] {
            let problem = problem(text);
            assert!(problem.contains("not in the correct format"), "{text}: {problem}");
        }
        for text in ["2020-06-21 14 + 6 hours", "2026-11-23 3 + 1 hour"] {
            assert!(problem(text).starts_with("The starting datetime is old"), "{text}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_that_has_not_come() {
        for (schedule, now, next) in [
            ("2026-11-23 4 + 1 hour", "2026-11-23 4", "2026-11-23 5"),
            ("2026-11-23 4 + 6 hours", "2026-11-23 9", "2026-11-23 10"),
            ("2026-11-23 4 + 6 hours", "2026-11-24 4", "2026-11-24 10"),
            ("2026-11-23 4 + 1 day", "2026-12-31 4", "2027-1-1 4"),
            ("2026-11-23 4 + 2 weeks", "2026-11-23 4", "2026-12-7 4"),
            ("2027-01-31 4 + 1 month", "2027-01-31 4", "2027-2-28 4"),
            ("2027-01-31 4 + 1 month", "2027-02-28 4", "2027-3-31 4"),
            ("2028-01-31 4 + 1 month", "2028-01-31 4", "2028-2-29 4"),
            ("2027-01-31 4 + 5 months", "2027-02-01 4", "2027-6-30 4"),
            ("2027-01-31 4 + 12 months", "2031-06-01 0", "2032-1-31 4"),
            ("2078-01-31 4 + 1 month", "2027-01-31 4", "2078-1-31 4"),
        ] {
            let mut cron = Cron::registered(Some(schedule.to_owned()), at("2026-11-23 4")).unwrap();
            cron.next = cron.first_after(at(now));
            assert_eq!(cron.next_text().as_deref(), Some(next), "{schedule} at {now}");
        }
        let last = at("9999-12-20 23");
        let cron = Cron::registered(Some("9999-12-20 23 + 1 month".to_owned()), last).unwrap();
        assert_eq!(cron.first_after(last), None, "time ends there");
    }

    #[test]
    fn an_update_without_a_schedule_or_with_the_same_goes_on() {
        let now = at("2026-11-23 4");
        let given = Some("now + 1 hour".to_owned());
        let cron = Cron::registered(given.clone(), now).unwrap();
        let later = at("2027-11-23 4");
        for schedule in [None, given] {
            let updated = cron.updated(schedule, false, later).unwrap();
            assert_eq!(updated, Cron { on: false, ..cron.clone() });
        }
        assert_eq!(cron.updated(Some(String::new()), true, later).unwrap(), Cron::default());
        let other = cron.updated(Some("now + 1 day".to_owned()), true, later).unwrap();
        assert_eq!((other.next, other.on), (Some(later), true));
    }

    proptest! {
        #[test]
        fn each_time_follows_the_last_by_one_repetition(
            number in 1_i64..200,
            unit in 0_usize..4,
            start in 0_i64..1_000_000,
            passed in 0_i64..1_000_000,
        ) {
            let unit = [Unit::Hours, Unit::Days, Unit::Weeks, Unit::Months][unit];
            let start = Time::from_micros(start * HOUR_US);
            let schedule = Schedule { start, repeated: Repetition { number, unit } };
            let now = Time::from_micros(start.micros() + passed * HOUR_US);
            let next = schedule.first_after(now).unwrap();
            prop_assert!(next > now);
            let longest = match unit { Unit::Hours => 1, Unit::Days => 24, Unit::Weeks => 168, Unit::Months => 31 * 24 };
            prop_assert!(next.micros() - now.micros() <= number * longest * HOUR_US);
            // Nothing between: just before it, it is the next one too.
            let before = Time::from_micros(next.micros() - 1);
            prop_assert_eq!(schedule.first_after(before), Some(next));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,40}|now \\+ [0-9]{1,20} (hour|month)s?|[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3} [0-9]{1,3} \\+ [0-9]{1,3} days") {
            let _ = Cron::registered(Some(text), at("2026-11-23 4"));
        }
    }
}
