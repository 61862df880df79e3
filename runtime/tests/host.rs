//! What containers get of the caller and of the host: files, sockets, a user, devices. Needs root.

mod machine;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use abax_runtime::container::{
    Container, Content, HostUser, Isolation, Mount, MountSource, Options, Provision, Stdio,
};
use machine::{Machine, args};

const ALL: [Isolation; 3] = [Isolation::Docker, Isolation::Unprivileged, Isolation::Privileged];

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount { source: MountSource::Bind(source.to_owned()), target: target.into(), read_only }
}

/// Not a test: what a container of the next one runs, since busybox has no sender of datagrams.
#[test]
#[ignore = "runs inside of a container"]
fn sender() {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect("/_results.sock").unwrap();
    for result in [&b"one"[..], &vec![0xa5; 131_072], b""] {
        socket.send(result).unwrap();
    }
    // More than a socket's buffer holds is refused whole.
    assert!(socket.send(&vec![0; 64 << 20]).is_err());
}

#[test]
fn anybody_in_a_container_sends_datagrams_to_a_socket_of_ours() {
    let machine = Machine::new();
    let program = std::env::current_exe().unwrap();
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
    for (isolation, user) in
        ALL.iter().flat_map(|isolation| [(isolation, "0"), (isolation, "1234:5")])
    {
        let socket = Arc::new(UnixDatagram::unbound().unwrap());
        let mut mounts = vec![bind(&program, "/sender", true)];
        let there = libraries.iter().filter(|path| Path::new(path).exists());
        mounts.extend(there.map(|path| bind(Path::new(path), path, true)));
        let options = Options {
            isolation: *isolation,
            user: Some(user.to_owned()),
            mounts,
            provisions: vec![Provision {
                target: "/_results.sock".into(),
                content: Content::Datagrams(Arc::clone(&socket)),
            }],
            ..args(&["/sender", "--ignored", "--exact", "sender"])
        };
        let outcome = machine.run(options).unwrap();
        assert_eq!(outcome.exit.exit_code(), 0, "{isolation:?} {user}: {outcome:?}");
        socket.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let lengths: Vec<_> = (0..4).map_while(|_| socket.recv(&mut buffer).ok()).collect();
        assert_eq!(lengths, [3, 131_072, 0], "{isolation:?} {user}");
    }
    machine.assert_clean();
}

#[test]
fn a_file_of_ours_is_regular_read_only_and_ends() {
    let machine = Machine::new();
    let bytes: Arc<[u8]> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (isolation, user) in
        ALL.iter().flat_map(|isolation| [(isolation, "0"), (isolation, "1234:5")])
    {
        let script = "f=/given/deep/data; test -f $f && cat $f | wc -c && stat -c %a $f; \
                      (echo x >$f) 2>/dev/null && echo wrote; rm $f 2>/dev/null && echo removed; true";
        let options = Options {
            isolation: *isolation,
            user: Some(user.to_owned()),
            provisions: vec![Provision {
                target: "/given/deep/data".into(),
                content: Content::File(Arc::clone(&bytes)),
            }],
            ..Options::default()
        };
        let outcome = machine.sh(script, options);
        assert_eq!(outcome.stdout, "5000000\n444\n", "{isolation:?} {user}: {outcome:?}");
    }
    machine.assert_clean();
}

