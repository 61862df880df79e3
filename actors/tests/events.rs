//! Who hears of what, and that it arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Actor, ActorUpdate, Caller, DeliveryId, Error, EventDelivery, EventKind, EventTarget,
    Execution, Finish, HostId, NewActor, Outcome, Role, Service, Tenant, WebhookAnswer,
};
use fixture::{Engine, Fixture, PATIENCE, succeeded};

on_each_engine![
    a_linked_actor_hears_of_events_in_their_order,
    an_execution_that_could_not_run_is_no_event,
    a_link_and_a_webhook_both_hear,
    a_webhook_is_tried_again_with_growing_rests,
    an_address_that_may_not_be_called_is_given_up,
    webhooks_are_given_to_one_process_at_a_time,
    one_actors_webhooks_hold_up_nobody_elses,
    a_webhook_that_is_silent_is_called_once_and_not_for_each_event,
    an_owner_has_a_part_of_the_webhooks_on_their_way,
    links_are_checked,
    links_in_a_circle_are_refused,
    links_through_aliases_are_links,
    who_lost_the_linked_actor_is_told,
    what_was_left_is_delivered_by_the_upkeep,
    deliveries_are_the_owners_to_see,
];

with_a_broker![a_linked_actor_hears_of_events_in_their_order];

async fn ready(f: &Fixture, actor: &Actor, host: &HostId) {
    assert!(f.service.actor_ready(&actor.id, actor.revision, host).await.unwrap());
}

async fn runs(f: &Fixture, actor: &Actor, host: &HostId) -> Execution {
    let sent = f.send(actor, "x").await;
    let claim = f.claim(host).await;
    assert_eq!(claim.key.execution, sent.id);
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    sent
}

async fn deliveries(f: &Fixture, actor: &Actor) -> Vec<EventDelivery> {
    f.service.event_deliveries(&f.owner, actor.id.as_str()).await.unwrap()
}

async fn linked(f: &Fixture, to: &Actor) -> Actor {
    f.register(|new| new.link = to.id.to_string()).await
}

async fn update(f: &Fixture, actor: &Actor, link: &str) -> Result<Actor, Error> {
    let mut update = ActorUpdate::new("busybox");
    update.settings.link = link.to_owned();
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await
}

fn member(payload: &str, name: &str) -> serde_json::Value {
    let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
    payload[name].clone()
}

async fn a_linked_actor_hears_of_events_in_their_order(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    // Stateful, so that it runs one after the other.
    let b = f.register(|new| new.stateless = false).await;
    let a = linked(&f, &b).await;
    ready(&f, &a, &host).await;
    let sent = f.send(&a, "x").await;
    let mut events = Vec::new();
    let mut ran = false;
    while events.len() < 2 {
        let claim = f.claim(&host).await;
        if claim.actor.id == b.id {
            let message = claim.environment.iter().find(|(n, _)| n == "MSG").unwrap().1.clone();
            let content = claim.environment.iter().find(|(n, _)| n == "_abaco_Content_Type");
            assert_eq!(content.unwrap().1, "application/json");
            assert_eq!(claim.execution.executor, "Abaco Event");
            events.push(message);
        } else {
            ran = true;
        }
        assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
    }
    assert!(ran);
    assert!(events[0].contains("'event_type': 'ACTOR_READY'"), "{events:?}");
    assert!(events[1].contains("'event_type': 'EXECUTION_COMPLETE'"), "{events:?}");
    for event in &events {
        for part in [
            "'event_time_utc': '2027-01-15T08:00:00.000Z'".to_owned(),
            "'event_time_display': '2027-01-15T08:00:00.000Z'".to_owned(),
            format!("'actor_id': '{}'", a.id),
            format!("'actor_dbid': '{}'", a.dbid()),
            "'tenant_id': 'ABAX'".to_owned(),
            format!("'_abaco_link': '{}'", b.dbid()),
            "'_abaco_webhook': ''".to_owned(),
        ] {
            assert!(event.contains(&part), "no {part} in {event}");
        }
    }
    let details = format!("'execution_id': '{}'", sent.id);
    for part in [&*details, "'status': 'COMPLETE'", "'exit_code': 0"] {
        assert!(events[1].contains(part), "no {part} in {}", events[1]);
    }
    let seen = deliveries(&f, &a).await;
    let kinds: Vec<_> = seen.iter().map(|d| (d.event, d.kind, d.delivered.is_some())).collect();
    assert_eq!(
        kinds,
        [
            (EventKind::ExecutionComplete, EventTarget::Link, true),
            (EventKind::ActorReady, EventTarget::Link, true)
        ]
    );
}

