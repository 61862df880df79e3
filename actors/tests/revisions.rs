//! Which image each revision of an actor runs.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use abax_actors::{Actor, ActorUpdate, HostAccess, MountRule, PinnedImage};
use fixture::{Engine, Fixture, succeeded};

on_each_engine!(
    the_first_host_decides_what_a_revision_runs,
    an_update_of_the_image_begins_a_revision_without_a_digest,
    actors_of_before_the_revisions_get_theirs_when_a_host_looks,
    an_actor_has_of_its_hosts_what_the_operator_said_when_it_was_written,
);

fn found(digest: &str, made: bool) -> PinnedImage {
    PinnedImage { digest: digest.to_owned(), made }
}

async fn update(f: &Fixture, actor: &Actor, image: &str, force: bool) -> Actor {
    let update = ActorUpdate { force, ..ActorUpdate::new(image) };
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap()
}

async fn the_first_host_decides_what_a_revision_runs(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let image = claim.image.clone();
    assert_eq!((image.revision, image.reference.as_str()), (1, "busybox"));
    assert_eq!((&image.pinned, image.anew), (&None, false));
    for next in [found("sha256:a", true), found("sha256:b", false)] {
        let pinned = f.service.pin_image(&actor.id, &image, next).await.unwrap();
        assert_eq!(pinned, Some(found("sha256:a", true)));
    }
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    f.send(&actor, "y").await;
    let claim = f.claim(&host).await;
    assert_eq!(claim.image.pinned, Some(found("sha256:a", true)));
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());

    f.service.delete_actor(&f.owner, actor.id.as_str()).await.unwrap();
    let late = found("sha256:c", false);
    assert_eq!(f.service.pin_image(&actor.id, &image, late).await.unwrap(), None);
    assert_eq!(f.rows.number("select count(*) from revisions").await, 0);
}

async fn an_update_of_the_image_begins_a_revision_without_a_digest(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    let classes = f.service.config().queues.clone();
    let first = f.service.receive_preparation(&classes).await.unwrap();
    f.service.pin_image(&actor.id, &first.image, found("sha256:a", false)).await.unwrap();
    assert!(f.service.actor_ready(&actor.id, 1, &host).await.unwrap());
    drop(first);
    update(&f, &actor, "busybox", false).await;
    f.send(&actor, "x").await;
    let running = f.claim(&host).await;
    let pinned = Some(found("sha256:a", false));
    assert_eq!(running.image.pinned, pinned, "the same image, the same one");

    update(&f, &actor, "busybox", true).await;
    let forced = f.service.receive_preparation(&classes).await.unwrap().image;
    assert_eq!((forced.revision, forced.anew, forced.pinned), (2, true, None));

    update(&f, &actor, "other", false).await;
    let other = f.service.receive_preparation(&classes).await.unwrap().image;
    assert_eq!((other.revision, other.anew, other.reference.as_str()), (3, false, "other"));
    // What runs goes on with what it has, and late words of it are of its revision.
    let late = found("sha256:b", true);
    assert_eq!(f.service.pin_image(&actor.id, &running.image, late).await.unwrap(), pinned);
    assert!(f.service.finish(&running.key, succeeded()).await.unwrap());
}

async fn actors_of_before_the_revisions_get_theirs_when_a_host_looks(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, host) = (f.actor().await, f.host().await);
    f.rows.execute("delete from revisions").await;
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    assert_eq!((&claim.image.pinned, claim.image.revision), (&None, 1));
    let first = found("sha256:a", false);
    let pinned = f.service.pin_image(&actor.id, &claim.image, first.clone()).await.unwrap();
    assert_eq!(pinned, Some(first));
}

async fn an_actor_has_of_its_hosts_what_the_operator_said_when_it_was_written(engine: Engine) {
    let f = Fixture::with(engine, |config| {
        let rule = |text| MountRule::parse(text).unwrap();
        config.host_access = HostAccess {
            identities: None,
            user: Some((1_000, 2_000)),
            home: Some("/home/{username}".to_owned()),
            mounts: vec![rule("{tasdir}:/work/{tenant_id}:rw")],
            privileged_mounts: vec![rule("/more:/more:ro")],
        };
    })
    .await;
    let actor = f.register(|new| new.max_run_time = Some(7)).await;
    let paths = |actor: &Actor| -> Vec<String> {
        let mounts = actor.mounts.iter();
        mounts.map(|m| format!("{}:{}:{}", m.host_path, m.container_path, m.mode)).collect()
    };
    assert_eq!(paths(&actor), ["/home/owner:/work/ABAX:rw"]);
    assert_eq!((actor.user, actor.home.as_deref()), (Some((1_000, 2_000)), Some("/home/owner")));
    let stored = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(stored, actor);

    // Whoever writes the settings: the owner's home, not the writer's.
    let mut change = ActorUpdate::new("busybox");
    (change.settings.privileged, change.settings.use_container_uid) = (true, true);
    let updated = f.service.update_actor(&f.admin, actor.id.as_str(), change).await.unwrap();
    assert_eq!(paths(&updated), ["/home/owner:/work/ABAX:rw", "/more:/more:ro"]);
    assert_eq!((updated.user, updated.max_run_time), (None, None));
    let stored = f.service.actor(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!((stored.mounts, stored.user), (updated.mounts, None));
}
