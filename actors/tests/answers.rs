//! What others have or share does not decide how large one's answers are, nor who is
//! served next.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Caller, Collection, Error, Level, NewActor, NewActorConfig, NewNonce, NonceOf, Preparation,
    Role, Search, Service, Shareable, Tenant, Typing, Within,
};
use fixture::{Engine, Fixture};

on_each_engine![
    a_list_has_what_fits_and_ones_own_first,
    a_page_of_hits_has_what_fits,
    an_admins_list_counts_all_and_shows_what_fits,
    a_list_of_configs_has_what_fits_and_ones_own_first,
    nobody_has_more_than_one_may,
    images_are_made_ready_for_one_owner_beside_another,
];

/// More than an answer has room for, in texts of 100,000 bytes.
const TOO_MANY: usize = 90;

fn user(name: &str) -> Caller {
    Caller::new(Tenant::default(), name, Role::User)
}

/// Actors of the owner, too large for one answer, shared with everybody.
async fn flood(f: &Fixture) {
    for _ in 0..TOO_MANY {
        let actor = f.register(|new| new.description = "x".repeat(100_000)).await;
        let of = Shareable::Actor(actor.id.to_string());
        f.service.set_permission(&f.owner, &of, "ABACO_WORLD", Level::Read).await.unwrap();
    }
}

async fn a_list_has_what_fits_and_ones_own_first(engine: Engine) {
    let f = Fixture::new(engine).await;
    flood(&f).await;
    let ada = user("ada");
    f.clock.advance(Duration::from_secs(60));
    let own = f.service.register_actor(&ada, NewActor::new("busybox")).await.unwrap();
    let list = f.service.actors(&ada).await.unwrap();
    assert_eq!(list.total, TOO_MANY as u64 + 1);
    assert!(list.page.len() > 50 && list.page.len() < TOO_MANY, "{}", list.page.len());
    assert_eq!(list.page.last().unwrap().id, own.id, "the youngest, which is its own");
    assert!(list.page.is_sorted_by_key(|actor| actor.created), "oldest first");
}

async fn a_page_of_hits_has_what_fits(engine: Engine) {
    let f = Fixture::new(engine).await;
    flood(&f).await;
    let ada = user("ada");
    let mut seen = Vec::new();
    for conditions in [&[][..], &[("description.like", "x")]] {
        seen.clear();
        while seen.len() < TOO_MANY {
            let mut search = Search::new(Collection::Actors);
            for (key, value) in conditions {
                search.require(key, value, Typing::ByField).unwrap();
            }
            search.set_limit("10000").unwrap();
            search.set_skip(&seen.len().to_string()).unwrap();
            let hits = f.service.search_actors(&ada, Within::Readable, &search).await.unwrap();
            assert_eq!(hits.total, TOO_MANY as u64);
            assert!(!hits.page.is_empty() && hits.page.len() < TOO_MANY, "{}", hits.page.len());
            seen.extend(hits.page.into_iter().map(|actor| actor.id.to_string()));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), TOO_MANY, "page by page all are found");
    }
}

async fn an_admins_list_counts_all_and_shows_what_fits(engine: Engine) {
    let f = Fixture::new(engine).await;
    flood(&f).await;
    let list = f.service.all_actors(&f.admin).await.unwrap();
    assert_eq!(list.total, TOO_MANY as u64);
    assert!(list.page.len() > 50 && list.page.len() < TOO_MANY, "{}", list.page.len());
    let sums = f.service.all_actor_sums(&f.admin).await.unwrap();
    assert_eq!(sums.len(), TOO_MANY);
    assert_eq!(sums[0].dbid(), list.page[0].actor.dbid());
}

fn config(name: &str, value: &str, actor: &str) -> NewActorConfig {
    let (name, value, actors) = (name.to_owned(), value.to_owned(), actor.to_owned());
    NewActorConfig { name, value, is_secret: false, actors }
}

