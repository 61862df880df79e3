//! What operators ask: numbers, and whether it is alive and ready.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod service;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use abax_actors::{Clock, Service};
use abax_api::{App, Config, Keys};
use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use service::{SECRET, expect, ok, start};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn text(client: &Client, url: String) -> (StatusCode, String) {
    let answer = client.get(url).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn numbers_are_told_by_route_and_class_and_never_by_id() {
    let running = start().await;
    let actor = running.register(json!({})).await;
    let execution = running.send(&actor, "a secret message").await;
    expect(running.get("/actors/nobody-knows-this"), StatusCode::NOT_FOUND).await;
    expect(running.stranger(Method::GET, "/no/such/place"), StatusCode::NOT_FOUND).await;

    let answer = running.stranger(Method::GET, "/metrics").send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    for line in [
        "abax_http_requests_total{route=\"/actors/{actor}/messages\",method=\"POST\",status=\"202\"}",
        "abax_http_requests_total{route=\"/actors/{actor}\",method=\"GET\",status=\"404\"}",
        "abax_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}",
        "abax_http_request_duration_seconds_bucket{route=\"/actors\",method=\"POST\",le=\"0.025\"}",
        "abax_messages_accepted_total",
        "abax_executions_waiting{class=\"default\"}",
        "abax_oldest_waiting_age_seconds{class=\"default\"}",
        "abax_executions_finished_total{outcome=\"succeeded\"}",
        "abax_store_transactions_total{result=\"committed\"}",
        "abax_store_up 1",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    for hidden in [&actor, &execution, "nobody-knows-this", "/no/such/place", "secret", "ada"] {
        assert!(!text.contains(hidden), "{hidden} is in\n{text}");
    }
}

#[tokio::test]
async fn every_number_says_what_it_means() {
    let running = start().await;
    running.register(json!({})).await;
    let (_, text) = text(&client(), running.url("/metrics")).await;
    let named = |mark: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    let (typed, helped) = (named("# TYPE "), named("# HELP "));
    assert!(typed.len() > 10, "{text}");
    assert_eq!(typed.difference(&helped).collect::<Vec<_>>(), Vec::<&String>::new());
    for name in typed {
        assert!(name.starts_with("abax_"), "{name}");
    }
}

#[tokio::test]
async fn what_is_ready_says_so_in_words() {
    let running = start().await;
    let answer = ok(running.stranger(Method::GET, "/readyz")).await;
    assert_eq!(answer["message"], "The service is ready.");
    assert_eq!(answer["result"], json!({"ready": true, "degraded": []}));
}

/// A small file system of its own, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a tmpfs needs root");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_takes_it_out_of_the_rotation_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::mount(directory.path());
    let settings = abax_actors::Config::sqlite(directory.path().join("abax.db"));
    let service = Service::open(settings, Clock::system()).await.unwrap();
    let app = App::new(service, Keys::new(SECRET).unwrap(), Config::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(abax_api::serve(listener, app, stop));
    let client = client();
    let ready = || text(&client, format!("{url}/readyz"));

    assert_eq!(ready().await.0, StatusCode::OK);
    // To the last byte: what SQLite has reserved goes first.
    let filler = directory.path().join("filler");
    let full = std::fs::write(&filler, vec![1; 4 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let told = wait_for(&ready, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(told.contains("not ready: the disk of the database is full"), "{told}");
    let (alive, _) = text(&client, format!("{url}/healthz")).await;
    assert_eq!(alive, StatusCode::OK, "the process has nothing to be restarted for");

    std::fs::remove_file(filler).unwrap();
    wait_for(&ready, StatusCode::OK).await;
}

async fn wait_for<F>(ask: impl Fn() -> F, status: StatusCode) -> String
where
    F: Future<Output = (StatusCode, String)>,
{
    for _ in 0..200 {
        let (found, body) = ask().await;
        if found == status {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {status}");
}

#[tokio::test]
async fn a_process_without_the_interface_has_a_socket_for_its_operators() {
    let directory = tempfile::tempdir().unwrap();
    let settings = abax_actors::Config::sqlite(directory.path().join("abax.db"));
    let service = Service::open(settings, Clock::system()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let server = tokio::spawn(abax_api::serve_operations(listener, service, stop.clone()));

    let client = client();
    assert_eq!(text(&client, format!("{url}/healthz")).await, (StatusCode::OK, "alive\n".into()));
    assert_eq!(text(&client, format!("{url}/readyz")).await, (StatusCode::OK, "ready\n".into()));
    let (status, numbers) = text(&client, format!("{url}/metrics")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(numbers.contains("abax_store_transactions_total{result=\"committed\"}"), "{numbers}");
    assert_eq!(text(&client, format!("{url}/actors")).await.0, StatusCode::NOT_FOUND);
    drop(client);
    stop.cancel();
    server.await.unwrap().unwrap();
}
