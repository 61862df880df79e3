//! Where a message stands in a trace of its sender's: W3C Trace Context.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::clock::Time;

/// The value of a `traceparent` header: a trace, a span in it, and whether it is
/// recorded. Goes with a message from the request that brings it to the container
/// that handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(SpanContext);

impl TraceParent {
    /// Reads a header of version 00, or what later versions have in common with it
    /// (W3C Trace Context, "Versioning of traceparent").
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(5, '-');
        let (version, trace, span, flags) = (
            hex::<2>(parts.next()?)?,
            hex::<32>(parts.next()?)?,
            hex::<16>(parts.next()?)?,
            hex::<2>(parts.next()?)?,
        );
        let more = parts.next().is_some();
        if version == "ff" || (version == "00" && more) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8();
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(sampled),
            true,
            TraceState::NONE,
        );
        context.is_valid().then_some(Self(context))
    }

    /// What `span` is the parent of, for what it causes elsewhere. None where nobody
    /// collects traces.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context().span().span_context().clone();
        context.is_valid().then_some(Self(context))
    }

    /// Makes `span` a part of this trace. Before it has children: then it is too late,
    /// and nothing happens.
    pub fn adopt(&self, span: &Span) {
        let parent = opentelemetry::Context::new().with_remote_span_context(self.0.clone());
        // Fails where nobody collects traces.
        let _ = span.set_parent(parent);
    }

    /// Names the trace's view of `span`, which has begun. Nothing where nobody
    /// collects traces.
    pub fn rename(span: &Span, name: String) {
        span.context().span().update_name(name);
    }

    /// Adds a span to this trace that is over. Nothing where nobody collects traces.
    pub fn record(&self, name: &'static str, from: Time, to: Time) {
        let at = |time: Time| {
            UNIX_EPOCH + Duration::from_micros(u64::try_from(time.micros()).unwrap_or(0))
        };
        let parent = opentelemetry::Context::new().with_remote_span_context(self.0.clone());
        let tracer = opentelemetry::global::tracer("abax");
        tracer
            .span_builder(name)
            .with_start_time(at(from))
            .start_with_context(&tracer, &parent)
            .end_with_timestamp(at(to));
    }

    /// The trace, as logs name it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.trace_id().to_string()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(context) = self;
        let flags = context.trace_flags().to_u8();
        write!(f, "00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
    }
}

/// Text of `N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<&str> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == N && digits).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_traceparent_is_none() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (text, ok) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
            (format!("01-{TRACE}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{TRACE}-0000000000000000-01"), false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}-00f067aa0ba902b7"), false),
            (format!("00-{TRACE}é-00f067aa0ba902b7-01"), false),
            (String::new(), false),
        ] {
            assert_eq!(TraceParent::parse(&text).is_some(), ok, "{text}");
        }
    }

    #[test]
    fn printing_gives_what_was_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn without_a_collector_there_is_no_trace() {
        assert_eq!(TraceParent::of(&Span::current()), None);
    }
}
