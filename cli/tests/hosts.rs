//! Several processes on several hosts: a PostgreSQL that all share, with and
//! without a RabbitMQ beside it, two `abax api`, two `abax worker`. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use abax_testbed::{Compression, Layout, Process, Registry};
use machine::Served;
use serde_json::Value;
use site::{Queue, Site};

fn the_quickstart_works_against_either_api(queue: Queue) {
    let site = Site::new(queue);
    let [one, two] = &site.hosts;
    site.import_script("hello", "echo Contents of MSG: $MSG");
    let (first, second) = (one.api("api-1.log"), one.api("api-2.log"));
    let workers = [one.worker(&[]), two.worker(&[])];
    // As nobody but a test would have it.
    assert!(first.log().contains("api.public_url is http://127.0.0.1:1"), "{}", first.log());
    first.ok(&["create", "--name", "greeter", "hello"]);
    for (n, api) in [&first, &second, &first, &second].into_iter().enumerate() {
        let text = format!("number {n}");
        let printed = api.actor(&["send", "--wait", "greeter", &text]);
        assert!(printed.success().contains(&format!("MSG: number {n}")), "{}", printed.stdout);
        assert_eq!(api.json(&["list"])["actors"].as_array().map_or(1, Vec::len), 1);
    }
    let executions = second.json(&["executions", "greeter"]);
    assert_eq!(executions["executions"].as_array().unwrap().len(), 4);
    assert!(second.ok(&["logs", "greeter"]).contains("Contents of MSG"));
    // Whoever has the signing key needs no token.
    let ran = one.command(&["actor", "--server", &first.url, "list"]).env_remove("TOKEN").output();
    let ran = machine::Ran::of(&["actor", "list"], ran.unwrap());
    assert!(ran.success().contains("greeter"), "{}", ran.stdout);
    second.ok(&["rm", "greeter"]);
    for worker in workers {
        worker.stop(Duration::from_secs(20));
    }
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn the_quickstart_works_against_either_api_with_the_database_as_queue() {
    the_quickstart_works_against_either_api(Queue::Database);
}

#[test]
fn the_quickstart_works_against_either_api_with_rabbitmq() {
    the_quickstart_works_against_either_api(Queue::RabbitMq);
}

#[test]
fn a_site_goes_by_tls_to_both_servers_and_to_no_others() {
    let site = Site::unmigrated_over_tls();
    let [one, two] = &site.hosts;
    one.ok(&["migrate"]);
    site.import_script("hello", "echo Contents of MSG: $MSG");
    let (api, worker) = (one.api("api.log"), two.worker(&[]));
    api.ok(&["create", "--name", "greeter", "hello"]);
    assert!(api.ok(&["send", "--wait", "greeter", "hi"]).contains("Contents of MSG: hi"));
    let doctor = one.ok(&["admin", "doctor"]);
    assert!(doctor.contains("calls that wait"), "{doctor}");
    worker.stop(Duration::from_secs(20));

    // Each has an authority of its own, which does not vouch for the other.
    let of_database = site.database.authority().unwrap();
    let of_broker = site.tls_broker.as_ref().unwrap().authority().unwrap();
    for (variable, authority, setting) in [
        ("ABAX_DATABASE_CA_FILE", of_broker, "database.url"),
        ("ABAX_QUEUE_CA_FILE", of_database, "queue.url"),
    ] {
        let arguments = ["config", "check", "--role", "worker", "--connect"];
        let output = one.command(&arguments).env(variable, authority).output().unwrap();
        let ran = machine::Ran::of(&arguments, output);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        for part in [setting, "certificate"] {
            assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
        }
    }
}

/// Sends `count` messages; the ids of the executions.
fn send(site: &Site, api: &Served<'_>, actor: &str, count: usize) -> Vec<String> {
    let token = site.hosts[0].token.as_ref().unwrap();
    (0..count)
        .map(|n| post(&api.url, actor, token, &format!("number {n}")).expect("it is accepted"))
        .collect()
}

/// Waits until all have ended, and looks at each.
fn all_succeed(api: &Served<'_>, actor: &str, executions: &[String], limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let list = api.json(&["executions", actor]);
        let list = list["executions"].as_array().unwrap();
        let ended = list.iter().filter(|e| e["status"] == "COMPLETE").count();
        if ended == executions.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{ended} of {} have ended", executions.len());
        thread::sleep(Duration::from_millis(200));
    }
    for (n, execution) in executions.iter().enumerate() {
        let state = api.json(&["executions", actor, execution]);
        assert_eq!(state["outcome"], "succeeded", "{state:#}");
        let log = api.ok(&["logs", actor, execution]);
        assert_eq!(log, format!("got number {n}"), "{state:#}");
    }
}

