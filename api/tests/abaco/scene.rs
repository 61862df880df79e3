//! A service whose bare prefix speaks one of Abaco's dialects, asked in one of the
//! letter cases; and answers compared with what is written down here, not with what
//! our own code makes of names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use abax_actors::{ActorId, Claim, HostInfo, Phase};
use abax_api::Dialect;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Map, Value};

use crate::names::{OF_V3, named};
use crate::service::{Running, envelope, start_of};

/// One of Abaco's dialects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spoken {
    /// What settings call it.
    pub(crate) name: &'static str,
    pub(crate) is_snake: bool,
    pub(crate) keeps_nulls: bool,
    /// v3, which has more in the envelope and in some objects.
    pub(crate) is_v3: bool,
    /// Where links to actors and to users lead.
    actors: &'static str,
    profiles: &'static str,
}

const DIALECTS: [Spoken; 3] = [
    Spoken {
        name: "v2-camel",
        is_snake: false,
        keeps_nulls: false,
        is_v3: false,
        actors: "/actors/v2",
        profiles: "/profiles/v2",
    },
    Spoken {
        name: "v2-snake",
        is_snake: true,
        keeps_nulls: true,
        is_v3: false,
        actors: "/actors/v2",
        profiles: "/profiles/v2",
    },
    Spoken {
        name: "v3",
        is_snake: true,
        keeps_nulls: true,
        is_v3: true,
        actors: "/v3/actors",
        profiles: "/v3/oauth2/profiles",
    },
];

/// The tenant of everybody here.
pub(crate) const TENANT: &str = "DEV-DEVELOP";

pub(crate) struct Scene {
    pub(crate) running: Running,
    pub(crate) spoken: Spoken,
    /// The letter case of what is sent.
    asks_in_snake: bool,
    /// What stands for `{name}` in paths and in what is expected.
    known: RefCell<BTreeMap<String, String>>,
}

impl Scene {
    /// One for each dialect and letter case.
    pub(crate) async fn each() -> Vec<Self> {
        Self::each_with(Duration::from_secs(55)).await
    }

    /// As [`Scene::each`], where who waits for an execution does so for this long.
    pub(crate) async fn each_with(sync_deadline: Duration) -> Vec<Self> {
        let mut scenes = Vec::new();
        for spoken in DIALECTS {
            for asks_in_snake in [false, true] {
                scenes.push(Self::new(spoken, asks_in_snake, sync_deadline).await);
            }
        }
        scenes
    }

    async fn new(spoken: Spoken, asks_in_snake: bool, sync_deadline: Duration) -> Self {
        let dialect = Dialect::named(spoken.name).unwrap();
        let running = start_of(
            abax_actors::Clock::system(),
            |config| config.delete_wait = Duration::from_millis(100),
            |config| {
                config.bare_dialect = dialect;
                config.sync_deadline = sync_deadline;
            },
        )
        .await;
        let server = running.url("");
        let scene = Self { running, spoken, asks_in_snake, known: RefCell::default() };
        for (name, value) in [
            ("actors", format!("{server}{}", spoken.actors)),
            ("profiles", format!("{server}{}", spoken.profiles)),
            ("server", server.clone()),
        ] {
            scene.know(name, &value);
        }
        scene
    }

    /// Lets `{name}` stand for `value`.
    pub(crate) fn know(&self, name: &str, value: &str) {
        self.known.borrow_mut().insert(name.to_owned(), value.to_owned());
    }

    /// `text` with everything in it that is known.
    pub(crate) fn filled(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, value) in &*self.known.borrow() {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        filled
    }

    /// A name as answers have it.
    pub(crate) fn key(&self, snake: &str) -> String {
        named(snake, self.spoken.is_snake)
    }

    /// An attribute of an object as answers have it: its name, and whether it is there.
    fn attributes(&self, object: Value, keeps_nulls: bool) -> Value {
        let Value::Object(members) = object else { panic!("no object: {object}") };
        let members = members
            .into_iter()
            .filter(|(name, _)| self.spoken.is_v3 || !OF_V3.contains(&name.as_str()))
            .filter(|(_, value)| keeps_nulls || !value.is_null())
            .map(|(name, value)| (self.key(&name), value));
        Value::Object(members.collect())
    }

