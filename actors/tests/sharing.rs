//! Who may use what is not theirs: permissions, nonces, aliases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use abax_actors::{
    Actor, ActorChange, ActorId, ActorUpdate, Caller, Deleted, Error, Level, NewMessage, NewNonce,
    Nonce, NonceOf, NonceRefusal, Noun, Role, Shareable, Tenant,
};
use fixture::{Engine, Fixture};

on_each_engine![
    a_level_lets_do_what_it_says_and_no_more,
    everybodys_entry_adds_to_ones_own,
    lists_have_what_is_shared,
    permissions_are_an_entry_for_each_user,
    who_updates_what_is_shared_keeps_it,
    who_changes_what_is_everybodys_gets_no_more_than_that,
    aliases_name_actors_within_their_tenant,
    an_alias_is_shared_apart_from_its_actor,
    what_is_gone_leaves_no_permission_and_no_nonce,
    nonces_count_their_uses,
    a_nonce_is_used_no_more_often_than_it_may_be_by_many_at_once,
    a_nonce_is_for_its_actor_or_its_alias,
    a_nonce_ends_where_its_owner_may_do_nothing,
    nonces_are_made_and_seen_by_who_may,
    nobody_sees_the_nonces_of_others_who_may_not_remove_them,
    only_an_owner_or_an_admin_ties_the_owners_hands,
    who_names_an_actor_hears_nothing_of_others,
];

fn user(name: &str) -> Caller {
    Caller::new(Tenant::default(), name, Role::User)
}

fn of(actor: &Actor) -> Shareable {
    Shareable::Actor(actor.id.to_string())
}

async fn share(f: &Fixture, actor: &Actor, with: &str, level: Level) {
    f.service.set_permission(&f.owner, &of(actor), with, level).await.unwrap();
}

/// What `caller` may do with `actor`: read, execute, update.
async fn rights(f: &Fixture, caller: &Caller, actor: &str) -> [bool; 3] {
    let may = |result: Result<(), Error>| match result {
        Ok(()) => true,
        Err(Error::Forbidden { .. }) => false,
        Err(other) => panic!("{other}"),
    };
    let s = &f.service;
    [
        may(s.actor(caller, actor).await.map(|_| ())),
        may(s.send_message(caller, actor, NewMessage::text("x")).await.map(|_| ())),
        may(s.purge_messages(caller, actor).await.map(|_| ())),
    ]
}

async fn a_level_lets_do_what_it_says_and_no_more(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    let eve = user("eve");
    assert_eq!(rights(&f, &eve, id).await, [false; 3]);
    for (level, expected) in [
        (Level::Read, [true, false, false]),
        (Level::Execute, [true, true, false]),
        (Level::Update, [true, true, true]),
        (Level::None, [false; 3]),
    ] {
        share(&f, &actor, "eve", level).await;
        assert_eq!(rights(&f, &eve, id).await, expected, "{level}");
    }
    assert_eq!(rights(&f, &f.owner, id).await, [true; 3]);
    assert_eq!(rights(&f, &f.admin, id).await, [true; 3]);
    // An owner may tie its own hands, not those of an admin.
    share(&f, &actor, "owner", Level::Read).await;
    assert_eq!(rights(&f, &f.owner, id).await, [true, false, false]);
    assert_eq!(rights(&f, &f.admin, id).await, [true; 3]);
    let namesake = Caller::new(Tenant::new("OTHER"), "owner", Role::Admin);
    let foreign = f.service.actor(&namesake, id).await;
    assert!(matches!(foreign, Err(Error::NotFound { noun: Noun::Actor, .. })), "{foreign:?}");
}

async fn everybodys_entry_adds_to_ones_own(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    share(&f, &actor, "ABACO_WORLD", Level::Read).await;
    share(&f, &actor, "eve", Level::None).await;
    share(&f, &actor, "bob", Level::Execute).await;
    for (caller, expected) in [
        ("anyone", [true, false, false]),
        ("eve", [true, false, false]),
        ("bob", [true, true, false]),
        ("owner", [true, true, true]),
    ] {
        assert_eq!(rights(&f, &user(caller), id).await, expected, "{caller}");
    }
    let namesake = Caller::new(Tenant::new("OTHER"), "anyone", Role::User);
    assert!(f.service.actor(&namesake, id).await.is_err(), "everybody of one tenant");
}

