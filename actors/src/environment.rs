//! The environment that an execution's container gets from the service.

use crate::actor::Actor;
use crate::actor_config::as_python;
use crate::execution::Execution;
use crate::id::WorkerId;
use crate::message::{MessageBody, NewMessage, may_be_set};

/// What a schedule sets: when it queued the message.
pub(crate) const TIME_QUEUED: &str = "Time_msg_queued";

/// All variables but those of the image, which stand below these. Of two with
/// one name the later wins, so each name occurs once. A config has a variable of
/// its own where its name can be one that nothing else takes and nothing runs by.
///
/// `_abaco_access_token` is empty: whoever can issue tokens fills it in.
pub(crate) fn environment(
    actor: &Actor,
    execution: &Execution,
    message: &NewMessage,
    worker: &WorkerId,
    api_server: &str,
    configs: &[(String, String)],
) -> Vec<(String, String)> {
    let mut variables = Variables::default();
    for (name, value) in actor.default_environment.members_as_python().unwrap_or_default() {
        variables.set(&name, value);
    }
    for (name, value) in &message.environment {
        variables.set(name, value.clone());
    }
    for hidden in ["MSG", "MSG_JSON"] {
        variables.unset(hidden);
    }
    match &message.body {
        MessageBody::Text(text) => variables.set("MSG", text.clone()),
        MessageBody::Json(json) => {
            variables.set("MSG", json.to_python());
            variables.set("MSG_JSON", json.as_str());
        }
        MessageBody::Binary(_) => {}
    }
    let content_type = message.content_type.as_str();
    // Abaco sets the name with the underscore; its helper libraries read the
    // other one.
    variables.set("_abaco_Content_Type", content_type);
    variables.set("_abaco_Content-Type", content_type);
    variables.set("_abaco_execution_id", execution.id.as_str());
    variables.set("_abaco_attempt", execution.attempt.to_string());
    variables.set("_abaco_username", username(actor, execution, message));
    variables.set("_abaco_api_server", api_server);
    if let Some(header) = &message.jwt_header {
        variables.set("_abaco_jwt_header_name", header.clone());
    }
    variables.set("_abaco_actor_revision", execution.actor_revision.to_string());
    variables.set("_abaco_access_token", "");
    variables.set("_abaco_actor_id", actor.id.as_str());
    variables.set("_abaco_actor_dbid", actor.dbid());
    variables.set("_abaco_actor_name", actor.name.clone().unwrap_or_else(|| "None".to_owned()));
    variables.set("_abaco_actor_state", actor.state.to_python());
    variables.set("_abaco_worker_id", worker.as_str());
    variables.set("_abaco_container_repo", actor.image.clone());
    variables.set("_actor_configs", as_python(configs));
    for (name, value) in configs {
        if is_plain_name(name) && may_be_set(name) && !variables.has(name) {
            variables.set(name, value.clone());
        }
    }
    variables.0
}

/// Whoever sent the message. A schedule is nobody, so the owner, for whom the
/// container acts; only the service itself sets the time.
fn username(actor: &Actor, execution: &Execution, message: &NewMessage) -> String {
    let scheduled = message.environment.iter().any(|(name, _)| name == TIME_QUEUED);
    if scheduled { actor.owner.clone() } else { execution.executor.clone() }
}

/// Whether a shell takes it for the name of a variable.
fn is_plain_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.unset(name);
        self.0.push((name.to_owned(), value.into()));
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    fn unset(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }
}
