//! What an update leaves as it was, and who writes a state over whose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use abax_actors::{
    ActorChange, ActorStatus, ActorUpdate, Caller, Error, Json, Level, NewActor, NewNonce, NonceOf,
    Role, Shareable, StateVersion, Tenant, TokenSetting,
};
use fixture::{Engine, Fixture, succeeded};

on_each_engine![
    a_change_leaves_all_else_as_it_was,
    a_full_update_resets_what_it_does_not_name,
    a_state_that_was_read_is_not_written_over,
    an_execution_sees_its_own_version_of_the_state,
    an_update_refuses_what_a_registration_refuses,
    a_stateless_actor_may_become_stateful_and_stays_so,
    what_may_not_be_set_may_stay,
    nobody_gives_another_program_what_a_privileged_one_may,
];

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

async fn a_change_leaves_all_else_as_it_was(engine: Engine) {
    let f = Fixture::new(engine).await;
    let before = f
        .register(|new| {
            new.name = Some("n".into());
            new.description = "d".into();
            new.stateless = false;
            new.kind = "bin".into();
            new.webhook = "https://example.org/hook".into();
            new.hints = vec!["sync".into()];
            new.mem_limit = Some("64m".into());
            new.default_environment = json(r#"{"a": 1}"#);
            new.queue = "special".into();
            new.log_ex = Some(7);
        })
        .await;
    let id = before.id.as_str();
    f.service.set_actor_state(&f.owner, id, json("[1]")).await.unwrap();
    let change = ActorChange::new(|settings| settings.description = "other".into());
    let after = f.service.change_actor(&f.owner, id, change).await.unwrap();
    let mut expected = before.clone();
    expected.description = "other".into();
    expected.state = json("[1]");
    expected.updated = after.updated;
    assert_eq!(after, expected);
    assert!(after.updated > before.updated);
    assert_eq!(f.service.actor(&f.owner, id).await.unwrap(), expected);

    let change = ActorChange::new(|settings| {
        settings.name = Some("m".into());
        settings.image = "other".into();
        settings.token = Some(true);
    });
    let after = f.service.change_actor(&f.owner, id, change).await.unwrap();
    assert_eq!(after.name.as_deref(), Some("m"));
    assert_eq!((after.status, after.revision), (ActorStatus::Submitted, 2));
    assert_eq!(after.token, TokenSetting::Chosen(true));
    let change = ActorChange::new(|settings| settings.token = None);
    let after = f.service.change_actor(&f.owner, id, change).await.unwrap();
    assert_eq!((after.token, after.revision), (TokenSetting::Default(false), 2));
    let change = ActorChange::new(|_| {}).forced(true);
    assert_eq!(f.service.change_actor(&f.owner, id, change).await.unwrap().revision, 3);
    let change = ActorChange::new(|settings| settings.stateless = true);
    let refused = f.service.change_actor(&f.owner, id, change).await;
    assert!(matches!(refused, Err(Error::Invalid { ref field, .. }) if field == "stateless"));
}

async fn a_full_update_resets_what_it_does_not_name(engine: Engine) {
    let f = Fixture::new(engine).await;
    let linked = f.actor().await;
    let before = f
        .register(|new| {
            new.name = Some("n".into());
            new.description = "d".into();
            new.stateless = false;
            new.hints = vec!["sync".into()];
            new.default_environment = json(r#"{"a": 1}"#);
            new.log_ex = Some(7);
            new.webhook = "https://example.org/hook".into();
            new.link = linked.id.to_string();
            new.kind = "bin".into();
            new.token = Some(true);
            new.privileged = true;
            new.mem_limit = Some("64m".into());
            new.max_cpus = Some(5);
            new.max_run_time = Some(6);
            new.use_container_uid = true;
            new.queue = "special".into();
        })
        .await;
    let id = before.id.as_str();
    f.service.set_actor_state(&f.owner, id, json("[1]")).await.unwrap();
    let mut update = ActorUpdate::new("busybox");
    update.settings.stateless = false;
    update.settings.name = Some("ignored".into());
    let after = f.service.update_actor(&f.owner, id, update).await.unwrap();
    assert_eq!(after.name.as_deref(), Some("n"));
    assert_eq!((after.description.as_str(), after.log_ex), ("", None));
    assert!(after.hints.is_empty());
    assert_eq!(after.default_environment, Json::empty_object());
    assert_eq!(
        (after.webhook.as_str(), after.link.as_str(), after.kind.as_str()),
        ("", "", "none")
    );
    assert_eq!(after.token, TokenSetting::Default(false));
    assert!(!after.privileged && !after.use_container_uid);
    assert_eq!((after.mem_limit, after.max_cpus, after.max_run_time), (None, None, None));
    assert_eq!(after.queue, "default");
    assert_eq!(after.state, json("[1]"), "it is no setting");
    assert_eq!((after.status, after.revision), (before.status, before.revision));
}

async fn an_update_refuses_what_a_registration_refuses(engine: Engine) {
    let f = Fixture::new(engine).await;
    let before = f.actor().await;
    let id = before.id.as_str();
    type Change = fn(&mut NewActor);
    let bad: [(&str, Change); 6] = [
        ("image", |new| new.image.clear()),
        ("queue", |new| new.queue = "nowhere".into()),
        ("hints", |new| new.hints = vec!["it's".into()]),
        ("cron_schedule", |new| new.cron_schedule = Some("2078-06-21 14 + 6 flimflams".into())),
        ("link", |new| new.link = "nobody".into()),
        ("max_workers", |new| (new.stateless, new.max_workers) = (false, Some(2))),
    ];
    for (field, change) in bad {
        let mut update = ActorUpdate::new("busybox");
        change(&mut update.settings);
        for refused in [
            f.service.register_actor(&f.admin, update.settings.clone()).await,
            f.service.update_actor(&f.admin, id, update).await,
            f.service.change_actor(&f.admin, id, ActorChange::new(change)).await,
        ] {
            let is_refused = matches!(&refused, Err(Error::Invalid { field: f, .. }) if f == field);
            assert!(is_refused, "{field}: {refused:?}");
        }
    }
    assert_eq!(f.service.actor(&f.owner, id).await.unwrap(), before);
    assert_eq!(f.service.actors(&f.admin).await.unwrap().page, []);
}

async fn a_stateless_actor_may_become_stateful_and_stays_so(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    let update = |stateless| {
        let mut update = ActorUpdate::new("busybox");
        update.settings.stateless = stateless;
        f.service.update_actor(&f.owner, id, update)
    };
    assert!(update(true).await.unwrap().stateless);
    assert!(!update(false).await.unwrap().stateless);
    f.service.set_actor_state(&f.owner, id, json("{\"n\": 1}")).await.unwrap();
    // Said or left out: the default is true.
    for refused in [
        update(true).await,
        f.service.update_actor(&f.owner, id, ActorUpdate::new("busybox")).await,
    ] {
        let is_refused =
            matches!(&refused, Err(Error::Invalid { field, .. }) if field == "stateless");
        assert!(is_refused, "{refused:?}");
    }
    let kept = f.service.actor(&f.owner, id).await.unwrap();
    assert_eq!((kept.stateless, kept.state), (false, json("{\"n\": 1}")));
}

async fn what_may_not_be_set_may_stay(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.max_workers = Some(3)).await;
    let id = actor.id.as_str();
    let change = ActorChange::new(|settings| settings.description = "mine".into());
    let changed = f.service.change_actor(&f.owner, id, change).await.unwrap();
    assert_eq!((changed.max_workers, changed.description.as_str()), (Some(3), "mine"));
    for more in [4, 2] {
        let change = ActorChange::new(move |settings| settings.max_workers = Some(more));
        let refused = f.service.change_actor(&f.owner, id, change).await;
        assert!(
            matches!(refused, Err(Error::Restricted { attribute: "max_workers" })),
            "{refused:?}"
        );
    }
    let change = ActorChange::new(|settings| settings.max_workers = None);
    assert_eq!(f.service.change_actor(&f.owner, id, change).await.unwrap().max_workers, None);
}

async fn nobody_gives_another_program_what_a_privileged_one_may(engine: Engine) {
    let f = Fixture::new(engine).await;
    let s = &f.service;
    let boss = Caller::new(Tenant::default(), "boss", Role::Privileged);
    let eve = Caller::new(Tenant::default(), "eve", Role::User);
    for attribute in ["privileged", "use_container_uid"] {
        let mut new = NewActor::new("busybox");
        new.privileged = attribute == "privileged";
        new.use_container_uid = attribute != "privileged";
        let actor = s.register_actor(&boss, new).await.unwrap();
        let id = actor.id.as_str();
        let of = Shareable::Actor(id.to_owned());
        s.set_permission(&boss, &of, "eve", Level::Update).await.unwrap();
        let for_nonce = NonceOf::Actor(id.to_owned());
        let new = NewNonce { level: Level::Update, ..NewNonce::default() };
        let nonce = s.create_nonce(&boss, &for_nonce, new).await.unwrap();
        let by_nonce = s.redeem_nonce(nonce.id.as_str(), &for_nonce, Level::Update).await.unwrap();
        let changes = || {
            [
                ActorChange::new(|settings| settings.image = "evil/root".into()),
                ActorChange::new(|_| {}).forced(true),
                ActorChange::new(|settings| {
                    settings.default_environment = json(r#"{"LD_PRELOAD": "/x"}"#);
                }),
            ]
        };
        for caller in [&eve, &by_nonce] {
            for change in changes() {
                let refused = s.change_actor(caller, id, change).await;
                assert!(
                    matches!(refused, Err(Error::Restricted { attribute: a }) if a == attribute),
                    "{attribute} by {caller:?}: {refused:?}"
                );
            }
            let harmless = ActorChange::new(|settings| settings.description = "d".into());
            s.change_actor(caller, id, harmless).await.unwrap();
            let update = |privileged| {
                let mut update = ActorUpdate::new("evil/root");
                update.settings.privileged = privileged;
                update
            };
            let refused = s.update_actor(caller, id, update(true)).await;
            assert!(matches!(refused, Err(Error::Restricted { .. })), "{refused:?}");
        }
        let now = s.actor(&boss, id).await.unwrap();
        assert_eq!((now.image.as_str(), now.revision), ("busybox", 1));
        for change in changes() {
            s.change_actor(&boss, id, change).await.expect("the role may");
        }
        // As ever, a replacement that does not name it takes it away.
        let update = ActorUpdate::new("evil/root");
        let plain = s.update_actor(&eve, id, update).await.unwrap();
        assert!(!plain.privileged && !plain.use_container_uid, "{plain:?}");
        s.change_actor(&eve, id, changes()[0].clone()).await.unwrap();
    }
}

async fn a_state_that_was_read_is_not_written_over(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    let (state, first) = f.service.versioned_actor_state(&f.owner, id).await.unwrap();
    assert_eq!(state, Json::empty_object());
    let set = async |state: &str, read: &[&StateVersion]| {
        let read = read.iter().map(|version| (*version).clone()).collect();
        f.service.set_actor_state_if(&f.owner, id, json(state), Some(read)).await
    };
    let (_, second) = set("1", &[&first]).await.unwrap();
    assert_ne!(first, second);
    let refused = set("2", &[&first]).await;
    assert!(matches!(refused, Err(Error::StateChanged { .. })), "{refused:?}");
    assert!(set("2", &[]).await.is_err());
    let (_, third) = set("{}", &[&StateVersion::new("nonsense"), &second]).await.unwrap();
    assert_ne!(first, third, "the same state, written again");
    // Who does not ask writes.
    f.service.set_actor_state(&f.owner, id, json("3")).await.unwrap();
    assert!(set("4", &[&third]).await.is_err());
    assert_eq!(f.service.actor_state(&f.owner, id).await.unwrap(), json("3"));

    // Of many who read the same, one writes.
    let (_, version) = f.service.versioned_actor_state(&f.owner, id).await.unwrap();
    let read = [&version];
    let (a, b, c, d) =
        tokio::join!(set("10", &read), set("11", &read), set("12", &read), set("13", &read));
    assert_eq!([a, b, c, d].iter().filter(|set| set.is_ok()).count(), 1);
}

async fn an_execution_sees_its_own_version_of_the_state(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.register(|new| new.stateless = false).await;
    let id = actor.id.as_str();
    let host = f.host().await;
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let inside = f.owner.clone().by(claim.key.clone());
    let (_, read) = f.service.versioned_actor_state(&inside, id).await.unwrap();
    let set = async |state: &str, read: &StateVersion| {
        f.service.set_actor_state_if(&inside, id, json(state), Some(vec![read.clone()])).await
    };
    let (_, one) = set("1", &read).await.unwrap();
    assert!(matches!(set("2", &read).await, Err(Error::StateChanged { .. })));
    let (_, two) = set("2", &one).await.unwrap();
    assert_ne!(one, two);
    let (_, outside) = f.service.versioned_actor_state(&f.owner, id).await.unwrap();
    assert_eq!(outside, read, "it counts with the end of the execution");
    // What somebody else sets meanwhile stands instead of it.
    f.service.set_actor_state(&f.owner, id, json("9")).await.unwrap();
    assert!(set("3", &two).await.is_err());
    let (state, now) = f.service.versioned_actor_state(&inside, id).await.unwrap();
    assert_eq!(state, json("9"));
    set("10", &now).await.unwrap();
    f.service.finish(&claim.key, succeeded()).await.unwrap();
    let (state, last) = f.service.versioned_actor_state(&f.owner, id).await.unwrap();
    assert_eq!(state, json("10"));
    assert_ne!(last, outside);
}
