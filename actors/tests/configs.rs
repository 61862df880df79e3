//! Configs: who may change them, and which executions get what.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use abax_actors::{
    Actor, ActorConfigUpdate, ActorId, ActorStatus, ActorUpdate, Caller, Claim, Error,
    ExecutionStatus, Level, NewActorConfig, Noun, Role, SecretKeys, Service, Shareable, Tenant,
};
use fixture::{Engine, Fixture, LEASE, nothing_is_deliverable, receive, succeeded};
use secrecy::ExposeSecret as _;

on_each_engine![
    a_config_reaches_its_actors_and_no_other,
    a_config_has_a_variable_of_its_own_where_that_harms_nobody,
    configs_are_their_owners_and_shared_by_name,
    a_config_is_for_actors_that_its_maker_may_change,
    an_alias_takes_no_config_to_where_its_owner_did_not_mean_it,
    secrets_are_shown_to_executions_only,
    secrets_are_sealed_anew_when_the_key_changes,
    what_cannot_be_opened_keeps_no_other_secret_from_its_new_key,
    a_process_without_the_key_leaves_the_execution_to_others,
    what_cannot_be_given_puts_the_actor_into_error_and_messages_wait,
];

fn user(name: &str) -> Caller {
    Caller::new(Tenant::default(), name, Role::User)
}

fn new(name: &str, value: &str, actors: &str) -> NewActorConfig {
    NewActorConfig {
        name: name.to_owned(),
        value: value.to_owned(),
        is_secret: false,
        actors: actors.to_owned(),
    }
}

fn secret(name: &str, value: &str, actors: &str) -> NewActorConfig {
    NewActorConfig { is_secret: true, ..new(name, value, actors) }
}

fn one_key() -> SecretKeys {
    SecretKeys::parse(SecretKeys::generate().expose_secret()).unwrap()
}

async fn with_keys(engine: Engine) -> Fixture {
    Fixture::with(engine, |config| config.secret_keys = one_key()).await
}

/// A service of these keys on the same database.
async fn again(f: &Fixture, keys: SecretKeys) -> Service {
    let mut config = f.service.config().clone();
    config.secret_keys = keys;
    Service::open(config, f.clock.clone()).await.unwrap()
}

/// Runs an execution of `actor` and returns what its container would get.
async fn environment(f: &Fixture, service: &Service, actor: &Actor) -> Vec<(String, String)> {
    f.send(actor, "x").await;
    let host = fixture::host(service, "host").await;
    let claim: Claim = fixture::claim(service, &host).await;
    assert_eq!(claim.actor.id, actor.id);
    service.finish(&claim.key, succeeded()).await.unwrap();
    claim.environment
}

fn value<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

async fn a_config_reaches_its_actors_and_no_other(engine: Engine) {
    let f = with_keys(engine).await;
    let s = &f.service;
    let [one, two, three] = [f.actor().await, f.actor().await, f.actor().await];
    s.create_alias(&f.owner, "a", one.id.as_str()).await.unwrap();
    s.create_alias(&f.owner, "two", two.id.as_str()).await.unwrap();
    let actors = format!(" {} , two", one.id);
    let made = s.create_actor_config(&f.owner, new("plain", "it's 1", &actors)).await.unwrap();
    assert_eq!((made.value.as_deref(), made.actors.as_str()), (Some("it's 1"), actors.as_str()));
    s.create_actor_config(&f.owner, secret("token", "hunter2", "a")).await.unwrap();
    // Of another tenant, which names an alias of the same name.
    let ada = Caller::new(Tenant::new("OTHER"), "ada", Role::User);
    let theirs = s.register_actor(&ada, abax_actors::NewActor::new("busybox")).await.unwrap();
    s.create_alias(&ada, "a", theirs.id.as_str()).await.unwrap();
    s.create_actor_config(&ada, new("plain", "theirs", "a")).await.unwrap();

    for (actor, expected) in [
        (&one, "{'plain': \"it's 1\", 'token': 'hunter2'}"),
        (&two, "{'plain': \"it's 1\"}"),
        (&three, "{}"),
    ] {
        let environment = environment(&f, s, actor).await;
        assert_eq!(value(&environment, "_actor_configs"), Some(expected));
    }
    // What changes counts for the next execution.
    s.update_alias(&f.owner, "a", three.id.as_str()).await.unwrap();
    let update =
        ActorConfigUpdate { actors: Some(two.id.to_string()), ..ActorConfigUpdate::default() };
    s.update_actor_config(&f.owner, "plain", update).await.unwrap();
    for (actor, expected) in
        [(&one, "{}"), (&two, "{'plain': \"it's 1\"}"), (&three, "{'token': 'hunter2'}")]
    {
        let environment = environment(&f, s, actor).await;
        assert_eq!(value(&environment, "_actor_configs"), Some(expected));
    }
    s.delete_actor_config(&f.owner, "plain").await.unwrap();
    assert_eq!(value(&environment(&f, s, &two).await, "_actor_configs"), Some("{}"));
}