#[test]
fn one_user_of_the_host_is_itself_in_an_unprivileged_container() {
    let machine = Machine::new();
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (uid, gid) in [(1_000, 1_000), (70_000, 80_000)] {
        let home = shared.path().join(uid.to_string());
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&home, Some(uid), Some(gid)).unwrap();
        let options = Options {
            isolation: Isolation::Unprivileged,
            user: Some(format!("{uid}:{gid}")),
            host_user: Some(HostUser::new(uid, gid).unwrap()),
            mounts: vec![bind(&home, "/home/it", false), bind(&home, "/mnt", true)],
            ..Options::default()
        };
        let script = "id -u; id -g; cat /proc/self/status | grep -c '^CapEff.*0000000000000000'; \
                      echo made >/home/it/file && cat /mnt/file; \
                      (echo x >/mnt/file) 2>/dev/null && echo wrote; \
                      touch /root/x 2>/dev/null && echo is root; touch /tmp/x && rm /tmp/x; true";
        let outcome = machine.sh(script, options);
        assert_eq!(outcome.stdout, format!("{uid}\n{gid}\n1\nmade\n"), "{outcome:?}");
        let made = fs::metadata(home.join("file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (uid, gid));
    }
    for (uid, gid) in [(0, 1), (1, 0), (1_000_000, 1), (1, 1_065_535), (u32::MAX, 1)] {
        assert!(HostUser::new(uid, gid).is_err(), "{uid}:{gid}");
    }
    machine.assert_clean();
}

#[test]
fn a_privileged_container_has_all_that_the_host_may() {
    let machine = Machine::new();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| own.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let options = || Options { isolation: Isolation::Privileged, ..Options::default() };
    let outcome =
        machine.sh("grep -E '^(CapBnd|Seccomp:|NoNewPrivs)' /proc/self/status", options());
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert!(lines.contains(&&*line("CapBnd")), "{outcome:?}\n{own}");
    assert!(lines.contains(&"NoNewPrivs:\t0"), "{outcome:?}");
    // Unless we are filtered ourselves.
    assert!(lines.contains(&&*line("Seccomp:")), "{outcome:?}\n{own}");
    let script = "mkdir /x && mount -t tmpfs x /x && touch /x/x && echo mounted; \
                  test -c /dev/null && test -c /dev/tty && ls /dev | wc -l";
    let outcome = machine.sh(script, options());
    let (mounted, devices) = outcome.stdout.split_once('\n').unwrap_or_default();
    assert_eq!(mounted, "mounted", "{outcome:?}");
    assert!(devices.trim().parse::<usize>().unwrap() >= 15, "{outcome:?}");
    machine.assert_clean();
}

/// A link that a container may have left in the place of a directory.
#[test]
fn what_may_have_been_replaced_by_a_link_is_mounted_only_where_it_is_none() {
    let machine = Machine::new();
    let host = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(host.path()).unwrap();
    fs::create_dir_all(root.join("own/data")).unwrap();
    fs::write(root.join("own/data/file"), "own").unwrap();
    fs::create_dir(root.join("others")).unwrap();
    fs::write(root.join("others/file"), "others").unwrap();
    for (link, to) in [("data-link", "../others"), ("root-link", "/"), ("file-link", "data/file")] {
        std::os::unix::fs::symlink(to, root.join("own").join(link)).unwrap();
    }
    let mounted = |source: MountSource| Options {
        mounts: vec![Mount { source, target: "/seen".into(), read_only: false }],
        ..args(&["test", "-e", "/seen"])
    };
    for path in ["own/data-link", "own/root-link", "own/file-link", "own/data-link/file"] {
        let options = mounted(MountSource::BindWithoutLinks(root.join(path)));
        let Machine { runtime, launcher, image, .. } = &machine;
        let refused = Container::create(runtime, launcher, image, options, Stdio::Null);
        let error = format!("{:?}", refused.unwrap_err());
        assert!(error.contains("symbolic link"), "{path}: {error}");
        let followed = machine.run(mounted(MountSource::Bind(root.join(path)))).unwrap();
        assert_eq!(followed.exit.exit_code(), 0, "{path}: who says so has it followed");
    }
    for path in ["own/data", "own/data/file", "own/../own/data"] {
        let outcome = machine.run(mounted(MountSource::BindWithoutLinks(root.join(path)))).unwrap();
        assert_eq!(outcome.exit.exit_code(), 0, "{path}: {outcome:?}");
    }
    machine.assert_clean();
}
