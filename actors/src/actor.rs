//! Actors: registered images and their settings.
//!
//! ```text
//! SUBMITTED ──image is there──► READY ──image update──► SUBMITTED
//!     └──image cannot be had──► ERROR ──image update──► SUBMITTED
//! any but SHUTTING_DOWN ──delete──► SHUTTING_DOWN ──last execution ended──► (gone)
//! ```
//!
//! An image update is a PUT with another image, or with `force`; it raises the
//! revision. While an actor is in ERROR its messages wait; the execution whose
//! start showed the error has ended with that reason.
//!
//! An actor whose image cannot be had now rests ([`Rest`]): it keeps its status, and
//! its messages wait, until the image is tried again. An update ends the rest.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Time;
use crate::config::Config;
use crate::cron::Cron;
use crate::error::Error;
use crate::id::ActorId;
use crate::json::Json;
use crate::mount::{ActorMount, HostAccess};
use crate::permission::{Caller, Tenant};

/// A registered image and its settings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Actor {
    /// Its id.
    pub id: ActorId,
    /// The tenant it belongs to.
    pub tenant: Tenant,
    /// The user who registered it; never changes.
    pub owner: String,
    /// A free text, set at registration.
    pub name: Option<String>,
    /// A free text.
    pub description: String,
    /// The image reference, as given.
    pub image: String,
    /// False: executions run one at a time, in order, and share the state.
    pub stateless: bool,
    /// A free text without effect: `none`, `bin` or `json` by custom.
    pub kind: String,
    /// Whether executions get an access token.
    pub token: TokenSetting,
    /// URL that hears of events.
    pub webhook: String,
    /// Actor that hears of events.
    pub link: String,
    /// Tags.
    pub hints: Vec<String>,
    /// Whether its containers are privileged.
    pub privileged: bool,
    /// Executions at once; `None` leaves it to the service.
    pub max_workers: Option<u32>,
    /// Memory limit as given (`512m`); [`Actor::memory_limit_bytes`] has the number.
    pub mem_limit: Option<String>,
    /// CPU limit in billionths of a CPU.
    pub max_cpus: Option<u64>,
    /// Whether containers run as the image's user.
    pub use_container_uid: bool,
    /// Whether containers run as whoever sent their message.
    pub run_as_executor: bool,
    /// Environment of every execution: a JSON object.
    pub default_environment: Json,
    /// Where it stands.
    pub status: ActorStatus,
    /// What explains the status; empty at first, one blank when READY. While
    /// SUBMITTED, what the actor waits for.
    pub status_message: String,
    /// What a stateful actor keeps between executions.
    pub state: Json,
    /// When it was registered.
    pub created: Time,
    /// When its settings changed last.
    pub updated: Time,
    /// Counts the image updates, from 1.
    pub revision: i64,
    /// The pool of hosts that serves it.
    pub queue: String,
    /// Seconds for which it wants its logs kept; -1 for ever.
    pub log_ex: Option<i64>,
    /// Seconds that an execution may run, where the host allows more.
    pub max_run_time: Option<u32>,
    /// User and group of the hosts as which its containers run; none for the
    /// image's. By the operator's word when its settings were written last.
    pub user: Option<(u32, u32)>,
    /// Its owner's home directory on the hosts.
    pub home: Option<String>,
    /// What its containers see of the hosts.
    pub mounts: Vec<ActorMount>,
    /// When it is executed without a message.
    pub cron: Cron,
    /// The workers that an admin asked for: so many executions may run at once,
    /// though its own limit is lower.
    pub wanted_workers: u32,
    /// Where its image could not be had.
    pub rest: Option<Rest>,
}

/// A pause of an actor whose image could not be had. Nothing of it is claimed until
/// it is over, and then one execution at a time until a host has the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// How often in a row the image could not be had.
    pub failures: u32,
    /// When it is tried again.
    pub until: Time,
}

impl Rest {
    /// What follows at `now`, after `before`. None while that lasts: further failures
    /// are those that were under way when it began.
    pub(crate) fn after(before: Option<Self>, now: Time) -> Option<Self> {
        if before.is_some_and(|before| before.is_on(now)) {
            return None;
        }
        let failures = before.map_or(0, |before| before.failures);
        let pause = FIRST_REST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_REST);
        Some(Self { failures: failures.saturating_add(1), until: now.after(pause) })
    }

    /// Whether it lasts at `now`.
    #[must_use]
    pub fn is_on(&self, now: Time) -> bool {
        self.until > now
    }
}