async fn a_config_has_a_variable_of_its_own_where_that_harms_nobody(engine: Engine) {
    let f = Fixture::new(engine).await;
    let s = &f.service;
    let environment_of_actor = serde_json::json!({"taken": "by the actor"});
    let actor = f
        .register(|new| new.default_environment = abax_actors::Json::from(environment_of_actor))
        .await;
    for name in ["fine_1", "taken", "not-plain", "1st", "PATH", "LD_PRELOAD", "MSG", "MSG_JSON"] {
        let config = new(name, &format!("of {name}"), actor.id.as_str());
        s.create_actor_config(&f.owner, config).await.unwrap();
    }
    let environment = environment(&f, s, &actor).await;
    assert_eq!(value(&environment, "fine_1"), Some("of fine_1"));
    assert_eq!(value(&environment, "taken"), Some("by the actor"));
    assert_eq!(value(&environment, "MSG"), Some("x"));
    for name in ["not-plain", "1st", "PATH", "LD_PRELOAD", "MSG_JSON"] {
        assert_eq!(value(&environment, name), None, "{name}");
    }
    let all = value(&environment, "_actor_configs").unwrap();
    assert!(all.contains("'PATH': 'of PATH'") && all.contains("'not-plain'"), "{all}");
}

async fn configs_are_their_owners_and_shared_by_name(engine: Engine) {
    let f = Fixture::new(engine).await;
    let s = &f.service;
    let actor = f.actor().await;
    let (id, eve) = (actor.id.as_str(), user("eve"));
    s.create_actor_config(&f.owner, new("c", "1", id)).await.unwrap();
    let change = |value: &str| ActorConfigUpdate {
        value: Some(value.to_owned()),
        ..ActorConfigUpdate::default()
    };
    let forbidden = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Forbidden { noun: Noun::Config, .. })), "{result:?}");
    };
    forbidden(s.actor_config(&eve, "c").await.map(|_| ()));
    forbidden(s.update_actor_config(&eve, "c", change("2")).await.map(|_| ()));
    forbidden(s.delete_actor_config(&eve, "c").await);
    assert!(s.actor_configs(&eve).await.unwrap().page.is_empty());
    assert_eq!(s.actor_configs(&f.admin).await.unwrap().page.len(), 1);

    let c = Shareable::Config("c".to_owned());
    assert_eq!(s.permissions(&f.owner, &c).await.unwrap()[0].level, Level::Update);
    s.set_permission(&f.owner, &c, "eve", Level::Read).await.unwrap();
    assert_eq!(s.actor_config(&eve, "c").await.unwrap().value.as_deref(), Some("1"));
    assert_eq!(s.actor_configs(&eve).await.unwrap().page.len(), 1);
    forbidden(s.update_actor_config(&eve, "c", change("2")).await.map(|_| ()));
    s.set_permission(&f.owner, &c, "eve", Level::Update).await.unwrap();
    let changed = s.update_actor_config(&eve, "c", change("2")).await.unwrap();
    assert_eq!((changed.value.as_deref(), changed.owner.as_str()), (Some("2"), "owner"));
    // She may not bring in an actor that is not hers to change, nor take one for hers.
    let other = f.actor().await;
    let bring = ActorConfigUpdate {
        actors: Some(format!("{id},{}", other.id)),
        ..ActorConfigUpdate::default()
    };
    let refused = s.update_actor_config(&eve, "c", bring).await;
    assert!(matches!(refused, Err(Error::Forbidden { noun: Noun::Actor, .. })), "{refused:?}");

    let taken = s.create_actor_config(&f.owner, new("c", "1", id)).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { noun: Noun::Config, .. })), "{taken:?}");
    // The same name in another tenant is another config.
    let namesake = Caller::new(Tenant::new("OTHER"), "owner", Role::Admin);
    let unknown = s.actor_config(&namesake, "c").await;
    assert!(matches!(unknown, Err(Error::NotFound { noun: Noun::Config, .. })), "{unknown:?}");
    s.delete_actor_config(&eve, "c").await.unwrap();
    assert_eq!(f.rows.number("select count(*) from permissions where kind = 'config'").await, 0);
    assert_eq!(f.rows.number("select count(*) from config_actors").await, 0);
}

