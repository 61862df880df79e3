//! The body that every answer has, and the one place where it is written.
//!
//! Handlers return a [`Reply`] or an [`ApiError`]; both travel to the edge as
//! an extension of an empty response, and become bytes there, in the dialect
//! that the caller speaks.

use abax_actors::Time;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::error::{ApiError, Meaning};

/// What every envelope says of the service's release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An object of a result, before any dialect: snake names in the order of writing.
///
/// Only its own names change case; what is inside a value stays as it was sent,
/// to the last digit, so values are kept as their JSON text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(Vec<(String, Item)>);

#[derive(Debug, Clone)]
enum Item {
    Value(Box<RawValue>),
    /// Paths from the root `/`.
    Links(Vec<(&'static str, String)>),
    Link(String),
    /// What Abaco has had since v3.
    SinceV3(Box<RawValue>),
    /// When something happened; where it never did, Abaco says so in a word.
    Moment(Option<String>),
    /// An object or rows whose names change case too, and which keep their nulls.
    Part(Object),
    Rows(Vec<Object>),
}

impl Object {
    /// Adds `name` with a value that serializes to JSON.
    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = to_raw_value(&value).expect("what we answer with has a JSON form");
        self.0.push((name.to_owned(), Item::Value(value)));
        self
    }

    /// Adds `name`, but not where v2 is spoken.
    pub(crate) fn with_since_v3(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.push((name.to_owned(), Item::SinceV3(raw(&value))));
        self
    }

    /// Adds `_links`, each a path from the root `/`.
    pub(crate) fn with_links<const N: usize>(mut self, links: [(&'static str, String); N]) -> Self {
        self.0.push(("_links".to_owned(), Item::Links(links.into())));
        self
    }

    /// Adds `api_server`, the root of all links.
    pub(crate) fn with_server(self) -> Self {
        self.with_link("api_server", "/")
    }

    /// Adds an address of this service, given as a path from the root `/`.
    pub(crate) fn with_link(mut self, name: &str, path: &str) -> Self {
        self.0.push((name.to_owned(), Item::Link(path.to_owned())));
        self
    }

    /// Adds a time of something that may not have happened yet.
    pub(crate) fn with_moment(mut self, name: &str, time: Option<Time>) -> Self {
        self.0.push((name.to_owned(), Item::Moment(time.map(Time::iso_millis))));
        self
    }

    /// Adds an object of which the above holds too.
    pub(crate) fn with_part(mut self, name: &str, part: Object) -> Self {
        self.0.push((name.to_owned(), Item::Part(part)));
        self
    }

    /// Adds a list of such objects.
    pub(crate) fn with_rows(mut self, name: &str, rows: Vec<Object>) -> Self {
        self.0.push((name.to_owned(), Item::Rows(rows)));
        self
    }

    /// Writes the names and links of `dialect`.
    fn write(self, audience: Audience<'_>, drops_nulls: bool) -> Written {
        let Audience { dialect, server, .. } = audience;
        let rows = |rows: Vec<Object>| rows.into_iter().map(|row| row.write(audience, false));
        let mut written = Written::default();
        for (name, item) in self.0 {
            let value = match item {
                Item::Value(value) if drops_nulls && value.get() == "null" => continue,
                Item::Value(value) => value,
                Item::SinceV3(_) if matches!(dialect, Dialect::V2 | Dialect::V2Snake) => continue,
                Item::SinceV3(value) => value,
                Item::Links(links) => {
                    let mut resolved = Written::default();
                    for (name, link) in links {
                        resolved.set(name.to_owned(), raw(&dialect.link(server, &link)));
                    }
                    raw(&resolved)
                }
                Item::Link(link) => raw(&dialect.link(server, &link)),
                Item::Moment(None) if dialect.is_abaco() => raw(&"None"),
                Item::Moment(time) => raw(&time),
                Item::Part(part) => raw(&part.write(audience, false)),
                Item::Rows(list) => raw(&rows(list).collect::<Vec<_>>()),
            };
            written.set(dialect.key(&name), value);
        }
        written
    }
}

/// An object with its final names, in order; a later value under a name replaces the earlier.
#[derive(Debug, Default)]
struct Written(Vec<(String, Box<RawValue>)>);

impl Written {
    fn set(&mut self, name: String, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("texts and JSON have a JSON form")
}

/// A success, before any dialect.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    kind: Kind,
    message: String,
    result: Outcome,
    keeps_nulls: bool,
    version: Option<String>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Nothing,
    /// Of names that are nobody's to change, such as those of users.
    Plain(Box<RawValue>),
    One(Object),
    Many(Vec<Object>),
}

#[derive(Debug, Clone)]
enum Kind {
    Done,
    Created { location: String },
    Accepted { location: String },
}

impl Reply {
    /// 200 with the result null.
    pub(crate) fn done(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Done,
            message: message.into(),
            result: Outcome::Nothing,
            keeps_nulls: false,
            version: None,
        }
    }

    /// 200 with a value that is written as it is, whatever the dialect.
    pub(crate) fn plain(message: impl Into<String>, value: impl Serialize) -> Self {
        Self { result: Outcome::Plain(raw(&value)), ..Self::done(message) }
    }

    /// 200 with one object.
    pub(crate) fn one(message: impl Into<String>, object: Object) -> Self {
        Self { result: Outcome::One(object), ..Self::done(message) }
    }

    /// 200 with a list.
    pub(crate) fn many(message: impl Into<String>, objects: Vec<Object>) -> Self {
        Self { result: Outcome::Many(objects), ..Self::done(message) }
    }

    /// Something new exists at `location`: 201, and 200 for Abaco's clients.
    pub(crate) fn created(mut self, location: impl Into<String>) -> Self {
        self.kind = Kind::Created { location: location.into() };
        self
    }

    /// Work was accepted and can be followed at `location`: 202, and 200 for Abaco's clients.
    pub(crate) fn accepted(mut self, location: impl Into<String>) -> Self {
        self.kind = Kind::Accepted { location: location.into() };
        self
    }

    /// What is shown is of this version, which `If-Match` may name.
    pub(crate) fn of_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Nulls of this result stay in every dialect.
    pub(crate) fn keeping_nulls(mut self) -> Self {
        self.keeps_nulls = true;
        self
    }
}

/// What a handler left for the edge to write.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Reply(Reply),
    Failure(ApiError),
    /// A message's acknowledgement whose status is 202 in every dialect.
    StillRunning(Reply),
}

impl Answer {
    /// The response that carries this answer to the edge.
    fn carried(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        Answer::Reply(self).carried()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.carried()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Answer::Failure(self).carried()
    }
}

/// Whom an answer is written for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub(crate) dialect: Dialect,
    /// Scheme and authority of this service as its callers reach it, no slash at the end.
    pub(crate) server: &'a str,
    pub(crate) request_id: &'a str,
    /// Abaco tells admins, and nobody else, of what there is not.
    pub(crate) is_admin: bool,
}