/// How long an actor rests whose image could not be had; twice as long after each
/// further failure.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);

impl Actor {
    /// Tenant and id: Abaco's internal key, which containers get to see.
    #[must_use]
    pub fn dbid(&self) -> String {
        format!("{}_{}", self.tenant, self.id)
    }

    /// Gives its containers of their hosts what the operator lets them have.
    pub(crate) fn place(&mut self, access: &HostAccess) {
        self.user = access.user_of(&self.owner).filter(|_| !self.use_container_uid);
        self.home = access.home_of(&self.owner, &self.tenant);
        self.mounts = access.mounts_of(&self.owner, &self.tenant, self.privileged);
    }

    /// The memory limit in bytes, if it has one.
    #[must_use]
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        self.mem_limit.as_deref().and_then(parse_memory)
    }
}

/// What a READY actor has as message: one blank, as in Abaco.
pub(crate) const READY_MESSAGE: &str = " ";

/// Where an actor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActorStatus {
    /// No host has its image yet.
    Submitted,
    /// At least one host has had its image.
    Ready,
    /// Needs the owner's attention.
    Error,
    /// Being deleted.
    ShuttingDown,
}

impl ActorStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submitted, Self::Ready, Self::Error, Self::ShuttingDown];

    /// The text in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Ready => "READY",
            Self::Error => "ERROR",
            Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }

    /// Statuses that may follow this one.
    #[must_use]
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Submitted => &[Self::Ready, Self::Error, Self::ShuttingDown],
            // Back to `Submitted`: another image.
            Self::Ready => &[Self::Submitted, Self::Error, Self::ShuttingDown],
            Self::Error => &[Self::Submitted, Self::ShuttingDown],
            Self::ShuttingDown => &[],
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for ActorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether executions get an access token, and who said so. Abaco shows a
/// default as text and a choice as a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSetting {
    /// The owner chose.
    Chosen(bool),
    /// The service's default at the time.
    Default(bool),
}

impl TokenSetting {
    /// Whether a token is wanted.
    #[must_use]
    pub fn wanted(self) -> bool {
        match self {
            Self::Chosen(wanted) | Self::Default(wanted) => wanted,
        }
    }
}

/// What registers an actor; only the image is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct NewActor {
    /// The image reference.
    pub image: String,
    /// See [`Actor::name`].
    pub name: Option<String>,
    /// See [`Actor::description`].
    pub description: String,
    /// See [`Actor::stateless`]; true.
    pub stateless: bool,
    /// See [`Actor::kind`]; `none`.
    pub kind: String,
    /// Whether executions get an access token; `None` for the service's default.
    pub token: Option<bool>,
    /// See [`Actor::webhook`].
    pub webhook: String,
    /// See [`Actor::link`].
    pub link: String,
    /// See [`Actor::hints`].
    pub hints: Vec<String>,
    /// See [`Actor::privileged`]; restricted.
    pub privileged: bool,
    /// At least 1; restricted, and not for stateful actors.
    pub max_workers: Option<i64>,
    /// `512m`, `1g`, bytes; restricted.
    pub mem_limit: Option<String>,
    /// Billionths of a CPU, at least 1; restricted.
    pub max_cpus: Option<i64>,
    /// See [`Actor::use_container_uid`]; restricted when true.
    pub use_container_uid: bool,
    /// See [`Actor::run_as_executor`]; not besides the other, and only where the
    /// operator says who the users of the tenant are.
    pub run_as_executor: bool,
    /// A JSON object.
    pub default_environment: Json,
    /// One of the configured queues; restricted when not `default`.
    pub queue: String,
    /// Seconds; -1 for ever.
    pub log_ex: Option<i64>,
    /// See [`Actor::max_run_time`]; at least 1.
    pub max_run_time: Option<i64>,
    /// See [`Cron`]; one that is registered is on. An update without one keeps
    /// the one that there is.
    pub cron_schedule: Option<String>,
    /// Whether an update leaves the schedule on.
    pub cron_on: bool,
}

