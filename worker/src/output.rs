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

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<u8>,
    /// How many bytes the service has got.
    handed_bytes: u64,
    truncated: bool,
    /// Whether the service knows that.
    told: bool,
}

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

    /// Keeps what fits under the limit.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
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

#[cfg(test)]
mod tests {
    use super::*;

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
