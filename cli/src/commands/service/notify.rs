//! What systemd is told: sd_notify(3), one datagram each.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::debug;

/// The process has started, and needs nobody to start it again.
pub(super) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// What the service is doing, for `systemctl status`.
pub(super) fn status(status: &str) {
    tell(&format!("STATUS={status}"));
}

/// The service ends when it is done.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=waiting for what runs");
}

/// Nobody listens outside of systemd; what cannot be told changes nothing.
fn tell(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(text.replace('\0', " ").as_bytes(), &address)
    });
    if let Err(error) = told {
        debug!(error = %error, "could not tell systemd");
    }
}
