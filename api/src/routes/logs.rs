//! What an execution wrote.

use axum::extract::{Path, State};

use crate::App;
use crate::auth::Signed;
use crate::envelope::{Object, Reply};
use crate::error::ApiError;
use crate::routes::actors::profile;
use crate::routes::executions::link;

pub(super) async fn show(
    Signed(caller): Signed,
    State(app): State<App>,
    Path((actor, execution)): Path<(String, String)>,
) -> Result<Reply, ApiError> {
    let service = app.service();
    let owner = service.actor(&caller, &actor).await?.owner;
    let execution = service.execution(&caller, &actor, &execution).await?;
    let logs = service.logs(&caller, &actor, execution.id.as_str()).await?;
    let this = link(&execution);
    let object = Object::default().with("logs", logs.text()).with_links([
        ("self", format!("{this}/logs")),
        ("owner", profile(&owner)),
        ("execution", this),
    ]);
    Ok(Reply::one("Logs retrieved successfully.", object))
}
