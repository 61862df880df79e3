//! The table `permissions`: who may do what with actors, aliases and configs. The
//! owner's entry comes and goes with the object, by triggers of the schema.

use super::{Connection, Fields, failed, sql};
use crate::error::Error;
use crate::permission::{EVERYBODY, Level, Permission, Tenant};

/// What entries are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Actor,
    Alias,
    Config,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Alias => "alias",
            Self::Config => "config",
        }
    }
}

/// One object: an actor by its id, the others by their names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
}

/// The level that the entries of an object give `user`: its own or that for
/// everybody, whichever is higher.
pub(crate) async fn level(
    c: &mut Connection,
    object: Object<'_>,
    user: &str,
) -> Result<Level, Error> {
    let rows = sql("select object as id, level from permissions \
         where tenant = $1 and kind = $2 and object = $3 and user_name in ($4, $5)")
    .bind(object.tenant.as_str())
    .bind(object.kind.as_str())
    .bind(object.name)
    .bind(user)
    .bind(EVERYBODY)
    .fetch_all(c)
    .await
    .map_err(failed("look at the permissions"))?;
    let mut highest = Level::None;
    for row in &rows {
        let level =
            Fields::of(row, "permissions").parsed("level", |word: String| Level::of_word(&word))?;
        highest = highest.max(level);
    }
    Ok(highest)
}

/// All entries of an object, in the order in which they were made.
pub(crate) async fn all(c: &mut Connection, object: Object<'_>) -> Result<Vec<Permission>, Error> {
    let rows = sql("select object as id, user_name, level from permissions \
         where tenant = $1 and kind = $2 and object = $3 order by position, user_name")
    .bind(object.tenant.as_str())
    .bind(object.kind.as_str())
    .bind(object.name)
    .fetch_all(c)
    .await
    .map_err(failed("list the permissions"))?;
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row, "permissions");
            Ok(Permission {
                user: fields.get("user_name")?,
                level: fields.parsed("level", |word: String| Level::of_word(&word))?,
            })
        })
        .collect()
}

/// Gives `user` this level, whatever it had.
pub(crate) async fn set(
    c: &mut Connection,
    object: Object<'_>,
    user: &str,
    level: Level,
) -> Result<(), Error> {
    sql("insert into permissions (tenant, kind, object, user_name, level, position) \
         values ($1, $2, $3, $4, $5, (select coalesce(max(position), 0) + 1 from permissions \
                 where tenant = $1 and kind = $2 and object = $3)) \
         on conflict (tenant, kind, object, user_name) do update set level = excluded.level")
    .bind(object.tenant.as_str())
    .bind(object.kind.as_str())
    .bind(object.name)
    .bind(user)
    .bind(level.as_str())
    .execute(c)
    .await
    .map_err(failed("set the permission"))?;
    Ok(())
}
