//! One request: redirects, size limits, error bodies, and the next attempt.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Method, StatusCode, Url, redirect};

use super::config::{RegistriesConfig, is_loopback};
use super::error::{Cause, Error, Problem};
use super::reach::{Outside, is_own};
use super::{Event, Progress};

const MAX_REDIRECTS: usize = 10;
const ERROR_BODY_LIMIT_BYTES: u64 = 64 << 10;
/// Whom strangers name sends at least so much, all in all.
const LEAST_BYTES_PER_SECOND: u64 = 4 << 10;
const MAX_RETRY_DELAY: Duration = Duration::from_secs(20);
/// Who is asked to wait longer than this rather gives up.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// The HTTP side of one pull: clients, and a thread that drives their connections.
pub(super) struct Http<'a> {
    config: &'a RegistriesConfig,
    runtime: tokio::runtime::Runtime,
    /// For loopback without TLS: no proxy and no certificates.
    loopback: OnceLock<Client>,
    /// For everything else.
    remote: OnceLock<Client>,
    /// Hosts that have answered: one that then refuses a connection is restarting.
    reached: Mutex<HashSet<String>>,
    /// Set when the pull has failed: whatever still runs gives up.
    stop: AtomicBool,
}

impl<'a> Http<'a> {
    pub(super) fn new(config: &'a RegistriesConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("abax-registry")
            .enable_io()
            .enable_time()
            .build()?;
        Ok(Self {
            config,
            runtime,
            loopback: OnceLock::new(),
            remote: OnceLock::new(),
            reached: Mutex::new(HashSet::new()),
            stop: AtomicBool::new(false),
        })
    }

    /// Makes all requests of this pull fail from now on.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn check_stopped(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Sends a request once, and follows redirects; what comes back may have any status.
    ///
    /// `Authorization` goes to the origin of `url` only.
    pub(super) fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        form: Option<&[(&str, &str)]>,
    ) -> Result<Response<'_>, Error> {
        let mut headers = headers.clone();
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check_stopped()?;
            self.config.check_reach(&target)?;
            let mut request = self
                .client(&target)?
                .request(method.clone(), target.clone())
                .headers(headers.clone());
            if let Some(form) = form {
                request = request.form(form);
            }
            let sent = self.runtime.block_on(async {
                let patience = self.config.timeout() * 2;
                match self.config.named_by_strangers {
                    true => tokio::time::timeout(patience, request.send()).await,
                    false => Ok(request.send().await),
                }
            });
            let sent = sent.map_err(|_| Error::TooSlow { host: host_of(&target) })?;
            let inner = sent.map_err(|error| {
                let host = host_of(&target);
                if is_own(&error) {
                    return Error::OwnAddress { host };
                }
                let connects = error.is_connect() || error.is_builder() || error.is_timeout();
                let source = Cause::new(error);
                if connects && !self.has_reached(&host) {
                    Error::Unreachable { host, source }
                } else {
                    Error::Interrupted { host, source }
                }
            })?;
            let status = inner.status();
            self.reached.lock().unwrap_or_else(PoisonError::into_inner).insert(host_of(&target));
            let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirects || *method != Method::GET {
                let (url, begun) = (url.clone(), Instant::now());
                return Ok(Response { http: self, inner, url, at: target, begun, bytes: 0 });
            }
            let protocol = |problem| Error::Protocol { url: shown(url), problem };
            let next = inner
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| target.join(location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host())
                .ok_or_else(|| protocol("the registry redirects to nowhere"))?;
            if target.scheme() == "https"
                && next.scheme() == "http"
                && !self.config.is_plain(&host_of(&next))
            {
                return Err(protocol("the registry redirects from HTTPS to HTTP"));
            }
            if next.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
            }
            target = next;
        }
        Err(Error::Protocol { url: shown(url), problem: "the registry redirects without end" })
    }

    fn has_reached(&self, host: &str) -> bool {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn client(&self, url: &Url) -> Result<&Client, Error> {
        let local = url.scheme() == "http" && url.host_str().is_some_and(is_loopback);
        let slot = if local { &self.loopback } else { &self.remote };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let mut builder = self.builder();
        if local {
            // Proxies are for others, and a machine without certificates still has loopback.
            builder = builder.no_proxy().tls_certs_only([]);
        } else if let Some(path) = &self.config.ca_bundle {
            let source = |source| Error::CaBundle { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(source)?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| source(std::io::Error::other(error)))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if !local && self.config.named_by_strangers {
            builder = builder.dns_resolver(Arc::new(Outside::new(self.config)));
        }
        let client = builder.build().map_err(|source| Error::Setup { source })?;
        Ok(slot.get_or_init(|| client))
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("abax/", env!("CARGO_PKG_VERSION")))
            // Followed by hand, so that credentials stay where they belong.
            .redirect(redirect::Policy::none())
            .connect_timeout(self.config.timeout())
            .read_timeout(self.config.timeout())
            .pool_idle_timeout(Duration::from_secs(60))
    }

    /// Calls `attempt` until it succeeds, fails for good, or has failed too often.
    ///
    /// An attempt tells how far it came; one that came further than the last counts as the first.
    pub(super) fn retry<T>(
        &self,
        what: &str,
        max_attempts: u32,
        progress: &dyn Progress,
        mut attempt: impl FnMut(&mut u64) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let backoff = || {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(self.config.retry_delay_milliseconds))
                .with_max_delay(MAX_RETRY_DELAY)
                .with_max_times(max_attempts.saturating_sub(1) as usize)
                .with_jitter()
                .build()
        };
        let mut delays = backoff();
        let mut reached = 0;
        loop {
            self.check_stopped()?;
            let before = reached;
            let error = match attempt(&mut reached) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // Nobody there at the first contact: the user rather knows at once. Who is slow
            // comes a little further each time.
            let at_once = matches!(error, Error::Unreachable { .. } | Error::TooSlow { .. });
            if !error.is_transient() || at_once {
                return Err(error);
            }
            if reached > before {
                delays = backoff();
            }
            let Some(delay) = delays.next() else { return Err(error) };
            let delay = match &error {
                Error::Status { retry_after: Some(asked), .. } if *asked > MAX_RETRY_AFTER => {
                    return Err(error);
                }
                Error::Status { retry_after: Some(asked), .. } => delay.max(*asked),
                _ => delay,
            };
            progress.event(Event::Retrying { what, after: delay, error: &error });
            self.pause(delay)?;
        }
    }

    fn pause(&self, delay: Duration) -> Result<(), Error> {
        let mut left = delay;
        while !left.is_zero() {
            self.check_stopped()?;
            let slice = left.min(Duration::from_millis(50));
            thread::sleep(slice);
            left -= slice;
        }
        Ok(())
    }
}

