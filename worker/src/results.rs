//! What an execution sends back through its socket: read as it comes, and handed
//! on while it runs.
//!
//! One datagram is one result. A sender gets no answer, so what is not kept is
//! said in the execution's log.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::sync::Notify;

use crate::output::Output;

/// Where containers find the socket, as Abaco has it.
pub(crate) const SOCKET: &str = "/_abaco_results.sock";
/// What may wait here for the service. With more, the socket is left unread, so
/// that its senders wait.
const WAITING_BYTES: usize = 4 << 20;

/// The results that the service has not got yet.
///
/// Filled by the thread of the container, emptied by its task.
#[derive(Debug)]
pub(crate) struct Results {
    /// What one may have.
    limit_bytes: usize,
    /// What all may have together.
    total_limit_bytes: u64,
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Arc<[u8]>>,
    waiting_bytes: usize,
    /// How many the service has got.
    handed: u64,
    /// Of all that were kept.
    total_bytes: u64,
    /// Whether the log says that there were too many.
    told: bool,
}

/// Results on their way to the service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The number of the first.
    pub(crate) first: u64,
    pub(crate) results: Vec<Arc<[u8]>>,
}

impl Results {
    pub(crate) fn new(limit_bytes: u64, total_limit_bytes: u64) -> Self {
        Self {
            limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
            total_limit_bytes,
            inner: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// A socket that nothing can be sent to yet.
    pub(crate) fn socket() -> io::Result<Arc<UnixDatagram>> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Arc::new(socket))
    }

    /// Whether more may be read now.
    pub(crate) fn has_room(&self) -> bool {
        self.inner().waiting_bytes < WAITING_BYTES
    }

    /// Reads all that is there, as long as there is room; regardless of that, where
    /// nobody can send any more.
    pub(crate) fn read(&self, socket: &UnixDatagram, output: &Output, is_last: bool) {
        while is_last || self.has_room() {
            // What stays of the length when nothing of it is read: recv(2), MSG_TRUNC.
            let look = RecvFlags::PEEK | RecvFlags::TRUNC;
            let length = match recv(socket, &mut [0_u8; 1], look) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                // Nothing is there, or nothing that can be read.
                Err(_) => return,
            };
            let mut bytes = vec![0; length.min(self.limit_bytes)];
            if recv(socket, &mut bytes[..], RecvFlags::empty()).is_err() {
                return;
            }
            if length > self.limit_bytes {
                output.push(&notice(&format!(
                    "a result of {length} bytes was dropped: at most {} are taken",
                    self.limit_bytes
                )));
            } else {
                self.push(bytes, output);
            }
        }
    }

    fn push(&self, bytes: Vec<u8>, output: &Output) {
        let mut inner = self.inner();
        let total_bytes = inner.total_bytes.saturating_add(bytes.len() as u64);
        if total_bytes > self.total_limit_bytes || inner.handed + inner.waiting.len() as u64 >= MOST
        {
            if !inner.told {
                inner.told = true;
                output.push(&notice(&format!(
                    "results are kept up to {MOST} of them or {} bytes; the rest is dropped",
                    self.total_limit_bytes
                )));
            }
            return;
        }
        inner.total_bytes = total_bytes;
        inner.waiting_bytes += bytes.len();
        inner.waiting.push(bytes.into());
        drop(inner);
        self.arrived.notify_one();
    }

    /// What the service has not got yet.
    pub(crate) fn next(&self) -> Option<Batch> {
        let inner = self.inner();
        (!inner.waiting.is_empty())
            .then(|| Batch { first: inner.handed + 1, results: inner.waiting.clone() })
    }

    /// The service has got a batch, which is dropped here.
    pub(crate) fn handed(&self, batch: &Batch) {
        let mut inner = self.inner();
        inner.waiting.drain(..batch.results.len());
        inner.waiting_bytes -= batch.results.iter().map(|result| result.len()).sum::<usize>();
        inner.handed += batch.results.len() as u64;
    }

    /// Waits until something came. Cancel-safe.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

/// How many results are kept of one execution.
const MOST: u64 = 10_000;

fn notice(text: &str) -> Vec<u8> {
    format!("\n*** abax: {text} ***\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixDatagram, Arc<UnixDatagram>) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Arc::new(ours))
    }

    #[test]
    fn results_keep_their_order_and_their_bytes() {
        let (sender, socket) = pair();
        let (results, output) = (Results::new(10, 100), Output::new(1_000));
        for result in [&b"one"[..], b"\0two\xff", b""] {
            sender.send(result).unwrap();
        }
        results.read(&socket, &output, false);
        let batch = results.next().unwrap();
        let bytes: Vec<&[u8]> = batch.results.iter().map(|result| &**result).collect();
        assert_eq!((batch.first, bytes), (1, vec![&b"one"[..], b"\0two\xff", b""]));
        sender.send(b"four").unwrap();
        results.read(&socket, &output, false);
        results.handed(&batch);
        assert_eq!(results.next().unwrap(), Batch { first: 4, results: vec![b"four"[..].into()] });
        assert_eq!(output.next(), None, "nothing is wrong");
    }

    #[test]
    fn what_is_too_large_is_dropped_whole_and_the_log_says_so() {
        let (sender, socket) = pair();
        let (results, output) = (Results::new(5, 12), Output::new(1_000));
        for result in [&b"12345"[..], b"123456", b"12345", b"123"] {
            sender.send(result).unwrap();
        }
        results.read(&socket, &output, true);
        assert_eq!(results.next().unwrap().results.len(), 2);
        let said = String::from_utf8(output.next().unwrap().bytes).unwrap();
        assert!(said.contains("a result of 6 bytes was dropped"), "{said}");
        assert!(said.contains("or 12 bytes; the rest is dropped"), "{said}");
    }
}