fn a_killed_worker_is_taken_over(queue: Queue) {
    const MESSAGES: usize = 24;
    let site = Site::new(queue);
    let [one, two] = &site.hosts;
    site.import_script("works", "echo got $MSG; sleep 1");
    let api = one.api("api.log");
    let (first, second) = (one.worker(&[]), two.worker(&[]));
    let actor = api.ok(&["create", "--name", "works", "--max-workers", "8", "works"]);
    let accepted = send(&site, &api, &actor, MESSAGES);
    machine::eventually("both hosts run something", || {
        !one.containers().is_empty() && !two.containers().is_empty()
    });
    first.kill();
    all_succeed(&api, "works", &accepted, Duration::from_secs(60));
    // Its next start clears what it left, and knows that nothing of it lives.
    let first = one.worker(&[]);
    let more = send(&site, &api, &actor, 2);
    api.wait_for("works", &more[1], |e| e["status"] == "COMPLETE");
    first.stop(Duration::from_secs(20));
    second.stop(Duration::from_secs(20));
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn a_killed_worker_is_taken_over_with_the_database_as_queue() {
    a_killed_worker_is_taken_over(Queue::Database);
}

#[test]
fn a_killed_worker_is_taken_over_with_rabbitmq() {
    a_killed_worker_is_taken_over(Queue::RabbitMq);
}

fn a_worker_that_stops_gives_long_executions_to_others(queue: Queue) {
    let site = Site::new(queue);
    let [one, two] = &site.hosts;
    site.import_script("works", "sleep $MSG; echo slept");
    let api = one.api("api.log");
    let first = one.worker(&["--drain", "4"]);
    api.ok(&["create", "--name", "works", "works"]);
    let short = api.ok(&["send", "works", "2"]);
    let long = api.ok(&["send", "works", "1000"]);
    for execution in [&short, &long] {
        api.wait_for("works", execution, |e| e["phases"]["started"].is_string());
    }
    let second = two.worker(&[]);
    first.stop(Duration::from_secs(20));
    let state = api.wait_for("works", &short, |e| e["status"] == "COMPLETE");
    assert_eq!((&state["outcome"], &state["attempt"]), (&"succeeded".into(), &1.into()));
    one.assert_clean();
    let state = api.wait_for("works", &long, |e| {
        e["status"] == "RUNNING" && e["phases"]["started"].is_string()
    });
    assert_eq!(state["attempt"], 1, "being given back costs no attempt: {state:#}");
    second.kill();
}

#[test]
fn a_worker_that_stops_gives_long_executions_to_others_with_the_database_as_queue() {
    a_worker_that_stops_gives_long_executions_to_others(Queue::Database);
}

#[test]
fn a_worker_that_stops_gives_long_executions_to_others_with_rabbitmq() {
    a_worker_that_stops_gives_long_executions_to_others(Queue::RabbitMq);
}

/// One message over a connection of its own: the execution, if it was accepted.
fn post(api: &str, actor: &str, token: &str, message: &str) -> Option<String> {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut stream = TcpStream::connect(api.strip_prefix("http://").unwrap()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!(
        "POST /v3/actors/{actor}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then_some(())?;
    let body: Value = serde_json::from_str(body).unwrap();
    Some(body["result"]["execution_id"].as_str().unwrap().to_owned())
}

#[test]
fn apis_that_are_restarted_under_load_lose_nothing_with_the_database_as_queue() {
    apis_that_are_restarted_under_load_lose_nothing(Queue::Database);
}

#[test]
fn apis_that_are_restarted_under_load_lose_nothing_with_rabbitmq() {
    apis_that_are_restarted_under_load_lose_nothing(Queue::RabbitMq);
}

fn apis_that_are_restarted_under_load_lose_nothing(queue: Queue) {
    let site = Site::new(queue);
    let [one, two] = &site.hosts;
    site.import_script("works", "echo got $MSG");
    let mut apis = [one.api("api-1.log"), one.api("api-2.log")];
    let _workers = [one.worker(&[]), two.worker(&[])];
    let actor = apis[0].ok(&["create", "--name", "works", "--max-workers", "8", "works"]);
    let token = one.token.clone().unwrap();
    let urls = Mutex::new([apis[0].url.clone(), apis[1].url.clone()]);
    let accepted = Mutex::new(Vec::new());
    let enough = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (urls, accepted, enough) = (&urls, &accepted, &enough);
                let (actor, token) = (&actor, &token);
                scope.spawn(move || {
                    let mut refused = 0;
                    for n in 0.. {
                        if enough.load(Ordering::SeqCst) {
                            break;
                        }
                        // As a proxy in front of them does: round robin, and the
                        // other one where one is gone.
                        let urls = urls.lock().unwrap().clone();
                        let text = format!("number {sender}-{n}");
                        let answer =
                            (0..2).find_map(|k| post(&urls[(n + k) % 2], actor, token, &text));
                        match answer {
                            Some(execution) => accepted.lock().unwrap().push(execution),
                            None => refused += 1,
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                    refused
                })
            })
            .collect();
        for round in 0..4 {
            let before = accepted.lock().unwrap().len();
            machine::eventually("messages are accepted", || {
                accepted.lock().unwrap().len() >= before + 15
            });
            let n = round % 2;
            let fresh = one.api(&format!("api-again-{round}.log"));
            machine::eventually("the next is ready before one goes", || {
                machine::ask(fresh.address(), "/readyz").0 == 200
            });
            urls.lock().unwrap()[n].clone_from(&fresh.url);
            std::mem::replace(&mut apis[n], fresh).stop(Duration::from_secs(20));
        }
        enough.store(true, Ordering::SeqCst);
        senders.into_iter().map(|sender| sender.join().unwrap()).sum::<usize>()
    });
    let accepted = accepted.into_inner().unwrap();
    assert_eq!(refused, 0, "with two, one always answers; {} were accepted", accepted.len());
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let list = apis[0].json(&["executions", "works"]);
        let list = list["executions"].as_array().unwrap();
        let known: BTreeSet<_> = list.iter().map(|e| e["id"].as_str().unwrap()).collect();
        for execution in &accepted {
            assert!(known.contains(execution.as_str()), "{execution} was accepted and is lost");
        }
        let open = list.iter().filter(|e| e["status"] != "COMPLETE").count();
        if open == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{open} of {} are open", list.len());
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn whoever_waits_for_an_execution_outlasts_a_restart_of_the_api() {
    let site = Site::new(Queue::Database);
    let [one, two] = &site.hosts;
    site.import_script("works", "echo begins; sleep 3; echo ends");
    let address = machine::free_address().to_string();
    let api = one.api_with("api.log", &["--listen", &address]);
    let worker = two.worker(&[]);
    api.ok(&["create", "--name", "works", "works"]);
    let all = [
        &["send", "--wait", "works", "x"][..],
        &["--format", "json", "send", "--wait", "works", "x"],
    ];
    let waiting = all.map(|verb| {
        let mut command = one.command(&["actor", "--server", &api.url]);
        command.args(verb).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    machine::eventually("both run", || two.containers().len() == 2);
    api.kill();
    thread::sleep(Duration::from_secs(1));
    let _api = one.api_with("api-again.log", &["--listen", &address]);
    for (child, verb) in waiting.into_iter().zip(all) {
        let ran = machine::Ran::of(verb, child.wait_with_output().unwrap());
        let printed = ran.success();
        assert!(printed == "begins\nends\n" || printed.contains("\"succeeded\""), "{printed}");
    }
    worker.stop(Duration::from_secs(20));
}

#[test]
fn processes_wait_for_the_database_and_for_its_schema() {
    let mut site = Site::unmigrated(Queue::Database);
    site.database.kill();
    let [one, two] = &site.hosts;
    let api = one.api("api.log");
    let metrics = machine::free_address();
    let arguments = ["--metrics-listen", &metrics.to_string()];
    let worker = two.worker_that_says("waiting for PostgreSQL", &arguments);
    machine::eventually("it says what it waits for", || {
        api.log().contains("waiting for PostgreSQL")
    });
    let all = [api.address(), metrics];
    let is_alive_and_says = |what: &str| {
        all.iter().all(|address| {
            assert_eq!(machine::ask(*address, "/healthz").0, 200);
            let (status, answer) = machine::ask(*address, "/readyz");
            assert_eq!(status, 503, "{answer}");
            answer.contains(what)
        })
    };
    assert!(is_alive_and_says("its database is not there yet"));
    let migrate = ["--log-level", "error", "migrate", "--wait", "1"];
    one.abax(&migrate).fails(1, &["could not use the database", "refused"]);
    site.database.restart().unwrap();
    machine::eventually("they say what is to be done", || is_alive_and_says("abax migrate"));
    assert!(api.log().contains("abax migrate"), "{}", api.log());
    // Two at once, and once more.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| one.ok(&["migrate"]));
        }
    });
    assert!(one.ok(&["migrate"]).contains("up to date"));
    machine::eventually("they are ready", || {
        all.iter().all(|address| machine::ask(*address, "/readyz").0 == 200)
    });
    worker.stop(Duration::from_secs(10));
    api.stop(Duration::from_secs(10));
}

#[test]
fn a_worker_that_stops_tells_how_it_is_until_its_end() {
    let site = Site::new(Queue::Database);
    let [one, _] = &site.hosts;
    site.import_script("works", "sleep 5");
    let api = one.api("api.log");
    let metrics = machine::free_address();
    let arguments = ["--drain", "20", "--metrics-listen", &metrics.to_string()];
    let worker = one.worker(&arguments);
    api.ok(&["create", "--name", "works", "works"]);
    let execution = api.ok(&["send", "works", "x"]);
    api.wait_for("works", &execution, |e| e["phases"]["started"].is_string());
    Command::new("kill").arg(worker.pid().to_string()).status().unwrap();
    machine::eventually("it stops", || worker.log().contains("stopping: waiting"));
    assert_eq!(machine::ask(metrics, "/healthz").0, 200);
    let (_, numbers) = machine::ask(metrics, "/metrics");
    assert!(numbers.contains("abax_worker_slots_used 1"), "{numbers}");
    api.wait_for("works", &execution, |e| e["outcome"] == "succeeded");
}

#[test]
fn a_host_that_starts_gets_the_images_that_it_will_need() {
    let registry = Registry::start().unwrap();
    let tar = abax_testbed::busybox_rootfs_tar().unwrap();
    // Each another image: one that is there under any name is not pulled again.
    let push = |name: &str| {
        let layout = Layout::new().unwrap();
        let config = serde_json::json!({ "Cmd": ["echo", name] });
        layout.image("latest", &[(&tar, Compression::Gzip)], &config).unwrap();
        registry.push(&layout, "latest", name).unwrap()
    };
    let (named, used, idle) = (push("named:1"), push("used:1"), push("idle:1"));
    let site = Site::new(Queue::Database);
    let [one, two] = &site.hosts;
    let api = one.api("api.log");
    let worker = one.worker(&[]);
    api.ok(&["create", "--name", "used", &used]);
    api.ok(&["create", "--name", "idle", &idle]);
    api.ok(&["send", "--wait", "used", "x"]);
    // By its repository: a host that gets an image of a revision asks for its digest.
    let has = |host: &machine::Machine, image: &str| {
        let (repository, _) = image.rsplit_once(':').unwrap();
        host.ok(&["images"]).contains(repository)
    };
    machine::eventually("new actors have their images", || has(one, &idle) && has(one, &used));
    assert!(!has(one, &named), "nobody asked for it");
    worker.stop(Duration::from_secs(20));

    // What is in no registry holds up nothing.
    let none = format!("{}/none:1", registry.address());
    let worker = two.worker(&["--prepull", &none, "--prepull", &named]);
    machine::eventually("it has what it was told, and what was used of late", || {
        has(two, &named) && has(two, &used)
    });
    assert!(!has(two, &idle), "nobody used it");
    assert!(worker.log().contains(&format!("could not make image {none} ready")));
    assert!(two.containers().is_empty());
    worker.stop(Duration::from_secs(20));
}

#[test]
fn one_process_of_all_parts_shares_its_database_with_other_hosts() {
    let site = Site::new(Queue::RabbitMq);
    let [one, two] = &site.hosts;
    site.import_script("works", "echo works; sleep 1");
    let served = one.serve();
    let worker = two.worker(&[]);
    assert_eq!(one.ok(&["admin", "hosts", "--quiet"]), "one\ntwo");
    assert!(!one.root().join("service/abax.db").exists(), "its rows are on the server");
    let pid = served.pid().to_string();
    one.abax(&["--log-level", "error", "worker"]).fails(1, &[&pid, "--root"]);
    let actor = served.ok(&["create", "--name", "works", "--max-workers", "8", "works"]);
    let sent = send(&site, &served, &actor, 16);
    machine::eventually("both run something", || {
        !one.containers().is_empty() && !two.containers().is_empty()
    });
    for execution in &sent {
        served.wait_for("works", execution, |e| e["outcome"] == "succeeded");
    }
    worker.stop(Duration::from_secs(20));
    served.stop(Duration::from_secs(20));
    one.assert_clean();
}

#[test]
fn systemd_hears_what_a_process_does() {
    let site = Site::unmigrated(Queue::Database);
    let [one, _] = &site.hosts;
    let path = one.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hears = |what: &str| {
        let mut heard = [0; 4096];
        loop {
            let length = socket.recv(&mut heard).unwrap_or_else(|e| panic!("{what}: {e}"));
            if String::from_utf8_lossy(&heard[..length]).contains(what) {
                return;
            }
        }
    };
    for verb in ["api", "worker"] {
        let (config, log) = (one.path("abax.toml"), one.path("told.log"));
        let notify = format!("NOTIFY_SOCKET={}", path.display());
        let arguments =
            [&notify, env!("CARGO_BIN_EXE_abax"), "--config", config.to_str().unwrap(), verb];
        let process = Process::start("env", &arguments, &log).unwrap();
        hears("READY=1");
        hears("STATUS=waiting for PostgreSQL");
        Command::new("kill").arg(process.id().to_string()).status().unwrap();
        hears("STOPPING=1");
    }
}

#[test]
fn two_workers_never_share_a_state_root() {
    let site = Site::new(Queue::Database);
    let [one, _] = &site.hosts;
    let worker = one.worker(&[]);
    let pid = worker.pid().to_string();
    one.abax(&["--log-level", "error", "worker"]).fails(1, &[&pid, "--root"]);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_process_says_all_that_it_lacks() {
    let machine = machine::Machine::new();
    for verb in ["api", "worker"] {
        machine.abax(&[verb]).fails(
            1,
            &[
                "ABAX_DATABASE_URL",
                "ABAX_API_SIGNING_KEY_FILE",
                "ABAX_API_PUBLIC_URL",
                "abax serve",
            ],
        );
    }
    machine.abax(&["migrate"]).fails(1, &["ABAX_DATABASE_URL"]);
    let wrong = ["serve", "--public-url", "https://abax.example.org/behind/a/path"];
    machine.abax(&wrong).fails(1, &["service.public_url", "https://host"]);
}
