//! What one container costs in a process that has its launcher already:
//!
//! ```text
//! launch ROOT TIMES IMAGE PROGRAM [ARGUMENT…]
//! ```
//!
//! prints the microseconds from creation to deletion of each of TIMES containers, one after the
//! other, without a network. `testbed/bench/bench.py` runs it beside the peers.
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::path::PathBuf;
use std::time::Instant;

use abax_runtime::container::{Container, Launcher, Options, Stdio, run_launcher_if_asked};
use abax_runtime::{Config, Runtime};
use anyhow::{Context as _, ensure};

fn main() -> anyhow::Result<()> {
    run_launcher_if_asked();
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(times), Some(name)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        anyhow::bail!("usage: launch ROOT TIMES IMAGE PROGRAM [ARGUMENT…]");
    };
    let program: Vec<String> = arguments.collect();
    let runtime = Runtime::open(Config { root: PathBuf::from(root), ca_bundle: None })?;
    let image = runtime.images().find(&name)?.with_context(|| format!("no image {name}"))?;
    let launcher = Launcher::start()?;
    for _ in 0..times.parse::<u32>().context("TIMES is a number")? {
        let options = Options { args: program.clone(), ..Options::default() };
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
