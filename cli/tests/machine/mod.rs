//! A place of its own for each test: state root, settings, bridges, service.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use abax_testbed::Process;

/// A machine to itself: what one test makes, no other sees. Needs root.
pub struct Machine {
    directory: tempfile::TempDir,
    bridges: [String; 2],
    subnets: [String; 2],
    /// What commands have as `TOKEN`.
    pub token: Option<String>,
    /// Containers that were seen: their control groups have no other trace of us.
    containers: Mutex<BTreeSet<String>>,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Machine {
    pub fn new() -> Self {
        Self::with_settings("", "")
    }

    /// More lines for the settings file: at the top, and in `[service]`.
    pub fn with_settings(top: &str, service: &str) -> Self {
        let number = (std::process::id() * 7 + COUNTER.fetch_add(1, Ordering::SeqCst)) & 0x3fff;
        let (high, low) = (128 + (number >> 7), (number & 127) * 2);
        let bridges = [format!("abt{number}r"), format!("abt{number}s")];
        let subnets = [format!("10.{high}.{low}.0/24"), format!("10.{high}.{}.0/24", low + 1)];
        let directory = tempfile::tempdir().unwrap();
        let settings = format!(
            "root = \"{root}\"\nregistries.local = [\"127.0.0.1\", \"localhost\"]\n{top}\n\
             [network]\nbridge = \"{}\"\nsubnet = \"{}\"\n\
             [service]\nlisten = \"127.0.0.1:0\"\nbridge = \"{}\"\nsubnet = \"{}\"\n{service}\n",
            bridges[0],
            subnets[0],
            bridges[1],
            subnets[1],
            root = directory.path().join("root").display(),
        );
        std::fs::write(directory.path().join("abax.toml"), settings).unwrap();
        Self { directory, bridges, subnets, token: None, containers: Mutex::default() }
    }

    /// One with an image `busybox`.
    pub fn with_busybox() -> Self {
        let machine = Self::new();
        machine.import_busybox("busybox", &["CMD [\"sh\"]"]);
        machine
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `abax` with the arguments, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
        command
            .arg("--config")
            .arg(self.path("abax.toml"))
            .args(arguments)
            .env_remove("TOKEN")
            .env_remove("ABAX_TOKEN")
            .env_remove("ABAX_ROOT")
            .env_remove("ABAX_SERVER")
            .stdin(Stdio::null());
        if let Some(token) = &self.token {
            command.env("TOKEN", token);
        }
        command
    }

    pub fn abax(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, self.command(arguments).output().unwrap())
    }

