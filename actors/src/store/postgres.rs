//! PostgreSQL: a pool of connections, and transactions that are run again where
//! the server broke them off.

use std::panic::AssertUnwindSafe;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::Instant;

use super::announcements::Announcements;
use super::dialect::{failed, may_run_again, meaning, was_rolled_back};
use super::migrations;
use super::sql::{Connection, sql};
use super::{Announcement, Heard};
use crate::clock::Time;
use crate::config::PostgresConfig;
use crate::error::Error;
use crate::metrics;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that rested for longer is asked whether it still is one.
const RESTED: Duration = Duration::from_secs(1);
/// For how long a transaction that the server breaks off is run again.
const RUN_AGAIN: Duration = Duration::from_secs(10);
/// The first pause before that; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pool: PgPool,
    announcements: Arc<Announcements>,
}

impl Postgres {
    /// Connects to a server whose schema is what this program needs, or newer.
    pub(super) async fn open(config: &PostgresConfig) -> Result<Self, Error> {
        let options = options(config)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections.max(1))
            .acquire_timeout(CONNECT)
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > RESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone());
        let mut connection = pool.acquire().await.map_err(failed("open the database"))?;
        migrations::check_postgres(&mut connection).await?;
        drop(connection);
        Ok(Self { pool, announcements: Arc::new(Announcements::new(&options)) })
    }

    pub(super) fn announce(&self, announcement: Announcement) {
        self.announcements.send(announcement);
    }

    pub(super) fn announcements(&self) -> Heard {
        self.announcements.listen()
    }

    /// The server's time now, and how far it may be off: half of the round trip.
    pub(super) async fn time(&self) -> Result<(Time, Duration), Error> {
        let mut c = self.read().await?;
        let asked = Instant::now();
        let micros: i64 = sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
            .scalar(&mut c)
            .await
            .map_err(failed("ask for the time"))?;
        let off = asked.elapsed() / 2;
        Ok((Time::from_micros(micros).after(off), off))
    }

    pub(super) async fn read(&self) -> Result<Connection, Error> {
        self.pool.acquire().await.map(Connection::Postgres).map_err(failed("read"))
    }

    /// Runs `work` in a transaction of a task of its own, so that a caller who
    /// goes away leaves no transaction half done on a connection of the pool.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>>
            + Clone
            + Send
            + 'static,
    {
        let postgres = self.clone();
        in_a_task(until_done(move || {
            let (postgres, work) = (postgres.clone(), work.clone());
            async move { postgres.write_once(work).await }
        }))
        .await
    }

    /// Runs `work`, which is one statement, by itself.
    pub(super) async fn write_at_once<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>>
            + Clone
            + Send
            + 'static,
    {
        let postgres = self.clone();
        in_a_task(until_done(move || {
            let (postgres, work) = (postgres.clone(), work.clone());
            async move {
                let mut c = postgres.read().await.map_err(NotWritten::Yet)?;
                work(&mut c).await.map_err(NotWritten::of)
            }
        }))
        .await
    }

    async fn write_once<T, F>(&self, work: F) -> Result<T, NotWritten>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>>,
    {
        let mut c = self.read().await.map_err(NotWritten::Yet)?;
        c.run("begin").await.map_err(|source| NotWritten::Yet(failed("write")(source)))?;
        let done = AssertUnwindSafe(work(&mut c)).catch_unwind().await;
        let error = match done {
            Ok(Ok(value)) => {
                return match c.run("commit").await {
                    Ok(()) => Ok(value),
                    Err(source) => {
                        // Whether it was committed nobody knows, unless the
                        // server says so.
                        let again = was_rolled_back(&source);
                        let error = failed("commit")(source);
                        c.close_on_drop();
                        Err(if again { NotWritten::Yet(error) } else { NotWritten::ForGood(error) })
                    }
                };
            }
            Ok(Err(error)) => error,
            Err(_) => meaning("write", Arc::new(sqlx::Error::WorkerCrashed)),
        };
        if c.run("rollback").await.is_err() {
            c.close_on_drop();
        }
        Err(NotWritten::of(error))
    }
}

