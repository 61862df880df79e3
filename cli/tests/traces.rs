//! One message, one trace: from the request to the container.
#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;
mod site;

use std::time::Duration;

use abax_testbed::{Collector, Span};
use machine::{Machine, Served};
use site::{Queue, Site};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Sends a message with a `traceparent`, and returns what its container saw of it.
fn send(served: &Served<'_>, token: &str, actor: &str, parent: &str) -> (String, String) {
    let body = "{\"message\": \"go\"}";
    let answer = served.raw(&format!(
        "POST /actors/{actor}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         traceparent: {parent}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 202"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let execution = body["result"]["executionId"].as_str().unwrap().to_owned();
    served.wait_for("traced", &execution, |state| state["status"] == "COMPLETE");
    let seen = served.ok(&["logs", "traced", &execution]);
    (execution, seen)
}

/// Checks that the spans of the trace are those of `execution`, each with its
/// parent and its process; gives back the one that the container's are children of.
fn one_trace<'a>(all: &'a [Span], execution: &str, api: &str, worker: &str) -> &'a Span {
    let spans: Vec<&Span> = all.iter().filter(|span| span.trace == TRACE).collect();
    let one = |name: &str| -> &'a Span {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} of {spans:#?}");
        found[0]
    };
    let request = one("POST /actors/{actor}/messages");
    assert_eq!((request.parent.as_str(), request.service.as_str()), (CALLER, api));
    let run = one("execution");
    assert_eq!(run.attributes["execution.id"], execution);
    assert_eq!(run.attributes["outcome"], "succeeded");
    for name in ["queued", "execution"] {
        let span = one(name);
        assert_eq!((&span.parent, span.service.as_str()), (&request.id, worker), "{spans:#?}");
    }
    for name in ["claim", "image", "create", "start", "run", "finish"] {
        let span = one(name);
        assert_eq!((&span.parent, span.service.as_str()), (&run.id, worker), "{spans:#?}");
        assert!(span.start_ns <= span.end_ns, "{span:#?}");
    }
    let order = ["image", "create", "start", "run", "finish"].map(|name| one(name).start_ns);
    assert!(order.is_sorted(), "{spans:#?}");
    assert_eq!(spans.len(), 9, "{spans:#?}");
    run
}

#[test]
fn one_trace_leads_from_the_request_through_the_queue_into_the_container() {
    let collector = Collector::start().unwrap();
    let settings = format!("[traces]\notlp_endpoint = \"{}/\"", collector.url());
    let machine = Machine::with_settings(&settings, "");
    machine.import_script("shows", "echo $TRACEPARENT");
    let served = machine.serve();
    let token = machine.ok(&["token"]);
    let id = served.ok(&["create", "--name", "traced", "shows"]);

    let sampled = format!("00-{TRACE}-{CALLER}-01");
    let (execution, seen) = send(&served, &token, &id, &sampled);
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let (_, seen_unsampled) = send(&served, &token, &id, unsampled);
    served.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // The end of the process exports the last batch.
    served.stop(Duration::from_secs(20));

    let all = collector.spans();
    let run = one_trace(&all, &execution, "abax", "abax");
    assert_eq!(seen, format!("00-{TRACE}-{}-01", run.id));

    // Who is not to be recorded is not, and hears so in the container.
    assert!(seen_unsampled.starts_with(&unsampled[..36]), "{seen_unsampled}");
    assert!(seen_unsampled.ends_with("-00"), "{seen_unsampled}");
    assert!(all.iter().all(|span| span.trace != unsampled[3..35]), "{all:#?}");
    assert!(all.iter().all(|span| !span.name.contains("healthz")), "{all:#?}");
    machine.assert_clean();
}

#[test]
fn without_a_collector_the_callers_trace_goes_through_as_it_came() {
    let machine = Machine::new();
    machine.import_script("shows", "echo $TRACEPARENT");
    let served = machine.serve();
    let token = machine.ok(&["token"]);
    let id = served.ok(&["create", "--name", "traced", "shows"]);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(send(&served, &token, &id, &parent).1, parent);
    served.stop(Duration::from_secs(20));
}

#[test]
fn one_trace_leads_from_the_api_to_the_worker_on_another_host() {
    let collector = Collector::start().unwrap();
    let site = Site::new(Queue::Database);
    let [one, two] = &site.hosts;
    for host in &site.hosts {
        let path = host.path("abax.toml");
        let settings = std::fs::read_to_string(&path).unwrap();
        let settings = format!("{settings}\n[traces]\notlp_endpoint = \"{}\"\n", collector.url());
        std::fs::write(path, settings).unwrap();
    }
    site.import_script("shows", "echo $TRACEPARENT");
    let metrics = machine::free_address();
    let (api, worker) =
        (one.api("api.log"), two.worker(&["--metrics-listen", &metrics.to_string()]));
    let token = one.ok(&["token"]);
    let id = api.ok(&["create", "--name", "traced", "shows"]);
    let (execution, seen) = send(&api, &token, &id, &format!("00-{TRACE}-{CALLER}-01"));

    let (_, numbers) = machine::ask(metrics, "/metrics");
    for line in [
        "abax_executions_finished_total{outcome=\"succeeded\"} 1",
        "abax_container_start_duration_seconds_count 1",
        "abax_worker_slots 4",
    ] {
        assert!(numbers.contains(line), "no {line} in\n{numbers}");
    }
    worker.stop(Duration::from_secs(20));
    api.stop(Duration::from_secs(20));
    let all = collector.spans();
    let run = one_trace(&all, &execution, "abax-api", "abax-worker");
    assert_eq!(seen, format!("00-{TRACE}-{}-01", run.id));
}