    /// Standard output of what must succeed, without the last line's end.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.abax(arguments).success().trim_end().to_owned()
    }

    pub fn import_busybox(&self, name: &str, changes: &[&str]) {
        let tar = abax_testbed::busybox_rootfs_tar().unwrap();
        let mut arguments = vec!["import", "-", name];
        for change in changes {
            arguments.extend(["-c", change]);
        }
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&tar).unwrap();
        Ran::of(&arguments, child.wait_with_output().unwrap()).success();
    }

    /// An actor's image whose container runs `script`.
    pub fn import_script(&self, name: &str, script: &str) {
        let command = serde_json::to_string(&["/bin/sh", "-c", script]).unwrap();
        self.import_busybox(name, &[&format!("CMD {command}")]);
    }

    pub fn serve(&self) -> Served<'_> {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, arguments: &[&str]) -> Served<'_> {
        self.start("serve", arguments, "serve.log", "listens on ")
    }

    /// `abax api`, once it listens.
    pub fn api(&self, log: &str) -> Served<'_> {
        self.api_with(log, &[])
    }

    pub fn api_with(&self, log: &str, arguments: &[&str]) -> Served<'_> {
        self.start("api", arguments, log, "listens on ")
    }

    /// `abax worker`, once it takes messages.
    pub fn worker(&self, arguments: &[&str]) -> Served<'_> {
        self.worker_that_says(" takes messages", arguments)
    }

    /// `abax worker`, once `sign` is in its log.
    pub fn worker_that_says(&self, sign: &str, arguments: &[&str]) -> Served<'_> {
        self.start("worker", arguments, "worker.log", sign)
    }

    /// A process of the service, once it has said `sign`; what follows that on
    /// its line is its URL.
    fn start(&self, verb: &str, arguments: &[&str], log: &str, sign: &str) -> Served<'_> {
        let log = self.path(log);
        let config = self.path("abax.toml");
        let mut all = vec!["--config", config.to_str().unwrap(), verb];
        all.extend(arguments);
        let mut process = Process::start(env!("CARGO_BIN_EXE_abax"), &all, &log).unwrap();
        let url = process
            .wait_for_output(|text| {
                let (_, rest) = text.split_once(sign)?;
                let (url, _) = rest.split_once('\n')?;
                Some(url.to_owned())
            })
            .unwrap();
        Served { machine: self, process: Some(process), url, log }
    }

    /// The containers that there are now; remembered, to look for what they leave.
    pub fn containers(&self) -> Vec<String> {
        let ids: Vec<String> = entries(&self.root().join("containers"));
        self.containers.lock().unwrap().extend(ids.iter().cloned());
        ids
    }

    /// What is left of containers: directories, control groups of those that were
    /// seen, interfaces on our bridges, leases, mounts, processes.
    pub fn leftovers(&self) -> Vec<String> {
        let ids = self.containers();
        let mut left: Vec<String> =
            ids.iter().map(|id| format!("directory of container {id}")).collect();
        // Each tree of v1, or the one of v2, or the one of v2 beside those of v1.
        let top = PathBuf::from("/sys/fs/cgroup");
        let mut trees: Vec<_> = entries(&top).iter().map(|name| top.join(name)).collect();
        trees.push(top);
        for id in &*self.containers.lock().unwrap() {
            let groups = trees.iter().map(|tree| tree.join("abax").join(id));
            left.extend(groups.filter(|g| g.exists()).map(|g| format!("group {}", g.display())));
        }
        for bridge in &self.bridges {
            // A network namespace that outlives its container keeps its interface.
            for port in entries(Path::new(&format!("/sys/class/net/{bridge}/brif"))) {
                left.push(format!("interface {port} on {bridge}"));
            }
            let leases = self.root().join("network").join(bridge);
            for lease in entries(&leases).iter().filter(|lease| leases.join(lease).is_symlink()) {
                left.push(format!("lease of {lease} on {bridge}"));
            }
        }
        let root = self.root().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|l| l.contains(&root)).map(|l| format!("mount {l}")));
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let mounts = std::fs::read_to_string(process.path().join("mountinfo"));
            if mounts.is_ok_and(|m| m.lines().any(|l| l.contains(&format!("{root}/containers")))) {
                left.push(format!("process {:?} in one of our containers", process.file_name()));
            }
        }
        left
    }

    /// Waits until nothing is left.
    pub fn assert_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Clears what a service that a test killed has left; its directory goes next.
        let _ = self.command(&["ps", "-q"]).output();
        for bridge in &self.bridges {
            abax_testbed::remove_bridge(bridge);
        }
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The processes, of whatever container, whose command line has `word`.
pub fn processes_with(word: &str) -> Vec<String> {
    let mut found = entries(Path::new("/proc"));
    found.retain(|process| {
        let line = std::fs::read(Path::new("/proc").join(process).join("cmdline"));
        line.is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    });
    found
}

/// An address that nobody listens on, as far as one can tell.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// `GET path`, without a token; the status and the whole answer.
pub fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{path}: {answer}")), answer)
}

/// Waits until `check` holds.
#[track_caller]
pub fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A service that runs; killed when dropped.
pub struct Served<'a> {
    machine: &'a Machine,
    process: Option<Process>,
    pub url: String,
    log: PathBuf,
}

impl Served<'_> {
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it has not been killed").id()
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        drop(self.process.take());
    }

    /// SIGTERM, and the end within `limit`.
    pub fn stop(mut self, limit: Duration) {
        let process = self.process.take().unwrap();
        Command::new("kill").arg(process.id().to_string()).output().unwrap();
        let deadline = Instant::now() + limit;
        let stat = format!("/proc/{}/stat", process.id());
        // A zombie has ended: its parent, this test, has not asked yet.
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(Instant::now() < deadline, "still running: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn actor(&self, arguments: &[&str]) -> Ran {
        let mut all = vec!["actor", "--server", &self.url];
        all.extend(arguments);
        self.machine.abax(&all)
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        self.actor(arguments).success().trim_end().to_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// The execution once `check` holds.
    pub fn wait_for(
        &self,
        actor: &str,
        execution: &str,
        check: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = self.json(&["executions", actor, execution]);
            self.machine.containers();
            if check(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "still {state:#}\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// One request of the administrator; the status and the envelope.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let token = self.machine.ok(&["token"]);
        let answer = self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    /// Asks for the end of an execution.
    pub fn halt(&self, actor: &str, execution: &str) -> (u16, serde_json::Value) {
        let id = self.json(&["show", actor])["id"].as_str().unwrap().to_owned();
        self.http("DELETE", &format!("/v3/actors/{id}/executions/{execution}"), "")
    }

    /// One request as bytes; the whole answer as text.
    pub fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// How a command ended.
pub struct Ran {
    what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(arguments: &[&str], output: Output) -> Self {
        Self {
            what: arguments.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "abax {}: {}{}", self.what, self.stdout, self.stderr);
        &self.stdout
    }

    /// It failed with `code` and one line on standard error, which has all of `words`.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "abax {}: {}{}", self.what, self.stdout, self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "abax {}: {}", self.what, self.stderr);
        assert!(self.stderr.starts_with("abax: "), "abax {}: {}", self.what, self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "abax {}: no {word:?} in {}",
                self.what,
                self.stderr
            );
        }
    }
}
