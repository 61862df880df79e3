//! The trace of an execution: from the wait in the queue to its end.

use abax_actors::{Claim, Outcome, Phase, Time, TraceParent};
use tracing::{Span, field, info_span};

/// The variable that continues the trace in the container.
pub(crate) const TRACEPARENT: &str = "TRACEPARENT";

/// The span of a claimed execution, in the trace of its message. The wait that is
/// over and the claim, which was asked for at `asked`, are spans of it already.
pub(crate) fn execution(claim: &Claim, asked: Time, now: Time) -> Span {
    let span = info_span!(
        "execution",
        execution.id = %claim.key.execution,
        actor.id = %claim.actor.id,
        attempt = claim.attempt,
        trace.id = field::Empty,
        outcome = field::Empty,
        otel.status_code = field::Empty,
    );
    let phases = &claim.execution.phases;
    if let Some(message) = &claim.message.trace {
        message.adopt(&span);
        if let (Some(queued), Some(claimed)) = (phases.at(Phase::Queued), phases.at(Phase::Claimed))
        {
            message.record("queued", queued, claimed);
        }
    }
    if let Some(own) = TraceParent::of(&span) {
        span.record("trace.id", own.trace_id());
        own.record("claim", asked, now);
    }
    span
}

/// Says on the span of an execution how it ended.
pub(crate) fn ended(span: &Span, outcome: Outcome) {
    span.record("outcome", outcome.as_str());
    span.record("otel.status_code", if outcome == Outcome::Succeeded { "OK" } else { "ERROR" });
}
