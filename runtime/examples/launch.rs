//! What one container costs in a process that has its launcher already:
//!
//! ```text
//! launch ROOT docker|execution|docker-limits|execution-limits TIMES IMAGE PROGRAM [ARGUMENT…]
//! ```
//!
//! prints the microseconds from creation to deletion of each of TIMES containers, one after the
//! other, without a network. `testbed/bench/bench.py` runs it beside the peers.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::path::PathBuf;
use std::time::Instant;

use abax_runtime::cgroup::Limits;
use abax_runtime::container::{
    Container, Isolation, Launcher, Options, Stdio, run_launcher_if_asked,
};
use abax_runtime::{Config, Runtime};
use anyhow::{Context as _, bail, ensure};

fn main() -> anyhow::Result<()> {
    run_launcher_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, case, times, name, program @ ..] = &arguments[..] else {
        bail!("usage: launch ROOT CASE TIMES IMAGE PROGRAM [ARGUMENT…]");
    };
    let some = Limits {
        memory_bytes: Some(256 << 20),
        nano_cpus: Some(1_000_000_000),
        pids: Some(100),
        ..Limits::default()
    };
    let (isolation, limits) = match case.as_str() {
        "docker" => (Isolation::Docker, Limits::default()),
        "docker-limits" => (Isolation::Docker, some),
        "execution" => (Isolation::Unprivileged, Limits::default()),
        "execution-limits" => (Isolation::Unprivileged, some),
        _ => bail!("no case {case}"),
    };
    let runtime = Runtime::open(Config { root: PathBuf::from(root), ca_bundle: None })?;
    let image = runtime.images().find(name)?.with_context(|| format!("no image {name}"))?;
    let launcher = Launcher::start()?;
    for _ in 0..times.parse::<u32>().context("TIMES is a number")? {
        let options = Options { args: program.to_vec(), isolation, limits, ..Options::default() };
        let begin = Instant::now();
        let container = Container::create(&runtime, &launcher, &image, options, Stdio::Null)?;
        container.start()?;
        let exit = container.wait()?;
        container.delete()?;
        println!("{:.1}", begin.elapsed().as_secs_f64() * 1e6);
        ensure!(exit.exit_code() == 0, "{name} ended with {}", exit.exit_code());
    }
    Ok(())
}
