//! `abax images`

use std::collections::HashSet;

use serde_json::json;

use crate::args::{self, Format};
use crate::config::Settings;
use crate::output::{self, Table};

pub(crate) fn run(settings: &Settings, args: &args::Images) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    let wanted = args.repository.as_deref().map(super::pull::reference).transpose()?;
    let mut listed = store.list()?;
    listed.retain(|one| match (&wanted, &one.reference) {
        (None, Some(_)) => true,
        // As docker: nameless images are shown, since they take space.
        (None, None) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(reference)) => {
            let tagged = args.repository.as_deref().is_some_and(|text| {
                text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
            });
            wanted.same_repository(reference) && (!tagged || wanted.tag() == reference.tag())
        }
    });
    listed.sort_by_key(|one| std::cmp::Reverse(one.created));

    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    let mut table = if args.digests {
        Table::new(["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"])
    } else {
        Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"])
    };
    for one in &listed {
        let id = if args.no_trunc { one.image.id().to_string() } else { one.image.short_id() };
        if args.quiet {
            if seen.insert(id.clone()) {
                output::line(id)?;
            }
            continue;
        }
        let (repository, tag) = match &one.reference {
            None => ("<none>".to_owned(), "<none>".to_owned()),
            Some(reference) => {
                let tag = reference.tag().map_or_else(|| "<none>".to_owned(), str::to_owned);
                (reference.familiar_name(), tag)
            }
        };
        let digest = one.image.manifest_digest().to_string();
        let created = one.created.map_or_else(|| "N/A".to_owned(), |time| output::ago(time.into()));
        let size = output::size(one.size_bytes);
        if args.format == Format::Json {
            rows.push(json!({
                "repository": repository,
                "tag": tag,
                "id": one.image.id().to_string(),
                "digest": digest,
                "created": one.created.map(|time| time.to_string()),
                "size_bytes": one.size_bytes,
            }));
        } else if args.digests {
            table.row([repository, tag, digest, id, created, size]);
        } else {
            table.row([repository, tag, id, created, size]);
        }
    }
    if args.format == Format::Json && !args.quiet {
        output::json(&rows)?;
    } else if !args.quiet {
        table.print()?;
    }
    Ok(())
}
