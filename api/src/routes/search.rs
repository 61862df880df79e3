//! Searches: of a collection, and of lists that are asked with conditions.

use abax_actors::{Caller, Collection, Search, Typing, Within};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::auth::Signed;
use crate::dialect::Dialect;
use crate::envelope::{Object, Reply};
use crate::error::{ApiError, FieldError, Meaning};
use crate::parameters::query_of;
use crate::routes::{actors, executions, logs, workers};

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path(collection): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let Some(of) = Collection::parse(&collection) else {
        let names = Collection::ALL.map(Collection::as_str).join(", ");
        return Err(ApiError::new(
            Meaning::NoRoute,
            format!("There is no search of {collection}; there is one of {names}."),
        ));
    };
    let search = asked(&parts, of, &[])?.unwrap_or_else(|| Search::new(of));
    found(&app, &caller, Within::Readable, &search).await
}

/// The search that a query asks for; none where it asks for nothing, but for the
/// parameters `other` of the list itself.
///
/// # Errors
///
/// `Invalid` with every condition that cannot be.
pub(super) fn asked(
    parts: &Parts,
    of: Collection,
    other: &[&str],
) -> Result<Option<Search>, ApiError> {
    let typing = match parts.extensions.get::<Dialect>() {
        Some(dialect) if dialect.is_abaco() => Typing::ByValue,
        _ => Typing::ByField,
    };
    let mut search = Search::new(of);
    let mut known: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in query_of(parts) {
        // The first value of a name counts.
        if name == "x-nonce" || other.contains(&name.as_str()) || known.contains(&name) {
            continue;
        }
        let required = match name.as_str() {
            "limit" => search.set_limit(&value),
            // One client says offset.
            "skip" | "offset" => search.set_skip(&value),
            "search" => search.rank_by(&value),
            "exactsearch" => search.require_phrase(&value),
            _ => search.require(&name, &value, typing),
        };
        if let Err(problem) = required {
            errors.push(FieldError::new(name.clone(), problem));
        }
        known.push(name);
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    Ok((!known.is_empty()).then_some(search))
}

/// What a search finds, in Abaco's shape.
pub(super) async fn found(
    app: &App,
    caller: &Caller,
    within: Within<'_>,
    search: &Search,
) -> Result<Response, ApiError> {
    let turn = app.turn(caller).await?;
    let service = app.service();
    let (total, hits) = match search.collection() {
        Collection::Actors => {
            let found = service.search_actors(caller, within, search).await?;
            (found.total, found.page.iter().map(actors::object).collect())
        }
        Collection::Executions => {
            let found = service.search_executions(caller, within, search).await?;
            (found.total, found.page.iter().map(executions::hit).collect())
        }
        Collection::Workers => {
            let found = service.search_workers(caller, within, search).await?;
            (found.total, found.page.iter().map(workers::attributes).collect())
        }
        Collection::Logs => {
            let found = service.search_logs(caller, within, search).await?;
            let hits = found.page.iter().map(|log| {
                let link = format!("/actors/{}/executions/{}", log.actor, log.execution);
                logs::object(link, &log.owner, &log.logs)
            });
            (found.total, hits.collect::<Vec<_>>())
        }
    };
    let metadata = metadata(total, search.skip(), search.limit(), &hits);
    let result = Object::default().with_part("_metadata", metadata).with_rows("search", hits);
    Ok((turn, Reply::one("Search completed successfully.", result)).into_response())
}

/// Which part of how many `hits` are.
pub(super) fn metadata(total: u64, skip: u64, limit: u32, hits: &[Object]) -> Object {
    Object::default()
        .with("total_count", total)
        .with("records_skipped", skip)
        .with("record_limit", limit)
        .with("count_returned", hits.len())
}
