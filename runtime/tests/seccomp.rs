//! Seccomp programs against the kernel of this machine. Needs root and perl, which can make any
//! system call and is on every Debian machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Instant;

use abax_runtime::security::seccomp::{self, Architecture, Profile};
use caps::Capability;

/// Runs `perl -e script` under Docker's default profile, for a container with these capabilities.
/// Only a thread is restricted, and its child with it: it ends with the test.
fn perl(capabilities: &[Capability], script: &str) -> String {
    let architecture = Architecture::host().expect("an architecture with a filter");
    let programs = seccomp::compile(Profile::docker_default(), capabilities, architecture).unwrap();
    let script = format!(
        "sub try {{ my $n = shift; my $r = syscall($n, @_); print $r < 0 ? $!+0 : 'ok', ' ' }} {script}"
    );
    std::thread::spawn(move || {
        seccomp::install(&programs).unwrap();
        let output = Command::new("perl").args(["-e", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    })
    .join()
    .unwrap()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_kernel_refuses_what_docker_refuses() {
    const EPERM: &str = "1 ";
    for (what, script, expected) in [
        ("getpid", "try(39)", "ok "),
        ("keyctl", "try(250, 0, 0, 0)", EPERM),
        ("personality, query", "try(135, 0xffffffff)", "ok "),
        ("personality, address randomization off", "try(135, 0x40000)", EPERM),
        ("unshare of mounts", "try(272, 0x20000)", EPERM),
        ("unshare of nothing", "try(272, 0)", EPERM),
        ("a unix socket", "try(41, 1, 1, 0)", "ok "),
        ("a vsock socket", "try(41, 40, 1, 0)", EPERM),
        ("clone into a user namespace", "try(56, 0x10000000 | 17, 0, 0, 0, 0)", EPERM),
        ("clone3", "try(435, 0, 0)", "38 "),
        ("bpf", "try(321, 0, 0, 0)", EPERM),
        ("a number from the future", "try(480)", "38 "),
        ("an x32 number", "try(0x40000000 + 39)", EPERM),
    ] {
        assert_eq!(perl(&[], script), expected, "{what}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn capabilities_open_the_calls_that_need_them() {
    for (what, capabilities, script, expected) in [
        (
            "chroot, as Docker's containers may",
            &[Capability::CAP_SYS_CHROOT][..],
            "my $root = '/'; try(161, $root)",
            "ok ",
        ),
        ("chroot without it", &[], "my $root = '/'; try(161, $root)", "1 "),
        ("clone3 as administrator", &[Capability::CAP_SYS_ADMIN], "try(435, 0, 0)", "22 "),
    ] {
        assert_eq!(perl(capabilities, script), expected, "{what}");
    }
}

#[test]
fn ordinary_programs_run() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("made");
    let script = format!("mkdir '{0}' or die $!; print `ls -d {0}`; rmdir '{0}'", made.display());
    assert_eq!(perl(&[], &script), format!("{}\n", made.display()));
}

/// The list of another project, where Debian has installed it: what both allow to everybody, we allow.
#[test]
fn calls_that_podman_allows_to_everybody_are_known() {
    let Ok(json) = std::fs::read("/usr/share/containers/seccomp.json") else { return };
    let theirs: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let ours: serde_json::Value =
        serde_json::from_str(include_str!("../src/security/seccomp/docker-default.json")).unwrap();
    let ours = ours.to_string();
    let known = |name: &str| ours.split([' ', '"']).any(|word| word == name);
    // Allowed by podman and not by Docker.
    let only_podman = [
        "keyctl",
        "pivot_root",
        "query_module",
        "readdir",
        "s390_pci_mmio_read",
        "s390_pci_mmio_write",
        "s390_runtime_instr",
        "sigaction",
        "signal",
        "sigpending",
        "sigsuspend",
        "syscall",
        "timerfd",
    ];
    for rule in theirs["syscalls"].as_array().unwrap() {
        for name in
            rule["names"].as_array().unwrap().iter().filter(|_| rule["action"] == "SCMP_ACT_ALLOW")
        {
            let name = name.as_str().unwrap();
            assert!(known(name) || only_podman.contains(&name), "{name}");
        }
    }
}

/// Not a promise but a measure: `cargo nextest run --run-ignored only measure --no-capture`.
#[test]
#[ignore = "prints how long compiling and installing take"]
fn measure() {
    let architecture = Architecture::host().unwrap();
    let start = Instant::now();
    let profile = Profile::docker_default();
    let read = start.elapsed();
    let start = Instant::now();
    let programs = seccomp::compile(profile, &[], architecture).unwrap();
    let compiled = start.elapsed();
    let start = Instant::now();
    seccomp::compile(profile, &[], architecture).unwrap();
    let cached = start.elapsed();
    let mut installed = Vec::new();
    for _ in 0..50 {
        let programs = programs.clone();
        installed.push(
            std::thread::spawn(move || {
                let start = Instant::now();
                seccomp::install(&programs).unwrap();
                start.elapsed()
            })
            .join()
            .unwrap(),
        );
    }
    installed.sort_unstable();
    println!(
        "{} instructions; read {read:?}, compile {compiled:?}, cached {cached:?}, install median {:?}",
        programs[0].len(),
        installed[25]
    );
}
