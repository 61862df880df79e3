//! What watches over the service speaks of numbers that the service tells.
#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use machine::{Machine, eventually};
use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn file(name: &str) -> String {
    let path = repository().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The metrics that a text speaks of; of a histogram its name, not that of its series.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("abax_"))
        .map(|word| {
            let series = ["_bucket", "_sum", "_count"];
            series.into_iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn dashboard_alerts_and_documentation_name_what_is_exported_and_no_more() {
    let machine = Machine::new();
    machine.import_script("echo", "echo $MSG");
    let served = machine.serve();
    served.ok(&["create", "--name", "works", "echo"]);
    served.ok(&["send", "works", "hello", "--wait"]);
    // Whose registry is not there, so that a pull is counted.
    served.ok(&["create", "--name", "waits", "127.0.0.1:1/none"]);
    let scrape = || {
        let answer = served.raw("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };
    eventually("a pull is counted", || {
        scrape().contains("abax_image_pulls_total{result=\"failed\"} 1")
    });
    let text = scrape();
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    for (name, at_least) in [
        ("deploy/grafana/abax.json", 20),
        ("deploy/prometheus/alerts.yml", 10),
        ("deploy/kubernetes/components/keda/scaledobject.yaml", 2),
    ] {
        let named = metrics_in(&file(name));
        assert!(named.len() >= at_least, "{name} names {named:?}");
        let unknown: Vec<_> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{name} names what nobody exports: {unknown:?}");
    }
    let documentation = file("docs/observability.md");
    let rows: String = documentation.lines().filter(|line| line.starts_with("| `abax_")).collect();
    assert_eq!(metrics_in(&rows), exported);
    for phase in ["queued", "image", "create", "start", "run", "store"] {
        let count = format!("abax_execution_phase_duration_seconds_count{{phase=\"{phase}\"}} 1");
        assert!(text.contains(&count), "no {count} in\n{text}");
    }
    served.stop(Duration::from_secs(20));
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/abax.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} is wider than the page");
        for cell in (at("y")..at("y") + at("h"))
            .flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y)))
        {
            assert!(taken.insert(cell), "{title} lies upon another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(target["expr"].as_str().is_some_and(|e| e.contains("abax_")), "{title}");
        }
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let rules = repository().join("deploy/prometheus/alerts.yml");
    let output = Command::new("python3").args(["-c", read]).arg(rules).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python3-yaml (testbed/install.sh) says: {error}");
    let rules: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut names = BTreeSet::new();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
            for key in ["summary", "description"] {
                assert!(rule["annotations"][key].is_string(), "{name} has no {key}");
            }
            assert!(rule["expr"].as_str().unwrap().contains("abax_"), "{name}");
        }
    }
    assert!(names.len() > 5, "{names:?}");
}
