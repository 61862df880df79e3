//! A line of the log as one flat JSON object: what the event says, and the
//! ids of the spans that it is in, each under its dotted name.

use std::error::Error;
use std::fmt;

use abax_actors::Chain;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// `{"timestamp": …, "level": …, "message": …, "execution.id": …}`
///
/// A field of an inner span stands above one of an outer span of the same name,
/// and the event's own above both.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        // Before the fields, whatever their order.
        line.insert("message".to_owned(), "".into());
        line.insert("target".to_owned(), metadata.target().into());
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            if let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&fields.fields) {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, Chain(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{error, info, info_span};
    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines)
            .fmt_fields(JsonFields::new())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn ids_of_spans_are_dotted_fields_of_each_line() {
        let lines = lines(|| {
            let request =
                info_span!("request", request.id = "r-1", caller.user = tracing::field::Empty);
            let _request = request.enter();
            request.record("caller.user", "ada");
            let _execution = info_span!("execution", execution.id = %"e-1").entered();
            info!(exit_code = 3, actor.id = %"a-1", "execution e-1 \"failed\"\nhere");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for (name, value) in [
            ("level", Value::from("INFO")),
            ("message", Value::from("execution e-1 \"failed\"\nhere")),
            ("request.id", Value::from("r-1")),
            ("caller.user", Value::from("ada")),
            ("execution.id", Value::from("e-1")),
            ("actor.id", Value::from("a-1")),
            ("exit_code", Value::from(3)),
        ] {
            assert_eq!(line[name], value, "{name} of {line}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn an_error_is_one_field_with_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not open the store")]
        struct Outer(#[source] io::Error);

        let failure = Outer(io::Error::other("the disk is gone"));
        let lines = lines(|| {
            error!(error = %Chain(&failure), "stopping");
            error!(error = &failure as &(dyn Error + 'static), "stopping");
        });
        for line in &lines {
            assert_eq!(line["error"], "could not open the store: the disk is gone", "{line}");
        }
        assert_eq!(lines.len(), 2);
    }
}
