//! Searches: who finds what, by every operator, on both engines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Actor, Caller, Collection, Error, Execution, Finish, Json, NewActor, Outcome, Phase, Role,
    Search, SearchLimits, Tenant, Typing, Within,
};
use fixture::{Engine, Fixture, succeeded};

on_each_engine![
    actors_are_found_by_every_operator,
    both_engines_page_alike,
    executions_are_found_by_times_and_numbers,
    logs_are_found_by_what_they_say,
    nobody_finds_what_is_not_shared,
    too_much_is_refused,
    what_looks_at_too_many_rows_is_refused,
    what_looks_at_too_many_bytes_is_refused,
    what_takes_too_long_is_refused,
    words_rank_and_phrases_filter,
    workers_are_found,
];

fn search(of: Collection, conditions: &[(&str, &str)], typing: Typing) -> Search {
    let mut search = Search::new(of);
    for (key, value) in conditions {
        search.require(key, value, typing).unwrap_or_else(|e| panic!("{key}={value}: {e}"));
    }
    search
}

async fn names(f: &Fixture, search: &Search) -> String {
    let found = f.service.search_actors(&f.owner, Within::Readable, search).await.unwrap();
    assert_eq!(found.total, found.page.len() as u64, "one page holds them");
    let names: Vec<_> = found.page.iter().map(|a| a.name.clone().unwrap_or_default()).collect();
    names.concat()
}

