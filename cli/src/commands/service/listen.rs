//! The listening socket, and what is said once it listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::config::Settings;
use crate::output;

/// Takes the address, which `flag` can change.
///
/// # Errors
///
/// It is taken, not ours, or not for this user.
pub(super) fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is taken by another process; stop that, or choose another address with {flag}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine; choose another with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{address} may not be used by this user; choose a port above 1023 with {flag}")
        }
        _ => anyhow::Error::new(error).context(format!("could not listen on {address}")),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("could not listen on {address}"))?;
    Ok(listener)
}

/// The socket for the I/O loop that runs now.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn of_tokio(listener: TcpListener) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener).context("could not hand over the listening socket")
}

/// Says where the service is, and what to type next.
///
/// # Errors
///
/// Standard output cannot be written to.
pub(super) fn announce(settings: &Settings, address: SocketAddr) -> anyhow::Result<()> {
    let reachable = match address.ip() {
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
        }
        _ => address,
    };
    let server = if reachable.port() == 8000 {
        String::new()
    } else {
        format!("  export ABAX_SERVER=http://{reachable}\n")
    };
    output::raw(
        format!(
            "Abax {} listens on http://{reachable}\n\
             Next, in another terminal:\n  export TOKEN=$(abax token{})\n{server}  \
             abax actor create --name hello IMAGE\n  \
             abax actor send hello 'a message' --wait\n",
            env!("CARGO_PKG_VERSION"),
            token_flags(settings),
        )
        .as_bytes(),
    )?;
    Ok(())
}

/// How `abax token` finds the key that we use.
fn token_flags(settings: &Settings) -> String {
    if let Some(key) = &settings.api.signing_key_file {
        return format!(" --signing-key {}", absolute(key).display());
    }
    match settings.named_data() {
        Some(data) => format!(" --data {}", absolute(data).display()),
        None if settings.root != Path::new("/var/lib/abax") => {
            format!(" --root {}", settings.root.display())
        }
        None => String::new(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
