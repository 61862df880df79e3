//! What containers promise, on a real kernel. Needs root and busybox-static.

mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio as Pipes};
use std::thread;
use std::time::{Duration, Instant};

use abax_runtime::Runtime;
use abax_runtime::cgroup::Cgroup;
use abax_runtime::container::{
    self, Container, CreateError, ExitStatus, Isolation, Launcher, Mount, MountSource, Options,
    Record, RemoveError, Running, StartError, Status, Stdio, WindowSize,
};
use abax_runtime::network::{BridgeConfig, Mode};
use machine::{Machine, args, wait_for};
use oci_spec::image::ConfigBuilder;

const BOTH: [Isolation; 2] = [Isolation::Docker, Isolation::Unprivileged];

#[test]
fn a_program_s_exit_code_is_the_container_s() {
    let machine = Machine::new();
    for code in [0, 3, 255] {
        let outcome = machine.sh(&format!("exit {code}"), Options::default());
        assert_eq!(outcome.exit.status, ExitStatus::Exited(code), "{outcome:?}");
    }
    let options = Options { init: true, ..Options::default() };
    let outcome = machine.sh("kill -TERM $$; exit 7", options);
    assert_eq!(outcome.exit.exit_code(), 128 + libc::SIGTERM, "{outcome:?}");
}

#[test]
fn a_program_that_cannot_be_executed_is_126_and_one_that_is_not_there_127() {
    let machine = Machine::new();
    for (program, code) in
        [("/nowhere", 127), ("nowhere", 127), ("/etc/passwd", 126), ("/etc", 126)]
    {
        for init in [false, true] {
            let error = machine.run(Options { init, ..args(&[program]) }).unwrap_err();
            assert_eq!(error.exit_code(), code, "{program}: {error:?}");
            let matches = match &error {
                StartError::NotFound { program: named, .. } => code == 127 && named == program,
                StartError::NotExecutable { program: named, .. } => code == 126 && named == program,
                _ => false,
            };
            assert!(matches, "{error:?}");
        }
    }
}

#[test]
fn nothing_to_execute_is_refused() {
    let machine = Machine::new();
    let created = Container::create(
        &machine.runtime,
        &machine.launcher,
        &machine.image,
        Options::default(),
        Stdio::Null,
    );
    assert!(matches!(created, Err(CreateError::NoCommand)));
}

#[test]
fn the_image_s_settings_are_used_and_the_options_win() {
    let machine = Machine::new();
    let settings = ConfigBuilder::default()
        .env(vec!["FROM=image".to_owned(), "KEPT=yes".to_owned()])
        .entrypoint(vec!["sh".to_owned(), "-c".to_owned()])
        .cmd(vec![
            "echo $FROM $KEPT $HOME $HOSTNAME $(hostname) $(pwd) $(id -u) $(id -g)".to_owned(),
        ])
        .working_dir("/var/work")
        .user("app")
        .build()
        .unwrap();
    let image = machine.image_with(&settings, |_| {});
    let options = Options { hostname: Some("box".to_owned()), ..Options::default() };
    let outcome = machine.run_image(&image, options.clone()).unwrap();
    assert_eq!(
        outcome.stdout.trim(),
        "image yes /home/app box box /var/work 1000 1000",
        "{outcome:?}"
    );
    let options = Options {
        env: vec![("FROM".to_owned(), "options".to_owned())],
        working_directory: Some("/tmp".to_owned()),
        user: Some("nobody:wheel".to_owned()),
        ..options
    };
    let outcome = machine.run_image(&image, options).unwrap();
    assert_eq!(outcome.stdout.trim(), "options yes / box box /tmp 65534 10", "{outcome:?}");
}

#[test]
fn users_that_the_image_does_not_have_are_refused() {
    let machine = Machine::new();
    let error =
        machine.run(Options { user: Some("ghost".to_owned()), ..args(&["true"]) }).unwrap_err();
    assert!(matches!(error, StartError::Step { .. }), "{error:?}");
    let text = anyhow::Error::from(error);
    assert_eq!(format!("{text:#}"), "could not find user ghost: the image has no user \"ghost\"");
}

