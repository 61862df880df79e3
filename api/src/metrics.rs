//! The numbers of this process, as Prometheus reads them.
//!
//! The process has one recorder, which every crate of ours counts on. Labels
//! have few values whatever callers send: the template of a route, never its
//! path; a method that we know.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use abax_actors::{Chain, Health, Service};
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    set_global_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const REQUESTS: &str = "abax_http_requests_total";
const REQUEST_DURATION: &str = "abax_http_request_duration_seconds";
const WAITING: &str = "abax_executions_waiting";
const OLDEST_WAITING: &str = "abax_oldest_waiting_age_seconds";
const RUNNING: &str = "abax_executions_running";
const HOSTS: &str = "abax_hosts";
const SLOTS: &str = "abax_slots";
const STORE_UP: &str = "abax_store_up";
const BUILD: &str = "abax_build_info";

/// Of requests, which may wait for an execution, and of transactions.
const SHORT: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
];
/// Of phases: a start is done in milliseconds, and a run may take a day.
const LONG: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0,
    1_800.0, 7_200.0, 86_400.0,
];

/// How long numbers of the store are shown before it is asked again.
const FRESH: Duration = Duration::from_secs(3);
/// How often what was measured is put into its buckets, whether or not anybody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder of this process.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The recorder, which the first call makes. What is counted before is not seen.
    #[must_use]
    pub fn of_process() -> Self {
        static RECORDER: OnceLock<Metrics> = OnceLock::new();
        RECORDER
            .get_or_init(|| {
                let builder = PrometheusBuilder::new()
                    .set_buckets(&SHORT)
                    .and_then(|b| {
                        b.set_buckets_for_metric(Matcher::Prefix(PHASES.to_owned()), &LONG)
                    })
                    .expect("there are buckets");
                let recorder = builder.build_recorder();
                let metrics = Self(recorder.handle());
                // A program that embeds us may count in its own way; then we show nothing.
                let _ = set_global_recorder(recorder);
                describe();
                abax_actors::describe_metrics();
                metrics
            })
            .clone()
    }

    /// All numbers, in Prometheus's text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }

    /// Keeps what is measured from piling up where nobody asks for it, until `stop`.
    pub(crate) async fn upkeep(&self, stop: CancellationToken) {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.0.run_upkeep(),
            }
        }
    }
}

/// Executions and images have phases that take from milliseconds to hours.
const PHASES: &str = "abax_execution_phase";

fn describe() {
    describe_counter!(REQUESTS, "HTTP requests answered, by route, method and status.");
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "How long HTTP requests took, by route and method."
    );
    describe_gauge!(WAITING, "Executions that wait, by class.");
    describe_gauge!(
        OLDEST_WAITING,
        Unit::Seconds,
        "For how long the first execution has waited, by class."
    );
    describe_gauge!(RUNNING, "Executions that are claimed, by class.");
    describe_gauge!(
        HOSTS,
        "Hosts that renewed within the last minute, by state: working, cordoned, draining."
    );
    describe_gauge!(SLOTS, "Executions that those hosts run at most at once.");
    describe_gauge!(STORE_UP, "1 where the database answered when it was last asked, else 0.");
    describe_gauge!(BUILD, "1, with the version of the program.");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A request was answered. `route` is the template that it matched.
pub(crate) fn request_answered(
    route: Option<&MatchedPath>,
    method: &Method,
    status: StatusCode,
    took: Duration,
) {
    let route = route.map_or("none", |route| route.as_str()).to_owned();
    let method = method_label(method);
    counter!(REQUESTS, "route" => route.clone(), "method" => method, "status" => status.as_str().to_owned())
        .increment(1);
    histogram!(REQUEST_DURATION, "route" => route, "method" => method).record(took);
}

/// A caller may send any word as its method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Leaves the route that a request matched with its answer, for the edge.
pub(crate) async fn mark_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// What the store knows of all processes; asked for when somebody looks, and not
/// too often.
#[derive(Debug, Default)]
pub(crate) struct StoreNumbers {
    asked: tokio::sync::Mutex<Option<Instant>>,
    /// Classes that there are or were: shown as zero when nothing of them is open.
    classes: Mutex<BTreeSet<String>>,
}

impl StoreNumbers {
    pub(crate) async fn refresh(&self, service: &Service) {
        // Whoever comes meanwhile waits for the same answer.
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return;
        }
        match service.health().await {
            Ok(health) => {
                gauge!(STORE_UP).set(1.0);
                self.show(&health, &service.config().queues);
            }
            Err(error) => {
                warn!(error = %Chain(&error), "could not count the executions");
                gauge!(STORE_UP).set(0.0);
            }
        }
        *asked = Some(Instant::now());
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn show(&self, health: &Health, classes: &[String]) {
        let mut shown = self.classes.lock().expect("no holder of this lock panics");
        shown.extend(health.classes.keys().chain(classes).cloned());
        for class in &*shown {
            let load = health.classes.get(class).copied().unwrap_or_default();
            let class = class.clone();
            let oldest = load.oldest_waiting.unwrap_or_default();
            gauge!(WAITING, "class" => class.clone()).set(load.waiting as f64);
            gauge!(OLDEST_WAITING, "class" => class.clone()).set(oldest);
            gauge!(RUNNING, "class" => class).set(load.running as f64);
        }
        let hosts = health.hosts;
        for (state, count) in
            [("working", hosts.working), ("cordoned", hosts.cordoned), ("draining", hosts.draining)]
        {
            gauge!(HOSTS, "state" => state).set(count as f64);
        }
        gauge!(SLOTS).set(hosts.slots as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_the_callers_making_is_no_label() {
        let odd = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(method_label(&odd), "other");
        assert_eq!(method_label(&Method::PATCH), "PATCH");
    }
}
