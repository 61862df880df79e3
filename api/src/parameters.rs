//! Reading requests: bodies under a limit and a clock, and named parameters
//! from JSON, query string and form, in this order of precedence.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use abax_actors::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, request};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::App;
use crate::bodies::{Sender, Share};
use crate::dialect::Dialect;
use crate::error::{ApiError, FieldError, Meaning};

/// A request whose body has arrived.
#[derive(Debug)]
pub(crate) struct Incoming {
    dialect: Dialect,
    /// Names and values of the query string, in order.
    pub(crate) query: Vec<(String, String)>,
    /// The media type without parameters, lower case.
    pub(crate) media_type: Option<String>,
    /// The header as sent: a multipart body's boundary is in it.
    content_type: Option<String>,
    pub(crate) body: Bytes,
    /// The body as JSON, which more than one looks at.
    parsed: OnceLock<Result<Json, ApiError>>,
    _share: Share,
}

impl Incoming {
    /// Reads the body of `request`, at most `limit_bytes` of it.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Slow`, `Malformed` where the connection broke, and what
    /// [`Share::grow`] says.
    pub(crate) async fn read(
        app: &App,
        request: Request,
        limit_bytes: usize,
    ) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let dialect = parts.extensions.get::<Dialect>().copied().unwrap_or_default();
        let query = query_of(&parts);
        let content_type = header(&parts.headers, CONTENT_TYPE.as_str());
        let media_type = content_type
            .as_deref()
            .and_then(|value| value.split(';').next())
            .map(|media_type| media_type.trim().to_ascii_lowercase());
        let announced = header(&parts.headers, CONTENT_LENGTH.as_str())
            .and_then(|value| value.parse::<u64>().ok());
        let mut share = app.bodies().share(parts.extensions.get::<Sender>().cloned());
        let patience = app.config().body_timeout;
        let body = collect(body, announced, limit_bytes, patience, &mut share).await?;
        let parsed = OnceLock::new();
        Ok(Self { dialect, query, media_type, content_type, body, parsed, _share: share })
    }

    /// True for `application/json` and its relatives (`…+json`).
    pub(crate) fn is_json(&self) -> bool {
        self.media_type
            .as_deref()
            .is_some_and(|media| media == "application/json" || media.ends_with("+json"))
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// `Malformed`, naming the place where reading stopped.
    pub(crate) fn json(&self) -> Result<Json, ApiError> {
        let parse = || {
            serde_json::from_slice(&self.body).map_err(|error| {
                ApiError::new(Meaning::Malformed, format!("The body is not valid JSON: {error}."))
            })
        };
        self.parsed.get_or_init(parse).clone()
    }

    /// The named parameters of this request.
    ///
    /// # Errors
    ///
    /// `Malformed` for broken bodies and for JSON that is not an object;
    /// `UnreadableType` for a body that is neither JSON nor a form.
    pub(crate) async fn parameters(&self) -> Result<Parameters, ApiError> {
        let mut json = BTreeMap::new();
        let mut form = Vec::new();
        match self.media_type.as_deref() {
            _ if self.body.is_empty() => {}
            _ if self.is_json() => json = self.members()?,
            Some("application/x-www-form-urlencoded") => {
                form = form_urlencoded::parse(&self.body).into_owned().collect();
            }
            Some("multipart/form-data") => form = self.multipart().await?,
            other => {
                return Err(ApiError::new(
                    Meaning::UnreadableType,
                    format!(
                        "A body of type {} is not read here; send application/json or a form.",
                        other.unwrap_or("(none)")
                    ),
                ));
            }
        }
        Ok(Parameters { dialect: self.dialect, json, query: self.query.clone(), form })
    }

    /// The members of a body that is a JSON object.
    fn members(&self) -> Result<BTreeMap<String, Json>, ApiError> {
        if !self.json()?.is_object() {
            return Err(ApiError::new(
                Meaning::Malformed,
                "The body must be a JSON object with the parameters by name.",
            ));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::new(Meaning::Malformed, format!("The body is not valid JSON: {error}."))
        })
    }

    async fn multipart(&self) -> Result<Vec<(String, String)>, ApiError> {
        let broken = |error: &dyn std::fmt::Display| {
            ApiError::new(
                Meaning::Malformed,
                format!("The multipart body cannot be read: {error}."),
            )
        };
        let request = Request::builder()
            .header(CONTENT_TYPE, self.content_type.as_deref().unwrap_or_default())
            .body(Body::from(self.body.clone()))
            .map_err(|error| broken(&error))?;
        let mut fields =
            Multipart::from_request(request, &()).await.map_err(|error| broken(&error))?;
        let mut form = Vec::new();
        while let Some(field) = fields.next_field().await.map_err(|error| broken(&error))? {
            let name = field.name().unwrap_or_default().to_owned();
            form.push((name, field.text().await.map_err(|error| broken(&error))?));
        }
        Ok(form)
    }
}