#[test]
fn supplementary_groups_are_the_image_s() {
    let machine = Machine::new();
    for isolation in BOTH {
        let options = Options { user: Some("app".to_owned()), isolation, ..args(&["id", "-G"]) };
        assert_eq!(machine.run(options).unwrap().stdout.trim(), "1000 10", "{isolation:?}");
        let options = Options { isolation, ..args(&["id", "-G"]) };
        assert_eq!(machine.run(options).unwrap().stdout.trim(), "0", "{isolation:?}");
    }
}

#[test]
fn a_container_sees_its_own_processes_only() {
    let machine = Machine::new();
    for isolation in BOTH {
        let outcome = machine
            .sh("echo $$; ls -d /proc/[0-9]* | wc -l", Options { isolation, ..Options::default() });
        assert_eq!(outcome.stdout.split_whitespace().next(), Some("1"), "{outcome:?}");
        let seen: u32 = outcome.stdout.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(seen <= 3, "{outcome:?}");
    }
}

#[test]
fn what_is_written_stays_in_the_container() {
    let machine = Machine::new();
    let outcome = machine.sh("echo x > /bin/new && cat /bin/new", Options::default());
    assert_eq!(outcome.stdout, "x\n");
    let outcome = machine.sh("test ! -e /bin/new", Options::default());
    assert_eq!(outcome.exit.exit_code(), 0);
}

#[test]
fn a_read_only_root_cannot_be_written_and_mounts_in_it_can() {
    let machine = Machine::new();
    for isolation in BOTH {
        let mounts = vec![Mount {
            source: MountSource::Tmpfs { size_bytes: Some(1 << 20) },
            target: "/scratch/deep".into(),
            read_only: false,
        }];
        let options = Options { read_only: true, isolation, mounts, ..Options::default() };
        let outcome =
            machine.sh("echo x > /scratch/deep/x; echo x > /dev/shm/x; echo x > /x", options);
        assert_eq!(outcome.exit.exit_code(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains("/x: Read-only file system"), "{outcome:?}");
        assert!(
            !outcome.stderr.contains("scratch") && !outcome.stderr.contains("shm"),
            "{outcome:?}"
        );
    }
}

#[test]
fn bind_mounts_show_the_host_s_files_and_stay_inside_whatever_the_image_links_to() {
    let machine = Machine::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "of the host").unwrap();
    let image = machine.image_with(&ConfigBuilder::default().build().unwrap(), |tar| {
        for (name, target) in [("absolute", "/var"), ("escaping", "../../../../../var")] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, name, target).unwrap();
        }
    });
    for target in ["/plain/new/directory", "/absolute/inside", "/escaping/inside"] {
        let mount = |read_only| Mount {
            source: MountSource::Bind(host.path().to_owned()),
            target: target.into(),
            read_only,
        };
        let before: BTreeSet<_> =
            fs::read_dir("/var").unwrap().map(|e| e.unwrap().file_name()).collect();
        let script = format!("cat {target}/file && echo written > {target}/written");
        let args = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let options = |read_only| Options {
            args: args.clone(),
            mounts: vec![mount(read_only)],
            ..Options::default()
        };
        let outcome = machine.run_image(&image, options(true)).unwrap();
        assert!(
            outcome.stdout == "of the host" && outcome.exit.exit_code() == 1,
            "{target}: {outcome:?}"
        );
        assert!(!host.path().join("written").exists(), "{target}");
        let outcome = machine.run_image(&image, options(false)).unwrap();
        assert_eq!(outcome.exit.exit_code(), 0, "{target}: {outcome:?}");
        fs::remove_file(host.path().join("written")).unwrap();
        let after: BTreeSet<_> =
            fs::read_dir("/var").unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(before, after, "{target}: nothing is made on the host");
    }
    // A single file, and a source that is not there.
    let mount = |source: &Path| Mount {
        source: MountSource::Bind(source.to_owned()),
        target: "/one/file".into(),
        read_only: true,
    };
    let options =
        Options { mounts: vec![mount(&host.path().join("file"))], ..args_of("cat /one/file") };
    assert_eq!(machine.run(options).unwrap().stdout, "of the host");
    let options = Options { mounts: vec![mount(Path::new("/no/such/path"))], ..args_of("true") };
    let created = Container::create(
        &machine.runtime,
        &machine.launcher,
        &machine.image,
        options,
        Stdio::Null,
    );
    assert!(matches!(created, Err(CreateError::BindSource { .. })));
    machine.assert_clean();
}

