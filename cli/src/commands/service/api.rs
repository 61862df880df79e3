//! `abax api`: the HTTP interface and the upkeep of the database, in any number
//! of processes; no containers, no root.

use std::time::Duration;

use abax_api::App;
use anyhow::Context as _;
use tracing::info;

use super::wait::OldSchema;
use super::{check, keys, listen, notify, parts, signals, wait};
use crate::config::{Role, Settings};
use crate::telemetry;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
///
/// The process could not start, or failed.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    check(settings, Role::Api)?;
    let api = &settings.api;
    let listener = listen::bind(api.listen, "--listen")?;
    let address = listener.local_addr().context("could not read our own address")?;
    let keys = keys::shared(settings)?;
    let public_url = api.public_url.clone().unwrap_or_default();
    let of_actors = parts::actors(settings, public_url.clone())?;
    let mut of_api = parts::api(settings, address, Some(public_url))?;
    of_api.drain = Duration::from_secs(api.drain_seconds);

    let tokio = parts::io_loop()?;
    let ended = tokio.block_on(async {
        let traces = telemetry::export_traces();
        let stop = signals::stop_on_signals()?;
        let listener = listen::of_tokio(listener)?;
        listen::announce(settings, address)?;
        notify::ready(&format!("listening on http://{address}"));
        let (why, told) = wait::why();
        let service = tokio::select! {
            opened = wait::open(of_actors, OldSchema::Wait, &why) => opened?,
            never = abax_api::serve_waiting(&listener, &told) => match never {},
            () = stop.cancelled() => return Ok(()),
        };
        notify::status(&format!("listening on http://{address}"));
        let upkeep = parts::upkeep(&service, &stop);
        let app = App::new(service.clone(), keys, of_api)?;
        let ended = abax_api::serve(listener, app, stop).await.context("the API failed");
        let ended = ended.and(upkeep.await.context("the upkeep failed"));
        service.flush().await;
        info!("stopped");
        traces.finish().await;
        ended
    });
    tokio.shutdown_timeout(Duration::from_secs(1));
    ended
}
