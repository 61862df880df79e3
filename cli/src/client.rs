//! The service's HTTP API, as the actor verbs use it.
//!
//! One dialect: `/v3/actors`, whose names are snake_case. Answers stay JSON:
//! the verbs print fields of them, and `--format json` prints them whole.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
/// For how long a service that has answered before may be away.
const AWAY: Duration = Duration::from_secs(60);
/// How long it is left alone then.
const AGAIN: Duration = Duration::from_millis(500);

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
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::JsonText(text) => request.header("content-type", "application/json").body(text),
            Body::Binary(bytes) => {
                request.header("content-type", "application/octet-stream").body(bytes)
            }
        };
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.unreachable(e))?;
        let envelope: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let message = envelope.get("message").and_then(Value::as_str);
        if !status.is_success() {
            let mut message = match message {
                Some(message) => message.to_owned(),
                None => format!("{} answered {status}", self.server),
            };
            if self.token.is_none() {
                message.push_str(
                    "; no access token was given: run `export TOKEN=$(abax token)` on the service's machine",
                );
            }
            return Err(Refused { status, message }.into());
        }
        match envelope {
            Value::Object(mut object) => Ok(object.remove("result").unwrap_or(Value::Null)),
            _ => bail!("{} does not answer like an Abax service", self.server),
        }
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
