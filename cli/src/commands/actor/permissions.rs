//! `abax actor permissions`, and those of aliases and configs

use reqwest::Method;
use serde_json::json;

use crate::args::{Format, Level, Sharing};
use crate::client::{Body, Client};
use crate::output::{self, Table};

/// `of` is where the thing is, below `/actors`.
pub(super) async fn run(
    client: &Client,
    format: Format,
    of: &[&str],
    args: &Sharing,
) -> anyhow::Result<()> {
    let path = [of, &["permissions"]].concat();
    let permissions = match (&args.user, args.level) {
        (Some(user), Some(level)) => {
            let body = Body::Json(json!({"user": user, "level": level.name()}));
            client.request(Method::POST, &path, &[], body).await?
        }
        _ => client.get(&path).await?,
    };
    if format == Format::Json {
        output::json(&permissions)?;
        return Ok(());
    }
    let mut table = Table::new(["USER", "LEVEL"]);
    for (user, level) in permissions.as_object().into_iter().flatten() {
        table.row([user.clone(), level.as_str().unwrap_or_default().to_owned()]);
    }
    table.print()?;
    Ok(())
}

impl Level {
    /// The service's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Read => "READ",
            Self::Execute => "EXECUTE",
            Self::Update => "UPDATE",
        }
    }
}