async fn lists_have_what_is_shared(engine: Engine) {
    let f = Fixture::new(engine).await;
    let [own, read, none, everybodys, not_shared] =
        [f.actor().await, f.actor().await, f.actor().await, f.actor().await, f.actor().await];
    share(&f, &read, "eve", Level::Read).await;
    share(&f, &own, "eve", Level::Update).await;
    share(&f, &none, "eve", Level::None).await;
    share(&f, &everybodys, "ABACO_WORLD", Level::Execute).await;
    let listed = async |caller: &Caller| -> Vec<ActorId> {
        f.service.actors(caller).await.unwrap().page.into_iter().map(|actor| actor.id).collect()
    };
    assert_eq!(listed(&user("eve")).await.len(), 3);
    assert!(!listed(&user("eve")).await.contains(&not_shared.id));
    assert_eq!(listed(&user("bob")).await, std::slice::from_ref(&everybodys.id));
    assert_eq!(listed(&f.admin).await, [everybodys.id], "admins see what is shared, as others");
    assert_eq!(listed(&f.owner).await.len(), 5);
    let other = Caller::new(Tenant::new("OTHER"), "owner", Role::User);
    assert!(listed(&other).await.is_empty());
}

async fn permissions_are_an_entry_for_each_user(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let entries = async |caller: &Caller| {
        let entries = f.service.permissions(caller, &of(&actor)).await?;
        let texts = entries.into_iter().map(|entry| format!("{} {}", entry.user, entry.level));
        Ok::<_, Error>(texts.collect::<Vec<_>>())
    };
    assert_eq!(entries(&f.owner).await.unwrap(), ["owner UPDATE"]);
    share(&f, &actor, "tester", Level::Update).await;
    share(&f, &actor, "another_one", Level::Execute).await;
    share(&f, &actor, "tester", Level::Read).await;
    let expected = ["owner UPDATE", "tester READ", "another_one EXECUTE"];
    assert_eq!(entries(&f.owner).await.unwrap(), expected);
    assert_eq!(entries(&user("tester")).await.unwrap(), expected, "READ shows them");
    let refused = entries(&user("eve")).await;
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    let set = f.service.set_permission(&user("another_one"), &of(&actor), "eve", Level::Read).await;
    assert!(matches!(set, Err(Error::Forbidden { needed: Level::Update, .. })), "{set:?}");
    for nobody in ["", "  ", "a\nb", &"x".repeat(300)] {
        let set = f.service.set_permission(&f.owner, &of(&actor), nobody, Level::Read).await;
        assert!(matches!(set, Err(Error::Invalid { .. })), "{nobody:?}: {set:?}");
    }
}

async fn who_updates_what_is_shared_keeps_it(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    share(&f, &actor, "ABACO_WORLD", Level::Update).await;
    let updated = f.service.update_actor(&user("eve"), id, ActorUpdate::new("busybox")).await;
    assert_eq!(updated.unwrap().owner, "owner");
    f.service.update_actor(&f.admin, id, ActorUpdate::new("busybox")).await.unwrap();
    share(&f, &actor, "ABACO_WORLD", Level::None).await;
    assert_eq!(rights(&f, &user("eve"), id).await, [true; 3]);
    assert_eq!(rights(&f, &user("bob"), id).await, [false; 3]);
    let entries = f.service.permissions(&f.owner, &of(&actor)).await.unwrap();
    assert_eq!(entries.len(), 3, "an admin needs none: {entries:?}");
}

async fn who_changes_what_is_everybodys_gets_no_more_than_that(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    share(&f, &actor, "ABACO_WORLD", Level::Update).await;
    let change = ActorChange::new(|settings| settings.description = "hers".into());
    let changed = f.service.change_actor(&user("eve"), actor.id.as_str(), change).await.unwrap();
    assert_eq!((changed.owner.as_str(), changed.description.as_str()), ("owner", "hers"));
    assert_eq!(f.service.permissions(&f.owner, &of(&actor)).await.unwrap().len(), 2);
    share(&f, &actor, "ABACO_WORLD", Level::None).await;
    assert_eq!(rights(&f, &user("eve"), actor.id.as_str()).await, [false; 3]);
}

