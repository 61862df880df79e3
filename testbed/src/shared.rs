//! A server that the tests of one run share, each in a process of its own.
//!
//! ```text
//! NAME.start   locked by whoever looks for the server or starts it
//! NAME.users   locked shared by each process that uses it
//! NAME.json    how to reach it; there while it runs
//! ```
//!
//! A *keeper*, a small shell script in a session of its own, is the server's
//! parent. It waits until the run is over (the `cargo` process that the first
//! user is a child of has ended) and nobody holds the lock of users, which the
//! kernel takes from the dead; then it ends the server and removes its
//! directory. A keeper that is killed takes the server along.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const KEEPER: &str = r#"
users=$1 record=$2 directory=$3 runner=$4 signal=$5
shift 5
exec 9<>"$users"
"$@" 9>&- &
server=$!
[[ $runner = 0 ]] || tail -s 0.1 --pid="$runner" -f /dev/null 9>&-
flock -x 9
rm -f "$record"
kill -"$signal" "$server"
wait "$server"
rm -rf "$directory"
"#;

/// A server that is about to be shared.
pub(crate) struct Plan {
    /// Removed when the server has ended.
    pub(crate) directory: PathBuf,
    /// Runs it in the foreground; it dies with its parent.
    pub(crate) command: Command,
    /// The signal that ends it.
    pub(crate) signal: &'static str,
    /// Printed when it is ready.
    pub(crate) ready: &'static str,
    /// How others reach it; has its `port`.
    pub(crate) record: Value,
}

/// Keeps a shared server running.
#[derive(Debug)]
pub(crate) struct Lease {
    _users: File,
}

/// The record of the server `name`, which is started by `plan` if there is none.
pub(crate) fn share(name: &str, plan: impl FnOnce() -> Result<Plan>) -> Result<(Value, Lease)> {
    let directory = lock_directory()?;
    let open = |file: &str| -> Result<File> {
        let path = directory.join(file);
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        options.open(&path).with_context(|| format!("could not open {path:?}"))
    };
    let starting = open(&format!("{name}.start"))?;
    starting.lock()?;
    let users = directory.join(format!("{name}.users"));
    let lease = Lease { _users: open(&format!("{name}.users"))? };
    // Waits while a keeper is at its end.
    lease._users.lock_shared()?;
    let path = directory.join(format!("{name}.json"));
    if let Some(record) = read(&path) {
        return Ok((record, lease));
    }
    let plan = plan()?;
    let log = plan.directory.join("log");
    let arguments = [
        users.into_os_string(),
        path.clone().into_os_string(),
        plan.directory.clone().into_os_string(),
        runner().to_string().into(),
        plan.signal.into(),
        plan.command.get_program().to_owned(),
    ];
    let mut keeper = Command::new("setsid");
    keeper
        .args(["--fork", "bash", "-c", KEEPER, "testbed-keeper"])
        .args(arguments)
        .args(plan.command.get_args().map(OsString::from));
    for (key, value) in plan.command.get_envs() {
        keeper.env(key, value.unwrap_or_default());
    }
    let output = File::create(&log)?;
    let keeper = keeper
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("could not run setsid (run testbed/install.sh)")?;
    if !keeper.success() {
        bail!("setsid ended with {keeper}");
    }
    wait_for(&log, plan.ready)?;
    let written = directory.join(format!("{name}.json.new"));
    fs::write(&written, plan.record.to_string())?;
    fs::rename(&written, &path)?;
    Ok((plan.record, lease))
}

/// The record of a server that is there.
fn read(path: &Path) -> Option<Value> {
    let record: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let port = u16::try_from(record["port"].as_u64()?).ok()?;
    // A machine that lost its power leaves the record without the server.
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(|_| record)
}

fn wait_for(log: &Path, ready: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let printed = fs::read(log).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        if printed.contains(ready) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("a shared server did not become ready in time: {printed}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The process whose end is the end of the run; 0 where the test was started
/// by hand.
fn runner() -> u32 {
    let parent = parent_id();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    if name.starts_with("cargo") { parent } else { 0 }
}

/// `tmp` of the target directory that the test's program is in.
fn lock_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
    let directory = target.map_or_else(std::env::temp_dir, |path| path.join("tmp")).join("testbed");
    fs::create_dir_all(&directory).with_context(|| format!("could not create {directory:?}"))?;
    Ok(directory)
}