/// Names and values of the query string, in order.
pub(crate) fn query_of(parts: &request::Parts) -> Vec<(String, String)> {
    form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// How much of a refused body is read and forgotten, so that its sender gets to
/// read the answer instead of a broken connection.
const COURTESY_BYTES: usize = 16 << 20;
/// How long that may take.
const COURTESY: Duration = Duration::from_secs(2);

/// Reads what is left of a body that nobody wants, for a while.
pub(crate) async fn forget(mut stream: BodyDataStream) {
    let deadline = Instant::now() + COURTESY;
    let mut left = COURTESY_BYTES;
    while let Ok(Some(Ok(chunk))) = timeout_at(deadline, stream.next()).await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
}

async fn collect(
    body: Body,
    announced: Option<u64>,
    limit_bytes: usize,
    patience: Duration,
    share: &mut Share,
) -> Result<Bytes, ApiError> {
    let mut stream = body.into_data_stream();
    // What is announced is not there yet, and costs nothing until it is.
    let expected = announced.map_or(0, |length| usize::try_from(length).unwrap_or(limit_bytes));
    let mut collected = Vec::with_capacity(expected.min(limit_bytes));
    let mut too_large = announced.is_some_and(|length| length > limit_bytes as u64);
    let deadline = Instant::now() + patience;
    while !too_large {
        let next = timeout_at(deadline, stream.next()).await.map_err(|_| {
            ApiError::new(
                Meaning::Slow,
                format!("The body did not arrive within {} s.", patience.as_secs()),
            )
        })?;
        match next {
            None => return Ok(Bytes::from(collected)),
            Some(Ok(chunk)) if collected.len() + chunk.len() <= limit_bytes => {
                if let Err(refused) = share.grow(chunk.len()) {
                    drop(collected);
                    forget(stream).await;
                    return Err(refused);
                }
                collected.extend_from_slice(&chunk);
            }
            Some(Ok(_)) => too_large = true,
            Some(Err(error)) => {
                return Err(ApiError::new(
                    Meaning::Malformed,
                    format!("The body could not be read: {error}."),
                ));
            }
        }
    }
    drop(collected);
    forget(stream).await;
    Err(ApiError::new(
        Meaning::TooLarge,
        format!("The body is larger than the limit of {limit_bytes} bytes."),
    ))
}

/// Named parameters of one request, whichever way each was sent.
#[derive(Debug)]
pub(crate) struct Parameters {
    dialect: Dialect,
    json: BTreeMap<String, Json>,
    query: Vec<(String, String)>,
    form: Vec<(String, String)>,
}

/// A parameter as it was sent.
#[derive(Debug, Clone, PartialEq)]
enum Given {
    Null,
    Bool(bool),
    /// A JSON number, as its text.
    Number(String),
    /// A JSON string.
    String(String),
    Array(Vec<Json>),
    Object(Json),
    /// From the query string or a form: at least one value.
    Texts(Vec<String>),
}

impl Given {
    fn of(json: &Json) -> Self {
        const KEPT: &str = "the text was parsed when it came in";
        let text = json.as_str();
        match text.as_bytes().first() {
            Some(b'{') => Self::Object(json.clone()),
            Some(b'[') => Self::Array(serde_json::from_str(text).expect(KEPT)),
            Some(b'"') => Self::String(serde_json::from_str(text).expect(KEPT)),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(text.to_owned()),
        }
    }

    /// As the text that Abaco makes of it: scalars and objects as Python prints them,
    /// of a list its first element. None for null.
    fn text(self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(true) => Some("True".to_owned()),
            Self::Bool(false) => Some("False".to_owned()),
            Self::Number(text) | Self::String(text) => Some(text),
            Self::Array(items) => items.first().and_then(|item| Self::of(item).text()),
            Self::Object(json) => Some(json.to_python()),
            Self::Texts(values) => values.into_iter().next(),
        }
    }
}