async fn an_execution_that_could_not_run_is_no_event(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.webhook = "https://example.org/".to_owned()).await;
    f.send(&actor, "x").await;
    let claim = f.claim(&host).await;
    let failed = Finish::new(Outcome::CouldNotStart, "no such program");
    assert!(f.service.finish(&claim.key, failed).await.unwrap());
    assert!(deliveries(&f, &actor).await.is_empty());
    f.service.actor_failed(&actor.id, 1, "no image").await.unwrap();
    let seen = deliveries(&f, &actor).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].event, EventKind::ActorError);
    assert_eq!(member(&seen[0].payload, "status_message"), "no image");
    // Said again, it does not happen again.
    assert!(!f.service.actor_failed(&actor.id, 1, "no image").await.unwrap());
    assert_eq!(deliveries(&f, &actor).await.len(), 1);
}

async fn a_link_and_a_webhook_both_hear(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let b = f.actor().await;
    let a = f
        .register(|new| {
            new.link = b.id.to_string();
            new.webhook = "https://example.org/hook?key=secret".to_owned();
        })
        .await;
    ready(&f, &a, &host).await;
    let claim = f.claim(&host).await;
    assert_eq!(claim.actor.id, b.id);
    let due = f.service.due_webhooks(10).await.unwrap();
    assert_eq!(due.len(), 1);
    let delivery = &due[0].delivery;
    assert_eq!(delivery.target, "https://example.org/hook?key=secret");
    assert!(!format!("{delivery:?}").contains("secret"));
    for (name, value) in [
        ("event_type", "ACTOR_READY"),
        ("_abaco_link", &b.dbid()),
        ("_abaco_Content_Type", "application/json"),
        ("_abaco_username", "Abaco Event"),
        ("_abaco_api_server", "http://127.0.0.1:8000"),
    ] {
        assert_eq!(member(&due[0].body, name), value, "{name}");
    }
    f.service.webhook_answered(delivery, WebhookAnswer::Taken(204)).await.unwrap();
    let seen = deliveries(&f, &a).await;
    assert!(seen.iter().all(|d| d.delivered.is_some() && d.next.is_none()), "{seen:?}");
    assert_eq!(seen.iter().find_map(|d| d.last_status), Some(204));
}

async fn a_webhook_is_tried_again_with_growing_rests(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.webhook = "https://example.org/".to_owned()).await;
    ready(&f, &actor, &host).await;
    let due = async || f.service.due_webhooks(10).await.unwrap();
    for (attempt, rest) in [5, 20, 80, 320, 1_280, 3_600, 3_600].into_iter().enumerate() {
        let taken = due().await;
        assert_eq!(taken.len(), 1, "{attempt}");
        assert_eq!(taken[0].delivery.attempts as usize, attempt + 1);
        let answer =
            WebhookAnswer::NotNow { status: Some(503), error: "it answered 503".to_owned() };
        f.service.webhook_answered(&taken[0].delivery, answer).await.unwrap();
        f.clock.advance(Duration::from_secs(rest - 1));
        assert!(due().await.is_empty(), "{attempt}");
        f.clock.advance(Duration::from_secs(1));
    }
    let last = due().await.remove(0).delivery;
    let answer = WebhookAnswer::NotNow { status: None, error: "no answer".to_owned() };
    f.service.webhook_answered(&last, answer).await.unwrap();
    f.clock.advance(Duration::from_secs(86_400));
    assert!(due().await.is_empty());
    let seen = deliveries(&f, &actor).await.remove(0);
    assert_eq!((seen.attempts, seen.next, seen.delivered), (8, None, None));
    assert_eq!(seen.last_error.as_deref(), Some("no answer"));
    // The actor goes on, whatever its webhook does.
    runs(&f, &actor, &host).await;
}