impl NewActor {
    /// The image `image` with the defaults of Abaco.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            name: None,
            description: String::new(),
            stateless: true,
            kind: "none".to_owned(),
            token: None,
            webhook: String::new(),
            link: String::new(),
            hints: Vec::new(),
            privileged: false,
            max_workers: None,
            mem_limit: None,
            max_cpus: None,
            use_container_uid: false,
            run_as_executor: false,
            default_environment: Json::empty_object(),
            queue: "default".to_owned(),
            log_ex: None,
            max_run_time: None,
            cron_schedule: None,
            cron_on: false,
        }
    }

    /// What would register `actor` as it is now.
    pub(crate) fn of(actor: &Actor) -> Self {
        Self {
            image: actor.image.clone(),
            name: actor.name.clone(),
            description: actor.description.clone(),
            stateless: actor.stateless,
            kind: actor.kind.clone(),
            token: match actor.token {
                TokenSetting::Chosen(wanted) => Some(wanted),
                TokenSetting::Default(_) => None,
            },
            webhook: actor.webhook.clone(),
            link: actor.link.clone(),
            hints: actor.hints.clone(),
            privileged: actor.privileged,
            max_workers: actor.max_workers.map(i64::from),
            mem_limit: actor.mem_limit.clone(),
            max_cpus: actor.max_cpus.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
            use_container_uid: actor.use_container_uid,
            run_as_executor: actor.run_as_executor,
            default_environment: actor.default_environment.clone(),
            queue: actor.queue.clone(),
            log_ex: actor.log_ex,
            max_run_time: actor.max_run_time.map(i64::from),
            // None keeps the one that there is.
            cron_schedule: None,
            cron_on: actor.cron.on,
        }
    }

    /// Checks every attribute.
    pub(crate) fn validate(&self, caller: &Caller, config: &Config) -> Result<(), Error> {
        self.validate_beside(None, false, caller, config)
    }

    /// Checks every attribute of what an actor had `before`: what somebody may not
    /// set may stay. Where an actor has what makes its program the host's, that program
    /// stays too, and is not fetched anew by `force`.
    pub(crate) fn validate_beside(
        &self,
        before: Option<&Self>,
        force: bool,
        caller: &Caller,
        config: &Config,
    ) -> Result<(), Error> {
        self.check_image()?;
        self.check_restricted(before, force, caller)?;
        if let Some(name) = &self.name {
            check_text("name", name, 1_000)?;
        }
        check_text("description", &self.description, 100_000)?;
        check_text("type", &self.kind, 1_000)?;
        check_text("webhook", &self.webhook, 10_000)?;
        if !self.webhook.is_empty() && !is_web_address(&self.webhook) {
            return Err(Error::invalid("webhook", "must be an http:// or https:// address"));
        }
        check_text("link", &self.link, 1_000)?;
        if self.hints.len() > 100 {
            return Err(Error::invalid("hints", "at most 100 hints are kept"));
        }
        for hint in &self.hints {
            check_text("hints", hint, 1_000)?;
            if hint.contains(['"', '\'', '{', '}', '[', ']']) {
                return Err(Error::invalid("hints", "a hint has no quote, brace or bracket"));
            }
        }
        if self.max_workers.is_some() && !self.stateless {
            return Err(Error::invalid("max_workers", "stateful actors can only have 1 worker"));
        }
        if self.max_workers.is_some_and(|n| u32::try_from(n).is_err() || n < 1) {
            return Err(Error::invalid("max_workers", "must be a whole number from 1 on"));
        }
        if self.max_cpus.is_some_and(|n| n < 1) {
            return Err(Error::invalid("max_cpus", "must be at least 1 billionth of a CPU"));
        }
        if let Some(limit) = &self.mem_limit
            && parse_memory(limit).is_none()
        {
            return Err(Error::invalid(
                "mem_limit",
                "must be bytes, or a number with b, k, m or g",
            ));
        }
        if self.log_ex.is_some_and(|n| n < -1) {
            return Err(Error::invalid("log_ex", "must be seconds, or -1 for ever"));
        }
        if self.max_run_time.is_some_and(|n| u32::try_from(n).is_err() || n < 1) {
            return Err(Error::invalid("max_run_time", "must be whole seconds from 1 on"));
        }
        if self.run_as_executor && self.use_container_uid {
            let problem = "cannot be true together with use_container_uid";
            return Err(Error::invalid("run_as_executor", problem));
        }
        let is_new = before.is_none_or(|before| !before.run_as_executor);
        if self.run_as_executor && is_new && !config.knows_identities(&caller.tenant) {
            return Err(Error::invalid("run_as_executor", "isn't supported for your tenant"));
        }
        if !config.queues.contains(&self.queue) {
            return Err(Error::invalid("queue", "Invalid queue name."));
        }
        self.check_environment()
    }

    fn check_image(&self) -> Result<(), Error> {
        if self.image.is_empty() {
            return Err(Error::invalid("image", "an image reference is required"));
        }
        if self.image.len() > 512 || self.image.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(Error::invalid("image", "not an image reference"));
        }
        Ok(())
    }

    fn check_restricted(
        &self,
        before: Option<&Self>,
        force: bool,
        caller: &Caller,
    ) -> Result<(), Error> {
        if caller.may_set_restricted() {
            return Ok(());
        }
        let is_new = |same: fn(&Self, &Self) -> bool| before.is_none_or(|b| !same(b, self));
        for (attribute, set) in [
            ("privileged", self.privileged && is_new(|a, b| a.privileged == b.privileged)),
            (
                "max_workers",
                self.max_workers.is_some() && is_new(|a, b| a.max_workers == b.max_workers),
            ),
            ("max_cpus", self.max_cpus.is_some() && is_new(|a, b| a.max_cpus == b.max_cpus)),
            ("mem_limit", self.mem_limit.is_some() && is_new(|a, b| a.mem_limit == b.mem_limit)),
            ("queue", self.queue != "default" && is_new(|a, b| a.queue == b.queue)),
            (
                "use_container_uid",
                self.use_container_uid && is_new(|a, b| a.use_container_uid == b.use_container_uid),
            ),
        ] {
            if set {
                return Err(Error::Restricted { attribute });
            }
        }
        // What may stay was given to a program, not to whoever may change the actor.
        let runs_another = |before: &Self| {
            force
                || before.image != self.image
                || before.default_environment != self.default_environment
        };
        for (attribute, keeps) in
            [("privileged", self.privileged), ("use_container_uid", self.use_container_uid)]
        {
            if keeps && before.is_some_and(runs_another) {
                return Err(Error::Restricted { attribute });
            }
        }
        Ok(())
    }

    fn check_environment(&self) -> Result<(), Error> {
        const FIELD: &str = "default_environment";
        let Some(members) = self.default_environment.members_as_python() else {
            return Err(Error::invalid(FIELD, "must be an object of names and values"));
        };
        for (name, value) in &members {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Error::invalid(FIELD, format!("{name:?} is no variable name")));
            }
            if value.contains('\0') {
                return Err(Error::invalid(FIELD, format!("{name} holds a NUL character")));
            }
        }
        let actual_bytes: usize = members.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
        let limit_bytes = 100_000;
        if actual_bytes > limit_bytes {
            return Err(Error::TooLarge { what: "environment", limit_bytes, actual_bytes });
        }
        Ok(())
    }
}

