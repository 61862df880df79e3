//! Who may call what: every route, under every prefix, by every kind of caller, with
//! the verdict that follows from what the route needs and what the caller has. A route
//! without a case here fails.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use abax_api::{Access, route_table};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::{PREFIXES, Running, envelope, expect, ok, start};

/// How much somebody may do with a thing; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    None,
    Read,
    Execute,
    Update,
}

use Level::{Execute, Read, Update};

impl Level {
    const ALL: [Self; 4] = [Self::None, Read, Execute, Update];

    fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Read => "READ",
            Execute => "EXECUTE",
            Update => "UPDATE",
        }
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// To be some user, of whichever tenant: it is about the caller's own things.
    User,
    /// To be an admin, of whichever tenant.
    Admin,
    /// This level on the actor of the URL.
    Actor(Level),
    /// To see the actor of the URL, and to be an admin.
    AdminOfActor,
    /// UPDATE on the actor of the body.
    ActorOfBody,
    Alias(Level),
    AliasAndActor(Level),
    /// UPDATE on the alias of the URL and on the actor of the body.
    AliasAndActorOfBody,
    Config(Level),
}

struct Case {
    method: Method,
    path: &'static str,
    needs: Needs,
    /// What whoever may call it gets under Abaco's prefixes.
    answer: u16,
}

impl Case {
    /// What whoever may call it gets under `prefix`.
    fn answer_under(&self, prefix: &str) -> u16 {
        let makes = ["/actors", "/actors/aliases", "/actors/configs"].contains(&self.path)
            || self.path.ends_with("/nonces");
        match (prefix, &self.method) {
            ("/actors", &Method::POST) if makes => 201,
            ("/actors", &Method::POST) if self.path.ends_with("/messages") => 202,
            ("/actors", _) if self.path.ends_with("/{number}") => 404,
            _ => self.answer,
        }
    }
}

