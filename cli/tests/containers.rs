//! `abax run`, `ps`, `rm` as a user runs them. Needs root.

mod machine;

use std::io::Write as _;
use std::process::Stdio;

use machine::{Machine, Ran};

#[test]
fn the_exit_code_is_the_commands_own() {
    let machine = Machine::with_busybox();
    for (arguments, code) in [
        (&["run", "--rm", "busybox", "true"][..], 0),
        (&["run", "--rm", "busybox", "sh", "-c", "exit 3"], 3),
        (&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"], 137),
        (&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -15 $$"], 143),
        (&["run", "--rm", "busybox", "no-such-command"], 127),
        (&["run", "--rm", "busybox", "/etc/passwd"], 126),
        (&["run", "--rm", "busybox", "/etc"], 126),
    ] {
        let ran = machine.abax(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
    }
    machine.assert_clean();
}

#[test]
fn options_reach_the_command() {
    let machine = Machine::with_busybox();
    std::fs::write(machine.path("env"), "# two\nFROM_FILE=yes\nBOTH=file\n").unwrap();
    let file = machine.path("env").display().to_string();
    for (arguments, printed) in [
        (&["run", "--rm", "-e", "A=1", "busybox", "sh", "-c", "echo $A"][..], "1"),
        (
            &[
                "run",
                "--rm",
                "--env-file",
                &file,
                "-e",
                "BOTH=flag",
                "busybox",
                "sh",
                "-c",
                "echo $FROM_FILE $BOTH",
            ],
            "yes flag",
        ),
        (&["run", "--rm", "-w", "/tmp/made/here", "busybox", "pwd"], "/tmp/made/here"),
        (&["run", "--rm", "-u", "app", "busybox", "id", "-u"], "1000"),
        (&["run", "--rm", "-u", "12:34", "busybox", "sh", "-c", "id -u; id -g"], "12\n34"),
        (&["run", "--rm", "--hostname", "there", "busybox", "hostname"], "there"),
        (
            &["run", "--rm", "--entrypoint", "echo", "busybox", "from", "entrypoint"],
            "from entrypoint",
        ),
        (&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"], "lo"),
        (
            &[
                "run",
                "--rm",
                "--read-only",
                "busybox",
                "sh",
                "-c",
                "touch /x 2>/dev/null || echo no",
            ],
            "no",
        ),
        (
            &[
                "run",
                "--rm",
                "--read-only",
                "--tmpfs",
                "/scratch:size=1m",
                "busybox",
                "sh",
                "-c",
                "touch /scratch/x && echo yes",
            ],
            "yes",
        ),
        (
            &["run", "--rm", "busybox", "sh", "-c", "echo $HOME $PATH"],
            "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
    ] {
        assert_eq!(machine.ok(arguments), printed, "{arguments:?}");
    }
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let machine = Machine::with_busybox();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Greets whoever comes, and hangs up.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"reached\n");
        }
    });
    let script = format!("nc -w 2 127.0.0.1 {port} </dev/null");
    assert_eq!(
        machine.ok(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", &script]),
        "reached"
    );
    let ran = machine.abax(&["run", "--rm", "busybox", "sh", "-c", &script]);
    assert_ne!(ran.stdout, "reached\n", "the bridge has a loopback of its own");
}

#[test]
fn volumes_are_shared_and_read_only_ones_are_not_written() {
    let machine = Machine::with_busybox();
    let data = machine.path("data");
    let volume = format!("{}:/data", data.display());
    machine.ok(&["run", "--rm", "-v", &volume, "busybox", "sh", "-c", "echo kept >/data/file"]);
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "kept\n");
    let read_only = format!("{volume}:ro");
    let ran = machine.abax(&["run", "--rm", "-v", &read_only, "busybox", "touch", "/data/x"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!data.join("x").exists());

    let mut command =
        machine.command(&["run", "--rm", "-v", "./data:/d:ro", "busybox", "cat", "/d/file"]);
    command.current_dir(machine.path(""));
    assert_eq!(Ran::of(&["-v ./data"], command.output().unwrap()).success(), "kept\n");
}

#[test]
fn input_is_passed_only_when_asked_for() {
    let machine = Machine::with_busybox();
    for (interactive, printed) in [(true, "typed"), (false, "")] {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(interactive.then_some("-i"));
        arguments.extend(["busybox", "cat"]);
        let mut child = machine
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"typed");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "-i: {interactive}");
    }
}

