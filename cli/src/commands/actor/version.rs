//! `abax actor version`

use reqwest::Method;
use serde_json::json;

use crate::args::Format;
use crate::client::{Body, Client};
use crate::output;

pub(super) async fn run(client: &Client, format: Format) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let one = [("limit".to_owned(), "1".to_owned())];
    let service = client.ask(Method::GET, &[], &one, Body::None, None).await?.release;
    match format {
        Format::Json => output::json(&json!({"cli": own, "service": service}))?,
        Format::Table => output::line(format!("cli: {own}\nservice: {service}"))?,
    }
    Ok(())
}