async fn a_config_is_for_actors_that_its_maker_may_change(engine: Engine) {
    let f = Fixture::new(engine).await;
    let s = &f.service;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    s.create_alias(&f.owner, "jane", id).await.unwrap();
    s.create_actor_config(&f.owner, new("c", "1", id)).await.unwrap();
    // What is missing is said before what is taken.
    for missing in [ActorId::generate().as_str(), "nobody"] {
        for name in ["c", "d"] {
            let actors = format!("{id},{missing}");
            let made = s.create_actor_config(&f.owner, new(name, "1", &actors)).await;
            assert!(matches!(made, Err(Error::NotFound { .. })), "{missing}: {made:?}");
        }
    }
    let eve = user("eve");
    for item in [id, "jane"] {
        let refused = s.create_actor_config(&eve, new("hers", "1", item)).await;
        assert!(matches!(refused, Err(Error::Forbidden { noun: Noun::Actor, .. })), "{refused:?}");
    }
    // The actor is enough to name it, and not to name an alias of it.
    let shared = Shareable::Actor(id.to_owned());
    s.set_permission(&f.owner, &shared, "eve", Level::Update).await.unwrap();
    let refused = s.create_actor_config(&eve, new("hers", "1", "jane")).await;
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    s.create_actor_config(&eve, new("hers", "1", id)).await.unwrap();
    for (bad, field) in [
        (new("", "1", id), "name"),
        (new("utilization", "1", id), "name"),
        (new("a/b", "1", id), "name"),
        (new("d", "a\0b", id), "value"),
        (new("d", "1", " , "), "actors"),
        (secret("d", "1", id), "is_secret"),
    ] {
        let made = s.create_actor_config(&f.owner, bad).await;
        assert!(matches!(&made, Err(Error::Invalid { field: f, .. }) if f == field), "{made:?}");
    }
    let large = new("d", &"x".repeat(70_000), id);
    let made = s.create_actor_config(&f.owner, large).await;
    assert!(matches!(made, Err(Error::TooLarge { what: "value", .. })), "{made:?}");

    // As with Abaco, where a site wants that.
    let lax = Fixture::with(engine, |config| config.configs_for_any_actor = true).await;
    let actor = lax.actor().await;
    lax.service.create_actor_config(&eve, new("hers", "1", actor.id.as_str())).await.unwrap();
    let environment = environment(&lax, &lax.service, &actor).await;
    assert_eq!(value(&environment, "_actor_configs"), Some("{'hers': '1'}"));
}

