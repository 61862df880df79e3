//! As whom executions run, where the users of a tenant are users of the hosts.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::path::PathBuf;
use std::time::Duration;

use abax_actors::{
    Actor, ActorChange, Caller, Error, Execution, Identities, Level, NewActor, NewMessage, Role,
    Shareable, Tenant, TenantSettings,
};
use fixture::{Engine, Fixture};

on_each_engine!(
    executions_run_as_their_owner_or_as_who_sent_them,
    what_nobody_sent_runs_as_the_owner,
    running_as_the_sender_is_for_tenants_with_a_list_of_users,
);

const USERS: &str = "owner:x:1001:100::/home/owner:/bin/sh\ngrace:x:1002:100:::/bin/sh\n";

/// A service whose users are these, beside those that run as 1500.
async fn with_users(engine: Engine) -> (Fixture, tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, USERS).unwrap();
    let list = path.clone();
    let f = Fixture::with(engine, |config| {
        config.host_access.identities = Some(Identities::of_file(list, |_, _| true).unwrap());
        config.host_access.user = Some((1500, 1500));
        config.host_access.home = Some("/shared/{username}".to_owned());
    })
    .await;
    (f, directory, path)
}

fn user(name: &str) -> Caller {
    Caller::new(Tenant::default(), name, Role::User)
}

async fn share(f: &Fixture, actor: &Actor, name: &str) {
    let actor = Shareable::Actor(actor.id.to_string());
    f.service.set_permission(&f.owner, &actor, name, Level::Execute).await.unwrap();
}

async fn send(f: &Fixture, name: &str, actor: &Actor) -> Result<Execution, Error> {
    f.service.send_message(&user(name), actor.id.as_str(), NewMessage::text("x")).await
}

async fn executions_run_as_their_owner_or_as_who_sent_them(engine: Engine) {
    let (f, _directory, path) = with_users(engine).await;
    let host = f.host().await;
    let plain = f.actor().await;
    assert_eq!((plain.user, plain.home.as_deref()), (Some((1001, 100)), Some("/home/owner")));
    let strangers = f.service.register_actor(&user("ada"), NewActor::new("busybox")).await.unwrap();
    let home = strangers.home.as_deref();
    assert_eq!((strangers.user, home), (Some((1500, 1500)), Some("/shared/ada")));

    let actor = f.register(|new| new.run_as_executor = true).await;
    assert!(actor.run_as_executor);
    for name in ["grace", "ada"] {
        share(&f, &actor, name).await;
    }
    for (name, expected) in [("owner", (1001, 100)), ("grace", (1002, 100))] {
        let sent = send(&f, name, &actor).await.unwrap();
        assert_eq!(sent.executor_user, Some(expected), "{name}");
        assert_eq!(f.execution(&sent).await.executor_user, Some(expected), "{name}");
        assert_eq!(f.claim(&host).await.user(), Some(expected), "{name}");
    }
    let refused = send(&f, "ada", &actor).await.unwrap_err();
    assert!(matches!(&refused, Error::NoIdentity { user } if user == "ada"), "{refused}");
    // Whoever comes into the list is in it.
    std::fs::write(&path, format!("{USERS}ada:x:1003:100:::\n")).unwrap();
    assert_eq!(send(&f, "ada", &actor).await.unwrap().executor_user, Some((1003, 100)));
    assert_eq!(f.claim(&host).await.user(), Some((1003, 100)));

    // An actor of the other kind notes nobody, and runs as its owner.
    let sent = f.send(&plain, "x").await;
    assert_eq!(sent.executor_user, None);
    assert_eq!(f.claim(&host).await.user(), Some((1001, 100)));
    // What was sent to it before it was of this kind is not its owner's to run.
    f.send(&plain, "x").await;
    let change = ActorChange::new(|settings| settings.run_as_executor = true);
    f.service.change_actor(&f.owner, plain.id.as_str(), change).await.unwrap();
    assert_eq!(f.claim(&host).await.user(), None);
}

async fn what_nobody_sent_runs_as_the_owner(engine: Engine) {
    let (f, _directory, _path) = with_users(engine).await;
    let host = f.host().await;
    let actor = f
        .register(|new| {
            new.run_as_executor = true;
            new.cron_schedule = Some("now + 1 hour".to_owned());
        })
        .await;
    let id = actor.id.as_str();
    share(&f, &actor, "grace").await;
    let mut linking = NewActor::new("busybox");
    linking.link = id.to_owned();
    let linking = f.service.register_actor(&user("grace"), linking).await.unwrap();

    f.clock.advance(Duration::from_secs(7_200));
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
    assert!(f.service.actor_ready(&linking.id, 1, &host).await.unwrap());
    f.service.deliver_to_links().await.unwrap();
    let deadline = tokio::time::Instant::now() + fixture::PATIENCE;
    let executions = loop {
        let found = f.service.executions(&f.owner, id).await.unwrap().executions;
        if found.len() == 2 {
            break found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for execution in executions {
        assert_eq!(execution.executor_user, Some((1001, 100)), "{}", execution.executor);
    }
}

async fn running_as_the_sender_is_for_tenants_with_a_list_of_users(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, USERS).unwrap();
    let lab = Tenant::new("LAB");
    let f = Fixture::with(engine, |config| {
        let mut own = TenantSettings::default();
        let mut access = config.host_access.clone();
        access.identities = Some(Identities::of_file(path, |_, _| true).unwrap());
        own.host_access = Some(access);
        config.tenants = [(lab.clone(), own)].into_iter().collect();
    })
    .await;
    let mut new = NewActor::new("busybox");
    new.run_as_executor = true;
    let refused = f.service.register_actor(&user("grace"), new.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("isn't supported for your tenant"), "{refused}");
    let grace = Caller::new(lab, "grace", Role::Privileged);
    let actor = f.service.register_actor(&grace, new.clone()).await.unwrap();
    assert_eq!(actor.user, Some((1002, 100)));
    new.use_container_uid = true;
    let refused = f.service.register_actor(&grace, new).await.unwrap_err();
    assert!(refused.to_string().contains("use_container_uid"), "{refused}");
    let change = ActorChange::new(|settings| settings.use_container_uid = true);
    let refused = f.service.change_actor(&grace, actor.id.as_str(), change).await.unwrap_err();
    assert!(refused.to_string().contains("use_container_uid"), "{refused}");
}