async fn aliases_name_actors_within_their_tenant(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, other) = (f.actor().await, f.actor().await);
    let s = &f.service;
    let alias = s.create_alias(&f.owner, "jane.doe", actor.id.as_str()).await.unwrap();
    assert_eq!((alias.owner.as_str(), &alias.actor), ("owner", &actor.id));
    s.create_alias(&f.owner, "second", "jane.doe").await.unwrap();
    for name in ["jane.doe", "second"] {
        assert_eq!(s.actor(&f.owner, name).await.unwrap().id, actor.id);
        s.send_message(&f.owner, name, NewMessage::text("x")).await.unwrap();
    }
    assert_eq!(s.message_count(&f.owner, "second").await.unwrap(), 2);

    let again = s.create_alias(&f.owner, "jane.doe", other.id.as_str()).await;
    let text = again.as_ref().unwrap_err().to_string();
    assert!(matches!(again, Err(Error::AlreadyExists { noun: Noun::Alias, .. })), "{again:?}");
    assert_eq!(text, "alias jane.doe already exists");
    for missing in [ActorId::generate().as_str(), "nobody", "a\0b", ""] {
        let created = s.create_alias(&f.owner, "third", missing).await;
        let is_missing = matches!(created, Err(Error::NotFound { noun: Noun::Actor, .. }));
        assert!(is_missing, "{missing:?}: {created:?}");
    }
    let stolen = s.create_alias(&user("eve"), "third", actor.id.as_str()).await;
    assert!(matches!(stolen, Err(Error::Forbidden { noun: Noun::Actor, .. })), "{stolen:?}");

    // The same name in another tenant is another alias.
    let ada = Caller::new(Tenant::new("OTHER"), "ada", Role::Admin);
    let unknown = s.actor(&ada, "jane.doe").await;
    assert!(matches!(unknown, Err(Error::NotFound { noun: Noun::NamedActor, .. })), "{unknown:?}");
    let unknown = s.create_alias(&ada, "jane.doe", actor.id.as_str()).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");

    let moved = s.update_alias(&f.owner, "jane.doe", other.id.as_str()).await.unwrap();
    assert_eq!(moved.actor, other.id);
    assert_eq!(s.actor(&f.owner, "jane.doe").await.unwrap().id, other.id);
    let missing = s.update_alias(&f.admin, "jane.doe", ActorId::generate().as_str()).await;
    assert!(matches!(missing, Err(Error::NotFound { noun: Noun::Actor, .. })), "{missing:?}");
    let names: Vec<_> =
        s.aliases(&f.owner).await.unwrap().into_iter().map(|alias| alias.alias).collect();
    assert_eq!(names, ["jane.doe", "second"]);
    assert_eq!(s.aliases(&f.admin).await.unwrap().len(), 2);
    assert!(s.aliases(&user("eve")).await.unwrap().is_empty());
    assert!(s.aliases(&ada).await.unwrap().is_empty());
    s.delete_alias(&f.owner, "jane.doe").await.unwrap();
    let gone = s.alias(&f.owner, "jane.doe").await;
    assert!(matches!(gone, Err(Error::NotFound { noun: Noun::Alias, .. })), "{gone:?}");
    assert!(s.actor(&f.owner, other.id.as_str()).await.is_ok());
}