fn args_of(script: &str) -> Options {
    args(&["sh", "-c", script])
}

#[test]
fn mounts_of_a_container_never_show_on_the_host() {
    let machine = Machine::new();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let container = machine.start(args(&["sleep", "1000"]));
    let during = fs::read_to_string("/proc/self/mountinfo").unwrap();
    container.delete().unwrap();
    let of_ours = |text: &str| text.lines().filter(|l| l.contains(&machine.root_text())).count();
    assert_eq!((of_ours(&before), of_ours(&during)), (0, 0));
}

/// Lines of /proc/self/status, by name.
fn status_lines(text: &str) -> std::collections::BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn capabilities_are_docker_s_and_none_for_strangers() {
    let machine = Machine::new();
    let own = status_lines(&fs::read_to_string("/proc/self/status").unwrap());
    let own = u64::from_str_radix(&own["CapBnd"], 16).unwrap();
    let docker = format!("{:016x}", 0xa804_25fb & own);
    let none = "0".repeat(16);
    for (isolation, user, bounding, effective) in [
        (Isolation::Docker, "root", &docker, &docker),
        (Isolation::Docker, "app", &docker, &none),
        (Isolation::Unprivileged, "root", &none, &none),
        (Isolation::Unprivileged, "app", &none, &none),
    ] {
        let options = Options {
            isolation,
            user: Some(user.to_owned()),
            ..args(&["cat", "/proc/self/status"])
        };
        let outcome = machine.run(options).unwrap();
        let lines = status_lines(&outcome.stdout);
        let sets = ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|set| &lines[set]);
        assert_eq!(sets, [bounding, effective, effective, &none, &none], "{isolation:?} {user}");
        assert_eq!(lines["Seccomp"], "2", "{isolation:?} {user}: system calls are filtered");
        let no_new_privileges = u8::from(isolation == Isolation::Unprivileged).to_string();
        assert_eq!(lines["NoNewPrivs"], no_new_privileges, "{isolation:?} {user}");
    }
}

#[test]
fn namespaces_and_mounts_are_refused_by_the_filter_or_for_want_of_rights() {
    let machine = Machine::new();
    for isolation in BOTH {
        for script in [
            "unshare -m true",
            "unshare -U true",
            "mount -t tmpfs x /tmp",
            "mknod /tmp/x b 8 0 && cat /tmp/x",
        ] {
            let outcome = machine.sh(script, Options { isolation, ..Options::default() });
            assert_ne!(outcome.exit.exit_code(), 0, "{isolation:?}: {script}: {outcome:?}");
        }
    }
}

#[test]
fn secrets_of_the_kernel_are_hidden_and_its_settings_read_only() {
    let machine = Machine::new();
    for isolation in BOTH {
        let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do \
            test ! -e $f || stat -c '%t:%T' $f; done | sort -u; \
            ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep .; \
            for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
            (echo x > $f) 2>/dev/null && echo wrote $f; done; mkdir /sys/x 2>/dev/null && echo made; true";
        let outcome = machine.sh(script, Options { isolation, ..Options::default() });
        assert_eq!(outcome.stdout, "1:3\n", "{isolation:?}: {outcome:?}");
    }
}

#[test]
fn devices_are_docker_s_and_no_others_open() {
    let machine = Machine::new();
    for isolation in BOTH {
        let options = || Options { isolation, ..Options::default() };
        let outcome = machine.sh("ls /dev | tr '\\n' ' '", options());
        let expected =
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
        assert_eq!(outcome.stdout, expected, "{isolation:?}: {outcome:?}");
        let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && \
            (echo x > /dev/full) 2>&1 | grep -c 'No space'";
        assert_eq!(machine.sh(script, options()).stdout, "4\n4\n1\n", "{isolation:?}");
    }
    let outcome = machine.sh("mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg", Options::default());
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "the node is made but not opened: {outcome:?}"
    );
}

