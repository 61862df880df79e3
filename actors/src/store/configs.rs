//! The tables `configs` and `config_actors`.

use super::sql::Sql;
use super::{Connection, Fields, Room, failed, sql};
use crate::actor_config::ActorConfig;
use crate::clock::Time;
use crate::error::Error;
use crate::id::ActorId;
use crate::permission::{EVERYBODY, Tenant};
use crate::secret::Sealed;

/// A config as its row has it: the value in plain text, or sealed.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) config: ActorConfig,
    /// The value where it is a secret.
    pub(crate) sealed: Option<Sealed>,
}

/// False where there is one of that name.
pub(crate) async fn insert(c: &mut Connection, stored: &Stored) -> Result<bool, Error> {
    let text = "insert into configs (tenant, name, owner, value, sealed, key_name, is_secret, \
                                     actors, created_us, updated_us) \
                values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                on conflict (tenant, name) do nothing";
    write(c, text, stored, "make the config").await
}

/// Writes what may change; tenant, name, owner and creation stay.
pub(crate) async fn update(c: &mut Connection, stored: &Stored) -> Result<bool, Error> {
    let text = "update configs set value = $4, sealed = $5, key_name = $6, is_secret = $7, \
                                   actors = $8, updated_us = $10 \
                where tenant = $1 and name = $2 and owner = $3 and created_us = $9";
    write(c, text, stored, "update the config").await
}

async fn write(
    c: &mut Connection,
    text: &'static str,
    stored: &Stored,
    doing: &'static str,
) -> Result<bool, Error> {
    let Stored { config, sealed } = stored;
    let written = sql(text)
        .bind(config.tenant.as_str())
        .bind(&config.name)
        .bind(&config.owner)
        .bind(&config.value)
        .bind(sealed.as_ref().map(|sealed| sealed.bytes.as_slice()))
        .bind(sealed.as_ref().map(|sealed| sealed.key.as_str()))
        .bind(config.is_secret())
        .bind(&config.actors)
        .bind(config.created.micros())
        .bind(config.updated.micros())
        .execute(c)
        .await
        .map_err(failed(doing))?;
    Ok(written == 1)
}

/// Makes `items`, ids and aliases, those that get a config.
pub(crate) async fn set_items(
    c: &mut Connection,
    tenant: &Tenant,
    config: &str,
    items: &[String],
) -> Result<(), Error> {
    let doing = "say which actors get the config";
    sql("delete from config_actors where tenant = $1 and config = $2")
        .bind(tenant.as_str())
        .bind(config)
        .execute(c)
        .await
        .map_err(failed(doing))?;
    for item in items {
        sql("insert into config_actors (tenant, config, item) values ($1, $2, $3)")
            .bind(tenant.as_str())
            .bind(config)
            .bind(item)
            .execute(c)
            .await
            .map_err(failed(doing))?;
    }
    Ok(())
}

/// The ids and aliases that get a config.
pub(crate) async fn items(
    c: &mut Connection,
    tenant: &Tenant,
    config: &str,
) -> Result<Vec<String>, Error> {
    sql("select item from config_actors where tenant = $1 and config = $2")
        .bind(tenant.as_str())
        .bind(config)
        .scalars(c)
        .await
        .map_err(failed("list the actors of the config"))
}

/// The configs in which `item` stands.
pub(crate) async fn with_item(
    c: &mut Connection,
    tenant: &Tenant,
    item: &str,
) -> Result<Vec<String>, Error> {
    sql("select config from config_actors where tenant = $1 and item = $2 order by config")
        .bind(tenant.as_str())
        .bind(item)
        .scalars(c)
        .await
        .map_err(failed("list the configs of the alias"))
}

/// A config, which nobody else changes until this transaction ends.
pub(crate) async fn lock(
    c: &mut Connection,
    tenant: &Tenant,
    name: &str,
) -> Result<Option<Stored>, Error> {
    let statement = sql("select name as id, * from configs where tenant = $1 and name = $2")
        .on_postgres(
            "select name as id, * from configs where tenant = $1 and name = $2 \
             for no key update",
        );
    one(c, statement, tenant, name).await
}

pub(crate) async fn find(
    c: &mut Connection,
    tenant: &Tenant,
    name: &str,
) -> Result<Option<Stored>, Error> {
    let statement = sql("select name as id, * from configs where tenant = $1 and name = $2");
    one(c, statement, tenant, name).await
}

async fn one<'a>(
    c: &mut Connection,
    statement: Sql<'a>,
    tenant: &'a Tenant,
    name: &'a str,
) -> Result<Option<Stored>, Error> {
    let row = statement
        .bind(tenant.as_str())
        .bind(name)
        .fetch_optional(c)
        .await
        .map_err(failed("find the config"))?;
    row.map(|row| read(&Fields::of(&row, "configs"))).transpose()
}