/// Writes an answer for its audience.
pub(crate) fn write(answer: Answer, audience: Audience<'_>) -> Response {
    match answer {
        Answer::Reply(reply) => write_reply(reply, audience, false),
        Answer::StillRunning(reply) => write_reply(reply, audience, true),
        Answer::Failure(error) => write_failure(&error, audience),
    }
}

fn write_reply(reply: Reply, audience: Audience<'_>, still_running: bool) -> Response {
    let Audience { dialect, server, .. } = audience;
    let (status, location) = match reply.kind {
        Kind::Accepted { location } if still_running => (StatusCode::ACCEPTED, Some(location)),
        Kind::Done => (StatusCode::OK, None),
        // Abaco answers 200 for every creation, and its clients compare.
        Kind::Created { .. } | Kind::Accepted { .. } if dialect.is_abaco() => {
            (StatusCode::OK, None)
        }
        Kind::Created { location } => (StatusCode::CREATED, Some(location)),
        Kind::Accepted { location } => (StatusCode::ACCEPTED, Some(location)),
    };
    let drops_nulls = dialect.drops_nulls() && !reply.keeps_nulls;
    let result = match reply.result {
        Outcome::Nothing => raw(&()),
        Outcome::Plain(value) => value,
        Outcome::One(object) => raw(&object.write(audience, drops_nulls)),
        Outcome::Many(objects) => {
            let written = objects.into_iter().map(|object| object.write(audience, drops_nulls));
            raw(&written.collect::<Vec<_>>())
        }
    };
    let mut response = envelope(status, "success", &reply.message, result, dialect, None);
    if let Some(location) = location
        && let Ok(value) = HeaderValue::try_from(dialect.link(server, &location))
    {
        response.headers_mut().insert(LOCATION, value);
    }
    if let Some(version) = reply.version
        && let Ok(value) = HeaderValue::try_from(format!("\"{version}\""))
    {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn write_failure(error: &ApiError, audience: Audience<'_>) -> Response {
    let Audience { dialect, request_id, is_admin, .. } = audience;
    let status = error.meaning().status(dialect, is_admin);
    let mut message = error.text(dialect);
    if status.is_server_error() {
        message = format!("{message} (request {request_id})");
    }
    let fields = (!dialect.is_abaco() && !error.fields().is_empty()).then(|| {
        error
            .fields()
            .iter()
            .map(|field| json!({ "field": dialect.key(&field.name), "problem": field.problem }))
            .collect::<Vec<_>>()
    });
    let mut response = envelope(status, "error", &message, raw(&()), dialect, fields);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"abax\""));
    }
    if matches!(error.meaning(), Meaning::Unavailable | Meaning::TooMany) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    if let Some(allow) = error.allowed() {
        headers.insert(ALLOW, allow.clone());
    }
    response
}

fn envelope(
    status: StatusCode,
    word: &str,
    message: &str,
    result: Box<RawValue>,
    dialect: Dialect,
    errors: Option<Vec<Value>>,
) -> Response {
    let mut body = Written::default();
    body.set("message".to_owned(), raw(&message));
    body.set("result".to_owned(), result);
    body.set("status".to_owned(), raw(&word));
    body.set("version".to_owned(), raw(&VERSION));
    if dialect.has_metadata() {
        body.set("metadata".to_owned(), raw(&json!({})));
    }
    if let Some(errors) = errors {
        body.set("errors".to_owned(), raw(&errors));
    }
    let mut bytes = serde_json::to_vec_pretty(&body).expect("JSON texts serialize");
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    // Exactly this text: one client compares it for equality and takes the
    // body for binary when a charset follows.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_says_when_to_come_back() {
        for dialect in Dialect::ALL {
            let error = ApiError::from(abax_actors::Error::QueueUnavailable);
            let audience =
                Audience { dialect, server: "http://h", request_id: "r-1", is_admin: false };
            let answer = write(Answer::Failure(error), audience);
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{dialect:?}");
            assert_eq!(answer.headers()[RETRY_AFTER], "5", "{dialect:?}");
        }
    }
}