async fn an_alias_is_shared_apart_from_its_actor(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let s = &f.service;
    let eve = user("eve");
    s.create_alias(&f.owner, "jane", actor.id.as_str()).await.unwrap();
    let refused = s.alias(&eve, "jane").await;
    assert!(matches!(refused, Err(Error::Forbidden { noun: Noun::Alias, .. })), "{refused:?}");
    let jane = Shareable::Alias("jane".to_owned());
    let entries = s.permissions(&f.owner, &jane).await.unwrap();
    assert_eq!((entries.len(), entries[0].level), (1, Level::Update));
    s.set_permission(&f.owner, &jane, "eve", Level::Update).await.unwrap();

    assert!(s.alias(&eve, "jane").await.is_ok());
    assert_eq!(s.aliases(&eve).await.unwrap().len(), 1);
    assert_eq!(rights(&f, &eve, "jane").await, [false; 3], "it gives nothing on the actor");
    let same = s.update_alias(&eve, "jane", actor.id.as_str()).await;
    assert!(matches!(same, Err(Error::AliasTarget { has: Level::None, .. })), "{same:?}");
    // Her own she may put in its place, and the actor's owner keeps the alias.
    let hers = s.register_actor(&eve, abax_actors::NewActor::new("busybox")).await.unwrap();
    let moved = s.update_alias(&eve, "jane", hers.id.as_str()).await.unwrap();
    assert_eq!((moved.owner.as_str(), moved.actor), ("owner", hers.id));
    assert_eq!(rights(&f, &f.owner, "jane").await, [false; 3]);
    s.delete_alias(&eve, "jane").await.unwrap();
    assert!(s.aliases(&f.owner).await.unwrap().is_empty());

    // And the reverse: who may use the actor may not change its alias.
    s.create_alias(&f.owner, "jane", actor.id.as_str()).await.unwrap();
    share(&f, &actor, "eve", Level::Update).await;
    assert_eq!(rights(&f, &eve, "jane").await, [true; 3]);
    let refused = s.delete_alias(&eve, "jane").await;
    assert!(matches!(refused, Err(Error::Forbidden { noun: Noun::Alias, .. })), "{refused:?}");
}

async fn what_is_gone_leaves_no_permission_and_no_nonce(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, kept) = (f.actor().await, f.actor().await);
    let s = &f.service;
    let id = actor.id.as_str();
    share(&f, &actor, "eve", Level::Update).await;
    for alias in ["jane", "john"] {
        s.create_alias(&f.owner, alias, id).await.unwrap();
        let jane = Shareable::Alias(alias.to_owned());
        s.set_permission(&f.owner, &jane, "eve", Level::Update).await.unwrap();
        nonce(&f, &NonceOf::Alias(alias.to_owned()), |_| {}).await;
    }
    nonce(&f, &NonceOf::Actor(id.to_owned()), |_| {}).await;
    let rows = async |table: &str| f.rows.number(&format!("select count(*) from {table}")).await;
    assert_eq!((rows("permissions").await, rows("nonces").await), (7, 3));
    s.delete_alias(&f.owner, "john").await.unwrap();
    assert_eq!((rows("permissions").await, rows("nonces").await), (5, 2));
    // Whoever takes the name next begins anew.
    s.create_alias(&f.owner, "john", kept.id.as_str()).await.unwrap();
    assert!(s.alias(&user("eve"), "john").await.is_err());
    s.delete_alias(&f.owner, "john").await.unwrap();

    assert_eq!(s.delete_actor(&f.owner, "jane").await.unwrap(), Deleted::Completely);
    assert_eq!((rows("permissions").await, rows("nonces").await), (1, 0));
    assert_eq!(rows("aliases").await, 0);
    let gone = s.actor(&f.owner, "jane").await;
    assert!(matches!(gone, Err(Error::NotFound { noun: Noun::NamedActor, .. })), "{gone:?}");
}

async fn nonce(f: &Fixture, of: &NonceOf, change: impl FnOnce(&mut NewNonce)) -> Nonce {
    let mut new = NewNonce::default();
    change(&mut new);
    f.service.create_nonce(&f.owner, of, new).await.unwrap()
}

