//! agavepy and tapipy as PyPI has them, and images that use them inside. Needs root,
//! port 443 of 127.0.0.1, and a package index once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use abax_testbed::Process;
use machine::{Machine, Served};
use serde_json::{Value, json};

/// A Python with both libraries.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = clients("venv").stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "no clients");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn clients(what: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(workspace("testbed/clients/clients.py")).arg(what);
    command.arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients"));
    command
}

/// A machine whose executions believe the front, and reach it.
struct Place {
    machine: Machine,
    front: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let front = tempfile::tempdir().unwrap();
        let authority = front.path().join("authority.pem");
        let top = format!("ca_bundle = {authority:?}\n");
        let service = "public_url = \"https://host.abax.internal\"\nhost_ports = [443]";
        let made = Command::new("python3")
            .arg("-B")
            .arg(workspace("testbed/clients/front.py"))
            .arg(front.path())
            .status();
        assert!(made.unwrap().success(), "no certificate");
        let machine = Machine::with_settings(&top, service);
        Self { machine, front }
    }

    /// The front of a service that runs.
    fn front(&self, served: &Served<'_>) -> Process {
        let script = workspace("testbed/clients/front.py");
        let port = served.port().to_string();
        let arguments =
            ["-B", script.to_str().unwrap(), self.front.path().to_str().unwrap(), &port];
        let log = self.machine.path("front.log");
        let front = Process::start("python3", &arguments, &log).unwrap();
        // Another test's front may have the port for long.
        let deadline = Instant::now() + Duration::from_secs(600);
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready") {
            assert!(Instant::now() < deadline, "the front did not start: {log:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        front
    }

    /// The images of the sample actors, on a base that has both libraries.
    fn build(&self, samples: &[&str]) {
        if samples.contains(&"echo") {
            self.machine.import_busybox("busybox", &["CMD [\"sh\"]"]);
        }
        python();
        let mut tar = clients("rootfs").stdout(Stdio::piped()).spawn().unwrap();
        let import = self
            .machine
            .command(&[
                "import",
                "-",
                "python",
                "-c",
                "ENV PATH=/bin",
                "-c",
                "ENV PYTHONPATH=/clients",
            ])
            .stdin(tar.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(tar.wait().unwrap().success(), "no root file system");
        machine::Ran::of(&["import"], import).success();
        // agavepy believes the authorities that came with it, and no others.
        let dockerfile = "FROM python\nCOPY authority.pem /\n\
                          RUN cat /authority.pem >> /clients/certifi/cacert.pem\n";
        std::fs::write(self.front.path().join("Dockerfile"), dockerfile).unwrap();
        let directory = self.front.path().to_str().unwrap();
        self.machine.ok(&["build", "-q", "-t", "clients", directory]);
        for sample in samples {
            let base = if *sample == "echo" { "BASE=busybox" } else { "BASE=clients" };
            let directory = workspace(&format!("examples/samples/{sample}"));
            let directory = directory.to_str().unwrap();
            self.machine.ok(&["build", "-q", "--build-arg", base, "-t", sample, directory]);
        }
    }

    fn token(&self, user: &str) -> String {
        self.machine.ok(&["token", "--user", user, "--role", "user"])
    }

    /// Runs one of the scripts that drive the service.
    fn drive(&self, script: &str, server: &str) {
        let output = Command::new(python())
            .arg("-B")
            .arg(workspace("testbed/clients").join(script))
            .env("SERVER", server)
            .env("TOKEN", self.token("ada"))
            .env("REQUESTS_CA_BUNDLE", self.front.path().join("authority.pem"))
            // Where they would look for credentials of the user who runs the tests.
            .env("HOME", self.front.path())
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("all held"), "{said}\n{errors}");
    }
}

#[test]
fn agavepy_drives_the_service() {
    let place = Place::new();
    place.build(&["echo", "wc", "py3_func"]);
    let served = place.machine.serve();
    let _front = place.front(&served);
    place.drive("drive_agavepy.py", "https://localhost");
    served.stop(Duration::from_secs(20));
    place.machine.assert_clean();
}

