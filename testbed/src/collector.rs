//! A collector of traces: takes OTLP over HTTP and remembers the spans.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::front::read_head;

/// A span as it arrived: ids in hexadecimal, times in nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process that it came from.
    pub service: String,
    /// The trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The id of its parent; empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// When it began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Its attributes that are texts.
    pub attributes: BTreeMap<String, String>,
}

/// A collector on a free port of loopback. It listens for as long as the process runs.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                thread::spawn(move || {
                    // The end of a connection is an error too.
                    let _ = serve(&stream, &all);
                });
            }
        });
        Ok(Self { address, spans })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to say.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far, in the order of their beginning.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| span.start_ns);
        spans
    }
}

fn serve(stream: &TcpStream, all: &Mutex<Vec<Span>>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream.try_clone()?;
    loop {
        let (first, headers) = read_head(&mut reader)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.context("no length")?.1.parse()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let status = if first.starts_with("POST /v1/traces ") {
            all.lock().unwrap_or_else(PoisonError::into_inner).extend(spans_of(&body)?);
            "200 OK"
        } else {
            "404 Not Found"
        };
        writer.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    }
}

/// `ExportTraceServiceRequest`: resource spans (1), each with a resource (1) and
/// scope spans (2), each with spans (2).
fn spans_of(request: &[u8]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for resource_spans in parts(request, 1)? {
        let mut service = String::new();
        for resource in parts(resource_spans, 1)? {
            service = attributes(resource, 1)?.remove("service.name").unwrap_or_default();
        }
        for scope_spans in parts(resource_spans, 2)? {
            for span in parts(scope_spans, 2)? {
                spans.push(Span { service: service.clone(), ..span_of(span)? });
            }
        }
    }
    Ok(spans)
}

fn span_of(message: &[u8]) -> Result<Span> {
    let mut span = Span { attributes: attributes(message, 9)?, ..Span::default() };
    for (number, value) in fields(message)? {
        match (number, value) {
            (1, Field::Bytes(bytes)) => span.trace = hex::encode(bytes),
            (2, Field::Bytes(bytes)) => span.id = hex::encode(bytes),
            (4, Field::Bytes(bytes)) => span.parent = hex::encode(bytes),
            (5, Field::Bytes(bytes)) => span.name = String::from_utf8(bytes.to_vec())?,
            (7, Field::Number(time)) => span.start_ns = time,
            (8, Field::Number(time)) => span.end_ns = time,
            _ => {}
        }
    }
    Ok(span)
}

/// `KeyValue`s: a key (1) and a value (2), of which texts (1) are kept.
fn attributes(message: &[u8], number: u64) -> Result<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for pair in parts(message, number)? {
        let texts = |message, number| -> Result<Vec<String>> {
            let texts = parts(message, number)?.into_iter();
            texts.map(|text| Ok(String::from_utf8(text.to_vec())?)).collect()
        };
        let name = texts(pair, 1)?.pop().context("an attribute without a key")?;
        for value in parts(pair, 2)? {
            if let Some(text) = texts(value, 1)?.pop() {
                attributes.insert(name.clone(), text);
            }
        }
    }
    Ok(attributes)
}

/// A field of a message of Protocol Buffers.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields `number` of a message that are messages or texts themselves.
fn parts(message: &[u8], number: u64) -> Result<Vec<&[u8]>> {
    let found = fields(message)?.into_iter().filter(|(n, _)| *n == number);
    Ok(found
        .filter_map(|(_, field)| match field {
            Field::Bytes(bytes) => Some(bytes),
            Field::Number(_) => None,
        })
        .collect())
}

fn fields(mut message: &[u8]) -> Result<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = variable(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(variable(&mut message)?),
            1 => {
                let bytes = take(&mut message, 8)?.try_into().expect("eight bytes were taken");
                Field::Number(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(variable(&mut message)?)?;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => {
                let bytes = take(&mut message, 4)?.try_into().expect("four bytes were taken");
                Field::Number(u32::from_le_bytes(bytes).into())
            }
            kind => bail!("a field of kind {kind}"),
        };
        fields.push((tag >> 3, field));
    }
    Ok(fields)
}

fn variable(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number without an end")
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length).context("a message that is cut")?;
    *message = rest;
    Ok(taken)
}
