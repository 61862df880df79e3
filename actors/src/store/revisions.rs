//! The table `revisions`: the image of each revision of an actor.

use super::{Connection, Fields, failed, sql};
use crate::actor::Actor;
use crate::clock::Time;
use crate::error::Error;
use crate::id::ActorId;
use crate::revision::{PinnedImage, RevisionImage};

/// Notes the image of an actor's present revision; `anew` says whether the registry
/// is to be asked for it in any case.
pub(crate) async fn insert(
    c: &mut Connection,
    actor: &Actor,
    anew: bool,
    now: Time,
) -> Result<(), Error> {
    sql("insert into revisions (actor_id, revision, image, anew, created_us) \
         values ($1, $2, $3, $4, $5)")
    .bind(actor.id.as_str())
    .bind(actor.revision)
    .bind(&actor.image)
    .bind(anew)
    .bind(now.micros())
    .execute(c)
    .await
    .map_err(failed("note the revision"))?;
    Ok(())
}

/// The image of an actor's present revision.
pub(crate) async fn of_actor(c: &mut Connection, actor: &Actor) -> Result<RevisionImage, Error> {
    let row = sql("select actor_id as id, digest, made, anew from revisions \
         where actor_id = $1 and revision = $2")
    .bind(actor.id.as_str())
    .bind(actor.revision)
    .fetch_optional(c)
    .await
    .map_err(failed("find the revision"))?;
    let mut image = RevisionImage {
        revision: actor.revision,
        reference: actor.image.clone(),
        pinned: None,
        anew: false,
    };
    // An actor that is older than the table has none before a host has looked.
    if let Some(row) = row {
        let fields = Fields::of(&row, "revisions");
        image.pinned = pinned(&fields)?;
        image.anew = fields.get("anew")?;
    }
    Ok(image)
}

/// Makes `found` what a revision runs, unless there is something already, and says
/// which it is; none when the actor is gone.
pub(crate) async fn pin(
    c: &mut Connection,
    actor: &ActorId,
    image: &RevisionImage,
    found: &PinnedImage,
    now: Time,
) -> Result<Option<PinnedImage>, Error> {
    let row = sql("insert into revisions (actor_id, revision, image, digest, made, created_us) \
         select id, $2, $3, $4, $5, $6 from actors where id = $1 \
         on conflict (actor_id, revision) do update \
             set digest = coalesce(revisions.digest, excluded.digest), \
                 made = case when revisions.digest is null then excluded.made \
                        else revisions.made end \
         returning actor_id as id, digest, made")
    .bind(actor.as_str())
    .bind(image.revision)
    .bind(&image.reference)
    .bind(&found.digest)
    .bind(found.made)
    .bind(now.micros())
    .fetch_optional(c)
    .await
    .map_err(failed("note the digest of an image"))?;
    row.map_or(Ok(None), |row| pinned(&Fields::of(&row, "revisions")))
}

/// The columns `digest` and `made` of a row.
pub(super) fn pinned(fields: &Fields<'_>) -> Result<Option<PinnedImage>, Error> {
    let digest: Option<String> = fields.get("digest")?;
    let made = fields.get("made")?;
    Ok(digest.map(|digest| PinnedImage { digest, made }))
}
