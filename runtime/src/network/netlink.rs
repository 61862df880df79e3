//! The few rtnetlink messages that a bridge and its ports need: netlink(7), rtnetlink(7).
//!
//! Written by hand: these dozen attributes need a tenth of the code of a general library, and a
//! whole batch goes to the kernel in one call. Attributes are in native byte order, addresses in
//! network byte order.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as Raw, SocketAddr};

/// Bytes before the payload of a message, `struct nlmsghdr`.
const HEADER: usize = 16;
/// `VETH_INFO_PEER`, linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_INFO_SLAVE_KIND`, `IFLA_INFO_SLAVE_DATA`, linux/if_link.h.
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// `IFLA_BRPORT_ISOLATED`, linux/if_link.h, Linux 4.18.
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// `IF_OPER_UP`, linux/if.h.
const IF_OPER_UP: u8 = 6;
const NLA_F_NESTED: u16 = 1 << 15;

/// A request that the kernel acknowledges.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: libc::c_int, header: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("netlink flags have 16 bits");
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Self { bytes }
    }

    fn put(mut self, attribute: u16, value: &[u8]) -> Self {
        self.add(attribute, |message| message.bytes.extend(value));
        self
    }

    fn put_text(self, attribute: u16, text: &str) -> Self {
        self.put(attribute, &[text.as_bytes(), b"\0"].concat())
    }

    fn nest(mut self, attribute: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.add(attribute | NLA_F_NESTED, |message| {
            let bytes = std::mem::take(&mut message.bytes);
            message.bytes = fill(Self { bytes }).bytes;
        });
        self
    }

    /// An attribute's length counts its header and not the padding after it.
    fn add(&mut self, attribute: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend(0_u16.to_ne_bytes());
        self.bytes.extend(attribute.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("our attributes are short");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("our messages are short");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: libc::c_int) -> Vec<u8> {
    let flags = flags.cast_unsigned().to_ne_bytes();
    [&[0; 4][..], &index.to_ne_bytes(), &flags, &flags].concat()
}

const CREATE: libc::c_int = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// A new bridge, up, with a hardware address that stays when ports come and go.
pub(super) fn new_bridge(name: &str, hardware: [u8; 6], mtu: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, CREATE, &link_header(0, libc::IFF_UP))
        .put_text(libc::IFLA_IFNAME, name)
        .put(libc::IFLA_ADDRESS, &hardware)
        .put(libc::IFLA_MTU, &mtu.to_ne_bytes())
        .nest(libc::IFLA_LINKINFO, |info| info.put(libc::IFLA_INFO_KIND, b"bridge"))
}

/// A veth pair: `name` here as a port of `bridge`, up, and `eth0` in the other namespace, down.
pub(super) fn new_veth(
    name: &str,
    bridge: u32,
    mtu: u32,
    namespace: BorrowedFd<'_>,
    hardware: [u8; 6],
) -> Message {
    let mtu = mtu.to_ne_bytes();
    let namespace = namespace.as_raw_fd().cast_unsigned().to_ne_bytes();
    Message::new(libc::RTM_NEWLINK, CREATE, &link_header(0, libc::IFF_UP))
        .put_text(libc::IFLA_IFNAME, name)
        .put(libc::IFLA_MTU, &mtu)
        .put(libc::IFLA_MASTER, &bridge.to_ne_bytes())
        .nest(libc::IFLA_LINKINFO, |info| {
            info.put(libc::IFLA_INFO_KIND, b"veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |mut peer| {
                    // Not up yet: the kernel refuses that until both ends know each other.
                    peer.bytes.extend(link_header(0, 0));
                    peer.put_text(libc::IFLA_IFNAME, "eth0")
                        .put(libc::IFLA_ADDRESS, &hardware)
                        .put(libc::IFLA_MTU, &mtu)
                        .put(libc::IFLA_NET_NS_FD, &namespace)
                })
            })
        })
}

/// Lets bridge port `name` talk to the bridge itself and to no other such port.
pub(super) fn isolate_port(name: &str) -> Message {
    Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_header(0, 0))
        .put_text(libc::IFLA_IFNAME, name)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_SLAVE_KIND, b"bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |data| data.put(IFLA_BRPORT_ISOLATED, &[1]))
        })
}

pub(super) fn link_up(index: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_header(index, libc::IFF_UP))
}

/// Gives an interface an address; one that it has already is fine.
pub(super) fn new_address(index: u32, address: Ipv4Addr, subnet: Ipv4Net) -> Message {
    let family = u8::try_from(libc::AF_INET).expect("2");
    // struct ifaddrmsg: family, prefix, flags, scope (0: universe), index.
    let header = [&[family, subnet.prefix_len(), 0, 0][..], &index.to_ne_bytes()].concat();
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    Message::new(libc::RTM_NEWADDR, flags, &header)
        .put(libc::IFA_LOCAL, &address.octets())
        .put(libc::IFA_ADDRESS, &address.octets())
        .put(libc::IFA_BROADCAST, &subnet.broadcast().octets())
}

pub(super) fn default_route(gateway: Ipv4Addr, index: u32) -> Message {
    let family = u8::try_from(libc::AF_INET).expect("2");
    // struct rtmsg: family, prefixes and tos, table, protocol, scope (0: universe), type, flags.
    let (table, protocol, unicast) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RTN_UNICAST);
    let header = [family, 0, 0, 0, table, protocol, 0, unicast, 0, 0, 0, 0];
    Message::new(libc::RTM_NEWROUTE, CREATE, &header)
        .put(libc::RTA_GATEWAY, &gateway.octets())
        .put(libc::RTA_OIF, &index.to_ne_bytes())
}

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Packets pass: up at both ends, and the kernel has drawn its consequences.
    pub(super) is_operational: bool,
    /// Such as `bridge`; physical ones have none.
    pub(super) kind: Option<String>,
}