#[test]
fn tapipy_drives_the_service() {
    let place = Place::new();
    place.build(&["echo", "wc", "py3_func"]);
    let served = place.machine.serve();
    place.drive("drive_tapipy.py", &served.url);
    served.stop(Duration::from_secs(20));
    place.machine.assert_clean();
}

/// What `library name value` lines of a log say.
fn told(log: &str, library: &str, name: &str) -> Value {
    let start = format!("{library} {name} ");
    let line = log.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("no {start}in {log}"));
    serde_json::from_str(line).unwrap_or_else(|_| json!(line))
}

#[test]
fn images_with_the_libraries_inside_run_unchanged() {
    let place = Place::new();
    place.build(&["wc", "sum_reducer"]);
    let context = tempfile::tempdir().unwrap();
    std::fs::copy(workspace("testbed/clients/inside.py"), context.path().join("inside.py"))
        .unwrap();
    // Neither root nor anybody that the image knows.
    let dockerfile =
        "FROM clients\nCOPY inside.py /\nUSER 12345\nCMD [\"python3\", \"/inside.py\"]\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let directory = context.path().to_str().unwrap();
    place.machine.ok(&["build", "-q", "-t", "inside", directory]);
    let served = place.machine.serve();
    let _front = place.front(&served);

    let id = served.ok(&["create", "--name", "inside", "inside"]);
    let message = json!({"a": true, "b": null, "c": "x'y", "d": [1, 2.5]});
    let execution = served.ok(&["send", "inside", "--json", &message.to_string()]);
    served.wait_for("inside", &execution, |e| e["status"] == "COMPLETE");
    let log = served.ok(&["logs", "inside", &execution]);
    for library in ["agavepy", "tapipy"] {
        let told = |name: &str| told(&log, library, name);
        assert_eq!(told("message_dict"), message, "{library}");
        assert_eq!(told("content_type"), "application/json", "{library}");
        assert_eq!(told("actor_id"), id.as_str());
        assert_eq!(told("execution_id"), execution.as_str());
        assert_eq!((told("username"), told("state")), (json!("admin"), json!("{}")));
        assert!(told("actor_dbid").as_str().unwrap().ends_with(&id), "{log}");
        assert_eq!(told("_abaco_actor_name"), "inside");
        assert_eq!(told("_abaco_container_repo"), "inside");
        assert_ne!(told("_abaco_worker_id"), Value::Null);
    }
    assert_eq!(served.json(&["results", "inside", &execution]).as_array().unwrap().len(), 4);
    let first = served.actor(&["results", "inside", &execution, "-n", "1"]);
    assert_eq!(first.success(), "agavepy as 12345");

    for size in [10, 1_000_000] {
        std::fs::write(place.machine.path("bytes"), vec![7_u8; size]).unwrap();
        let file = place.machine.path("bytes");
        let ran = served.actor(&["send", "--wait", "inside", "-f", file.to_str().unwrap()]);
        for library in ["agavepy", "tapipy"] {
            let line = format!("{library} binary {size} {}\n", size * 7);
            assert!(ran.success().contains(&line), "no {line}in {}", ran.stdout);
            assert_eq!(told(&ran.stdout, library, "content_type"), "application/octet-stream");
        }
    }

    // One calls the next, and that one the service, each with the token that it was given.
    let sums = served.ok(&["create", "-n", "sums", "-S", "--with-token", "sum_reducer"]);
    served.ok(&["create", "-n", "words", "--with-token", "wc"]);
    for _ in 0..2 {
        let work = json!({"text": "to be or not to be", "reducer": sums}).to_string();
        served.actor(&["send", "--wait", "words", "--json", &work]).success();
    }
    machine::eventually("both are added", || {
        served.json(&["state", "sums"])["state"] == json!({"to": 4, "be": 4, "or": 2, "not": 2})
    });
    served.stop(Duration::from_secs(20));
    place.machine.assert_clean();
}
