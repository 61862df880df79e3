//! What operators and their machines ask of a process: is it alive, is it
//! ready, what has it counted. On the interface itself, and on a socket of its
//! own for processes that have no interface.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Readiness, Service};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, StoreNumbers};
use crate::server::{self, Limits};

/// How long an answer about readiness is good for. It costs a write, and anybody
/// may ask.
const FRESH: Duration = Duration::from_secs(1);
/// For requests that have no body and answers that are short.
const LIMITS: Limits = Limits { head: Duration::from_secs(10), drain: Duration::from_secs(1) };

/// What a process tells of itself.
#[derive(Debug)]
pub(crate) struct Operations {
    service: Service,
    metrics: Metrics,
    numbers: StoreNumbers,
    readiness: Mutex<Option<(Instant, Readiness)>>,
}

impl Operations {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            metrics: Metrics::of_process(),
            numbers: StoreNumbers::default(),
            readiness: Mutex::default(),
        }
    }

    pub(crate) async fn readiness(&self) -> Readiness {
        // Whoever comes meanwhile waits for the same answer.
        let mut known = self.readiness.lock().await;
        if let Some((when, readiness)) = &*known
            && when.elapsed() < FRESH
        {
            return readiness.clone();
        }
        let readiness = self.service.readiness().await;
        *known = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// The numbers of this process, and those of the store with them.
    pub(crate) async fn all_metrics(&self) -> Response {
        self.numbers.refresh(&self.service).await;
        self.own_metrics()
    }

    /// The numbers of this process.
    fn own_metrics(&self) -> Response {
        self.service.show_queue();
        let mut response = self.metrics.text().into_response();
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }

    pub(crate) async fn upkeep(&self, stop: CancellationToken) {
        self.metrics.upkeep(stop).await;
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` on `listener` until `stop`, for a
/// process without the rest of the interface. The numbers are those of this
/// process alone; what the store knows, the interface tells.
///
/// # Errors
///
/// As [`crate::serve`].
pub fn serve_operations(
    listener: TcpListener,
    service: Service,
    stop: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send {
    // Now, and not when it is first polled: what others count meanwhile is seen.
    let operations = Arc::new(Operations::new(service));
    let router = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&operations));
    async move {
        let accepting = server::accept(listener, router, LIMITS, stop.clone());
        tokio::join!(accepting, operations.upkeep(stop)).0
    }
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Response {
    operations.own_metrics()
}

async fn ready(State(operations): State<Arc<Operations>>) -> Response {
    let readiness = operations.readiness().await;
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", sentence(&readiness))).into_response()
}

/// How it stands, in one sentence.
pub(crate) fn sentence(readiness: &Readiness) -> String {
    let Readiness { problems, degraded, .. } = readiness;
    if !problems.is_empty() {
        format!("not ready: {}", problems.join("; "))
    } else if !degraded.is_empty() {
        format!("ready, but degraded: {}", degraded.join("; "))
    } else {
        "ready".to_owned()
    }
}
