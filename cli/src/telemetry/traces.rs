//! Spans to a collector: OTLP over HTTP.
//!
//! The SDK's own batches leave by a thread that blocks, with a second HTTP
//! client. Here they leave by a task of the runtime that the service has anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abax_actors::Chain;
use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Subscriber, debug, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// How long the last batch may take at the end of the process.
const LAST_BATCH: Duration = Duration::from_secs(5);

/// What [`layer`] made and [`export`] has not begun with yet.
static WAITING: Mutex<Option<Outgoing>> = Mutex::new(None);

struct Outgoing {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    queue: Arc<Queue>,
    pace: Pace,
}

/// How spans are put together; as OpenTelemetry's variables for batches say.
#[derive(Clone, Copy)]
struct Pace {
    delay: Duration,
    batch: usize,
    queue: usize,
}

impl Pace {
    fn of_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok().filter(|n| *n > 0);
        let size = |name, default: u32| {
            usize::try_from(number(name).unwrap_or(default)).unwrap_or(usize::MAX)
        };
        let delay = number("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5_000);
        Self {
            delay: Duration::from_millis(delay.into()),
            batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
            queue: size("OTEL_BSP_MAX_QUEUE_SIZE", 8_192),
        }
    }
}

/// The layer that makes spans of ours into spans of a trace, when the environment
/// or `endpoint` says where a collector is; otherwise none, and nothing is done.
///
/// # Errors
///
/// The collector's URL is none.
pub(super) fn layer<S>(
    service: &'static str,
    endpoint: Option<&str>,
) -> anyhow::Result<Option<impl tracing_subscriber::Layer<S>>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let set = |name| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let by_environment =
        set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let says = |name, word: &str| {
        std::env::var(name).is_ok_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none");
    if off || (!by_environment && endpoint.is_none()) {
        return Ok(None);
    }
    let mut exporter = SpanExporter::builder().with_http();
    if let (false, Some(endpoint)) = (by_environment, endpoint) {
        exporter = exporter.with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')));
    }
    let mut exporter = exporter.build().context("could not prepare the export of traces")?;
    let resource = resource(service);
    exporter.set_resource(&resource);

    let pace = Pace::of_environment();
    let (sender, spans) = mpsc::channel(pace.queue);
    let queue = Arc::new(Queue {
        spans: sender,
        batch: pace.batch,
        full: Notify::new(),
        dropped: AtomicU64::new(0),
    });
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Processor(Arc::clone(&queue)))
        .build();
    let tracer: SdkTracer = provider.tracer("abax");
    opentelemetry::global::set_tracer_provider(provider);
    let outgoing = Outgoing { exporter, spans, queue, pace };
    *WAITING.lock().expect("no holder of this lock panics") = Some(outgoing);

    let layer = OpenTelemetryLayer::new(tracer)
        // Spans find their parents by themselves, whatever thread they are on.
        .with_context_activation(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    // Ours alone: what the export itself does must not make more to export.
    let ours = Targets::new().with_target("abax", LevelFilter::INFO);
    Ok(Some(tracing_subscriber::Layer::with_filter(layer, ours)))
}

/// Who we are; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` stand above it.
fn resource(service: &'static str) -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES")
            .is_ok_and(|attributes| attributes.contains("service.name="));
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    if named { resource.build() } else { resource.with_service_name(service).build() }
}

/// Ended spans on their way to the task that exports them.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    batch: usize,
    /// There is a batch.
    full: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Processor(Arc<Queue>);

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        let Queue { spans, batch, full, dropped } = &*self.0;
        if !span.span_context.is_sampled() {
            return;
        }
        // A collector that is slow or gone costs spans, never the service's time.
        if spans.try_send(span).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        } else if spans.max_capacity() - spans.capacity() >= *batch {
            full.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The export of traces while it goes on.
#[must_use = "what is not finished may lose its last spans"]
pub(crate) struct Exporting(Option<(CancellationToken, JoinHandle<()>)>);

/// Begins to export what spans end from now on, or ended since the start of the
/// process; inside a tokio runtime. Nothing where there is no collector.
pub(crate) fn export() -> Exporting {
    let waiting = WAITING.lock().expect("no holder of this lock panics").take();
    Exporting(waiting.map(|outgoing| {
        let stop = CancellationToken::new();
        let task = tokio::spawn(export_all(outgoing, stop.clone()));
        (stop, task)
    }))
}

impl Exporting {
    /// Exports what has ended by now, and ends.
    pub(crate) async fn finish(self) {
        let Some((stop, task)) = self.0 else { return };
        stop.cancel();
        if timeout(LAST_BATCH, task).await.is_err() {
            warn!("the last traces could not be exported in time");
        }
    }
}

async fn export_all(outgoing: Outgoing, stop: CancellationToken) {
    let Outgoing { exporter, mut spans, queue, pace } = outgoing;
    let mut ticks = interval(pace.delay);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut works = true;
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            () = queue.full.notified() => false,
            _ = ticks.tick() => false,
        };
        loop {
            let mut batch = Vec::new();
            while batch.len() < pace.batch
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            let worked = std::mem::replace(&mut works, true);
            // Said when it changes, not with each batch of a night without a collector.
            match exporter.export(batch).await {
                Ok(()) if worked => {}
                Ok(()) => warn!("traces are exported again"),
                Err(error) => {
                    works = false;
                    if worked {
                        warn!(error = %Chain(&error), "could not export traces");
                    } else {
                        debug!(error = %Chain(&error), "could not export traces");
                    }
                }
            }
        }
        let dropped = queue.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            warn!(dropped, "dropped {dropped} spans: the collector is slower than we are");
        }
        if last {
            return;
        }
    }
}
