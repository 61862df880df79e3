use std::net::TcpListener;

use anyhow::{Context as _, Result};

/// Free ports of the loopback address, below those that the kernel gives to
/// connections: a port is kept over a restart of its server, and a client that
/// tries again and again must not end up connected to itself there.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut listeners = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = (0..1_000)
            .find_map(|_| TcpListener::bind(("127.0.0.1", random_port())).ok())
            .context("there is no free port")?;
        *port = listener.local_addr()?.port();
        // Open until the last is found, so that no two are the same.
        listeners.push(listener);
    }
    Ok(ports)
}

fn random_port() -> u16 {
    let [high, low] = random();
    10_000 + u16::from_be_bytes([high, low]) % 22_000
}

/// A name that no other test has.
pub(crate) fn unique_name() -> String {
    format!("t{}", hex::encode(random::<8>()))
}

fn random<const N: usize>() -> [u8; N] {
    use std::io::Read as _;
    let mut bytes = [0; N];
    let source = std::fs::File::open("/dev/urandom");
    source.and_then(|mut source| source.read_exact(&mut bytes)).expect("Linux has /dev/urandom");
    bytes
}
