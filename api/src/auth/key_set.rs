//! The key set of an issuer (RFC 7517 §5), fetched when it is needed and kept for a
//! while: so a key that the issuer adds is known at once, one that it takes away
//! holds no longer than the set is fresh, and an issuer that is away for a while
//! keeps nobody out.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use abax_actors::{Chain, Time};
use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::public_key::{Jwk, PublicKey};

/// How long an answer may take, to its last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait until the next attempt, whoever asks for whichever key: tokens
/// that name keys which nobody has cost the issuer no more than that.
const PAUSE: Duration = Duration::from_secs(10);
/// How long keys hold that cannot be fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Key sets have a few keys of half a kilobyte each.
const LARGEST: usize = 256 << 10;

/// The keys of one issuer, as it publishes them.
pub(super) struct KeySet {
    url: Url,
    fresh_for: Duration,
    client: Client,
    known: RwLock<Known>,
    /// Held by who fetches; the others wait for the outcome.
    fetching: Mutex<()>,
}

/// What is known of a set.
#[derive(Debug, Clone, Default)]
struct Known {
    keys: Arc<[PublicKey]>,
    fetched: Option<Time>,
    tried: Option<Time>,
}

impl Known {
    fn is_within(&self, age: Duration, now: Time) -> bool {
        self.fetched.is_some_and(|fetched| now.since(fetched) < age)
    }

    fn has(&self, id: Option<&str>) -> bool {
        self.keys.iter().any(|key| key.may_be(id))
    }

    fn was_just_tried(&self, now: Time) -> bool {
        self.tried.is_some_and(|tried| now.since(tried) < PAUSE)
    }
}

/// Why a set could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer did not answer")]
    Http(#[source] reqwest::Error),
    #[error("the issuer answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the answer has more than {LARGEST} bytes")]
    TooLarge,
    #[error("the answer is no key set")]
    Unreadable(#[source] serde_json::Error),
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl KeySet {
    /// The set at `url`, which is asked again when it is older than `fresh_for`;
    /// certificates of `ca_pem` are trusted beside the system's.
    ///
    /// # Errors
    ///
    /// What is wrong with the address or the certificates.
    pub(super) fn new(
        url: &str,
        fresh_for: Duration,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, String> {
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| format!("{url} is no http:// or https:// address"))?;
        let mut client = Client::builder()
            .user_agent(concat!("abax/", env!("CARGO_PKG_VERSION")))
            // Whoever could redirect us could give us keys of their own.
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE);
        if url.scheme() == "http" {
            // No certificate is asked for, so none need be there.
            client = client.tls_certs_only([]);
        } else if let Some(pem) = ca_pem {
            let certificates = Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("the CA bundle cannot be read: {error}"))?;
            client = client.tls_certs_merge(certificates);
        }
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| Chain(&error).to_string())?;
        let (known, fetching) = (RwLock::default(), Mutex::default());
        Ok(Self { url, fresh_for, client, known, fetching })
    }

    /// The keys, among which that called `id` is if the issuer has it. None where they
    /// cannot be had at the moment.
    pub(super) async fn keys(&self, id: Option<&str>, now: Time) -> Option<Arc<[PublicKey]>> {
        let known = self.known();
        if known.is_within(self.fresh_for, now) && known.has(id) {
            return Some(known.keys);
        }
        let _fetching = self.fetching.lock().await;
        // Somebody may have fetched them while we waited.
        let known = self.known();
        let will_do = known.is_within(self.fresh_for, now) && known.has(id);
        if !will_do && !known.was_just_tried(now) {
            match self.fetch().await {
                Ok(keys) => {
                    info!(n = keys.len(), "fetched the keys of {}", self.url);
                    self.learn(Known { keys, fetched: Some(now), tried: Some(now) });
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "could not fetch the keys of {}", self.url);
                    self.learn(Known { tried: Some(now), ..known });
                }
            }
        }
        let known = self.known();
        known.is_within(STALE.max(self.fresh_for), now).then_some(known.keys)
    }

    /// The keys that are known already, however old.
    pub(super) fn known_keys(&self) -> Arc<[PublicKey]> {
        self.known().keys
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    async fn fetch(&self) -> Result<Arc<[PublicKey]>, FetchError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }

        let mut answer = self
            .client
            .get(self.url.clone())
            .header("accept", "application/jwk-set+json, application/json")
            .send()
            .await
            .map_err(FetchError::Http)?;
        if !answer.status().is_success() {
            return Err(FetchError::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(FetchError::Http)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let set: Set = serde_json::from_slice(&body).map_err(FetchError::Unreadable)?;
        // Keys of a kind that we do not know are none of our business.
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(jwks.filter_map(|jwk| PublicKey::of_set(&jwk)).collect())
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}
