//! Bridges and containers' networks against the kernel. Needs root, `ip` and `nft` (and iptables
//! for those tests that name it).
//!
//! Every test moves its thread into a network namespace of its own, which plays the host; so the
//! machine's network stays as it is, and all that a test made goes with its thread.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use abax_runtime::network::{Attachment, Bridge, BridgeConfig, NetworkError};
use nix::sched::{CloneFlags, setns, unshare};

fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Moves this thread into a fresh namespace that plays the host, with a directory for its state.
fn become_host() -> tempfile::TempDir {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    run("ip link set lo up");
    tempfile::tempdir().unwrap()
}

fn new_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
    })
    .join()
    .unwrap()
}

/// Runs something in a namespace, in a thread of its own.
fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// A namespace beyond the host: 203.0.113.2, also known as 169.254.169.254; the host is 203.0.113.1.
fn outside() -> OwnedFd {
    let namespace = new_namespace();
    let path =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&namespace));
    run(&format!(
        "ip link add out0 type veth peer name in0 && ip addr add 203.0.113.1/24 dev out0 && ip link set out0 up && \
         exec 9< {path} && ip link set in0 netns /proc/self/fd/9 && ip route add default via 203.0.113.2"
    ));
    inside(&namespace, || {
        run(
            "ip link set lo up; ip addr add 203.0.113.2/24 dev in0; ip addr add 169.254.169.254/32 dev in0; ip link set in0 up",
        );
    });
    namespace
}

fn config(subnet: &str) -> BridgeConfig {
    BridgeConfig {
        name: "abaxt0".into(),
        subnet: subnet.parse().unwrap(),
        ..BridgeConfig::default()
    }
}

fn attach(bridge: &Bridge, id: &str) -> (OwnedFd, Attachment) {
    let namespace = new_namespace();
    let attachment = bridge.attach(id, namespace.as_fd()).unwrap_or_else(|e| panic!("{id}: {e:?}"));
    (namespace, attachment)
}

/// A server in this thread's namespace that tells each client its address.
fn listen(address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = write!(stream, "{}", stream.peer_addr().unwrap().ip());
        }
    });
    bound
}

/// What the server at `address` says to a client in `namespace`.
fn ask(namespace: &OwnedFd, address: impl Into<SocketAddr> + Send) -> Result<String, ErrorKind> {
    ask_within(Duration::from_secs(5), namespace, address)
}

/// Whether nothing at all comes back from `address`, not even a refusal.
fn is_cut_off(namespace: &OwnedFd, address: impl Into<SocketAddr> + Send) -> bool {
    let answer = ask_within(Duration::from_millis(500), namespace, address);
    !matches!(answer, Ok(_) | Err(ErrorKind::ConnectionRefused))
}

fn ask_within(
    patience: Duration,
    namespace: &OwnedFd,
    address: impl Into<SocketAddr> + Send,
) -> Result<String, ErrorKind> {
    let address = address.into();
    inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&address, patience).map_err(|e| e.kind())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|e| e.kind())?;
        Ok(text)
    })
}

#[test]
fn containers_reach_each_other_and_the_host() {
    let root = become_host();
    let bridge = Bridge::prepare(root.path(), &config("10.81.0.0/24")).unwrap();
    let (one, first) = attach(&bridge, "one");
    let (two, second) = attach(&bridge, "two");
    assert_ne!(first.address, second.address);
    let host = listen(Ipv4Addr::UNSPECIFIED);
    assert_eq!(ask(&one, (first.gateway, host.port())), Ok(first.address.to_string()));
    let server = inside(&two, || listen(Ipv4Addr::UNSPECIFIED));
    assert_eq!(ask(&one, (second.address, server.port())), Ok(first.address.to_string()));
    let own = inside(&one, || listen(Ipv4Addr::LOCALHOST));
    assert_eq!(ask(&one, own), Ok("127.0.0.1".into()), "its loopback is up");
}