/// What replaces an actor's settings: attributes not given fall back to their
/// defaults; owner, name and state stay.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorUpdate {
    /// The settings; `name` is ignored.
    pub settings: NewActor,
    /// Treat the image as a new one although its reference is the same.
    pub force: bool,
}

impl ActorUpdate {
    /// The image `image` with the defaults of Abaco, not forced.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self { settings: NewActor::new(image), force: false }
    }
}

/// What changes of an actor's settings, its name among them; all else stays.
#[derive(Clone)]
pub struct ActorChange {
    pub(crate) force: bool,
    change: Arc<dyn Fn(&mut NewActor) + Send + Sync>,
}

impl ActorChange {
    /// Changes to what the settings are when they are changed; may be asked for more
    /// than once.
    #[must_use]
    pub fn new(change: impl Fn(&mut NewActor) + Send + Sync + 'static) -> Self {
        Self { force: false, change: Arc::new(change) }
    }

    /// The same; with `force`, the image is treated as a new one although its
    /// reference is the same.
    #[must_use]
    pub fn forced(self, force: bool) -> Self {
        Self { force, ..self }
    }

    pub(crate) fn apply(&self, settings: &mut NewActor) {
        (self.change)(settings);
    }
}

impl fmt::Debug for ActorChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorChange").field("force", &self.force).finish_non_exhaustive()
    }
}

