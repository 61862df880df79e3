//! A bridge on the host, and the ports of containers on it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sched::CloneFlags;

use super::firewall::{self, Tool};
use super::ipam::{self, Leases};
use super::netlink::{self, Socket};
use super::{Attachment, BridgeConfig, NetworkError};

/// A bridge that is ready for containers.
#[derive(Debug)]
pub struct Bridge {
    directory: PathBuf,
    config: BridgeConfig,
    leases: Leases,
    state: Mutex<Stamp>,
    /// What this process attached: container → address, so that release need not search.
    attached: Mutex<HashMap<String, Ipv4Addr>>,
}

/// What was made for which bridge; kept on disk, so that the next process makes nothing again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Stamp {
    /// Rules change between our own versions.
    version: u32,
    /// Rules and interfaces end with the boot.
    boot: String,
    /// A bridge that was made again has another one.
    index: u32,
    mtu: u32,
    tool: Tool,
    config: BridgeConfig,
}

/// Raise it whenever `firewall` or `set_up` write something else.
const VERSION: u32 = 1;

impl Bridge {
    /// Makes the bridge with its address and rules, or finds that all is there.
    ///
    /// Any number of processes may do so at once. Finding it ready starts no process.
    ///
    /// # Errors
    ///
    /// [`NetworkError::SubnetInUse`] and the other cases that a user can do something about.
    pub fn prepare(root: &Path, config: &BridgeConfig) -> Result<Self, NetworkError> {
        config.check()?;
        let directory = root.join("network").join(&config.name);
        let leases = Leases::open(directory.join("leases"), config.subnet)?;
        let state = match read_ready(&directory, config)? {
            Some(stamp) => stamp,
            None => set_up(&directory, config)?,
        };
        Ok(Self {
            directory,
            config: config.clone(),
            leases,
            state: Mutex::new(state),
            attached: Mutex::new(HashMap::new()),
        })
    }