fn cases() -> Vec<Case> {
    const A: &str = "/actors/{actor}";
    const CASES: &[(&str, &str, Needs, u16)] = &[
        ("GET", "/actors", Needs::User, 200),
        ("POST", "/actors", Needs::User, 200),
        ("GET", "/actors/search/{collection}", Needs::User, 200),
        ("GET", "/actors/utilization", Needs::User, 200),
        ("GET", "/actors/admin", Needs::Admin, 200),
        ("GET", "/actors/admin/workers", Needs::Admin, 200),
        ("GET", "/actors/admin/executions", Needs::Admin, 200),
        ("GET", A, Needs::Actor(Read), 200),
        ("PUT", A, Needs::Actor(Update), 200),
        ("DELETE", A, Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/state", Needs::Actor(Read), 200),
        ("POST", "/actors/{actor}/state", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/messages", Needs::Actor(Read), 200),
        ("POST", "/actors/{actor}/messages", Needs::Actor(Execute), 200),
        ("DELETE", "/actors/{actor}/messages", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/executions", Needs::Actor(Read), 200),
        ("GET", "/actors/{actor}/executions/{execution}", Needs::Actor(Read), 200),
        ("DELETE", "/actors/{actor}/executions/{execution}", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/executions/{execution}/logs", Needs::Actor(Read), 200),
        ("GET", "/actors/{actor}/executions/{execution}/results", Needs::Actor(Read), 200),
        // There is none.
        ("GET", "/actors/{actor}/executions/{execution}/results/{number}", Needs::Actor(Read), 404),
        ("GET", "/actors/{actor}/workers", Needs::Actor(Read), 200),
        ("POST", "/actors/{actor}/workers", Needs::AdminOfActor, 200),
        // There is none.
        ("GET", "/actors/{actor}/workers/{worker}", Needs::Actor(Read), 404),
        ("DELETE", "/actors/{actor}/workers/{worker}", Needs::Actor(Update), 404),
        ("GET", "/actors/{actor}/deliveries", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/webhook", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/permissions", Needs::Actor(Read), 200),
        ("POST", "/actors/{actor}/permissions", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/nonces", Needs::Actor(Read), 200),
        ("POST", "/actors/{actor}/nonces", Needs::Actor(Update), 200),
        ("GET", "/actors/{actor}/nonces/{nonce}", Needs::Actor(Read), 200),
        ("DELETE", "/actors/{actor}/nonces/{nonce}", Needs::Actor(Update), 200),
        ("GET", "/actors/aliases", Needs::User, 200),
        ("POST", "/actors/aliases", Needs::ActorOfBody, 200),
        ("GET", "/actors/aliases/{alias}", Needs::Alias(Read), 200),
        ("PUT", "/actors/aliases/{alias}", Needs::AliasAndActorOfBody, 200),
        ("DELETE", "/actors/aliases/{alias}", Needs::Alias(Update), 200),
        ("GET", "/actors/aliases/{alias}/permissions", Needs::Alias(Read), 200),
        ("POST", "/actors/aliases/{alias}/permissions", Needs::Alias(Update), 200),
        ("GET", "/actors/aliases/{alias}/nonces", Needs::AliasAndActor(Read), 200),
        ("POST", "/actors/aliases/{alias}/nonces", Needs::AliasAndActor(Update), 200),
        ("GET", "/actors/aliases/{alias}/nonces/{nonce}", Needs::AliasAndActor(Read), 200),
        ("DELETE", "/actors/aliases/{alias}/nonces/{nonce}", Needs::AliasAndActor(Update), 200),
        ("GET", "/actors/configs", Needs::User, 200),
        ("POST", "/actors/configs", Needs::ActorOfBody, 200),
        ("GET", "/actors/configs/{config}", Needs::Config(Read), 200),
        ("PUT", "/actors/configs/{config}", Needs::Config(Update), 200),
        ("DELETE", "/actors/configs/{config}", Needs::Config(Update), 200),
        ("GET", "/actors/configs/{config}/permissions", Needs::Config(Read), 200),
        ("POST", "/actors/configs/{config}/permissions", Needs::Config(Update), 200),
    ];
    let case = |&(method, path, needs, answer): &(&str, &'static str, Needs, u16)| Case {
        method: method.parse().unwrap(),
        path,
        needs,
        answer,
    };
    CASES.iter().map(case).collect()
}

/// Routes that anybody may ask: they tell nothing of anybody.
const OPEN: [&str; 7] =
    ["/", "/health", "/healthz", "/readyz", "/metrics", "/v3/sites", "/v3/tenants"];

/// What a caller shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shows {
    Nothing,
    /// A token of this user, with this role.
    Token(&'static str, &'static str),
    /// A token for this user of another tenant, with this role.
    Foreign(&'static str, &'static str),
    Nonce(Nonce),
}

/// Which nonce, and in the URL of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nonce {
    OfActor(Level),
    /// Made by an admin who has nothing to do with the actor otherwise.
    OfActorByAdmin(Level),
    /// On the URLs of its alias.
    OfAlias(Level),
    /// That of an alias on the URLs of the actor's id.
    OfAliasById,
    /// That of another actor of the same owner.
    OfOther,
    /// That of another tenant's user of the owner's name.
    Foreign,
    /// One that nobody made.
    Invented,
}

#[derive(Debug, Clone)]
struct Caller {
    shows: Shows,
    actor: Level,
    alias: Level,
    config: Level,
    is_admin: bool,
}

impl Caller {
    fn new(shows: Shows, level: Level) -> Self {
        Self { shows, actor: level, alias: level, config: level, is_admin: false }
    }

    fn admin(shows: Shows) -> Self {
        Self { is_admin: true, ..Self::new(shows, Update) }
    }

    /// Each kind that there is.
    fn all() -> Vec<Self> {
        let token = |user| Shows::Token(user, "");
        let none = Level::None;
        let mut all = vec![
            Self::new(Shows::Nothing, none),
            Self::new(token("ada"), Update),
            Self::new(token("reader"), Read),
            Self::new(token("executor"), Execute),
            Self::new(token("updater"), Update),
            // What such roles let do is not with others' things.
            Self::new(Shows::Token("reader", "Internal/abaco-privileged"), Read),
            Self::new(Shows::Token("updater", "Internal/abaco-limited"), Update),
            Self { alias: none, config: none, ..Self::new(token("ofactor"), Update) },
            Self { actor: none, config: none, ..Self::new(token("ofalias"), Update) },
            Self { actor: none, alias: none, ..Self::new(token("ofconfig"), Update) },
            Self::new(token("stranger"), none),
            Self::new(Shows::Token("stranger", "Internal/abaco-limited"), none),
            Self::new(Shows::Token("stranger", "Internal/abaco-privileged"), none),
            Self::admin(Shows::Token("root", "Internal/abaco-admin")),
            Self::new(Shows::Foreign("ada", ""), none),
            Self { is_admin: true, ..Self::new(Shows::Foreign("ada", "admin"), none) },
        ];
        for nonce in [Nonce::OfAliasById, Nonce::OfOther, Nonce::Foreign, Nonce::Invented] {
            all.push(Self::new(Shows::Nonce(nonce), none));
        }
        for level in Level::ALL {
            let on_actor = Self { actor: level, ..Self::new(Shows::Nothing, none) };
            let nonce = Shows::Nonce(Nonce::OfActor(level));
            all.push(Self { shows: nonce, ..on_actor.clone() });
            let nonce = Shows::Nonce(Nonce::OfActorByAdmin(level));
            all.push(Self { shows: nonce, is_admin: true, ..on_actor });
            if level < Update {
                let nonce = Shows::Nonce(Nonce::OfAlias(level));
                all.push(Self { actor: level, alias: level, ..Self::new(nonce, none) });
            }
        }
        all
    }

    /// Whether it is one for the URLs of `case`.
    fn is_for(&self, case: &Case) -> bool {
        let by_id = self.shows == Shows::Nonce(Nonce::OfAliasById);
        !(by_id && case.path.starts_with("/actors/aliases/"))
    }

    /// Whether this caller gets what needs that.
    fn may(&self, needs: Needs) -> bool {
        let by_nonce = matches!(self.shows, Shows::Nonce(_));
        let is_user = !by_nonce && self.shows != Shows::Nothing;
        let is_foreign = matches!(self.shows, Shows::Foreign(..));
        match needs {
            Needs::User => is_user,
            Needs::Admin => is_user && self.is_admin,
            Needs::Actor(level) => self.actor >= level,
            Needs::AdminOfActor => {
                // A nonce is for what changes an actor only if it is for all of that.
                self.is_admin && !is_foreign && (is_user || self.actor == Update)
            }
            Needs::ActorOfBody => is_user && self.actor == Update,
            Needs::Alias(level) => self.alias >= level,
            Needs::AliasAndActor(level) => self.alias.min(self.actor) >= level,
            Needs::AliasAndActorOfBody => self.alias.min(self.actor) == Update,
            Needs::Config(level) => self.config >= level,
        }
    }

    /// The statuses under our own prefix when it may not.
    fn refusals(&self, needs: Needs) -> &'static [u16] {
        match &self.shows {
            Shows::Nothing => &[401],
            // Nobody is known by it; or somebody is, who may not.
            Shows::Nonce(_) => &[401, 403, 404],
            Shows::Foreign(..) if needs != Needs::Admin => &[404],
            // Who may not even see it does not hear that it is there.
            Shows::Foreign(..) | Shows::Token(..) => {
                let sees = match needs {
                    Needs::User | Needs::Admin => true,
                    Needs::Actor(_) | Needs::AdminOfActor | Needs::ActorOfBody => {
                        self.actor > Level::None
                    }
                    Needs::Alias(_) => self.alias > Level::None,
                    Needs::AliasAndActor(_) | Needs::AliasAndActorOfBody => {
                        return &[403, 404];
                    }
                    Needs::Config(_) => self.config > Level::None,
                };
                if sees { &[403] } else { &[404] }
            }
        }
    }
}

/// An actor of ada's with all that may be had of one.
struct Things {
    actor: String,
    alias: String,
    config: String,
    execution: String,
    nonces: Vec<(Nonce, String)>,
    names: AtomicUsize,
}

async fn made(request: RequestBuilder) -> Value {
    expect(request, StatusCode::CREATED).await["result"].clone()
}

impl Things {
    async fn make(running: &Running, number: usize) -> Self {
        let (alias, config) = (format!("alias{number}"), format!("config{number}"));
        let actor = running.register(json!({"stateless": false})).await;
        let execution = running.send(&actor, "x").await;
        let body = json!({"alias": alias, "actorId": actor});
        made(running.post("/actors/aliases").json(&body)).await;
        let body = json!({"name": config, "value": "v", "isSecret": false, "actors": actor});
        made(running.post("/actors/configs").json(&body)).await;
        let places = [
            ("ofactor", format!("/actors/{actor}")),
            ("ofalias", format!("/actors/aliases/{alias}")),
            ("ofconfig", format!("/actors/configs/{config}")),
        ];
        for (only, place) in &places {
            for (user, level) in
                [("reader", Read), ("executor", Execute), ("updater", Update), (*only, Update)]
            {
                let body = json!({"user": user, "level": level.word()});
                ok(running.post(&format!("{place}/permissions")).json(&body)).await;
            }
        }
        let names = AtomicUsize::new(number * 1000);
        let mut this = Self { actor, alias, config, execution, nonces: Vec::new(), names };
        for level in Level::ALL {
            this.nonce(running, Nonce::OfActor(level), level).await;
            this.nonce(running, Nonce::OfActorByAdmin(level), level).await;
            if level < Update {
                this.nonce(running, Nonce::OfAlias(level), level).await;
            }
        }
        for nonce in [Nonce::OfAliasById, Nonce::OfOther, Nonce::Foreign] {
            this.nonce(running, nonce, Execute).await;
        }
        this.nonces.push((Nonce::Invented, "ABAX_nobodymadethis".to_owned()));
        this
    }

    async fn nonce(&mut self, running: &Running, nonce: Nonce, level: Level) {
        let token = match nonce {
            Nonce::OfActorByAdmin(_) => running.token("root", "ABAX", &["admin"]),
            Nonce::Foreign => running.token("ada", "OTHER", &[]),
            _ => running.token("ada", "ABAX", &[]),
        };
        let post = |path: String, body: &Value| {
            made(running.stranger(Method::POST, &path).bearer_auth(&token).json(body))
        };
        let place = match nonce {
            Nonce::OfAlias(_) | Nonce::OfAliasById => format!("/actors/aliases/{}", self.alias),
            Nonce::OfOther | Nonce::Foreign => {
                let other = post("/actors".to_owned(), &json!({"image": "busybox"})).await;
                format!("/actors/{}", other["id"].as_str().unwrap())
            }
            _ => format!("/actors/{}", self.actor),
        };
        let made = post(format!("{place}/nonces"), &json!({"level": level.word()})).await;
        self.nonces.push((nonce, made["id"].as_str().unwrap().to_owned()));
    }

    fn id_of(&self, nonce: Nonce) -> &str {
        &self.nonces.iter().find(|(known, _)| *known == nonce).unwrap().1
    }

    /// A call of `case` under `prefix`, as `caller` would make it.
    fn call(
        &self,
        running: &Running,
        prefix: &str,
        case: &Case,
        caller: &Caller,
    ) -> RequestBuilder {
        self.call_by(&case.method, running, prefix, case, caller)
    }

    /// As [`Things::call`], by this method.
    fn call_by(
        &self,
        method: &Method,
        running: &Running,
        prefix: &str,
        case: &Case,
        caller: &Caller,
    ) -> RequestBuilder {
        let actor = match caller.shows {
            Shows::Nonce(Nonce::OfAlias(_)) => &self.alias,
            _ => &self.actor,
        };
        // One that is for nothing, so that whoever may see nonces may see it.
        let nonce = match case.path.starts_with("/actors/aliases") {
            true => self.id_of(Nonce::OfAlias(Level::None)),
            false => self.id_of(Nonce::OfActor(Level::None)),
        };
        let mut path = case.path.to_owned();
        for (name, value) in [
            ("actor", actor.as_str()),
            ("alias", &self.alias),
            ("config", &self.config),
            ("execution", &self.execution),
            ("nonce", nonce),
            ("worker", "zzzzzz"),
            ("number", "1"),
            ("collection", "actors"),
        ] {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let path = format!("{prefix}{}", path.strip_prefix("/actors").unwrap());
        let mut request = running.stranger(method.clone(), &path);
        request = match &caller.shows {
            Shows::Nothing => request,
            Shows::Token(user, role) => request.bearer_auth(running.token(user, "ABAX", &[*role])),
            Shows::Foreign(user, role) => {
                request.bearer_auth(running.token(user, "OTHER", &[*role]))
            }
            Shows::Nonce(nonce) => request.query(&[("x-nonce", self.id_of(*nonce))]),
        };
        if [Method::GET, Method::HEAD, Method::DELETE].contains(method) {
            return request;
        }
        request.json(&match case.path {
            "/actors/aliases" => json!({"alias": self.new_name(), "actor_id": self.actor}),
            "/actors/aliases/{alias}" => json!({"actor_id": self.actor}),
            "/actors/configs" => json!({
                "name": self.new_name(), "value": "v", "is_secret": false, "actors": self.actor,
            }),
            "/actors/configs/{config}" => json!({
                "name": self.config, "value": "w", "is_secret": false, "actors": self.actor,
            }),
            path if path.ends_with("/permissions") => json!({"user": "tester", "level": "READ"}),
            path if path.ends_with("/nonces") => json!({"level": "READ"}),
            path if path.ends_with("/workers") => json!({"num": 1}),
            path if path.ends_with("/messages") => json!({"message": "m"}),
            _ => json!({"image": "busybox", "stateless": false}),
        })
    }

    /// A name that nothing has yet.
    fn new_name(&self) -> String {
        format!("new{}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn every_route_has_a_case() {
    let routes: BTreeSet<String> = route_table()
        .iter()
        .filter(|route| match route.access {
            Access::Signed => true,
            Access::Open => {
                assert!(OPEN.contains(&route.path), "{} is open to everybody", route.path);
                false
            }
        })
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let cases: BTreeSet<String> =
        cases().iter().map(|case| format!("{} {}", case.method, case.path)).collect();
    let missing: Vec<_> = routes.difference(&cases).collect();
    assert!(missing.is_empty(), "routes without a case: {missing:?}");
    let gone: Vec<_> = cases.difference(&routes).collect();
    assert!(gone.is_empty(), "cases without a route: {gone:?}");
}

/// The path of a route under `prefix`, with names of nothing in it.
fn anywhere(prefix: &str, path: &str) -> String {
    let path = path.replace(['{', '}'], "");
    path.strip_prefix("/actors").map(|rest| format!("{prefix}{rest}")).unwrap_or(path)
}

#[tokio::test]
async fn methods_are_told_to_anybody_and_no_other_is_served() {
    let running = start().await;
    let mut paths: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for route in route_table() {
        let methods = paths.entry(route.path).or_default();
        methods.insert(route.method.to_string());
        methods.insert("OPTIONS".to_owned());
        if route.method == Method::GET {
            methods.insert("HEAD".to_owned());
        }
    }
    for (path, methods) in &paths {
        for prefix in PREFIXES {
            let url = anywhere(prefix, path);
            let told = |headers: &reqwest::header::HeaderMap| -> BTreeSet<String> {
                headers["allow"].to_str().unwrap().split(", ").map(str::to_owned).collect()
            };
            let answer = running.stranger(Method::OPTIONS, &url).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{url}");
            assert_eq!(told(answer.headers()), *methods, "{url}");
            assert_eq!(answer.text().await.unwrap(), "", "{url}");
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
                if methods.contains(method) {
                    continue;
                }
                let answer = running.stranger(method.parse().unwrap(), &url).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {url}");
                assert_eq!(told(answer.headers()), *methods, "{method} {url}");
            }
        }
    }
}

#[tokio::test]
async fn every_caller_gets_what_it_may_and_nothing_else() {
    let running = start().await;
    let mut number = 0;
    let mut things = Things::make(&running, number).await;
    let callers = Caller::all();
    let mut wrong = Vec::new();
    for (at, case) in cases().into_iter().enumerate() {
        for caller in callers.iter().filter(|caller| caller.is_for(&case)) {
            let name = format!("{} {} by {:?}", case.method, case.path, caller.shows);
            let may = caller.may(case.needs);
            let mut prefixes: Vec<&str> = PREFIXES.to_vec();
            if may && case.method == Method::DELETE {
                // It is there once.
                prefixes = vec![PREFIXES[number % PREFIXES.len()]];
            }
            let mut is_changed = may && case.method == Method::DELETE;
            for prefix in prefixes {
                let answer = things.call(&running, prefix, &case, caller).send().await.unwrap();
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap();
                let expected: &[u16] = match (prefix, &caller.shows) {
                    _ if may => &[case.answer_under(prefix)],
                    ("/actors", _) => caller.refusals(case.needs),
                    (_, Shows::Foreign(..)) if case.needs != Needs::Admin => &[400, 404],
                    (_, Shows::Nonce(_)) if case.needs == Needs::User => &[400, 404],
                    _ => &[400],
                };
                let refused = ["Not authorized", "No JWT", "Nonce does not"]
                    .iter()
                    .any(|words| text.contains(words));
                if !expected.contains(&status) || (may && refused) {
                    wrong.push(format!("{name} at {prefix}: {status}, not {expected:?}: {text}"));
                    is_changed = true;
                }
                // Whichever the dialect, one way leads to both.
                if case.method == Method::GET && prefix == PREFIXES[at % PREFIXES.len()] {
                    let call = things.call_by(&Method::HEAD, &running, prefix, &case, caller);
                    let head = call.send().await.unwrap();
                    let (found, body) = (head.status().as_u16(), head.text().await.unwrap());
                    if found != status || !body.is_empty() {
                        wrong.push(format!("HEAD of {name} at {prefix}: {found}: {body}"));
                    }
                }
            }
            if is_changed {
                number += 1;
                things = Things::make(&running, number).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} verdicts are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_was_refused_has_changed_nothing() {
    let running = start().await;
    let things = Things::make(&running, 0).await;
    for case in cases() {
        for caller in Caller::all() {
            if !caller.may(case.needs) && caller.is_for(&case) {
                for prefix in PREFIXES {
                    things.call(&running, prefix, &case, &caller).send().await.unwrap();
                }
            }
        }
    }
    let get = async |path: String| ok(running.get(&path)).await["result"].clone();
    let Things { actor, alias, config, .. } = &things;
    let found = get(format!("/actors/{actor}")).await;
    assert_eq!((&found["revision"], &found["state"]), (&json!(1), &json!({})));
    assert_eq!(get(format!("/actors/{actor}/executions")).await["totalExecutions"], 1);
    assert_eq!(get(format!("/actors/{actor}/messages")).await["messages"], 1);
    for place in [actor.clone(), format!("aliases/{alias}"), format!("configs/{config}")] {
        let permissions = get(format!("/actors/{place}/permissions")).await;
        assert_eq!(permissions.as_object().unwrap().len(), 5, "{permissions}");
    }
    assert_eq!(get(format!("/actors/{actor}/nonces")).await.as_array().unwrap().len(), 8);
    assert_eq!(get(format!("/actors/aliases/{alias}/nonces")).await.as_array().unwrap().len(), 4);
    assert_eq!(get("/actors/aliases".to_owned()).await.as_array().unwrap().len(), 1);
    assert_eq!(get(format!("/actors/configs/{config}")).await["value"], "v");
    assert_eq!(get("/actors/configs".to_owned()).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tenants_lists_have_nothing_of_another() {
    let running = start().await;
    let things = Things::make(&running, 0).await;
    let foreign = running.token("ada", "FOREIGN", &["admin"]);
    for path in [
        "/actors",
        "/actors/aliases",
        "/actors/configs",
        "/actors/admin",
        "/actors/admin/workers",
        "/actors/admin/executions",
        "/actors/search/actors",
        "/actors/search/executions",
        "/actors/search/workers",
        "/actors/search/logs",
    ] {
        let request = running.stranger(Method::GET, path).bearer_auth(&foreign);
        let (_, body) = envelope(request.send().await.unwrap(), StatusCode::OK).await;
        let text = body["result"].to_string();
        for secret in [&things.actor, &things.alias, &things.config, &things.execution] {
            assert!(!text.contains(secret.as_str()), "{path} shows {secret}: {text}");
        }
    }
}
