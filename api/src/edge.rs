//! Where requests come in and answers go out: path, dialect, request id,
//! CORS, span. What lies behind it knows one dialect and one form of path.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use abax_actors::{Caller, Role, Tenant, TraceParent};
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    ALLOW, CONTENT_LENGTH, HOST, ORIGIN, VARY,
};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, Span, debug};

use crate::App;
use crate::config::is_authority;
use crate::dialect::Dialect;
use crate::envelope::{self, Answer, Audience};
use crate::error::{ApiError, Meaning};
use crate::metrics;
use crate::turns::{self, Turn};

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ALL_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

pub(crate) async fn edge(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let config = app.config();
    let (dialect, path) = Dialect::of_path(request.uri().path(), config.bare_dialect);
    let id = request_id(request.headers());
    let server = config.api_server.clone().unwrap_or_else(|| {
        server_of(request.headers()).unwrap_or_else(|| format!("http://{}", config.listen))
    });
    let method = request.method().clone();
    let shown = without_nonce(&path);
    let span = span(&method, &shown, &id);
    if let Some(parent) = trace_parent(request.headers()) {
        parent.adopt(&span);
        request.extensions_mut().insert(parent);
    }
    if let Some(own) = TraceParent::of(&span) {
        span.record("trace.id", own.trace_id());
        // What this request causes is its child, and its caller's grandchild.
        request.extensions_mut().insert(own);
    }
    let caller_headers = CallerHeaders::of(request.headers());

    *request.uri_mut() = with_path(request.uri(), &path);
    request.extensions_mut().insert(dialect);
    let asking = Asking::default();
    request.extensions_mut().insert(asking.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    let route = response.extensions_mut().remove::<MatchedPath>();
    let _entered = span.enter();

    // Users of a tenant may reach the service elsewhere than others do.
    let tenants = &app.service().config().tenants;
    let server = asking.tenant().map_or(&*server, |tenant| tenants.api_server(tenant, &server));
    let audience = Audience { dialect, server, request_id: &id, is_admin: asking.is_admin() };
    let turn = response.extensions_mut().remove::<Turn>();
    if let Some(answer) = response.extensions_mut().remove::<Answer>() {
        response = envelope::write(answer, audience);
    } else if method == Method::OPTIONS
        && response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(allow) = response.headers().get(ALLOW)
    {
        response = options(allow);
    } else if let Some(error) = unwritten_error(&response) {
        response = envelope::write(Answer::Failure(error), audience);
    }
    caller_headers.answer(&method, response.headers_mut());
    if let Ok(value) = HeaderValue::try_from(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if method == Method::HEAD {
        response = without_body(response);
    }
    if let Some(turn) = turn {
        response = response.map(|body| turns::keeping(turn, body));
    }

    let took = started.elapsed();
    metrics::request_answered(route.as_ref(), &method, response.status(), took);
    if let Some(route) = &route {
        TraceParent::rename(&span, format!("{method} {}", route.as_str()));
        span.record("http.route", route.as_str());
    }
    let status = response.status().as_u16();
    span.record("http.status", status);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    debug!(http.status = status, duration_ms, "{method} {shown} answered {status}");
    response
}

/// A path as logs may show it: the id of a nonce is all that it takes to use it.
fn without_nonce(path: &str) -> Cow<'_, str> {
    match path.split_once("/nonces/") {
        Some((before, _)) => Cow::Owned(format!("{before}/nonces/[redacted]")),
        None => Cow::Borrowed(path),
    }
}

/// Who is asking, for the edge to know when an answer comes back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asking(Arc<OnceLock<(Tenant, Role)>>);

impl Asking {
    /// That it is `caller`.
    pub(crate) fn learn(&self, caller: &Caller) {
        // A request has one caller: whoever says so again says the same.
        let _ = self.0.set((caller.tenant.clone(), caller.role));
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.0.get().map(|(tenant, _)| tenant)
    }

    fn is_admin(&self) -> bool {
        self.0.get().is_some_and(|(_, role)| *role == Role::Admin)
    }
}

/// The span of a request, with the names that OpenTelemetry gives it. What asks all
/// day whether we are there is of no interest to a trace.
fn span(method: &Method, path: &str, id: &str) -> Span {
    macro_rules! request {
        ($level:ident) => {
            tracing::span!(
                tracing::Level::$level,
                "request",
                otel.kind = "server",
                trace.id = tracing::field::Empty,
                request.id = %id,
                http.method = %method,
                http.path = %path,
                http.route = tracing::field::Empty,
                http.status = tracing::field::Empty,
                caller.user = tracing::field::Empty,
                caller.tenant = tracing::field::Empty,
            )
        };
    }
    match path {
        "/health" | "/healthz" | "/readyz" | "/metrics" => request!(DEBUG),
        _ => request!(INFO),
    }
}

fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACE_PARENT)?.to_str().ok().and_then(TraceParent::parse)
}

