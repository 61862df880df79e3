//! The table `nonces`.

use super::{Connection, Fields, failed, sql};
use crate::clock::Time;
use crate::error::Error;
use crate::id::ActorId;
use crate::nonce::{Nonce, NonceId, NoncePlace};
use crate::permission::{Level, Tenant};

/// What stands for "without end" in rows.
const WITHOUT_END: i64 = -1;

pub(crate) async fn insert(c: &mut Connection, nonce: &Nonce) -> Result<(), Error> {
    let (actor, alias) = columns(&nonce.place);
    let roles = serde_json::to_string(&nonce.roles).expect("texts become JSON");
    sql("insert into nonces (id, tenant, actor_id, alias, owner, roles, level, description, \
                             max_uses, current_uses, remaining_uses, created_us) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $9, $10)")
    .bind(nonce.id.as_str())
    .bind(nonce.tenant.as_str())
    .bind(actor)
    .bind(alias)
    .bind(&nonce.owner)
    .bind(roles)
    .bind(nonce.level.as_str())
    .bind(&nonce.description)
    .bind(nonce.max_uses.map_or(WITHOUT_END, |uses| i64::try_from(uses).unwrap_or(i64::MAX)))
    .bind(nonce.created.micros())
    .execute(c)
    .await
    .map_err(failed("make the nonce"))?;
    Ok(())
}

pub(crate) async fn find(c: &mut Connection, id: &str) -> Result<Option<Nonce>, Error> {
    let row = sql("select * from nonces where id = $1")
        .bind(id)
        .fetch_optional(c)
        .await
        .map_err(failed("find the nonce"))?;
    row.map(|row| read(&Fields::of(&row, "nonces"))).transpose()
}

/// The nonces of an actor or of an alias, oldest first.
pub(crate) async fn of_place(
    c: &mut Connection,
    tenant: &Tenant,
    place: &NoncePlace,
) -> Result<Vec<Nonce>, Error> {
    let statement = match place {
        NoncePlace::Actor(actor) => {
            sql("select * from nonces where tenant = $1 and actor_id = $2 \
             order by created_us, id")
            .bind(tenant.as_str())
            .bind(actor.as_str())
        }
        NoncePlace::Alias(alias) => sql("select * from nonces where tenant = $1 and alias = $2 \
             order by created_us, id")
        .bind(tenant.as_str())
        .bind(alias),
    };
    let rows = statement.fetch_all(c).await.map_err(failed("list the nonces"))?;
    rows.iter().map(|row| read(&Fields::of(row, "nonces"))).collect()
}

/// How many nonces an actor or alias has.
pub(crate) async fn count(
    c: &mut Connection,
    tenant: &Tenant,
    place: &NoncePlace,
) -> Result<u64, Error> {
    let statement = match place {
        NoncePlace::Actor(actor) => {
            sql("select count(*) from nonces where tenant = $1 and actor_id = $2")
                .bind(tenant.as_str())
                .bind(actor.as_str())
        }
        NoncePlace::Alias(alias) => {
            sql("select count(*) from nonces where tenant = $1 and alias = $2")
                .bind(tenant.as_str())
                .bind(alias)
        }
    };
    let count: i64 = statement.scalar(c).await.map_err(failed("count the nonces"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Counts a use; false where none is left, or the nonce is gone.
pub(crate) async fn use_up(c: &mut Connection, id: &NonceId, now: Time) -> Result<bool, Error> {
    let used = sql("update nonces set current_uses = current_uses + 1, last_use_us = $2, \
             remaining_uses = case when max_uses = -1 then -1 else remaining_uses - 1 end \
         where id = $1 and (max_uses = -1 or remaining_uses > 0)")
    .bind(id.as_str())
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("use the nonce"))?;
    Ok(used == 1)
}

pub(crate) async fn remove(c: &mut Connection, id: &NonceId) -> Result<(), Error> {
    sql("delete from nonces where id = $1")
        .bind(id.as_str())
        .execute(c)
        .await
        .map_err(failed("remove the nonce"))?;
    Ok(())
}

fn columns(place: &NoncePlace) -> (Option<&str>, Option<&str>) {
    match place {
        NoncePlace::Actor(actor) => (Some(actor.as_str()), None),
        NoncePlace::Alias(alias) => (None, Some(alias)),
    }
}

fn read(fields: &Fields<'_>) -> Result<Nonce, Error> {
    let uses = |column| {
        fields.parsed(column, |uses: i64| match uses {
            WITHOUT_END => Some(None),
            uses => u64::try_from(uses).ok().map(Some),
        })
    };
    let actor = fields.parsed_if_any("actor_id", |text: String| ActorId::parse(&text))?;
    let place = match actor {
        Some(actor) => NoncePlace::Actor(actor),
        None => NoncePlace::Alias(fields.get("alias")?),
    };
    Ok(Nonce {
        id: NonceId::stored(fields.get("id")?),
        tenant: Tenant::new(fields.get::<String>("tenant")?),
        place,
        owner: fields.get("owner")?,
        roles: fields.parsed("roles", |text: String| serde_json::from_str(&text).ok())?,
        level: fields.parsed("level", |word: String| Level::of_word(&word))?,
        description: fields.get("description")?,
        max_uses: uses("max_uses")?,
        current_uses: fields.parsed("current_uses", |uses: i64| u64::try_from(uses).ok())?,
        remaining_uses: uses("remaining_uses")?,
        created: Time::from_micros(fields.get("created_us")?),
        last_used: fields.get::<Option<i64>>("last_use_us")?.map(Time::from_micros),
    })
}