    /// The settings that it was prepared with.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// The bridge's own address: the containers' gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        ipam::gateway(self.config.subnet)
    }

    /// Gives the network namespace `netns` an `eth0` on this bridge, with an address and the
    /// default route, and sets its loopback up.
    ///
    /// The interface goes away with the namespace; the address is to be [released](Self::release).
    ///
    /// # Errors
    ///
    /// [`NetworkError::Exhausted`] where no address is free; otherwise what the kernel refused.
    /// The address is free again then.
    pub fn attach(
        &self,
        container: &str,
        netns: BorrowedFd<'_>,
    ) -> Result<Attachment, NetworkError> {
        let stamp = self.ready()?;
        let address = self.leases.take(container)?;
        let attached = self.connect(container, netns, address, &stamp);
        if attached.is_err() {
            // The first failure is the one to tell; a lease that stays is found by the sweep.
            let _ = self.leases.release_address(container, address);
        } else {
            self.lock_attached().insert(container.to_owned(), address);
        }
        attached
    }

    /// Gives back the address of a container whose namespace is gone. None is fine.
    ///
    /// # Errors
    ///
    /// [`NetworkError::State`]: the leases cannot be changed.
    pub fn release(&self, container: &str) -> Result<(), NetworkError> {
        let known = self.lock_attached().remove(container);
        match known {
            Some(address) => self.leases.release_address(container, address),
            None => self.leases.release(container),
        }
    }

    /// Gives back the addresses of containers that are not alive, such as after a crash.
    ///
    /// A container must count as alive before it is attached.
    ///
    /// # Errors
    ///
    /// [`NetworkError::State`]: the leases cannot be changed.
    pub fn sweep(&self, is_alive: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        self.leases.sweep(is_alive)
    }

    /// Looks whether bridge and rules are still there, and makes them again where they are not:
    /// whoever reloads a firewall may flush our table, and no container starts without it.
    fn ready(&self) -> Result<Stamp, NetworkError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_in_place(&state)? {
            *state = set_up(&self.directory, &self.config)?;
        }
        Ok(state.clone())
    }

    fn connect(
        &self,
        container: &str,
        netns: BorrowedFd<'_>,
        address: Ipv4Addr,
        stamp: &Stamp,
    ) -> Result<Attachment, NetworkError> {
        let failed = |step: &'static str, source| NetworkError::Attach {
            container: container.to_owned(),
            step,
            source,
        };
        let socket = Socket::open().map_err(|source| failed("open a netlink socket", source))?;
        let hardware = hardware_address(address);
        let mut attempt = 0;
        let interface = loop {
            let name = port_name(container, attempt);
            let veth = netlink::new_veth(&name, stamp.index, stamp.mtu, netns, hardware);
            let created = if self.config.isolated {
                socket.request([veth, netlink::isolate_port(&name)])
            } else {
                socket.request([veth])
            };
            match created {
                Ok(()) => break name,
                // The port of a namespace that the kernel has not quite cleared yet.
                Err((0, error)) if error.raw_os_error() == Some(libc::EEXIST) && attempt < 4 => {
                    attempt += 1;
                }
                Err((0, source)) => return Err(failed("create its veth pair", source)),
                Err((_, source)) => return Err(failed("isolate its bridge port", source)),
            }
        };
        let gateway = self.gateway();
        // A namespace belongs to a thread: one of our own goes in, never the caller's.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| configure(netns, address, self.config.subnet, gateway));
            inside.join().expect("configuring does not panic")
        })
        .map_err(|(step, source)| failed(step, source))?;
        wait_until_operational(&socket, &interface)
            .map_err(|source| failed("ask for the state of its bridge port", source))?;
        Ok(Attachment {
            address,
            prefix_length: self.config.subnet.prefix_len(),
            gateway,
            interface,
        })
    }

    fn lock_attached(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ipv4Addr>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the bridge forwards for a port whose far end has just come up.
///
/// The kernel notices that later, in its link watch; a first packet sent before is lost, and TCP
/// tries again after a whole second. Asking for the interface makes it look at once (Linux 6.9);
/// an older kernel needs a moment, and if it takes long, a lost packet is the smaller evil.
fn wait_until_operational(socket: &Socket, name: &str) -> io::Result<()> {
    for _ in 0..100 {
        if socket.find_link(name)?.is_none_or(|link| link.is_operational) {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Runs in a thread of its own, which stays in the container's namespace until its end.
fn configure(
    netns: BorrowedFd<'_>,
    address: Ipv4Addr,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
) -> Result<(), (&'static str, io::Error)> {
    const LOOPBACK: u32 = 1;
    nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| ("enter its network namespace", errno.into()))?;
    let socket = Socket::open().map_err(|error| ("open a netlink socket inside", error))?;
    let eth0 =
        nix::net::if_::if_nametoindex("eth0").map_err(|errno| ("find its eth0", errno.into()))?;
    let requests = [
        netlink::link_up(LOOPBACK),
        netlink::link_up(eth0),
        netlink::new_address(eth0, address, subnet),
        netlink::default_route(gateway, eth0),
    ];
    let steps =
        ["set its loopback up", "set its eth0 up", "set its address", "set its default route"];
    socket.request(requests).map_err(|(at, error)| (steps[at], error))
}

/// The stamp, where it is that of this boot, this bridge and these settings and all is in place.
fn read_ready(directory: &Path, config: &BridgeConfig) -> Result<Option<Stamp>, NetworkError> {
    let Ok(text) = fs::read(directory.join("ready")) else { return Ok(None) };
    let Ok(stamp) = serde_json::from_slice::<Stamp>(&text) else { return Ok(None) };
    let current = stamp.version == VERSION && stamp.config == *config && stamp.boot == boot_id()?;
    Ok((current && is_in_place(&stamp)?).then_some(stamp))
}

/// Whether bridge and rules exist, without starting a process.
fn is_in_place(stamp: &Stamp) -> Result<bool, NetworkError> {
    let name = &stamp.config.name;
    if nix::net::if_::if_nametoindex(name.as_str()).ok() != Some(stamp.index) {
        return Ok(false);
    }
    match stamp.tool {
        Tool::Iptables => Ok(true),
        Tool::Nft => netlink::nft_table_exists(&firewall::table(name))
            .map_err(|source| NetworkError::Tool { tool: "nftables", source }),
    }
}

/// Makes all that is missing, one process at a time.
fn set_up(directory: &Path, config: &BridgeConfig) -> Result<Stamp, NetworkError> {
    let path = directory.join("lock");
    let _lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|source| NetworkError::State { path, source })?;
    // Whoever held the lock may have done it.
    if let Some(stamp) = read_ready(directory, config)? {
        return Ok(stamp);
    }
    let name = &config.name;
    let failed = |source| NetworkError::Bridge { name: name.clone(), source };
    let routes = Routes::read()?;
    routes.check(config)?;
    let socket = Socket::open().map_err(failed)?;
    let find = |name: &str| socket.find_link(name).map_err(failed);
    let link = match find(name)? {
        Some(link) if link.kind.as_deref() == Some("bridge") => link,
        Some(_) => return Err(NetworkError::NotABridge { name: name.clone() }),
        None => {
            let outside = routes.default_interface().map(find).transpose()?.flatten();
            let mtu = outside.map_or(1500, |link| link.mtu.clamp(576, 65_535));
            let hardware = hardware_address(ipam::gateway(config.subnet));
            socket
                .request([netlink::new_bridge(name, hardware, mtu)])
                .map_err(|(_, source)| failed(source))?;
            find(name)?.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENODEV)))?
        }
    };
    // IPv4 only: without this the bridge's own link-local address would be a way to the host.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        set(&ipv6, "1")?;
    }
    socket
        .request([
            netlink::new_address(link.index, ipam::gateway(config.subnet), config.subnet),
            netlink::link_up(link.index),
        ])
        .map_err(|(_, source)| failed(source))?;
    // Rules before routes: nothing is forwarded that they would not allow.
    let tool = firewall::apply(config)?;
    let local = if config.host_ports.is_empty() { "0" } else { "1" };
    set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), local)?;
    set("/proc/sys/net/ipv4/ip_forward", "1")?;

    let (boot, index, mtu) = (boot_id()?, link.index, link.mtu);
    let stamp = Stamp { version: VERSION, boot, index, mtu, tool, config: config.clone() };
    let path = directory.join("ready");
    let temporary = directory.join("ready.new");
    let json = serde_json::to_vec(&stamp).expect("a stamp is plain data");
    // Not synced: it is worth nothing after a crash of the machine.
    fs::write(&temporary, json)
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(|source| NetworkError::State { path, source })?;
    Ok(stamp)
}

