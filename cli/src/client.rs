//! The service's HTTP API, as the actor verbs use it.
//!
//! One dialect: `/v3/actors`, whose names are snake_case. Answers stay JSON:
//! the verbs print fields of them, and `--format json` prints them whole.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use reqwest::header::{ETAG, HeaderMap, IF_MATCH};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
/// For how long a service that has answered before may be away.
const AWAY: Duration = Duration::from_secs(60);
/// How long it is left alone then.
const AGAIN: Duration = Duration::from_millis(500);
/// The query parameter that a nonce comes in.
pub(crate) const NONCE: &str = "x-nonce";

/// The service said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// What a request carries.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    Json(Value),
    /// JSON as somebody wrote it: a value would lose the digits of large numbers.
    JsonText(String),
    /// Bytes as they are.
    Binary(Vec<u8>),
}

/// What came of a message whose end the service was asked to wait for.
#[derive(Debug)]
pub(crate) enum Done {
    /// The first result, or the log.
    Bytes(Vec<u8>),
    /// It goes on: what the service says of a message that nobody waits for.
    Accepted(Value),
}

/// What the service said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Value,
    /// Its sentence.
    pub(crate) message: String,
    /// The service's release.
    pub(crate) release: String,
    /// Which version of the thing that is, where the service counts them.
    pub(crate) version: Option<String>,
}

/// A connection to one service as one user.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// Without a slash at the end.
    server: String,
    token: Option<SecretString>,
}

