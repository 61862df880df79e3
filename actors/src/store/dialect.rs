//! What differs between engines: connection and row types, and what an
//! engine's error means.

use std::sync::Arc;

use sqlx::{Decode, Row as _, Type};

use crate::error::Error;

/// The connection on which queries run.
pub(crate) type Connection = sqlx::SqliteConnection;
type Row = sqlx::sqlite::SqliteRow;
type Engine = sqlx::Sqlite;

/// What a failure while `doing` something means to the caller.
pub(crate) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| meaning(doing, Arc::new(source))
}

pub(crate) fn meaning(doing: &'static str, source: Arc<sqlx::Error>) -> Error {
    let unavailable = match &*source {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Extended result codes keep the primary one in their low byte: BUSY,
        // LOCKED, READONLY, IOERR, FULL, CANTOPEN.
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)),
        _ => false,
    };
    if unavailable {
        Error::StoreUnavailable { doing, source }
    } else {
        Error::Store { doing, source }
    }
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
        let id = row.try_get::<String, _>("id").unwrap_or_else(|_| "a row without id".to_owned());
        Self { row, table, id }
    }

    pub(crate) fn get<T: Decode<'r, Engine> + Type<Engine>>(
        &self,
        column: &'static str,
    ) -> Result<T, Error> {
        self.row.try_get(column).map_err(|_| self.inconsistent(column))
    }

    /// A field whose text or number `parse` understands.
    pub(crate) fn parsed<F, T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(F) -> Option<T>,
    ) -> Result<T, Error>
    where
        F: Decode<'r, Engine> + Type<Engine>,
    {
        parse(self.get(column)?).ok_or_else(|| self.inconsistent(column))
    }

    /// A field that may be null, and which `parse` understands otherwise.
    pub(crate) fn parsed_if_any<F, T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(F) -> Option<T>,
    ) -> Result<Option<T>, Error>
    where
        F: Decode<'r, Engine> + Type<Engine>,
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