#[test]
fn containers_reach_the_outside_under_the_hosts_address() {
    let root = become_host();
    let outside = outside();
    let server = inside(&outside, || listen(Ipv4Addr::UNSPECIFIED));
    for (subnet, isolated) in [("10.82.0.0/24", false), ("10.83.0.0/24", true)] {
        let name = format!("abaxt{}", u8::from(isolated));
        let config = BridgeConfig { isolated, name, ..config(subnet) };
        let bridge = Bridge::prepare(root.path(), &config).unwrap();
        let (container, _) = attach(&bridge, "one");
        let answer = ask(&container, (Ipv4Addr::new(203, 0, 113, 2), server.port()));
        assert_eq!(answer, Ok("203.0.113.1".into()), "isolated: {isolated}");
    }
}

#[test]
fn isolated_containers_reach_neither_each_other_nor_the_host() {
    let root = become_host();
    let outside = outside();
    let far = inside(&outside, || listen(Ipv4Addr::UNSPECIFIED));
    let (allowed, refused) = (listen(Ipv4Addr::LOCALHOST), listen(Ipv4Addr::LOCALHOST));
    let everywhere = listen(Ipv4Addr::UNSPECIFIED);
    let config =
        BridgeConfig { isolated: true, host_ports: vec![allowed.port()], ..config("10.84.0.0/24") };
    let bridge = Bridge::prepare(root.path(), &config).unwrap();
    let (one, first) = attach(&bridge, "one");
    let (two, second) = attach(&bridge, "two");
    let server = inside(&two, || listen(Ipv4Addr::UNSPECIFIED));
    let metadata = Ipv4Addr::new(169, 254, 169, 254);

    assert_eq!(
        ask(&one, (first.gateway, allowed.port())),
        Ok(first.address.to_string()),
        "its one port"
    );
    for (what, address) in [
        ("another loopback port", SocketAddr::from((first.gateway, refused.port()))),
        ("the bridge's address", SocketAddr::from((first.gateway, everywhere.port()))),
        ("the host's outer address", SocketAddr::from(([203, 0, 113, 1], everywhere.port()))),
        ("another container", SocketAddr::from((second.address, server.port()))),
        ("the machine's metadata", SocketAddr::from((metadata, far.port()))),
    ] {
        assert!(is_cut_off(&one, address), "{what}");
    }
    // A route of its own towards the host's loopback must lead nowhere.
    inside(&one, || {
        run(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route flush table local 127.0.0.0/8; true",
        );
        run(&format!(
            "ip route add 127.0.0.0/8 via {} dev eth0 src {} || true",
            first.gateway, first.address
        ));
    });
    assert!(is_cut_off(&one, refused), "the host's loopback by a route");
    assert!(is_cut_off(&outside, (first.address, 80)), "nobody reaches in");
}

#[test]
fn a_hosts_port_is_reached_on_an_open_bridge_as_well() {
    let root = become_host();
    let server = listen(Ipv4Addr::LOCALHOST);
    let config = BridgeConfig { host_ports: vec![server.port()], ..config("10.85.0.0/24") };
    let bridge = Bridge::prepare(root.path(), &config).unwrap();
    let (one, first) = attach(&bridge, "one");
    assert_eq!(ask(&one, (first.gateway, server.port())), Ok(first.address.to_string()));
}

#[test]
fn preparing_at_once_and_again_makes_one_bridge() {
    let root = become_host();
    let config = config("10.86.0.0/24");
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| Bridge::prepare(root.path(), &config).unwrap()))
            .collect();
        let bridges: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        let addresses: std::collections::BTreeSet<_> = bridges
            .iter()
            .enumerate()
            .map(|(at, bridge)| attach(bridge, &format!("c{at}")).1.address)
            .collect();
        assert_eq!(addresses.len(), 6, "they share their leases");
    });
    let started = Instant::now();
    Bridge::prepare(root.path(), &config).unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(50),
        "no process is needed: {:?}",
        started.elapsed()
    );
}

