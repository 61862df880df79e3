//! The schema, step by step.
//!
//! A step on PostgreSQL only adds what the program before it can ignore (expand
//! first, contract a release later), since processes of both run side by side.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection};

use super::dialect::was_rolled_back;
use super::{failed, postgres, sqlite};
use crate::config::{DatabaseConfig, PostgresConfig};
use crate::error::Error;

macro_rules! step {
    ($version:literal, $engine:literal, $what:literal) => {
        Migration::new(
            $version,
            $what.into(),
            MigrationType::Simple,
            include_str!(concat!("../../../migrations/", $engine, "/", $what, ".sql"))
                .into_sql_str(),
            false,
        )
    };
}

fn sqlite_steps() -> Migrator {
    Migrator::with_migrations(vec![
        step!(1, "sqlite", "0001_actors_and_executions"),
        step!(2, "sqlite", "0002_many_hosts"),
        step!(3, "sqlite", "0003_the_whole_service"),
    ])
}

fn postgres_steps() -> Migrator {
    let mut steps = Migrator::with_migrations(vec![
        step!(1, "postgres", "0001_everything"),
        step!(2, "postgres", "0002_the_whole_service"),
    ]);
    // Steps of a newer program.
    steps.set_ignore_missing(true);
    steps
}

/// How far the schema of a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The last step that was taken, if any was.
    pub found: Option<i64>,
    /// The step that this program needs.
    pub needed: i64,
}

/// How far the schema of a server is. That of a file is up to date once it is open.
pub(crate) async fn schema(config: &DatabaseConfig) -> Result<Schema, Error> {
    match config {
        DatabaseConfig::Sqlite { path } => {
            sqlite::Sqlite::open(path).await?;
            let needed = last(&sqlite_steps());
            Ok(Schema { found: Some(needed), needed })
        }
        DatabaseConfig::Postgres(config) => {
            let mut connection = postgres::connect(config).await?;
            let schema = schema_of_postgres(&mut connection).await?;
            connection.close().await.map_err(failed("check the schema"))?;
            Ok(schema)
        }
    }
}

/// Brings the schema up to date.
pub(crate) async fn migrate(config: &DatabaseConfig) -> Result<(), Error> {
    match config {
        // Opening does it.
        DatabaseConfig::Sqlite { path } => sqlite::Sqlite::open(path).await.map(|_| ()),
        DatabaseConfig::Postgres(config) => migrate_postgres(config).await,
    }
}

/// Brings the schema on a server up to date. A step takes its tables one after the
/// other, as those who use them do in another order: where it is the step that the
/// server breaks off, it is taken again.
async fn migrate_postgres(config: &PostgresConfig) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let mut connection = postgres::connect_to_migrate(config).await?;
        // Waits for the lock that another process migrates under.
        let migrated = postgres_steps().run_direct(None, &mut connection, false).await;
        // Its locks go with it.
        let closed = connection.close().await;
        match migrated {
            Ok(()) => return closed.map_err(failed("migrate the database")),
            Err(MigrateError::ExecuteMigration(source, _))
                if was_rolled_back(&source) && tries < 20 =>
            {
                tries += 1;
                tracing::info!(tries, "a step of the schema was in the way of others: again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(source) => return Err(Error::Migrate { source }),
        }
    }
}

/// Brings the schema of a file up to date.
///
/// SQLite has no lock for migrations as a whole. Where two processes start on a
/// fresh file, one of them finds a step half taken by the other; after the
/// other's commit it finds it done.
pub(super) async fn migrate_sqlite(connection: &mut SqliteConnection) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        match sqlite_steps().run_direct(None, connection, false).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::ExecuteMigration(..)) if tries < 20 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(source) => return Err(Error::Migrate { source }),
        }
    }
}

/// Fails where the schema on a server lacks a step that this program needs.
pub(super) async fn check_postgres(connection: &mut PgConnection) -> Result<(), Error> {
    let Schema { found, needed } = schema_of_postgres(connection).await?;
    if found.unwrap_or(0) < needed {
        return Err(Error::NotMigrated { found, needed });
    }
    Ok(())
}

async fn schema_of_postgres(connection: &mut PgConnection) -> Result<Schema, Error> {
    let checked = failed("check the schema");
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await
        .map_err(&checked)?;
    let mut found = None;
    if exists {
        found = sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
            .fetch_one(connection)
            .await
            .map_err(&checked)?;
    }
    Ok(Schema { found, needed: last(&postgres_steps()) })
}