#[test]
fn a_signal_goes_to_the_container() {
    let machine = Machine::with_busybox();
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = machine
        .command(&["run", "--rm", "busybox", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\ncaught\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    machine.assert_clean();
}

#[test]
fn what_cannot_run_is_said_in_one_line() {
    let machine = Machine::with_busybox();
    for (arguments, words) in [
        (
            &["run", "--rm", "--pull", "never", "nothing-here", "true"][..],
            &["nothing-here", "--pull never"][..],
        ),
        (&["run", "--rm", "BAD IMAGE", "true"], &["BAD IMAGE"]),
        (&["run", "--rm", "--privileged", "busybox", "true"], &["--privileged"]),
        (&["run", "--rm", "-m", "lots", "busybox", "true"], &["lots", "512m"]),
        (&["run", "--rm", "-v", "name:/data", "busybox", "true"], &["name:/data"]),
        (&["run", "--rm", "-u", "nobody-here", "busybox", "true"], &["nobody-here"]),
        (&["run", "--rm", "--env-file", "/no/file", "busybox", "true"], &["/no/file"]),
    ] {
        machine.abax(arguments).fails(125, words);
    }
    machine.assert_clean();
}

#[test]
fn a_kept_container_is_listed_and_removed() {
    let machine = Machine::with_busybox();
    machine.ok(&["run", "--name", "kept", "busybox", "true"]);
    assert_eq!(machine.ok(&["ps", "-q"]), "");
    let listed = machine.ok(&["ps", "-a"]);
    assert!(listed.contains("kept") && listed.contains("Exited (0)"), "{listed}");
    let id = machine.ok(&["ps", "-aq"]);
    machine.abax(&["run", "--name", "kept", "busybox", "true"]).fails(125, &["kept"]);
    assert_eq!(machine.ok(&["rm", "kept"]), "kept");
    assert_eq!(machine.ok(&["ps", "-aq"]), "");
    machine.abax(&["rm", &id]).fails(1, &[&id]);
    machine.assert_clean();
}

/// The terminal is real: a size, a line discipline, and keys that become signals.
#[test]
fn a_terminal_is_given_and_ours_is_put_back() {
    let machine = Machine::with_busybox();
    let config = machine.path("abax.toml").display().to_string();
    let inner = format!(
        "stty rows 33 cols 99; stty -a >{0}/before; {1} --config {config} run --rm -it busybox \
         sh -c 'stty size; test -t 0 && echo is a terminal; exit 7'; echo code $?; stty -a >{0}/after",
        machine.path("").display(),
        env!("CARGO_BIN_EXE_abax"),
    );
    let output = std::process::Command::new("script")
        .args(["-qec", &inner, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script (bsdutils) gives the test a terminal");
    let text = String::from_utf8_lossy(&output.stdout);
    for words in ["33 99", "is a terminal", "code 7"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let modes = |name| std::fs::read_to_string(machine.path(name)).unwrap();
    assert_eq!(modes("before"), modes("after"));
    machine.assert_clean();
}

#[test]
fn a_wrong_command_line_ends_run_as_it_ends_docker_s() {
    let machine = Machine::new();
    for (arguments, code) in [
        (&["run"][..], 125),
        (&["run", "--no-such-flag", "busybox"], 125),
        (&["run", "--network", "nowhere", "busybox"], 125),
        (&["run", "--help"], 0),
        (&["images", "--no-such-flag"], 2),
    ] {
        let ran = machine.abax(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn a_ca_bundle_without_a_certificate_is_refused() {
    let machine = Machine::with_busybox();
    for bundle in ["/tmp", "/etc/passwd", "/no/such/file"] {
        machine
            .abax(&["--ca-bundle", bundle, "run", "--rm", "busybox", "true"])
            .fails(125, &["CA bundle", bundle]);
    }
    machine.assert_clean();
}

#[test]
fn what_an_interrupted_build_left_is_gone_when_somebody_looks() {
    let machine = Machine::with_busybox();
    let context = machine.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN sleep 1000\n").unwrap();
    let mut build = machine
        .command(&["build", "-t", "slow", "--network", "none", context.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    machine::eventually("the build runs", || !machine.containers().is_empty());
    build.kill().unwrap();
    build.wait().unwrap();
    machine::eventually("its container is gone", || {
        machine.ok(&["ps", "-a", "-q"]).is_empty() && machine.containers().is_empty()
    });
    machine.assert_clean();
}