#[test]
fn settings_that_change_take_effect() {
    let root = become_host();
    let server = listen(Ipv4Addr::UNSPECIFIED);
    let open = config("10.87.0.0/24");
    let bridge = Bridge::prepare(root.path(), &open).unwrap();
    let (one, first) = attach(&bridge, "one");
    assert!(ask(&one, (first.gateway, server.port())).is_ok());
    let isolated = Bridge::prepare(root.path(), &BridgeConfig { isolated: true, ..open }).unwrap();
    let (two, second) = attach(&isolated, "two");
    assert!(is_cut_off(&two, (second.gateway, server.port())));
}

#[test]
fn rules_that_somebody_flushed_are_back_before_the_next_container() {
    let root = become_host();
    let server = listen(Ipv4Addr::UNSPECIFIED);
    let config = BridgeConfig { isolated: true, ..config("10.88.0.0/24") };
    let bridge = Bridge::prepare(root.path(), &config).unwrap();
    run("nft flush ruleset");
    let (one, first) = attach(&bridge, "one");
    assert!(is_cut_off(&one, (first.gateway, server.port())), "isolated again");
    run("ip link delete abaxt0");
    let (two, second) = attach(&bridge, "two");
    assert!(is_cut_off(&two, (second.gateway, server.port())));
    assert_ne!(first.address, second.address);
}

#[test]
fn what_a_killed_process_left_is_no_obstacle() {
    let root = become_host();
    let config = config("10.89.0.0/29");
    let left: Vec<_> = {
        let bridge = Bridge::prepare(root.path(), &config).unwrap();
        ["a", "b", "c", "d", "e"].map(|id| attach(&bridge, id).0).into_iter().collect()
    };
    let bridge = Bridge::prepare(root.path(), &config).unwrap();
    let error = bridge.attach("f", new_namespace().as_fd()).unwrap_err();
    assert!(matches!(error, NetworkError::Exhausted { .. }), "{error}");
    bridge.sweep(|id| id == "b").unwrap();
    // The same container once more, its old port still there.
    let (again, attachment) = attach(&bridge, "a");
    let server = listen(Ipv4Addr::UNSPECIFIED);
    assert!(ask(&again, (attachment.gateway, server.port())).is_ok());
    bridge.release("a").unwrap();
    bridge.release("never there").unwrap();
    drop(left);
}

#[test]
fn a_failed_attach_gives_its_address_back() {
    let root = become_host();
    let bridge = Bridge::prepare(root.path(), &config("10.90.0.0/30")).unwrap();
    let not_a_namespace = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for _ in 0..3 {
        let error = bridge.attach("bad", not_a_namespace.as_fd()).unwrap_err();
        assert!(matches!(error, NetworkError::Attach { .. }), "{error}");
    }
    attach(&bridge, "good");
}

#[test]
fn a_subnet_or_a_name_in_use_is_an_error_that_says_so() {
    let root = become_host();
    run(
        "ip link add busy0 type veth peer name busy1 && ip addr add 10.91.3.1/24 dev busy0 && ip link set busy0 up",
    );
    let error = Bridge::prepare(root.path(), &config("10.91.0.0/16")).unwrap_err();
    assert!(error.to_string().contains("busy0") && error.to_string().contains("subnet"), "{error}");
    let named = BridgeConfig { name: "busy0".into(), ..config("10.92.0.0/24") };
    let error = Bridge::prepare(root.path(), &named).unwrap_err();
    assert!(matches!(error, NetworkError::NotABridge { .. }), "{error}");
}

