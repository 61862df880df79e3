use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A request as it came in: the head only.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of the header field `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True for a request for a blob.
    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/sha256:")
    }

    /// True for a request for a manifest.
    pub fn is_manifest(&self) -> bool {
        self.target.contains("/manifests/")
    }
}

/// What a [`Front`] does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it to the server behind and its answer back.
    Forward,
    /// As `Forward`, but the connection is cut after this many bytes of body.
    CutAfter(usize),
    /// As `Forward`, but the last byte of the body is another one.
    Corrupt,
    /// As `Forward`, after a wait.
    Delay(Duration),
    /// As `Forward`, but without the request's `Range` field.
    IgnoreRange,
    /// Answer with this status, these header fields, this body.
    Answer(u16, Vec<(String, String)>, String),
}

/// A server in front of another one that can misbehave on request, and that
/// remembers what it was asked.
pub struct Front {
    listener: Listener,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Front {
    /// Starts a front of the server at `behind` (`127.0.0.1:PORT`). `decide`
    /// gets each request and how many of the same method and target came
    /// before it.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn start(
        behind: &str,
        decide: impl Fn(&Request, usize) -> Action + Send + Sync + 'static,
    ) -> Result<Self> {
        let behind = behind.to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let counts = Mutex::new(HashMap::new());
        let listener = Listener::start(move |request, stream| {
            lock(&log).push(request.clone());
            let earlier = {
                let mut counts = lock(&counts);
                let key = (request.method.clone(), request.target.clone());
                let count: &mut usize = counts.entry(key).or_default();
                *count += 1;
                *count - 1
            };
            handle(&behind, request, decide(request, earlier), stream)
        })?;
        Ok(Self { listener, seen })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.listener.address().to_string()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.seen).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle(behind: &str, request: &Request, action: Action, mut client: TcpStream) -> Result<()> {
    let mut cut = usize::MAX;
    let mut corrupt = false;
    let mut range = true;
    match action {
        Action::Forward => {}
        Action::CutAfter(bytes) => cut = bytes,
        Action::Corrupt => corrupt = true,
        Action::Delay(wait) => thread::sleep(wait),
        Action::IgnoreRange => range = false,
        Action::Answer(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} Testbed\r\n");
            for (key, value) in headers {
                head += &format!("{key}: {value}\r\n");
            }
            head += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            client.write_all(head.as_bytes())?;
            client.write_all(body.as_bytes())?;
            return Ok(());
        }
    }
    let mut server = TcpStream::connect(behind)?;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (key, value) in &request.headers {
        if key != "connection" && (range || key != "range") {
            head += &format!("{key}: {value}\r\n");
        }
    }
    head += "Connection: close\r\n\r\n";
    server.write_all(head.as_bytes())?;
    let mut server = BufReader::new(server);
    let (first, headers) = read_head(&mut server)?;
    let mut head = format!("{first}\r\n");
    for (key, value) in headers.iter().filter(|(key, _)| key != "connection") {
        head += &format!("{key}: {value}\r\n");
    }
    head += "Connection: close\r\n\r\n";
    client.write_all(head.as_bytes())?;
    let length = headers.iter().find(|(key, _)| key == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(usize::MAX);
    let mut sent = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = server.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let chunk = &mut buffer[..read];
        if corrupt && sent + chunk.len() == length {
            let last = chunk.len() - 1;
            chunk[last] ^= 0xff;
        }
        let wanted = chunk.len().min(cut - sent);
        client.write_all(&chunk[..wanted])?;
        sent += wanted;
        if sent == cut {
            break;
        }
    }
    Ok(())
}

type Handler = dyn Fn(&Request, TcpStream) -> Result<()> + Send + Sync;

/// A loopback listener with a thread per connection, one request each.
pub(crate) struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn start(
        handler: impl Fn(&Request, TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let handler: Arc<Handler> = Arc::new(handler);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let handler = Arc::clone(&handler);
                // A peer that hangs up is the peer's business.
                thread::spawn(move || drop(serve(&*handler, &stream)));
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(handler: &Handler, stream: &TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (first, headers) = read_head(&mut reader)?;
    let mut words = first.split(' ');
    let method = words.next().context("no method")?.to_owned();
    let target = words.next().context("no target")?.to_owned();
    let served = handler(&Request { method, target, headers }, stream.try_clone()?);
    stream.shutdown(Shutdown::Both)?;
    served
}

pub(crate) fn read_head(
    reader: &mut impl std::io::BufRead,
) -> Result<(String, Vec<(String, String)>)> {
    let mut lines = reader.by_ref().take(64 << 10).lines();
    let first = lines.next().context("no head")??;
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            return Ok((first, headers));
        }
        let (key, value) = line.split_once(':').context("no header field")?;
        headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    bail!("the head has no end")
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; it may have ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
