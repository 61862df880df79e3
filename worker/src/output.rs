//! What an execution writes: bounded, and handed on while it runs.

use std::sync::Mutex;

/// The end of the container's output that the service has not got yet.
///
/// Filled by the thread of the container, emptied by its task. A container is
/// never held up here: beyond the limit its output is read and dropped.
#[derive(Debug)]
pub(crate) struct Output {
    limit_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What nobody is to read.
    secret: Option<String>,
    /// The last of the output, with which the secret may begin.
    held: Vec<u8>,
    waiting: Vec<u8>,
    /// How many bytes the service has got.
    handed_bytes: u64,
    truncated: bool,
    /// Whether the service knows that.
    told: bool,
}

/// What stands in the place of a secret.
const SHOWN_INSTEAD: &[u8] = b"[token]";

/// A piece of output on its way to the service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// How many bytes came before.
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
    /// Whether something that came before now was dropped.
    pub(crate) truncated: bool,
}

impl Output {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, inner: Mutex::default() }
    }

    /// From now on something else stands where `secret` is written.
    pub(crate) fn hide(&self, secret: &str) {
        if secret.len() > SHOWN_INSTEAD.len() {
            let mut inner = self.inner.lock().expect("no holder of this lock panics");
            inner.secret = Some(secret.to_owned());
        }
    }

    /// Keeps what fits under the limit.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let Some(secret) = inner.secret.take() else { return self.keep(&mut inner, bytes) };
        let mut written = std::mem::take(&mut inner.held);
        written.extend_from_slice(bytes);
        let (shown, held) = without(&written, secret.as_bytes());
        self.keep(&mut inner, &shown);
        inner.held = held.to_vec();
        inner.secret = Some(secret);
    }

    /// Nothing more is written: what was held back was no secret.
    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let held = std::mem::take(&mut inner.held);
        self.keep(&mut inner, &held);
    }

    fn keep(&self, inner: &mut Inner, bytes: &[u8]) {
        let kept_bytes = inner.handed_bytes + inner.waiting.len() as u64;
        let room = usize::try_from(self.limit_bytes - kept_bytes).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        inner.waiting.extend_from_slice(kept);
        inner.truncated |= kept.len() < bytes.len();
    }

    /// What the service has not got yet; none when there is nothing to tell.
    pub(crate) fn next(&self) -> Option<Piece> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        if inner.waiting.is_empty() && (inner.told || !inner.truncated) {
            return None;
        }
        Some(Piece {
            position: inner.handed_bytes,
            bytes: inner.waiting.clone(),
            truncated: inner.truncated,
        })
    }

    /// The service has got a piece, which is dropped here.
    pub(crate) fn handed(&self, piece: &Piece) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        inner.waiting.drain(..piece.bytes.len());
        inner.handed_bytes += piece.bytes.len() as u64;
        inner.told = piece.truncated;
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("waiting_bytes", &self.waiting.len())
            .field("handed_bytes", &self.handed_bytes)
            .finish_non_exhaustive()
    }
}

/// `written` with something else in the place of `secret`, and the end of it that the
/// secret may begin with.
fn without<'w>(mut written: &'w [u8], secret: &[u8]) -> (Vec<u8>, &'w [u8]) {
    let mut shown = Vec::with_capacity(written.len());
    while let Some(first) = written.iter().position(|byte| Some(byte) == secret.first()) {
        let (before, rest) = written.split_at(first);
        shown.extend_from_slice(before);
        if let Some(after) = rest.strip_prefix(secret) {
            shown.extend_from_slice(SHOWN_INSTEAD);
            written = after;
        } else if secret.starts_with(rest) {
            return (shown, rest);
        } else {
            shown.push(rest[0]);
            written = &rest[1..];
        }
    }
    shown.extend_from_slice(written);
    (shown, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_however_it_is_written() {
        let secret = "eeyJhbGciOi.eeyJzdWIi.eeyJ";
        let text = format!("e={secret}{secret} ee {} eeyJ", &secret[..20]);
        let expected = format!("e=[token][token] ee {} eeyJ", &secret[..20]);
        for size in 1..=text.len() {
            let output = Output::new(1_000);
            output.hide(secret);
            text.as_bytes().chunks(size).for_each(|part| output.push(part));
            output.end();
            let shown = output.next().unwrap().bytes;
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "in pieces of {size}");
        }
        let output = Output::new(1_000);
        output.hide(secret);
        output.push(b"a line\n");
        assert_eq!(output.next().unwrap().bytes, b"a line\n", "at once, where it is no secret");
        assert!(!format!("{output:?}").contains(secret));
    }

    #[test]
    fn the_head_is_kept_and_the_cut_is_marked() {
        let output = Output::new(5);
        let piece = |position, bytes: &[u8], truncated| {
            Some(Piece { position, bytes: bytes.to_vec(), truncated })
        };
        output.push(b"abc");
        assert_eq!(output.next(), piece(0, b"abc", false));
        output.push(b"d");
        assert_eq!(output.next(), piece(0, b"abcd", false), "until the service has it");
        output.handed(&piece(0, b"abc", false).unwrap());
        output.push(b"efg");
        output.push(b"h");
        assert_eq!(output.next(), piece(3, b"de", true));
        output.handed(&output.next().unwrap());
        output.push(b"i");
        assert_eq!(output.next(), None, "a cut is told once");
    }

    #[test]
    fn output_of_exactly_the_limit_is_not_cut() {
        let output = Output::new(3);
        output.push(b"abc");
        assert!(!output.next().unwrap().truncated);
    }
}