async fn actors_are_found_by_every_operator(engine: Engine) {
    let f = Fixture::new(engine).await;
    for (name, image, revision) in
        [("a", "one/test", 3), ("b", "one/test2", 5), ("c", "busybox", 9)]
    {
        let actor = f
            .register(|new| {
                new.name = Some(name.into());
                new.image = image.into();
                new.max_workers = (name != "c").then_some(revision);
                new.max_run_time = new.max_workers;
                new.cron_schedule = (name == "b").then(|| "2078-09-6 20 + 3 months".into());
                new.hints = vec![format!("tag-{name}"), "all".into()];
                new.token = (name == "a").then_some(true);
                new.default_environment = Json::parse(r#"{"K": {"n": 1}}"#).unwrap();
            })
            .await;
        assert_eq!(actor.name.as_deref(), Some(name));
        f.clock.advance(Duration::from_secs(60));
    }
    f.register(|new| new.image = "no/name".into()).await;
    let by_value = [
        ("image", "busybox", "c"),
        ("image.neq", "busybox", "ab"),
        ("image.like", "^one/", "ab"),
        ("image.nlike", "test$", "bc"),
        ("image.in", "['busybox', 'one/test']", "ac"),
        ("image.nin", "[\"busybox\"]", "ab"),
        ("name", "a", "a"),
        ("name.gte", "b", "bc"),
        ("name", "1", ""),
        ("name", "none", ""),
        ("name.neq", "none", "abc"),
        ("max_workers", "3", "a"),
        ("maxWorkers.gt", "3", "b"),
        ("max_workers.lte", "3.5", "a"),
        ("max_workers.between", "3,5", "ab"),
        ("max_workers.neq", "3", "bc"),
        ("max_workers.nin", "[3, null]", "b"),
        ("stateless", "TRUE", "abc"),
        ("stateless.neq", "true", ""),
        ("token", "true", "a"),
        ("token", "false", ""),
        ("token", "\"false\"", "bc"),
        ("hints", "all", "abc"),
        ("hints.in", "['tag-a', 'tag-c']", "ac"),
        ("hints.neq", "tag-a", "bc"),
        ("default_environment.K.n.gte", "1", "abc"),
        ("default_environment.K.n", "2", ""),
        ("create_time.gt", "2027-01-15T08:00:30", "bc"),
        ("createTime.between", "2027-01-15T08:00,2027-01-15T08:01", "ab"),
        ("create_time", "2027-01-15T08:01:00.000Z", "b"),
        ("create_time.neq", "2027-01-15T08:01:00.000Z", "ac"),
        ("create_time.lt", "2000-05:00", ""),
        ("state", "{}", "abc"),
        ("nowhere", "x", ""),
        ("nowhere.nin", "['x']", "abc"),
        ("status.nin", "['READY']", "abc"),
        ("revision", "1", "abc"),
        ("revision.gt", "99999999999999999999", ""),
        ("max_run_time.gte", "3", "ab"),
        ("maxRunTime", "none", "c"),
        // As it is shown.
        ("cron_next_ex", "2078-9-6 20", "b"),
        ("cron_next_ex.gt", "2078-9-6 19", "b"),
        ("cron_schedule", "2078-09-6 20 + 3 months", "b"),
    ];
    for (key, value, expected) in by_value {
        let search = search(Collection::Actors, &[(key, value)], Typing::ByValue);
        assert_eq!(names(&f, &search).await, expected, "{key}={value}");
    }
    for (key, value, expected) in [
        ("name", "null", ""),
        ("token", "false", "bc"),
        ("maxWorkers", "null", "c"),
        ("max_workers.eq", "3.0", "a"),
        ("defaultEnvironment.K", "{\"n\": 1}", "abc"),
        ("id.like", "^[A-Za-z0-9]+$", "abc"),
    ] {
        let search = search(Collection::Actors, &[(key, value)], Typing::ByField);
        assert_eq!(names(&f, &search).await, expected, "{key}={value}");
    }
    let all = search(
        Collection::Actors,
        &[("image.like", "one"), ("max_workers.gt", "1"), ("name.neq", "b")],
        Typing::ByValue,
    );
    assert_eq!(names(&f, &all).await, "a", "all conditions hold");
}

async fn nobody_finds_what_is_not_shared(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let mut actors = Vec::new();
    for _ in 0..3 {
        actors.push(f.actor().await);
        f.clock.advance(Duration::from_secs(1));
    }
    let [private, shared, world] = <[Actor; 3]>::try_from(actors).unwrap();
    for actor in [&private, &shared, &world] {
        f.send(actor, "x").await;
        let claim = f.claim(&host).await;
        f.service.append_logs(&claim.key, 0, b"words", false).await.unwrap();
        f.service.finish(&claim.key, succeeded()).await.unwrap();
    }
    for (actor, user, level) in [
        (&shared, "reader", "READ"),
        (&private, "reader", "NONE"),
        (&world, "ABACO_WORLD", "EXECUTE"),
    ] {
        f.rows
            .execute(&format!(
                "insert into permissions values ('ABAX', 'actor', '{}', '{user}', '{level}', 1)",
                actor.id
            ))
            .await;
    }
    let foreign = Tenant::new("OTHER");
    let caller = |name: &str, role| Caller::new(Tenant::default(), name, role);
    for (who, expected) in [
        (f.owner.clone(), vec![&private, &shared, &world]),
        (caller("reader", Role::User), vec![&shared, &world]),
        (caller("stranger", Role::User), vec![&world]),
        // Admins find what is shared with them, as everybody does.
        (f.admin.clone(), vec![&world]),
        (Caller::new(foreign.clone(), "owner", Role::Admin), vec![]),
    ] {
        let ids: Vec<_> = expected.iter().map(|actor| actor.id.clone()).collect();
        for texts in [false, true] {
            let all = |of| {
                let mut search = Search::new(of);
                if texts {
                    search.rank_by("words").unwrap();
                }
                search
            };
            let s = &f.service;
            let within = Within::Readable;
            let found = s.search_actors(&who, within, &all(Collection::Actors)).await.unwrap();
            let actors: Vec<_> = found.page.into_iter().map(|a| a.id).collect();
            assert_eq!(actors, ids, "{who:?}");
            let found =
                s.search_executions(&who, within, &all(Collection::Executions)).await.unwrap();
            let of: Vec<_> = found.page.into_iter().map(|e| e.actor).collect();
            assert_eq!(of, ids, "executions of {who:?}");
            let found = s.search_logs(&who, within, &all(Collection::Logs)).await.unwrap();
            let of: Vec<_> = found.page.into_iter().map(|log| log.actor).collect();
            assert_eq!(of, ids, "logs of {who:?}");
            let found = s.search_workers(&who, within, &all(Collection::Workers)).await.unwrap();
            let mut of: Vec<_> = found.page.into_iter().map(|worker| worker.actor).collect();
            // Words are in none of them, so they are in their own order.
            of.sort_by_key(|actor| ids.iter().position(|id| id == actor));
            assert_eq!(of, ids, "workers of {who:?}");
        }
    }
    // Within one actor the right to read it decides.
    let all = Search::new(Collection::Executions);
    let of_private = Within::Actor(private.id.as_str());
    let found = f.service.search_executions(&f.admin, of_private, &all).await.unwrap();
    assert_eq!(found.total, 1);
    let reader = caller("stranger", Role::User);
    let refused = f.service.search_executions(&reader, of_private, &all).await;
    assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    let other = Caller::new(foreign, "owner", Role::Admin);
    let refused = f.service.search_executions(&other, of_private, &all).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
}

/// Three executions, a minute apart: one that succeeded, one that failed, one that
/// waits.
async fn executions(f: &Fixture) -> (Actor, Vec<Execution>) {
    let (host, actor) = (f.host().await, f.actor().await);
    let mut all = Vec::new();
    for (code, runtime_ms, output) in [(0, 2_900, "Alpha beta"), (7, 60_000, "beta beta gamma")] {
        all.push(f.send(&actor, "x").await);
        let claim = f.claim(&host).await;
        f.service.record_phase(&claim.key, Phase::Started).await.unwrap();
        let outcome = if code == 0 { Outcome::Succeeded } else { Outcome::Failed };
        let mut finish = Finish::new(outcome, "");
        finish.exit_code = Some(code);
        finish.usage.runtime = Duration::from_millis(runtime_ms);
        finish.usage.cpu_ns = 5;
        finish.final_state =
            Some(Json::parse(&format!(r#"{{"ExitCode": {code}, "OOMKilled": false}}"#)).unwrap());
        finish.output = output.as_bytes().to_vec();
        finish.phases.set(Phase::Exited, f.clock.now());
        f.service.finish(&claim.key, finish).await.unwrap();
        f.clock.advance(Duration::from_secs(60));
    }
    all.push(f.send(&actor, "x").await);
    (actor, all)
}

async fn executions_are_found_by_times_and_numbers(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, all) = executions(&f).await;
    let dbid = format!("ABAX_{}", actor.id);
    for (key, value, expected) in [
        ("status", "COMPLETE", vec![0, 1]),
        ("status.in", "['SUBMITTED', 'RUNNING']", vec![2]),
        ("status.nin", "['COMPLETE']", vec![2]),
        ("outcome", "failed", vec![1]),
        ("exit_code.gt", "0", vec![1]),
        ("exitCode", "none", vec![2]),
        ("runtime", "2", vec![0]),
        ("runtime.gte", "2.5", vec![1]),
        ("executor", "owner", vec![0, 1, 2]),
        ("actor_id", actor.id.as_str(), vec![0, 1, 2]),
        ("actor_id", &dbid, vec![0, 1, 2]),
        ("actor_id.neq", &dbid, vec![]),
        ("final_state.StartedAt.gt", "2000-05:00", vec![0, 1]),
        ("final_state.StartedAt.lt", "2000-01-01T01:00", vec![]),
        ("final_state.FinishedAt.gte", "2027-01-15T08:01", vec![1]),
        ("final_state.ExitCode", "7", vec![1]),
        ("finalState.OOMKilled", "false", vec![0, 1]),
        ("message_received_time.between", "2027-01-15T08:00,2027-01-15T08:01", vec![0, 1]),
        ("finish_time.gt", "2027-01-15T08:00:30", vec![1]),
        ("finish_time", "none", vec![2]),
        ("phases.accepted.gt", "2027-01-15T08:01:30Z", vec![2]),
        ("id.like", all[1].id.as_str(), vec![1]),
    ] {
        let search = search(Collection::Executions, &[(key, value)], Typing::ByValue);
        for within in [Within::Readable, Within::Actor(actor.id.as_str())] {
            let found = f.service.search_executions(&f.owner, within, &search).await.unwrap();
            let found: Vec<_> = found.page.into_iter().map(|e| e.id).collect();
            let expected: Vec<_> = expected.iter().map(|n: &usize| all[*n].id.clone()).collect();
            assert_eq!(found, expected, "{key}={value}");
        }
    }
    let other = f.actor().await;
    let none = Search::new(Collection::Executions);
    let of_other = Within::Actor(other.id.as_str());
    let found = f.service.search_executions(&f.owner, of_other, &none).await.unwrap();
    assert_eq!(found.total, 0);
}

async fn logs_are_found_by_what_they_say(engine: Engine) {
    let f = Fixture::with(engine, |config| config.log_expiry = Duration::from_secs(3_600)).await;
    let (actor, all) = executions(&f).await;
    let found = async |search: &Search, within| {
        let found = f.service.search_logs(&f.owner, within, search).await.unwrap();
        assert_eq!(found.total, found.page.len() as u64);
        found.page.iter().map(|log| log.logs.text()).collect::<Vec<_>>()
    };
    let all_logs = Search::new(Collection::Logs);
    let both = ["Alpha beta", "beta beta gamma"];
    assert_eq!(found(&all_logs, Within::Readable).await, both, "one for each that ended");
    // One that is halted has one as well, though nothing is in it.
    let (halted, host) = (&all[2], f.host().await);
    let claim = f.claim(&host).await;
    let id = halted.id.as_str();
    f.service.halt_execution(&f.owner, actor.id.as_str(), id).await.unwrap();
    f.service.finish(&claim.key, Finish::new(Outcome::Cancelled, "halted")).await.unwrap();
    assert_eq!(found(&all_logs, Within::Readable).await, [both[0], both[1], ""]);
    let of_halted = Within::Execution { actor: actor.id.as_str(), execution: id };
    assert_eq!(found(&all_logs, of_halted).await, [""], "one, and no other");
    let both = &both[..];
    for (key, value, expected) in [
        ("logs.like", "^Alpha", &both[..1]),
        ("logs.nlike", "gamma|^$", &both[..1]),
        ("logs", "beta beta gamma", &both[1..]),
        ("execution_id", all[1].id.as_str(), &both[1..]),
        ("logs.like", "beta", both),
    ] {
        let search = search(Collection::Logs, &[(key, value)], Typing::ByField);
        assert_eq!(found(&search, Within::Readable).await, expected, "{key}={value}");
    }
    let mut phrase = Search::new(Collection::Logs);
    phrase.require_phrase("BETA GAMMA").unwrap();
    assert_eq!(found(&phrase, Within::Readable).await, &both[1..]);
    let of_first = Within::Execution { actor: actor.id.as_str(), execution: all[0].id.as_str() };
    assert_eq!(found(&phrase, of_first).await, [""; 0]);
    assert_eq!(found(&all_logs, of_first).await, &both[..1]);
    let mut ranked = Search::new(Collection::Logs);
    ranked.rank_by("beta").unwrap();
    let best_first = [both[1], both[0], ""];
    assert_eq!(found(&ranked, Within::Readable).await, best_first, "the best first");
    f.clock.advance(Duration::from_secs(3_601));
    assert_eq!(found(&all_logs, Within::Readable).await, [""; 0], "they expired");
}

async fn words_rank_and_phrases_filter(engine: Engine) {
    let f = Fixture::new(engine).await;
    for (name, description) in [
        ("a", "nothing of the sort"),
        ("b", "sleep and loop, and then sleep again in the loop"),
        ("c", "Sleep loop"),
        ("d", "sleeping"),
    ] {
        f.register(|new| {
            new.name = Some(name.into());
            new.description = description.into();
        })
        .await;
        f.clock.advance(Duration::from_secs(1));
    }
    let mut ranked = Search::new(Collection::Actors);
    ranked.rank_by("sleep LOOP").unwrap();
    assert_eq!(names(&f, &ranked).await, "bcad", "it ranks, and does not filter");
    let mut exact = Search::new(Collection::Actors);
    exact.require_phrase("sleep loop").unwrap();
    assert_eq!(names(&f, &exact).await, "c");
    exact.rank_by("sleep").unwrap();
    exact.require("name.neq", "c", Typing::ByValue).unwrap();
    assert_eq!(names(&f, &exact).await, "");
}

async fn workers_are_found(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (host, actor) = (f.host().await, f.actor().await);
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    for (key, value, expected) in [
        ("status", "BUSY", 1),
        ("status.in", "['READY', 'BUSY']", 1),
        ("actor_id", actor.id.as_str(), 1),
        ("last_execution_time.gt", "2000", 1),
        ("last_health_check_time.lt", "2000", 0),
        ("ch_name.like", "^worker_", 1),
        ("host_id", "none", 0),
        ("host_ip", "none", 1),
        ("host_ip.neq", "none", 0),
    ] {
        let search = search(Collection::Workers, &[(key, value)], Typing::ByValue);
        for within in [Within::Readable, Within::Actor(actor.id.as_str())] {
            let found = f.service.search_workers(&f.owner, within, &search).await.unwrap();
            let busy = found.page.iter().filter(|w| Some(&w.id) == claim.execution.worker.as_ref());
            assert_eq!(busy.count(), expected, "{key}={value}");
        }
    }
    let other = f.actor().await;
    let busy = search(Collection::Workers, &[("status", "BUSY")], Typing::ByValue);
    let of_other = Within::Actor(other.id.as_str());
    assert_eq!(f.service.search_workers(&f.owner, of_other, &busy).await.unwrap().total, 0);
}

/// A service whose searches look at this much, and three executions of one actor.
async fn with_limits(engine: Engine, change: impl FnOnce(&mut SearchLimits)) -> Fixture {
    let mut limits =
        SearchLimits { rows: 1_000_000, bytes: 1 << 40, time: Duration::from_secs(86_400) };
    change(&mut limits);
    let f = Fixture::with(engine, |config| config.search_limits = limits).await;
    executions(&f).await;
    f
}

/// How many records have `key=value`; none where that is too much to look at.
async fn found(f: &Fixture, of: Collection, key: &str, value: &str) -> Option<u64> {
    let search = search(of, &[(key, value)], Typing::ByField);
    let found = match of {
        Collection::Logs => {
            f.service.search_logs(&f.owner, Within::Readable, &search).await.map(|hits| hits.total)
        }
        _ => f
            .service
            .search_executions(&f.owner, Within::Readable, &search)
            .await
            .map(|hits| hits.total),
    };
    match found {
        Ok(total) => Some(total),
        Err(Error::Invalid { field, problem }) => {
            assert_eq!(field, "search");
            assert!(problem.contains("too much"), "{problem}");
            None
        }
        Err(other) => panic!("{other:?}"),
    }
}

async fn what_looks_at_too_many_rows_is_refused(engine: Engine) {
    let of = Collection::Executions;
    for (rows, expected) in [(3, Some(3)), (2, None), (0, None)] {
        let f = with_limits(engine, |limits| limits.rows = rows).await;
        assert_eq!(found(&f, of, "executor.like", "owner").await, expected, "{rows}");
        // What the database decides looks at none.
        assert_eq!(found(&f, of, "executor", "owner").await, Some(3), "{rows}");
    }
}

async fn what_looks_at_too_many_bytes_is_refused(engine: Engine) {
    // "Alpha beta" and "beta beta gamma".
    for (bytes, expected) in [(25, Some(2)), (24, None)] {
        let f = with_limits(engine, |limits| limits.bytes = bytes).await;
        assert_eq!(found(&f, Collection::Logs, "logs.like", "beta").await, expected, "{bytes}");
    }
    // Three times "owner".
    for (bytes, expected) in [(15, Some(3)), (14, None)] {
        let f = with_limits(engine, |limits| limits.bytes = bytes).await;
        let found = found(&f, Collection::Executions, "executor.like", "owner").await;
        assert_eq!(found, expected, "{bytes}");
    }
}

async fn what_takes_too_long_is_refused(engine: Engine) {
    let f = with_limits(engine, |limits| limits.time = Duration::ZERO).await;
    let of = Collection::Executions;
    assert_eq!(found(&f, of, "executor.like", "owner").await, None);
    assert_eq!(found(&f, of, "executor", "owner").await, Some(3));
}

async fn both_engines_page_alike(engine: Engine) {
    let f = Fixture::new(engine).await;
    for number in 0..10 {
        f.register(|new| new.name = Some(number.to_string())).await;
        f.clock.advance(Duration::from_micros(1));
    }
    for texts in [false, true] {
        for (skip, limit, expected) in [
            ("0", "100", "0123456789"),
            ("4", "23", "456789"),
            ("9", "1", "9"),
            ("10", "1", ""),
            ("0", "0", ""),
            ("9223372036854775807", "10000", ""),
        ] {
            let mut search = Search::new(Collection::Actors);
            search.set_skip(skip).unwrap();
            search.set_limit(limit).unwrap();
            if texts {
                search.require("name.like", "^[0-9]$", Typing::ByField).unwrap();
            }
            let found = f.service.search_actors(&f.owner, Within::Readable, &search).await.unwrap();
            let names: Vec<_> = found.page.iter().map(|a| a.name.clone().unwrap()).collect();
            assert_eq!((names.concat().as_str(), found.total), (expected, 10), "{skip} {limit}");
        }
    }
}

async fn too_much_is_refused(engine: Engine) {
    let f = Fixture::new(engine).await;
    f.register(|_| {}).await;
    let mut search = Search::new(Collection::Actors);
    for _ in 0..100 {
        search.require("name.neq", "x", Typing::ByField).unwrap();
    }
    assert!(search.require("name", "x", Typing::ByField).is_err(), "a condition too many");
    assert_eq!(
        f.service.search_actors(&f.owner, Within::Readable, &search).await.unwrap().total,
        1
    );
    let mut nul = Search::new(Collection::Actors);
    nul.require("name", "a\0b", Typing::ByField).unwrap();
    let refused = f.service.search_actors(&f.owner, Within::Readable, &nul).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    let new = NewActor::new("busybox");
    assert!(f.service.register_actor(&f.owner, new).await.is_ok(), "nothing was harmed");
}
