//! Images before they are needed: of new actors, and of those that a machine
//! that just started will be asked for.

use std::collections::HashSet;
use std::sync::Arc;

use abax_actors::{Chain, PinnedImage, Preparation};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::execute::Host;

/// Pulls that may go on at once: they share one line to the outside.
const AT_ONCE: usize = 4;
/// An image that takes longer is being pulled: workers show that.
const SHORT: Duration = Duration::from_millis(200);

/// Makes images ready that no host had yet, until `stop`.
pub(crate) async fn prepare(host: Arc<Host>, stop: CancellationToken) {
    let mut pulls = JoinSet::new();
    loop {
        while pulls.len() >= AT_ONCE {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pulls.join_next() => {}
            }
        }
        let preparation = tokio::select! {
            () = stop.cancelled() => return,
            preparation = host.service.receive_preparation(&host.info.classes) => preparation,
        };
        match preparation {
            Ok(preparation) => {
                pulls.spawn(one(Arc::clone(&host), preparation));
            }
            Err(error) => {
                warn!(error = %Chain(&error), "could not look for new actors");
                sleep(Duration::from_secs(1)).await;
            }
        }
        while pulls.try_join_next().is_some() {}
    }
}

async fn one(host: Arc<Host>, preparation: Preparation) {
    let actor = &preparation.actor;
    let (finder, id, image) = (Arc::clone(&host), actor.id.clone(), preparation.image.clone());
    let runtime = Handle::current();
    let mut thread = tokio::task::spawn_blocking(move || {
        let pin = |found| runtime.block_on(finder.pin(&id, &image, found));
        let sandbox = &finder.sandbox;
        sandbox.images.of_revision(&sandbox.runtime, &image, pin).map(|_| ())
    });
    let found = match timeout(SHORT, &mut thread).await {
        Ok(found) => found,
        Err(_) => {
            if let Err(error) = host.service.actor_pulls(&actor.id, &host.id).await {
                debug!(error = %Chain(&error), "could not say that an image is pulled");
            }
            thread.await
        }
    };
    let told = match found {
        Ok(Ok(())) => {
            info!(actor.id = %actor.id, "image {} of actor {} is ready", actor.image, actor.id);
            host.service.actor_ready(&actor.id, actor.revision, &host.id).await
        }
        Ok(Err(error)) if error.is_transient() && error.is_of_registry() => {
            let error = Chain(&error).to_string();
            host.lacks_image(actor, &error).await;
            return;
        }
        // It comes back after a while. Who looks at the actor sees why; the log
        // says it once, however often it is tried.
        Ok(Err(error)) if error.is_transient() => {
            let error = Chain(&error).to_string();
            let reason = format!("waiting for image {}: {error}; trying again", actor.image);
            let told = host.service.actor_waits(&actor.id, actor.revision, &reason).await;
            if matches!(told, Ok(true)) {
                warn!(error, actor.id = %actor.id, "actor {} waits for its image", actor.id);
            } else {
                debug!(error, actor.id = %actor.id, "could not make an image ready");
            }
            told
        }
        Ok(Err(error)) => {
            let reason = format!(
                "{}; update the actor with an image that can be had, or with force to try again",
                Chain(&error)
            );
            warn!(error = %reason, actor.id = %actor.id, "actor {} has no image", actor.id);
            host.service.actor_failed(&actor.id, actor.revision, &reason).await
        }
        Err(error) => {
            warn!(error = %Chain(&error), "making an image ready failed by a bug");
            return;
        }
    };
    if let Err(error) = told {
        warn!(error = %Chain(&error), "could not tell how the image of actor {} stands", actor.id);
    }
}

/// Makes images ready that are likely to be needed, one after the other, so that
/// those which are needed now have the line: those of the configuration, then
/// those of actors that had executions of late.
pub(crate) async fn prepull(host: Arc<Host>, stop: CancellationToken) {
    let configured = host.config.prepull.iter().map(|name| (name.clone(), None));
    let mut names: Vec<(String, Option<PinnedImage>)> = configured.collect();
    match host.service.images_of_late(&host.info.classes).await {
        Ok(of_late) => names.extend(of_late),
        Err(error) => warn!(error = %Chain(&error), "could not look for images of late"),
    }
    let mut seen = HashSet::new();
    names.retain(|(name, pinned)| {
        seen.insert((name.clone(), pinned.as_ref().map(|pinned| pinned.digest.clone())))
    });
    for (name, pinned) in names {
        if stop.is_cancelled() {
            return;
        }
        let (finder, image) = (Arc::clone(&host), name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let sandbox = &finder.sandbox;
            sandbox.images.ready(&sandbox.runtime, &image, pinned.as_ref()).map(|_| ())
        });
        let found = tokio::select! {
            found = found => found,
            // It cannot be broken off; nobody waits for it.
            () = stop.cancelled() => return,
        };
        match found {
            Ok(Ok(())) => debug!("image {name} is ready"),
            Ok(Err(error)) => {
                warn!(error = %Chain(&error), "could not make image {name} ready beforehand");
            }
            Err(error) => warn!(error = %Chain(&error), "making an image ready failed by a bug"),
        }
    }
}