async fn an_address_that_may_not_be_called_is_given_up(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.register(|new| new.webhook = "http://127.0.0.1/".to_owned()).await;
    ready(&f, &actor, &host).await;
    let due = f.service.due_webhooks(10).await.unwrap().remove(0);
    let answer = WebhookAnswer::Never { error: "no public address".to_owned() };
    f.service.webhook_answered(&due.delivery, answer).await.unwrap();
    f.clock.advance(Duration::from_secs(86_400));
    assert!(f.service.due_webhooks(10).await.unwrap().is_empty());
    let seen = deliveries(&f, &actor).await.remove(0);
    assert_eq!(seen.last_error.as_deref(), Some("no public address"));
}

async fn webhooks_are_given_to_one_process_at_a_time(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    for _ in 0..12 {
        let actor = f.register(|new| new.webhook = "https://example.org/".to_owned()).await;
        ready(&f, &actor, &host).await;
    }
    let mut processes = Vec::new();
    for _ in 0..4 {
        let service: Service = f.again().await;
        processes.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let due = service.due_webhooks(3).await.unwrap();
                if due.is_empty() {
                    return taken;
                }
                taken.extend(due.into_iter().map(|due| due.delivery.id));
            }
        }));
    }
    let mut taken = Vec::new();
    for process in processes {
        taken.extend(process.await.unwrap());
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 12);
    // Who took them said nothing: they come again.
    f.clock.advance(Duration::from_secs(301));
    assert_eq!(f.service.due_webhooks(100).await.unwrap().len(), 12);
}

/// An actor of `owner` with this many events for its webhook.
async fn with_events(f: &Fixture, owner: &str, count: u32) -> Actor {
    let mut new = NewActor::new("busybox");
    new.webhook = "https://example.org/".to_owned();
    let owner = Caller::new(Tenant::default(), owner, Role::User);
    let actor = f.service.register_actor(&owner, new).await.unwrap();
    let now = f.clock.now().micros();
    let rows = (1..=count).map(|n| {
        let (id, created) = (DeliveryId::generate(), now + i64::from(n));
        format!(
            "('{id}', 'ABAX', '{}', 'ACTOR_READY', 'webhook', 'https://example.org/', '{{}}', \
             {created}, {now})",
            actor.id
        )
    });
    let rows: Vec<_> = rows.collect();
    f.rows
        .execute(&format!(
            "insert into deliveries (id, tenant, actor_id, event_type, kind, target, payload, \
                                     created_us, next_us) values {}",
            rows.join(", ")
        ))
        .await;
    // Whoever comes later waits behind.
    f.clock.advance(Duration::from_secs(1));
    actor
}

async fn one_actors_webhooks_hold_up_nobody_elses(engine: Engine) {
    let f = Fixture::new(engine).await;
    let flood = with_events(&f, "mallory", 200).await;
    let other = with_events(&f, "ada", 1).await;
    let due = f.service.due_webhooks(20).await.unwrap();
    let of = |actor: &Actor| due.iter().filter(|due| due.delivery.actor == actor.id).count();
    assert_eq!((of(&flood), of(&other)), (10, 1), "both have their turn");
    let more = f.service.due_webhooks(20).await.unwrap();
    assert!(more.is_empty(), "its others wait until it is said what became of these");
    for due in due.iter().filter(|due| due.delivery.actor == flood.id) {
        f.service.webhook_answered(&due.delivery, WebhookAnswer::Taken(200)).await.unwrap();
    }
    let next = f.service.due_webhooks(20).await.unwrap();
    assert_eq!(next.len(), 10);
    let last = due.iter().rfind(|due| due.delivery.actor == flood.id).unwrap();
    assert!(next[0].delivery.created > last.delivery.created, "in their order");
}

