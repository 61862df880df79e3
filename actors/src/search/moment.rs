//! Times as searches write them: a year, and as much more as is known; and hours as
//! schedules show them.

use crate::clock::Time;

/// `YYYY[-MM[-DD[T[HH[:MM[:SS[.ffffff]]]]]]]`, then `Z`, an offset (`-05:00`), or
/// nothing for UTC. What is left out is the first there is. A blank may stand in the
/// place of the T, and no number needs zeros before it.
pub(super) fn parse(text: &str) -> Option<Time> {
    let text = text.trim();
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (local, offset_minutes) = offset(text)?;
    let (date, clock) = match local.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, clock),
        None => (local, ""),
    };
    let mut date = date.splitn(3, '-');
    let year = date.next().filter(|year| year.len() == 4).and_then(|year| digits(year, 4))?;
    let month = date.next().map_or(Some(1), |text| digits(text, 2))?;
    let day = date.next().map_or(Some(1), |text| digits(text, 2))?;
    let [hour, minute, second, micros] = time_of_day(clock)?;
    let small = |n: i64| i8::try_from(n).ok();
    let moment = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        i32::try_from(micros * 1_000).ok()?,
    )
    .ok()?;
    let utc = moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let micros = utc.as_microsecond().checked_sub(offset_minutes * 60_000_000)?;
    Some(Time::from_micros(micros))
}

/// Hour, minute, second, microsecond.
fn time_of_day(text: &str) -> Option<[i64; 4]> {
    let mut parts = [0; 4];
    if text.is_empty() {
        return Some(parts);
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut count = 0;
    for (place, part) in whole.split(':').enumerate() {
        *parts[..3].get_mut(place)? = digits(part, 2)?;
        count = place + 1;
    }
    if let Some(fraction) = fraction {
        let known = (1..=9).contains(&fraction.len()) && count == 3;
        if !known || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let six: String = fraction.chars().chain("00000".chars()).take(6).collect();
        parts[3] = six.parse().ok()?;
    }
    Some(parts)
}

/// The text before the offset, and that in minutes. In a query string a plus that
/// was not encoded arrives as a blank.
fn offset(text: &str) -> Option<(&str, i64)> {
    let Some(at) = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at)) else {
        return Some((text, 0));
    };
    let (local, offset) = text.split_at(at);
    let sign = match offset.as_bytes()[0] {
        b'+' | b' ' => 1,
        b'-' => -1,
        _ => return Some((text, 0)),
    };
    let Some((hours, minutes)) = offset[1..].split_once(':') else { return Some((text, 0)) };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some((local, sign * (hours * 60 + minutes)))
}

/// A number of at most `most` digits and no other character.
fn digits(text: &str, most: usize) -> Option<i64> {
    let plain = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_far_as_it_is_known() {
        for (text, expected) in [
            ("2000", "2000-01-01T00:00:00.000000Z"),
            ("2000-05", "2000-05-01T00:00:00.000000Z"),
            ("2000-05:00", "2000-01-01T05:00:00.000000Z"),
            ("2000+05:00", "1999-12-31T19:00:00.000000Z"),
            ("2000 05:00", "1999-12-31T19:00:00.000000Z"),
            ("2000-02-29", "2000-02-29T00:00:00.000000Z"),
            ("2000-01-01T", "2000-01-01T00:00:00.000000Z"),
            ("2000-01-01T01", "2000-01-01T01:00:00.000000Z"),
            ("2000-01-01T01:00", "2000-01-01T01:00:00.000000Z"),
            ("2000-01-01T01:02:03", "2000-01-01T01:02:03.000000Z"),
            ("2000-01-01T01:02:03.1", "2000-01-01T01:02:03.100000Z"),
            ("2000-01-01T01:02:03.123456", "2000-01-01T01:02:03.123456Z"),
            ("2000-01-01T01:02:03.123Z", "2000-01-01T01:02:03.123000Z"),
            ("2000-01-01T01:02:03.123+01:30", "1999-12-31T23:32:03.123000Z"),
            ("2078-9-6 20", "2078-09-06T20:00:00.000000Z"),
            ("2078-10-1 3", "2078-10-01T03:00:00.000000Z"),
        ] {
            let time = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(time.iso_micros(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "x",
            "20000",
            "1",
            "2000-13",
            "2001-02-29",
            "2000-01-01T25",
            "2000-01-01T01:02.5",
            "2000-01-01T01:02:03.",
            "2000-01-01T01:02:03:04",
            "2000-01-01T01:00-25:00",
            "2000-1é:00",
            "-2000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
