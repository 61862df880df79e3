//! Events on their way to webhooks: an HTTP POST each, signed, and only to where
//! anybody may send one.
//!
//! The signature is that of the Standard Webhooks specification: the headers
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`, over
//! `ID.TIMESTAMP.BODY`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use abax_actors::{ActorId, Chain, DueWebhook, EventDelivery, Service, WebhookAnswer};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, Url, redirect};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::App;
use crate::auth::Keys;

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that are taken at once; those of one actor, at most ten, take their
/// patience one after the other, and that is less than they are ours for.
const TAKEN_AT_ONCE: u32 = 20;
/// Actors whose events are on their way at the same time.
const ACTORS_AT_ONCE: usize = 64;

/// Posts events to webhooks until `stop`, in any number of processes. What is
/// under way then is posted again by another process, or by the next.
pub(crate) async fn deliver(app: App, stop: CancellationToken) {
    let post = match Post::new(&app) {
        Ok(post) => Arc::new(post),
        Err(error) => {
            error!(error = %Chain(&error), "could not make a client for webhooks: none is called");
            return;
        }
    };
    let service = app.service().clone();
    let mut on_their_way = JoinSet::new();
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        while on_their_way.len() >= ACTORS_AT_ONCE {
            tokio::select! {
                () = &mut stopped => return,
                _ = on_their_way.join_next() => {}
            }
        }
        while on_their_way.try_join_next().is_some() {}
        let due = tokio::select! {
            () = &mut stopped => return,
            due = service.due_webhooks(TAKEN_AT_ONCE) => due,
        };
        let due = due.unwrap_or_else(|error| {
            debug!(error = %Chain(&error), "could not look for webhooks to call");
            Vec::new()
        });
        let none = due.is_empty();
        let mut by_actor: BTreeMap<ActorId, Vec<DueWebhook>> = BTreeMap::new();
        for due in due {
            by_actor.entry(due.delivery.actor.clone()).or_default().push(due);
        }
        for events in by_actor.into_values() {
            on_their_way.spawn(Arc::clone(&post).in_order(events, service.clone()));
        }
        if none {
            tokio::select! {
                () = &mut stopped => return,
                () = service.may_have_webhooks() => {}
                // There may be more of the actor that this was of.
                Some(_) = on_their_way.join_next() => {}
            }
        }
    }
}

/// What events are posted with.
struct Post {
    /// Reaches public addresses, and the networks that the operator allows.
    outside: Client,
    /// Reaches any address: for our own, which users reach anyway.
    own: Client,
    /// Scheme, host and port of what is our own.
    own_origins: Vec<Origin>,
    allowed: Arc<[IpNet]>,
    keys: Keys,
}

/// Scheme, host and port of an address.
type Origin = (String, String, u16);

fn origin(url: &Url) -> Option<Origin> {
    Some((url.scheme().to_owned(), url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// An address that is not called, in words for the owner.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} is at {address}, which is no public address; an operator may allow it in \
         `api.webhook_networks`"
)]
struct NotPublic {
    host: String,
    address: IpAddr,
}

impl Post {
    fn new(app: &App) -> Result<Self, reqwest::Error> {
        let allowed: Arc<[IpNet]> = app.config().webhook_networks.clone().into();
        // A redirect would lead past the checks, and a proxy would not know them.
        let builder = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .timeout(PATIENCE)
                .pool_max_idle_per_host(1)
        };
        let resolver = Arc::new(PublicOnly { allowed: Arc::clone(&allowed) });
        let of_domain = app.service().config();
        let of_tenants = of_domain.tenants.iter().map(|(_, settings)| settings.api_server.clone());
        let own_servers = [app.config().api_server.clone(), Some(of_domain.api_server.clone())]
            .into_iter()
            .chain(of_tenants);
        Ok(Self {
            outside: builder().dns_resolver(resolver).build()?,
            own: builder().build()?,
            own_origins: own_servers
                .flatten()
                .filter_map(|server| origin(&Url::parse(&server).ok()?))
                .collect(),
            allowed,
            keys: app.keys().clone(),
        })
    }

    /// Posts events of one actor one after the other, for as long as they are ours.
    async fn in_order(self: Arc<Self>, events: Vec<DueWebhook>, service: Service) {
        let mut events = events.into_iter();
        while let Some(event) = events.next() {
            if service.clock().now().after(PATIENCE) > event.until {
                return;
            }
            let answer = self.post(&event, &service).await;
            let EventDelivery { id, actor, attempts, .. } = &event.delivery;
            let silent = matches!(answer, WebhookAnswer::NotNow { status: None, .. });
            match &answer {
                WebhookAnswer::Taken(status) => {
                    debug!(actor.id = %actor, status, "event {id} taken by its webhook");
                }
                WebhookAnswer::NotNow { error, .. } | WebhookAnswer::Never { error } => {
                    info!(actor.id = %actor, attempts, error, "event {id} not taken by its webhook");
                }
            }
            if let Err(error) = service.webhook_answered(&event.delivery, answer).await {
                // It is posted again.
                warn!(error = %Chain(&error), "could not note what became of event {id}");
            }
            if silent {
                let rest: Vec<EventDelivery> = events.map(|event| event.delivery).collect();
                if let Err(error) = service.webhook_is_silent(actor, &rest).await {
                    warn!(error = %Chain(&error), "could not put off the events of actor {actor}");
                }
                return;
            }
        }
    }

    async fn post(&self, event: &DueWebhook, service: &Service) -> WebhookAnswer {
        let never = |error: String| WebhookAnswer::Never { error };
        let url = match Url::parse(&event.delivery.target) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ => return never("the webhook is no http:// or https:// address".to_owned()),
        };
        let is_own = origin(&url).is_some_and(|origin| self.own_origins.contains(&origin));
        if !is_own && let Err(error) = self.check_literal(&url) {
            return never(error.to_string());
        }
        let client = if is_own { &self.own } else { &self.outside };
        let id = event.delivery.id.as_str();
        let timestamp = service.clock().now().micros().div_euclid(1_000_000);
        let EventDelivery { tenant, actor, .. } = &event.delivery;
        let secret = self.keys.webhook_secret(tenant.as_str(), actor.as_str());
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("abax/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", secret.signature(id, timestamp, &event.body))
            .body(event.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                WebhookAnswer::Taken(answer.status().as_u16())
            }
            Ok(answer) => WebhookAnswer::NotNow {
                status: Some(answer.status().as_u16()),
                error: format!("it answered {}", answer.status()),
            },
            // The address may hold a secret, so it is not in the text.
            Err(error) => {
                let error = error.without_url();
                match not_public(&error) {
                    Some(refused) => never(refused.to_string()),
                    None => {
                        WebhookAnswer::NotNow { status: None, error: Chain(&error).to_string() }
                    }
                }
            }
        }
    }

    /// Addresses that stand in the URL are not looked up, so they are checked here.
    fn check_literal(&self, url: &Url) -> Result<(), NotPublic> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !may_be_called(address, &self.allowed) => {
                Err(NotPublic { host: host.to_owned(), address })
            }
            _ => Ok(()),
        }
    }
}

/// Looks names up and gives those addresses that may be called. The connection
/// goes to one of them, so that a name cannot mean another address by then.
struct PublicOnly {
    allowed: Arc<[IpNet]>,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let first = found.first().map(SocketAddr::ip);
            let public: Vec<SocketAddr> =
                found.into_iter().filter(|at| may_be_called(at.ip(), &allowed)).collect();
            match (public.is_empty(), first) {
                (true, Some(address)) => Err(NotPublic { host, address }.into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

fn not_public(error: &reqwest::Error) -> Option<&NotPublic> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

/// Whether a stranger may have us call this address.
fn may_be_called(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|network| network.contains(&address)) || is_public(address)
}

/// Whether the address is one of the public internet. IPv6 addresses that carry
/// one of IPv4 count as none.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_reserved = matches!(
                (a, b, c),
                (0, ..)
                    | (100, 64..=127, _)
                    | (192, 0, 0)
                    | (192, 88, 99)
                    | (198, 18..=19, _)
                    | (240.., ..)
            );
            !(is_reserved
                || v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || v4 == Ipv4Addr::BROADCAST)
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            let is_global = a & 0xe000 == 0x2000;
            // Protocol assignments with Teredo, documentation, 6to4.
            let is_special =
                (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x2002 || a == 0x3fff;
            is_global && !is_special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        for (address, public) in [
            ("93.184.215.14", true),
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("192.0.0.8", false),
            ("198.18.0.1", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001:0:7f00:1::", false),
            ("2001:db8::1", false),
            ("fc00::1", false),
            ("fd12::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(may_be_called(address, &[]), public, "{address}");
        }
        let allowed = ["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()];
        for (address, may) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("::1", true), ("10.2.0.1", false)]
        {
            assert_eq!(may_be_called(address.parse().unwrap(), &allowed), may, "{address}");
        }
    }
}