/// How many configs of a tenant entries of `user`, or those for everybody, let it see,
/// or all, and those of them that fit an answer, oldest first; of too many, the user's
/// own before those of others.
pub(crate) async fn visible_to(
    c: &mut Connection,
    tenant: &Tenant,
    user: &str,
    sees_all: bool,
) -> Result<(u64, Vec<Stored>), Error> {
    /// Those that are read before it is known how large they are.
    const AT_ONCE: i64 = 50;
    let total: i64 = sql("select count(*) from configs where tenant = $1 and ($4 or name in ( \
             select object from permissions where tenant = $1 and kind = 'config' \
             and user_name in ($2, $3) and level <> 'NONE'))")
    .bind(tenant.as_str())
    .bind(user)
    .bind(EVERYBODY)
    .bind(sees_all)
    .scalar(c)
    .await
    .map_err(failed("count the configs"))?;
    let (mut seen, mut room) = (Vec::new(), Room::new());
    'pages: for page in 0.. {
        let rows = sql("select name as id, * from configs where tenant = $1 and ($4 or name in ( \
                 select object from permissions where tenant = $1 and kind = 'config' \
                 and user_name in ($2, $3) and level <> 'NONE')) \
             order by case when owner = $2 then 0 else 1 end, created_us, name \
             limit $5 offset $6")
        .bind(tenant.as_str())
        .bind(user)
        .bind(EVERYBODY)
        .bind(sees_all)
        .bind(AT_ONCE)
        .bind(AT_ONCE * page)
        .fetch_all(c)
        .await
        .map_err(failed("list the configs"))?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let stored = read(&Fields::of(row, "configs"))?;
            let config = &stored.config;
            if !room.takes(config.value.as_ref().map_or(0, String::len) + config.actors.len()) {
                break 'pages;
            }
            seen.push(stored);
        }
    }
    seen.sort_by(|one, other| {
        let place = |stored: &Stored| (stored.config.created, stored.config.name.clone());
        place(one).cmp(&place(other))
    });
    Ok((u64::try_from(total).unwrap_or(0), seen))
}

/// How many configs `user` made in `tenant`.
pub(crate) async fn count_of_owner(
    c: &mut Connection,
    tenant: &Tenant,
    user: &str,
) -> Result<u64, Error> {
    let count: i64 = sql("select count(*) from configs where tenant = $1 and owner = $2")
        .bind(tenant.as_str())
        .bind(user)
        .scalar(c)
        .await
        .map_err(failed("count the configs"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What an actor's executions get, by its id or by one of its aliases, in the
/// order of the names.
pub(crate) async fn of_actor(
    c: &mut Connection,
    tenant: &Tenant,
    actor: &ActorId,
) -> Result<Vec<Stored>, Error> {
    let rows = sql("select name as id, * from configs where tenant = $1 and name in ( \
             select config from config_actors where tenant = $1 and item in ( \
                 select alias from aliases where tenant = $1 and actor_id = $2 \
                 union all select $2)) \
         order by name")
    .bind(tenant.as_str())
    .bind(actor.as_str())
    .fetch_all(c)
    .await
    .map_err(failed("find the configs of the actor"))?;
    rows.iter().map(|row| read(&Fields::of(row, "configs"))).collect()
}

/// Secrets that other keys than `key` have sealed, the next few after the one of that
/// tenant and name.
pub(crate) async fn not_sealed_by(
    c: &mut Connection,
    key: &str,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Stored>, Error> {
    let rows = sql("select name as id, * from configs \
         where key_name is not null and key_name <> $1 \
             and (tenant > $3 or (tenant = $3 and name > $4)) \
         order by tenant, name limit $2")
    .bind(key)
    .bind(limit)
    .bind(after.0)
    .bind(after.1)
    .fetch_all(c)
    .await
    .map_err(failed("look for secrets of older keys"))?;
    rows.iter().map(|row| read(&Fields::of(row, "configs"))).collect()
}

/// Replaces what is stored of a secret, if it is still `old`.
pub(crate) async fn replace_sealed(
    c: &mut Connection,
    config: &ActorConfig,
    old: &Sealed,
    new: &Sealed,
) -> Result<bool, Error> {
    let replaced = sql("update configs set sealed = $3, key_name = $4 \
         where tenant = $1 and name = $2 and sealed = $5 and key_name = $6")
    .bind(config.tenant.as_str())
    .bind(&config.name)
    .bind(new.bytes.as_slice())
    .bind(&new.key)
    .bind(old.bytes.as_slice())
    .bind(&old.key)
    .execute(c)
    .await
    .map_err(failed("seal the secret anew"))?;
    Ok(replaced == 1)
}

/// Removes a config with its permissions.
pub(crate) async fn remove(c: &mut Connection, tenant: &Tenant, name: &str) -> Result<(), Error> {
    sql("delete from configs where tenant = $1 and name = $2")
        .bind(tenant.as_str())
        .bind(name)
        .execute(c)
        .await
        .map_err(failed("remove the config"))?;
    Ok(())
}

fn read(fields: &Fields<'_>) -> Result<Stored, Error> {
    let sealed = match fields.get::<Option<Vec<u8>>>("sealed")? {
        None => None,
        Some(bytes) => Some(Sealed { key: fields.get("key_name")?, bytes }),
    };
    let value = match sealed {
        None => Some(fields.get::<String>("value")?),
        Some(_) => None,
    };
    Ok(Stored {
        config: ActorConfig {
            tenant: Tenant::new(fields.get::<String>("tenant")?),
            name: fields.get("name")?,
            owner: fields.get("owner")?,
            value,
            actors: fields.get("actors")?,
            created: Time::from_micros(fields.get("created_us")?),
            updated: Time::from_micros(fields.get("updated_us")?),
        },
        sealed,
    })
}