fn last(steps: &Migrator) -> i64 {
    steps.iter().map(|step| step.version).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::clock::Time;
    use crate::execution::{ExecutionStatus, Phase};
    use crate::id::{ActorId, ExecutionId};
    use crate::store::{self, Store};

    #[tokio::test]
    async fn what_waited_before_the_second_step_waits_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abax.db");
        let mut old = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .connect()
            .await
            .unwrap();
        let first = sqlite_steps().iter().next().unwrap().clone();
        Migrator::with_migrations(vec![first]).run_direct(None, &mut old, false).await.unwrap();
        let actor = ActorId::generate();
        sqlx::query(
            "insert into actors values ($1, 't', 'o', null, '', 'i', true, '', false, false, '', \
             '', '[]', false, null, null, null, false, '{}', 'READY', '', '{}', 1, 1, 1, \
             'default', null)",
        )
        .bind(actor.as_str())
        .execute(&mut old)
        .await
        .unwrap();
        let insert = "insert into executions (id, actor_id, executor, status, actor_revision, \
                      accepted_us, queued_us) values ($1, $2, 'u', $3, 1, 10, $4)";
        let [delayed, now, unqueued, done] = [
            ("SUBMITTED", Some(11)),
            ("SUBMITTED", Some(11)),
            ("SUBMITTED", None),
            ("COMPLETE", Some(11)),
        ]
        .map(|(status, queued)| (ExecutionId::generate(), status, queued));
        for (id, status, queued) in [&delayed, &now, &unqueued, &done] {
            sqlx::query(insert)
                .bind(id.as_str())
                .bind(actor.as_str())
                .bind(status)
                .bind(queued)
                .execute(&mut old)
                .await
                .unwrap();
        }
        for ((id, ..), sequence, visible) in [(&delayed, 1, 5_000), (&now, 2, 10)] {
            sqlx::query("insert into queue values ($1, $2, $3, $4)")
                .bind(id.as_str())
                .bind(actor.as_str())
                .bind(sequence)
                .bind(visible)
                .execute(&mut old)
                .await
                .unwrap();
        }
        old.close().await.unwrap();

        let store = Store::open(&DatabaseConfig::Sqlite { path }).await.unwrap();
        let mut c = store.read().await.unwrap();
        let waiting: Vec<_> = store::waiting::head(&mut c, &actor, None, 10)
            .await
            .unwrap()
            .into_iter()
            .map(|(id, visible)| (id, visible.micros()))
            .collect();
        let expected = [(delayed.0.clone(), 5_000), (now.0, 10), (unqueued.0.clone(), 0)];
        assert_eq!(waiting, expected, "in the order of acceptance");
        let queued = store::executions::find(&mut c, &unqueued.0).await.unwrap().unwrap();
        assert_eq!(queued.execution.phases.at(Phase::Queued), Some(Time::from_micros(10)));
        let done = store::executions::find(&mut c, &done.0).await.unwrap().unwrap();
        assert_eq!(done.execution.status, ExecutionStatus::Complete);
    }

    #[tokio::test]
    async fn a_step_may_take_longer_than_a_statement_of_the_service() {
        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        let mut allowed = Vec::new();
        for mut connection in [
            postgres::connect(&config).await.unwrap(),
            postgres::connect_to_migrate(&config).await.unwrap(),
        ] {
            let timeout: String = sqlx::query_scalar("show statement_timeout")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            allowed.push(timeout);
        }
        assert_eq!(allowed, ["15s", "0"]);
    }

    #[tokio::test]
    async fn a_step_that_meets_those_who_work_is_taken_again() {
        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        let mut works = postgres::connect_to_migrate(&config).await.unwrap();
        let first = postgres_steps().iter().next().unwrap().clone();
        Migrator::with_migrations(vec![first]).run_direct(None, &mut works, false).await.unwrap();
        // As a claim does: it has executions, and wants actors.
        sqlx::raw_sql("begin; lock table executions in row exclusive mode")
            .execute(&mut works)
            .await
            .unwrap();
        let migrating = tokio::spawn({
            let config = DatabaseConfig::Postgres(config.clone());
            async move { migrate(&config).await }
        });
        let mut watch = postgres::connect(&config).await.unwrap();
        let waits = "select count(*) from pg_stat_activity \
                     where wait_event_type = 'Lock' and datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut watch).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The server breaks off the one that waited first.
        sqlx::raw_sql("lock table actors in row exclusive mode; commit")
            .execute(&mut works)
            .await
            .unwrap();
        migrating.await.unwrap().unwrap();
        check_postgres(&mut works).await.unwrap();
    }

    /// Table, column, and whether it may be null.
    type Column = (String, String, bool);

    #[tokio::test]
    async fn both_engines_have_the_same_tables() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abax.db");
        migrate(&DatabaseConfig::Sqlite { path: path.clone() }).await.unwrap();
        let mut c = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let of_sqlite: BTreeSet<Column> = sqlx::query_as(
            "select t.name, c.name, c.\"notnull\" = 0 and c.pk = 0 \
             from sqlite_master t join pragma_table_info(t.name) c \
             where t.type = 'table' and t.name not like 'sqlite%' and t.name not like '_sqlx%'",
        )
        .fetch_all(&mut c)
        .await
        .unwrap()
        .into_iter()
        .collect();

        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        migrate(&DatabaseConfig::Postgres(config.clone())).await.unwrap();
        let mut c = postgres::connect(&config).await.unwrap();
        let of_postgres: BTreeSet<Column> = sqlx::query_as(
            "select table_name::text, column_name::text, is_nullable = 'YES' \
             from information_schema.columns \
             where table_schema = 'public' and table_name not like '\\_sqlx%'",
        )
        .fetch_all(&mut c)
        .await
        .unwrap()
        .into_iter()
        .collect();
        let only = |a: &BTreeSet<Column>, b: &BTreeSet<Column>| {
            a.difference(b).cloned().collect::<Vec<_>>()
        };
        assert_eq!(only(&of_sqlite, &of_postgres), [], "only SQLite has these");
        assert_eq!(only(&of_postgres, &of_sqlite), [], "only PostgreSQL has these");
        assert!(of_sqlite.len() > 50);
    }

    /// What a program that knows the tables as they were relies on: their columns
    /// with types, and the rules that their rows keep.
    async fn relied_on(c: &mut PgConnection) -> BTreeMap<(String, String), (String, bool)> {
        let columns: Vec<(String, String, String, bool)> = sqlx::query_as(
            "select table_name::text, column_name::text, data_type::text, \
             is_nullable = 'NO' and column_default is null and is_identity = 'NO' \
             from information_schema.columns \
             where table_schema = 'public' and table_name not like '\\_sqlx%'",
        )
        .fetch_all(&mut *c)
        .await
        .unwrap();
        let rules: Vec<(String, String, String)> = sqlx::query_as(
            "select conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) \
             from pg_constraint where connamespace = 'public'::regnamespace",
        )
        .fetch_all(c)
        .await
        .unwrap();
        let columns = columns
            .into_iter()
            .map(|(table, column, kind, needed)| ((table, column), (kind, needed)));
        let rules = rules.into_iter().map(|(table, name, rule)| ((table, name), (rule, true)));
        columns.chain(rules).collect()
    }

    #[tokio::test]
    async fn a_step_on_a_server_only_adds_what_the_program_before_can_ignore() {
        let database = abax_testbed::Database::create().unwrap();
        let mut config = PostgresConfig::new(database.url());
        config.password = Some(abax_testbed::PASSWORD.into());
        let mut c = postgres::connect_to_migrate(&config).await.unwrap();
        let mut before = BTreeMap::new();
        for step in postgres_steps().iter() {
            let mut one = Migrator::with_migrations(vec![step.clone()]);
            one.set_ignore_missing(true);
            one.run_direct(None, &mut c, false).await.unwrap();
            let after = relied_on(&mut c).await;
            let tables: BTreeSet<&String> = before.keys().map(|(table, _)| table).collect();
            for (key, was) in &before {
                assert_eq!(after.get(key), Some(was), "{key:?} in step {}", step.version);
            }
            for (key, (what, needed)) in &after {
                assert!(
                    before.contains_key(key) || !tables.contains(&key.0) || !needed,
                    "{key:?}, {what}, is not written by the program before step {}",
                    step.version
                );
            }
            before = after;
        }
        assert!(before.len() > 50);
    }
}
