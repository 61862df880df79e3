//! A host that somebody cordons, and what a stop says of it. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::time::Duration;

use abax_actors::{Clock, Config, Host, HostStatus, Service};
use machine::{Machine, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;

fn has_ended(execution: &Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

/// The service on the database of another process.
struct Beside {
    tokio: Runtime,
    service: Service,
}

impl Beside {
    fn new(machine: &Machine) -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = Config::sqlite(machine.root().join("service/abax.db"));
        let service = tokio.block_on(Service::open(config, Clock::system())).unwrap();
        Self { tokio, service }
    }

    fn host(&self) -> Host {
        let hosts = self.tokio.block_on(self.service.hosts()).unwrap();
        assert_eq!(hosts.len(), 1, "{hosts:?}");
        hosts.into_iter().next().unwrap()
    }
}

#[test]
fn a_cordoned_host_takes_nothing_over_a_restart_until_it_is_uncordoned() {
    let machine = Machine::with_settings("", "lease_seconds = 3");
    machine.import_script("works", "sleep 2; echo done");
    let served = machine.serve();
    served.ok(&["create", "--name", "works", "works"]);
    let running = served.ok(&["send", "works", "x"]);
    served.wait_for("works", &running, |e| e["phases"]["started"].is_string());

    let beside = Beside::new(&machine);
    let host = beside.host();
    assert_eq!((host.status, host.running, host.cordoned), (HostStatus::Working, 1, false));
    assert!(host.info.memory_bytes.is_some() && host.info.milli_cpus.is_some(), "{host:?}");
    beside.tokio.block_on(beside.service.cordon(&host.info.name)).unwrap();
    let waiting = served.ok(&["send", "works", "y"]);
    eventually("it hears of it", || served.log().contains("cordoned: takes no more"));
    let ended = served.wait_for("works", &running, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "what runs goes on: {ended:#}");
    served.stop(Duration::from_secs(20));
    assert_eq!(beside.host().status, HostStatus::Stopped);

    let served = machine.serve();
    eventually("so is the next process", || served.log().contains("cordoned: takes no more"));
    assert_eq!(served.wait_for("works", &waiting, |_| true)["status"], "SUBMITTED");
    let host = beside.host();
    assert_eq!((host.status, host.cordoned), (HostStatus::Working, true));
    beside.tokio.block_on(beside.service.uncordon(&host.info.name)).unwrap();
    let ended = served.wait_for("works", &waiting, has_ended);
    assert_eq!((&ended["outcome"], &ended["attempt"]), (&"succeeded".into(), &1.into()));
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn an_execution_that_no_host_could_run_says_what_it_needs() {
    let machine = Machine::new();
    machine.import_script("works", "echo done");
    let served = machine.serve();
    served.ok(&["create", "--name", "large", "--mem-limit", "4000g", "works"]);
    served.ok(&["create", "--name", "small", "--mem-limit", "64m", "works"]);
    let large = served.ok(&["send", "large", "x"]);
    let ended = served.wait_for("large", &large, has_ended);
    assert_eq!(ended["outcome"], "could_not_start", "{ended:#}");
    let reason = ended["reason"].as_str().unwrap();
    assert!(reason.contains("4096000 MiB") && reason.contains("memLimit"), "{reason}");
    let small = served.ok(&["send", "small", "x"]);
    assert_eq!(served.wait_for("small", &small, has_ended)["outcome"], "succeeded");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
