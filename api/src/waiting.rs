//! Answers while there is no service behind them yet: the process lives, and is
//! not ready.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::debug;

use crate::VERSION;

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers each request on `listener` by 503 and what `why` says then, and `/healthz`
/// by 200, until it is dropped. The listener can serve afterwards.
pub async fn serve_waiting(listener: &TcpListener, why: &watch::Receiver<String>) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(error = %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let why = why.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &why.borrow());
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                // The next request finds whoever serves then.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(error = %error, "a connection ended early");
            }
        });
    }
}

fn answer(path: &str, message: &str) -> Response<Body> {
    let alive = path == "/healthz";
    let (status, code, message) = if alive {
        ("success", StatusCode::OK, "The service is up.")
    } else {
        ("error", StatusCode::SERVICE_UNAVAILABLE, message)
    };
    let result = alive.then(|| json!({"alive": true}));
    let body = json!({
        "status": status, "message": message, "result": result, "version": VERSION, "metadata": {},
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if !alive {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}
