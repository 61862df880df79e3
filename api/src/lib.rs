//! The HTTP interface of the service: routes, dialects, authentication.
#![forbid(unsafe_code)]