#[test]
fn only_standard_streams_are_open() {
    let machine = Machine::new();
    // One that is not close-on-exec, as a careless caller has it.
    let leaking = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).unwrap();
    for init in [false, true] {
        let outcome = machine.run(Options { init, ..args(&["ls", "/proc/self/fd"]) }).unwrap();
        // 3 is the directory that ls reads.
        assert_eq!(outcome.stdout, "0\n1\n2\n3\n");
    }
    let script = "for f in 0 1 2; do test -e /proc/1/fd/$f || exit 1; done; \
        for f in 3 4 5 6 7 8 9; do test ! -e /proc/1/fd/$f || exit 2; done";
    let options = Options { init: true, ..Options::default() };
    // The reaper is not dumpable: not even its descriptors are to be seen.
    assert_ne!(machine.sh(script, options).exit.exit_code(), 2);
}

#[test]
fn the_launcher_s_binary_cannot_be_written_through_a_process_cve_2019_5736() {
    let machine = Machine::new();
    let exe = format!("/proc/{}/exe", machine.launcher.pid());
    let error = fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    // Not only busy while it runs (ETXTBSY): read-only for good.
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert_ne!(
        fs::metadata(&exe).unwrap().dev(),
        fs::metadata(env!("CARGO_BIN_EXE_abax-launcher")).unwrap().dev()
    );
}

#[test]
fn a_working_directory_behind_a_descriptor_is_refused_cve_2024_21626() {
    let machine = Machine::new();
    for n in 0..30 {
        for directory in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/..")] {
            let options = Options { working_directory: Some(directory.clone()), ..args(&["pwd"]) };
            let result = machine.run(options);
            assert!(matches!(result, Err(StartError::Step { .. })), "{directory}: {result:?}");
        }
    }
}

#[test]
fn links_in_place_of_proc_sys_and_dev_lead_nowhere_cve_2019_19921_cve_2025_31133() {
    let machine = Machine::new();
    let image = machine.image_with(&ConfigBuilder::default().build().unwrap(), |tar| {
        for (name, target) in [
            ("proc", "/tmp"),
            ("sys", "/tmp"),
            ("dev/null", "/etc/passwd"),
            ("dev/console", "/etc/passwd"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, name, target).unwrap();
        }
    });
    for isolation in BOTH {
        let script = "test -d /proc/1 && test ! -e /tmp/1 && stat -c %t:%T /dev/null /proc/timer_list && head -c 5 /etc/passwd";
        let options = Options { isolation, ..args_of(script) };
        let outcome = machine.run_image(&image, options).unwrap();
        assert_eq!(outcome.stdout, "1:3\n1:3\nroot:", "{isolation:?}: {outcome:?}");
    }
}

#[test]
fn a_user_namespace_maps_root_to_nobody_of_the_host_and_shows_the_image_s_owners() {
    let machine = Machine::new();
    let options = Options {
        isolation: Isolation::Unprivileged,
        keep: true,
        ..args_of(
            "id -u; stat -c %u /bin/busybox /home/app; touch /made; ls -ln /made | cut -c1-10; exec sleep 1000",
        )
    };
    let (reader, writer) = std::io::pipe().unwrap();
    let null = || fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Fds { stdin: null().into(), stdout: writer.into(), stderr: null().into() };
    let container = machine.create(&machine.image, options, stdio);
    container.start().unwrap();
    let lines: Vec<_> = BufReader::new(reader).lines().take(4).map(Result::unwrap).collect();
    assert_eq!(lines, ["0", "0", "1000", "-rw-r--r--"]);
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert!(status.contains("Uid:\t1000000\t1000000\t1000000\t1000000"), "{status}");
    let made =
        machine.root.path().join("containers").join(container.id().as_str()).join("upper/made");
    assert_eq!(fs::metadata(made).unwrap().uid(), 1_000_000);
    container.delete().unwrap();
    machine.assert_clean();
}