impl Parameters {
    /// A parameter under either spelling; the dialect's own wins within each source.
    fn find(&self, name: &str) -> Option<Given> {
        self.each(name).next()
    }

    /// What each source has under a name, in the order of precedence.
    fn each(&self, name: &str) -> impl Iterator<Item = Given> {
        let own = self.dialect.key(name);
        let other = if own == name { Dialect::V2.key(name) } else { name.to_owned() };
        let spellings = [own, other];
        let json = spellings.iter().find_map(|spelling| self.json.get(spelling)).map(Given::of);
        let [query, form] = [&self.query, &self.form].map(|source| {
            spellings.iter().find_map(|spelling| {
                let under = source.iter().filter(|(key, _)| key == spelling);
                let values: Vec<String> = under.map(|(_, value)| value.clone()).collect();
                (!values.is_empty()).then_some(Given::Texts(values))
            })
        });
        [json, query, form].into_iter().flatten()
    }

    /// The form that the caller speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// True where the parameter `name` was given, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Starts reading typed values, collecting what is wrong on the way.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { parameters: self, errors: Vec::new() }
    }

    /// How the caller's dialect writes the parameter `name`.
    pub(crate) fn spelling(&self, name: &str) -> String {
        self.dialect.key(name)
    }

    /// Text of the parameter `name` from the first source that has more than nothing under it.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.each(name).filter_map(Given::text).find(|text| !text.is_empty())
    }

    /// True where a form's only name is itself JSON: `curl -d '{…}'` without its content type.
    fn looks_like_json_sent_as_form(&self) -> bool {
        matches!(self.form.as_slice(), [(name, _), ..] if name.trim_start().starts_with('{'))
    }
}

