//! `abax version`

use serde_json::json;

use crate::args::{self, Format};
use crate::output;

pub(crate) fn run(args: &args::Version) -> anyhow::Result<()> {
    let kernel = rustix::system::uname();
    let (kernel, machine) =
        (kernel.release().to_string_lossy(), kernel.machine().to_string_lossy());
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        Format::Json => output::json(&json!({
            "version": version,
            "os": std::env::consts::OS,
            "architecture": machine,
            "kernel": kernel,
        }))?,
        Format::Table => {
            output::line(format!(
                "abax {version} ({}/{machine}, kernel {kernel})",
                std::env::consts::OS
            ))?;
        }
    }
    Ok(())
}
