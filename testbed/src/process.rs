use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to become ready: on a machine that builds at the
/// same time, RabbitMQ's five seconds become many more.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A server's process: killed on drop with all its descendants, and by the
/// kernel if the test dies.
///
/// Start it on the thread that outlives its use: the kernel ends it with the
/// thread that started it (prctl(2), `PR_SET_PDEATHSIG`).
pub struct Process {
    child: Child,
    program: String,
    log: PathBuf,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.program, self.child.id())
    }
}

impl Process {
    /// Starts `program`; what it prints goes to the file `log`.
    ///
    /// # Errors
    ///
    /// The program or `setpriv` is not installed.
    pub fn start(program: &str, arguments: &[&str], log: &Path) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
        Self::spawn(&mut command, program, log)
    }

    /// Runs `command`, which sees to it that it dies with its parent.
    pub(crate) fn spawn(command: &mut Command, program: &str, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("could not create {log:?}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| {
                format!("could not start {program} by setpriv (run testbed/install.sh)")
            })?;
        Ok(Self { child, program: program.to_owned(), log: log.to_owned() })
    }

    /// Waits until `find` finds something in what the process printed so far.
    ///
    /// # Errors
    ///
    /// The process ended, or said nothing of the kind for two minutes; the error
    /// carries what it printed.
    pub fn wait_for_output<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let printed = std::fs::read(&self.log)?;
            let printed = String::from_utf8_lossy(&printed);
            if let Some(found) = find(&printed) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {printed}", self.program);
            }
            if Instant::now() > deadline {
                bail!("{} did not become ready in time: {printed}", self.program);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The ids of the process and all that descend from it, itself first.
    pub fn tree(&self) -> Vec<u32> {
        tree(self.id())
    }

    /// Stops the process and all its descendants by SIGSTOP: it holds its
    /// connections and answers nobody.
    pub fn suspend(&self) {
        freeze(self.id());
    }

    /// Undoes [`Process::suspend`].
    pub fn resume(&self) {
        // Children first: their parents find them as they were.
        for pid in self.tree().into_iter().rev() {
            send(pid, Signal::SIGCONT);
        }
    }

    /// Asks the process to end by `signal`, and returns when it has. One that
    /// takes longer than `patience` is killed.
    pub(crate) fn end_by(&mut self, signal: Signal, patience: Duration) {
        let deadline = Instant::now() + patience;
        send(self.id(), signal);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill();
    }

    /// Kills the process and all its descendants by SIGKILL, none of which gets
    /// to do anything more, and waits until they have gone.
    pub fn kill(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let all = freeze(self.id());
        for &pid in &all {
            send(pid, Signal::SIGKILL);
        }
        // Fails only for a process that is gone already.
        let _ = self.child.wait();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && all.iter().any(|&pid| is_alive(pid)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Stops a process and its descendants until no new ones turn up.
fn freeze(root: u32) -> Vec<u32> {
    let mut stopped = Vec::new();
    loop {
        let new: Vec<u32> = tree(root).into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            return stopped;
        }
        for &pid in &new {
            send(pid, Signal::SIGSTOP);
        }
        // It is delivered when a process next runs; until then it may still fork.
        while new.iter().any(|&pid| is_running(pid)) {
            thread::yield_now();
        }
        stopped.extend(new);
    }
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some((_, parent)) = status(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

fn is_running(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| !matches!(state, 'T' | 'Z' | 'X'))
}

fn is_alive(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process: proc(5), `stat`.
fn status(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn send(pid: u32, signal: Signal) {
    // It fails for a process that has gone, which is as good.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}
