//! What holds under every prefix: paths, methods, CORS, HEAD, errors, and the socket's manners.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::time::Duration;

use abax_api::Dialect;
use reqwest::{Method, StatusCode};
use serde_json::json;
use service::{PREFIXES, envelope, expect, keys_of, ok, start, start_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const A_WHILE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn slashes_are_collapsed_and_a_last_one_is_none() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for path in ["//actors", "/actors/", "///actors//", "//actors/v2/", "//v3//actors/"] {
        assert_eq!(ok(running.get(path)).await["result"].as_array().unwrap().len(), 1, "{path}");
    }
    for path in
        [format!("///actors/{id}"), format!("/actors/v2//{id}/"), format!("/v3/actors//{id}")]
    {
        assert_eq!(ok(running.get(&path)).await["result"]["id"], id.as_str(), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_with_an_envelope() {
    let running = start().await;
    for path in ["/nothing", "/actorsx", "/v3", "/v3/apps", "/actors/v2/x/y/z", "/favicon.ico"] {
        expect(running.get(path), StatusCode::NOT_FOUND).await;
    }
    for prefix in PREFIXES {
        let answer = expect(running.get(&format!("{prefix}/bad_actor_id")), StatusCode::NOT_FOUND);
        assert!(answer.await["message"].as_str().unwrap().contains("bad_actor_id"));
    }
    expect(running.get("/actors/%ff"), StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn other_methods_are_405_before_anybody_asks_who_you_are() {
    let running = start().await;
    for (method, path, allow) in [
        (Method::PUT, "", "GET, HEAD, POST, OPTIONS"),
        (Method::DELETE, "", "GET, HEAD, POST, OPTIONS"),
        (Method::POST, "/x", "DELETE, GET, HEAD, PUT, OPTIONS"),
        (Method::PUT, "/x/messages", "DELETE, GET, HEAD, POST, OPTIONS"),
        (Method::PUT, "/x/executions", "GET, HEAD, OPTIONS"),
        (Method::POST, "/x/executions/y", "DELETE, GET, HEAD, OPTIONS"),
        (Method::POST, "/x/executions/y/logs", "GET, HEAD, OPTIONS"),
        (Method::PATCH, "/x", "DELETE, GET, HEAD, PUT, OPTIONS"),
    ] {
        for prefix in PREFIXES {
            let answer = running.stranger(method.clone(), &format!("{prefix}{path}")).send().await;
            let (headers, _) = envelope(answer.unwrap(), StatusCode::METHOD_NOT_ALLOWED).await;
            let mut listed: Vec<&str> = headers["allow"].to_str().unwrap().split(", ").collect();
            listed.sort_unstable();
            let mut expected: Vec<&str> = allow.split(", ").collect();
            expected.sort_unstable();
            assert_eq!(listed, expected, "{method} {prefix}{path}");
        }
    }
}

#[tokio::test]
async fn options_need_no_credentials_and_answer_preflights() {
    let running = start().await;
    for prefix in PREFIXES {
        for path in ["", "/x/messages", "/x/workers"].map(|path| format!("{prefix}{path}")) {
            let answer = running
                .stranger(Method::OPTIONS, &path)
                .header("Origin", "https://lab.example.org")
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "X-Jwt-Assertion-DEV, content-type")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let headers = answer.headers().clone();
            assert_eq!(headers["access-control-allow-origin"], "https://lab.example.org");
            assert_eq!(
                headers["access-control-allow-headers"],
                "X-Jwt-Assertion-DEV, content-type"
            );
            assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("DELETE"));
            assert!(headers["allow"].to_str().unwrap().contains("POST"));
            assert_eq!(headers["vary"], "Origin");
            assert_eq!(answer.text().await.unwrap(), "");
        }
    }
    let other = running.stranger(Method::OPTIONS, "/nothing");
    expect(other, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn answers_may_be_read_from_any_origin() {
    let running = start().await;
    let plain = running.get("/actors").send().await.unwrap();
    assert_eq!(plain.headers()["access-control-allow-origin"], "*");
    assert!(!plain.headers().contains_key("access-control-allow-credentials"));
    let asked = running
        .get("/actors")
        .header("Origin", "http://a")
        .header("Access-Control-Request-Method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status(), StatusCode::OK);
    assert_eq!(asked.headers()["access-control-allow-origin"], "http://a");
    let failed = running.stranger(Method::GET, "/actors").header("Origin", "http://a").send().await;
    assert_eq!(failed.unwrap().headers()["access-control-allow-origin"], "http://a");
}

#[tokio::test]
async fn head_works_where_get_does() {
    let running = start().await;
    let id = running.register(json!({})).await;
    for path in ["/actors".to_owned(), format!("/v3/actors/{id}"), "/health".to_owned()] {
        let get = running.get(&path).send().await.unwrap();
        let head = running.by("ada", Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        assert_eq!(head.headers()["content-length"], get.headers()["content-length"], "{path}");
        assert_eq!(head.text().await.unwrap(), "", "{path}");
    }
    let missing = running.by("ada", Method::HEAD, "/actors/none").send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn broken_bodies_are_400_everywhere() {
    let running = start().await;
    let id = running.register(json!({"stateless": false})).await;
    for prefix in PREFIXES {
        for (method, path) in [
            (Method::POST, prefix.to_owned()),
            (Method::PUT, format!("{prefix}/{id}")),
            (Method::POST, format!("{prefix}/{id}/messages")),
            (Method::POST, format!("{prefix}/{id}/state")),
        ] {
            for body in ["{\"image\": ", "{'image': 'x'}", "\u{0}"] {
                let request = running
                    .by("ada", method.clone(), &path)
                    .header("content-type", "application/json")
                    .body(body);
                // A state may be unquoted text for the sake of one client of Abaco's.
                if body == "\u{0}" && path.ends_with("/state") {
                    continue;
                }
                expect(request, StatusCode::BAD_REQUEST).await;
            }
        }
        for body in ["[1]", "\"text\"", "null"] {
            let request =
                running.post(prefix).header("content-type", "application/json").body(body);
            expect(request, StatusCode::BAD_REQUEST).await;
        }
    }
    let deep = "[".repeat(100_000);
    let request = running.post("/actors").header("content-type", "application/json").body(deep);
    expect(request, StatusCode::BAD_REQUEST).await;
    let other = || running.post("/actors").header("content-type", "image/png").body("x");
    expect(other(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
}

#[tokio::test]
async fn requests_have_ids() {
    let running = start().await;
    let id_of = async |sent: Option<&str>| {
        let mut request = running.get("/actors");
        if let Some(sent) = sent {
            request = request.header("X-Request-Id", sent);
        }
        let answer = request.send().await.unwrap();
        answer.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id_of(Some("my-id.1_2")).await, "my-id.1_2");
    let fresh = id_of(None).await;
    assert_eq!(fresh.len(), 36);
    for odd in ["with space", "<script>", &"x".repeat(65)] {
        assert_ne!(id_of(Some(odd)).await, odd);
    }
}

#[tokio::test]
async fn the_service_says_that_it_is_up() {
    let running = start().await;
    for path in ["/health", "/healthz", "/readyz"] {
        ok(running.stranger(Method::GET, path)).await;
    }
    let welcome = ok(running.stranger(Method::GET, "/")).await;
    assert_eq!(welcome["result"]["_links"]["actors"], running.url("/actors"));
}

#[tokio::test]
async fn the_bare_prefix_can_speak_another_dialect() {
    for (name, null, link) in [
        ("v2-camel", None, "/actors/v2/"),
        ("v2-snake", Some("max_workers"), "/actors/v2/"),
        ("v3", Some("max_workers"), "/v3/actors/"),
    ] {
        let dialect = Dialect::named(name).unwrap();
        let running = start_with(|config| config.bare_dialect = dialect).await;
        // Abaco's clients hear 200 for what is new, and 400 for most that is wrong.
        let sent = json!({"image": "busybox", "defaultEnvironment": {"a": 1}, "log_ex": 60});
        let new = ok(running.post("/actors").json(&sent)).await["result"].clone();
        assert_eq!(keys_of(&new).contains(&"max_workers"), null.is_some(), "{name}: {new}");
        assert!(!keys_of(&new).contains(&"maxWorkers"), "{name}: {new}");
        let (environment, log_ex) = match null {
            None => (&new["defaultEnvironment"], &new["logEx"]),
            Some(_) => (&new["default_environment"], &new["log_ex"]),
        };
        assert_eq!((environment, log_ex), (&json!({"a": 1}), &json!(60)), "{name}: {new}");
        let own = new["_links"]["self"].as_str().unwrap();
        assert!(own.contains(link), "{name}: {own}");
        expect(running.stranger(Method::GET, "/actors"), StatusCode::BAD_REQUEST).await;
    }
    assert_eq!(Dialect::named("abax"), Some(Dialect::Abax));
    assert_eq!(Dialect::named("v4"), None);
}

#[tokio::test]
async fn links_start_with_the_configured_base() {
    let running =
        start_with(|config| config.api_server = Some("https://abax.example.org/".to_owned())).await;
    let id = running.register(json!({})).await;
    let v3 = ok(running.get(&format!("/v3/actors/{id}"))).await;
    let own = format!("https://abax.example.org/v3/actors/{id}");
    assert_eq!(v3["result"]["_links"]["self"], own.as_str());
}

/// Opens a connection and sends `text` on it.
async fn raw(running: &service::Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn rest_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(A_WHILE, stream.read_to_end(&mut bytes)).await.expect("it closes").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let running = start_with(|config| config.head_timeout = Duration::from_millis(200)).await;
    let mut stream = raw(&running, "GET /actors HTTP/1.1\r\nHost: a\r\nX-Slow").await;
    let answer = rest_of(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let running = start_with(|config| config.body_timeout = Duration::from_millis(200)).await;
    let token = running.token("ada", "ABAX", &[]);
    let head = format!(
        "POST /actors HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut stream = raw(&running, &head).await;
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_stop_lets_an_open_request_finish() {
    let mut running = start_with(|config| config.drain = A_WHILE).await;
    let token = running.token("ada", "ABAX", &[]);
    let body = json!({"image": "busybox"}).to_string();
    let (first, second) = body.split_at(5);
    let head = format!(
        "POST /actors HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = raw(&running, &head).await;
    // The handler reads the body: so the request is open, and not just on its way.
    let mut interim = [0; 25];
    timeout(A_WHILE, stream.read_exact(&mut interim)).await.expect("it goes on").unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).await.unwrap();
    running.stop.cancel();
    // The listener is gone, the request is not.
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(second.as_bytes()).await.unwrap();
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    timeout(A_WHILE, &mut running.server).await.expect("it stops").unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_slow_client_for_ever() {
    let mut running = start_with(|config| config.drain = Duration::from_millis(300)).await;
    let token = running.token("ada", "ABAX", &[]);
    let head = format!(
        "POST /actors HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    );
    let _slow = raw(&running, &head).await;
    let _idle = raw(&running, "").await;
    running.stop.cancel();
    timeout(A_WHILE, &mut running.server).await.expect("it stops").unwrap().unwrap();
}
