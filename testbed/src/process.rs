use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A server's process: killed on drop, and by the kernel if the test dies.
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
        let output = File::create(log).with_context(|| format!("could not create {log:?}"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
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
    /// The process ended, or said nothing of the kind for 30 seconds; the error
    /// carries what it printed.
    pub fn wait_for_output<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(30);
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
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