/// Writes a kernel setting unless it has that value.
fn set(path: &str, value: &str) -> Result<(), NetworkError> {
    if fs::read_to_string(path).is_ok_and(|current| current.trim_end() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| NetworkError::Setting {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn boot_id() -> Result<String, NetworkError> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path)
        .map(|id| id.trim_end().to_owned())
        .map_err(|source| NetworkError::State { path: path.into(), source })
}

/// A local hardware address that follows from the IP address, so that a neighbour's cache entry
/// for it is right for whoever has the address next.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The host's end of a container's veth pair, at most 15 bytes.
fn port_name(container: &str, attempt: u32) -> String {
    let mut hasher = DefaultHasher::new();
    (container, attempt).hash(&mut hasher);
    format!("abax{:011x}", hasher.finish() & 0xfff_ffff_ffff)
}

/// The IPv4 routes of the namespace that this thread is in.
struct Routes(Vec<(String, Ipv4Net)>);

impl Routes {
    fn read() -> Result<Self, NetworkError> {
        let path = "/proc/thread-self/net/route";
        let text = fs::read_to_string(path)
            .map_err(|source| NetworkError::State { path: path.into(), source })?;
        Ok(Self::parse(&text))
    }

    /// Lines of interface, destination, gateway, flags, …, mask (eighth); addresses as the
    /// kernel's numbers in hexadecimal, so their bytes are in network order in memory.
    fn parse(text: &str) -> Self {
        let address = |field: &str| {
            u32::from_str_radix(field, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()))
        };
        let route = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
            let subnet = Ipv4Net::with_netmask(destination, mask).ok()?;
            Some(((*fields.first()?).to_owned(), subnet))
        };
        Self(text.lines().skip(1).filter_map(route).collect())
    }

    fn default_interface(&self) -> Option<&str> {
        self.0.iter().find(|(_, subnet)| subnet.prefix_len() == 0).map(|(name, _)| name.as_str())
    }

    /// Refuses a subnet that the host reaches some other way already.
    fn check(&self, config: &BridgeConfig) -> Result<(), NetworkError> {
        let taken = self.0.iter().find(|(interface, route)| {
            *interface != config.name
                && route.prefix_len() != 0
                && firewall::overlap(*route, config.subnet)
        });
        match taken {
            Some((interface, route)) => Err(NetworkError::SubnetInUse {
                subnet: config.subnet,
                interface: interface.clone(),
                route: *route,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_subnet_that_the_host_uses_is_refused_by_name() {
        let routes = Routes::parse(ROUTES);
        assert_eq!(routes.default_interface(), Some("eth0"));
        for (subnet, free) in [
            ("172.29.0.0/16", true),
            ("192.0.3.0/24", true),
            ("192.0.2.0/24", false),
            ("192.0.2.128/25", false),
            ("192.0.0.0/16", false),
        ] {
            let config =
                BridgeConfig { subnet: subnet.parse().unwrap(), ..BridgeConfig::default() };
            let checked = routes.check(&config);
            assert_eq!(checked.is_ok(), free, "{subnet}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("eth0"), "{error}");
            }
        }
        let own = BridgeConfig {
            name: "eth0".into(),
            subnet: "192.0.2.0/24".parse().unwrap(),
            ..BridgeConfig::default()
        };
        assert!(routes.check(&own).is_ok(), "its own route is no obstacle");
    }

    #[test]
    fn port_names_fit_an_interface() {
        for attempt in 0..4 {
            let name = port_name(&"f".repeat(64), attempt);
            assert_eq!(name.len(), 15, "{name}");
        }
        assert_ne!(port_name("a", 0), port_name("a", 1));
    }
}
