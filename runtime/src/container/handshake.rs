//! The messages between the caller, the launcher and a container's init, and the sockets that carry them.
//!
//! ```text
//! caller ── Request ──► launcher            one socket, shared by all threads of the caller
//! caller ◄── Status ─── launcher            one per container: launched, then ended
//! caller ◄── FromInit ── init               one per container: a terminal, a failed step;
//! caller ─── Go ──────► init                its end without a failure is a successful execve
//! ```

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a caller asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a container.
    Launch(Box<Launch>),
    /// Delete a directory tree, when there is time.
    Remove(PathBuf),
}

/// One container to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) spec: Spec,
    pub(super) root: RootFileSystem,
    /// The user as the image or the caller names it; looked up inside the root file system.
    pub(super) user: String,
    /// Seccomp programs, in the order in which they are installed.
    pub(super) seccomp: Vec<Vec<u64>>,
    /// True: pid 1 is a reaper of ours, and the program its child.
    pub(super) init: bool,
    /// What the descriptors that come with the request are, in their order.
    pub(super) descriptors: Vec<Role>,
}

/// The directories of the root file system, all on the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RootFileSystem {
    /// Any directory of ours; the root is attached there on its way to `/`.
    pub(super) mount_point: PathBuf,
    /// Top first.
    pub(super) lower: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    /// True: a crash may lose writes, so nothing is synced.
    pub(super) volatile: bool,
    /// The directory of all layers, the prefix of every `lower`.
    pub(super) layers: PathBuf,
    /// An empty directory where the launcher may keep mounts of its own.
    pub(super) private: PathBuf,
}

/// What a descriptor of a launch request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// The launcher's end of the status socket.
    Status,
    /// Init's end of the handshake socket.
    Handshake,
    /// The cgroup v2 directory to be born in.
    Cgroup,
    Stdin,
    Stdout,
    Stderr,
    /// The detached mount of `spec.mounts[i]`.
    Mount(usize),
}

/// What the launcher says of one container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Status {
    /// With the pidfd.
    Launched { pid: i32 },
    /// Nothing was started.
    Failed(Failure),
    /// Init ended; its pid namespace is empty.
    Ended { code: Option<i32>, signal: Option<i32> },
}

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// With the master side of the container's terminal.
    Terminal,
    /// A step failed and init ended.
    Failed(Failure),
}

/// What init waits for last before it becomes the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go;

/// A step that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
    /// What the errno does not say.
    pub(super) detail: Option<String>,
}

impl Failure {
    pub(super) fn new(step: Step, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { step, errno, detail: None },
            None => Self { step, errno: 0, detail: Some(error.to_string()) },
        }
    }

    /// The cause, as an error again.
    pub(super) fn cause(&self) -> io::Error {
        match &self.detail {
            Some(detail) => io::Error::other(detail.clone()),
            None => io::Error::from_raw_os_error(self.errno),
        }
    }
}

/// Puts a step's name on an error.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error.into()))
    }
}

/// One step on the way from a request to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// Read the request.
    Request,
    /// Stack the layers as one detached mount.
    Overlay,
    /// Make layers visible to a user namespace.
    MapLayers,
    /// Make the process and its namespaces.
    Clone,
    /// Write the user and group id maps.
    MapIds,
    /// Become root of the user namespace, leader of a session.
    Session,
    /// Make the file system to be mounted at a path.
    Prepare(PathBuf),
    /// Attach the root file system and make it `/`.
    Pivot,
    /// Mount something at a path.
    Mount(PathBuf),
    /// Make a device node.
    Device(PathBuf),
    /// Hide a path.
    Mask(PathBuf),
    /// Make a path read-only.
    ReadOnly(PathBuf),
    /// Set the host name.
    Hostname,
    /// Set the loopback interface up.
    Loopback,
    /// Open the terminal.
    Terminal,
    /// Hear from the caller that everything outside is ready.
    Wait,
    /// Enter a cgroup namespace.
    CgroupNamespace,
    /// Put standard input, output and error in place.
    Stdio,
    /// Lower a resource limit.
    ResourceLimit(String),
    /// Find the user.
    User(String),
    /// Enter the working directory.
    WorkingDirectory(PathBuf),
    /// Give up capabilities.
    Capabilities,
    /// Change to the user.
    Credentials,
    /// Forbid new privileges.
    NoNewPrivileges,
    /// Install the system call filter.
    Seccomp,
    /// Start the program beside a reaper.
    Reaper,
    /// Execute the program.
    Execute(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("read the request"),
            Self::Overlay => f.write_str("stack the layers"),
            Self::MapLayers => f.write_str("map the owners of the layers"),
            Self::Clone => f.write_str("make the process"),
            Self::MapIds => f.write_str("map user ids"),
            Self::Session => f.write_str("begin a session"),
            Self::Prepare(path) => write!(f, "prepare {}", path.display()),
            Self::Pivot => f.write_str("pivot into the root file system"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Device(path) => write!(f, "make {}", path.display()),
            Self::Mask(path) => write!(f, "hide {}", path.display()),
            Self::ReadOnly(path) => write!(f, "make {} read-only", path.display()),
            Self::Hostname => f.write_str("set the host name"),
            Self::Loopback => f.write_str("set the loopback interface up"),
            Self::Terminal => f.write_str("open the terminal"),
            Self::Wait => f.write_str("wait for the caller"),
            Self::CgroupNamespace => f.write_str("enter a cgroup namespace"),
            Self::Stdio => f.write_str("put standard input, output and error in place"),
            Self::ResourceLimit(name) => write!(f, "lower {name}"),
            Self::User(user) => write!(f, "find user {user}"),
            Self::WorkingDirectory(path) => write!(f, "enter working directory {}", path.display()),
            Self::Capabilities => f.write_str("give up capabilities"),
            Self::Credentials => f.write_str("change to the user"),
            Self::NoNewPrivileges => f.write_str("forbid new privileges"),
            Self::Seccomp => f.write_str("install the system call filter"),
            Self::Reaper => f.write_str("start the program beside a reaper"),
            Self::Execute(program) => write!(f, "execute {program}"),
        }
    }
}