async fn redeem(
    f: &Fixture,
    nonce: &Nonce,
    of: &NonceOf,
    needed: Level,
) -> Result<Caller, NonceRefusal> {
    match f.service.redeem_nonce(nonce.id.as_str(), of, needed).await {
        Ok(caller) => Ok(caller),
        Err(Error::Nonce(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    }
}

async fn nonces_count_their_uses(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let of = NonceOf::Actor(actor.id.to_string());
    let uses = async |nonce: &Nonce| {
        let now = f.service.nonce(&f.owner, &of, nonce.id.as_str()).await.unwrap();
        assert_eq!(now.last_used.is_some(), now.current_uses > 0);
        (now.current_uses, now.remaining_uses)
    };
    assert!(f.service.nonces(&f.owner, &of).await.unwrap().is_empty());
    let unlimited = nonce(&f, &of, |_| {}).await;
    assert_eq!((unlimited.level, unlimited.max_uses), (Level::Execute, None));
    assert_eq!((unlimited.owner.as_str(), unlimited.roles.len()), ("owner", 1));
    for needed in [Level::Read, Level::Read, Level::Read, Level::Execute] {
        redeem(&f, &unlimited, &of, needed).await.unwrap();
    }
    assert_eq!(uses(&unlimited).await, (4, None));
    assert_eq!(redeem(&f, &unlimited, &of, Level::Update).await, Err(NonceRefusal::TooLow));
    assert_eq!(uses(&unlimited).await, (4, None), "what it is not for does not count");

    let limited = nonce(&f, &of, |new| (new.level, new.max_uses) = (Level::Read, 3)).await;
    redeem(&f, &limited, &of, Level::Read).await.unwrap();
    assert_eq!(uses(&limited).await, (1, Some(2)));
    assert_eq!(redeem(&f, &limited, &of, Level::Execute).await, Err(NonceRefusal::TooLow));
    redeem(&f, &limited, &of, Level::Read).await.unwrap();
    redeem(&f, &limited, &of, Level::Read).await.unwrap();
    assert_eq!(redeem(&f, &limited, &of, Level::Read).await, Err(NonceRefusal::UsedUp));
    assert_eq!(uses(&limited).await, (3, Some(0)));
    assert_eq!(f.service.nonces(&f.owner, &of).await.unwrap().len(), 2);

    f.service.delete_nonce(&f.owner, &of, unlimited.id.as_str()).await.unwrap();
    assert_eq!(redeem(&f, &unlimited, &of, Level::Read).await, Err(NonceRefusal::Unknown));
    for id in [unlimited.id.as_str(), "", "a\0b", &"x".repeat(10_000)] {
        let gone = f.service.delete_nonce(&f.owner, &of, id).await;
        assert!(matches!(gone, Err(Error::NotFound { noun: Noun::Nonce, .. })), "{gone:?}");
        let unknown = f.service.redeem_nonce(id, &of, Level::Read).await;
        assert!(matches!(unknown, Err(Error::Nonce(NonceRefusal::Unknown))), "{unknown:?}");
    }
}

async fn a_nonce_is_used_no_more_often_than_it_may_be_by_many_at_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let of = NonceOf::Actor(actor.id.to_string());
    let nonce = nonce(&f, &of, |new| new.max_uses = 5).await;
    let uses = (0..20).map(|_| {
        let (service, nonce, of) = (f.service.clone(), nonce.clone(), of.clone());
        tokio::spawn(async move {
            service.redeem_nonce(nonce.id.as_str(), &of, Level::Read).await.is_ok()
        })
    });
    let used = futures_util::future::join_all(uses).await;
    assert_eq!(used.into_iter().filter(|used| *used.as_ref().unwrap()).count(), 5);
}

async fn a_nonce_is_for_its_actor_or_its_alias(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, other) = (f.actor().await, f.actor().await);
    let s = &f.service;
    for alias in ["jane", "john"] {
        s.create_alias(&f.owner, alias, actor.id.as_str()).await.unwrap();
    }
    let in_place = |text: &str| NonceOf::Actor(text.to_owned());
    let (by_id, by_alias) = (in_place(actor.id.as_str()), in_place("jane"));
    let alias_itself = NonceOf::Alias("jane".to_owned());
    let of_actor = nonce(&f, &by_alias, |_| {}).await;
    let of_alias = nonce(&f, &alias_itself, |_| {}).await;
    let elsewhere =
        [in_place(other.id.as_str()), in_place("john"), NonceOf::Alias("john".to_owned())];
    for (nonce, good) in [(&of_actor, vec![&by_id]), (&of_alias, vec![&by_alias, &alias_itself])] {
        let all = [&by_id, &by_alias, &alias_itself].into_iter().chain(&elsewhere);
        for of in all {
            let redeemed = redeem(&f, nonce, of, Level::Read).await;
            match good.contains(&of) {
                true => assert!(redeemed.is_ok(), "{of:?}: {redeemed:?}"),
                false => assert_eq!(redeemed, Err(NonceRefusal::Unknown), "{of:?}"),
            }
        }
    }
    // What it lets in gets at nothing else, whatever it asks for.
    let guest = redeem(&f, &of_actor, &by_id, Level::Execute).await.unwrap();
    assert_eq!(guest.user, "owner");
    assert_eq!(rights(&f, &guest, actor.id.as_str()).await, [true, true, false]);
    assert_eq!(rights(&f, &guest, other.id.as_str()).await, [false; 3]);
    let refused = s.alias(&guest, "jane").await;
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    assert!(matches!(s.actors(&guest).await, Err(Error::NotByNonce)));
    assert!(matches!(s.aliases(&guest).await, Err(Error::NotByNonce)));
    let new = abax_actors::NewActor::new("busybox");
    assert!(matches!(s.register_actor(&guest, new).await, Err(Error::NotByNonce)));
    let guest = redeem(&f, &of_alias, &by_alias, Level::Execute).await.unwrap();
    assert_eq!(rights(&f, &guest, "jane").await, [true, true, false]);
    assert!(s.alias(&guest, "jane").await.is_ok());
    assert!(s.alias(&guest, "john").await.is_err());

    // It goes with the alias.
    s.update_alias(&f.owner, "jane", other.id.as_str()).await.unwrap();
    let guest = redeem(&f, &of_alias, &by_alias, Level::Execute).await.unwrap();
    assert_eq!(rights(&f, &guest, "jane").await, [true, true, false]);
    assert_eq!(rights(&f, &guest, actor.id.as_str()).await, [false; 3]);
}

