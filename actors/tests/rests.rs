//! Actors whose images cannot be had: they rest as a whole, and lose nothing.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Actor, ActorChange, ActorStatus, ActorUpdate, Claim, ExecutionStatus, HostId, Outcome, Phase,
    Phases, Rest,
};
use fixture::{Engine, Fixture, LEASE, nothing_is_deliverable, receives, succeeded};

on_each_engine!(
    a_thousand_messages_wait_with_their_actor_and_are_hardly_claimed,
    a_quick_execution_ends_a_rest_too,
    an_update_ends_a_rest_at_once,
    a_rest_is_of_one_revision_and_of_actors_that_run_something,
    preparations_wait_until_a_rest_is_over,
    a_halt_and_a_deletion_do_not_wait_for_a_rest,
);
with_a_broker!(
    a_thousand_messages_wait_with_their_actor_and_are_hardly_claimed,
    a_quick_execution_ends_a_rest_too,
    an_update_ends_a_rest_at_once,
);

const REASON: &str = "waiting for image busybox: the registry answered 503";

impl Fixture {
    async fn seen(&self, actor: &Actor) -> Actor {
        self.service.actor(&self.owner, actor.id.as_str()).await.unwrap()
    }

    /// As a host does whose pull has failed.
    async fn lacks_image(&self, claim: &Claim) -> Option<Rest> {
        let actor = &claim.actor;
        let rest = self.service.actor_rests(&actor.id, actor.revision, REASON).await.unwrap();
        assert!(self.service.release(&claim.key).await.unwrap());
        rest
    }

    /// Where there is a broker, its upkeep: hosts are called for what may run by now.
    async fn calls(&self) {
        if self.broker.is_some() {
            self.service.activate_overdue().await.unwrap();
        }
    }

    /// One claim, made by a host that asks until there is something.
    async fn claims(&self, host: &HostId) -> Claim {
        let claimed = tokio::time::timeout(fixture::PATIENCE, async {
            loop {
                self.calls().await;
                let patience = Duration::from_millis(600);
                let Ok(delivery) = tokio::time::timeout(patience, receives(&self.service)).await
                else {
                    continue;
                };
                let claimed = self.service.claim(delivery.unwrap(), host, LEASE).await.unwrap();
                if let Some(claim) = claimed {
                    return claim;
                }
            }
        });
        claimed.await.expect("something may run")
    }

    async fn nothing_may_run(&self) -> bool {
        self.calls().await;
        nothing_is_deliverable(&self.service).await
    }
}

fn is_ready_at_once() -> Phases {
    let mut phases = Phases::default();
    phases.set(Phase::ImageReady, abax_actors::Time::from_micros(1));
    phases
}

