//! Searches as statements: static pieces put together, every value bound.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::sql::{Value, composed};
use super::{Connection, Fields, Room, actors, executions, failed, workers};
use crate::actor::Actor;
use crate::clock::Time;
use crate::error::Error;
use crate::execution::Execution;
use crate::id::{ActorId, ExecutionId};
use crate::permission::{EVERYBODY, Tenant};
use crate::search::{Collection, Condition, LOG, Scalar, Search};
use crate::worker::Worker;

/// Which records are searched.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) tenant: Tenant,
    /// Whose permission to read counts; none where that was decided before.
    pub(crate) reader: Option<String>,
    pub(crate) actor: Option<ActorId>,
    pub(crate) execution: Option<ExecutionId>,
    /// Logs that expired before are none.
    pub(crate) now: Time,
}

/// The place of a record in the order in which records came.
pub(crate) type Place = (i64, String);

/// A record as far as it is looked at here.
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Bytes of its log, where logs are searched.
    pub(crate) log_bytes: u64,
    /// The columns that were asked for, but for [`LOG`].
    pub(crate) texts: HashMap<&'static str, Option<String>>,
}

/// How many records there are.
pub(crate) async fn count(
    c: &mut Connection,
    search: &Search,
    scope: &Scope,
) -> Result<u64, Error> {
    let Statement { text, values } = Statement::matching(search, scope);
    let count: i64 = composed(format!("select count(*) {text}"))
        .bind_all(values)
        .scalar(c)
        .await
        .map_err(failed("count what was found"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The ids of the page that is asked for, oldest first.
pub(crate) async fn page(
    c: &mut Connection,
    search: &Search,
    scope: &Scope,
) -> Result<Vec<String>, Error> {
    let mut statement = Statement::matching(search, scope);
    let (number, id) = order(search.collection);
    let limit = statement.value(i64::from(search.limit));
    let skip = statement.value(i64::try_from(search.skip).unwrap_or(i64::MAX));
    let Statement { text, values } = statement;
    composed(format!("select {id} {text} order by {number}, {id} limit {limit} offset {skip}"))
        .bind_all(values)
        .scalars(c)
        .await
        .map_err(failed("search"))
}

/// The next `limit` records after `after`, with the columns that a search looks at.
pub(crate) async fn rows(
    c: &mut Connection,
    search: &Search,
    scope: &Scope,
    after: Option<&Place>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let mut statement = Statement::matching(search, scope);
    let (number, id) = order(search.collection);
    if let Some((after_number, after_id)) = after {
        let number_value = statement.value(*after_number);
        let id_value = statement.value(after_id.clone());
        let _ = write!(
            statement.text,
            " and ({number} > {number_value} or ({number} = {number_value} and {id} > {id_value}))"
        );
    }
    let limit = statement.value(i64::from(limit));
    let columns: Vec<_> = search.text_columns().into_iter().filter(|c| *c != LOG).collect();
    let log_bytes = match search.collection {
        Collection::Logs => "e.log_bytes",
        _ => "0",
    };
    let mut selected = format!("{number} as number, {id} as id, {log_bytes} as log_bytes");
    for (place, column) in columns.iter().enumerate() {
        let _ = write!(selected, ", {column} as c{place}");
    }
    let Statement { text, values } = statement;
    let rows = composed(format!("select {selected} {text} order by {number}, {id} limit {limit}"))
        .bind_all(values)
        .fetch_all(c)
        .await
        .map_err(failed("search"))?;
    let read = failed("read what was found");
    rows.iter()
        .map(|row| {
            let mut texts = HashMap::with_capacity(columns.len());
            for (place, column) in columns.iter().enumerate() {
                texts.insert(*column, row.get(&format!("c{place}")).map_err(&read)?);
            }
            let place = (row.get("number").map_err(&read)?, row.get("id").map_err(&read)?);
            let log_bytes = match search.collection {
                Collection::Logs => row.get::<i64>("log_bytes").map_err(&read)?,
                _ => 0,
            };
            Ok(Row { place, log_bytes: u64::try_from(log_bytes).unwrap_or(0), texts })
        })
        .collect()
}

/// The logs of these executions.
pub(crate) async fn logs(
    c: &mut Connection,
    executions: &[String],
) -> Result<HashMap<String, Vec<u8>>, Error> {
    let mut logs: HashMap<String, Vec<u8>> = HashMap::new();
    let rows = by_ids(
        c,
        "select execution_id as id, bytes from log_chunks where execution_id in",
        executions,
        "order by execution_id, position",
    )
    .await?;
    for row in &rows {
        let fields = Fields::of(row, "log_chunks");
        let bytes: Vec<u8> = fields.get("bytes")?;
        logs.entry(fields.get("id")?).or_default().extend(bytes);
    }
    Ok(logs)
}

/// The actors of these ids that are still there, in this order.
pub(crate) async fn all_actors(c: &mut Connection, ids: &[String]) -> Result<Vec<Actor>, Error> {
    let rows = by_ids(c, "select * from actors where id in", ids, "").await?;
    let found = rows.iter().map(|row| actors::read(&Fields::of(row, "actors")));
    in_order(ids, found, |actor| actor.id.as_str())
}

/// The first of these actors, as many as fit an answer.
pub(crate) async fn actors(c: &mut Connection, ids: &[String]) -> Result<Vec<Actor>, Error> {
    /// Those that are read before it is known how large they are.
    const AT_ONCE: usize = 20;
    let (mut found, mut room) = (Vec::new(), Room::new());
    for ids in ids.chunks(AT_ONCE) {
        for actor in all_actors(c, ids).await? {
            let hints: usize = actor.hints.iter().map(String::len).sum();
            let json = actor.default_environment.as_str().len() + actor.state.as_str().len();
            if !room.takes(actor.description.len() + hints + json) {
                return Ok(found);
            }
            found.push(actor);
        }
    }
    Ok(found)
}

/// The executions of these ids that are still there, in this order, with what
/// searches of logs show of them: the owner of the actor, and whether the log was cut.
pub(crate) async fn executions(
    c: &mut Connection,
    ids: &[String],
) -> Result<Vec<FoundExecution>, Error> {
    let rows = by_ids(
        c,
        "select e.*, a.owner as owner from executions e join actors a on a.id = e.actor_id \
         where e.id in",
        ids,
        "",
    )
    .await?;
    let found = rows.iter().map(|row| {
        let fields = Fields::of(row, "executions");
        let stored = executions::read(&fields)?;
        let log_bytes: i64 = fields.get("log_bytes")?;
        Ok(FoundExecution {
            owner: fields.get("owner")?,
            log_bytes: usize::try_from(log_bytes).unwrap_or(0),
            log_truncated: stored.log_truncated,
            epoch: stored.epoch,
            execution: stored.execution,
        })
    });
    in_order(ids, found, |found| found.execution.id.as_str())
}

/// An execution, and what its log shows with it.
pub(crate) struct FoundExecution {
    pub(crate) execution: Execution,
    pub(crate) owner: String,
    pub(crate) log_truncated: bool,
    pub(crate) epoch: i64,
    pub(crate) log_bytes: usize,
}

/// The workers of these ids that are still there, in this order.
pub(crate) async fn workers(c: &mut Connection, ids: &[String]) -> Result<Vec<Worker>, Error> {
    let text = "select w.*, h.seen_us, h.address from workers w left join hosts h on h.id = w.host_id \
                where w.id in";
    let rows = by_ids(c, text, ids, "").await?;
    let found = rows.iter().map(|row| workers::read(&Fields::of(row, "workers")));
    in_order(ids, found, |worker| worker.id.as_str())
}

async fn by_ids(
    c: &mut Connection,
    select: &'static str,
    ids: &[String],
    order: &'static str,
) -> Result<Vec<super::sql::Row>, Error> {
    /// What either engine takes in one statement, and more than a page has as a rule.
    const AT_ONCE: usize = 1_000;
    let mut rows = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let found = composed(format!("{select} ({}) {order}", places.join(", ")))
            .bind_all(ids.iter().map(|id| Value::from(id.clone())))
            .fetch_all(c)
            .await
            .map_err(failed("read what was found"))?;
        rows.extend(found);
    }
    Ok(rows)
}

fn in_order<T>(
    ids: &[String],
    found: impl Iterator<Item = Result<T, Error>>,
    id: impl Fn(&T) -> &str,
) -> Result<Vec<T>, Error> {
    let mut by_id = HashMap::new();
    for one in found {
        let one = one?;
        by_id.insert(id(&one).to_owned(), one);
    }
    Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
}

/// What records of a collection are in order of.
fn order(collection: Collection) -> (&'static str, &'static str) {
    match collection {
        Collection::Actors => ("a.created_us", "a.id"),
        Collection::Executions | Collection::Logs => ("e.sequence", "e.id"),
        Collection::Workers => ("w.created_us", "w.id"),
    }
}

/// A statement from its `from` on.
struct Statement {
    text: String,
    values: Vec<Value<'static>>,
}

impl Statement {
    /// The records of the scope that fulfil what the database decides.
    fn matching(search: &Search, scope: &Scope) -> Self {
        let from = match search.collection {
            Collection::Actors => "from actors a",
            Collection::Executions | Collection::Logs => {
                "from executions e join actors a on a.id = e.actor_id"
            }
            Collection::Workers => "from workers w join actors a on a.id = w.actor_id",
        };
        let mut statement = Self { text: from.to_owned(), values: Vec::new() };
        let tenant = statement.value(scope.tenant.as_str().to_owned());
        let _ = write!(statement.text, " where a.tenant = {tenant}");
        if let Some(reader) = &scope.reader {
            let (user, everybody) =
                (statement.value(reader.clone()), statement.value(EVERYBODY.to_owned()));
            let _ = write!(
                statement.text,
                " and a.id in (select p.object from permissions p where p.tenant = {tenant} \
                   and p.kind = 'actor' and p.user_name in ({user}, {everybody}) \
                   and p.level in ('READ', 'EXECUTE', 'UPDATE'))"
            );
        }
        if let Some(actor) = &scope.actor {
            let actor = statement.value(actor.as_str().to_owned());
            let _ = write!(statement.text, " and a.id = {actor}");
        }
        if let Some(execution) = &scope.execution {
            let execution = statement.value(execution.as_str().to_owned());
            let _ = write!(statement.text, " and e.id = {execution}");
        }
        if search.collection == Collection::Logs {
            // A log is there from its first byte on, or with the end of its execution,
            // until it expires.
            let now = statement.value(scope.now.micros());
            let _ = write!(
                statement.text,
                " and (e.log_expires_us > {now} or (e.status = 'RUNNING' and e.log_bytes > 0))"
            );
        }
        for condition in &search.conditions {
            statement.require(condition, &scope.tenant);
        }
        statement
    }

    /// A placeholder for `value`.
    fn value(&mut self, value: impl Into<Value<'static>>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn require(&mut self, condition: &Condition, tenant: &Tenant) {
        match condition {
            Condition::Constant(true) | Condition::Text { .. } | Condition::Json { .. } => {}
            Condition::Constant(false) => self.text.push_str(" and false"),
            Condition::Column { column, values, null, negated } => {
                let mut any: Vec<String> = Vec::new();
                for value in values {
                    let one = self.is(column, value, tenant);
                    any.push(one);
                }
                let any = match any.is_empty() {
                    true => "false".to_owned(),
                    false => any.join(" or "),
                };
                let condition = match (negated, null) {
                    (false, false) => format!("({any})"),
                    (false, true) => format!("(({column}) is null or {any})"),
                    (true, false) => format!("(({column}) is null or not ({any}))"),
                    (true, true) => format!("(({column}) is not null and not ({any}))"),
                };
                let _ = write!(self.text, " and {condition}");
            }
        }
    }

    fn is(&mut self, column: &str, value: &Scalar, tenant: &Tenant) -> String {
        match value {
            Scalar::Text(text) => {
                // An actor may be named with its tenant, as containers see it.
                let bare = text.strip_prefix(tenant.as_str()).and_then(|t| t.strip_prefix('_'));
                let text = bare.filter(|_| column.ends_with(".actor_id")).unwrap_or(text);
                let place = self.value(text.to_owned());
                format!("({column}) = {place}")
            }
            Scalar::Truth(truth) => {
                let place = self.value(*truth);
                format!("({column}) = {place}")
            }
            Scalar::Whole(number) => {
                let place = self.value(*number);
                format!("({column}) = {place}")
            }
            Scalar::Span(from, before) => {
                let mut bounds = Vec::new();
                if let Some(from) = from {
                    let place = self.value(*from);
                    bounds.push(format!("({column}) >= {place}"));
                }
                if let Some(before) = before {
                    let place = self.value(*before);
                    bounds.push(format!("({column}) < {place}"));
                }
                format!("({})", bounds.join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Typing;

    #[test]
    fn no_value_is_ever_part_of_a_statement() {
        let hostile = "x'); drop table actors; --";
        for collection in Collection::ALL {
            let mut search = Search::new(collection);
            search.require("status", hostile, Typing::ByValue).unwrap();
            search.require(&format!("{hostile}.neq"), hostile, Typing::ByValue).unwrap();
            search.require("id.in", &format!("[\"{hostile}\"]"), Typing::ByValue).unwrap();
            search.require("final_state.StartedAt.gt", "2000", Typing::ByValue).unwrap();
            let scope = Scope {
                tenant: Tenant::new(hostile),
                reader: Some(hostile.to_owned()),
                actor: Some(ActorId::generate()),
                execution: None,
                now: Time::from_micros(0),
            };
            let Statement { text, values } = Statement::matching(&search, &scope);
            assert!(!text.contains("drop"), "{text}");
            let last = format!("${}", values.len());
            assert!(text.contains(&last), "{last} of {text}");
        }
    }
}
