//! What is asked of all tables together, for who watches over the service.

use super::{Connection, Fields, Store, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::execution::ExecutionStatus;
use crate::service::Hosts;

/// The open executions of one class in one status.
pub(crate) struct Open {
    pub(crate) class: String,
    pub(crate) status: ExecutionStatus,
    pub(crate) count: u64,
    /// Since when the first of them waits.
    pub(crate) since: Option<Time>,
}

/// What waits and runs, by class.
pub(crate) async fn open_executions(c: &mut Connection) -> Result<Vec<Open>, Error> {
    // Each half has an index of its own, which knows no other status.
    let rows =
        sql("select a.queue as id, e.status, count(*) as open, min(e.queued_us) as since_us \
         from executions e join actors a on a.id = e.actor_id \
         where e.status = 'SUBMITTED' group by a.queue, e.status \
         union all \
         select a.queue, e.status, count(*), min(e.queued_us) \
         from executions e join actors a on a.id = e.actor_id \
         where e.status = 'RUNNING' group by a.queue, e.status")
        .fetch_all(c)
        .await
        .map_err(failed("count the open executions"))?;
    rows.iter()
        .map(|row| {
            let row = Fields::of(row, "executions");
            Ok(Open {
                class: row.get("id")?,
                status: row.parsed("status", |text: String| ExecutionStatus::parse(&text))?,
                count: row.parsed("open", |count: i64| u64::try_from(count).ok())?,
                since: row.get::<Option<i64>>("since_us")?.map(Time::from_micros),
            })
        })
        .collect()
}

/// The hosts that were seen since `since` and have not stopped.
pub(crate) async fn hosts_seen(c: &mut Connection, since: Time) -> Result<Hosts, Error> {
    let rows = sql("select id, slots, cordoned, draining from hosts \
         where seen_us >= $1 and stopped_us is null")
    .bind(since.micros())
    .fetch_all(c)
    .await
    .map_err(failed("count the hosts"))?;
    let mut hosts = Hosts::default();
    for row in &rows {
        let row = Fields::of(row, "hosts");
        let state = if row.get("draining")? {
            &mut hosts.draining
        } else if row.get("cordoned")? {
            &mut hosts.cordoned
        } else {
            &mut hosts.working
        };
        *state += 1;
        hosts.slots += row.parsed("slots", |slots: i64| u64::try_from(slots).ok())?;
    }
    Ok(hosts)
}

/// Commits a write that changes nothing, so that a full disk shows here.
pub(crate) async fn probe(store: &Store) -> Result<(), Error> {
    store
        .write(|c| {
            Box::pin(async move {
                // PostgreSQL writes the commit of a transaction that has a number, and
                // a standby gives none.
                sql("pragma user_version = 0")
                    .on_postgres("select txid_current()")
                    .execute(c)
                    .await
                    .map_err(failed("write to the database"))?;
                Ok(())
            })
        })
        .await
}
