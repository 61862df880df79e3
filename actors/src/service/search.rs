//! Searches: what the caller may read, and which of it was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Service, authorized, execution_of};
use crate::actor::Actor;
use crate::config::SearchLimits;
use crate::error::Error;
use crate::execution::{Execution, Logs};
use crate::permission::{Caller, Level};
use crate::search::{Collection, FoundLog, Hits, LOG, Search, Within};
use crate::store::search::{Place, Row, Scope};
use crate::store::{self, Room};
use crate::worker::Worker;

/// Bytes of logs that are looked at together.
const LOG_AT_ONCE: u64 = 4 << 20;

impl Service {
    /// Searches actors.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forbidden`], and [`Error::Invalid`] where too much
    /// would have to be looked at.
    pub async fn search_actors(
        &self,
        caller: &Caller,
        within: Within<'_>,
        search: &Search,
    ) -> Result<Hits<Actor>, Error> {
        let (total, ids) = self.found(caller, within, search, Collection::Actors).await?;
        let mut c = self.0.store.read().await?;
        Ok(Hits::new(total, store::search::actors(&mut c, &ids).await?))
    }

    /// Searches executions.
    ///
    /// # Errors
    ///
    /// As [`Service::search_actors`].
    pub async fn search_executions(
        &self,
        caller: &Caller,
        within: Within<'_>,
        search: &Search,
    ) -> Result<Hits<Execution>, Error> {
        let (total, ids) = self.found(caller, within, search, Collection::Executions).await?;
        let mut c = self.0.store.read().await?;
        let found = store::search::executions(&mut c, &ids).await?;
        Ok(Hits::new(total, found.into_iter().map(|found| found.execution).collect()))
    }

    /// Searches workers.
    ///
    /// # Errors
    ///
    /// As [`Service::search_actors`].
    pub async fn search_workers(
        &self,
        caller: &Caller,
        within: Within<'_>,
        search: &Search,
    ) -> Result<Hits<Worker>, Error> {
        let (total, ids) = self.found(caller, within, search, Collection::Workers).await?;
        let mut c = self.0.store.read().await?;
        Ok(Hits::new(total, store::search::workers(&mut c, &ids).await?))
    }

    /// Searches the logs of executions: those that ended, and those that have
    /// written something, until they expire.
    ///
    /// # Errors
    ///
    /// As [`Service::search_actors`].
    pub async fn search_logs(
        &self,
        caller: &Caller,
        within: Within<'_>,
        search: &Search,
    ) -> Result<Hits<FoundLog>, Error> {
        let (total, ids) = self.found(caller, within, search, Collection::Logs).await?;
        let mut c = self.0.store.read().await?;
        let mut found = store::search::executions(&mut c, &ids).await?;
        let mut room = Room::new();
        let fitting = found.iter().take_while(|found| room.takes(found.log_bytes)).count();
        found.truncate(fitting);
        let ids: Vec<_> = found.iter().map(|found| found.execution.id.to_string()).collect();
        let mut logs = store::search::logs(&mut c, &ids).await?;
        let page = found.into_iter().map(|found| {
            let execution = found.execution;
            let bytes = logs.remove(execution.id.as_str()).unwrap_or_default();
            FoundLog {
                actor: execution.actor,
                owner: found.owner,
                logs: Logs {
                    position: bytes.len() as u64,
                    bytes,
                    attempt: execution.attempt,
                    epoch: found.epoch,
                    truncated: found.log_truncated,
                    ended: execution.status.is_final(),
                },
                execution: execution.id,
            }
        });
        Ok(Hits::new(total, page.collect()))
    }

    /// How many were found, and the ids of those on the page.
    async fn found(
        &self,
        caller: &Caller,
        within: Within<'_>,
        search: &Search,
        collection: Collection,
    ) -> Result<(u64, Vec<String>), Error> {
        assert_eq!(search.collection(), collection, "each collection has its function");
        let scope = self.scope(caller, within).await?;
        if search.needs_texts() {
            return self.look_through(search, &scope).await;
        }
        let mut c = self.0.store.read().await?;
        let total = store::search::count(&mut c, search, &scope).await?;
        let ids = match total {
            0 => Vec::new(),
            _ => store::search::page(&mut c, search, &scope).await?,
        };
        Ok((total, ids))
    }

    async fn scope(&self, caller: &Caller, within: Within<'_>) -> Result<Scope, Error> {
        let mut scope = Scope {
            tenant: caller.tenant.clone(),
            reader: None,
            actor: None,
            execution: None,
            now: self.0.clock.now(),
        };
        let (actor, execution) = match within {
            Within::Readable => {
                caller.must_be_a_user()?;
                scope.reader = Some(caller.user.clone());
                return Ok(scope);
            }
            Within::Actor(actor) => (actor, None),
            Within::Execution { actor, execution } => (actor, Some(execution)),
        };
        let mut c = self.0.store.read().await?;
        let actor = authorized(&mut c, caller, actor, Level::Read).await?;
        if let Some(execution) = execution {
            let stored = execution_of(&mut c, &actor, execution).await?;
            scope.execution = Some(stored.execution.id);
        }
        scope.actor = Some(actor.id);
        Ok(scope)
    }

