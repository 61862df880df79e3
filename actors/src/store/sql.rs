//! One text per statement, whichever engine runs it.
//!
//! Statements are static texts with `$1` placeholders, which both engines
//! prepare once per connection; those of searches are composed of static pieces,
//! and prepared each time. Values are texts, whole numbers of 64 bits,
//! booleans, bytes, and nulls of these: what both engines store alike (a text
//! with a NUL character is refused, since PostgreSQL has none). Times
//! are numbers of microseconds, JSON is text.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::database::HasStatementCache;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Executor as _, Row as _, SqlSafeStr as _, Type};

/// How long a server may take for a statement before its connection counts as
/// broken: a partition answers nothing at all.
const STATEMENT: Duration = Duration::from_secs(15);

/// A connection on which statements run.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// One statement with its values.
#[derive(Debug)]
#[must_use = "a statement does nothing until it is executed or fetched"]
pub(crate) struct Sql<'a> {
    sqlite: Text,
    postgres: Text,
    values: Vec<Value<'a>>,
    /// Holds what PostgreSQL cannot store, so it is refused on both.
    unstorable: bool,
}

type Text = Cow<'static, str>;

/// The statement `text`, for both engines.
pub(crate) fn sql<'a>(text: &'static str) -> Sql<'a> {
    composed(text)
}

/// As [`sql`], for a text that was put together of our own pieces: whatever came
/// from elsewhere is bound.
pub(crate) fn composed<'a>(text: impl Into<Text>) -> Sql<'a> {
    let text = text.into();
    Sql { sqlite: text.clone(), postgres: text, values: Vec::new(), unstorable: false }
}

/// A row of either engine.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub(crate) trait Field:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl<T> Field for T where
    T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl Row {
    pub(crate) fn get<T: Field>(&self, column: &str) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// The first column.
    fn first<T: Field>(&self) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(0),
            Self::Postgres(row) => row.try_get(0),
        }
    }
}

impl<'a> Sql<'a> {
    /// What PostgreSQL gets instead: the same, but for what SQLite does not need
    /// or know, such as row locks.
    pub(crate) fn on_postgres(mut self, text: &'static str) -> Self {
        self.postgres = text.into();
        self
    }

    /// The values of all placeholders.
    pub(crate) fn bind_all(self, values: impl IntoIterator<Item = Value<'a>>) -> Self {
        values.into_iter().fold(self, Sql::bind)
    }

