//! Messages to a running service over HTTP, as fast as it takes them.
//!
//! `load TOKEN ACTOR MODE CONNECTIONS SECONDS URL…` sends messages to `ACTOR` for
//! `SECONDS` on so many connections, the services in turn. `MODE` is `accept`
//! (an answer means that the message is stored) or `result` (an answer means that
//! its execution has ended). Prints one line of JSON: how many, over what time,
//! and the latencies in milliseconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, StatusCode};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [token, actor, mode, connections, seconds, urls @ ..] = arguments.as_slice() else {
        bail!("load TOKEN ACTOR accept|result CONNECTIONS SECONDS URL...");
    };
    ensure!(!urls.is_empty(), "no URL of a service");
    let query = match mode.as_str() {
        "accept" => "",
        "result" => "?_abaco_synchronous=true",
        _ => bail!("{mode} is neither accept nor result"),
    };
    let connections: usize = connections.parse().context("CONNECTIONS is no number")?;
    let length = Duration::from_secs_f64(seconds.parse().context("SECONDS is no number")?);

    let started = Instant::now();
    let senders = (0..connections).map(|number| {
        let base = &urls[number % urls.len()];
        let url = format!("{base}/actors/v2/{actor}/messages{query}");
        tokio::spawn(send_until(url, token.clone(), started + length))
    });
    let senders: Vec<_> = senders.collect();
    let mut latencies = Vec::new();
    for sender in senders {
        latencies.extend(sender.await??);
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    print(&latencies, took);
    Ok(())
}

/// Sends one message after the other on one connection; says how long each took.
async fn send_until(url: String, token: String, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let client = Client::builder().pool_max_idle_per_host(1).build()?;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        let answer = client
            .post(&url)
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body("{\"message\": \"https://example.org/picture.jpg\"}")
            .send()
            .await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement to be read")]
fn print(latencies: &[Duration], took: Duration) {
    let at = |share: usize| {
        let place = (latencies.len() * share / 100).min(latencies.len().saturating_sub(1));
        latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    };
    println!(
        "{{\"count\": {}, \"seconds\": {:.3}, \"rate\": {:.1}, \"p50_ms\": {:.2}, \"p99_ms\": {:.2}}}",
        latencies.len(),
        took.as_secs_f64(),
        latencies.len() as f64 / took.as_secs_f64(),
        at(50),
        at(99),
    );
}