    /// An object as answers show it.
    pub(crate) fn object(&self, object: Value) -> Value {
        self.attributes(object, self.spoken.keeps_nulls)
    }

    /// One that has its nulls in every dialect.
    pub(crate) fn row(&self, object: Value) -> Value {
        self.attributes(object, true)
    }

    /// The result of a search with these hits, all of them on the first page.
    pub(crate) fn found(&self, hits: Vec<Value>) -> Value {
        let count = hits.len();
        let metadata = serde_json::json!({
            "total_count": count, "records_skipped": 0, "record_limit": 100, "count_returned": count,
        });
        serde_json::json!({ "_metadata": self.row(metadata), "search": hits })
    }

    /// A request of `user`, whose roles are those that Abaco's tests give it.
    pub(crate) fn ask(&self, user: &str, method: Method, path: &str) -> Ask<'_> {
        let role = match user {
            "testuser" => "Internal/abaco-admin",
            "testshareuser" => "Internal/abaco-privileged",
            "testotheruser" => "Internal/abaco-limited",
            _ => "Internal/abaco-user",
        };
        let token = self.running.token(user, TENANT, &["Internal/everyone", role]);
        let header = if self.spoken.is_v3 {
            "X-Tapis-Token".to_owned()
        } else {
            format!("X-Jwt-Assertion-{TENANT}")
        };
        let ask = self.nobody(method, path);
        Ask { request: ask.request.header(header, token), ..ask }
    }

    /// A request without credentials.
    pub(crate) fn nobody(&self, method: Method, path: &str) -> Ask<'_> {
        let path = self.filled(path);
        let request = self.running.stranger(method.clone(), &path);
        let what = format!("{} asked by {}: {method} {path}", self.spoken.name, self.case());
        Ask { scene: self, request, what }
    }

    fn case(&self) -> &'static str {
        if self.asks_in_snake { "snake" } else { "camel" }
    }

    pub(crate) fn get(&self, user: &str, path: &str) -> Ask<'_> {
        self.ask(user, Method::GET, path)
    }

    pub(crate) fn post(&self, user: &str, path: &str) -> Ask<'_> {
        self.ask(user, Method::POST, path)
    }

    pub(crate) fn put(&self, user: &str, path: &str) -> Ask<'_> {
        self.ask(user, Method::PUT, path)
    }

    pub(crate) fn delete(&self, user: &str, path: &str) -> Ask<'_> {
        self.ask(user, Method::DELETE, path)
    }

    /// Compares, and learns what stands for `{names}` that are not known yet.
    fn compare(&self, expected: &Value, found: &Value, at: &str) {
        match (expected, found) {
            (Value::String(pattern), _) => self.compare_text(pattern, found, at),
            (Value::Object(expected), Value::Object(found)) => {
                let names = |members: &Map<String, Value>| -> Vec<String> {
                    let mut names: Vec<_> = members.keys().cloned().collect();
                    names.sort();
                    names
                };
                assert_eq!(names(found), names(expected), "{at}");
                for (name, value) in expected {
                    self.compare(value, &found[name], &format!("{at} {name}"));
                }
            }
            (Value::Array(expected), Value::Array(found)) => {
                assert_eq!(found.len(), expected.len(), "{at}: {found:?}");
                for (n, (expected, found)) in expected.iter().zip(found).enumerate() {
                    self.compare(expected, found, &format!("{at} {n}"));
                }
            }
            _ => assert_eq!(found, expected, "{at}"),
        }
    }

    fn compare_text(&self, pattern: &str, found: &Value, at: &str) {
        let text = || found.as_str().unwrap_or_else(|| panic!("{at}: no text: {found}"));
        match pattern {
            "@any" => {}
            "@text" => assert!(!text().is_empty(), "{at}"),
            "@time" => {
                let time = text();
                let digits = time.bytes().filter(u8::is_ascii_digit).count();
                let is_time = time.len() == 24 && digits == 17 && time.ends_with('Z');
                assert!(is_time && &time[10..11] == "T" && &time[19..20] == ".", "{at}: {time}");
            }
            "@id" => assert!(ActorId::parse(text()).is_some(), "{at}: {found}"),
            _ => {
                let filled = self.filled(pattern);
                match filled.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) if !name.contains(['{', '}', '\'']) && !name.is_empty() => {
                        self.know(name, text());
                    }
                    _ => assert_eq!(found, filled.as_str(), "{at}"),
                }
            }
        }
    }

    /// Takes the next execution, as a worker does.
    pub(crate) async fn claim(&self) -> Claim {
        let service = &self.running.service;
        let queues = service.config().queues.clone();
        let info = HostInfo { classes: queues.clone(), ..HostInfo::new("node-1", "1", 8) };
        let host = service.register_host(info).await.unwrap();
        let lease = Duration::from_secs(60);
        loop {
            let delivery = service.receive(&queues, 1).await.unwrap();
            if let Some(claim) = service.claim(delivery, &host, lease).await.unwrap() {
                for phase in [Phase::ImageReady, Phase::Created, Phase::Started] {
                    service.record_phase(&claim.key, phase).await.unwrap();
                }
                return claim;
            }
        }
    }
}