async fn an_alias_takes_no_config_to_where_its_owner_did_not_mean_it(engine: Engine) {
    let f = with_keys(engine).await;
    let s = &f.service;
    let actor = f.actor().await;
    let eve = user("eve");
    let hers = s.register_actor(&eve, abax_actors::NewActor::new("busybox")).await.unwrap();
    s.create_alias(&f.owner, "jane", actor.id.as_str()).await.unwrap();
    s.create_actor_config(&f.owner, secret("token", "hunter2", "jane")).await.unwrap();
    let jane = Shareable::Alias("jane".to_owned());
    s.set_permission(&f.owner, &jane, "eve", Level::Update).await.unwrap();
    let moved = s.update_alias(&eve, "jane", hers.id.as_str()).await;
    assert!(matches!(&moved, Err(Error::AliasInConfig { config, .. }) if config == "token"));
    // She may remove the alias and take its name, but not what went by it.
    s.delete_alias(&eve, "jane").await.unwrap();
    s.create_alias(&eve, "jane", hers.id.as_str()).await.unwrap();
    let sent = s.send_message(&eve, "jane", abax_actors::NewMessage::text("x")).await.unwrap();
    let host = f.host().await;
    let claim = f.claim(&host).await;
    assert_eq!(claim.execution.id, sent.id);
    assert_eq!(value(&claim.environment, "_actor_configs"), Some("{}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_follows_no_alias_that_is_pointed_elsewhere_meanwhile() {
    let f = with_keys(Engine::Postgres).await;
    let s = &f.service;
    let actor = f.actor().await;
    let eve = user("eve");
    let hers = s.register_actor(&eve, abax_actors::NewActor::new("busybox")).await.unwrap();
    s.create_alias(&f.owner, "jane", actor.id.as_str()).await.unwrap();
    let mut moves = f.rows.postgres().await;
    sqlx::query("begin").execute(&mut moves).await.unwrap();
    sqlx::query("update aliases set actor_id = $1 where alias = 'jane'")
        .bind(hers.id.as_str())
        .execute(&mut moves)
        .await
        .unwrap();
    let make = {
        let (service, owner) = (s.clone(), f.owner.clone());
        let config = secret("token", "hunter2", "jane");
        tokio::spawn(async move { service.create_actor_config(&owner, config).await })
    };
    f.rows.somebody_waits().await;
    sqlx::query("commit").execute(&mut moves).await.unwrap();
    let refused = make.await.unwrap();
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
}

async fn secrets_are_shown_to_executions_only(engine: Engine) {
    let f = with_keys(engine).await;
    let s = &f.service;
    let actor = f.actor().await;
    let made = s.create_actor_config(&f.owner, secret("token", "hunter2", actor.id.as_str())).await;
    let made = made.unwrap();
    assert!(made.is_secret() && made.value.is_none(), "{made:?}");
    assert_eq!(s.actor_config(&f.admin, "token").await.unwrap().value, None);
    assert_eq!(s.actor_configs(&f.owner).await.unwrap().page[0].value, None);
    let in_plain_text = "select count(*) from configs where value is not null or \
                         cast(sealed as text) like '%hunter2%'";
    assert_eq!(f.rows.number(in_plain_text).await, 0);
    // Nobody gets to see it by calling it no secret.
    let show = ActorConfigUpdate { is_secret: Some(false), ..ActorConfigUpdate::default() };
    let refused = s.update_actor_config(&f.owner, "token", show.clone()).await;
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "value"));
    let replace = ActorConfigUpdate { value: Some("public".to_owned()), ..show };
    let replaced = s.update_actor_config(&f.owner, "token", replace).await.unwrap();
    assert_eq!(replaced.value.as_deref(), Some("public"));
    let hide = ActorConfigUpdate { is_secret: Some(true), ..ActorConfigUpdate::default() };
    assert_eq!(s.update_actor_config(&f.owner, "token", hide).await.unwrap().value, None);
    let environment = environment(&f, s, &actor).await;
    assert_eq!(value(&environment, "token"), Some("public"));
    let claim = format!("{:?}", s.actor_config(&f.owner, "token").await.unwrap());
    assert!(!claim.contains("public"), "{claim}");
}

async fn secrets_are_sealed_anew_when_the_key_changes(engine: Engine) {
    let lines = [SecretKeys::generate(), SecretKeys::generate()];
    let [old, new] = [&lines[0], &lines[1]].map(|line| line.expose_secret());
    let keys = |lines: &[&str]| SecretKeys::parse(&lines.concat()).unwrap();
    let f = Fixture::with(engine, |config| config.secret_keys = keys(&[old])).await;
    let actor = f.actor().await;
    for name in ["one", "two"] {
        let config = secret(name, "hunter2", actor.id.as_str());
        f.service.create_actor_config(&f.owner, config).await.unwrap();
    }
    assert_eq!(f.service.reseal_secrets().await.unwrap(), 0);
    let both = again(&f, keys(&[new, old])).await;
    assert_eq!(value(&environment(&f, &both, &actor).await, "one"), Some("hunter2"));
    assert_eq!(both.reseal_secrets().await.unwrap(), 2);
    assert_eq!(both.reseal_secrets().await.unwrap(), 0);
    let only_new = again(&f, keys(&[new])).await;
    assert_eq!(value(&environment(&f, &only_new, &actor).await, "two"), Some("hunter2"));
}