/// A netlink socket of the network namespace that the opening thread is in.
pub(super) struct Socket(Raw);

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        Self::connect(NETLINK_ROUTE)
    }

    fn connect(protocol: isize) -> io::Result<Self> {
        let mut socket = Raw::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends all messages in one call and waits for their acknowledgements.
    ///
    /// The kernel works through all of them, whichever fail; the error is that of the first one
    /// that did, with its place.
    pub(super) fn request<const N: usize>(
        &self,
        messages: [Message; N],
    ) -> Result<(), (usize, io::Error)> {
        let mut batch = Vec::new();
        for (at, message) in messages.into_iter().enumerate() {
            batch.extend(message.finish(u32::try_from(at).expect("batches are short")));
        }
        self.0.send(&batch, 0).map_err(|error| (0, error))?;
        let mut acknowledged = [false; N];
        let mut failed: Option<(usize, io::Error)> = None;
        while acknowledged.contains(&false) {
            for (kind, sequence, payload) in self.receive().map_err(|error| (0, error))? {
                let at = sequence as usize;
                if i32::from(kind) != libc::NLMSG_ERROR || at >= N {
                    continue;
                }
                acknowledged[at] = true;
                if let Some(error) = errno(&payload)
                    && failed.as_ref().is_none_or(|(first, _)| at < *first)
                {
                    failed = Some((at, error));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The interface of this name, `None` where there is none.
    pub(super) fn find_link(&self, name: &str) -> io::Result<Option<Link>> {
        let message = Message::new(libc::RTM_GETLINK, 0, &link_header(0, 0))
            .put_text(libc::IFLA_IFNAME, name);
        self.0.send(&message.finish(1), 0)?;
        for (kind, _, payload) in self.receive()? {
            if kind == libc::RTM_NEWLINK && payload.len() >= HEADER {
                let attributes = attributes(&payload[HEADER..]);
                let kind = find(&attributes, libc::IFLA_LINKINFO)
                    .map(self::attributes)
                    .and_then(|info| find(&info, libc::IFLA_INFO_KIND).map(text));
                let mtu = find(&attributes, libc::IFLA_MTU).and_then(number).unwrap_or(1500);
                let index = number(&payload[4..8]).unwrap_or(0);
                let is_operational = find(&attributes, libc::IFLA_OPERSTATE) == Some(&[IF_OPER_UP]);
                return Ok(Some(Link { index, mtu, is_operational, kind }));
            }
            if let Some(error) = errno(&payload) {
                let gone = error.raw_os_error() == Some(libc::ENODEV);
                return if gone { Ok(None) } else { Err(error) };
            }
        }
        Ok(None)
    }

    /// The messages of one datagram: type, sequence, payload.
    fn receive(&self) -> io::Result<Vec<(u16, u32, Vec<u8>)>> {
        let mut buffer = [0; 16 * 1024];
        let length = self.0.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while let (Some(length), Some(sequence)) =
            (rest.get(..4).and_then(number), rest.get(8..12).and_then(number))
        {
            let length = length as usize;
            let (true, Some(payload)) = (rest.len() >= HEADER, rest.get(HEADER..length)) else {
                break;
            };
            messages.push((u16::from_ne_bytes([rest[4], rest[5]]), sequence, payload.to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// Whether the table of this name in nftables' `inet` family exists.
///
/// Firewalls are reloaded, and a reload may flush what is not theirs; asking costs one round trip.
pub(super) fn nft_table_exists(name: &str) -> io::Result<bool> {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`, linux/netfilter/nfnetlink.h.
    const GET_TABLE: u16 = 10 << 8 | 1;
    const NEW_TABLE: u16 = 10 << 8;
    /// `NFTA_TABLE_NAME`, linux/netfilter/nf_tables.h.
    const NAME: u16 = 1;
    /// `NFPROTO_INET`, version 0, resource 0: struct nfgenmsg.
    const INET: [u8; 4] = [1, 0, 0, 0];
    let socket = Socket::connect(NETLINK_NETFILTER)?;
    let message = Message::new(GET_TABLE, 0, &INET).put_text(NAME, name);
    socket.0.send(&message.finish(1), 0)?;
    for (kind, _, payload) in socket.receive()? {
        if kind == NEW_TABLE {
            return Ok(true);
        }
        if let Some(error) = errno(&payload) {
            let missing = error.raw_os_error() == Some(libc::ENOENT);
            return if missing { Ok(false) } else { Err(error) };
        }
    }
    Ok(false)
}

/// The error of an NLMSG_ERROR message; an acknowledgement is one with errno 0.
fn errno(payload: &[u8]) -> Option<io::Error> {
    let errno = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    (errno != 0).then(|| io::Error::from_raw_os_error(-errno))
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut attributes = Vec::new();
    while let [l0, l1, k0, k1, ..] = bytes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(value) = bytes.get(4..length) else { break };
        attributes.push((u16::from_ne_bytes([*k0, *k1]) & !NLA_F_NESTED, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    attributes
}

fn find<'a>(attributes: &[(u16, &'a [u8])], wanted: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
