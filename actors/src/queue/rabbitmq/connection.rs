use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::runtime::default_runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Shared;

use crate::config::RabbitMqConfig;
use crate::error::{Chain, Error};

/// How long the broker may take to answer. One that takes longer is given up,
/// and connected to anew.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long one queue may take to confirm or to begin to hand out.
pub(super) const QUEUE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The first and the longest wait before connecting again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A connection that lasted for less is no better than none: a broker that
/// refuses what every connection begins with is not to be asked ten times a second.
const LASTING: Duration = Duration::from_secs(10);
/// Seconds between heartbeats: a silence of twice as long ends the connection.
const HEARTBEAT: u16 = 10;
/// A queue that nobody used for so long goes.
const QUEUE_EXPIRES: Duration = Duration::from_secs(86_400);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the broker failed")]
    Broker {
        #[from]
        source: lapin::Error,
    },
    #[error("the broker did not {doing} in time")]
    Silent { doing: &'static str },
    #[error("queue {queue} is not there any more")]
    Gone { queue: String },
    #[error("queue {queue} does not answer")]
    Stuck { queue: String },
}

/// Waits for an answer of the broker, not for ever.
pub(super) async fn answer<T>(
    doing: &'static str,
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Lost> {
    match timeout(ANSWER_WITHIN, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Lost::Silent { doing }),
    }
}

/// Queues that did not answer in time.
///
/// The first time they are asked again: the broker may have had other things to
/// do. One that does not answer what it was asked after that is made anew.
#[derive(Default)]
pub(super) struct Suspects(HashMap<String, Suspect>);

enum Suspect {
    Since(Instant),
    Replaced(Instant),
}

impl Suspects {
    /// Notes that `queue` did not answer what it was asked at `asked`. True when
    /// it is to be made anew.
    pub(super) fn suspect(&mut self, queue: &str, asked: Instant) -> bool {
        let now = Instant::now();
        match self.0.get(queue) {
            Some(Suspect::Since(since)) => return asked > *since,
            Some(Suspect::Replaced(at)) if asked <= *at => return false,
            Some(Suspect::Replaced(_)) | None => {}
        }
        self.0.insert(queue.to_owned(), Suspect::Since(now));
        false
    }

    /// Notes that `queue` was made anew.
    pub(super) fn replaced(&mut self, queue: &str) {
        self.0.insert(queue.to_owned(), Suspect::Replaced(Instant::now()));
    }

    /// Notes that `queue` answered.
    pub(super) fn trust(&mut self, queue: &str) {
        self.0.remove(queue);
    }
}

/// Where the broker is.
pub(super) struct Broker {
    uri: AMQPUri,
    authority: Option<String>,
    /// The connection that publishes, while there is one.
    pub(super) publishing: Slot,
}

/// A connection, while there is one.
pub(super) type Slot = watch::Sender<Option<Arc<Connection>>>;

impl Broker {
    pub(super) fn new(config: &RabbitMqConfig) -> Result<Self, Error> {
        let mut uri: AMQPUri =
            config.url.parse().map_err(|problem: String| Error::invalid("queue.url", problem))?;
        if let Some(password) = &config.password {
            uri.authority.userinfo.password = password.expose_secret().to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let authority = config.ca_pem.clone().map(String::from_utf8).transpose();
        let authority = authority.map_err(|_| Error::invalid("queue.ca_file", "it is no PEM"))?;
        Ok(Self { uri, authority, publishing: Slot::new(None) })
    }

    async fn connect(&self) -> Result<Connection, Lost> {
        let name = format!("abax {}", std::process::id());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.authority.clone() };
        let runtime = default_runtime()?;
        let connecting =
            Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        match timeout(CONNECT_WITHIN, connecting).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(Lost::Silent { doing: "connect" }),
        }
    }

    /// How many messages wait in each of these queues; none in one that is not
    /// there.
    pub(super) async fn depths(&self, names: &[String]) -> Result<Vec<u64>, Error> {
        let connection = self.publishing.borrow().clone().ok_or(Error::QueueUnavailable)?;
        let mut depths = Vec::with_capacity(names.len());
        let mut channel = None;
        for name in names {
            let depth = depth(&connection, &mut channel, name).await.map_err(|lost| {
                debug!(error = %Chain(&lost), "could not ask for the depth of {name}");
                Error::QueueUnavailable
            })?;
            depths.push(depth);
        }
        if let Some(channel) = channel {
            // Its end changes nothing.
            let _ = answer("close", channel.close(200, "done".into())).await;
        }
        Ok(depths)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To publish, and to ask.
    Publish,
    /// To consume. RabbitMQ stops to read from connections that publish when it
    /// runs out of memory, and acks must not be among what it does not read.
    Consume,
}

