//! `abax serve`: API, queue and worker in one process, from configuration to a
//! clean stop.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use abax_actors::{Claim, Clock, Service};
use abax_api::{App, Keys};
use abax_runtime::cgroup::Limits;
use abax_runtime::container::Launcher;
use abax_runtime::network::{BridgeConfig, Mode};
use abax_worker::AccessTokens;
use anyhow::{Context as _, anyhow, bail};
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Settings;
use crate::output;
use crate::telemetry;

/// The token that the actor verbs use on this machine, below the data directory.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
const SIGNING_KEY: &str = "signing.key";
const DATABASE: &str = "abax.db";
const LOCK: &str = "lock";

const TENANT: &str = "ABAX";
const KEY_BYTES: usize = 32;
/// The admin token is made anew by a start that finds it older than this.
const ADMIN_TOKEN_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// What executions get is good for as long as the longest of them.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
///
/// The service could not start, or one of its parts failed.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let service = &settings.service;
    let listen = service.listen;
    let data = settings.data();
    // Nothing is made before the port is ours: a start that fails for a taken
    // port changes nothing.
    let listener = bind(listen)?;
    let address = listener.local_addr().context("could not read our own address")?;
    let _lock = lock(&data)?;
    let keys = keys(&data)?;
    admin_token(&data, &keys)?;

    // The launcher while this process still has one thread.
    let launcher = Launcher::start().context("could not start the launcher")?;
    // Executions may call the API back, and what the operator names besides.
    let mut host_ports = vec![address.port()];
    host_ports.extend(&service.host_ports);
    let bridge = BridgeConfig {
        name: service.bridge.clone(),
        subnet: service.subnet,
        isolated: true,
        host_ports,
    };
    let runtime = settings.open_swept_runtime()?;
    // Now, so that what is wrong with it is said here, and no message waits for it.
    runtime.bridge(&bridge).context("could not prepare the network")?;

    let public_url = service.public_url.clone();
    let mut of_actors = abax_actors::Config::sqlite(data.join(DATABASE));
    // Containers do not reach our loopback, but the gateway of their bridge
    // passes this one port on to it.
    of_actors.api_server = public_url
        .clone()
        .unwrap_or_else(|| format!("http://{}:{}", gateway(&bridge), address.port()));
    of_actors.queues.clone_from(&service.queues);
    of_actors.max_attempts = service.max_attempts;
    of_actors.max_log_bytes = service.log_limit_bytes;

    let mut of_api = abax_api::Config { listen: address, ..abax_api::Config::default() };
    of_api.api_server.clone_from(&public_url);

    let of_worker = worker_config(settings, bridge, keys.clone())?;

    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the I/O loop")?;
    let ended = tokio.block_on(async {
        let traces = telemetry::export_traces();
        let stop = CancellationToken::new();
        let service = Service::open(of_actors, Clock::system())
            .await
            .with_context(|| format!("could not open the database in {}", data.display()))?;
        let app = App::new(service.clone(), keys, of_api)?;
        let listener = tokio::net::TcpListener::from_std(listener)
            .context("could not hand over the listening socket")?;
        stop_on_signals(&stop)?;

        let mut api = tokio::spawn(abax_api::serve(listener, app, stop.clone()));
        let mut worker =
            tokio::spawn(abax_worker::run(service, runtime, launcher, of_worker, stop.clone()));
        announce(settings, address)?;

        // Whichever ends first takes the other along.
        let ended = tokio::select! {
            ended = &mut api => {
                stop.cancel();
                let worker = worker.await;
                ended.map_err(anyhow::Error::new).and_then(|r| r.context("the API failed"))
                    .and(worker.map_err(anyhow::Error::new).and_then(|r| Ok(r?)))
            }
            ended = &mut worker => {
                stop.cancel();
                let api = api.await;
                ended.map_err(anyhow::Error::new).and_then(|r| Ok(r?))
                    .and(api.map_err(anyhow::Error::new).and_then(|r| r.context("the API failed")))
            }
        };
        info!("stopped");
        traces.finish().await;
        ended
    });
    // Threads of executions that outlived the drain: their containers die with
    // the launcher, and their leases end.
    tokio.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn worker_config(
    settings: &Settings,
    bridge: BridgeConfig,
    keys: Keys,
) -> anyhow::Result<abax_worker::Config> {
    let service = &settings.service;
    let slots = match service.slots {
        Some(slots) => NonZeroUsize::new(slots).context("no slots would run nothing")?,
        None => std::thread::available_parallelism()
            .unwrap_or(NonZeroUsize::MIN)
            .saturating_mul(NonZeroUsize::new(4).expect("four is not zero")),
    };
    let memory = service.memory.as_ref();
    // One service per data directory, and its database knows no other machine.
    let mut config = abax_worker::Config::new("embedded", slots, Mode::Bridge(bridge));
    config.alone = true;
    config.registries = settings.registries.clone();
    config.drain = Duration::from_secs(service.drain_seconds);
    config.lease = Duration::from_secs(service.lease_seconds);
    config.renew = config.lease / 3;
    config.time_limit = service.time_limit_seconds.map(Duration::from_secs);
    config.log_limit_bytes = service.log_limit_bytes;
    config.limits = Limits {
        memory_bytes: memory.map(|text| output::parse_size(text)).transpose()?,
        nano_cpus: service.cpus.map(output::nano_cpus).transpose()?,
        pids: service.pids,
        ..Limits::default()
    };
    config.access_tokens = Some(AccessTokens::new(move |claim: &Claim| {
        let (owner, tenant) = (&claim.actor.owner, claim.actor.tenant.as_str());
        let token = keys.mint_for(&claim.key, owner, tenant, ACCESS_TOKEN_LIFETIME);
        Some(token.expose_secret().to_owned())
    }));
    Ok(config)
}