fn is_web_address(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn check_text(field: &str, text: &str, limit: usize) -> Result<(), Error> {
    if text.len() > limit {
        return Err(Error::invalid(field, format!("longer than {limit} bytes")));
    }
    if text.contains('\0') {
        return Err(Error::invalid(field, "holds a NUL character"));
    }
    Ok(())
}

/// Docker's memory sizes: bytes, or a number with `b`, `k`, `m` or `g` (binary).
pub(crate) fn parse_memory(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor)?,
        Some((whole, fraction)) => {
            let whole: u64 = whole.parse().ok()?;
            // Beyond a billionth of a terabyte nobody means it.
            let digits = fraction.get(..fraction.len().min(9))?;
            let part: u64 = digits.parse().ok()?;
            let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
            let part = u64::try_from(u128::from(part) * u128::from(factor) / scale).ok()?;
            whole.checked_mul(factor)?.checked_add(part)?
        }
    };
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission::Role;

    #[test]
    fn memory_is_written_as_for_docker() {
        for (text, bytes) in [
            ("512m", Some(512 << 20)),
            ("1g", Some(1 << 30)),
            ("1.5G", Some(3 << 29)),
            ("64M", Some(64 << 20)),
            ("1000", Some(1000)),
            ("10b", Some(10)),
            ("4kb", Some(4096)),
            ("0", None),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("1x", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
    }

    #[test]
    fn rests_grow_and_those_that_failed_meanwhile_do_not_count() {
        let mut now = Time::from_micros(1_800_000_000_000_000);
        let mut rest = None;
        for seconds in [5, 10, 20, 40, 60, 60] {
            let until = now.after(Duration::from_secs(seconds));
            let next = Rest::after(rest, now).unwrap();
            assert_eq!(next.until, until, "{seconds}");
            let meanwhile = now.after(Duration::from_secs(1));
            assert_eq!(Rest::after(Some(next), meanwhile), None);
            assert!(next.is_on(meanwhile) && !next.is_on(until));
            (rest, now) = (Some(next), until);
        }
    }

    #[test]
    fn an_actor_that_is_shutting_down_stays_so() {
        assert!(ActorStatus::ShuttingDown.next().is_empty());
        for status in ActorStatus::ALL {
            assert_eq!(ActorStatus::parse(status.as_str()), Some(status));
            assert!(!status.next().contains(&status), "{status}");
        }
    }

    #[test]
    fn bad_attributes_are_named() {
        let admin = Caller::new(Tenant::default(), "a", Role::Admin);
        let config = Config::sqlite("unused");
        let bad = |change: fn(&mut NewActor)| {
            let mut new = NewActor::new("busybox");
            change(&mut new);
            match new.validate(&admin, &config) {
                Err(Error::Invalid { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(bad(|n| n.image.clear()), "image");
        assert_eq!(bad(|n| n.image = "a b".into()), "image");
        assert_eq!(bad(|n| n.hints = vec!["it's".into()]), "hints");
        assert_eq!(bad(|n| n.queue = "nowhere".into()), "queue");
        assert_eq!(bad(|n| n.max_workers = Some(0)), "max_workers");
        assert_eq!(bad(|n| n.mem_limit = Some("much".into())), "mem_limit");
        assert_eq!(bad(|n| n.max_cpus = Some(-1)), "max_cpus");
        assert_eq!(bad(|n| n.log_ex = Some(-2)), "log_ex");
        assert_eq!(bad(|n| n.max_run_time = Some(0)), "max_run_time");
        assert_eq!(bad(|n| n.webhook = "ftp://host/".into()), "webhook");
        assert_eq!(
            bad(|n| n.default_environment = Json::parse("[]").unwrap()),
            "default_environment"
        );
        assert_eq!(bad(|n| (n.stateless, n.max_workers) = (false, Some(2))), "max_workers");
    }

    #[test]
    fn restricted_attributes_need_a_privileged_user() {
        let config = Config::sqlite("unused");
        let mut new = NewActor::new("busybox");
        new.mem_limit = Some("64m".into());
        for (role, may) in [(Role::User, false), (Role::Privileged, true), (Role::Admin, true)] {
            let caller = Caller::new(Tenant::default(), "u", role);
            assert_eq!(new.validate(&caller, &config).is_ok(), may, "{role:?}");
        }
    }
}