#[test]
fn a_terminal_is_one_in_size_and_name_and_control() {
    let machine = Machine::new();
    for isolation in BOTH {
        let script = "test -t 0 && test -t 1 && test -t 2 && stty size && tty && test -c /dev/console && echo ok > /dev/tty";
        let size = Stdio::Terminal(WindowSize { rows: 37, columns: 91 });
        let options = Options { isolation, ..args_of(script) };
        let container = machine.create(&machine.image, options, size);
        let mut master =
            fs::File::from(container.terminal().unwrap().try_clone_to_owned().unwrap());
        container.start().unwrap();
        let exit = container.wait().unwrap();
        let mut output = Vec::new();
        // EIO ends what a terminal's program wrote.
        let _ = master.read_to_end(&mut output);
        let output = String::from_utf8(output).unwrap();
        assert_eq!(
            (output.as_str(), exit.exit_code()),
            ("37 91\r\n/dev/pts/0\r\nok\r\n", 0),
            "{isolation:?}"
        );
        container.delete().unwrap();
    }
}

#[test]
fn a_terminal_s_interrupt_reaches_the_program() {
    let machine = Machine::new();
    let options = Options {
        init: true,
        ..args_of("trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done")
    };
    let container = Container::create(
        &machine.runtime,
        &machine.launcher,
        &machine.image,
        options,
        Stdio::Terminal(WindowSize::default()),
    )
    .unwrap();
    container.start().unwrap();
    let mut master = fs::File::from(container.terminal().unwrap().try_clone_to_owned().unwrap());
    let mut line = String::new();
    BufReader::new(&master).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\r\n");
    master.write_all(b"\x03").unwrap();
    let exit = container.wait_timeout(Duration::from_secs(20)).unwrap().expect("the trap runs");
    assert_eq!(exit.exit_code(), 42);
}

#[test]
fn a_reaper_leaves_no_zombies_and_passes_signals_on() {
    let machine = Machine::new();
    let script = "(sleep 0.05 & exec true) ; i=0; while [ $i -lt 100 ]; do ps | grep -c '[Zz]ombie\\|\\[sleep\\]' | grep -q '^0$' && i=1000; i=$((i+1)); sleep 0.1; done; test $i -gt 999 && test $$ != 1";
    let outcome = machine.sh(script, Options { init: true, ..Options::default() });
    assert_eq!(outcome.exit.exit_code(), 0, "{outcome:?}");

    let container = machine.start(Options { init: true, ..args(&["sleep", "1000"]) });
    container.kill(rustix::process::Signal::TERM).unwrap();
    let exit =
        container.wait_timeout(Duration::from_secs(20)).unwrap().expect("sleep ends by the signal");
    assert_eq!(exit.exit_code(), 128 + libc::SIGTERM);
}