async fn what_cannot_be_opened_keeps_no_other_secret_from_its_new_key(engine: Engine) {
    let lines = [SecretKeys::generate(), SecretKeys::generate(), SecretKeys::generate()];
    let [lost, old, new] = [&lines[0], &lines[1], &lines[2]].map(|line| line.expose_secret());
    let keys = |lines: &[&str]| SecretKeys::parse(&lines.concat()).unwrap();
    let f = Fixture::with(engine, |config| config.secret_keys = keys(&[lost])).await;
    let actor = f.actor().await;
    for n in 0..110 {
        let config = secret(&format!("lost{n}"), "hunter2", actor.id.as_str());
        f.service.create_actor_config(&f.owner, config).await.unwrap();
    }
    let before = again(&f, keys(&[old])).await;
    let config = secret("of-the-old-key", "hunter2", actor.id.as_str());
    before.create_actor_config(&f.owner, config).await.unwrap();
    let after = again(&f, keys(&[new, old])).await;
    assert_eq!(after.reseal_secrets().await.unwrap(), 1);
    assert_eq!(after.reseal_secrets().await.unwrap(), 0);
}

async fn a_process_without_the_key_leaves_the_execution_to_others(engine: Engine) {
    let f = with_keys(engine).await;
    let actor = f.actor().await;
    let config = secret("token", "hunter2", actor.id.as_str());
    f.service.create_actor_config(&f.owner, config).await.unwrap();
    let sent = f.send(&actor, "x").await;
    let without = again(&f, SecretKeys::default()).await;
    let host = fixture::host(&without, "without").await;
    let delivery = receive(&without).await;
    assert!(without.claim(delivery, &host, LEASE).await.unwrap().is_none());
    assert_eq!(f.execution(&sent).await.status, ExecutionStatus::Submitted);
    let host = f.host().await;
    let claim = f.claim(&host).await;
    assert_eq!(value(&claim.environment, "token"), Some("hunter2"));
}

async fn what_cannot_be_given_puts_the_actor_into_error_and_messages_wait(engine: Engine) {
    let f = with_keys(engine).await;
    let s = &f.service;
    let (damaged, full) = (f.actor().await, f.actor().await);
    let config = secret("token", "hunter2", damaged.id.as_str());
    s.create_actor_config(&f.owner, config).await.unwrap();
    // As if somebody had put the row of one config in the place of another.
    f.rows.execute("insert into configs (tenant, name, owner, value, sealed, key_name, is_secret, \
                                        actors, created_us, updated_us) \
                    select tenant, 'stolen', owner, value, sealed, key_name, is_secret, actors, 1, 1 \
                    from configs").await;
    f.rows
        .execute("insert into config_actors select tenant, 'stolen', item from config_actors")
        .await;
    for name in ["a", "b"] {
        let config = new(name, &"\u{200b}".repeat(20_000), full.id.as_str());
        s.create_actor_config(&f.owner, config).await.unwrap();
    }
    let host = f.host().await;
    for (actor, part) in [(&damaged, "config stolen"), (&full, "at most 130000")] {
        let id = actor.id.as_str();
        let sent = [f.send(actor, "1").await, f.send(actor, "2").await];
        let delivery = receive(s).await;
        assert!(s.claim(delivery, &host, LEASE).await.unwrap().is_none());
        let failed = s.actor(&f.owner, id).await.unwrap();
        assert_eq!(failed.status, ActorStatus::Error);
        let reason = failed.status_message;
        assert!(reason.contains(part) && !reason.contains("hunter2"), "{reason}");
        f.clock.advance(LEASE);
        assert!(nothing_is_deliverable(s).await);
        for sent in &sent {
            assert_eq!(f.execution(sent).await.status, ExecutionStatus::Submitted, "it is kept");
        }

        let name = if actor.id == full.id { "b" } else { "stolen" };
        s.delete_actor_config(&f.admin, name).await.unwrap();
        let mut update = ActorUpdate::new("busybox");
        update.force = true;
        s.update_actor(&f.owner, id, update).await.unwrap();
        for sent in &sent {
            let claim = f.claim(&host).await;
            assert_eq!(claim.key.execution, sent.id);
            assert!(s.finish(&claim.key, succeeded()).await.unwrap());
        }
    }
}
