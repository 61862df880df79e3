//! What one caller may have of the service, so that others have theirs.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::time::Duration;

use abax_actors::Clock;
use reqwest::{Method, StatusCode};
use serde_json::json;
use service::{Running, expect, ok, start_at, start_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const A_WHILE: Duration = Duration::from_secs(30);

/// A POST of ada's that announces `length` bytes and sends the first `sent` of them.
async fn begin(running: &Running, path: &str, length: usize, sent: usize) -> TcpStream {
    let mut connection = TcpStream::connect(running.address).await.unwrap();
    let token = running.token("ada", "ABAX", &[]);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b'x'; sent]).await.unwrap();
    connection
}

async fn status_line(mut connection: TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(A_WHILE, async {
        while !answer.contains(&b'\r') {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "an answer");
        }
    })
    .await
    .unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_sent_to_nobody_is_not_waited_for() {
    let running = start_at(Clock::system(), |config| {
        config.body_timeout = Duration::from_secs(10);
    })
    .await;
    let theirs = expect(
        running.by("eve", Method::POST, "/actors").json(&json!({ "image": "busybox" })),
        StatusCode::CREATED,
    )
    .await;
    let theirs = theirs["result"]["id"].as_str().unwrap().to_owned();
    for actor in ["nope", &theirs] {
        let path = format!("/actors/{actor}/messages");
        let connection = begin(&running, &path, 1 << 20, 1).await;
        let status = status_line(connection).await;
        assert!(status.contains("404"), "{actor}: {status}");
    }
}

#[tokio::test]
async fn a_user_sends_so_much_at_once_and_others_their_own() {
    let running = start_of(
        Clock::system(),
        |settings| settings.max_binary_bytes = 10_000,
        |config| {
            config.body_limit_bytes = 10_000;
            config.message_limit_bytes = 10_000;
        },
    )
    .await;
    let actor = running.register(json!({})).await;
    let path = format!("/actors/{actor}/messages");
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(begin(&running, &path, 10_000, 9_900).await);
    }
    let send = async |user: &str| {
        let request = running.by(user, Method::POST, "/actors");
        let body = json!({ "image": "busybox", "description": "x".repeat(1_000) });
        request.json(&body).send().await.unwrap().status()
    };
    let until = async |wanted: StatusCode| {
        let met = timeout(A_WHILE, async {
            while send("ada").await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        met.await.unwrap_or_else(|_| panic!("{wanted}"));
    };
    until(StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!(send("eve").await, StatusCode::CREATED);
    drop(held);
    until(StatusCode::CREATED).await;
}

#[tokio::test]
async fn a_list_that_does_not_fit_says_so() {
    let running = start_of(Clock::system(), |_| {}, |_| {}).await;
    for _ in 0..90 {
        running.register(json!({ "description": "x".repeat(100_000) })).await;
    }
    for path in ["/actors", "/actors/v2", "/v3/actors"] {
        let list = ok(running.get(path)).await;
        let shown = list["result"].as_array().unwrap().len();
        assert!(shown > 50 && shown < 90, "{path}: {shown}");
        let said = list["message"].as_str().unwrap();
        assert!(said.contains(&format!("{shown} of 90")), "{path}: {said}");
    }
    let page = ok(running.get("/actors/search/actors?limit=10000")).await;
    let metadata = &page["result"]["_metadata"];
    assert_eq!(metadata["totalCount"], 90, "{metadata}");
    let returned = metadata["countReturned"].as_u64().unwrap();
    assert!(returned > 50 && returned < 90, "{metadata}");
}