#[test]
fn waiting_has_a_bound_and_killing_ends_everything() {
    let machine = Machine::new();
    let container = machine.start(args_of("sleep 1000 & sleep 1000 & wait"));
    assert_eq!(container.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    let pids = Cgroup::open(&format!("abax/{}", container.id())).unwrap();
    wait_for("all three run", || pids.processes().unwrap().len() == 3);
    container.kill_all();
    let exit = container.wait().unwrap();
    assert_eq!(exit.status, ExitStatus::Signaled(libc::SIGKILL));
    assert!(!exit.out_of_memory);
    assert_eq!(container.wait().unwrap(), exit, "an exit is told as often as it is asked for");
    assert!(pids.processes().unwrap().is_empty());
    container.delete().unwrap();
    machine.assert_clean();
}

#[test]
fn a_program_is_asked_to_stop_by_its_signal_and_one_that_would_not_notice_is_told_apart() {
    let machine = Machine::new();
    let traps = |signal: &str| {
        format!("trap 'exit 43' {signal}; echo ready >/ready; while :; do sleep 0.05; done")
    };
    for (stop_signal, script, init, noticed) in [
        (None, traps("TERM"), false, true),
        (Some("SIGUSR1"), traps("USR1"), false, true),
        (Some("no signal"), traps("TERM"), false, true),
        (Some("SIGUSR2"), traps("TERM"), false, false),
        (None, format!("trap '' TERM; {}", traps("INT")), false, false),
        (None, traps("INT"), false, false),
        (Some("KILL"), traps("TERM"), false, false),
        // Whatever the program does with it: the reaper passes it on.
        (None, traps("INT"), true, true),
    ] {
        let stop_signal = stop_signal.map(str::to_owned);
        let container = machine.start(Options { init, stop_signal, ..args_of(&script) });
        let ready = format!("{}/containers/{}/upper/ready", machine.root_text(), container.id());
        wait_for("the trap is set", || Path::new(&ready).exists());
        let what = format!("{script} by {}", container.stop_signal());
        assert_eq!(container.ask_to_stop().unwrap(), noticed, "{what}");
        if container.stop_signal().to_string() == "SIGKILL" {
            // It needs no notice.
        } else if noticed {
            let exit = container.wait_timeout(Duration::from_secs(20)).unwrap().expect(&what);
            let code = if init { 128 + libc::SIGTERM } else { 43 };
            assert_eq!(exit.exit_code(), code, "{what}");
            assert!(container.ask_to_stop().unwrap(), "one that has ended is fine: {what}");
        } else {
            assert_eq!(container.wait_timeout(Duration::from_millis(20)).unwrap(), None, "{what}");
        }
        container.delete().unwrap();
    }
    machine.assert_clean();
}

#[test]
fn a_kept_container_s_record_and_files_stay_until_deleted_and_its_name_is_taken() {
    let machine = Machine::new();
    let root = machine.root.path();
    let options = || Options {
        keep: true,
        name: Some("ada".to_owned()),
        ..args_of("echo kept > /kept; exit 3")
    };
    let container = machine.create(&machine.image, options(), Stdio::Null);
    let id = container.id().clone();
    assert_eq!(Record::find(root, "ada").unwrap().status, Status::Created);
    container.start().unwrap();
    container.wait().unwrap();
    drop(container);
    let record = Record::find(root, id.short()).unwrap();
    assert_eq!((record.status, record.exit.unwrap().exit_code()), (Status::Stopped, 3));
    assert_eq!(
        fs::read(root.join("containers").join(id.as_str()).join("upper/kept")).unwrap(),
        b"kept\n"
    );
    assert!(record.pidfd().is_none());

    let again = Container::create(
        &machine.runtime,
        &machine.launcher,
        &machine.image,
        options(),
        Stdio::Null,
    );
    assert!(matches!(again, Err(CreateError::NameTaken { .. })), "{again:?}");
    machine.runtime.sweep().unwrap();
    assert!(Record::find(root, "ada").is_ok(), "a sweep leaves what is kept");
    container::remove(&machine.runtime, "ada", Running::Refuse).unwrap();
    assert!(Record::list(root).unwrap().is_empty());
    let again = machine.create(&machine.image, options(), Stdio::Null);
    again.delete().unwrap();
    machine.assert_clean();
}

#[test]
fn a_running_container_s_record_cannot_be_deleted_and_one_that_is_dropped_is_gone() {
    let machine = Machine::new();
    let root = machine.root.path();
    let container = machine.start(args(&["sleep", "1000"]));
    let record = Record::find(root, container.id().as_str()).unwrap();
    assert_eq!((record.status, record.pid), (Status::Running, container.pid()));
    assert!(record.pidfd().is_some());
    let refused = container::remove(&machine.runtime, container.id().as_str(), Running::Refuse);
    assert!(matches!(refused, Err(RemoveError::Running { .. })), "{refused:?}");
    machine.runtime.sweep().unwrap();
    assert_eq!(
        container.wait_timeout(Duration::ZERO).unwrap(),
        None,
        "a sweep leaves what is supervised"
    );
    drop(container);
    assert!(record.pidfd().is_none());
    machine.assert_clean();
}

#[test]
fn many_threads_launch_at_once() {
    let machine = Machine::new();
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            let machine = &machine;
            scope.spawn(move || {
                for _ in 0..10 {
                    let outcome =
                        machine.sh(&format!("echo {thread}; exit {thread}"), Options::default());
                    assert_eq!(outcome.stdout, format!("{thread}\n"));
                    assert_eq!(outcome.exit.exit_code(), i32::from(thread));
                }
            });
        }
    });
    machine.assert_clean();
}

