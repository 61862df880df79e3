//! Numbers of the whole, and an admin's lists of its tenant.

use abax_actors::{ActorReport, ActorSums, ExecutionsReport, Used};
use axum::extract::State;

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::routes::actors::{attributes, retrieved};
use crate::routes::workers::attributes as worker;

/// Numbers without names, so of all tenants; their own names are the same in every
/// dialect.
pub(super) async fn utilization(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Reply, ApiError> {
    let utilization = app.service().utilization(&caller).await?;
    let object = Object::default()
        .with("currentActors", utilization.current_actors)
        .with("totalActors", utilization.total_actors)
        .with("workers", utilization.workers)
        .with("commandQueue", utilization.waiting);
    Ok(Reply::one("Abaco utilization returned successfully.", object))
}

pub(super) async fn actors(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Reply, ApiError> {
    let reports = app.service().all_actors(&caller).await?;
    let message = retrieved("Actors", &reports, "GET /actors/admin/executions names them all");
    let rows = reports.page.iter().map(row).collect();
    Ok(Reply::many(message, rows).keeping_nulls())
}

pub(super) async fn workers(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Reply, ApiError> {
    let reports = app.service().all_actor_sums(&caller).await?;
    let of = |statuses: &[&str]| {
        let all = reports.iter().flat_map(|report| &report.workers);
        all.filter(|worker| statuses.contains(&worker.status.as_str())).count()
    };
    let total: usize = reports.iter().map(|report| report.workers.len()).sum();
    let summary = Object::default()
        .with("total_workers", total)
        .with("ready_workers", of(&["READY"]))
        .with("requested_workers", of(&["REQUESTED", "PULLING IMAGE"]))
        .with("error_workers", of(&["ERROR"]))
        .with("busy_workers", of(&["BUSY", "SHUTDOWN_REQUESTED"]))
        .with("actors_no_workers", reports.iter().filter(|r| r.workers.is_empty()).count());
    let rows = reports
        .iter()
        .flat_map(|report| report.workers.iter().map(move |one| (report, one)))
        .map(|(report, one)| worker(one).with("actor_dbid", report.dbid()))
        .collect();
    let object = Object::default().with_part("summary", summary).with_rows("workers", rows);
    Ok(Reply::one("Workers retrieved successfully.", object).keeping_nulls())
}

pub(super) async fn executions(
    Signed(caller): Signed,
    State(app): State<App>,
) -> Result<Reply, ApiError> {
    let report = app.service().all_executions(&caller).await?;
    let rows = report
        .actors
        .iter()
        .map(|report| {
            Object::default()
                .with("actor_id", report.actor.as_str())
                .with("owner", &report.owner)
                .with("image", &report.image)
                .with("total_executions", report.executions)
                .with("total_execution_cpu", report.used.cpu_ns)
                .with("total_execution_io", report.used.io_bytes)
                .with("total_execution_runtime", report.used.runtime.as_secs())
        })
        .collect();
    let object = Object::default().with_part("summary", sums(&report)).with_rows("actors", rows);
    Ok(Reply::one("Executions retrieved successfully.", object).keeping_nulls())
}

/// An actor with what only admins see of it.
fn row(report: &ActorReport) -> Object {
    let ActorReport { actor, sums, .. } = report;
    let ActorSums { workers, messages, executions, used, .. } = sums;
    attributes(actor)
        .with("db_id", actor.dbid())
        .with("tenant", actor.tenant.as_str())
        .with_server()
        .with_rows("workers", workers.iter().map(worker).collect())
        .with("messages", messages)
        .with("executions", executions)
        .with("runtime", used.runtime.as_secs())
}

/// Sums of the executions of actors that are there, and of all that ever were.
fn sums(report: &ExecutionsReport) -> Object {
    let existing = report.actors.iter().fold(Used::default(), |sum, one| sum.and(one.used));
    let executions: u64 = report.actors.iter().map(|one| one.executions).sum();
    let actors = report.actors.len() as u64;
    let with_executions = report.actors.iter().filter(|one| one.executions > 0).count() as u64;
    let all = existing.and(report.used_by_gone);
    Object::default()
        .with("total_actors_all", actors + report.actors_gone)
        .with(
            "total_actors_all_with_executions",
            with_executions + report.actors_gone_with_executions,
        )
        .with("total_executions_all", executions + report.executions_gone)
        .with("total_execution_runtime_all", all.runtime.as_secs())
        .with("total_execution_cpu_all", all.cpu_ns)
        .with("total_execution_io_all", all.io_bytes)
        .with("total_actors_existing", actors)
        .with("total_actors_existing_with_executions", with_executions)
        .with("total_executions_existing", executions)
        .with("total_execution_runtime_existing", existing.runtime.as_secs())
        .with("total_execution_cpu_existing", existing.cpu_ns)
        .with("total_execution_io_existing", existing.io_bytes)
}