/// Reads parameters as the types they are declared with. A null counts as absent.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    parameters: &'a Parameters,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    /// Any scalar as text; of a JSON list only the first element.
    pub(crate) fn string(&mut self, name: &str) -> Option<String> {
        self.parameters.find(name)?.text()
    }

    /// `true`, `false`, and the texts true, false, 1, 0 in any case.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        let text = match self.parameters.find(name)? {
            Given::Null => return None,
            Given::Bool(value) => return Some(value),
            Given::String(text) => text,
            Given::Texts(values) => values.into_iter().next()?,
            _ => String::new(),
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => self.refuse(name, "must be true or false"),
        }
    }

    /// A JSON number without a fraction, or its text.
    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        let text = match self.parameters.find(name)? {
            Given::Null => return None,
            Given::Number(text) | Given::String(text) => text,
            Given::Texts(values) => values.into_iter().next()?,
            _ => String::new(),
        };
        text.trim().parse().ok().or_else(|| self.refuse(name, "must be an integer"))
    }

    /// A JSON object; a form may carry it as its JSON text.
    pub(crate) fn object(&mut self, name: &str) -> Option<Json> {
        let text = match self.parameters.find(name)? {
            Given::Null => return None,
            Given::Object(json) => return Some(json),
            Given::String(text) => text,
            Given::Texts(values) => values.into_iter().next()?,
            _ => String::new(),
        };
        match Json::parse(&text) {
            Ok(json) if json.is_object() => Some(json),
            _ => self.refuse(name, "must be a JSON object"),
        }
    }

    /// A JSON list, one JSON string, or a repeated form field.
    pub(crate) fn strings(&mut self, name: &str) -> Option<Vec<String>> {
        match self.parameters.find(name)? {
            Given::Null => None,
            Given::Array(items) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| Given::of(item).text()).collect();
                texts.or_else(|| self.refuse(name, "must be a list of texts"))
            }
            Given::Object(_) => self.refuse(name, "must be a list of texts"),
            Given::Texts(values) => Some(values),
            scalar => scalar.text().map(|text| vec![text]),
        }
    }

    /// What `read` makes of a parameter, into its place; `default` where it is null.
    /// One that is not given leaves the place as it is.
    pub(crate) fn put<T>(
        &mut self,
        name: &str,
        place: &mut T,
        default: T,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) {
        if self.parameters.find(name).is_some() {
            *place = read(self, name).unwrap_or(default);
        }
    }

    /// As [`Reader::put`], where null is nothing.
    pub(crate) fn put_if_any<T>(
        &mut self,
        name: &str,
        place: &mut Option<T>,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) {
        self.put(name, place, None, |reader, name| read(reader, name).map(Some));
    }

    /// A parameter without which nothing can be done.
    pub(crate) fn required(&mut self, name: &str) -> String {
        match self.string(name) {
            Some(text) if !text.trim().is_empty() => text,
            _ => {
                let hint = if self.parameters.looks_like_json_sent_as_form() {
                    "is required (the body looks like JSON sent as a form: add the header Content-Type: application/json)"
                } else {
                    "is required"
                };
                let _: Option<()> = self.refuse(name, hint);
                String::new()
            }
        }
    }

    /// Refuses a field by hand.
    pub(crate) fn refuse<T>(&mut self, name: &str, problem: impl Into<String>) -> Option<T> {
        self.errors.push(FieldError::new(name, problem));
        None
    }

    /// Ends reading.
    ///
    /// # Errors
    ///
    /// `Invalid` with every field that was refused.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parameters(json: Value, query: &[(&str, &str)], form: &[(&str, &str)]) -> Parameters {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let json = serde_json::from_value(json).unwrap();
        Parameters { dialect: Dialect::V2, json, query: owned(query), form: owned(form) }
    }

    #[test]
    fn json_beats_query_beats_form() {
        let all = parameters(json!({"a": "json"}), &[("a", "query")], &[("a", "form")]);
        assert_eq!(all.text("a").as_deref(), Some("json"));
        let two = parameters(json!({}), &[("a", "query")], &[("a", "form")]);
        assert_eq!(two.text("a").as_deref(), Some("query"));
        let one = parameters(json!({}), &[], &[("a", "form")]);
        assert_eq!(one.text("a").as_deref(), Some("form"));
    }

    #[test]
    fn either_spelling_is_read_and_the_configured_one_wins() {
        let both = parameters(json!({"max_workers": 1, "maxWorkers": 2}), &[], &[]);
        assert_eq!(both.reader().integer("max_workers"), Some(2));
        let other = parameters(json!({"max_workers": 1}), &[], &[]);
        assert_eq!(other.reader().integer("max_workers"), Some(1));
    }

    #[test]
    fn texts_are_coerced_and_what_cannot_be_is_refused_by_name() {
        for (value, expected) in [
            (json!(true), Some(true)),
            (json!("False"), Some(false)),
            (json!("1"), Some(true)),
            (json!(""), None),
            (json!("abcd"), None),
            (json!(1), None),
        ] {
            let parameters = parameters(json!({ "stateless": value }), &[], &[]);
            let mut reader = parameters.reader();
            assert_eq!(reader.boolean("stateless"), expected, "{value}");
            assert_eq!(reader.finish().is_err(), expected.is_none(), "{value}");
        }
        let parameters = parameters(
            json!({"log_ex": "16000", "name": ["first", "second"], "n": 1.5, "d": "abcd", "hints": "one"}),
            &[],
            &[],
        );
        let mut reader = parameters.reader();
        assert_eq!(reader.integer("log_ex"), Some(16000));
        assert_eq!(reader.string("name").as_deref(), Some("first"));
        assert_eq!(reader.strings("hints"), Some(vec!["one".to_owned()]));
        assert_eq!(reader.integer("n"), None);
        assert_eq!(reader.object("d"), None);
        assert_eq!(reader.required("image"), "");
        let error = reader.finish().unwrap_err();
        let names: Vec<&str> = error.fields().iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["n", "d", "image"]);
    }
}
