//! The layers of one image on their way into the store.
//!
//! ```text
//! downloaders (3)   lock the blob → fetch into its partial file → verify, rename
//!                                       │ bytes so far
//! unpackers (cores)                     └─► read behind → unpack → verify diff_id
//! ```
//!
//! Both take the layers in order, so an unpacker only ever waits for a layer
//! that is downloading or about to. One failure stops everything.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};

use super::auth::Session;
use super::error::Error;
use super::manifest::{self, LayerDescriptor, Resolved};
use super::{Event, LayerStatus, PullError, Source};
use crate::digest::DiffId;
use crate::image::{BlobWriter, Store, StoreError};

/// Progress is told this often for each layer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// A download that brought this much before it broke starts its attempts anew.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;
/// How often a whole layer is fetched that arrives with a wrong digest.
const MAX_WRONG_ARRIVALS: u32 = 2;
/// More unpackers than this only move the disk's head.
const MAX_UNPACKERS: usize = 4;

/// All distinct layers of one image and how far each is.
pub(super) struct Layers<'a> {
    store: &'a Store,
    source: &'a Source<'a>,
    layers: Vec<LayerDescriptor>,
    arrivals: Mutex<Arrivals>,
    changed: Condvar,
}

struct Arrivals {
    /// In the order of `Layers::layers`.
    layers: Vec<Arrival>,
    /// The first failure.
    failure: Option<PullError>,
}

enum Arrival {
    Waiting,
    /// The first `bytes` of `file` are there.
    Arriving {
        file: Arc<File>,
        bytes: u64,
        attempt: u32,
    },
    /// The blob is in the store; `file` is it.
    Stored {
        file: Arc<File>,
        attempt: u32,
    },
}

impl<'a> Layers<'a> {
    pub(super) fn new(store: &'a Store, source: &'a Source<'a>, resolved: &Resolved) -> Self {
        let mut layers: Vec<LayerDescriptor> = Vec::with_capacity(resolved.layers.len());
        for layer in &resolved.layers {
            // Images repeat small layers; the empty one above all.
            if !layers.contains(layer) {
                layers.push(*layer);
            }
        }
        let arrivals = layers.iter().map(|_| Arrival::Waiting).collect();
        Self {
            store,
            source,
            layers,
            arrivals: Mutex::new(Arrivals { layers: arrivals, failure: None }),
            changed: Condvar::new(),
        }
    }

    /// Brings config and layers into the store and unpacks them.
    pub(super) fn fetch(self, resolved: &Resolved) -> Result<(), PullError> {
        let downloads = AtomicUsize::new(0);
        let unpacks = AtomicUsize::new(0);
        let count = self.layers.len();
        thread::scope(|scope| {
            for _ in 0..self.source.config.parallel_downloads.get().min(count) {
                let work = || self.each(&downloads, |index| self.download(index));
                if let Err(source) =
                    thread::Builder::new().name("abax-download".into()).spawn_scoped(scope, work)
                {
                    return self.fail(PullError::Thread { source });
                }
            }
            // The downloads are under way while the config comes.
            let diff_ids = self
                .source
                .config(self.store, &resolved.config)
                .and_then(|config| manifest::diff_ids(resolved, &config));
            let diff_ids = match diff_ids {
                Ok(diff_ids) => diff_ids,
                Err(error) => return self.fail(error),
            };
            // Every layer of the manifest, as the same blob might be listed under two diff_ids.
            let mut wanted: Vec<(usize, DiffId)> = Vec::with_capacity(count);
            for (layer, diff_id) in resolved.layers.iter().zip(diff_ids) {
                let index = self.layers.iter().position(|known| known == layer);
                let pair = (index.expect("all layers are listed"), diff_id);
                if !wanted.contains(&pair) {
                    wanted.push(pair);
                }
            }
            let wanted = Arc::new(wanted);
            let cores = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..cores.min(MAX_UNPACKERS).min(wanted.len()) {
                let wanted = Arc::clone(&wanted);
                let (layers, unpacks) = (&self, &unpacks);
                let work = move || {
                    while let Some((index, diff_id)) =
                        wanted.get(unpacks.fetch_add(1, Ordering::Relaxed))
                    {
                        if layers.has_failed() {
                            return;
                        }
                        if let Err(error) = layers.unpack(*index, diff_id) {
                            layers.fail(error);
                        }
                    }
                };
                if let Err(source) =
                    thread::Builder::new().name("abax-unpack".into()).spawn_scoped(scope, work)
                {
                    return self.fail(PullError::Thread { source });
                }
            }
        });
        match self.arrivals.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Does `work` for one layer after the other until all are taken or one has failed.
    fn each(&self, next: &AtomicUsize, work: impl Fn(usize) -> Result<(), PullError>) {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.layers.len() || self.has_failed() {
                return;
            }
            if let Err(error) = work(index) {
                self.fail(error);
            }
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.arrivals().failure.is_some()
    }

    /// The first failure counts; the others follow from it.
    fn fail(&self, error: PullError) {
        let mut arrivals = self.arrivals();
        arrivals.failure.get_or_insert(error);
        self.source.http.stop();
        self.changed.notify_all();
    }

    fn set(&self, index: usize, arrival: Arrival) {
        self.arrivals().layers[index] = arrival;
        self.changed.notify_all();
    }

    fn tell(&self, index: usize, status: LayerStatus) {
        let LayerDescriptor { digest, size_bytes, .. } = &self.layers[index];
        self.source.progress.event(Event::Layer { digest, size_bytes: *size_bytes, status });
    }
}

/// Downloading.
impl<'a> Layers<'a> {
    fn download(&self, index: usize) -> Result<(), PullError> {
        let digest = self.layers[index].digest;
        let stored = |source| PullError::Store { digest, source };
        if !self.store.has_blob(&digest) {
            self.tell(index, LayerStatus::Waiting);
            let _lock = self.store.lock_blob(&digest).map_err(stored)?;
            // Whoever held the lock may have fetched it.
            if !self.store.has_blob(&digest) {
                return self.fetch_blob(index);
            }
        }
        self.tell(index, LayerStatus::Exists);
        let file = Arc::new(self.store.open_blob(&digest).map_err(stored)?);
        self.set(index, Arrival::Stored { file, attempt: 0 });
        Ok(())
    }

