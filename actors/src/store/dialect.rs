//! What differs between engines: what an engine's error means.

use std::sync::Arc;

use super::sql::{Field, Row};
use crate::error::Error;

/// What a failure while `doing` something means to the caller.
pub(crate) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| meaning(doing, Arc::new(source))
}

pub(crate) fn meaning(doing: &'static str, source: Arc<sqlx::Error>) -> Error {
    if matches!(*source, sqlx::Error::Encode(_)) {
        let problem = format!("could not {doing}: a text holds a NUL character");
        return Error::invalid("text", problem);
    }
    if is_unavailable(&source) {
        Error::StoreUnavailable { doing, source }
    } else {
        Error::Store { doing, source }
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        // What cannot be understood of a server is the end of its connection.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            match error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
                // Extended result codes keep the primary one in their low byte:
                // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
                Some(_) => code
                    .parse::<u32>()
                    .is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)),
                // Classes of SQLSTATE: connection exception, transaction
                // rollback, insufficient resources, operator intervention,
                // system error. Then: read-only (a standby), idle too long,
                // lock not available, and a password of the past.
                None => {
                    ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                        || matches!(&*code, "25006" | "25P03" | "25P04" | "55P03" | "28P01")
                }
            }
        }
        _ => false,
    }
}

/// True where the same transaction may succeed when it is run again, and where
/// it certainly was not committed: nobody asked for the commit yet.
pub(crate) fn may_run_again(error: &sqlx::Error) -> bool {
    is_unavailable(error) && !matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed)
}

/// True where the server says that it rolled back what was to be committed.
pub(crate) fn was_rolled_back(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("40") && code != "40003")
}

/// A row being read. What cannot be read is an error that names it.
pub(crate) struct Fields<'r> {
    row: &'r Row,
    table: &'static str,
    id: String,
}

impl<'r> Fields<'r> {
    /// The fields of a row of `table`, whose column `id` names it.
    pub(crate) fn of(row: &'r Row, table: &'static str) -> Self {
        let id = row.get::<String>("id").unwrap_or_else(|_| "a row without id".to_owned());
        Self { row, table, id }
    }

    pub(crate) fn get<T: Field>(&self, column: &'static str) -> Result<T, Error> {
        self.row.get(column).map_err(|_| self.inconsistent(column))
    }

    /// A field whose text or number `parse` understands.
    pub(crate) fn parsed<F: Field, T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(F) -> Option<T>,
    ) -> Result<T, Error> {
        parse(self.get(column)?).ok_or_else(|| self.inconsistent(column))
    }

    /// A field that may be null, and which `parse` understands otherwise.
    pub(crate) fn parsed_if_any<F, T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(F) -> Option<T>,
    ) -> Result<Option<T>, Error>
    where
        Option<F>: Field,
    {
        match self.get::<Option<F>>(column)? {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| self.inconsistent(column)),
        }
    }

    fn inconsistent(&self, column: &str) -> Error {
        Error::Inconsistent { table: self.table, column: column.to_owned(), row: self.id.clone() }
    }
}
