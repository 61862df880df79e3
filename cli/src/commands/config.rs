//! `abax config check`

use anyhow::Context as _;
use serde_json::json;

use super::reach::{self, PATIENCE};
use crate::args::{self, ConfigCheck, ConfigVerb, Format};
use crate::config::{Effective, Role, Said, Settings};
use crate::exit::Silent;
use crate::output::{self, Table};
use crate::telemetry;

/// `abax config …`
///
/// # Errors
///
/// Something is wrong with the settings; all of it is on standard error then.
pub(crate) fn run(said: &Said, args: &args::Config) -> anyhow::Result<()> {
    let ConfigVerb::Check(args) = &args.verb;
    print(&said.effective(), args.format)?;
    let mut problems = said.problems().to_vec();
    if problems.is_empty() {
        match said.settings() {
            Ok(settings) => problems.extend(check(&settings, args)?),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    for problem in &problems {
        output::note(&format!("abax: {problem}\n"))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Silent(1).into()) }
}

/// The problems of settings that can be used one by one; warnings are written
/// down at once.
fn check(settings: &Settings, args: &ConfigCheck) -> anyhow::Result<Vec<String>> {
    let found = settings.check(args.role.map(|role| match role {
        args::Role::Serve => Role::Serve,
        args::Role::Api => Role::Api,
        args::Role::Worker => Role::Worker,
        args::Role::Migrate => Role::Migrate,
    }));
    for warning in &found.warnings {
        output::note(&format!("abax: warning: {warning}\n"))?;
    }
    let mut problems = found.problems;
    // What is missing already need not fail once more.
    if args.connect && problems.is_empty() {
        problems.extend(connect(settings)?);
    }
    Ok(problems)
}

/// Tries the database, and the broker with it.
fn connect(settings: &Settings) -> anyhow::Result<Option<String>> {
    // Why a broker is not there is in the log alone: it may come at any time.
    telemetry::init(settings, None)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the I/O loop")?;
    tokio.block_on(async {
        let service = match reach::open(settings).await {
            Ok(service) => service,
            Err(error) => return Ok(Some(format!("database.url: {error:#}"))),
        };
        let problem = format!("queue.url: no connection within {} s", PATIENCE.as_secs());
        Ok((!reach::broker(&service).await).then_some(problem))
    })
}

fn print(effective: &[Effective], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let all: serde_json::Map<_, _> = effective
                .iter()
                .map(|one| {
                    let setting = one.setting;
                    let it = json!({
                        "value": one.value.as_ref().map(|_| one.shown()),
                        "from": one.origin.to_string(),
                        "environment": setting.env,
                        "flags": setting.flags,
                        "meaning": setting.meaning,
                    });
                    (setting.key.to_owned(), it)
                })
                .collect();
            output::json(&all)?;
        }
        Format::Table => {
            let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
            for one in effective {
                table.row([one.setting.key.to_owned(), one.shown(), one.origin.to_string()]);
            }
            table.print()?;
        }
    }
    Ok(())
}