#[test]
fn a_thousand_programs_that_end_at_once_all_end_and_leave_nothing_alone() {
    let machine = Machine::new();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let of_launcher =
        || fs::read_dir(format!("/proc/{}/fd", machine.launcher.pid())).unwrap().count();
    machine.run(args(&["true"])).unwrap();
    machine.assert_clean();
    let (ours, launcher_s) = (descriptors(), of_launcher());
    let start = Instant::now();
    for n in 0..1000 {
        let options = args(&["true"]);
        let container = machine.create(&machine.image, options, Stdio::Null);
        container.start().unwrap();
        let exit = container.wait_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(exit.map(|exit| exit.exit_code()), Some(0), "run {n}");
        container.delete().unwrap();
    }
    eprintln!("1000 runs of true: {:?} each", start.elapsed() / 1000);
    machine.assert_clean();
    assert_eq!(of_launcher(), launcher_s);
    // Other tests of this process come and go with a few; one per run would be a thousand.
    assert!(descriptors() < ours + 100, "{} descriptors, {ours} before", descriptors());
}

#[test]
fn when_its_caller_is_killed_a_container_dies_and_a_sweep_clears_the_rest() {
    let machine = Machine::new();
    // A second process as the caller: this test binary, running the one test below.
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_caller_that_waits_to_be_killed", "--ignored", "--nocapture"])
        .env("CALLER_ROOT", machine.root.path())
        .stdout(Pipes::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("container ")).unwrap();
    let id = line.split("container ").nth(1).unwrap().to_owned();
    let record = Record::find(machine.root.path(), &id).unwrap();
    assert!(record.pidfd().is_some());
    let namespace = fs::metadata(format!("/proc/{}/ns/net", record.pid)).unwrap().ino();

    caller.kill().unwrap();
    caller.wait().unwrap();
    wait_for("init dies with its caller", || record.pidfd().is_none());
    assert_eq!(Record::find(machine.root.path(), &id).unwrap().status, Status::Stopped);
    machine.runtime.sweep().unwrap();
    machine.runtime.empty_trash().unwrap();
    assert!(Cgroup::list("abax").unwrap().iter().all(|name| !name.ends_with(&id)));
    assert!(Record::list(machine.root.path()).unwrap().is_empty());
    wait_for("nobody is in its network", || {
        fs::read_dir("/proc").unwrap().flatten().all(|process| {
            fs::metadata(process.path().join("ns/net")).is_ok_and(|n| n.ino() != namespace)
                || fs::metadata(process.path().join("ns/net")).is_err()
        })
    });
    machine.assert_clean();
}

#[test]
#[ignore = "run by when_its_caller_is_killed_a_container_dies_and_a_sweep_clears_the_rest"]
fn as_a_caller_that_waits_to_be_killed() {
    let Some(root) = std::env::var_os("CALLER_ROOT") else { return };
    let runtime = Runtime::open(machine::config(Path::new(&root))).unwrap();
    let launcher = Launcher::start_with(Path::new(env!("CARGO_BIN_EXE_abax-launcher"))).unwrap();
    let image = machine::busybox(&runtime);
    let container = Container::create(
        &runtime,
        &launcher,
        &image,
        // A program that changed its user has lost the kernel's own death signal.
        Options { user: Some("app".to_owned()), ..args(&["sleep", "1000"]) },
        Stdio::Null,
    )
    .unwrap();
    container.start().unwrap();
    println!("\ncontainer {}", container.id());
    thread::sleep(Duration::from_secs(600));
}

#[test]
fn when_the_launcher_is_killed_its_containers_end_and_their_callers_hear_of_it() {
    let machine = Machine::new();
    let container = machine.start(args(&["sleep", "1000"]));
    let launcher =
        rustix::process::Pid::from_raw(i32::try_from(machine.launcher.pid()).unwrap()).unwrap();
    assert!(!machine.launcher.has_ended());
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
    let exit = container
        .wait_timeout(Duration::from_secs(20))
        .unwrap()
        .expect("it dies with the launcher");
    assert_eq!(exit.status, ExitStatus::Signaled(libc::SIGKILL));
    assert!(container.is_abandoned(), "nobody had killed it");
    assert!(machine.launcher.has_ended());
    container.delete().unwrap();
    let error = Container::create(
        &machine.runtime,
        &machine.launcher,
        &machine.image,
        args(&["true"]),
        Stdio::Null,
    );
    assert!(matches!(error, Err(CreateError::Launcher { .. })), "{error:?}");
    machine.runtime.sweep().unwrap();
    machine.runtime.empty_trash().unwrap();
    machine.assert_clean();
}

