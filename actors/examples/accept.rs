//! How many messages per second are accepted, and handled, on this machine.
//!
//! `cargo run --release -p abax-actors --example accept [senders] [messages] [actors] [URL]`
//!
//! In a file beside, or in the database at the URL (`postgres://…`), whose
//! password is in `PGPASSWORD`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abax_actors::{
    Caller, Clock, Config, DatabaseConfig, Finish, HostInfo, NewActor, NewMessage, Outcome,
    PostgresConfig, QueueConfig, Role, Service, Tenant,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let senders = arguments.next().map_or(Ok(64), |a| a.parse::<usize>())?;
    let messages = arguments.next().map_or(Ok(20_000), |a| a.parse::<usize>())?;
    let actors = arguments.next().map_or(Ok(1), |a| a.parse::<usize>())?;

    let directory = tempfile::tempdir_in(".")?;
    let database = match arguments.next() {
        None => DatabaseConfig::Sqlite { path: directory.path().join("abax.db") },
        Some(url) => {
            let mut config = PostgresConfig::new(url);
            config.password = std::env::var("PGPASSWORD").ok().map(Into::into);
            DatabaseConfig::Postgres(config)
        }
    };
    Service::migrate(&database).await?;
    let config = Config::new(database, QueueConfig::Database);
    let service = Service::open(config, Clock::system()).await?;
    let caller = Caller::new(Tenant::default(), "bench", Role::Admin);
    let mut new = NewActor::new("busybox");
    new.max_workers = Some(1_000);
    let registered = (0..actors).map(|_| service.register_actor(&caller, new.clone()));
    let actors: Arc<[_]> = futures_util::future::try_join_all(registered).await?.into();

    let started = Instant::now();
    let sends = (0..senders).map(|sender| {
        let (service, caller, actors) = (service.clone(), caller.clone(), actors.clone());
        tokio::spawn(async move {
            for i in 0..messages / senders {
                let message = NewMessage::text("https://example.org/picture.jpg");
                let actor = &actors[(sender + i * senders) % actors.len()].id;
                service.send_message(&caller, actor.as_str(), message).await?;
            }
            Ok::<_, abax_actors::Error>(())
        })
    });
    for send in futures_util::future::join_all(sends).await {
        send??;
    }
    report("accepted", messages / senders * senders, started.elapsed());

    let info = HostInfo::new("bench", "0", 16);
    let host = service.register_host(info).await?;
    let started = Instant::now();
    let handled = messages.min(4_000);
    let slots = (0..16).map(|_| {
        let (service, host) = (service.clone(), host.clone());
        tokio::spawn(async move {
            for _ in 0..handled / 16 {
                let delivery = service.receive(&["default".to_owned()], 1).await?;
                let claim = service.claim(delivery, &host, Duration::from_secs(60)).await?;
                if let Some(claim) = claim {
                    service.finish(&claim.key, Finish::new(Outcome::Succeeded, "")).await?;
                }
            }
            Ok::<_, abax_actors::Error>(())
        })
    });
    for slot in futures_util::future::join_all(slots).await {
        slot??;
    }
    report("claimed and finished", handled / 16 * 16, started.elapsed());
    Ok(())
}

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement to be read")]
fn report(what: &str, count: usize, took: Duration) {
    println!("{what}: {count} in {took:.2?}, {:.0}/s", count as f64 / took.as_secs_f64());
}