/// Runs `write` in a task of its own, to its end.
async fn in_a_task<T: Send + 'static>(
    write: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let crashed = |_| meaning("write", Arc::new(sqlx::Error::WorkerCrashed));
    tokio::spawn(write).await.map_err(crashed)?
}

/// Repeats `write` while it may yet succeed, for a while.
async fn until_done<T, W>(mut write: impl FnMut() -> W) -> Result<T, Error>
where
    W: Future<Output = Result<T, NotWritten>>,
{
    let deadline = Instant::now() + RUN_AGAIN;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let written = write().await;
        let by_database = |error: &Error| error.of_database().is_some();
        match &written {
            Ok(_) => metrics::transaction(true, began.elapsed()),
            Err(NotWritten::Yet(error) | NotWritten::ForGood(error)) if by_database(error) => {
                metrics::transaction(false, began.elapsed());
            }
            // A rule said no, which is no failure of the database's.
            Err(_) => {}
        }
        let error = match written {
            Ok(value) => return Ok(value),
            Err(NotWritten::ForGood(error)) => return Err(error),
            Err(NotWritten::Yet(error)) => error,
        };
        if Instant::now() + pause >= deadline {
            return Err(error);
        }
        tracing::debug!(error = %crate::Chain(&error), "a transaction is run again");
        metrics::transaction_retried();
        // Two that broke each other off do not meet again at once.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a transaction was not committed, or may not have been.
enum NotWritten {
    /// It was not, and may be when it is run again.
    Yet(Error),
    ForGood(Error),
}

impl NotWritten {
    /// What an error means before the commit.
    fn of(error: Error) -> Self {
        let again = error.of_database().is_some_and(|source| may_run_again(source));
        if again { Self::Yet(error) } else { Self::ForGood(error) }
    }
}

/// A connection outside of any pool.
pub(super) async fn connect(config: &PostgresConfig) -> Result<PgConnection, Error> {
    connect_with(options(config)?).await
}

/// As [`connect`], for steps of the schema: on large tables they take as long as
/// they take, and so does another process that takes them first.
pub(super) async fn connect_to_migrate(config: &PostgresConfig) -> Result<PgConnection, Error> {
    connect_with(options(config)?.options([("statement_timeout", "0")])).await
}

async fn connect_with(options: PgConnectOptions) -> Result<PgConnection, Error> {
    let connected = tokio::time::timeout(CONNECT, options.connect())
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
    connected.map_err(failed("open the database"))
}

fn options(config: &PostgresConfig) -> Result<PgConnectOptions, Error> {
    let mut options = PgConnectOptions::from_str(&config.url)
        .map_err(|error| Error::invalid("database.url", error.to_string()))?
        .application_name("abax")
        .statement_cache_capacity(500)
        // The locks of a process that was stopped, or that a partition hides,
        // hold the others up for no longer.
        .options([
            ("idle_in_transaction_session_timeout", "10s"),
            ("statement_timeout", "15s"),
            ("default_transaction_isolation", "read committed"),
        ])
        .disable_statement_logging();
    if let Some(password) = &config.password {
        options = options.password(password.expose_secret());
    }
    if matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull) {
        options = options.ssl_root_cert_from_pem(trusted(config.ca_pem.as_deref()));
    }
    Ok(options)
}

