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
    kept_bytes: u64,
    truncated: bool,
}

/// A piece of output on its way to the service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
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
        let room = usize::try_from(self.limit_bytes - inner.kept_bytes).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        inner.waiting.extend_from_slice(kept);
        inner.kept_bytes += kept.len() as u64;
        inner.truncated |= kept.len() < bytes.len();
    }

    /// What has come since the last call.
    pub(crate) fn take(&self) -> Piece {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        Piece { bytes: std::mem::take(&mut inner.waiting), truncated: inner.truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_kept_and_the_cut_is_marked() {
        let output = Output::new(5);
        output.push(b"abc");
        assert_eq!(output.take(), Piece { bytes: b"abc".to_vec(), truncated: false });
        output.push(b"defg");
        output.push(b"h");
        assert_eq!(output.take(), Piece { bytes: b"de".to_vec(), truncated: true });
        output.push(b"i");
        assert_eq!(output.take(), Piece { bytes: Vec::new(), truncated: true });
    }

    #[test]
    fn output_of_exactly_the_limit_is_not_cut() {
        let output = Output::new(3);
        output.push(b"abc");
        assert!(!output.take().truncated);
    }
}
