//! What one process tells the others of its changes, by NOTIFY and LISTEN.
//!
//! Announcements are hints: they are lost while the connection is, and whoever
//! waits for a change looks at the rows every now and then as well. Many are put
//! into one notification, and none is sent inside a transaction that changes
//! rows: each would wait there for the server's one lock of notifications.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;
use crate::id::ExecutionId;

const CHANNEL: &str = "abax";
/// The server takes fewer than 8,000 bytes in one notification.
const LARGEST: usize = 7_500;
/// Changes that wait to be announced at most; what exceeds it is found by looking.
const WAITING: usize = 20_000;
/// Changes within this time share a notification.
const GATHER: Duration = Duration::from_millis(3);
/// Something is sent at least this often, so that listeners know the connection
/// works.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A listener that hears nothing for longer, not even itself, connects anew.
const SILENCE: Duration = Duration::from_secs(30);
/// How long to wait for the server.
const ANSWER: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// Something that other processes may wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Announcement {
    /// An execution changed.
    Execution(ExecutionId),
    /// An actor may want its image made ready.
    Actors,
    /// Something may run that could not.
    Work,
}

/// The two ends of the announcements of one process.
#[derive(Debug)]
pub(super) struct Announcements {
    outgoing: mpsc::Sender<Announcement>,
    options: PgConnectOptions,
    origin: String,
    _announcing: AbortOnDropHandle<()>,
}

impl Announcements {
    pub(super) fn new(options: &PgConnectOptions) -> Self {
        let (outgoing, waiting) = mpsc::channel(WAITING);
        let origin = format!("{:016x}", rand::random::<u64>());
        let announcing = AbortOnDropHandle::new(tokio::spawn(announce(
            options.clone(),
            origin.clone(),
            waiting,
        )));
        Self { outgoing, options: options.clone(), origin, _announcing: announcing }
    }

    /// Tells the other processes, soon.
    pub(super) fn send(&self, announcement: Announcement) {
        // Where too many wait already, the others find it by looking.
        let _ = self.outgoing.try_send(announcement);
    }

    /// What other processes announce from now on.
    pub(super) fn listen(&self) -> Heard {
        let (sender, receiver) = mpsc::channel(WAITING);
        let listening = listen(self.options.clone(), self.origin.clone(), sender);
        Heard { receiver, _listening: Arc::new(AbortOnDropHandle::new(tokio::spawn(listening))) }
    }
}

/// What other processes announce.
#[derive(Debug)]
pub(crate) struct Heard {
    receiver: mpsc::Receiver<Announcement>,
    _listening: Arc<AbortOnDropHandle<()>>,
}

impl Heard {
    /// The next announcement.
    pub(crate) async fn next(&mut self) -> Option<Announcement> {
        self.receiver.recv().await
    }
}

async fn announce(
    options: PgConnectOptions,
    origin: String,
    mut waiting: mpsc::Receiver<Announcement>,
) {
    // Nothing of it must survive a crash of the server.
    let options = options.options([("synchronous_commit", "off")]);
    let mut connection = None;
    let mut gathered = Vec::new();
    loop {
        let heard = tokio::time::timeout(HEARTBEAT, waiting.recv_many(&mut gathered, WAITING));
        if let Ok(0) = heard.await {
            return;
        }
        if !gathered.is_empty() {
            tokio::time::sleep(GATHER).await;
            while gathered.len() < WAITING
                && let Ok(more) = waiting.try_recv()
            {
                gathered.push(more);
            }
        }
        for payload in payloads(&origin, gathered.drain(..).collect()) {
            let sent = tokio::time::timeout(ANSWER, notify(&options, &mut connection, &payload));
            if !matches!(sent.await, Ok(Ok(()))) {
                connection = None;
                // What waits meanwhile is announced late, or found by looking.
                tokio::time::sleep(CONNECT_AGAIN).await;
                break;
            }
        }
    }
}

async fn notify(
    options: &PgConnectOptions,
    connection: &mut Option<PgConnection>,
    payload: &str,
) -> Result<(), sqlx::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(options.connect().await?),
    };
    sqlx::query("select pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(payload)
        .execute(connection)
        .await
        .map(|_| ())
}

/// Origin, signs for what is not an execution, and the ids of executions, with
/// blanks between; at least one payload.
fn payloads(origin: &str, announcements: BTreeSet<Announcement>) -> Vec<String> {
    let mut signs = String::from("-");
    let mut payloads = Vec::new();
    let mut ids = String::new();
    for announcement in announcements {
        match announcement {
            Announcement::Actors => signs.push('a'),
            Announcement::Work => signs.push('w'),
            Announcement::Execution(id) => {
                if ids.len() + id.as_str().len() > LARGEST {
                    payloads.push(format!("{origin} -{ids}"));
                    ids.clear();
                }
                let _ = write!(ids, " {id}");
            }
        }
    }
    payloads.push(format!("{origin} {signs}{ids}"));
    payloads
}

/// What a payload of another process says; what is not understood is left out.
fn understand(origin: &str, payload: &str) -> Vec<Announcement> {
    let mut words = payload.split(' ');
    if words.next() == Some(origin) {
        return Vec::new();
    }
    let signs = words.next().unwrap_or_default().chars().filter_map(|sign| match sign {
        'a' => Some(Announcement::Actors),
        'w' => Some(Announcement::Work),
        _ => None,
    });
    let signs: Vec<_> = signs.collect();
    let ids = words.filter_map(ExecutionId::parse).map(Announcement::Execution);
    signs.into_iter().chain(ids).collect()
}

async fn listen(options: PgConnectOptions, origin: String, heard: mpsc::Sender<Announcement>) {
    while !heard.is_closed() {
        if let Err(error) = listen_while_connected(&options, &origin, &heard).await {
            tracing::debug!(error = %crate::Chain(&error), "does not hear of other processes' changes");
        }
        // Whatever happened meanwhile.
        let _ = heard.try_send(Announcement::Work);
        let _ = heard.try_send(Announcement::Actors);
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

async fn listen_while_connected(
    options: &PgConnectOptions,
    origin: &str,
    heard: &mpsc::Sender<Announcement>,
) -> Result<(), Error> {
    let failed = super::failed("listen for changes");
    let silence = || failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await.map_err(&failed)?;
    listener.eager_reconnect(false);
    tokio::time::timeout(ANSWER, listener.listen(CHANNEL))
        .await
        .map_err(|_| silence())?
        .map_err(&failed)?;
    loop {
        let notification = tokio::time::timeout(SILENCE, listener.try_recv())
            .await
            .map_err(|_| silence())?
            .map_err(&failed)?;
        let Some(notification) = notification else { return Ok(()) };
        for announcement in understand(origin, notification.payload()) {
            // Who does not keep up looks at the rows.
            let _ = heard.try_send(announcement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_fit_few_notifications() {
        let ids: BTreeSet<_> =
            (0..2_000).map(|_| Announcement::Execution(ExecutionId::generate())).collect();
        let mut all = ids.clone();
        all.extend([Announcement::Work, Announcement::Actors]);
        let payloads = payloads("me", all.clone());
        assert!(payloads.len() < 8, "{}", payloads.len());
        let mut heard = BTreeSet::new();
        for payload in &payloads {
            assert!(payload.len() < 8_000);
            assert_eq!(understand("me", payload), [], "of ourselves");
            heard.extend(understand("other", payload));
        }
        assert_eq!(heard, all);
        assert_eq!(understand("other", &super::payloads("me", BTreeSet::new())[0]), []);
        assert_eq!(understand("other", "me -z? what? is this"), []);
    }
}