/// A request on its way.
pub(crate) struct Ask<'a> {
    scene: &'a Scene,
    request: RequestBuilder,
    what: String,
}

impl Ask<'_> {
    /// A JSON body of these parameters, in the scene's letter case.
    pub(crate) fn json(self, parameters: Value) -> Self {
        let Value::Object(members) = parameters else { panic!("no parameters: {parameters}") };
        let members: Map<String, Value> = members
            .into_iter()
            .map(|(name, value)| (named(&name, self.scene.asks_in_snake), self.fill(value)))
            .collect();
        let what = format!("{} {}", self.what, Value::from(members.clone()));
        Self { request: self.request.json(&members), what, ..self }
    }

    fn fill(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.scene.filled(&text).into(),
            other => other,
        }
    }

    /// The same as a form.
    pub(crate) fn form(self, parameters: &[(&str, &str)]) -> Self {
        let of = self.scene;
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| (named(name, of.asks_in_snake), of.filled(value)))
            .collect();
        let what = format!("{} {parameters:?}", self.what);
        Self { request: self.request.form(&parameters), what, ..self }
    }

    /// A body as it is.
    pub(crate) fn body(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        let request = self.request.header("content-type", content_type).body(body);
        Self { request, ..self }
    }

    /// The envelope has this status and this message, which is said whole, or from its
    /// beginning (`^`), or in part (`~`); returns the result.
    pub(crate) async fn says(self, status: u16, message: &str) -> Value {
        let Self { scene, request, what } = self;
        let status = StatusCode::from_u16(status).unwrap();
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{what}: {:?}", answer.text().await);
        let (headers, body) = envelope(answer, status).await;
        assert!(!headers.contains_key("www-authenticate"), "{what}");
        let mut members = vec!["message", "result", "status", "version"];
        if scene.spoken.is_v3 {
            members.push("metadata");
        }
        let mut found: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        members.sort_unstable();
        assert_eq!(found, members, "{what}");
        let said = body["message"].as_str().unwrap();
        let expected = scene.filled(message);
        let is_said = match (expected.strip_prefix('^'), expected.strip_prefix('~')) {
            (Some(beginning), _) => said.starts_with(beginning),
            (_, Some(part)) => said.contains(part),
            _ => said == expected,
        };
        assert!(is_said, "{what} says {said:?}, not {message:?}");
        body["result"].clone()
    }

    /// As [`Ask::says`], and the result is this.
    pub(crate) async fn shows(self, message: &str, expected: Value) {
        let (scene, what) = (self.scene, self.what.clone());
        let found = self.says(200, message).await;
        scene.compare(&expected, &found, &what);
    }

    /// A body without an envelope: its kind and its bytes.
    pub(crate) async fn raw(self) -> (String, Vec<u8>) {
        let answer = self.request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.what);
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.bytes().await.unwrap().to_vec())
    }
}