/// Longest message that travels in the socket itself. A longer one (a request with a large
/// environment) travels in a memory file: the socket's buffer bounds a packet.
const INLINE_BYTES: usize = 64 * 1024;
/// First byte of a packet that holds its message.
const INLINE: u8 = b'i';
/// First byte of a packet whose message is in the memory file that is its last descriptor.
const IN_MEMORY_FILE: u8 = b'm';
/// Largest message that is accepted from the other side.
const MESSAGE_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Most descriptors that the kernel passes at once, `SCM_MAX_FD`.
pub(super) const MOST_DESCRIPTORS: usize = 253;

/// One end of a `SOCK_SEQPACKET` pair that carries messages and descriptors.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// An end that came as a descriptor.
    pub(super) fn from_descriptor(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The socket itself, to be sent or inherited.
    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.socket
    }

    /// Sends one message. Safe from many threads: a packet is sent whole or not at all.
    pub(super) fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut packet = vec![INLINE];
        serde_json::to_writer(&mut packet, message)?;
        if packet.len() <= INLINE_BYTES {
            return self.send_packet(&packet, descriptors);
        }
        let file = rustix::fs::memfd_create(c"abax-message", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&packet[1..])?;
        let mut descriptors = descriptors.to_vec();
        descriptors.push(file.as_fd());
        self.send_packet(&[IN_MEMORY_FILE], &descriptors)
    }

    fn send_packet(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let mut space =
            vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len().max(1)))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            let sent = rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(packet)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            );
            match sent {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The next message and its descriptors; `None` when the other end is closed.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut packet = vec![0; INLINE_BYTES];
        let mut space =
            vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let received = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut packet)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match received {
                // A peer that ended while it had unread packets. That is told once, before its last
                // words, which come next; without any, the end does.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message arrived cut off"));
        }
        let message = match packet[..received.bytes].split_first() {
            None => return Ok(None),
            Some((&INLINE, message)) => serde_json::from_slice(message)?,
            Some((&IN_MEMORY_FILE, _)) => {
                let file = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
                let mut file = std::fs::File::from(file);
                file.rewind()?;
                let mut message = Vec::new();
                file.take(MESSAGE_LIMIT_BYTES).read_to_end(&mut message)?;
                serde_json::from_slice(&message)?
            }
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some((message, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_arrive_with_their_descriptors() {
        for len in [0, 10, INLINE_BYTES, 3 * INLINE_BYTES] {
            let (a, b) = Channel::pair().unwrap();
            let text = "x".repeat(len);
            a.send(&text, &[io::stdin().as_fd(), io::stdout().as_fd()]).unwrap();
            let (received, descriptors) = b.receive::<String>().unwrap().expect("one message");
            assert_eq!((received.len(), descriptors.len()), (len, 2));
        }
    }

    #[test]
    fn last_words_are_heard_from_an_end_that_did_not_listen_any_more() {
        let (a, b) = Channel::pair().unwrap();
        b.send(&"last words", &[]).unwrap();
        a.send(&Go, &[]).unwrap();
        drop(b);
        let (received, _) = a.receive::<String>().unwrap().expect("one message");
        assert_eq!(received, "last words");
        assert!(a.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn a_closed_end_is_the_end() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.receive::<Go>().unwrap().is_none());
    }
}