async fn a_list_of_configs_has_what_fits_and_ones_own_first(engine: Engine) {
    const TOO_MANY: usize = 140;
    let f = Fixture::new(engine).await;
    let (s, ada) = (&f.service, user("ada"));
    let names: Vec<String> = (0..TOO_MANY).map(|n| format!("flood{n}")).collect();
    let theirs = f.actor().await;
    for name in &names {
        let config = config(name, &"x".repeat(65_000), theirs.id.as_str());
        s.create_actor_config(&f.owner, config).await.unwrap();
    }
    assert_eq!(s.actor_configs(&ada).await.unwrap().page, []);
    f.clock.advance(Duration::from_secs(60));
    let own = s.register_actor(&ada, NewActor::new("busybox")).await.unwrap();
    s.create_actor_config(&ada, config("own", "v", own.id.as_str())).await.unwrap();
    for name in names {
        let of = Shareable::Config(name);
        s.set_permission(&f.owner, &of, "ABACO_WORLD", Level::Read).await.unwrap();
    }
    for caller in [&ada, &f.admin] {
        let list = s.actor_configs(caller).await.unwrap();
        assert_eq!(list.total, TOO_MANY as u64 + 1);
        assert!(list.page.len() > 100 && list.page.len() < TOO_MANY, "{}", list.page.len());
        assert_eq!(list.page.iter().any(|one| one.name == "own"), caller.user == "ada");
        assert!(list.page.is_sorted_by_key(|one| one.created), "oldest first");
    }
}

async fn nobody_has_more_than_one_may(engine: Engine) {
    let f = Fixture::with(engine, |config| config.max_owned = 2).await;
    let (s, ada) = (&f.service, user("ada"));
    let register = async |caller: &Caller| s.register_actor(caller, NewActor::new("busybox")).await;
    let first = register(&ada).await.unwrap();
    register(&ada).await.unwrap();
    let id = first.id.as_str();
    let refused = register(&ada).await;
    assert!(matches!(refused, Err(Error::TooMany { what: "actors", most: 2 })), "{refused:?}");
    register(&user("eve")).await.unwrap();
    register(&Caller::new(Tenant::new("OTHER"), "ada", Role::User)).await.unwrap();
    register(&Caller::new(Tenant::default(), "ada", Role::Admin)).await.unwrap();

    for name in ["a", "b"] {
        s.create_alias(&ada, name, id).await.unwrap();
        s.create_actor_config(&ada, config(name, "v", id)).await.unwrap();
    }
    let refused = s.create_alias(&ada, "c", id).await;
    assert!(matches!(refused, Err(Error::TooMany { what: "aliases", .. })), "{refused:?}");
    let refused = s.create_actor_config(&ada, config("c", "v", id)).await;
    assert!(matches!(refused, Err(Error::TooMany { what: "configs", .. })), "{refused:?}");

    for of in [NonceOf::Actor(id.to_owned()), NonceOf::Alias("a".to_owned())] {
        let make = async || s.create_nonce(&ada, &of, NewNonce::default()).await;
        let nonce = make().await.unwrap();
        make().await.unwrap();
        let refused = make().await;
        assert!(matches!(refused, Err(Error::TooMany { what: "nonces", .. })), "{refused:?}");
        s.delete_nonce(&ada, &of, nonce.id.as_str()).await.unwrap();
        make().await.expect("there is room again");
    }
}

async fn next(service: &Service) -> Option<Preparation> {
    let patience = Duration::from_millis(200);
    let classes = &service.config().queues;
    tokio::time::timeout(patience, service.receive_preparation(classes))
        .await
        .ok()
        .map(Result::unwrap)
}

async fn images_are_made_ready_for_one_owner_beside_another(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (ada, eve) = (user("ada"), user("eve"));
    for _ in 0..10 {
        f.service.register_actor(&eve, NewActor::new("nowhere.example/x")).await.unwrap();
        f.clock.advance(Duration::from_secs(1));
    }
    let mut under_way = vec![next(&f.service).await.unwrap()];
    f.service.register_actor(&ada, NewActor::new("busybox")).await.unwrap();
    under_way.push(next(&f.service).await.unwrap());
    assert_eq!(under_way[1].actor.owner, "ada", "who has fewer under way comes first");
    under_way.push(next(&f.service).await.unwrap());
    under_way.push(next(&f.service).await.unwrap());
    assert!(next(&f.service).await.is_none(), "one owner does not take all places");
    f.service.register_actor(&ada, NewActor::new("busybox")).await.unwrap();
    assert_eq!(next(&f.service).await.unwrap().actor.owner, "ada");
    under_way.clear();
    assert_eq!(next(&f.service).await.unwrap().actor.owner, "eve", "one that was not tried yet");
}
