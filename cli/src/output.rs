//! What goes to standard output: tables as docker prints them, ids only, JSON.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::Serialize;

use crate::exit::WritingOutput;

/// Writes one line.
///
/// # Errors
///
/// [`WritingOutput`], which is no failure when the reader has gone.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), WritingOutput> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).map_err(WritingOutput)
}

/// Writes text or bytes as they are.
///
/// # Errors
///
/// As for [`line()`].
pub(crate) fn raw(bytes: &[u8]) -> Result<(), WritingOutput> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(WritingOutput)
}

/// Writes to standard error what is not the output, so that a pipe does not get it.
///
/// # Errors
///
/// Standard error cannot be written to.
pub(crate) fn note(text: &str) -> anyhow::Result<()> {
    io::stderr().write_all(text.as_bytes()).context("could not write to standard error")
}

/// Writes a value as indented JSON.
///
/// # Errors
///
/// As for [`line()`].
pub(crate) fn json(value: &impl Serialize) -> Result<(), WritingOutput> {
    line(serde_json::to_string_pretty(value).expect("our values have text keys"))
}

/// Rows under headings, with docker's three blanks between columns.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(headings: [&'static str; N]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.headings.len(), "a row has a cell under each heading");
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// # Errors
    ///
    /// As for [`line()`].
    pub(crate) fn print(self) -> Result<(), WritingOutput> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(self.headings);
        for row in self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        let mut text = String::new();
        for row in table.to_string().lines() {
            text.push_str(row.trim_end());
            text.push('\n');
        }
        raw(text.as_bytes())
    }
}

/// A cell on one line that moves no cursor: what a stranger named a thing may
/// hold control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Docker's decimal sizes: three significant digits, `7.8MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if unit == 0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let mut number = format!("{value:.digits$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{number}{}", UNITS[unit])
}

/// Docker's words for a span of time: `2 minutes`, `3 weeks`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours <= 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// `… ago`, counted from now.
pub(crate) fn ago(then: SystemTime) -> String {
    format!("{} ago", span(now().duration_since(then).unwrap_or_default()))
}

/// The wall clock, for what people read.
#[expect(clippy::disallowed_methods, reason = "an age that is printed and forgotten")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Docker's sizes on the command line: `512m` is 512 MiB; a bare number is bytes.
///
/// # Errors
///
/// The text, when it is no size.
pub(crate) fn parse_size(text: &str) -> Result<u64, crate::exit::Usage> {
    let wrong = || crate::exit::Usage(format!("{text:?} is not a size; write it like 512m or 2g"));
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        Some(b't') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let value: f64 = number.parse().map_err(|_| wrong())?;
    #[expect(clippy::cast_precision_loss, reason = "the units are powers of two")]
    let bytes = value * (1_u64 << shift) as f64;
    if !bytes.is_finite() || !(0.0..9e18).contains(&bytes) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the range that was just checked"
    )]
    Ok(bytes as u64)
}

/// `--cpus` as the runtime counts it: billionths of one CPU.
///
/// # Errors
///
/// A number that is not above zero.
pub(crate) fn nano_cpus(cpus: f64) -> Result<u64, crate::exit::Usage> {
    if !(cpus.is_finite() && cpus > 0.0 && cpus < 1e6) {
        return Err(crate::exit::Usage(format!(
            "{cpus} is not a number of CPUs; write it like 1.5"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1e15, as just checked"
    )]
    Ok((cpus * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_prints_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (7_800_000, "7.8MB"),
            (78_100_000, "78.1MB"),
            (1_240_000_000, "1.24GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn memory_sizes_are_powers_of_two() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("64k", 64 << 10),
            ("100", 100),
            ("2GiB", 2 << 30),
            ("10mb", 10 << 20),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "many", "-1", "1x", "nan", "1e300"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_read_as_docker_prints_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3 * 60, "3 minutes"),
            (3600, "About an hour"),
            (5 * 3600, "5 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn names_of_strangers_move_no_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