async fn a_nonce_ends_where_its_owner_may_do_nothing(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    let of = NonceOf::Actor(id.to_owned());
    share(&f, &actor, "eve", Level::Update).await;
    let new = NewNonce { level: Level::Update, ..NewNonce::default() };
    let hers = f.service.create_nonce(&user("eve"), &of, new.clone()).await.unwrap();
    let guest = redeem(&f, &hers, &of, Level::Update).await.unwrap();
    assert_eq!(rights(&f, &guest, id).await, [true; 3]);
    share(&f, &actor, "eve", Level::Read).await;
    assert_eq!(rights(&f, &guest, id).await, [true, false, false]);
    share(&f, &actor, "eve", Level::None).await;
    assert_eq!(rights(&f, &guest, id).await, [false; 3]);

    // An admin's is an admin's, on the one actor.
    let other = f.actor().await;
    let admins = f.service.create_nonce(&f.admin, &of, new).await.unwrap();
    let guest = redeem(&f, &admins, &of, Level::Update).await.unwrap();
    assert_eq!((guest.role, guest.user.as_str()), (Role::Admin, "admin"));
    assert_eq!(rights(&f, &guest, id).await, [true; 3]);
    assert_eq!(rights(&f, &guest, other.id.as_str()).await, [false; 3]);
}

async fn nonces_are_made_and_seen_by_who_may(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let s = &f.service;
    s.create_alias(&f.owner, "jane", actor.id.as_str()).await.unwrap();
    let eve = user("eve");
    let of_actor = NonceOf::Actor(actor.id.to_string());
    let of_alias = NonceOf::Alias("jane".to_owned());
    let jane = Shareable::Alias("jane".to_owned());
    let noun = |result: Result<(), Error>| match result {
        Ok(()) => None,
        Err(Error::Forbidden { noun, .. }) => Some(noun),
        Err(other) => panic!("{other}"),
    };
    let both = async || {
        let (list, make) = (s.nonces(&eve, &of_alias), NewNonce::default());
        let listed = noun(list.await.map(|_| ()));
        (listed, noun(s.create_nonce(&eve, &of_alias, make).await.map(|_| ())))
    };
    let refused = (Some(Noun::AliasAndActor), Some(Noun::AliasAndActor));
    assert_eq!(both().await, refused);
    s.set_permission(&f.owner, &jane, "eve", Level::Update).await.unwrap();
    assert_eq!(both().await, refused, "the alias alone is not enough");
    share(&f, &actor, "eve", Level::Read).await;
    assert_eq!(both().await, (None, Some(Noun::AliasAndActor)));
    assert_eq!(noun(s.nonces(&eve, &of_actor).await.map(|_| ())), None);
    let made = s.create_nonce(&eve, &of_actor, NewNonce::default()).await;
    assert_eq!(noun(made.map(|_| ())), Some(Noun::Actor));
    share(&f, &actor, "eve", Level::Update).await;
    assert_eq!(both().await, (None, None));
    // Those of the actor and those of the alias are apart.
    assert!(s.nonces(&eve, &of_actor).await.unwrap().is_empty());
    let theirs = s.nonces(&eve, &of_alias).await.unwrap();
    let elsewhere = s.nonce(&eve, &of_actor, theirs[0].id.as_str()).await;
    assert!(matches!(elsewhere, Err(Error::NotFound { noun: Noun::Nonce, .. })));
    let level = NewNonce { level: Level::Update, ..NewNonce::default() };
    let refused = s.create_nonce(&f.owner, &of_alias, level).await;
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "level"));
}

