//! Lists with query parameters: Abaco's search, of which there are pages and nothing else yet.

use axum::http::request::Parts;

use crate::envelope::{Object, Reply};
use crate::error::{ApiError, FieldError};
use crate::parameters::query_of;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    limit: usize,
    skip: usize,
}

impl Page {
    /// The page that the query asks for; None where it asks for the list as it is.
    ///
    /// # Errors
    ///
    /// `Invalid`: a number that is none, or a condition.
    pub(super) fn of(parts: &Parts) -> Result<Option<Self>, ApiError> {
        let mut page = Self { limit: 100, skip: 0 };
        let mut asked = false;
        let mut errors = Vec::new();
        for (name, value) in query_of(parts) {
            let place = match name.as_str() {
                "x-nonce" => continue,
                "limit" => &mut page.limit,
                // One client says offset.
                "skip" | "offset" => &mut page.skip,
                _ => {
                    errors.push(FieldError::new(
                        name,
                        "search is not supported yet; limit and skip are",
                    ));
                    continue;
                }
            };
            asked = true;
            match value.parse() {
                Ok(number) => *place = number,
                Err(_) => errors.push(FieldError::new(name, "must be an integer from 0 on")),
            }
        }
        if errors.is_empty() { Ok(asked.then_some(page)) } else { Err(ApiError::invalid(errors)) }
    }

    /// How many rows are asked for, at most.
    pub(super) fn limit(self) -> usize {
        self.limit
    }

    /// How many rows come before them.
    pub(super) fn skip(self) -> usize {
        self.skip
    }

    /// That page of `all`, in the shape of Abaco's search.
    pub(super) fn reply(self, all: Vec<Object>) -> Reply {
        let total = all.len() as u64;
        self.reply_with(all.into_iter().skip(self.skip).take(self.limit).collect(), total)
    }

    /// As [`Page::reply`], of rows that are that page already.
    pub(super) fn reply_with(self, hits: Vec<Object>, total: u64) -> Reply {
        let metadata = Object::default()
            .with("total_count", total)
            .with("records_skipped", self.skip)
            .with("record_limit", self.limit)
            .with("count_returned", hits.len());
        let result = Object::default().with_part("_metadata", metadata).with_rows("search", hits);
        Reply::one("Search completed successfully.", result)
    }
}
