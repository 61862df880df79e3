//! What adds up: executions of an actor, of a tenant, and of what is gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
mod fixture;

use std::time::Duration;

use abax_actors::{Actor, Caller, Error, ExecutionsPage, Role, Tenant, Used};
use fixture::{Engine, Fixture, succeeded};

on_each_engine![an_admin_sees_its_own_tenant, executions_come_in_pages, what_is_gone_still_counts,];

/// Runs one execution of 2.9 s, 5 ns and 7 bytes.
async fn run(f: &Fixture, actor: &Actor) {
    let host = f.host().await;
    f.send(actor, "x").await;
    let claim = f.claim(&host).await;
    let mut finish = succeeded();
    finish.usage.runtime = Duration::from_millis(2_900);
    finish.usage.cpu_ns = 5;
    finish.usage.io_bytes = 7;
    assert!(f.service.finish(&claim.key, finish).await.unwrap());
}

fn used(times: u32) -> Used {
    let n = u64::from(times);
    Used { runtime: Duration::from_millis(2_900) * times, cpu_ns: 5 * n, io_bytes: 7 * n }
}

async fn executions_come_in_pages(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (actor, other) = (f.actor().await, f.actor().await);
    for actor in [&actor, &actor, &other] {
        run(&f, actor).await;
    }
    let last = f.send(&actor, "waits").await;
    let id = actor.id.as_str();
    let all = f.service.executions(&f.owner, id).await.unwrap();
    assert_eq!((all.total_executions, all.executions.len()), (3, 3));
    assert_eq!(
        (all.total_cpu_ns, all.total_io_bytes, all.total_runtime_seconds),
        (10, 14, 4),
        "whole seconds of each"
    );
    for (skip, limit, newest_first, expected) in [
        (0, 100, false, vec![0, 1, 2]),
        (1, 1, false, vec![1]),
        (0, 2, true, vec![2, 1]),
        (2, 5, true, vec![0]),
        (3, 100, false, vec![]),
        (0, 0, false, vec![]),
        (u64::MAX, u32::MAX, false, vec![]),
    ] {
        let page = ExecutionsPage { skip, limit, newest_first };
        let summary = f.service.executions_page(&f.owner, id, page).await.unwrap();
        let ids: Vec<_> = summary.executions.into_iter().map(|e| e.id).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|n: usize| all.executions[n].id.clone()).collect();
        assert_eq!((ids, summary.total_executions), (expected, 3), "{page:?}");
    }
    assert_eq!(all.executions[2].id, last.id);
}

async fn what_is_gone_still_counts(engine: Engine) {
    let f = Fixture::with(engine, |config| {
        config.execution_retention = Some(Duration::from_secs(60));
    })
    .await;
    let (kept, gone, idle) = (f.actor().await, f.actor().await, f.actor().await);
    for actor in [&kept, &gone, &gone] {
        run(&f, actor).await;
    }
    f.service.delete_actor(&f.owner, gone.id.as_str()).await.unwrap();
    f.service.delete_actor(&f.owner, idle.id.as_str()).await.unwrap();
    let utilization = f.service.utilization(&f.owner).await.unwrap();
    assert_eq!((utilization.current_actors, utilization.total_actors), (1, 3));
    let report = f.service.all_executions(&f.admin).await.unwrap();
    assert_eq!(report.actors.len(), 1);
    assert_eq!((report.actors[0].executions, report.actors[0].used), (1, used(1)));
    assert_eq!((report.actors_gone, report.actors_gone_with_executions), (2, 1));
    assert_eq!((report.executions_gone, report.used_by_gone), (2, used(2)));

    // Its time has come, and its actor stays.
    f.clock.advance(Duration::from_secs(61));
    assert_eq!(f.service.remove_old_executions().await.unwrap(), 1);
    let report = f.service.all_executions(&f.admin).await.unwrap();
    assert_eq!(report.actors[0].executions, 0);
    assert_eq!((report.actors_gone, report.executions_gone), (2, 3));
    assert_eq!(report.used_by_gone, used(3));
}

async fn an_admin_sees_its_own_tenant(engine: Engine) {
    let f = Fixture::new(engine).await;
    let actor = f.actor().await;
    run(&f, &actor).await;
    f.send(&actor, "waits").await;
    let reports = f.service.all_actors(&f.admin).await.unwrap();
    assert_eq!((reports.total, reports.page.len()), (1, 1));
    let (found, sums) = (&reports.page[0].actor, &reports.page[0].sums);
    assert_eq!((found.id.clone(), sums.messages, sums.executions), (actor.id, 1, 2));
    let foreign = Caller::new(Tenant::new("OTHER"), "admin", Role::Admin);
    assert_eq!(f.service.all_actors(&foreign).await.unwrap().page, []);
    let nothing = f.service.all_executions(&foreign).await.unwrap();
    assert_eq!((nothing.actors.len(), nothing.executions_gone), (0, 0));
    for caller in [f.owner.clone(), Caller::new(Tenant::default(), "p", Role::Privileged)] {
        let refused = f.service.all_actors(&caller).await;
        assert!(matches!(refused, Err(Error::AdminsOnly { .. })), "{refused:?}");
        let refused = f.service.all_executions(&caller).await;
        assert!(matches!(refused, Err(Error::AdminsOnly { .. })), "{refused:?}");
    }
    // How much there is in all tenants, anybody may know.
    assert_eq!(f.service.utilization(&f.owner).await.unwrap().waiting, 1);
}
