//! `abax config check`

use serde_json::json;

use crate::args::{self, ConfigVerb, Format};
use crate::config::{Effective, Said};
use crate::exit::Silent;
use crate::output::{self, Table};

/// `abax config …`
///
/// # Errors
///
/// Something is wrong with the settings; all of it is on standard error then.
pub(crate) fn run(said: &Said, args: &args::Config) -> anyhow::Result<()> {
    let ConfigVerb::Check(args) = &args.verb;
    let effective = said.effective();
    match args.format {
        Format::Table => print(&effective)?,
        Format::Json => {
            let all: serde_json::Map<_, _> = effective
                .iter()
                .map(|one| {
                    let value = one.value.as_ref().map(|_| one.shown());
                    let setting = one.setting;
                    let it = json!({
                        "value": value,
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
    }
    let mut problems = said.problems().to_vec();
    if problems.is_empty() {
        match said.settings() {
            Ok(settings) => problems.extend(settings.check()),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    for problem in &problems {
        output::note(&format!("abax: {problem}\n"))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Silent(1).into()) }
}

fn print(effective: &[Effective]) -> anyhow::Result<()> {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for one in effective {
        table.row([one.setting.key.to_owned(), one.shown(), one.origin.to_string()]);
    }
    table.print()?;
    Ok(())
}
