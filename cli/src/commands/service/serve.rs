//! `abax serve`: API, queue and worker in one process, from configuration to a
//! clean stop.

use std::net::Ipv4Addr;
use std::time::Duration;

use abax_actors::Service;
use abax_api::App;
use abax_runtime::container::Launcher;
use abax_runtime::network::BridgeConfig;
use anyhow::Context as _;
use tracing::info;

use super::lock::{Lock, private_directory};
use super::wait::OldSchema;
use super::{check, keys, listen, notify, parts, signals, wait, worker};
use crate::config::{Role, Settings};
use crate::telemetry;

const LOCK: &str = "lock";
/// What the host of a database of its own is called.
const EMBEDDED: &str = "embedded";

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
///
/// The service could not start, or one of its parts failed.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    check(settings, Role::Serve)?;
    let service = &settings.service;
    let data = settings.data();
    // Nothing is made before the port is ours: a start that fails for a taken
    // port changes nothing.
    let listener = listen::bind(service.listen, "--listen")?;
    let address = listener.local_addr().context("could not read our own address")?;
    private_directory(&data)?;
    let mut lock = Lock::take(&data.join(LOCK), |process| {
        format!(
            "another abax serve (process {process}) uses {}; stop it, or name another directory \
             with --data",
            data.display()
        )
    })?;
    // A database that others share knows more hosts than this one.
    let shared = settings.database.url.is_some();
    let (name, succession, _root) = match shared {
        true => {
            let (name, succession, root) = worker::own_root(settings)?;
            (name, succession, Some(root))
        }
        false => (EMBEDDED.to_owned(), lock.succeed()?, None),
    };
    let keys = keys::existing_or_new(settings)?;
    keys::admin_token(&data, &keys)?;
    keys::make_for_secrets(settings)?;

    // The launcher while this process still has one thread.
    let launcher = Launcher::start().context("could not start the launcher")?;
    // Executions may call the API back, and what the operator names besides.
    let mut host_ports = vec![address.port()];
    host_ports.extend(&service.host_ports);
    let bridge = parts::bridge(settings, host_ports);
    let runtime = settings.open_swept_runtime()?;
    // Now, so that what is wrong with it is said here, and no message waits for it.
    runtime.bridge(&bridge).context("could not prepare the network")?;

    // Containers do not reach our loopback, but the gateway of their bridge
    // passes this one port on to it.
    let api_server = service
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{}:{}", gateway(&bridge), address.port()));
    let of_actors = parts::actors(settings, api_server)?;
    let of_api = parts::api(settings, address, service.public_url.clone())?;
    let host = parts::Host {
        name,
        succession,
        slots: service.slots,
        drain_seconds: service.drain_seconds,
    };
    let of_worker = parts::worker(settings, host, bridge, keys.clone())?;

    let tokio = parts::io_loop()?;
    let ended = tokio.block_on(async {
        let traces = telemetry::export_traces();
        let stop = signals::stop_on_signals()?;
        let listener = listen::of_tokio(listener)?;
        if shared {
            // A server that is not there yet is no reason to be started again.
            notify::ready("starting");
        }
        let (why, told) = wait::why();
        let service: Service = tokio::select! {
            opened = wait::open(of_actors, OldSchema::Fail, &why) => opened?,
            never = abax_api::serve_waiting(&listener, &told) => match never {},
            () = stop.cancelled() => return Ok(()),
        };
        let upkeep = parts::upkeep(&service, &stop);
        let app = App::new(service.clone(), keys, of_api)?;

        let mut api = tokio::spawn(abax_api::serve(listener, app, stop.clone()));
        let mut worker = tokio::spawn(abax_worker::run(
            service.clone(),
            runtime,
            launcher,
            of_worker,
            stop.clone(),
        ));
        listen::announce(settings, address)?;
        notify::ready(&format!("listening on http://{address}"));

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
        let ended = ended.and(upkeep.await.context("the upkeep failed"));
        service.flush().await;
        info!("stopped");
        traces.finish().await;
        ended
    });
    // Threads of executions that outlived the drain: their containers die with
    // the launcher, and their leases end.
    tokio.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The first address of the bridge's subnet, which is the bridge's own.
fn gateway(bridge: &BridgeConfig) -> Ipv4Addr {
    bridge.subnet.hosts().next().unwrap_or_else(|| bridge.subnet.addr())
}