/// Connects, uses the connection until it is lost, and connects again, for ever.
///
/// lapin can recover a connection by itself. We do not ask it to: it gives up
/// some time, so that something must start anew in any case, and one way to
/// start is easier to trust than two.
pub(super) async fn keep(shared: Arc<Shared>, role: Role) {
    if role == Role::Consume {
        // A process that only publishes needs no second connection.
        shared.consumers.first_receiver().await;
    }
    let mut waits = Waits::default();
    // Once is enough for an operator; the metric says how long.
    let (mut told, mut brief) = (false, false);
    loop {
        let mut lasted = Duration::ZERO;
        match shared.broker.connect().await {
            Ok(connection) => {
                told = false;
                let connected = Instant::now();
                let lost = tokio::select! {
                    lost = session(&shared, role, Arc::new(connection)) => lost,
                    never = say_connected(brief) => match never {},
                };
                lasted = connected.elapsed();
                let error = Chain(&lost);
                if brief && lasted < LASTING {
                    debug!(error = %error, "lost the queue again");
                } else {
                    warn!(error = %error, "lost the queue; messages are delayed");
                }
                brief = lasted < LASTING;
            }
            Err(lost) if told => debug!(error = %Chain(&lost), "the queue is not there yet"),
            Err(lost) => {
                warn!(error = %Chain(&lost), "could not connect to the queue; trying again");
                told = true;
            }
        }
        // All that lost the broker at once shall not come back at once.
        let wait = waits.after(lasted).mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep(wait).await;
    }
}

/// Says that there is a connection; after one that did not last, when this does.
async fn say_connected(after_a_brief_one: bool) -> Infallible {
    if after_a_brief_one {
        tokio::time::sleep(LASTING).await;
    }
    info!("connected to the queue");
    std::future::pending().await
}

/// The waits before connecting again, each twice as long as the one before it.
struct Waits(Duration);

impl Default for Waits {
    fn default() -> Self {
        Self(RECONNECT.0)
    }
}

impl Waits {
    /// The wait after a connection that lasted so long.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= LASTING {
            *self = Self::default();
        }
        let wait = self.0;
        self.0 = (wait * 2).min(RECONNECT.1);
        wait
    }
}

async fn session(shared: &Shared, role: Role, connection: Arc<Connection>) -> Lost {
    let work = async {
        match role {
            Role::Publish => {
                let _vacant = Vacate::occupy(&shared.broker.publishing, &connection);
                shared.publisher.run(&connection, &shared.prefix).await
            }
            Role::Consume => {
                shared.consumers.run(&connection, &shared.prefix, &shared.publisher).await
            }
        }
    };
    let lost = tokio::select! {
        lost = work => lost,
        lost = watch(&connection) => lost,
    };
    if role == Role::Consume {
        // It comes again over the next connection.
        shared.consumers.forget_received();
    }
    lost
}

/// Leaves a slot empty.
struct Vacate<'a>(&'a Slot);

impl<'a> Vacate<'a> {
    fn occupy(slot: &'a Slot, connection: &Arc<Connection>) -> Self {
        slot.send_replace(Some(Arc::clone(connection)));
        Self(slot)
    }
}

impl Drop for Vacate<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

async fn depth(
    connection: &Connection,
    channel: &mut Option<Channel>,
    name: &str,
) -> Result<u64, Lost> {
    let open = match channel.take() {
        Some(open) => open,
        None => answer("open a channel", connection.create_channel()).await?,
    };
    let options = QueueDeclareOptions::durable().passive();
    let asked = open.queue_declare(name.into(), options, FieldTable::default());
    match answer("count", asked).await {
        Ok(queue) => {
            *channel = Some(open);
            Ok(queue.message_count().into())
        }
        // There is no such queue, and the broker has closed the channel.
        Err(Lost::Broker { source }) if source.is_amqp_soft_error() => Ok(0),
        Err(lost) => Err(lost),
    }
}

/// Makes a queue that does not answer anew.
///
/// A quorum queue can lose its leader for good, while the broker and all other
/// queues do well: on one node it is enough that the broker is killed within
/// three minutes of the queue's declaration (seen with 3.10; rabbitmq-server
/// 10070, 13665 and 15725 tell of more ways). What was in it the sweep repeats.
pub(super) async fn replace(connection: &Connection, name: &str) -> Result<(), Lost> {
    warn!(queue = name, "queue {name} does not answer; deleting it and declaring it anew");
    let channel = answer("open a channel", connection.create_channel()).await?;
    let deleted = channel.queue_delete(name.into(), QueueDeleteOptions::default());
    answer("delete a queue", deleted).await?;
    declare(&channel, name).await
}

/// Makes sure that a queue is there: durable, on as many nodes as the broker
/// has, and gone when nobody has used it for a day.
pub(super) async fn declare(channel: &Channel, name: &str) -> Result<(), Lost> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let expires = i32::try_from(QUEUE_EXPIRES.as_millis()).expect("a day fits");
    arguments.insert("x-expires".into(), AMQPValue::LongInt(expires));
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    answer("declare a queue", declared).await.map(|_| ())
}

/// Waits for the end of a connection.
async fn watch(connection: &Connection) -> Lost {
    let mut events = connection.events_listener();
    while let Some(event) = events.next().await {
        match event {
            Event::Error(source) => return Lost::Broker { source },
            Event::ConnectionBlocked(reason) => {
                warn!(reason, "the queue takes nothing; messages are delayed");
            }
            Event::ConnectionUnblocked => info!("the queue takes messages again"),
            _ => {}
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_no_connection_lasts() {
        let mut waits = Waits::default();
        for milliseconds in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = waits.after(Duration::from_secs(1));
            assert_eq!(wait, Duration::from_millis(milliseconds));
        }
        assert_eq!(waits.after(LASTING), RECONNECT.0);
        assert_eq!(waits.after(Duration::ZERO), RECONNECT.0 * 2);
    }
}
