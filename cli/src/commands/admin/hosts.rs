//! `abax admin hosts`, `cordon` and `uncordon`

use abax_actors::{Host, HostStatus, Service, Time};
use serde_json::json;

use crate::args::{AdminCordon, AdminHosts, Format};
use crate::output::{self, Table};

pub(super) async fn list(service: &Service, args: &AdminHosts) -> anyhow::Result<()> {
    let hosts = service.hosts().await?;
    if args.quiet {
        for host in &hosts {
            output::line(output::printable(&host.info.name))?;
        }
        return Ok(());
    }
    match args.format {
        Format::Json => output::json(&hosts.iter().map(of_json).collect::<Vec<_>>())?,
        Format::Table => {
            let now = service.clock().now();
            let mut table = Table::new([
                "NAME",
                "STATUS",
                "SLOTS",
                "RUNNING",
                "CLASSES",
                "LAST SEEN",
                "VERSION",
            ]);
            for host in &hosts {
                table.row([
                    host.info.name.clone(),
                    status(host),
                    host.info.slots.to_string(),
                    host.running.to_string(),
                    host.info.classes.join(","),
                    ago(now, host.seen),
                    host.info.version.clone(),
                ]);
            }
            table.print()?;
        }
    }
    Ok(())
}

pub(super) async fn cordon(service: &Service, args: &AdminCordon) -> anyhow::Result<()> {
    for host in &args.hosts {
        service.cordon(host).await?;
        output::line(format!("{host} gets no new work"))?;
    }
    Ok(())
}

pub(super) async fn uncordon(service: &Service, args: &AdminCordon) -> anyhow::Result<()> {
    for host in &args.hosts {
        service.uncordon(host).await?;
        output::line(format!("{host} gets work"))?;
    }
    Ok(())
}

/// `working`, `draining`, `missing (cordoned)` …
pub(super) fn status(host: &Host) -> String {
    let status = host.status.as_str().to_ascii_lowercase();
    match host.cordoned {
        true if host.status == HostStatus::Working => "cordoned".to_owned(),
        true => format!("{status} (cordoned)"),
        false => status,
    }
}

/// How long before `now` that was, in words.
pub(super) fn ago(now: Time, then: Time) -> String {
    format!("{} ago", output::span(now.since(then)))
}

fn of_json(host: &Host) -> serde_json::Value {
    json!({
        "id": host.id.as_str(),
        "name": host.info.name,
        "status": host.status.as_str(),
        "cordoned": host.cordoned,
        "slots": host.info.slots,
        "running": host.running,
        "memory_bytes": host.info.memory_bytes,
        "milli_cpus": host.info.milli_cpus,
        "classes": host.info.classes,
        "version": host.info.version,
        "clock_offset_us": host.clock_offset_us,
        "registered": host.registered.iso_millis(),
        "seen": host.seen.iso_millis(),
    })
}
