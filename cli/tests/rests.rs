//! What happens while the registry of an image is away. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use abax_testbed::{Compression, Layout, Registry};
use machine::eventually;
use serde_json::json;
use site::{Queue, Site};

/// The way to a registry, which may be cut.
struct Way {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Way {
    fn to(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        // Until the test process ends.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_open.load(Ordering::SeqCst) {
                    thread::spawn(move || forward(stream, registry));
                }
            }
        });
        Self { address, open }
    }

    fn open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}

fn forward(near: TcpStream, registry: SocketAddr) {
    let Ok(far) = TcpStream::connect(registry) else { return };
    let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let there = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (far, near);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = there.join();
}

fn while_a_registry_is_away_its_actors_rest_and_lose_nothing(queue: Queue) {
    const MESSAGES: usize = 30;
    let registry = Registry::start().unwrap();
    let way = Way::to(registry.address().parse().unwrap());
    let layout = Layout::new().unwrap();
    let tar = abax_testbed::busybox_rootfs_tar().unwrap();
    let config = json!({ "Cmd": ["/bin/sh", "-c", "echo got $MSG"] });
    layout.image("v1", &[(&tar, Compression::Gzip)], &config).unwrap();
    registry.push(&layout, "v1", "it/says:v1").unwrap();
    let image = format!("{}/it/says:v1", way.address);

    let site = Site::with_settings(queue, "registries.attempts = 1", "");
    let [one, two] = &site.hosts;
    let (api, first) = (one.api("api.log"), one.worker(&[]));
    api.ok(&["create", "--name", "says", &image]);
    eventually("the image is there", || api.json(&["show", "says"])["status"] == "READY");
    first.stop(Duration::from_secs(20));

    // Another host, which has no image yet, and does not get it.
    way.open(false);
    let sent: Vec<String> =
        (0..MESSAGES).map(|n| api.ok(&["send", "says", &n.to_string()])).collect();
    let second = two.worker(&[]);
    eventually("the actor rests", || {
        let shown = api.json(&["show", "says"]);
        let message = shown["status_message"].as_str().unwrap();
        let words = [format!("waiting for image {image}: "), "; next try at 20".to_owned()];
        assert_eq!(shown["status"], "READY", "{shown:#}");
        words.iter().all(|word| message.contains(word))
    });
    let until = || {
        let shown = api.json(&["show", "says"]);
        shown["status_message"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let first_until = until();
    eventually("the next try fails as well", || until() > first_until);
    way.open(true);
    for (n, execution) in sent.iter().enumerate() {
        let ended = api.wait_for("says", execution, |e| e["status"] == "COMPLETE");
        assert_eq!((&ended["outcome"], &ended["attempt"]), (&json!("succeeded"), &json!(1)));
        assert_eq!(api.ok(&["logs", "says", execution]), format!("got {n}"));
    }
    let log = second.log();
    let (rests, claims) = (log.matches(" rests until ").count(), log.matches("given back").count());
    assert_eq!(rests, 1, "it is said once: {log}");
    assert!(claims < 12, "{claims} claims came to nothing: {log}");
    assert_eq!(api.json(&["show", "says"])["status_message"], " ");
    second.stop(Duration::from_secs(20));
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn while_a_registry_is_away_its_actors_rest_and_lose_nothing_with_the_database_as_queue() {
    while_a_registry_is_away_its_actors_rest_and_lose_nothing(Queue::Database);
}

#[test]
fn while_a_registry_is_away_its_actors_rest_and_lose_nothing_with_rabbitmq() {
    while_a_registry_is_away_its_actors_rest_and_lose_nothing(Queue::RabbitMq);
}