#[test]
fn a_firewall_that_drops_forwarded_packets_lets_containers_through() {
    let root = become_host();
    // As a Docker daemon leaves it.
    run("iptables -P FORWARD DROP && iptables -P INPUT DROP && iptables -A INPUT -i lo -j ACCEPT");
    let outside = outside();
    let far = inside(&outside, || listen(Ipv4Addr::UNSPECIFIED));
    let near = listen(Ipv4Addr::LOCALHOST);
    let config = BridgeConfig { host_ports: vec![near.port()], ..config("10.93.0.0/24") };
    let bridge = Bridge::prepare(root.path(), &config).unwrap();
    let (one, first) = attach(&bridge, "one");
    assert!(ask(&one, (Ipv4Addr::new(203, 0, 113, 2), far.port())).is_ok());
    assert!(ask(&one, (first.gateway, near.port())).is_ok());
}

#[test]
fn the_first_packet_of_a_container_is_not_lost() {
    let root = become_host();
    let bridge = Bridge::prepare(root.path(), &config("10.97.0.0/24")).unwrap();
    let server = listen(Ipv4Addr::UNSPECIFIED);
    let mut slow = 0;
    for number in 0..40 {
        let namespace = new_namespace();
        let attachment = bridge.attach(&number.to_string(), namespace.as_fd()).unwrap();
        let started = Instant::now();
        ask(&namespace, (attachment.gateway, server.port())).unwrap();
        // A lost packet costs a second.
        slow += u32::from(started.elapsed() > Duration::from_millis(900));
    }
    assert!(slow <= 1, "{slow} of 40 first packets were lost");
}

/// Runs tests of this file again where only some tools are found.
fn with_tools_only(tools: &[&str], tests: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    for tool in tools {
        let found =
            ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|place| Path::new(place).join(tool));
        let found =
            found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("needs {tool}"));
        std::os::unix::fs::symlink(found, directory.path().join(tool)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--include-ignored", "--test-threads=1"])
        .args(tests)
        .env("PATH", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn iptables_alone_is_enough() {
    let tests = [
        "isolated_containers_reach_neither_each_other_nor_the_host",
        "containers_reach_the_outside_under_the_hosts_address",
        "a_hosts_port_is_reached_on_an_open_bridge_as_well",
    ];
    let (passed, text) = with_tools_only(&["sh", "ip", "iptables"], &tests);
    assert!(passed && text.contains("3 passed"), "{text}");
}

#[test]
fn without_any_firewall_tool_the_package_is_named() {
    let (passed, text) = with_tools_only(&["sh", "ip"], &["refuses_without_tools"]);
    assert!(passed && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by without_any_firewall_tool_the_package_is_named"]
fn refuses_without_tools() {
    let root = become_host();
    let error = Bridge::prepare(root.path(), &config("10.94.0.0/24")).unwrap_err();
    assert!(error.to_string().contains("install the package nftables"), "{error}");
}

/// Not a promise but a measure: `cargo nextest run --run-ignored only measure --no-capture`.
#[test]
#[ignore = "prints how long the kernel takes"]
fn measure() {
    let root = become_host();
    for isolated in [false, true] {
        let name = format!("abaxt{}", u8::from(isolated));
        let subnet = if isolated { "10.95.0.0/16" } else { "10.96.0.0/16" };
        let config = BridgeConfig { isolated, name, ..config(subnet) };
        let start = Instant::now();
        Bridge::prepare(root.path(), &config).unwrap();
        let first = start.elapsed();
        let start = Instant::now();
        let bridge = Bridge::prepare(root.path(), &config).unwrap();
        let again = start.elapsed();
        let (mut attached, mut released) = (Vec::new(), Vec::new());
        for number in 0..100 {
            let namespace = new_namespace();
            let id = format!("{number:064x}");
            let start = Instant::now();
            bridge.attach(&id, namespace.as_fd()).unwrap();
            attached.push(start.elapsed());
            drop(namespace);
            let start = Instant::now();
            bridge.release(&id).unwrap();
            released.push(start.elapsed());
        }
        attached.sort_unstable();
        released.sort_unstable();
        println!(
            "isolated {isolated}: prepare first {first:?}, again {again:?}; attach median {:?}, p90 {:?}; release median {:?}",
            attached[50], attached[90], released[50]
        );
    }
}
