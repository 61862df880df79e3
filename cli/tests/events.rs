//! What happens without a message from anybody: schedules, links, webhooks; and
//! the workers that it all shows in. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use abax_testbed::Registry;
use machine::{Machine, Served, eventually};
use serde_json::{Value, json};
use site::{Queue, Site};

/// Prints what it got, and whose token; and asks the service with that for its actor.
const PRINTS: &str = "echo \"MSG: $MSG\"; echo \"user: $_abaco_username\"; \
                      echo \"server: $_abaco_api_server\"; t=$_abaco_access_token; \
                      [ -z \"$t\" ] || { c=${t#*.}; \
                      echo \"token: $(echo ${c%.*}== | tr _- /+ | base64 -d 2>/dev/null)\"; \
                      wget -q -O - --header \"Authorization: Bearer $t\" \
                      $_abaco_api_server/v3/actors/$_abaco_actor_id; }; true";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn register(served: &Served<'_>, settings: Value) -> String {
    let (status, body) = served.http("POST", "/actors", &settings.to_string());
    assert_eq!(status, 201, "{body:#}");
    body["result"]["id"].as_str().unwrap().to_owned()
}

fn get(served: &Served<'_>, path: &str) -> Value {
    let (status, body) = served.http("GET", path, "");
    assert_eq!(status, 200, "{path}: {body:#}");
    body["result"].clone()
}

/// The logs of the actor's executions, oldest first, when there are `count` and
/// all have ended.
fn logs(served: &Served<'_>, actor: &str, count: usize) -> Vec<String> {
    let executions = || get(served, &format!("/actors/{actor}/executions"))["executions"].clone();
    eventually(&format!("{actor} has run {count} times"), || {
        let all = executions();
        let all = all.as_array().unwrap();
        all.len() >= count && all.iter().all(|e| e["status"] == "COMPLETE")
    });
    let all = executions();
    let paths = all.as_array().unwrap().iter().map(|execution| {
        format!("/actors/{actor}/executions/{}/logs", execution["id"].as_str().unwrap())
    });
    paths.map(|path| get(served, &path)["logs"].as_str().unwrap().to_owned()).collect()
}

fn linked_actors_hear_of_each_other(served: &Served<'_>) {
    let b = register(served, json!({"image": "prints", "stateless": false}));
    let a = register(served, json!({"image": "prints", "link": b}));
    let heard = logs(served, &b, 1);
    assert!(heard[0].contains("'event_type': 'ACTOR_READY'"), "{heard:?}");
    let (status, sent) =
        served.http("POST", &format!("/actors/{a}/messages"), "{\"message\": \"x\"}");
    assert_eq!(status, 202, "{sent:#}");
    let heard = logs(served, &b, 2);
    assert!(heard[0].contains("'event_type': 'ACTOR_READY'"), "{heard:?}");
    let execution = sent["result"]["executionId"].as_str().unwrap();
    for part in [
        "'event_type': 'EXECUTION_COMPLETE'".to_owned(),
        format!("'execution_id': '{execution}'"),
        format!("'actor_id': '{a}'"),
        "'event_time_utc': '".to_owned(),
        "'event_time_display': '".to_owned(),
        "user: Abaco Event".to_owned(),
        "server: http".to_owned(),
    ] {
        assert!(heard[1].contains(&part), "no {part} in {}", heard[1]);
    }
    let executions = get(served, &format!("/actors/{b}/executions"))["executions"].clone();
    let first = executions[0]["id"].as_str().unwrap();
    let first = get(served, &format!("/actors/{b}/executions/{first}"));
    assert_eq!(first["executor"], "Abaco Event");
}

/// An actor's messages are a webhook too, with a nonce in the address.
fn an_actor_hears_by_a_webhook(served: &Served<'_>) {
    let b = register(served, json!({"image": "prints", "stateless": false}));
    let (status, nonce) = served.http("POST", &format!("/actors/{b}/nonces"), "");
    assert_eq!(status, 201, "{nonce:#}");
    let nonce = nonce["result"]["id"].as_str().unwrap();
    let url = format!("{}/actors/v2/{b}/messages?x-nonce={nonce}", served.url);
    let a = register(served, json!({"image": "prints", "webhook": url}));
    let heard = logs(served, &b, 1);
    assert!(heard[0].contains("'event_type': 'ACTOR_READY'"), "{heard:?}");
    assert!(heard[0].contains("user: admin"), "whose nonce it is: {heard:?}");
    let (status, sent) =
        served.http("POST", &format!("/actors/{a}/messages"), "{\"message\": \"x\"}");
    assert_eq!(status, 202, "{sent:#}");
    let heard = logs(served, &b, 2);
    let execution = sent["result"]["executionId"].as_str().unwrap();
    for part in [
        "'event_type': 'EXECUTION_COMPLETE'".to_owned(),
        format!("'execution_id': '{execution}'"),
        format!("'actor_id': '{a}'"),
        "'event_time_utc': '".to_owned(),
        "'event_time_display': '".to_owned(),
    ] {
        assert!(heard[1].contains(&part), "no {part} in {}", heard[1]);
    }
    let deliveries = get(served, &format!("/actors/{a}/deliveries"));
    let all = deliveries.as_array().unwrap();
    assert!(all.iter().all(|one| one["status"] == "delivered"), "{deliveries:#}");
    let uses = get(served, &format!("/actors/{b}/nonces/{nonce}"))["currentUses"].clone();
    assert_eq!(uses, 2, "{deliveries:#}");
}

