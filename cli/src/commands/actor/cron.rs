//! `abax actor cron`

use reqwest::Method;
use serde_json::{Value, json};

use super::update;
use crate::args::{ActorCron, Format};
use crate::client::{Body, Client, text};
use crate::output;

pub(super) async fn run(client: &Client, format: Format, args: &ActorCron) -> anyhow::Result<()> {
    let mut actor = client.actor(&args.actor).await?;
    if args.schedule.is_some() || args.on || args.off {
        let mut fields = update::present(&actor);
        fields.insert("cron_on".into(), json!(!args.off));
        // One that is not named stays, and goes on where it was.
        if let Some(schedule) = &args.schedule {
            fields.insert("cron_schedule".into(), json!(schedule));
        }
        let id = text(&actor, "id");
        let body = Body::Json(Value::Object(fields));
        actor = client.request(Method::PUT, &[&id], &[], body).await?;
    }
    match format {
        Format::Json => output::json(&json!({
            "cron_schedule": actor.get("cron_schedule"),
            "cron_on": actor.get("cron_on"),
            "cron_next_ex": actor.get("cron_next_ex"),
        }))?,
        Format::Table => super::print_lines(
            &actor,
            &[("schedule", "cron_schedule"), ("on", "cron_on"), ("next run", "cron_next_ex")],
        )?,
    }
    Ok(())
}
