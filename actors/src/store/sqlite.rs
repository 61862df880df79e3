//! SQLite: a file, and one connection that writes.
//!
//! All writes of this process go through one connection and one task, which
//! puts the writes that wait into one transaction (a *group commit*): a
//! transaction costs one sync of the disk, however many writes are in it. Each
//! write is a savepoint of its own, so one that fails takes none with it, and
//! nobody hears of success before the commit.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::{mpsc, oneshot};

use super::dialect::{failed, meaning};
use super::migrations;
use super::sql::Connection;
use crate::error::Error;
use crate::metrics;

/// Writes that one transaction takes at most.
const LARGEST_GROUP: usize = 256;
/// Connections that read at once.
const READERS: u32 = 4;
/// How long a statement waits for another process's transaction.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    readers: SqlitePool,
    writes: mpsc::Sender<Write>,
}

impl Sqlite {
    /// Opens the file, makes it if it is missing, and brings its schema up to date.
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let opened = failed("open the database");
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was answered with success survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(&opened)?;
        let mut connection = writer.acquire().await.map_err(&opened)?;
        migrations::migrate_sqlite(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(PATIENCE * 2)
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(&opened)?;
        let (writes, waiting) = mpsc::channel(LARGEST_GROUP * 4);
        tokio::spawn(write_all(Connection::Sqlite(connection), waiting));
        Ok(Self { readers, writes })
    }

    pub(super) async fn read(&self) -> Result<Connection, Error> {
        self.readers.acquire().await.map(Connection::Sqlite).map_err(failed("read"))
    }

    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let write: Write = Box::new(move |connection| {
            Box::pin(async move {
                // A caller that has gone does not read the answer.
                let connection = match connection {
                    Ok(connection) => connection,
                    Err(refused) => {
                        let _ = reply.send(Err(refused));
                        return Written::Refused;
                    }
                };
                match work(connection).await {
                    Ok(value) => Written::Done(Box::new(move |committed| {
                        let _ = reply.send(committed.map(|()| value));
                    })),
                    Err(error) => Written::Failed {
                        cause: error.of_database().cloned(),
                        tell: Box::new(move || {
                            let _ = reply.send(Err(error));
                        }),
                    },
                }
            })
        });
        let not_run = |source| meaning("write", Arc::new(source));
        self.writes.send(write).await.map_err(|_| not_run(sqlx::Error::PoolClosed))?;
        result.await.map_err(|_| not_run(sqlx::Error::WorkerCrashed))?
    }
}

/// What is done in a transaction; or where there is none, why not.
type Write =
    Box<dyn for<'c> FnOnce(Result<&'c mut Connection, Error>) -> BoxFuture<'c, Written> + Send>;

/// What became of one write, and how to say so to whoever asked for it.
enum Written {
    Done(Box<dyn FnOnce(Result<(), Error>) + Send>),
    Failed {
        /// What the database said, if it was the database.
        cause: Option<Arc<sqlx::Error>>,
        tell: Box<dyn FnOnce() + Send>,
    },
    /// It was not run, and who asked for it knows why.
    Refused,
}

async fn write_all(mut connection: Connection, mut waiting: mpsc::Receiver<Write>) {
    let mut group = Vec::with_capacity(LARGEST_GROUP);
    while waiting.recv_many(&mut group, LARGEST_GROUP).await > 0 {
        write_group(&mut connection, group.drain(..)).await;
    }
}

async fn write_group(connection: &mut Connection, group: impl Iterator<Item = Write>) {
    let began = Instant::now();
    let mut done = Vec::new();
    // What is wrong with the transaction as a whole.
    let mut broken = begin(connection).await.err().map(Arc::new);
    for write in group {
        if broken.is_none() {
            broken = connection.run("savepoint one_write").await.err().map(Arc::new);
        }
        if let Some(source) = &broken {
            write(Err(meaning("write", Arc::clone(source)))).await;
            continue;
        }
        // Whoever asked hears that it was not done; all others go on.
        let written = AssertUnwindSafe(write(Ok(connection))).catch_unwind().await;
        let written =
            written.unwrap_or_else(|_| Written::Failed { cause: None, tell: Box::new(|| {}) });
        let (written, end) = match written {
            done @ Written::Done(_) => (done, "release one_write"),
            failed => (failed, "rollback to one_write; release one_write"),
        };
        if let Err(error) = connection.run(end).await {
            // A full disk makes SQLite roll back the whole transaction, and this
            // savepoint with it: that is what all others are told.
            broken = Some(match &written {
                Written::Failed { cause: Some(cause), .. } => Arc::clone(cause),
                _ => Arc::new(error),
            });
        }
        done.push(written);
    }
    if broken.is_none() {
        broken = connection.run("commit").await.err().map(Arc::new);
    }
    if broken.is_some() {
        // Fails where SQLite rolled back by itself, and then nothing is open.
        let _ = connection.run("rollback").await;
    }
    metrics::transaction(broken.is_none(), began.elapsed());
    for written in done {
        let committed = match &broken {
            None => Ok(()),
            Some(source) => Err(meaning("commit", source.clone())),
        };
        match written {
            Written::Done(tell) => tell(committed),
            Written::Failed { tell, .. } => tell(),
            Written::Refused => {}
        }
    }
}

async fn begin(connection: &mut Connection) -> Result<(), sqlx::Error> {
    connection.run("begin immediate").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_panics_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abax.db");
        let store = Sqlite::open(&path).await.unwrap();
        let panics = store.write::<(), _>(|c| {
            Box::pin(async move {
                c.run("create table half_done (a)").await.map_err(failed("create"))?;
                panic!("a bug of ours")
            })
        });
        let counts = store.write::<i64, _>(|c| {
            Box::pin(async move {
                let sql = "select count(*) from sqlite_master where name = 'half_done'";
                super::super::sql::sql(sql).scalar(c).await.map_err(failed("count"))
            })
        });
        let (panicked, counted) = tokio::join!(panics, counts);
        panicked.unwrap_err();
        assert_eq!(counted.unwrap(), 0, "what it had done is undone");
    }

    #[tokio::test]
    async fn a_write_that_is_not_begun_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abax.db");
        let store = Sqlite::open(&path).await.unwrap();
        let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::query("begin immediate").execute(&mut other).await.unwrap();
        let error = store.write::<(), _>(|_| Box::pin(async { Ok(()) })).await.unwrap_err();
        let why = crate::Chain(&error).to_string();
        assert!(why.contains("database is locked"), "{why}");
    }
}
