//! Rows: connect, read, write, on SQLite or PostgreSQL.
//!
//! The functions of the tables are the same for both engines: [`sql`] has one
//! text per statement, [`dialect`] what cannot be the same.

pub(crate) mod accept;
pub(crate) mod activations;
pub(crate) mod actors;
pub(crate) mod aliases;
mod announcements;
pub(crate) mod configs;
pub(crate) mod cron;
pub(crate) mod deliveries;
pub(crate) mod diagnosis;
mod dialect;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod messages;
mod migrations;
pub(crate) mod nonces;
pub(crate) mod permissions;
#[cfg(test)]
mod plans;
mod postgres;
pub(crate) mod results;
pub(crate) mod revisions;
mod room;
pub(crate) mod search;
mod sql;
mod sqlite;
pub(crate) mod state;
pub(crate) mod statistics;
pub(crate) mod waiting;
pub(crate) mod workers;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub(crate) use announcements::{Announcement, Heard};
pub use diagnosis::{Broken, Overdue, Waiting};
pub(crate) use dialect::{Fields, failed};
pub use migrations::Schema;
pub(crate) use migrations::{migrate, schema};
pub(crate) use room::Room;
pub(crate) use sql::{Connection, sql};

use crate::clock::Time;
use crate::config::DatabaseConfig;
use crate::error::Error;

/// The rows, wherever they are.
#[derive(Clone, Debug)]
pub(crate) struct Store(Engine);

#[derive(Clone, Debug)]
enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens a file, whose schema is brought up to date, or the connections to
    /// a server, whose schema must be new enough.
    pub(crate) async fn open(config: &DatabaseConfig) -> Result<Self, Error> {
        Ok(Self(match config {
            DatabaseConfig::Sqlite { path } => Engine::Sqlite(sqlite::Sqlite::open(path).await?),
            DatabaseConfig::Postgres(config) => {
                Engine::Postgres(postgres::Postgres::open(config).await?)
            }
        }))
    }

    /// Tells other processes that share the rows, soon. Call it after the commit.
    pub(crate) fn announce(&self, announcement: Announcement) {
        match &self.0 {
            // A file has one process that matters.
            Engine::Sqlite(_) => {}
            Engine::Postgres(postgres) => postgres.announce(announcement),
        }
    }

    /// What other processes announce from now on, where they can.
    pub(crate) fn announcements(&self) -> Option<Heard> {
        match &self.0 {
            Engine::Sqlite(_) => None,
            Engine::Postgres(postgres) => Some(postgres.announcements()),
        }
    }

    /// The time by the clock that all processes share, and how far it may be off;
    /// none where that is the machine's own.
    pub(crate) async fn shared_time(&self) -> Result<Option<(Time, Duration)>, Error> {
        match &self.0 {
            Engine::Sqlite(_) => Ok(None),
            Engine::Postgres(postgres) => postgres.time().await.map(Some),
        }
    }

    /// A connection to read from: every statement sees the last commit.
    pub(crate) async fn read(&self) -> Result<Connection, Error> {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.read().await,
            Engine::Postgres(postgres) => postgres.read().await,
        }
    }

    /// Runs `work` in a transaction and returns when it is committed. It is run
    /// again where a server broke it off, so it does nothing but read and write
    /// rows.
    ///
    /// When the returned future is dropped, the work may still be done.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>>
            + Clone
            + Send
            + 'static,
    {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.write(work).await,
            Engine::Postgres(postgres) => postgres.write(work).await,
        }
    }

    /// As [`Store::write`], for work that is one statement on a server, and that
    /// is as good done twice: there it needs no transaction around it, and is run
    /// again also where it may have been committed.
    pub(crate) async fn write_at_once<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>>
            + Clone
            + Send
            + 'static,
    {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.write(work).await,
            Engine::Postgres(postgres) => postgres.write_at_once(work).await,
        }
    }
}