/// The first address of the bridge's subnet, which is the bridge's own.
fn gateway(bridge: &BridgeConfig) -> Ipv4Addr {
    bridge.subnet.hosts().next().unwrap_or_else(|| bridge.subnet.addr())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is taken by another process; stop that, or choose another address with --listen"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine; choose another with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{address} may not be used by this user; choose a port above 1023 with --listen")
        }
        _ => anyhow::Error::new(error).context(format!("could not listen on {address}")),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("could not listen on {address}"))?;
    Ok(listener)
}

/// One service per data directory; the lock goes when the process does.
fn lock(data: &Path) -> anyhow::Result<File> {
    if let Some(parent) = data.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("could not create {}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(data) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("could not create {}", data.display()));
        }
        _ => {}
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("could not protect {}", data.display()))?;
    let path = data.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("could not open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another abax serve (process {}) uses {}; stop it, or name another directory with --data",
                holder.trim(),
                data.display()
            );
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("could not lock {}", path.display()));
        }
    }
    // For the message above, in the other process.
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    note(&mut file).with_context(|| format!("could not write {}", path.display()))?;
    Ok(file)
}

/// The keys of an existing data directory.
///
/// # Errors
///
/// They are there and cannot be read.
pub(crate) fn existing_keys(data: &Path) -> anyhow::Result<Option<Keys>> {
    let path = data.join(SIGNING_KEY);
    match fs::read(&path) {
        Ok(key) => Ok(Some(Keys::new(&key)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn keys(data: &Path) -> anyhow::Result<Keys> {
    let existing = existing_keys(data)
        .with_context(|| format!("could not use {}", data.join(SIGNING_KEY).display()))?;
    if let Some(keys) = existing {
        return Ok(keys);
    }
    let mut key = [0_u8; KEY_BYTES];
    rand::fill(&mut key);
    write_secret(data, SIGNING_KEY, &key)?;
    info!("made a signing key in {}", data.display());
    Ok(Keys::new(&key)?)
}

/// A token of the first start's making, renewed when it is old or not of our key.
fn admin_token(data: &Path, keys: &Keys) -> anyhow::Result<()> {
    let path = data.join(ADMIN_TOKEN);
    let holds = fs::read_to_string(&path).is_ok_and(|token| keys.verify(token.trim()).is_ok());
    let young = fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|then| {
        output::now().duration_since(then).unwrap_or_default() < ADMIN_TOKEN_LIFETIME / 2
    });
    if holds && young {
        return Ok(());
    }
    let token = keys.mint("admin", TENANT, &["admin"], ADMIN_TOKEN_LIFETIME);
    write_secret(data, ADMIN_TOKEN, token.expose_secret().as_bytes())
}

/// A file for the owner's eyes, whole or not there.
fn write_secret(data: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (path, temporary) = (data.join(name), data.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(data)?.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}

/// The first SIGINT or SIGTERM asks for the end; the second does not wait for it.
fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("stopping: waiting for what runs; once more to stop at once");
        stop.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        #[expect(clippy::exit, reason = "whoever asks twice does not want to wait; leases end")]
        std::process::exit(1);
    });
    Ok(())
}

/// Where it is, and what to type next.
fn announce(settings: &Settings, address: SocketAddr) -> anyhow::Result<()> {
    let reachable = match address.ip() {
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
        }
        _ => address,
    };
    let mut flags = String::new();
    match settings.named_data() {
        Some(data) => flags.push_str(&format!(" --data {}", absolute(data).display())),
        None if settings.root != Path::new("/var/lib/abax") => {
            flags.push_str(&format!(" --root {}", settings.root.display()));
        }
        None => {}
    }
    let server = if reachable.port() == 8000 {
        String::new()
    } else {
        format!("  export ABAX_SERVER=http://{reachable}\n")
    };
    output::raw(
        format!(
            "Abax {} listens on http://{reachable}\n\
             Next, in another terminal:\n  export TOKEN=$(abax token{flags})\n{server}  \
             abax actor create --name hello IMAGE\n  \
             abax actor send hello 'a message' --wait\n",
            env!("CARGO_PKG_VERSION")
        )
        .as_bytes(),
    )?;
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