    /// Looks at the rows of the scope one by one.
    async fn look_through(
        &self,
        search: &Search,
        scope: &Scope,
    ) -> Result<(u64, Vec<String>), Error> {
        // Whoever comes meanwhile waits: each has some megabytes at hand. A part that is
        // being looked at when nobody asks any more keeps the turn to its end.
        let turn = Arc::clone(&self.0.searches).acquire_owned().await;
        let turn = Arc::new(turn.expect("the semaphore is never closed"));
        let search = Arc::new(search.clone());
        let reads_logs = search.text_columns().contains(&LOG);
        let at_once = rows_at_once(search.collection());
        let mut budget = Budget::of(self.0.config.search_limits);
        let mut found: Vec<(f64, String)> = Vec::new();
        let mut after: Option<Place> = None;
        loop {
            let rows = {
                let mut c = self.0.store.read().await?;
                store::search::rows(&mut c, &search, scope, after.as_ref(), at_once).await?
            };
            let Some(last) = rows.last() else { break };
            after = Some(last.place.clone());
            let full = rows.len() >= usize::try_from(at_once).unwrap_or(usize::MAX);
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let part = part_of(&mut rows, reads_logs);
                let mut logs = Default::default();
                if reads_logs {
                    let ids: Vec<String> = part.iter().map(|row| row.place.1.clone()).collect();
                    let mut c = self.0.store.read().await?;
                    logs = store::search::logs(&mut c, &ids).await?;
                }
                // Looking takes as long as it takes, and on these threads all others
                // would wait for it.
                let (search, turn) = (Arc::clone(&search), Arc::clone(&turn));
                let looked = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    look_at(&search, part, logs, budget)
                });
                let (left, mut fitting) = looked.await.expect("looking at rows never panics")?;
                budget = left;
                found.append(&mut fitting);
            }
            if !full {
                break;
            }
        }
        if search.is_ranked() {
            // Of those that fit alike, the oldest stays the first.
            found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        }
        let total = found.len() as u64;
        let skip = usize::try_from(search.skip()).unwrap_or(usize::MAX);
        let limit = usize::try_from(search.limit()).unwrap_or(usize::MAX);
        Ok((total, found.into_iter().skip(skip).take(limit).map(|(_, id)| id).collect()))
    }
}

/// Rows that are read together: those of actors may have a third of a megabyte each.
fn rows_at_once(collection: Collection) -> u32 {
    match collection {
        Collection::Actors => 32,
        Collection::Executions | Collection::Workers | Collection::Logs => 200,
    }
}

/// Which rows fulfil a search, and how well; and what is left of its budget. Blocks.
fn look_at(
    search: &Search,
    part: Vec<Row>,
    mut logs: HashMap<String, Vec<u8>>,
    mut budget: Budget,
) -> Result<(Budget, Vec<(f64, String)>), Error> {
    let mut found = Vec::new();
    for row in part {
        let log = logs.remove(&row.place.1).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        budget.spend(&row, log.len())?;
        let text = |column: &str| match column {
            LOG => Some(&*log),
            column => row.texts.get(column).and_then(Option::as_deref),
        };
        if let Some(score) = search.score(text, || budget.goes_on())? {
            found.push((score, row.place.1.clone()));
        }
    }
    Ok((budget, found))
}

/// The next rows whose logs are looked at together; at least one.
fn part_of(rows: &mut std::iter::Peekable<impl Iterator<Item = Row>>, by_logs: bool) -> Vec<Row> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    while let Some(row) =
        rows.next_if(|row| !by_logs || bytes == 0 || bytes + row.log_bytes <= LOG_AT_ONCE)
    {
        bytes += row.log_bytes;
        part.push(row);
    }
    part
}

/// What a search may still look at.
#[derive(Clone, Copy)]
struct Budget {
    rows: u64,
    bytes: usize,
    until: Instant,
}

impl Budget {
    fn of(limits: SearchLimits) -> Self {
        let SearchLimits { rows, bytes, time } = limits;
        Self { rows, bytes, until: Instant::now() + time }
    }

    fn spend(&mut self, row: &Row, log_bytes: usize) -> Result<(), Error> {
        let texts: usize = row.texts.values().flatten().map(String::len).sum();
        let left = self.rows.checked_sub(1).zip(self.bytes.checked_sub(texts + log_bytes));
        (self.rows, self.bytes) = left.ok_or_else(too_much)?;
        self.goes_on()
    }

    fn goes_on(&self) -> Result<(), Error> {
        if Instant::now() < self.until { Ok(()) } else { Err(too_much()) }
    }
}

fn too_much() -> Error {
    Error::invalid(
        "search",
        "too much would have to be looked at one by one; ask for less by conditions on times, \
         numbers, or whole texts such as status=COMPLETE, and by shorter regular expressions",
    )
}