#[test]
fn a_container_that_is_created_and_never_started_leaves_nothing() {
    let machine = Machine::new();
    let container = machine.create(&machine.image, args(&["true"]), Stdio::Null);
    drop(container);
    machine.assert_clean();
}

#[test]
fn the_caller_s_umask_is_not_the_container_s() {
    if std::env::var_os("WITH_UMASK").is_none() {
        let test = "umask 077; exec \"$0\" --exact the_caller_s_umask_is_not_the_container_s";
        let output = Command::new("sh")
            .args(["-c", test])
            .arg(std::env::current_exe().unwrap())
            .env("WITH_UMASK", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let machine = Machine::new();
    for isolation in BOTH {
        let user = Some("app".to_owned());
        let options = Options { isolation, user, ..Options::default() };
        let script = "cat /etc/hosts /etc/hostname /etc/resolv.conf > /dev/null; echo $?; umask";
        let outcome = machine.sh(script, options);
        assert_eq!(outcome.stdout, "0\n0022\n", "{isolation:?}: {outcome:?}");
    }
}

#[test]
fn a_large_environment_arrives_whole() {
    let machine = Machine::new();
    let value = "x".repeat(120_000);
    let env = (0..4).map(|n| (format!("LARGE{n}"), value.clone())).collect();
    let outcome = machine.sh("echo ${#LARGE0} ${#LARGE3}", Options { env, ..Options::default() });
    assert_eq!(outcome.stdout, "120000 120000\n", "{}", outcome.stderr);
    // One that no kernel takes is an error, and not a hang.
    let env = vec![("LARGE".to_owned(), "x".repeat(200_000))];
    let error = machine.run(Options { env, ..args(&["true"]) }).unwrap_err();
    assert!(matches!(error, StartError::NotExecutable { .. }), "{error:?}");
}

#[test]
fn networks_are_none_the_host_s_or_a_bridge() {
    let machine = Machine::new();
    let script = "cat /proc/net/dev | tail -n +3 | sed 's/:.*//' | tr -d ' ' | sort | tr '\\n' ' '; ip -4 addr show lo | grep -c 127.0.0.1";
    for isolation in BOTH {
        let outcome = machine.sh(script, Options { isolation, ..Options::default() });
        assert_eq!(outcome.stdout, "lo 1\n", "{isolation:?}: {outcome:?}");
        let options = Options { isolation, network: Mode::Host, ..args(&["hostname"]) };
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(machine.run(options).unwrap().stdout, own, "{isolation:?}");
    }
    let settings = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let of_host = fs::read_to_string(settings).unwrap();
    for isolation in BOTH {
        let options = || Options { isolation, user: Some("app".to_owned()), ..Options::default() };
        let script = format!("cat {settings}; cut -f 1 /proc/sys/net/ipv4/ping_group_range");
        assert_eq!(machine.sh(&script, options()).stdout, "0\n0\n", "{isolation:?}");
        let options = Options { network: Mode::Host, ..options() };
        assert_eq!(machine.sh(&format!("cat {settings}"), options).stdout, of_host);
    }
    assert_eq!(fs::read_to_string(settings).unwrap(), of_host, "the host's own stays");
    let bridge = BridgeConfig {
        name: "abaxcont0".to_owned(),
        subnet: "10.201.144.0/24".parse().unwrap(),
        ..BridgeConfig::default()
    };
    let _bridge = machine::RemoveBridge("abaxcont0");
    for isolation in BOTH {
        let options =
            Options { isolation, network: Mode::Bridge(bridge.clone()), ..Options::default() };
        let outcome = machine.sh("ip -4 addr show eth0 | grep -o 10.201.144.[0-9]*/24; grep -c $(hostname) /etc/hosts; ping -c 1 -W 2 10.201.144.1 > /dev/null; echo $?", options);
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert!(
            lines[0].starts_with("10.201.144.") && lines[1] == "1",
            "{isolation:?}: {outcome:?}"
        );
    }
    let leases = machine.root.path().join("network/abaxcont0/leases");
    let left =
        fs::read_dir(leases).unwrap().filter(|e| e.as_ref().unwrap().path().is_symlink()).count();
    assert_eq!(left, 0, "addresses are given back");
}