async fn a_thousand_messages_wait_with_their_actor_and_are_hardly_claimed(engine: Engine) {
    const MESSAGES: u64 = 1_000;
    const TRIES: u64 = 12;
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    assert!(f.service.actor_ready(&actor.id, 1, &host).await.unwrap());
    let mut sending = tokio::task::JoinSet::new();
    for n in 0..MESSAGES {
        let (service, owner, id) = (f.service.clone(), f.owner.clone(), actor.id.clone());
        sending.spawn(async move {
            let message = abax_actors::NewMessage::text(n.to_string());
            service.send_message(&owner, id.as_str(), message).await.unwrap();
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }

    // What is under way when the first pull fails.
    let mut claimed = Vec::new();
    for _ in 0..6 {
        claimed.push(f.claims(&host).await);
    }
    let mut claims = 6;
    let mut rest = f.lacks_image(&claimed[0]).await;
    for claim in &claimed[1..] {
        assert_eq!(f.lacks_image(claim).await, None, "one failure, seen six times");
    }
    assert_eq!(rest.unwrap().failures, 1);
    for n in 2..=TRIES {
        let seen = f.seen(&actor).await;
        let until = rest.unwrap().until;
        assert_eq!(seen.rest, rest);
        assert_eq!(seen.status, ActorStatus::Ready, "a fault of the platform is no ERROR");
        assert_eq!(seen.status_message, format!("{REASON}; next try at {}", until.iso_millis()));
        assert!(f.nothing_may_run().await, "{n}");
        let left = until.micros() - f.clock.now().micros();
        f.clock.advance(Duration::from_micros(u64::try_from(left).unwrap()));
        let claim = f.claims(&host).await;
        claims += 1;
        assert_eq!(claim.attempt, 1, "what waits for an image spends no attempt");
        assert!(f.nothing_may_run().await, "one is enough to see");
        rest = f.lacks_image(&claim).await;
        assert_eq!(u64::from(rest.unwrap().failures), n);
    }
    assert_eq!(claims, TRIES + 5, "of a thousand messages, and over {TRIES} tries");
    let waiting = f.service.message_count(&f.owner, actor.id.as_str()).await.unwrap();
    assert_eq!(waiting, MESSAGES, "none is lost");

    // The registry is back.
    f.clock.advance(Duration::from_secs(60));
    let first = f.claims(&host).await;
    assert!(f.service.record_phase(&first.key, Phase::ImageReady).await.unwrap());
    let seen = f.seen(&actor).await;
    assert_eq!((seen.rest, seen.status_message.as_str()), (None, " "));
    for _ in 0..5 {
        f.claims(&host).await;
    }
    assert!(f.nothing_may_run().await, "as many as before");
    assert!(f.service.finish(&first.key, succeeded()).await.unwrap());
    f.claims(&host).await;
}

async fn a_quick_execution_ends_a_rest_too(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    for n in 0..3 {
        f.send(&actor, &n.to_string()).await;
    }
    let claim = f.claims(&host).await;
    let rest = f.lacks_image(&claim).await.unwrap();
    assert_eq!(f.seen(&actor).await.rest, Some(rest));
    f.clock.advance(Duration::from_secs(5));
    // It ended before anybody told of its phases.
    let claim = f.claims(&host).await;
    let mut finish = succeeded();
    finish.phases = is_ready_at_once();
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
    assert_eq!(f.seen(&actor).await.rest, None);
    f.claims(&host).await;
    f.claims(&host).await;
}

async fn an_update_ends_a_rest_at_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    let id = actor.id.as_str();
    let change = ActorChange::new(|settings| settings.description = "mended".to_owned());
    let updates = [change.clone(), change.clone().forced(true), change];
    for (n, update) in updates.into_iter().enumerate() {
        let claim = f.claims(&host).await;
        assert!(f.lacks_image(&claim).await.is_some());
        assert!(f.nothing_may_run().await, "{n}");
        let updated = f.service.change_actor(&f.owner, id, update).await.unwrap();
        assert_eq!((updated.rest, updated.status_message.as_str()), (None, ""), "{n}");
        assert_eq!(f.seen(&actor).await.rest, None, "{n}");
    }
    let claim = f.claims(&host).await;
    assert_eq!(claim.attempt, 1);
    assert!(f.service.record_phase(&claim.key, Phase::ImageReady).await.unwrap());
    assert!(f.lacks_image(&claim).await.is_some());
    let update = ActorUpdate::new("busybox");
    let updated = f.service.update_actor(&f.owner, id, update).await.unwrap();
    assert_eq!(updated.status, ActorStatus::Ready);
    assert_eq!((updated.rest, updated.status_message.as_str()), (None, " "));
    f.claims(&host).await;
}

async fn a_rest_is_of_one_revision_and_of_actors_that_run_something(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    f.send(&actor, "x").await;
    let claim = f.claims(&host).await;
    let update = ActorUpdate::new("another");
    f.service.update_actor(&f.owner, actor.id.as_str(), update).await.unwrap();
    assert_eq!(f.lacks_image(&claim).await, None, "of the image before");
    assert_eq!(f.seen(&actor).await.rest, None);
    assert!(f.service.actor_failed(&actor.id, 2, "no such image").await.unwrap());
    assert_eq!(f.service.actor_rests(&actor.id, 2, REASON).await.unwrap(), None);
    assert_eq!(f.seen(&actor).await.status_message, "no such image");
}

async fn preparations_wait_until_a_rest_is_over(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let classes = f.service.config().queues.clone();
    let prepares = async || {
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, f.service.receive_preparation(&classes)).await.ok()
    };
    let preparation = prepares().await.expect("it is new").unwrap();
    f.service.actor_rests(&actor.id, 1, REASON).await.unwrap().unwrap();
    drop(preparation);
    assert!(prepares().await.is_none());
    let again = f.again().await;
    let patience = Duration::from_millis(100);
    let elsewhere = tokio::time::timeout(patience, again.receive_preparation(&classes)).await;
    assert!(elsewhere.is_err(), "on no host");
    f.clock.advance(Duration::from_secs(5));
    let preparation = prepares().await.expect("the rest is over").unwrap();
    assert!(f.service.actor_ready(&actor.id, 1, &host).await.unwrap());
    drop(preparation);
    let seen = f.seen(&actor).await;
    assert_eq!((seen.status, seen.rest), (ActorStatus::Ready, None));
    assert_eq!(seen.status_message, " ");

    // A host that has the image says so of an actor that is READY, too.
    f.service.actor_rests(&actor.id, 1, REASON).await.unwrap().unwrap();
    assert!(!f.service.actor_ready(&actor.id, 1, &host).await.unwrap(), "it was READY");
    let seen = f.seen(&actor).await;
    assert_eq!((seen.rest, seen.status_message.as_str()), (None, " "));
}

async fn a_halt_and_a_deletion_do_not_wait_for_a_rest(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    let actor = f.actor().await;
    let id = actor.id.as_str();
    let [halted, asked] = [f.send(&actor, "x").await, f.send(&actor, "y").await];
    let [first, second] = [f.claims(&host).await, f.claims(&host).await];
    f.service.halt_execution(&f.owner, id, asked.id.as_str()).await.unwrap();
    assert!(f.lacks_image(&first).await.is_some());
    assert!(f.lacks_image(&second).await.is_none());
    let ended = f.execution(&asked).await;
    assert_eq!(ended.outcome, Some(Outcome::Cancelled), "it does not wait again");
    assert_eq!(f.execution(&halted).await.status, ExecutionStatus::Submitted);
    f.service.halt_execution(&f.owner, id, halted.id.as_str()).await.unwrap();
    assert_eq!(f.execution(&halted).await.outcome, Some(Outcome::Cancelled));
    let deleted = f.service.delete_actor(&f.owner, id).await.unwrap();
    assert_eq!(deleted, abax_actors::Deleted::Completely);
}
