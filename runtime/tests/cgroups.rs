//! Control groups against the kernel of this machine, whichever trees it has. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use abax_runtime::cgroup::{Cgroup, CgroupError, Hierarchy, Layout, Limits};

/// A name that no other test and no other run has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("abax-test-{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A group that is killed and removed at the end of the test, also when it panics.
struct Group(Option<Cgroup>, String);

impl Group {
    fn create(limits: &Limits) -> Self {
        let name = name();
        let group = Cgroup::create(&name, limits).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        Self(Some(group), name)
    }

    fn remove(mut self) {
        self.0.take().unwrap().remove().unwrap();
    }
}

impl std::ops::Deref for Group {
    type Target = Cgroup;
    fn deref(&self) -> &Cgroup {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.take().map_or_else(|| Cgroup::open(&self.1), Ok);
        let _ = group.and_then(|group| group.kill().and_then(|()| group.remove()));
        // The parent goes with the last test of this process; in the others it is not empty yet.
        let parent = self.1.split('/').next().unwrap();
        if Cgroup::list(parent).is_ok_and(|children| children.is_empty()) {
            let _ = Cgroup::open(parent).and_then(Cgroup::remove);
        }
    }
}

/// A shell that waits for a line before it runs `script`, so that it can join a group first.
fn shell_in(group: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    group.join(child.id().cast_signed()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child
}

fn output_of(group: &Cgroup, script: &str) -> String {
    let output = shell_in(group, script).wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_group_is_in_the_v2_tree_where_there_is_one() {
    let layout = Hierarchy::detect().unwrap().layout();
    let group = Group::create(&Limits::default());
    assert_eq!(group.unified_fd().is_some(), layout != Layout::V1, "{layout:?}");
    let groups = output_of(&group, "cat /proc/self/cgroup");
    assert!(groups.contains(group.name()), "{groups}");
}

#[test]
fn without_limits_no_v1_controller_is_joined_on_a_hybrid_machine() {
    let group = Group::create(&Limits::default());
    let hybrid = Hierarchy::detect().unwrap().layout() == Layout::Hybrid;
    assert_eq!(group.has_legacy(), Hierarchy::detect().unwrap().layout() == Layout::V1);
    let groups = output_of(&group, "cat /proc/self/cgroup");
    let joined = groups.lines().filter(|line| line.ends_with(group.name())).count();
    if hybrid {
        assert_eq!(joined, 1, "{groups}");
    }
}

#[test]
fn a_process_limit_stops_forks() {
    let group = Group::create(&Limits { pids: Some(3), ..Limits::default() });
    let output = output_of(
        &group,
        "for n in 1 2 3 4 5 6; do sleep 60 > /dev/null 2>&1 & done; echo all started",
    );
    assert!(output.contains("ork"), "the shell complains about fork: {output}");
    assert!(!output.contains("all started"), "{output}");
    group.kill().unwrap();
}

#[test]
fn a_memory_limit_kills_and_says_so() {
    let limits = Limits {
        memory_bytes: Some(24 << 20),
        memory_swap_bytes: Some(24 << 20),
        ..Limits::default()
    };
    let group = Group::create(&limits);
    assert!(!group.oom_killed().unwrap(), "nothing happened yet");
    let mut child = shell_in(&group, "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null");
    child.wait().unwrap();
    until("the kernel's count of kills", || group.oom_killed().unwrap());
    let usage = group.usage();
    let peak = usage.peak_memory_bytes.unwrap();
    assert!((16 << 20..=24 << 20).contains(&peak), "{usage:?}");
}

#[test]
fn a_process_killed_by_hand_is_not_out_of_memory() {
    let group = Group::create(&Limits { memory_bytes: Some(64 << 20), ..Limits::default() });
    let mut child = shell_in(&group, "sleep 60");
    group.kill().unwrap();
    child.wait().unwrap();
    assert!(!group.oom_killed().unwrap());
}

#[test]
fn a_processor_limit_slows_down() {
    let group = Group::create(&Limits { nano_cpus: Some(100_000_000), ..Limits::default() });
    let started = Instant::now();
    let mut child = shell_in(&group, "i=0; while true; do i=$((i+1)); done");
    std::thread::sleep(Duration::from_secs(1));
    let (used, passed) = (group.usage().cpu, started.elapsed());
    group.kill().unwrap();
    child.wait().unwrap();
    assert!(used < passed / 4, "{used:?} of processor time in {passed:?}");
    assert!(used > Duration::from_millis(20), "{used:?} of processor time in {passed:?}");
}

#[test]
fn processor_shares_are_kept_by_the_kernel() {
    let group = Group::create(&Limits { cpu_shares: Some(512), ..Limits::default() });
    let file = |path: &str| fs::read_to_string(format!("{path}/{}", group.name()));
    let found = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]
        .iter()
        .find_map(|mount| fs::read_to_string(format!("{mount}/{}/cpu.shares", group.name())).ok())
        .or_else(|| file("/sys/fs/cgroup").ok());
    if Hierarchy::detect().unwrap().layout() != Layout::V2 {
        assert_eq!(found.as_deref(), Some("512\n"));
    }
}

#[test]
fn killing_ends_every_process_and_all_that_they_fork() {
    let group = Group::create(&Limits::default());
    let mut child = shell_in(&group, "while true; do sleep 60 & sleep 0.001; done");
    until("a few children", || group.processes().unwrap().len() > 5);
    group.kill().unwrap();
    child.wait().unwrap();
    until("an empty group", || group.processes().unwrap().is_empty());
    group.remove();
}

#[test]
fn frozen_processes_stand_still_until_thawed() {
    let group = Group::create(&Limits::default());
    let mut child = shell_in(&group, "while true; do :; done");
    until("some work", || group.usage().cpu > Duration::from_millis(20));
    group.freeze().unwrap();
    let before = group.usage().cpu;
    std::thread::sleep(Duration::from_millis(100));
    assert!(group.usage().cpu - before < Duration::from_millis(5), "it went on while frozen");
    group.thaw().unwrap();
    until("more work", || group.usage().cpu > before + Duration::from_millis(20));
    group.freeze().unwrap();
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn only_default_devices_can_be_opened() {
    let group = Group::create(&Limits::default());
    group.restrict_devices().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let output = output_of(
        &group,
        &format!(
            "cd {path}; mknod kmsg c 1 11 && mknod disk b 7 0 && mknod zero c 1 5 && echo made; \
             head -c1 zero | wc -c; echo x > /dev/null && echo null ok; \
             cat kmsg; cat disk; (: > /dev/tty) 2>&1 | grep -c permitted"
        ),
    );
    assert!(output.contains("made\n1\nnull ok\n"), "{output}");
    assert!(output.contains("kmsg: Operation not permitted"), "{output}");
    assert!(output.contains("disk: Operation not permitted"), "{output}");
    let free = Group::create(&Limits::default());
    let unrestricted = output_of(&free, &format!("exec 3< {path}/kmsg && echo opened"));
    assert!(unrestricted.contains("opened"), "without the filter it opens: {unrestricted}");
}

#[test]
fn removing_waits_for_what_is_being_killed_and_takes_nested_groups_along() {
    let group = Group::create(&Limits { pids: Some(50), ..Limits::default() });
    let mut child = shell_in(&group, "sleep 60 & sleep 60");
    if Hierarchy::detect().unwrap().layout() != Layout::V1 {
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|mount| Path::new(mount).join("cgroup.controllers").exists())
            .unwrap();
        fs::create_dir_all(format!("{unified}/{}/inner/most", group.name())).unwrap();
    }
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    group.kill().unwrap();
    group.remove();
    reaper.join().unwrap();
}

#[test]
fn what_a_killed_process_left_is_listed_opened_and_removed() {
    let group = Group::create(&Limits { memory_bytes: Some(32 << 20), ..Limits::default() });
    let (parent, _) = group.name().split_once('/').unwrap();
    assert!(Cgroup::list(parent).unwrap().contains(&group.name().to_owned()));
    let again = Cgroup::open(group.name()).unwrap();
    assert!(again.usage().memory_bytes.is_some(), "the v1 part is found as well");
    again.remove().unwrap();
    assert!(!Cgroup::list(parent).unwrap().contains(&group.name().to_owned()));
    group.remove();
}

#[test]
fn what_is_gone_is_killed_and_removed_without_complaint() {
    let group = Cgroup::open(&name()).unwrap();
    group.kill().unwrap();
    assert!(!group.oom_killed().unwrap());
    assert_eq!(group.usage().cpu, Duration::ZERO);
    group.remove().unwrap();
    assert_eq!(Cgroup::list("abax-test-never-made").unwrap(), Vec::<String>::new());
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_nothing_behind() {
    let name = name();
    let limits = Limits { memory_bytes: Some(64 << 20), pids: Some(u64::MAX), ..Limits::default() };
    let error = Cgroup::create(&name, &limits).unwrap_err();
    assert!(matches!(error, CgroupError::Write { .. }), "{error:?}");
    let (parent, _) = name.split_once('/').unwrap();
    assert_eq!(Cgroup::list(parent).unwrap().iter().filter(|n| **n == name).count(), 0);
    let _ = Cgroup::open(parent).and_then(Cgroup::remove);
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_it() {
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|mount| Path::new(mount).join("cgroup.controllers").exists())
        .expect("a v2 tree");
    if fs::read_to_string(format!("{unified}/cgroup.controllers")).unwrap().contains("memory") {
        return; // This machine's v2 tree keeps memory limits.
    }
    let table = format!("41 31 0:38 / {unified} rw - cgroup2 cgroup2 rw");
    let limits = Limits { memory_bytes: Some(1 << 20), ..Limits::default() };
    let name = name();
    let error = Cgroup::create_in(&Hierarchy::parse(&table), &name, &limits).unwrap_err();
    assert!(matches!(error, CgroupError::NoController { controller: "memory" }), "{error:?}");
    assert!(!Path::new(unified).join(&name).exists());
    let _ = Cgroup::open(name.split('/').next().unwrap()).and_then(Cgroup::remove);
}

#[test]
fn a_machine_with_v1_only_limits_freezes_kills_and_restricts_as_well() {
    if Hierarchy::detect().unwrap().layout() != Layout::Hybrid {
        return; // Only where v1 controllers are at hand can the v2 tree be left out.
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1: String = mounts
        .lines()
        .filter(|line| !line.contains(" - cgroup2 "))
        .flat_map(|l| [l, "\n"])
        .collect();
    let hierarchy = Hierarchy::parse(&v1);
    assert_eq!(hierarchy.layout(), Layout::V1);
    let name = name();
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let group = Group(Some(Cgroup::create_in(&hierarchy, &name, &limits).unwrap()), name);
    assert!(group.unified_fd().is_none());
    group.restrict_devices().unwrap();
    let mut child =
        shell_in(&group, "x=$(head -c 4000000 /dev/zero | tr '\\0' a); while true; do :; done");
    until("some work", || group.usage().cpu > Duration::from_millis(20));
    group.freeze().unwrap();
    let before = group.usage().cpu;
    std::thread::sleep(Duration::from_millis(100));
    assert!(group.usage().cpu - before < Duration::from_millis(5), "it went on while frozen");
    group.thaw().unwrap();
    assert!(group.usage().peak_memory_bytes.unwrap() > 0);
    group.kill().unwrap();
    child.wait().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let output = output_of(
        &group,
        &format!("mknod {path}/kmsg c 1 11; cat {path}/kmsg; : > /dev/null && echo ok"),
    );
    assert!(output.contains("Operation not permitted") && output.contains("ok"), "{output}");
    group.remove();
}

/// Not a promise but a measure: `cargo nextest run --run-ignored only measure --no-capture`.
#[test]
#[ignore = "prints how long the kernel takes"]
fn measure() {
    let mut times: Vec<[u128; 4]> = Vec::new();
    for limits in [
        Limits::default(),
        Limits {
            memory_bytes: Some(64 << 20),
            pids: Some(10),
            nano_cpus: Some(1_000_000_000),
            ..Limits::default()
        },
    ] {
        times.clear();
        for _ in 0..30 {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(30));
            let mut marks = [0; 4];
            let name = name();
            let start = Instant::now();
            let group = Cgroup::create(&name, &limits).unwrap();
            marks[0] = start.elapsed().as_micros();
            let start = Instant::now();
            group.restrict_devices().unwrap();
            marks[1] = start.elapsed().as_micros();
            let start = Instant::now();
            group.join(child.id().cast_signed()).unwrap();
            marks[2] = start.elapsed().as_micros();
            group.kill().unwrap();
            child.wait().unwrap();
            let start = Instant::now();
            group.remove().unwrap();
            marks[3] = start.elapsed().as_micros();
            times.push(marks);
        }
        for (column, what) in ["create", "devices", "join", "remove"].iter().enumerate() {
            let mut values: Vec<_> = times.iter().map(|row| row[column]).collect();
            values.sort_unstable();
            println!(
                "{what}: median {} µs, worst {} µs",
                values[values.len() / 2],
                values[values.len() - 1]
            );
        }
    }
    let _ = Cgroup::open(&format!("abax-test-{}", std::process::id())).and_then(Cgroup::remove);
}