/// The system's certificates that can be used, and those of `ca_pem`, in PEM.
fn trusted(ca_pem: Option<&[u8]>) -> Vec<u8> {
    let mut pem = ca_pem.unwrap_or_default().to_vec();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // One that cannot be used would fail every connection.
        if rustls::RootCertStore::empty().add(certificate.clone()).is_err() {
            continue;
        }
        let text = BASE64_STANDARD.encode(&certificate);
        pem.extend_from_slice(b"\n-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::DatabaseConfig;

    async fn opened() -> (abax_testbed::Database, Postgres) {
        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        migrations::migrate(&DatabaseConfig::Postgres(config.clone())).await.unwrap();
        database.execute("create table pots (name text primary key, beans bigint)").unwrap();
        database.execute("insert into pots values ('a', 0), ('b', 0)").unwrap();
        let postgres = Postgres::open(&config).await.unwrap();
        // Two connections, so that nobody waits for one.
        drop((postgres.read().await.unwrap(), postgres.read().await.unwrap()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        (database, postgres)
    }

    const ADD: &str = "update pots set beans = beans + 1 where name = $1";

    /// Adds a bean to each pot, the second one after a while.
    async fn add(
        postgres: &Postgres,
        pots: [&'static str; 2],
        begin: &'static str,
        tries: &'static AtomicU32,
    ) -> Result<(), Error> {
        postgres
            .write(move |c| {
                Box::pin(async move {
                    tries.fetch_add(1, Ordering::SeqCst);
                    c.run(begin).await.map_err(failed("begin"))?;
                    for pot in pots {
                        sql("select beans from pots where name = $1")
                            .bind(pot)
                            .scalar::<i64>(c)
                            .await
                            .map_err(failed("count"))?;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        sql(ADD).bind(pot).execute(c).await.map_err(failed("add"))?;
                    }
                    Ok(())
                })
            })
            .await
    }

    #[tokio::test]
    async fn transactions_that_break_each_other_off_are_run_again() {
        static DEADLOCKED: AtomicU32 = AtomicU32::new(0);
        static SERIALIZED: AtomicU32 = AtomicU32::new(0);
        let (database, postgres) = opened().await;
        let mut beans = 0;
        for (begin, other, tries) in [
            ("set local deadlock_timeout = '50ms'", ["b", "a"], &DEADLOCKED),
            ("set transaction isolation level serializable", ["a", "b"], &SERIALIZED),
        ] {
            let mut runs = 0;
            // On a busy machine one may be through before the other begins.
            while tries.load(Ordering::SeqCst) == runs {
                let (one, two) = tokio::join!(
                    add(&postgres, ["a", "b"], begin, tries),
                    add(&postgres, other, begin, tries),
                );
                one.and(two).unwrap();
                runs += 2;
                beans += 4;
                let sum = database.execute("select sum(beans) from pots").unwrap();
                assert_eq!(sum.trim(), beans.to_string(), "{begin}");
                assert!(runs < 40, "they never met: {begin}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_before_the_commit_is_replaced() {
        static TRIES: AtomicU32 = AtomicU32::new(0);
        let (database, postgres) = opened().await;
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where state = 'idle in transaction' and datname = current_database()";
        let added = {
            let postgres = postgres.clone();
            tokio::spawn(async move {
                add(&postgres, ["a", "b"], "set local deadlock_timeout = '50ms'", &TRIES).await
            })
        };
        while TRIES.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        database.execute(cut).unwrap();
        added.await.unwrap().unwrap();
        assert_eq!(database.execute("select sum(beans) from pots").unwrap().trim(), "2");
        assert_eq!(TRIES.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_write_that_fails_or_panics_leaves_nothing_open() {
        let (database, postgres) = opened().await;
        let failed = postgres
            .write::<(), _>(|c| {
                Box::pin(async move {
                    sql(ADD).bind("a").execute(c).await.map_err(failed("add"))?;
                    Err(Error::QueueUnavailable)
                })
            })
            .await;
        assert!(matches!(failed, Err(Error::QueueUnavailable)), "{failed:?}");
        let panicked = postgres
            .write::<(), _>(|c| {
                Box::pin(async move {
                    sql(ADD).bind("a").execute(c).await.map_err(super::failed("add"))?;
                    panic!("a bug of ours")
                })
            })
            .await;
        panicked.unwrap_err();
        // A caller that goes away.
        let gone = postgres.write::<(), _>(|c| {
            Box::pin(async move {
                sql(ADD).bind("b").execute(c).await.map_err(super::failed("add"))?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            })
        });
        let _ = tokio::time::timeout(Duration::from_millis(20), gone).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let beans = "select string_agg(name || beans, ' ' order by name) from pots";
        assert_eq!(database.execute(beans).unwrap().trim(), "a0 b1", "what was begun is done");
        let open = "select count(*) from pg_stat_activity \
                    where state like 'idle in transaction%' and datname = current_database()";
        assert_eq!(database.execute(open).unwrap().trim(), "0");
    }
}