    /// The value of the next placeholder.
    pub(crate) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        let value = value.into();
        self.unstorable |= matches!(&value, Value::Text(Some(text)) if text.contains('\0'));
        self.values.push(value);
        self
    }

    fn check(&self) -> Result<(), sqlx::Error> {
        if self.unstorable {
            return Err(sqlx::Error::Encode("a text holds a NUL character".into()));
        }
        Ok(())
    }

    /// Says how many rows were changed.
    pub(crate) async fn execute(self, c: &mut Connection) -> Result<u64, sqlx::Error> {
        self.check()?;
        match c {
            Connection::Sqlite(c) => {
                #[cfg(test)]
                super::plans::note_on_sqlite(c, &self.sqlite).await;
                Ok(bound(self.sqlite, self.values).execute(&mut **c).await?.rows_affected())
            }
            Connection::Postgres(c) => {
                #[cfg(test)]
                super::plans::note(c, &self.postgres, &self.values).await;
                let query = bound(self.postgres, self.values);
                Ok(in_time(c, async |c| query.execute(&mut **c).await).await?.rows_affected())
            }
        }
    }

    pub(crate) async fn fetch_all(self, c: &mut Connection) -> Result<Vec<Row>, sqlx::Error> {
        self.check()?;
        match c {
            Connection::Sqlite(c) => {
                #[cfg(test)]
                super::plans::note_on_sqlite(c, &self.sqlite).await;
                let rows = bound(self.sqlite, self.values).fetch_all(&mut **c).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Connection::Postgres(c) => {
                #[cfg(test)]
                super::plans::note(c, &self.postgres, &self.values).await;
                let query = bound(self.postgres, self.values);
                let rows = in_time(c, async |c| query.fetch_all(&mut **c).await).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(crate) async fn fetch_optional(
        self,
        c: &mut Connection,
    ) -> Result<Option<Row>, sqlx::Error> {
        self.check()?;
        match c {
            Connection::Sqlite(c) => {
                #[cfg(test)]
                super::plans::note_on_sqlite(c, &self.sqlite).await;
                let row = bound(self.sqlite, self.values).fetch_optional(&mut **c).await?;
                Ok(row.map(Row::Sqlite))
            }
            Connection::Postgres(c) => {
                #[cfg(test)]
                super::plans::note(c, &self.postgres, &self.values).await;
                let query = bound(self.postgres, self.values);
                let row = in_time(c, async |c| query.fetch_optional(&mut **c).await).await?;
                Ok(row.map(Row::Postgres))
            }
        }
    }

    /// The first column of the only row.
    pub(crate) async fn scalar<T: Field>(self, c: &mut Connection) -> Result<T, sqlx::Error> {
        self.optional_scalar(c).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first column of the row, if there is one.
    pub(crate) async fn optional_scalar<T: Field>(
        self,
        c: &mut Connection,
    ) -> Result<Option<T>, sqlx::Error> {
        self.fetch_optional(c).await?.map(|row| row.first()).transpose()
    }

    /// The first column of every row.
    pub(crate) async fn scalars<T: Field>(self, c: &mut Connection) -> Result<Vec<T>, sqlx::Error> {
        self.fetch_all(c).await?.iter().map(Row::first).collect()
    }
}

impl Connection {
    /// Nobody uses it again after this: who knows what is open on it.
    pub(super) fn close_on_drop(&mut self) {
        match self {
            Self::Sqlite(c) => c.close_on_drop(),
            Self::Postgres(c) => c.close_on_drop(),
        }
    }

    /// Runs statements that have no values and no rows, such as `commit`.
    pub(crate) async fn run(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(c) => c.execute(text).await.map(|_| ()),
            Self::Postgres(c) => in_time(c, async |c| c.execute(text).await).await.map(|_| ()),
        }
    }
}

/// Runs `work` within the time that a server may take. A connection that did
/// not answer is not used again: its answer may still come.
async fn in_time<T>(
    c: &mut PoolConnection<Postgres>,
    work: impl AsyncFnOnce(&mut PoolConnection<Postgres>) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(STATEMENT, work(c)).await {
        Ok(done) => done,
        Err(_) => {
            c.close_on_drop();
            Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
        }
    }
}

/// A value for a placeholder; a null has a type too.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Text(Option<Cow<'a, str>>),
    Whole(Option<i64>),
    Truth(Option<bool>),
    Bytes(Option<&'a [u8]>),
}

/// An engine that takes our values.
trait Engine: sqlx::Database + HasStatementCache {
    fn bind<'q>(
        query: Query<'q, Self, Self::Arguments>,
        value: Value<'_>,
    ) -> Query<'q, Self, Self::Arguments>;
}

macro_rules! takes_our_values {
    ($engine:ty, $arguments:ty) => {
        impl Engine for $engine {
            fn bind<'q>(
                query: Query<'q, Self, $arguments>,
                value: Value<'_>,
            ) -> Query<'q, Self, $arguments> {
                match value {
                    Value::Text(text) => query.bind(text.map(Cow::into_owned)),
                    Value::Whole(number) => query.bind(number),
                    Value::Truth(truth) => query.bind(truth),
                    Value::Bytes(bytes) => query.bind(bytes.map(<[u8]>::to_vec)),
                }
            }
        }
    };
}

takes_our_values!(Sqlite, SqliteArguments);
takes_our_values!(Postgres, PgArguments);

fn bound<'q, E: Engine>(text: Text, values: Vec<Value<'_>>) -> Query<'q, E, E::Arguments> {
    let query = match text {
        Cow::Borrowed(text) => sqlx::query::<E>(text.into_sql_str()),
        // One of many: kept, they would push out those that are run again.
        Cow::Owned(text) => sqlx::query::<E>(AssertSqlSafe(text).into_sql_str()).persistent(false),
    };
    values.into_iter().fold(query, E::bind)
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl From<Option<String>> for Value<'_> {
    fn from(text: Option<String>) -> Self {
        Self::Text(text.map(Cow::Owned))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Some(Cow::Owned(text)))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text.map(Cow::Borrowed))
    }
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(text: &'a Option<String>) -> Self {
        Self::Text(text.as_deref().map(Cow::Borrowed))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Whole(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Truth(Some(truth))
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(bytes))
    }
}