/// The caller's own id where it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        })
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

fn server_of(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    is_authority(host).then(|| format!("http://{host}"))
}

fn with_path(uri: &Uri, path: &str) -> Uri {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    match PathAndQuery::try_from(target) {
        Ok(target) => Uri::from(target),
        // Its segments are those of a path that was one already.
        Err(_) => uri.clone(),
    }
}

/// What the router itself answers has no body yet.
fn unwritten_error(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let error = match status {
        StatusCode::NOT_FOUND => ApiError::new(
            Meaning::NoRoute,
            "Nothing is at this URL; GET / lists what this service offers.",
        ),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(ALLOW).map(with_options);
            ApiError::wrong_method(allow)
        }
        _ if status.is_client_error() => {
            ApiError::new(Meaning::Malformed, "The request cannot be read.")
        }
        _ if status.is_server_error() => ApiError::internal(),
        _ => return None,
    };
    Some(error)
}

/// `GET,HEAD` → `GET, HEAD, OPTIONS`.
fn with_options(allow: &HeaderValue) -> HeaderValue {
    let methods = allow.to_str().unwrap_or_default();
    let mut listed: Vec<&str> = methods.split(',').map(str::trim).collect();
    listed.push("OPTIONS");
    HeaderValue::try_from(listed.join(", ")).unwrap_or_else(|_| allow.clone())
}

fn options(allow: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(ALLOW, with_options(allow));
    response
}

/// The request's headers that CORS answers.
struct CallerHeaders {
    origin: Option<HeaderValue>,
    asks_method: bool,
    asks_headers: Option<HeaderValue>,
}

impl CallerHeaders {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            origin: headers.get(ORIGIN).cloned(),
            asks_method: headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
            asks_headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        }
    }

    /// Any origin may call: credentials are tokens that a page must hold itself, never cookies.
    fn answer(self, method: &Method, headers: &mut HeaderMap) {
        match self.origin {
            Some(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
            None => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Location, X-Request-Id, X-Execution-Id"),
        );
        if method == Method::OPTIONS && self.asks_method {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALL_METHODS));
            if let Some(asked) = self.asks_headers {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
            }
        }
    }
}

/// HEAD: the length of the body that GET would have sent, and no body.
fn without_body(response: Response) -> Response {
    use axum::body::HttpBody;

    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact()
        && length > 0
    {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nonce_is_in_a_path_that_is_shown() {
        for (path, shown) in [
            ("/actors/x1/nonces/T_secret", "/actors/x1/nonces/[redacted]"),
            ("/actors/aliases/a/nonces/T_secret/more", "/actors/aliases/a/nonces/[redacted]"),
            ("/actors/x1/nonces", "/actors/x1/nonces"),
            ("/actors/x1/messages", "/actors/x1/messages"),
        ] {
            assert_eq!(without_nonce(path), shown);
        }
    }
}
