//! What becomes of leases, schedules and what is kept when clocks are set, are
//! wrong, or stood still.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{
    Actor, Caller, Clock, Config, ExecutionStatus, Machine, NewActor, NewMessage, QueueConfig,
    Role, Service, Swept, Tenant, Time,
};
use fixture::{Engine, LEASE, Rows, claim, host, succeeded};

on_each_engine![
    a_wall_clock_that_is_set_moves_nothing,
    a_machine_that_slept_has_time_to_renew_its_leases,
];

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_US: i64 = 3_600_000_000;
const YEAR_US: i64 = 365 * 24 * HOUR_US;

/// A process on a machine of its own.
struct Process {
    service: Service,
    machine: Machine,
    rows: Rows,
    owner: Caller,
}

impl Process {
    async fn new(engine: Engine) -> Self {
        let rows = Rows::new(engine);
        Service::migrate(&rows.config()).await.unwrap();
        let (service, machine) = on_another_machine(&rows).await;
        let owner = Caller::new(Tenant::default(), "owner", Role::User);
        Self { service, machine, rows, owner }
    }

    async fn actor(&self, change: impl FnOnce(&mut NewActor)) -> Actor {
        let mut new = NewActor::new("busybox");
        change(&mut new);
        self.service.register_actor(&self.owner, new).await.unwrap()
    }

    async fn send(&self, actor: &Actor) {
        let message = NewMessage::text("x");
        self.service.send_message(&self.owner, actor.id.as_str(), message).await.unwrap();
    }

    async fn statuses(&self, actor: &Actor) -> Vec<ExecutionStatus> {
        let all = self.service.executions(&self.owner, actor.id.as_str()).await.unwrap();
        all.executions.iter().map(|execution| execution.status).collect()
    }
}

async fn on_another_machine(rows: &Rows) -> (Service, Machine) {
    let mut config = Config::new(rows.config(), QueueConfig::Database);
    config.execution_retention = Some(HOUR);
    config.result_expiry = HOUR;
    let machine = Machine::by_hand(Time::from_micros(1_800_000_000_000_000));
    let service = Service::open(config, Clock::on(machine.clone())).await.unwrap();
    (service, machine)
}

async fn a_wall_clock_that_is_set_moves_nothing(engine: Engine) {
    let p = Process::new(engine).await;
    let host = host(&p.service, "host").await;
    let scheduled = p.actor(|new| {
        new.cron_schedule = Some("now + 1 hour".to_owned());
        new.cron_on = true;
    });
    let (scheduled, actor) = (scheduled.await, p.actor(|_| {}).await);
    assert_eq!(p.service.run_schedules().await.unwrap(), 1, "it begins at once");
    let first = claim(&p.service, &host).await;
    assert!(p.service.finish(&first.key, succeeded()).await.unwrap());
    p.send(&actor).await;
    let ended = claim(&p.service, &host).await;
    assert!(p.service.append_logs(&ended.key, 0, b"output", false).await.unwrap());
    assert!(p.service.finish(&ended.key, succeeded()).await.unwrap());
    p.send(&actor).await;
    let running = claim(&p.service, &host).await;
    for step in [YEAR_US, -2 * YEAR_US, HOUR_US] {
        p.machine.set_wall(step);
        assert_eq!(p.service.sweep().await.unwrap(), Swept::default(), "{step}");
        assert_eq!(p.service.remove_old_executions().await.unwrap(), 0, "{step}");
        assert_eq!(p.service.run_schedules().await.unwrap(), 0, "{step}");
        let renewed = p.service.renew(&host, std::slice::from_ref(&running.key), LEASE).await;
        assert_eq!(renewed.unwrap().lost, []);
    }
    assert_eq!(p.statuses(&actor).await, [ExecutionStatus::Complete, ExecutionStatus::Running]);
    assert_eq!(p.statuses(&scheduled).await, [ExecutionStatus::Complete]);
}

async fn a_machine_that_slept_has_time_to_renew_its_leases(engine: Engine) {
    let p = Process::new(engine).await;
    let host = host(&p.service, "host").await;
    let actor = p.actor(|_| {}).await;
    p.send(&actor).await;
    let ended = claim(&p.service, &host).await;
    assert!(p.service.finish(&ended.key, succeeded()).await.unwrap());
    p.send(&actor).await;
    let held = claim(&p.service, &host).await;
    p.machine.sleep(2 * HOUR);
    assert_eq!(p.service.sweep().await.unwrap(), Swept::default());
    assert_eq!(p.service.remove_old_executions().await.unwrap(), 0);
    let renewal = p.service.renew(&host, std::slice::from_ref(&held.key), LEASE).await.unwrap();
    assert_eq!(renewal.lost, []);
    assert_eq!(p.service.sweep().await.unwrap(), Swept::default());
    assert!(p.service.finish(&held.key, succeeded()).await.unwrap());
    // What is old is removed when that has settled.
    p.machine.pass(HOUR);
    assert_eq!(p.service.remove_old_executions().await.unwrap(), 1);
}

#[tokio::test]
async fn a_process_with_a_wrong_clock_ends_no_lease_of_others() {
    let p = Process::new(Engine::Postgres).await;
    let host = host(&p.service, "host").await;
    let actor = p.actor(|_| {}).await;
    p.send(&actor).await;
    let held = claim(&p.service, &host).await;
    let (ahead, machine) = on_another_machine(&p.rows).await;
    machine.pass(HOUR / 60);
    assert_eq!(ahead.sweep().await.unwrap(), Swept::default());
    assert!(p.service.finish(&held.key, succeeded()).await.unwrap());
}
