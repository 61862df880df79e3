//! The table `hosts`: processes that take executions.

use super::{Connection, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::HostId;

pub(crate) async fn insert(
    c: &mut Connection,
    id: &HostId,
    name: &str,
    version: &str,
    slots: u32,
    now: Time,
) -> Result<(), Error> {
    sql("insert into hosts (id, name, version, slots, registered_us, seen_us) \
         values ($1, $2, $3, $4, $5, $5)")
    .bind(id.as_str())
    .bind(name)
    .bind(version)
    .bind(i64::from(slots))
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("register the host"))?;
    Ok(())
}

pub(crate) async fn set_seen(c: &mut Connection, id: &HostId, now: Time) -> Result<(), Error> {
    sql("update hosts set seen_us = $2 where id = $1")
        .bind(id.as_str())
        .bind(now.micros())
        .execute(c)
        .await
        .map_err(failed("note that the host lives"))?;
    Ok(())
}

/// Forgets hosts not seen since `since` that have nothing running.
pub(crate) async fn remove_unseen(c: &mut Connection, since: Time) -> Result<(), Error> {
    sql("delete from hosts where seen_us < $1 and not exists \
             (select 1 from executions e where e.status = 'RUNNING' and e.host_id = hosts.id)")
    .bind(since.micros())
    .execute(c)
    .await
    .map_err(failed("forget hosts"))?;
    Ok(())
}