/// Returns what its execution printed.
fn a_schedule_executes_its_actor(served: &Served<'_>) -> (String, String) {
    let settings = json!({"image": "prints", "cronSchedule": "now + 1 hour", "token": true});
    let actor = register(served, settings);
    let before = get(served, &format!("/actors/{actor}"));
    assert_eq!(before["cronOn"], true);
    let log = logs(served, &actor, 1).remove(0);
    assert!(log.contains("MSG: This is your cron execution"), "{log}");
    assert!(log.contains("user: admin"), "the owner: {log}");
    let claims = log.lines().find_map(|line| line.strip_prefix("token: ")).unwrap_or_default();
    let claims: Value = serde_json::from_str(claims).unwrap_or_else(|e| panic!("{e}: {log}"));
    assert_eq!((&claims["sub"], &claims["tenant"]), (&json!("admin"), &json!("ABAX")), "{log}");
    let after = get(served, &format!("/actors/{actor}"));
    assert_ne!(after["cronNextEx"], before["cronNextEx"]);
    (actor, log)
}

fn workers_come_and_go(served: &Served<'_>) {
    let actor = register(served, json!({"image": "prints", "stateless": false}));
    let path = format!("/actors/{actor}/workers");
    let statuses = || {
        let workers = get(served, &path);
        let workers = workers.as_array().unwrap().iter();
        workers.map(|w| w["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("the actor has a worker", || statuses() == ["READY"]);
    let worker = get(served, &path)[0].clone();
    assert_eq!(worker["image"], "prints");
    for truthy in ["location", "cid", "tenant", "chName", "hostId", "hostName"] {
        assert!(worker[truthy].as_str().is_some_and(|text| !text.is_empty()), "{worker:#}");
    }
    assert_eq!(served.http("POST", &path, "{\"num\": 2}").0, 200);
    eventually("it has two", || statuses() == ["READY", "READY"]);
    let (status, _) =
        served.http("DELETE", &format!("{path}/{}", worker["id"].as_str().unwrap()), "");
    assert_eq!((status, statuses()), (200, vec!["READY".to_owned()]));
    assert_ne!(get(served, &path)[0]["id"], worker["id"]);
}

#[test]
fn what_nobody_sends_happens_on_one_machine() {
    let machine = Machine::with_settings("api.webhook_networks = [\"127.0.0.0/8\"]", "");
    machine.import_script("prints", PRINTS);
    let served = machine.serve();
    linked_actors_hear_of_each_other(&served);
    an_actor_hears_by_a_webhook(&served);
    workers_come_and_go(&served);
    let (actor, log) = a_schedule_executes_its_actor(&served);
    // What it was given holds: the service has answered.
    assert!(log.contains(&format!("\"id\":\"{actor}\"")), "{log}");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn what_nobody_sends_happens_on_a_site() {
    let site = Site::new(Queue::RabbitMq);
    site.import_script("prints", PRINTS);
    let [one, two] = &site.hosts;
    let served = one.api("api-1.log");
    let _other = two.api("api-2.log");
    let workers = [one.worker(&[]), two.worker(&[])];
    linked_actors_hear_of_each_other(&served);
    an_actor_hears_by_a_webhook(&served);
    workers_come_and_go(&served);
    a_schedule_executes_its_actor(&served);
    for worker in workers {
        worker.stop(Duration::from_secs(20));
    }
}

/// Takes one POST after the other, and answers each.
fn receiver() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            for line in reader.by_ref().lines() {
                let line = line.unwrap().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            if sender.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, received)
}

#[test]
fn a_webhook_hears_of_an_image_that_comes_to_be_there() {
    let registry = Registry::start().unwrap();
    let top = format!(
        "registries.plain_http = [\"{}\"]\napi.webhook_networks = [\"127.0.0.0/8\"]",
        registry.address()
    );
    let machine = Machine::with_settings(&top, "");
    let served = machine.serve();
    let (url, received) = receiver();
    let next = || {
        let body = received.recv_timeout(PATIENCE).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let image = format!("{}/team/busybox:1", registry.address());
    let actor = register(&served, json!({"image": image, "webhook": url}));
    let event = next();
    assert_eq!(event["event_type"], "ACTOR_ERROR", "{event:#}");
    let shown = get(&served, &format!("/actors/{actor}"));
    assert_eq!(shown["status"], "ERROR");
    for part in [image.as_str(), "update the actor"] {
        let message = shown["statusMessage"].as_str().unwrap();
        assert!(message.contains(part), "no {part} in {message}");
    }
    assert_eq!(event["status_message"], shown["statusMessage"]);
    assert!(get(&served, &format!("/actors/{actor}/workers")).as_array().unwrap().is_empty());

    registry.push(&abax_testbed::busybox_image().unwrap(), "latest", "team/busybox:1").unwrap();
    let update = json!({"image": image, "webhook": url, "force": true}).to_string();
    let (status, updated) = served.http("PUT", &format!("/actors/{actor}"), &update);
    assert_eq!((status, &updated["result"]["revision"]), (200, &json!(2)), "{updated:#}");
    let event = next();
    assert_eq!(event["event_type"], "ACTOR_READY", "{event:#}");
    assert_eq!(event["actor_id"], actor.as_str());
    assert_eq!(get(&served, &format!("/actors/{actor}"))["statusMessage"], " ");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
