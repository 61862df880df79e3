//! What a worker is told at its start.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Claim, HostId, Time};
use abax_runtime::cgroup::Limits;
use abax_runtime::network::Mode;
use abax_runtime::registry::RegistriesConfig;

/// Makes the access token that an execution gets. The keys stay with whoever
/// wires the process together.
#[derive(Clone)]
pub struct AccessTokens(Arc<Mint>);

type Mint = dyn Fn(&Claim, Time) -> Option<String> + Send + Sync;

impl AccessTokens {
    /// Tokens as `mint` makes them at a moment of the service's clock: for the owner
    /// of the claim's actor, bound to the claim; or none.
    #[must_use]
    pub fn new(mint: impl Fn(&Claim, Time) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(mint))
    }

    pub(crate) fn mint(&self, claim: &Claim, now: Time) -> Option<String> {
        (self.0)(claim, now)
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessTokens([redacted])")
    }
}

/// Settings of a worker; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The same each time this machine and state root start.
    pub name: String,
    /// What this process is known by from one registration to the next.
    pub id: HostId,
    /// Processes that are known to be dead, since this one holds the lock of the
    /// state root that was theirs: what they had claimed is given back at once.
    pub dead: Vec<HostId>,
    /// Where this machine is on the network; the address that it has towards others.
    pub address: Option<IpAddr>,
    /// How many executions run at once.
    pub slots: NonZeroUsize,
    /// What the memory limits of what runs here may add up to; what the machine has.
    pub memory_bytes: Option<u64>,
    /// What their CPU limits may add up to, in thousandths of a CPU; what the
    /// machine has.
    pub milli_cpus: Option<u64>,
    /// The classes whose actors run here; all that the service knows.
    pub classes: Option<Vec<String>>,
    /// Images that are made ready at the start, beside those of the actors that had
    /// executions within the last day; none.
    pub prepull: Vec<String>,
    /// How long a claim holds without being renewed; 30 s. After nine tenths of it
    /// the worker kills the container, whether it can reach the service or not.
    pub lease: Duration,
    /// How often claims are renewed; 10 s, a third of the lease.
    pub renew: Duration,
    /// How long a stop waits for what runs; 30 s. What runs longer is given
    /// back to the queue.
    pub drain: Duration,
    /// How long a container that is halted, or has run for too long, may take to end by
    /// itself after it was asked; 10 s.
    pub stop_grace: Duration,
    /// The longest an execution may run; no limit.
    pub time_limit: Option<Duration>,
    /// Limits of executions, where the actor sets none of its own; none, since each
    /// that is set makes a start slower on cgroup v1.
    pub limits: Limits,
    /// How much output is kept of one execution; 1,000,000 bytes.
    pub log_limit_bytes: u64,
    /// Where images come from.
    pub registries: RegistriesConfig,
    /// The network of executions.
    pub network: Mode,
    /// Access tokens for actors that ask for them.
    pub access_tokens: Option<AccessTokens>,
}

impl Config {
    /// The defaults for a worker called `name`, on `network`.
    #[must_use]
    pub fn new(name: impl Into<String>, slots: NonZeroUsize, network: Mode) -> Self {
        Self {
            name: name.into(),
            id: HostId::generate(),
            dead: Vec::new(),
            address: None,
            slots,
            memory_bytes: None,
            milli_cpus: None,
            classes: None,
            prepull: Vec::new(),
            lease: Duration::from_secs(30),
            renew: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
            time_limit: None,
            limits: Limits::default(),
            log_limit_bytes: 1_000_000,
            registries: RegistriesConfig::default(),
            network,
            access_tokens: None,
        }
    }
}
