//! What limits on containers promise. Needs root and busybox-static.

mod machine;

use std::time::Duration;

use abax_runtime::cgroup::Limits;
use abax_runtime::container::{ExitStatus, Isolation, Options};
use machine::{Machine, args};

const MIB: u64 = 1024 * 1024;

#[test]
fn too_much_memory_is_137_and_told_from_a_plain_kill() {
    let machine = Machine::new();
    for isolation in [Isolation::Docker, Isolation::Unprivileged] {
        let limits = Limits {
            memory_bytes: Some(16 * MIB),
            memory_swap_bytes: Some(i64::try_from(16 * MIB).unwrap()),
            ..Limits::default()
        };
        let options = |script: &str| Options { limits, isolation, ..args(&["sh", "-c", script]) };
        // The pipe's end is held in memory whole, as there is no newline.
        let outcome = machine.run(options("exec tail -c 200m /dev/zero")).unwrap();
        assert_eq!(outcome.exit.exit_code(), 137, "{isolation:?}: {outcome:?}");
        assert!(outcome.exit.out_of_memory, "{isolation:?}: {outcome:?}");
        let outcome = machine.run(options("true")).unwrap();
        assert_eq!(
            (outcome.exit.exit_code(), outcome.exit.out_of_memory),
            (0, false),
            "{isolation:?}"
        );
        let outcome = machine.run(Options { init: true, ..options("kill -9 $$") }).unwrap();
        assert_eq!(
            (outcome.exit.exit_code(), outcome.exit.out_of_memory),
            (137, false),
            "{isolation:?}"
        );
    }
    machine.assert_clean();
}

#[test]
fn a_fork_bomb_meets_the_limit_on_processes() {
    let machine = Machine::new();
    let limits = Limits { pids: Some(12), ..Limits::default() };
    let script = "i=0; while [ $i -lt 30 ]; do sleep 100 & i=$((i+1)); done; echo all";
    let outcome = machine.sh(script, Options { limits, ..Options::default() });
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");
    assert_ne!(outcome.stdout, "all\n");
    machine.assert_clean();
}

#[test]
fn strangers_have_a_bound_on_processes_though_none_was_asked() {
    let machine = Machine::new();
    let options = Options { isolation: Isolation::Unprivileged, ..Options::default() };
    let outcome = machine.sh("ulimit -u; ulimit -c", options);
    assert_eq!(outcome.stdout, "4096\n0\n");
}

#[test]
fn a_processor_limit_slows_what_would_use_more() {
    let machine = Machine::new();
    let limits = Limits { nano_cpus: Some(200_000_000), ..Limits::default() };
    let container = machine.start(Options { limits, ..args(&["sh", "-c", "while :; do :; done"]) });
    assert_eq!(container.wait_timeout(Duration::from_secs(2)).unwrap(), None);
    let used = container.usage().cpu;
    container.kill_all();
    assert_eq!(container.wait().unwrap().status, ExitStatus::Signaled(libc::SIGKILL));
    // A fifth of two seconds, and some slack for the slices at both ends.
    assert!(used < Duration::from_millis(800), "{used:?}");
    assert!(used > Duration::from_millis(50), "{used:?}");
}

#[test]
fn use_is_measured_until_the_container_is_deleted() {
    let machine = Machine::new();
    let container =
        machine.start(args(&["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]));
    container.wait().unwrap();
    assert!(container.usage().cpu > Duration::from_millis(5), "{:?}", container.usage());
    container.delete().unwrap();
}

#[test]
fn limits_on_files_are_the_caller_s() {
    let machine = Machine::new();
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let text = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
    let outcome = machine.sh("ulimit -Sn; ulimit -Hn", Options::default());
    assert_eq!(outcome.stdout, format!("{}\n{}\n", text(soft), text(hard)));
}
