//! The table `aliases`.

use super::sql::Sql;
use super::{Connection, Fields, failed, sql};
use crate::alias::Alias;
use crate::clock::Time;
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::{EVERYBODY, Tenant};

/// False where there is one of that name.
pub(crate) async fn insert(c: &mut Connection, alias: &Alias) -> Result<bool, Error> {
    let inserted = sql("insert into aliases (tenant, alias, actor_id, owner, created_us) \
         values ($1, $2, $3, $4, $5) on conflict (tenant, alias) do nothing")
    .bind(alias.tenant.as_str())
    .bind(&alias.alias)
    .bind(alias.actor.as_str())
    .bind(&alias.owner)
    .bind(alias.created.micros())
    .execute(c)
    .await
    .map_err(failed("make the alias"))?;
    Ok(inserted == 1)
}

pub(crate) async fn find(
    c: &mut Connection,
    tenant: &Tenant,
    alias: &str,
) -> Result<Option<Alias>, Error> {
    one(
        c,
        sql("select alias as id, * from aliases where tenant = $1 and alias = $2"),
        tenant,
        alias,
    )
    .await
}

/// As [`find`], and nobody else changes or removes it until this transaction ends.
pub(crate) async fn lock(
    c: &mut Connection,
    tenant: &Tenant,
    alias: &str,
) -> Result<Option<Alias>, Error> {
    let statement = sql("select alias as id, * from aliases where tenant = $1 and alias = $2")
        .on_postgres(
            "select alias as id, * from aliases where tenant = $1 and alias = $2 \
             for no key update",
        );
    one(c, statement, tenant, alias).await
}

async fn one<'a>(
    c: &mut Connection,
    statement: Sql<'a>,
    tenant: &'a Tenant,
    alias: &'a str,
) -> Result<Option<Alias>, Error> {
    let row = statement
        .bind(tenant.as_str())
        .bind(alias)
        .fetch_optional(c)
        .await
        .map_err(failed("find the alias"))?;
    row.map(|row| read(&Fields::of(&row, "aliases"))).transpose()
}

/// Those of a tenant that entries of `user`, or those for everybody, let it see, and
/// those of actors that they let it see, oldest first; all where no user is given.
pub(crate) async fn visible_to(
    c: &mut Connection,
    tenant: &Tenant,
    user: Option<&str>,
) -> Result<Vec<Alias>, Error> {
    let statement = match user {
        None => sql("select alias as id, * from aliases where tenant = $1 \
             order by created_us, alias")
        .bind(tenant.as_str()),
        Some(user) => sql("select alias as id, * from aliases where tenant = $1 and ( \
                 alias in (select object from permissions where tenant = $1 and kind = 'alias' \
                     and user_name in ($2, $3) and level <> 'NONE') \
                 or actor_id in (select object from permissions where tenant = $1 \
                     and kind = 'actor' and user_name in ($2, $3) and level <> 'NONE')) \
             order by created_us, alias")
        .bind(tenant.as_str())
        .bind(user)
        .bind(EVERYBODY),
    };
    let rows = statement.fetch_all(c).await.map_err(failed("list the aliases"))?;
    rows.iter().map(|row| read(&Fields::of(row, "aliases"))).collect()
}

/// How many aliases `user` made in `tenant`.
pub(crate) async fn count_of_owner(
    c: &mut Connection,
    tenant: &Tenant,
    user: &str,
) -> Result<u64, Error> {
    let count: i64 = sql("select count(*) from aliases where tenant = $1 and owner = $2")
        .bind(tenant.as_str())
        .bind(user)
        .scalar(c)
        .await
        .map_err(failed("count the aliases"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Makes an alias stand for another actor.
pub(crate) async fn point_at(
    c: &mut Connection,
    tenant: &Tenant,
    alias: &str,
    actor: &ActorId,
) -> Result<(), Error> {
    sql("update aliases set actor_id = $3 where tenant = $1 and alias = $2")
        .bind(tenant.as_str())
        .bind(alias)
        .bind(actor.as_str())
        .execute(c)
        .await
        .map_err(failed("point the alias at another actor"))?;
    Ok(())
}

/// Removes an alias with its permissions and nonces.
pub(crate) async fn remove(c: &mut Connection, tenant: &Tenant, alias: &str) -> Result<(), Error> {
    sql("delete from aliases where tenant = $1 and alias = $2")
        .bind(tenant.as_str())
        .bind(alias)
        .execute(c)
        .await
        .map_err(failed("remove the alias"))?;
    Ok(())
}

fn read(fields: &Fields<'_>) -> Result<Alias, Error> {
    Ok(Alias {
        tenant: Tenant::new(fields.get::<String>("tenant")?),
        alias: fields.get("alias")?,
        actor: fields.parsed("actor_id", |text: String| ActorId::parse(&text))?,
        owner: fields.get("owner")?,
        created: Time::from_micros(fields.get("created_us")?),
    })
}