impl Client {
    /// # Errors
    ///
    /// A server address that is no URL, or certificates that cannot be read.
    pub(crate) fn new(
        server: Option<&str>,
        token: Option<SecretString>,
        ca_bundle: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let server = server.unwrap_or(DEFAULT_SERVER).trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&server)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                anyhow!(
                    "{server:?} is not the address of a service; write it like {DEFAULT_SERVER}"
                )
            })?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("abax/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10));
        // A proxy of the campus does not know this machine's loopback.
        if url.host_str().is_some_and(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]")
        {
            http = http.no_proxy();
        }
        if let Some(path) = ca_bundle {
            let pem = std::fs::read(path)
                .with_context(|| format!("could not read the CA bundle {}", path.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("no certificates in {}", path.display()))?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http.build().context("could not set up HTTP")?;
        Ok(Self { http, server, token })
    }

    /// The same service for whoever has no token but a nonce.
    #[must_use]
    pub(crate) fn without_token(&self) -> Self {
        Self { http: self.http.clone(), server: self.server.clone(), token: None }
    }

    /// One request below `/v3/actors`; the `result` of its envelope.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the service's own sentence; a service that is not
    /// there, or that is not one of ours.
    pub(crate) async fn request(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(String, String)],
        body: Body,
    ) -> anyhow::Result<Value> {
        Ok(self.ask(method, segments, query, body, None).await?.result)
    }

    /// As [`Client::request`], for whoever needs more of the answer than its result, or
    /// changes a thing only where it is still at `version`.
    ///
    /// # Errors
    ///
    /// As for [`Client::request`].
    pub(crate) async fn ask(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(String, String)],
        body: Body,
        version: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let (_, headers, bytes) = self.exchange(method, segments, query, body, version).await?;
        let Ok(Value::Object(mut envelope)) = serde_json::from_slice(&bytes) else {
            bail!("{} does not answer like an Abax service", self.server);
        };
        let mut take = |name: &str| envelope.remove(name).unwrap_or(Value::Null);
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Answer {
            result: take("result"),
            message: text(take("message")),
            release: text(take("version")),
            version: headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned),
        })
    }

    /// As [`Client::request`], where the answer is bytes without an envelope.
    ///
    /// # Errors
    ///
    /// As for [`Client::request`].
    pub(crate) async fn bytes(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(String, String)],
        body: Body,
    ) -> anyhow::Result<Vec<u8>> {
        Ok(self.exchange(method, segments, query, body, None).await?.2)
    }

    /// As [`Client::bytes`], where the answer may also be that it takes longer.
    ///
    /// # Errors
    ///
    /// As for [`Client::request`].
    pub(crate) async fn bytes_or_accepted(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(String, String)],
        body: Body,
    ) -> anyhow::Result<Done> {
        let (status, _, bytes) = self.exchange(method, segments, query, body, None).await?;
        if status != StatusCode::ACCEPTED {
            return Ok(Done::Bytes(bytes));
        }
        let mut envelope: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Done::Accepted(envelope["result"].take()))
    }

    /// One request, and what a success answers.
    async fn exchange(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(String, String)],
        body: Body,
        version: Option<&str>,
    ) -> anyhow::Result<(StatusCode, HeaderMap, Vec<u8>)> {
        let mut url = reqwest::Url::parse(&self.server).expect("parsed when the client was made");
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(["v3", "actors"])
            .extend(segments);
        let mut request = self.http.request(method, url);
        if !query.is_empty() {
            request = request.query(query);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(version) = version {
            request = request.header(IF_MATCH, version);
        }
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::JsonText(text) => request.header("content-type", "application/json").body(text),
            Body::Binary(bytes) => {
                request.header("content-type", "application/octet-stream").body(bytes)
            }
        };
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.map_err(|e| self.unreachable(e))?;
        if status.is_success() {
            return Ok((status, headers, bytes.into()));
        }
        let envelope: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let mut message = match envelope.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => format!("{} answered {status}", self.server),
        };
        if self.token.is_none() && !query.iter().any(|(name, _)| name == NONCE) {
            message.push_str(
                "; no access token was given: run `export TOKEN=$(abax token)` on the service's machine",
            );
        }
        Err(Refused { status, message }.into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let connecting = error.is_connect();
        let error = anyhow::Error::new(error.without_url());
        if connecting {
            error.context(format!(
                "no service answers at {}; start one with `abax serve`, or name one with --server",
                self.server
            ))
        } else {
            error.context(format!("the connection to {} broke", self.server))
        }
    }

    /// # Errors
    ///
    /// As for [`Client::request`].
    pub(crate) async fn get(&self, segments: &[&str]) -> anyhow::Result<Value> {
        self.request(Method::GET, segments, &[], Body::None).await
    }

    /// As [`Client::get`], for whoever waits for something that has begun: it goes on
    /// while a process of the service is started again, or its database.
    ///
    /// # Errors
    ///
    /// As for [`Client::request`], after a minute of those that may pass.
    pub(crate) async fn get_again(&self, segments: &[&str]) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            match self.get(segments).await {
                Err(error) if may_pass(&error) && began.elapsed() < AWAY => {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// The actor that `name` names: by id or alias, or else by a name that only
    /// one of the caller's actors has.
    ///
    /// # Errors
    ///
    /// No such actor, or several of that name.
    pub(crate) async fn actor(&self, name: &str) -> anyhow::Result<Value> {
        let refused = match self.get(&[name]).await {
            Ok(actor) => return Ok(actor),
            Err(error) => match error.downcast::<Refused>() {
                Ok(refused) if refused.status.is_client_error() => refused,
                Ok(refused) => return Err(refused.into()),
                Err(error) => return Err(error),
            },
        };
        // Whoever may not list gets the refusal of the first question.
        let Ok(Value::Array(actors)) = self.get(&[]).await else { return Err(refused.into()) };
        let mut named: Vec<Value> =
            actors.into_iter().filter(|actor| text(actor, "name") == name).collect();
        match named.len() {
            0 => bail!("no actor {name}; see `abax actor list`"),
            1 => Ok(named.remove(0)),
            n => bail!(
                "{n} actors are called {name}; use one of their ids: {}",
                named.iter().map(|actor| text(actor, "id")).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

/// Whether nobody answered, or only who is in front of the service, or it has not got
/// its database now.
fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => matches!(
            refused.status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ),
        None => error.chain().any(|cause| cause.is::<reqwest::Error>()),
    }
}

/// A field as text: empty when absent or null.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
