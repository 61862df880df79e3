//! The tour of README.md, pasted. Needs root, busybox-static, curl, iproute2 and
//! nftables; runs in a network namespace of its own, where port 8000 is free.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::process::Command;

/// Lines that a test cannot run, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("make ", "this is a part of it"),
    ("cargo build", "the binary is built"),
    ("install target/", "the binary is on the PATH"),
    ("apt-get ", "the packages are there"),
    ("abax pull ", "needs a public registry"),
    ("abax run --rm -it ", "needs a terminal"),
];

/// The `sh` blocks of the page, up to the section that needs a public network.
fn pasted_lines(page: &str) -> Vec<&str> {
    let (tour, _) = page.split_once("### A real one").expect("the last section of the tour");
    let mut inside = false;
    let mut lines = Vec::new();
    for line in tour.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside && !NOT_HERE.iter().any(|(start, _)| line.starts_with(start)) => {
                lines.push(line);
            }
            _ => {}
        }
    }
    lines
}

#[test]
fn the_tour_works_when_pasted() {
    let place = tempfile::tempdir().unwrap();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let page = std::fs::read_to_string(readme).unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_abax"));

    let mut script = String::from(
        "set -eu\nip link set lo up\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n",
    );
    for line in pasted_lines(&page) {
        writeln!(script, "{line}").unwrap();
        // A person sees that it listens; executions need a moment.
        if line.starts_with("abax serve") {
            script.push_str("until curl -sf http://127.0.0.1:8000/health; do sleep 0.1; done\n");
        }
        if line.contains("/messages") && !line.ends_with('\\') {
            script.push_str("sleep 2\n");
        }
    }
    let script = script.replace("/tmp/", &format!("{}/", place.path().display()));

    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let ran = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", &script])
        .env("PATH", path)
        .env("ABAX_ROOT", place.path().join("root"))
        .env_remove("TOKEN")
        .env_remove("ABAX_TOKEN")
        .env_remove("ABAX_SERVER")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&ran.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{script}\n--- output\n{output}\n--- errors\n{errors}");
    for expected in [
        "hello\n",
        "Contents of MSG: hi\n",
        "Successfully tagged hello:latest",
        "\"status\":\"success\"",
        "execute yourself",
        "\"exitCode\":0",
        "\"username\":\"jdoe\"",
        "Contents of MSG: hello from the command line\n",
    ] {
        let found = output.contains(expected) || output.replace(": ", ":").contains(expected);
        assert!(found, "{expected} is not in\n{output}\n--- errors\n{errors}");
    }
}
