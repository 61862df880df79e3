use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Instant, timeout};

use super::Place;
use super::connection::{Lost, QUEUE_ANSWERS_WITHIN, Suspects, answer, declare, replace};
use super::name::queue_name;

/// How often consumers are made anew, over a new channel. RabbitMQ 3.10 does not
/// tell those of a quorum queue that it was deleted, and hands nothing out of
/// the next queue of that name over the same channel.
const RENEWED: Duration = Duration::from_secs(15);

/// What a consumer of the broker's says.
pub(super) enum Consumed {
    Delivery(Box<lapin::Result<lapin::message::Delivery>>),
    /// It was cancelled: by us, or since its queue was deleted.
    End(ShortString),
}

/// The consumers of one connection.
pub(super) struct Session<'a> {
    opener: Opener<'a>,
    /// What each consumer may have unsettled.
    prefetch: u16,
    /// When the oldest of them may have begun.
    begun: Instant,
    /// By their tags. One that was cancelled may still say something.
    running: HashMap<Place, ShortString>,
    events: SelectAll<BoxStream<'static, (Place, Consumed)>>,
    /// The channel before this one.
    retired: Option<Channel>,
}

/// Makes consumers.
struct Opener<'a> {
    connection: &'a Connection,
    suspects: &'a Mutex<Suspects>,
    channel: Channel,
    prefix: &'a str,
    declared: HashSet<Place>,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        connection: &'a Connection,
        prefix: &'a str,
        suspects: &'a Mutex<Suspects>,
    ) -> Result<Self, Lost> {
        let channel = answer("open a channel", connection.create_channel()).await?;
        let declared = HashSet::new();
        Ok(Self {
            opener: Opener { connection, suspects, channel, prefix, declared },
            prefetch: 0,
            begun: Instant::now(),
            running: HashMap::new(),
            events: SelectAll::new(),
            retired: None,
        })
    }

    /// When the consumers are to be made anew.
    pub(super) fn renewal(&self) -> Instant {
        self.begun + RENEWED
    }

    /// True where consumers that began now could be handed much more at once.
    pub(super) fn is_narrow(&self, room: u16) -> bool {
        room >= self.prefetch.saturating_mul(2)
    }

    /// The next that a consumer says; never, while there is none.
    ///
    /// Cancel-safe.
    pub(super) async fn event(&mut self) -> (Place, Consumed) {
        match self.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Begins to consume from those of `places` that it does not consume from.
    pub(super) async fn consume(
        &mut self,
        places: &BTreeSet<Place>,
        room: u16,
    ) -> Result<(), Lost> {
        let new: Vec<&Place> =
            places.iter().filter(|place| !self.running.contains_key(*place)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if self.running.is_empty() {
            self.prefetch = room;
        }
        // Of each consumer that begins after it, not of the channel.
        let limit = self.opener.channel.basic_qos(self.prefetch, BasicQosOptions::default());
        answer("set a limit", limit).await?;
        let opener = &self.opener;
        let begun = try_join_all(new.into_iter().map(|place| opener.begin(place))).await?;
        for (place, consumer) in begun {
            let (at, tag) = (place.clone(), consumer.tag());
            self.opener.declared.insert(place.clone());
            self.running.insert(place.clone(), tag.clone());
            let deliveries = consumer.map(|delivery| Consumed::Delivery(Box::new(delivery)));
            let end = stream::once(async { Consumed::End(tag) });
            self.events.push(deliveries.chain(end).map(move |event| (at.clone(), event)).boxed());
        }
        Ok(())
    }

    /// Cancels the consumers of those places that `which` picks. What they were
    /// handed before still arrives.
    pub(super) async fn cancel(&mut self, which: impl Fn(&Place) -> bool) -> Result<(), Lost> {
        let tags: Vec<_> = self.running.extract_if(|place, _| which(place)).collect();
        let channel = &self.opener.channel;
        try_join_all(tags.into_iter().map(|(_, tag)| async move {
            let cancelled = channel.basic_cancel(tag, BasicCancelOptions::default());
            answer("cancel", cancelled).await
        }))
        .await?;
        Ok(())
    }

    /// Cancels all consumers; the next begin over a new channel. What was handed
    /// out over the old one may still be settled until the next renewal.
    pub(super) async fn renew(&mut self) -> Result<(), Lost> {
        self.cancel(|_| true).await?;
        let channel = answer("open a channel", self.opener.connection.create_channel()).await?;
        self.retired = Some(std::mem::replace(&mut self.opener.channel, channel));
        self.opener.declared.clear();
        self.begun = Instant::now();
        Ok(())
    }

    /// Notes that a consumer has ended.
    pub(super) fn end(&mut self, place: &Place, tag: &ShortString) {
        if self.running.get(place) == Some(tag) {
            // Not by us, so its queue is gone.
            self.running.remove(place);
            self.opener.declared.remove(place);
        }
    }
}

impl Opener<'_> {
    async fn begin<'p>(&self, place: &'p Place) -> Result<(&'p Place, Consumer), Lost> {
        let name = queue_name(self.prefix, place);
        if !self.declared.contains(place) {
            declare(&self.channel, &name).await?;
        }
        let asked = Instant::now();
        let consumer = self.channel.basic_consume(
            name.as_str().into(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let suspects = || self.suspects.lock().expect("nothing panics while it holds them");
        if let Ok(consumer) = timeout(QUEUE_ANSWERS_WITHIN, consumer).await {
            suspects().trust(&name);
            return Ok((place, consumer?));
        }
        if suspects().suspect(&name, asked) {
            replace(self.connection, &name).await?;
            suspects().replaced(&name);
        }
        // The channel still waits for its answer.
        Err(Lost::Stuck { queue: name })
    }
}