/// The head of an answer, and its body as it comes.
pub(super) struct Response<'a> {
    http: &'a Http<'a>,
    inner: reqwest::Response,
    /// What was asked for.
    url: Url,
    /// Where redirects led.
    at: Url,
    /// When the body began, and how much of it came.
    begun: Instant,
    bytes: u64,
}

impl Response<'_> {
    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// What was asked for, without its query: that may be a secret.
    pub(super) fn shown_url(&self) -> String {
        shown(&self.url)
    }

    /// The next piece of the body; none at its end.
    pub(super) fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.http.check_stopped()?;
        let waited = self.begun.elapsed();
        if self.http.config.named_by_strangers
            && waited > self.http.config.timeout() * 2
            && self.bytes < waited.as_secs().saturating_mul(LEAST_BYTES_PER_SECOND)
        {
            return Err(Error::TooSlow { host: host_of(&self.at) });
        }
        let chunk = self.http.runtime.block_on(self.inner.chunk()).map_err(|error| {
            let (host, source) = (host_of(&self.at), Cause::new(error));
            Error::Interrupted { host, source }
        })?;
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }

    /// The whole body, if it has up to `limit_bytes`.
    pub(super) fn bytes(&mut self, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk()? {
            if bytes.len() as u64 + chunk.len() as u64 > limit_bytes {
                return Err(Error::TooLarge { url: self.shown_url(), limit_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The distribution spec's errors in the body.
    pub(super) fn problems(mut self) -> Vec<Problem> {
        Problem::parse(&self.error_body())
    }

    fn error_body(&mut self) -> Vec<u8> {
        // The status says enough where the body does not come.
        self.bytes(ERROR_BODY_LIMIT_BYTES).unwrap_or_default()
    }

    /// The answer as an error, whatever its status.
    pub(super) fn into_error(mut self) -> Error {
        let url = self.shown_url();
        let status = self.status().as_u16();
        let retry_after = self
            .header(RETRY_AFTER)
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs);
        let body = self.error_body();
        // What Go's servers, most registries among them, answer by plain HTTP.
        if status == 400 && body.starts_with(b"Client sent an HTTP request to an HTTPS server") {
            let problem = "the registry speaks HTTPS and was asked by plain HTTP";
            return Error::Protocol { url, problem };
        }
        Error::Status { url, status, problems: Problem::parse(&body), retry_after }
    }
}

/// Host and port as a reference has them.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}