async fn a_webhook_that_is_silent_is_called_once_and_not_for_each_event(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = with_events(&f, "mallory", 30).await;
    let calls = async || f.service.due_webhooks(20).await.unwrap();
    for rest in [5, 20, 80, 320, 1_280, 3_600, 3_600] {
        let due = calls().await;
        assert_eq!(due.len(), 10);
        let silent = WebhookAnswer::NotNow { status: None, error: "no answer".to_owned() };
        f.service.webhook_answered(&due[0].delivery, silent).await.unwrap();
        let others: Vec<_> = due[1..].iter().map(|due| due.delivery.clone()).collect();
        f.service.webhook_is_silent(&actor.id, &others).await.unwrap();
        assert!(calls().await.is_empty(), "all of them rest");
        f.clock.advance(Duration::from_secs(rest));
    }
    let due = calls().await;
    let all: Vec<_> = due.into_iter().map(|due| due.delivery).collect();
    f.service.webhook_is_silent(&actor.id, &all).await.unwrap();
    f.clock.advance(Duration::from_secs(86_400));
    assert!(calls().await.is_empty(), "they are given up together");
    let left = "select count(*) from deliveries where next_us is not null";
    assert_eq!(f.rows.number(left).await, 0);
}

async fn an_owner_has_a_part_of_the_webhooks_on_their_way(engine: Engine) {
    let f = Fixture::new(engine).await;
    for _ in 0..20 {
        with_events(&f, "mallory", 1).await;
    }
    let ada = with_events(&f, "ada", 1).await;
    let first = f.service.due_webhooks(2).await.unwrap();
    assert!(first.iter().any(|due| due.delivery.actor == ada.id), "owners take turns");
    let mut of_mallory = 1;
    loop {
        let more = f.service.due_webhooks(5).await.unwrap();
        if more.is_empty() {
            break;
        }
        of_mallory += more.len();
    }
    assert_eq!(of_mallory, 16);
}

async fn links_are_checked(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let stranger = Caller::new(Tenant::default(), "stranger", Role::User);
    let elsewhere = Caller::new(Tenant::new("OTHER"), "owner", Role::Admin);
    let id = actor.id.to_string();
    for (caller, link) in [
        (&f.owner, "nobody"),
        (&f.owner, "0000"),
        (&stranger, id.as_str()),
        (&elsewhere, id.as_str()),
    ] {
        let mut new = NewActor::new("busybox");
        new.link = link.to_owned();
        match f.service.register_actor(caller, new).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "link", "{link}"),
            other => panic!("{link}: {other:?}"),
        }
    }
    assert_eq!(update(&f, &actor, "").await.unwrap().link, "");
}

async fn links_in_a_circle_are_refused(engine: Engine) {
    let f = Fixture::new(engine).await;
    let circle = |refused: Result<Actor, Error>| match refused {
        Err(Error::Invalid { field, problem }) => {
            assert_eq!(field, "link");
            problem
        }
        other => panic!("{other:?}"),
    };
    let mut chain = vec![f.actor().await];
    for _ in 0..4 {
        let next = linked(&f, chain.last().unwrap()).await;
        chain.push(next);
    }
    let (first, last) = (&chain[0], &chain[4]);
    let problem = circle(update(&f, first, last.id.as_str()).await);
    assert!(problem.contains("this update would result in a cycle of linked actors"), "{problem}");
    let problem = circle(update(&f, first, first.id.as_str()).await);
    assert!(problem.contains("itself"), "{problem}");
    // Two that lead to the same are none.
    let other = linked(&f, first).await;
    update(&f, &other, chain[2].id.as_str()).await.unwrap();
    // Nor is what no longer leads there.
    update(&f, &chain[2], "").await.unwrap();
    update(&f, first, last.id.as_str()).await.unwrap();

    // Of two updates at once that close a circle together, one is refused.
    for _ in 0..5 {
        let (a, b) = (f.actor().await, f.actor().await);
        let (one, two) = tokio::join!(update(&f, &a, b.id.as_str()), update(&f, &b, a.id.as_str()));
        assert_ne!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
    }
}

