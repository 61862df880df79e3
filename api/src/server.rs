//! The listening socket, its connections, and their end.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::{App, webhooks};

/// A request line and its headers in bytes; and how much of a body is read ahead.
const LARGEST_HEAD: usize = 64 << 10;

/// Told to handlers that wait: when this is cancelled, answer with what there is.
#[derive(Debug, Clone)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

/// Serves `app` on `listener` until `stop`, then lets open requests finish for at most
/// the configured drain time, and closes what is left.
///
/// # Errors
///
/// The listener's address cannot be read. A failed `accept` is logged and tried again.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) -> io::Result<()> {
    let limits = Limits { head: app.config().head_timeout, drain: app.config().drain };
    let router = crate::router(app.clone()).layer(axum::Extension(Stopping(stop.clone())));
    let upkeep = app.operations().upkeep(stop.clone());
    let webhooks = webhooks::deliver(app.clone(), stop.clone());
    tokio::join!(accept(listener, router, limits, stop), upkeep, webhooks).0
}

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For the head of a request.
    pub(crate) head: Duration,
    /// For open requests after a stop.
    pub(crate) drain: Duration,
}

pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let connections = TaskTracker::new();
    let close = CancellationToken::new();
    info!(http.address = %address, "listening on http://{address}");

    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop, close) = (router.clone(), stop.clone(), close.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = serve_connection(stream, router, limits.head, stop) => {}
                        () = close.cancelled() => {}
                    }
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, mostly: existing connections will give some back.
                warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        warn!(n = connections.len(), "closing connections whose requests did not end in time");
        close.cancel();
        connections.wait().await;
    }
    info!(http.address = %address, "stopped listening on http://{address}");
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "could not switch off Nagle's algorithm");
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let request: Request = request.map(Body::new);
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            // Idle: closes now. Busy: answers, with `Connection: close`, then closes.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(error = %error, "a connection ended early");
    }
}
