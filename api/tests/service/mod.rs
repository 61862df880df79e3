//! A whole service behind a real socket: SQLite in a temporary directory, port 0.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::net::SocketAddr;
use std::time::Duration;

use abax_actors::{Clock, Service};
use abax_api::{App, Config, Keys};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SECRET: &[u8] = b"a key for tests, 32 bytes or more";

/// The prefixes and whether Abaco's statuses are spoken under them.
pub const PREFIXES: [&str; 3] = ["/actors", "/actors/v2", "/v3/actors"];

pub struct Running {
    pub address: SocketAddr,
    pub service: Service,
    pub keys: Keys,
    pub stop: CancellationToken,
    pub server: JoinHandle<std::io::Result<()>>,
    client: Client,
    // The last field, so that it is removed last.
    _directory: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn start() -> Running {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut Config)) -> Running {
    start_at(Clock::system(), change).await
}

/// As [`start_with`], where it is as late as `clock` says.
pub async fn start_at(clock: Clock, change: impl FnOnce(&mut Config)) -> Running {
    start_of(clock, |_| {}, change).await
}

/// As [`start_at`], with settings of the domain changed too.
pub async fn start_of(
    clock: Clock,
    change_domain: impl FnOnce(&mut abax_actors::Config),
    change: impl FnOnce(&mut Config),
) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = abax_actors::Config::sqlite(directory.path().join("abax.db"));
    let key = abax_actors::SecretKeys::generate();
    settings.secret_keys = abax_actors::SecretKeys::parse(key.expose_secret()).unwrap();
    change_domain(&mut settings);
    let service = Service::open(settings, clock).await.unwrap();
    let keys = Keys::new(SECRET).unwrap();
    let mut config = Config { drain: Duration::from_secs(2), ..Config::default() };
    change(&mut config);
    let app = App::new(service.clone(), keys.clone(), config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(abax_api::serve(listener, app, stop.clone()));
    let client = Client::builder().no_proxy().build().unwrap();
    Running { address, service, keys, stop, server, client, _directory: directory }
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn token(&self, user: &str, tenant: &str, roles: &[&str]) -> String {
        let hour = Duration::from_secs(3600);
        let now = self.service.clock().now();
        self.keys.mint(user, tenant, roles, now, hour).expose_secret().to_owned()
    }

    /// A request without credentials.
    pub fn stranger(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A request of the ordinary user `user` of the default tenant.
    pub fn by(&self, user: &str, method: Method, path: &str) -> RequestBuilder {
        self.stranger(method, path).bearer_auth(self.token(user, "ABAX", &[]))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.by("ada", Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.by("ada", Method::POST, path)
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.by("ada", Method::PUT, path)
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.by("ada", Method::DELETE, path)
    }

    /// Registers an actor of ada's and returns its id.
    pub async fn register(&self, settings: Value) -> String {
        let mut body = json!({ "image": "busybox" });
        for (name, value) in settings.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = self.post("/actors").json(&body).send().await.unwrap();
        let (_, body) = envelope(answer, StatusCode::CREATED).await;
        body["result"]["id"].as_str().unwrap().to_owned()
    }

    /// Sends ada's text message and returns the execution's id.
    pub async fn send(&self, actor: &str, text: &str) -> String {
        let path = format!("/actors/{actor}/messages");
        let answer = self.post(&path).form(&[("message", text)]).send().await.unwrap();
        let (_, body) = envelope(answer, StatusCode::ACCEPTED).await;
        body["result"]["executionId"].as_str().unwrap().to_owned()
    }
}

/// Checks the status and what every envelope has; returns the headers and the body.
pub async fn envelope(answer: Response, status: StatusCode) -> (reqwest::header::HeaderMap, Value) {
    let url = answer.url().clone();
    let headers = answer.headers().clone();
    let found = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{url}: {text}");
    assert_eq!(headers["content-type"], "application/json", "{url}");
    assert!(headers.contains_key("access-control-allow-origin"), "{url}");
    assert!(headers.contains_key("x-request-id"), "{url}");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{url}: {e}: {text}"));
    let word = if status.is_success() { "success" } else { "error" };
    assert_eq!(body["status"], word, "{url}: {body}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{url}: {body}");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"), "{url}");
    assert!(body.as_object().unwrap().contains_key("result"), "{url}: {body}");
    if !status.is_success() {
        assert_eq!(body["result"], Value::Null, "{url}");
    }
    (headers, body)
}

/// Sends and expects an envelope of this status.
pub async fn expect(request: RequestBuilder, status: StatusCode) -> Value {
    envelope(request.send().await.unwrap(), status).await.1
}

pub async fn ok(request: RequestBuilder) -> Value {
    expect(request, StatusCode::OK).await
}

pub fn keys_of(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
        .keys()
        .map(String::as_str)
        .collect()
}