async fn nobody_sees_the_nonces_of_others_who_may_not_remove_them(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let of_actor = NonceOf::Actor(actor.id.to_string());
    let made = nonce(&f, &of_actor, |new| new.level = Level::Read).await;
    let eve = user("eve");
    for (level, sees) in
        [(Level::Read, false), (Level::Execute, false), (Level::Update, true), (Level::Read, false)]
    {
        share(&f, &actor, "eve", level).await;
        let listed = f.service.nonces(&eve, &of_actor).await.unwrap();
        assert_eq!(listed.len(), usize::from(sees), "{level}");
        let shown = f.service.nonce(&eve, &of_actor, made.id.as_str()).await;
        assert_eq!(shown.is_ok(), sees, "{level}");
    }
    // What it made itself it has anyway.
    share(&f, &actor, "eve", Level::Update).await;
    f.service.create_nonce(&eve, &of_actor, NewNonce::default()).await.unwrap();
    share(&f, &actor, "eve", Level::Execute).await;
    assert_eq!(f.service.nonces(&eve, &of_actor).await.unwrap().len(), 1);
}

async fn only_an_owner_or_an_admin_ties_the_owners_hands(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    share(&f, &actor, "eve", Level::Update).await;
    f.service.create_alias(&f.owner, "mine", id).await.unwrap();
    let alias = Shareable::Alias("mine".to_owned());
    f.service.set_permission(&f.owner, &alias, "eve", Level::Update).await.unwrap();
    for of in [of(&actor), alias] {
        for level in [Level::None, Level::Read, Level::Execute] {
            let refused = f.service.set_permission(&user("eve"), &of, "owner", level).await;
            assert!(matches!(refused, Err(Error::OwnersAccess { .. })), "{refused:?}");
        }
        f.service.set_permission(&user("eve"), &of, "owner", Level::Update).await.unwrap();
        f.service.set_permission(&user("eve"), &of, "eve", Level::Read).await.unwrap();
    }
    assert_eq!(rights(&f, &f.owner, id).await, [true; 3]);
    f.service.set_permission(&f.admin, &of(&actor), "owner", Level::None).await.unwrap();
    assert_eq!(rights(&f, &f.owner, id).await, [false; 3]);
}

async fn who_names_an_actor_hears_nothing_of_others(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (s, eve) = (&f.service, user("eve"));
    let own = s.register_actor(&eve, abax_actors::NewActor::new("busybox")).await.unwrap();
    s.create_alias(&eve, "eves", own.id.as_str()).await.unwrap();
    let theirs = f.actor().await;
    s.create_alias(&f.owner, "theirs", theirs.id.as_str()).await.unwrap();
    let refused = s.update_alias(&eve, "eves", "theirs").await;
    assert!(
        matches!(refused, Err(Error::AliasTarget { has: Level::None, .. })),
        "as what is not hers to know of: {refused:?}"
    );
    let missing = ActorId::generate();
    for name in [theirs.id.as_str(), "theirs", missing.as_str(), "nothing"] {
        let mut new = abax_actors::NewActor::new("busybox");
        new.link = name.to_owned();
        let refused = s.register_actor(&eve, new).await;
        assert!(
            matches!(&refused, Err(Error::Invalid { problem, .. }) if *problem == format!("no actor {name}")),
            "{refused:?}"
        );
    }
    share(&f, &theirs, "eve", Level::Execute).await;
    let refused = s.update_alias(&eve, "eves", "theirs").await;
    assert!(matches!(refused, Err(Error::AliasTarget { .. })), "{refused:?}");
}
