//! What stateful actors keep: `actors.state` is what counts, and
//! `executions.staged_state` what a running execution has set of it so far.

use super::{Connection, Fields, failed, sql};
use crate::error::{Error, Noun};
use crate::id::{ActorId, ExecutionId};
use crate::json::Json;

/// The state of an actor, and how often it was written.
pub(crate) async fn of_actor(c: &mut Connection, actor: &ActorId) -> Result<(Json, i64), Error> {
    let row = sql("select id, state, state_version from actors where id = $1")
        .bind(actor.as_str())
        .fetch_optional(c)
        .await
        .map_err(failed("read the actor's state"))?;
    let Some(row) = row else {
        return Err(Error::NotFound { noun: Noun::Actor, id: actor.to_string() });
    };
    let fields = Fields::of(&row, "actors");
    let state = fields.parsed("state", |text: String| Json::parse(&text).ok())?;
    Ok((state, fields.get("state_version")?))
}

/// Sets the state of an actor.
pub(crate) async fn set(c: &mut Connection, actor: &ActorId, state: &Json) -> Result<(), Error> {
    sql("update actors set state = $2, state_version = state_version + 1 where id = $1")
        .bind(actor.as_str())
        .bind(state.as_str())
        .execute(c)
        .await
        .map_err(failed("set the actor's state"))?;
    Ok(())
}

/// Notes what the claim `epoch` sets as the state; false when it does not hold.
pub(crate) async fn stage(
    c: &mut Connection,
    execution: &ExecutionId,
    epoch: i64,
    state: &Json,
) -> Result<bool, Error> {
    let staged = sql("update executions set staged_state = $3 \
         where id = $1 and epoch = $2 and status = 'RUNNING'")
    .bind(execution.as_str())
    .bind(epoch)
    .bind(state.as_str())
    .execute(c)
    .await
    .map_err(failed("stage the actor's state"))?;
    Ok(staged == 1)
}

/// What the claim `epoch` has set as the state of the actor, if it holds and has.
pub(crate) async fn staged(
    c: &mut Connection,
    actor: &ActorId,
    execution: &ExecutionId,
    epoch: i64,
) -> Result<Option<Json>, Error> {
    let row = sql("select id, staged_state from executions \
         where id = $1 and epoch = $2 and actor_id = $3 and status = 'RUNNING' \
           and staged_state is not null")
    .bind(execution.as_str())
    .bind(epoch)
    .bind(actor.as_str())
    .fetch_optional(c)
    .await
    .map_err(failed("find the staged state"))?;
    row.map(|row| {
        Fields::of(&row, "executions")
            .parsed("staged_state", |text: String| Json::parse(&text).ok())
    })
    .transpose()
}

/// Forgets what running executions of an actor have set so far.
pub(crate) async fn unstage(c: &mut Connection, actor: &ActorId) -> Result<(), Error> {
    sql("update executions set staged_state = null \
         where actor_id = $1 and status = 'RUNNING' and staged_state is not null")
    .bind(actor.as_str())
    .execute(c)
    .await
    .map_err(failed("forget the staged state"))?;
    Ok(())
}

/// Makes what an execution has set the state of its actor. The caller holds the
/// locks of both rows.
pub(crate) async fn apply(c: &mut Connection, execution: &ExecutionId) -> Result<(), Error> {
    sql("update actors set state = \
             (select e.staged_state from executions e where e.id = $1), \
             state_version = state_version + 1 \
         where id = (select e.actor_id from executions e \
                     where e.id = $1 and e.staged_state is not null)")
    .bind(execution.as_str())
    .execute(c)
    .await
    .map_err(failed("set the actor's state"))?;
    Ok(())
}
