//! Executions that nobody sends a message for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{Actor, ActorUpdate, Error, Execution};
use fixture::{Engine, Fixture, PATIENCE, succeeded};
use tokio_util::sync::CancellationToken;

on_each_engine![
    an_actor_is_executed_when_its_time_has_come,
    an_outage_of_several_periods_is_made_up_for_once,
    a_schedule_that_is_off_goes_on_without_executions,
    many_processes_execute_a_time_once,
    a_scheduled_execution_acts_for_the_owner,
    schedules_are_kept_changed_and_refused,
];

const HOUR: Duration = Duration::from_secs(3_600);

async fn scheduled(f: &Fixture, schedule: &str) -> Actor {
    f.register(|new| new.cron_schedule = Some(schedule.to_owned())).await
}

async fn executions(f: &Fixture, actor: &Actor) -> Vec<Execution> {
    f.service.executions(&f.owner, actor.id.as_str()).await.unwrap().executions
}

async fn next(f: &Fixture, actor: &Actor) -> Option<String> {
    f.service.actor(&f.owner, actor.id.as_str()).await.unwrap().cron.next_text()
}

async fn an_actor_is_executed_when_its_time_has_come(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = scheduled(&f, "now + 1 hour").await;
    assert!(actor.cron.on);
    // The clock stands at eight o'clock.
    assert_eq!(actor.cron.next_text().as_deref(), Some("2027-1-15 8"));
    let later = scheduled(&f, "2027-01-15 9 + 2 days").await;
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
    assert_eq!(f.service.run_schedules().await.unwrap(), 0, "once");
    assert_eq!(next(&f, &actor).await.as_deref(), Some("2027-1-15 9"));
    let executed = executions(&f, &actor).await;
    assert_eq!(executed.len(), 1);
    assert_eq!(executed[0].executor, "cron");
    assert!(executions(&f, &later).await.is_empty(), "its time is to come");
    f.clock.advance(HOUR);
    assert_eq!(f.service.run_schedules().await.unwrap(), 2);
    assert_eq!(next(&f, &later).await.as_deref(), Some("2027-1-17 9"));
}

async fn an_outage_of_several_periods_is_made_up_for_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = scheduled(&f, "now + 2 hours").await;
    f.clock.advance(HOUR * 7);
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
    assert_eq!(f.service.run_schedules().await.unwrap(), 0);
    assert_eq!(executions(&f, &actor).await.len(), 1);
    assert_eq!(next(&f, &actor).await.as_deref(), Some("2027-1-15 16"));
    // Also where the time is this very hour.
    f.clock.advance(HOUR * 3);
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
    assert_eq!(f.service.run_schedules().await.unwrap(), 0);
    assert_eq!(next(&f, &actor).await.as_deref(), Some("2027-1-15 20"));
}

async fn a_schedule_that_is_off_goes_on_without_executions(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = scheduled(&f, "now + 1 hour").await;
    let id = actor.id.as_str();
    let updated = f.service.update_actor(&f.owner, id, ActorUpdate::new("busybox")).await.unwrap();
    assert!(!updated.cron.on);
    assert_eq!(updated.cron.schedule.as_deref(), Some("now + 1 hour"), "it is kept");
    f.clock.advance(HOUR * 3);
    assert_eq!(f.service.run_schedules().await.unwrap(), 0);
    assert!(executions(&f, &actor).await.is_empty());
    assert_eq!(next(&f, &actor).await.as_deref(), Some("2027-1-15 12"));
    let mut on = ActorUpdate::new("busybox");
    on.settings.cron_on = true;
    f.service.update_actor(&f.owner, id, on).await.unwrap();
    assert_eq!(f.service.run_schedules().await.unwrap(), 0, "what passed has passed");
    f.clock.advance(HOUR);
    assert_eq!(f.service.run_schedules().await.unwrap(), 1);
}

async fn many_processes_execute_a_time_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut actors = Vec::new();
    for _ in 0..20 {
        actors.push(scheduled(&f, "now + 1 hour").await);
    }
    let mut processes = Vec::new();
    for _ in 0..4 {
        let service = f.again().await;
        processes.push(tokio::spawn(async move { service.run_schedules().await.unwrap() }));
    }
    let mut executed = 0;
    for process in processes {
        executed += process.await.unwrap();
    }
    assert_eq!(executed, 20);
    for actor in &actors {
        assert_eq!(executions(&f, actor).await.len(), 1, "{}", actor.id);
    }
    // It is done without anybody asking.
    f.clock.advance(HOUR);
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn({
        let (service, stop) = (f.service.clone(), stop.clone());
        async move { service.upkeep(stop).await }
    });
    tokio::time::timeout(PATIENCE, async {
        while executions(&f, &actors[19]).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the upkeep looks at schedules");
    stop.cancel();
    upkeep.await.unwrap();
}

async fn a_scheduled_execution_acts_for_the_owner(engine: Engine) {
    let f = Fixture::new(engine).await;
    let host = f.host().await;
    scheduled(&f, "now + 1 hour").await;
    f.service.run_schedules().await.unwrap();
    let claim = f.claim(&host).await;
    let variable = |name: &str| {
        claim.environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    };
    for (name, value) in [
        ("MSG", "This is your cron execution"),
        ("_abaco_Content_Type", "str"),
        ("_abaco_username", "owner"),
        ("_abaco_api_server", "http://127.0.0.1:8000"),
        ("Time_msg_queued", "2027-01-15T08:00:00.000Z"),
    ] {
        assert_eq!(variable(name), Some(value), "{name}");
    }
    assert!(f.service.finish(&claim.key, succeeded()).await.unwrap());
}

async fn schedules_are_kept_changed_and_refused(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = scheduled(&f, "2028-01-01 0 + 1 week").await;
    let id = actor.id.as_str();
    let update = async |schedule: &str, on| {
        let mut update = ActorUpdate::new("busybox");
        update.settings.cron_schedule = Some(schedule.to_owned());
        update.settings.cron_on = on;
        f.service.update_actor(&f.owner, id, update).await
    };
    let updated = update("2078-09-6 20 + 3 months", true).await.unwrap();
    assert_eq!(updated.cron.schedule.as_deref(), Some("2078-09-6 20 + 3 months"));
    assert_eq!(updated.cron.next_text().as_deref(), Some("2078-9-6 20"));
    for (schedule, says) in [
        ("2020-06-21 14 + 6 hours", "The starting datetime is old"),
        ("2078-06-21 14 + 6 flimflams", "not in the correct format"),
        ("2078-02-30 14 + 6 hours", "not in the correct format"),
        ("2078-02-01 14 + x hours", "not in the correct format"),
    ] {
        match update(schedule, true).await {
            Err(Error::Invalid { field, problem }) => {
                assert_eq!(field, "cron_schedule", "{schedule}");
                assert!(problem.contains(says), "{schedule}: {problem}");
            }
            other => panic!("{schedule}: {other:?}"),
        }
    }
    let kept = f.service.actor(&f.owner, id).await.unwrap().cron;
    assert_eq!(kept, updated.cron);
    // One that has begun can be sent again as it is.
    let begun = update("now + 1 day", true).await.unwrap();
    f.clock.advance(HOUR * 30);
    f.service.run_schedules().await.unwrap();
    let again = update("now + 1 day", true).await.unwrap();
    assert!(again.cron.next > begun.cron.next);
    assert_eq!(again.cron.next_text().as_deref(), Some("2027-1-17 8"));
}