async fn links_through_aliases_are_links(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let (a, b, c) = (f.actor().await, f.actor().await, f.actor().await);
    let s = &f.service;
    let refused = |result: Result<Actor, Error>, part: &str| match result {
        Err(Error::Invalid { field, problem }) => {
            assert!(field == "link" && problem.contains(part), "{field}: {problem}");
        }
        other => panic!("{other:?}"),
    };
    for (name, actor) in [("to-a", &a), ("to-b", &b)] {
        s.create_alias(&f.owner, name, actor.id.as_str()).await.unwrap();
    }
    refused(update(&f, &a, "to-a").await, "itself");
    assert_eq!(update(&f, &a, "to-b").await.unwrap().link, "to-b", "as it was given");
    update(&f, &b, c.id.as_str()).await.unwrap();
    let circle = "this update would result in a cycle of linked actors";
    refused(update(&f, &c, "to-a").await, circle);
    refused(update(&f, &c, a.id.as_str()).await, circle);
    refused(update(&f, &c, "to-b").await, circle);

    // Where the alias leads when it happens, there it is heard.
    let d = f.actor().await;
    s.update_alias(&f.owner, "to-b", d.id.as_str()).await.unwrap();
    ready(&f, &a, &host).await;
    let claim = f.claim(&host).await;
    assert_eq!(claim.actor.id, d.id);
    assert!(s.finish(&claim.key, succeeded()).await.unwrap());
    // It no longer leads there, so this is no circle any more.
    update(&f, &c, "to-a").await.unwrap();
    // Pointed back, the alias closes one, round which no event goes.
    s.update_alias(&f.owner, "to-b", b.id.as_str()).await.unwrap();
    runs(&f, &a, &host).await;
    assert!(fixture::nothing_is_deliverable(s).await);
    let last = deliveries(&f, &a).await.remove(0);
    assert_eq!((last.event, last.delivered), (EventKind::ExecutionComplete, None));
    assert!(last.last_error.as_deref().is_some_and(|error| error.contains("cycle")), "{last:?}");
}

async fn who_lost_the_linked_actor_is_told(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let b = f.actor().await;
    let a = linked(&f, &b).await;
    f.service.delete_actor(&f.owner, b.id.as_str()).await.unwrap();
    ready(&f, &a, &host).await;
    let seen = deliveries(&f, &a).await.remove(0);
    assert_eq!((seen.delivered, seen.next), (None, None));
    let error = seen.last_error.unwrap();
    assert!(error.contains(b.id.as_str()), "{error}");
    assert_eq!(member(&seen.payload, "_abaco_link"), "");
    runs(&f, &a, &host).await;
}

async fn what_was_left_is_delivered_by_the_upkeep(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let b = f.actor().await;
    let a = linked(&f, &b).await;
    ready(&f, &a, &host).await;
    let waits = async || f.service.message_count(&f.owner, b.id.as_str()).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while waits().await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is told at once");
    // As after a crash between the event and its delivery.
    let now = f.clock.now().micros();
    f.rows
        .execute(&format!(
            "update deliveries set next_us = {now}, delivered_us = null, attempts = 0"
        ))
        .await;
    assert_eq!(f.service.deliver_to_links().await.unwrap(), 1);
    assert_eq!(f.service.deliver_to_links().await.unwrap(), 0);
    assert_eq!(waits().await, 2);
}

async fn deliveries_are_the_owners_to_see(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    let stranger = Caller::new(Tenant::default(), "stranger", Role::User);
    for refused in [
        f.service.event_deliveries(&stranger, actor.id.as_str()).await.map(drop),
        f.service.actor_of_webhook(&stranger, actor.id.as_str()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    }
    let elsewhere = Caller::new(Tenant::new("OTHER"), "owner", Role::Admin);
    let refused = f.service.event_deliveries(&elsewhere, actor.id.as_str()).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
}