    fn fetch_blob(&self, index: usize) -> Result<(), PullError> {
        let LayerDescriptor { digest, size_bytes, .. } = self.layers[index];
        let stored = |source| PullError::Store { digest, source };
        let mut attempt = 0;
        loop {
            let writer = self.store.blob_writer(&digest, Some(size_bytes)).map_err(stored)?;
            let file = Arc::new(writer.reader().map_err(stored)?);
            let bytes = writer.offset();
            self.set(index, Arrival::Arriving { file: Arc::clone(&file), bytes, attempt });
            match self.fetch_into(index, writer) {
                Ok(()) => {
                    self.set(index, Arrival::Stored { file, attempt });
                    return Ok(());
                }
                Err(error @ PullError::DigestMismatch { .. }) => {
                    attempt += 1;
                    if attempt == MAX_WRONG_ARRIVALS {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Downloads what the partial file lacks, and gives it its name.
    fn fetch_into(&self, index: usize, mut writer: BlobWriter) -> Result<(), PullError> {
        let digest = self.layers[index].digest;
        let mut told = Instant::now();
        let (what, name) = (format!("layer {digest}"), digest.to_string());
        let asked = self.source.ask(&what, |session, reached| {
            let outcome = self.attempt(index, session, &name, &mut writer, &mut told);
            *reached = writer.offset() / PROGRESS_STEP_BYTES;
            outcome
        });
        match asked {
            Ok(_) => {}
            Err(PullError::Registry { source }) => {
                return Err(PullError::Fetch { digest, source: Box::new(source) });
            }
            Err(error) => return Err(error),
        }
        self.tell(index, LayerStatus::Verifying);
        writer.commit().map_err(|source| match source {
            StoreError::Corrupt { expected, actual } => {
                PullError::DigestMismatch { what: "layer", expected, actual }
            }
            StoreError::File { source, .. } => PullError::Write { digest, source },
            source => PullError::Store { digest, source },
        })
    }

    /// One request for the rest of a layer.
    fn attempt(
        &self,
        index: usize,
        session: &Session<'a>,
        name: &str,
        writer: &mut BlobWriter,
        told: &mut Instant,
    ) -> Result<(), PullError> {
        let LayerDescriptor { digest, size_bytes, .. } = self.layers[index];
        if writer.offset() == size_bytes {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if writer.offset() > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", writer.offset()));
            headers.insert(RANGE, range.expect("digits are a header value"));
        }
        let url = session.endpoint.url("blobs", name);
        let mut response = match session.get(&url, &headers) {
            // The range is no good there: from the start, then.
            Err(Error::Status { status: 416, .. }) if writer.offset() > 0 => {
                self.restart(index, writer)?;
                session.get(&url, &HeaderMap::new())?
            }
            other => other?,
        };
        if writer.offset() > 0 && !continues_at(&response, writer.offset()) {
            if response.status() == 206 {
                let problem = "the registry sent another range than asked for";
                return Err(Error::Protocol { url: response.shown_url(), problem }.into());
            }
            self.restart(index, writer)?;
        }
        self.tell(index, LayerStatus::Downloading { bytes: writer.offset() });
        while let Some(chunk) = response.chunk()? {
            let actual_bytes = writer.offset() + chunk.len() as u64;
            if actual_bytes > size_bytes {
                let url = response.shown_url();
                let expected_bytes = size_bytes;
                return Err(Error::Length { url, expected_bytes, actual_bytes }.into());
            }
            writer.write_all(&chunk).map_err(|source| PullError::Write { digest, source })?;
            self.advance(index, actual_bytes);
            if told.elapsed() > PROGRESS_INTERVAL {
                *told = Instant::now();
                self.tell(index, LayerStatus::Downloading { bytes: actual_bytes });
            }
        }
        let actual_bytes = writer.offset();
        if actual_bytes < size_bytes {
            let url = response.shown_url();
            return Err(Error::Length { url, expected_bytes: size_bytes, actual_bytes }.into());
        }
        Ok(())
    }

    fn restart(&self, index: usize, writer: &mut BlobWriter) -> Result<(), PullError> {
        let digest = self.layers[index].digest;
        // An unpacker that is ahead waits until the download is where it was.
        self.advance(index, 0);
        writer.restart().map_err(|source| PullError::Store { digest, source })
    }

    fn advance(&self, index: usize, arrived: u64) {
        if let Arrival::Arriving { bytes, .. } = &mut self.arrivals().layers[index] {
            *bytes = arrived;
        }
        self.changed.notify_all();
    }
}

/// Whether a partial answer starts where we stopped: RFC 9110, 14.4.
fn continues_at(response: &super::http::Response<'_>, offset: u64) -> bool {
    response.status() == 206
        && response
            .header(CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes "))
            .and_then(|range| range.split_once('-'))
            .is_some_and(|(start, _)| start.trim() == offset.to_string())
}

/// Unpacking.
impl Layers<'_> {
    fn unpack(&self, index: usize, diff_id: &DiffId) -> Result<(), PullError> {
        let compression = self.layers[index].compression;
        loop {
            let mut behind = Behind::new(self, index);
            if !self.store.has_layer(diff_id) {
                if behind.wait().is_err() {
                    return Ok(());
                }
                let unpacked = self.store.unpack_layer(diff_id, &mut behind, compression);
                let attempt = behind.attempt;
                // A layer that arrived broken is told as that, not as a bad archive.
                match (self.verdict(index), unpacked) {
                    (None, _) => return Ok(()),
                    (Some(_), Ok(_)) => {}
                    (Some(stored), Err(_)) if stored != attempt => continue,
                    (Some(_), Err(source)) => return Err(source.into()),
                }
            } else if self.verdict(index).is_none() {
                return Ok(());
            }
            self.tell(index, LayerStatus::Done);
            return Ok(());
        }
    }

    /// Waits for the end of a download: the number of its last attempt, or none if the pull failed.
    fn verdict(&self, index: usize) -> Option<u32> {
        let mut arrivals = self.arrivals();
        loop {
            if arrivals.failure.is_some() {
                return None;
            }
            if let Arrival::Stored { attempt, .. } = &arrivals.layers[index] {
                return Some(*attempt);
            }
            arrivals = self.changed.wait(arrivals).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads a layer behind its download.
struct Behind<'a> {
    layers: &'a Layers<'a>,
    index: usize,
    /// Of the download that is read; another one means starting over.
    attempt: u32,
    file: Option<Arc<File>>,
    position: u64,
    told: Instant,
}

impl<'a> Behind<'a> {
    fn new(layers: &'a Layers<'a>, index: usize) -> Self {
        Self { layers, index, attempt: 0, file: None, position: 0, told: Instant::now() }
    }

    /// Waits until there is something to read; returns how far it reaches.
    fn wait(&mut self) -> io::Result<u64> {
        let mut arrivals = self.layers.arrivals();
        loop {
            if arrivals.failure.is_some() {
                return Err(io::Error::other("the pull was given up"));
            }
            let (file, bytes, attempt, whole) = match &arrivals.layers[self.index] {
                Arrival::Waiting => {
                    arrivals =
                        self.layers.changed.wait(arrivals).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Arrival::Arriving { file, bytes, attempt } => (file, *bytes, *attempt, false),
                Arrival::Stored { file, attempt } => {
                    (file, self.layers.layers[self.index].size_bytes, *attempt, true)
                }
            };
            if self.file.is_none() {
                self.attempt = attempt;
                self.file = Some(Arc::clone(file));
            } else if self.attempt != attempt {
                return Err(io::Error::other("the layer is fetched anew"));
            }
            if whole || bytes > self.position {
                return Ok(bytes);
            }
            arrivals = self.layers.changed.wait(arrivals).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for Behind<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.wait()?;
        let left = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let file = self.file.as_ref().expect("waiting has found the file");
        let read = file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += read as u64;
        if self.told.elapsed() > PROGRESS_INTERVAL {
            self.told = Instant::now();
            self.layers.tell(self.index, LayerStatus::Unpacking { bytes: self.position });
        }
        Ok(read)
    }
}
