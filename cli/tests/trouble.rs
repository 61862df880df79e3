//! What a host does that cannot start anything: nothing is lost by it. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use machine::{Machine, eventually};
use serde_json::Value;

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

fn has_started(execution: &Value) -> bool {
    execution["phases"]["started"].is_string()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_worker_whose_launcher_was_killed_ends_and_gives_back_what_it_had() {
    let machine = Machine::new();
    machine.import_script("works", "test $MSG = y -o $_abaco_attempt != 1 || sleep 1000");
    let served = machine.serve_with(&["--slots", "1"]);
    served.ok(&["create", "--name", "works", "works"]);
    let running = served.ok(&["send", "works", "x"]);
    let waiting = served.ok(&["send", "works", "y"]);
    served.wait_for("works", &running, has_started);
    // Whichever thread started it.
    let launcher = std::fs::read_dir(format!("/proc/{}/task", served.pid()))
        .unwrap()
        .flatten()
        .find_map(|task| {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap();
            children.split_whitespace().next().map(str::to_owned)
        })
        .unwrap();
    run("kill", &["-KILL", &launcher]);
    // A zombie: whoever started it has not asked yet.
    let stat = format!("/proc/{}/stat", served.pid());
    eventually("the service ends", || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
    });
    assert!(served.log().contains("start the worker again"), "{}", served.log());
    drop(served);

    let served = machine.serve_with(&["--slots", "1"]);
    for execution in [running, waiting] {
        let ended = served.wait_for("works", &execution, has_ended);
        assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

/// A file system of some megabytes in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let to = path.to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=16m,mode=755", "small-disk", to]);
        Self(path)
    }

    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        for piece in [1 << 20, 1 << 12] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy".as_ref(), self.0.as_os_str()]).output();
    }
}

#[test]
fn a_full_disk_delays_and_ends_nothing() {
    let machine = Machine::new();
    let disk = SmallDisk::mount(machine.root());
    // The database has another disk.
    let data = machine.path("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, Path::new(&machine.root()).join("service")).unwrap();
    machine.import_script("works", "echo done");
    let served = machine.serve_with(&["--slots", "2"]);
    served.ok(&["create", "--name", "works", "works"]);
    let first = served.ok(&["send", "works", "x"]);
    served.wait_for("works", &first, has_ended);

    let ballast = disk.fill();
    let sent = served.ok(&["send", "works", "y"]);
    let waiting = served.wait_for("works", &sent, |execution| {
        execution["status"] == "SUBMITTED" && execution["attempt"] == 1
    });
    assert_eq!(waiting["outcome"], Value::Null, "{waiting:#}");
    std::fs::remove_file(ballast).unwrap();
    let ended = served.wait_for("works", &sent, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    served.stop(Duration::from_secs(20));
    eventually("no container is left", || machine.containers().is_empty());
    drop(disk);
    machine.assert_clean();
}
