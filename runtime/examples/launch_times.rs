//! How long containers take from a warm launcher, start to exit: `launch_times ROOTFS LAUNCHER [RUNS]`.
//!
//! ROOTFS is a directory with a static busybox as /bin/true; LAUNCHER a binary that can be the
//! launcher. Prints the median, lowest and 90th percentile of each case in microseconds. Needs root.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use abax_runtime::cgroup::Limits;
use abax_runtime::container::{Container, Isolation, Launcher, Options, Stdio};
use abax_runtime::digest::{DiffId, Digest};
use abax_runtime::image::{Image, Layer};
use abax_runtime::{Config, Runtime};
use anyhow::{Context, Result};
use oci_spec::image::{ImageConfiguration, MediaType};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, rootfs, launcher, runs @ ..] = &arguments[..] else {
        anyhow::bail!("usage: launch_times ROOTFS LAUNCHER [RUNS]")
    };
    let runs = runs.first().map_or(Ok(200), |runs| runs.parse())?;
    let root = tempfile::tempdir_in(".")?;
    let runtime = Runtime::open(Config { root: root.path().canonicalize()?, ca_bundle: None })?;
    let image = image(&runtime, Path::new(rootfs))?;

    let start = Instant::now();
    let launcher = Launcher::start_with(Path::new(launcher))?;
    println!("launcher spawned in {} us", start.elapsed().as_micros());
    let limits = Limits {
        memory_bytes: Some(256 << 20),
        nano_cpus: Some(1_000_000_000),
        pids: Some(100),
        ..Limits::default()
    };
    for (name, isolation, limits) in [
        ("docker", Isolation::Docker, Limits::default()),
        ("docker, limits", Isolation::Docker, limits),
        ("unprivileged", Isolation::Unprivileged, Limits::default()),
        ("unprivileged, limits", Isolation::Unprivileged, limits),
    ] {
        let mut times: [Vec<Duration>; 5] = Default::default();
        for _ in 0..runs {
            let options = Options {
                args: vec!["/bin/true".to_owned()],
                isolation,
                limits,
                ..Options::default()
            };
            let clock = Instant::now();
            let container = Container::create(&runtime, &launcher, &image, options, Stdio::Null)?;
            let created = clock.elapsed();
            container.start()?;
            let started = clock.elapsed();
            let exit = container.wait()?;
            let ended = clock.elapsed();
            container.delete()?;
            let deleted = clock.elapsed();
            anyhow::ensure!(exit.exit_code() == 0, "{exit:?}");
            let steps = [created, started - created, ended - started, deleted - ended, deleted];
            for (times, step) in times.iter_mut().zip(steps) {
                times.push(step);
            }
        }
        println!("{name}");
        for (step, times) in ["create", "start", "wait", "delete", "all"].iter().zip(&mut times) {
            times.sort();
            let at = |part: usize| times.get(runs * part / 100).map_or(0, Duration::as_micros);
            println!("  {step:8} median {:6} lowest {:6} p90 {:6}", at(50), at(0), at(90));
        }
    }
    Ok(())
}

/// The directory as an image of one layer, without a tar.
fn image(runtime: &Runtime, rootfs: &Path) -> Result<Image> {
    let store = runtime.images();
    let digest: Digest = store.put_blob(b"no tar")?;
    let diff_id = DiffId(digest);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(rootfs)
        .arg(store.layer_directory(&diff_id))
        .status()
        .context("cp")?;
    anyhow::ensure!(copied.success(), "cp: {copied}");
    let layer = Layer { digest, diff_id, size_bytes: 6, media_type: MediaType::ImageLayer };
    Ok(store.create_image(&ImageConfiguration::default(), &[layer], &[])?)
}
