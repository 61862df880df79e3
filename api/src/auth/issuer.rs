//! Those beside this service whose tokens are taken: for which tenants, and how to
//! read what their tokens say.

use std::collections::BTreeSet;
use std::time::Duration;

use abax_actors::{Caller, Role, Tenant, Time};

use super::jwt::Claims;
use super::public_key::PublicKey;
use super::{LEEWAY, role_of};

/// Somebody whose tokens are taken beside our own.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What error messages and logs call it.
    pub name: String,
    /// The tenants that it may speak for. A token that names another does not hold.
    pub tenants: Tenants,
    /// The tenants for whose users its service tokens may act; those above where not given.
    pub service_tenants: Option<Tenants>,
    /// What its tokens have as `iss`; where not given, they may have any.
    pub iss: Option<String>,
    /// What its tokens must have as `aud`; where not given, they must have none.
    pub audience: Option<String>,
    /// The keys that its tokens are signed with, by RS256.
    pub keys: KeySource,
    /// Whether it is a gateway of long ago: its tokens come in the header
    /// `X-JWT-Assertion-TENANT` alone, whose name says the tenant; they may be written
    /// in plain base64, and say in milliseconds when they end, which is never.
    pub legacy: bool,
    /// The claim that names the user.
    pub user_claim: Option<String>,
    /// The claim that names the tenant; not for legacy tokens.
    pub tenant_claim: Option<String>,
    /// The claim that lists the user's roles.
    pub roles_claim: Option<String>,
    /// The role without which there is no access, beside those that mean more.
    pub required_role: Option<String>,
    /// Users who are admins, whatever their tokens say.
    pub admins: BTreeSet<String>,
    /// Users who are privileged, whatever their tokens say.
    pub privileged: BTreeSet<String>,
}

/// Which tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Whichever a token names.
    Any,
    /// These.
    These(BTreeSet<String>),
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// Here.
    Known(Vec<PublicKey>),
    /// At an address that answers with a key set (RFC 7517).
    Set {
        /// The address.
        url: String,
        /// How old the set may be before it is fetched again.
        fresh_for: Duration,
    },
}

/// For whom a service token acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnBehalf<'a> {
    pub(super) user: &'a str,
    pub(super) tenant: &'a str,
}

/// What the claims of gateways are called.
const GATEWAY_USER: &str = "http://wso2.org/claims/enduser";
const GATEWAY_ROLES: &str = "http://wso2.org/claims/role";
/// What somebody has whose gateway names no roles.
const EVERYONE: &str = "Internal/everyone";
/// Roles that give access wherever one is required.
const KNOWN_ROLES: [&str; 3] =
    ["Internal/abaco-limited", "Internal/abaco-user", "Internal/abaco-privileged"];
/// The entry for everybody in permissions, which no user may be called.
const EVERYBODY: &str = "ABACO_WORLD";
/// A time as large as that is of milliseconds, or of the year 5000.
const NO_SECONDS: f64 = 1e11;

impl Issuer {
    /// An issuer called `name` for `tenants`, whose tokens are signed with `keys`.
    #[must_use]
    pub fn new(name: impl Into<String>, tenants: Tenants, keys: KeySource) -> Self {
        Self {
            name: name.into(),
            tenants,
            service_tenants: None,
            iss: None,
            audience: None,
            keys,
            legacy: false,
            user_claim: None,
            tenant_claim: None,
            roles_claim: None,
            required_role: None,
            admins: BTreeSet::new(),
            privileged: BTreeSet::new(),
        }
    }

    /// What cannot work of it, if anything.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if matches!(&self.tenants, Tenants::These(names) if names.is_empty()) {
            return Some("it has no tenants, so that no token of it would hold");
        }
        match &self.keys {
            KeySource::Known(keys) if keys.is_empty() => Some("it has no keys"),
            KeySource::Set { .. } if self.legacy => Some("legacy keys come from a file"),
            KeySource::Set { fresh_for, .. } if fresh_for.is_zero() => {
                Some("its keys would be fetched for each request")
            }
            _ => None,
        }
    }

    /// The tenant that `claims` name, where they must.
    pub(super) fn tenant_in<'a>(&'a self, claims: &'a Claims) -> Option<&'a str> {
        match (&self.tenant_claim, &self.tenants) {
            (Some(claim), _) => claims.text(claim),
            (None, tenants) => claims
                .text("tapis/tenant_id")
                .or_else(|| claims.text("tenant"))
                .or_else(|| tenants.only()),
        }
    }

    /// Who the bearer of a token with these claims is, in `tenant`; its signature holds.
    ///
    /// # Errors
    ///
    /// Why that is nobody.
    pub(super) fn caller(
        &self,
        claims: &Claims,
        tenant: &str,
        on_behalf: Option<OnBehalf<'_>>,
    ) -> Result<Caller, Unfit> {
        self.check_audience(claims)?;
        if claims.text("tapis/token_type").is_some_and(|kind| kind != "access") {
            return Err(Unfit::Token("it is no access token"));
        }
        let is_service = claims.text("tapis/account_type") == Some("service");
        match (is_service, on_behalf) {
            (true, None) => Err(Unfit::Token(
                "a service's must come with the headers X-Tapis-User and X-Tapis-Tenant",
            )),
            (false, Some(_)) => Err(Unfit::Token(
                "X-Tapis-User and X-Tapis-Tenant are for service tokens, and this is a user's",
            )),
            (true, Some(OnBehalf { user, tenant })) => {
                if !self.service_tenants.as_ref().unwrap_or(&self.tenants).have(tenant) {
                    return Err(Unfit::Token("it may not act for users of that tenant"));
                }
                // Its roles are the service's, not those of whom it acts for.
                self.named(tenant, user, Role::User)
            }
            (false, None) => {
                let role = self.role(claims)?;
                self.named(tenant, self.user(claims).unwrap_or_default(), role)
            }
        }
    }

    fn named(&self, tenant: &str, user: &str, role: Role) -> Result<Caller, Unfit> {
        if user.is_empty() {
            return Err(Unfit::Token("it names no user"));
        }
        if user.len() > 256 || user.chars().any(char::is_control) || user == EVERYBODY {
            return Err(Unfit::Token("nobody may be called what it calls its user"));
        }
        let of_tenant = format!("{tenant}/{user}");
        let stands_in = |names: &BTreeSet<String>| {
            // Nobody's name is the name of somebody in a tenant.
            !user.contains('/') && (names.contains(user) || names.contains(&of_tenant))
        };
        let given = match (stands_in(&self.admins), stands_in(&self.privileged)) {
            (true, _) => Role::Admin,
            (false, true) => Role::Privileged,
            (false, false) => Role::User,
        };
        Ok(Caller::new(Tenant::new(tenant), user, role.max(given)))
    }

    fn user<'a>(&self, claims: &'a Claims) -> Option<&'a str> {
        let claim = |name: &str| claims.text(name);
        match (&self.user_claim, self.legacy) {
            (Some(name), false) => claim(name),
            (None, false) => claim("tapis/username").or_else(|| claim("sub")),
            // `user@tenant`, of which the user is the first part.
            (name, true) => claim(name.as_deref().unwrap_or(GATEWAY_USER))?.split('@').next(),
        }
    }

    fn role(&self, claims: &Claims) -> Result<Role, Unfit> {
        let default = if self.legacy { GATEWAY_ROLES } else { "roles" };
        let claim = self.roles_claim.as_deref().unwrap_or(default);
        let roles = match claims.has(claim) {
            true => claims.texts(claim),
            false if self.legacy => vec![EVERYONE],
            false => Vec::new(),
        };
        // What is called admin elsewhere need not be one here.
        let ours = |role: &&str| role.starts_with("Internal/abaco-") || role.starts_with("abaco_");
        let role = roles.iter().copied().filter(ours).map(role_of).max().unwrap_or(Role::User);
        let required = match &self.required_role {
            Some(required) => Some(required.as_str()),
            None => self.legacy.then_some(EVERYONE),
        };
        let has_it = required.is_none_or(|required| {
            role > Role::User
                || roles.iter().any(|role| *role == required || KNOWN_ROLES.contains(role))
        });
        if has_it { Ok(role) } else { Err(Unfit::NoRole) }
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), Unfit> {
        if self.legacy {
            return Ok(());
        }
        let holds = match &self.audience {
            Some(audience) => claims.one_or_more("aud").contains(&audience.as_str()),
            None => !claims.has("aud"),
        };
        if holds { Ok(()) } else { Err(Unfit::Token("it is for another audience")) }
    }

    /// Whether `claims` hold at `now`; where not, when they ended.
    ///
    /// # Errors
    ///
    /// What is wrong with its times.
    pub(super) fn check_times(&self, claims: &Claims, now: Time) -> Result<(), BadTime> {
        let end =
            claims.seconds("exp").ok_or(BadTime::Unreadable("it does not say when it ends"))?;
        if !self.legacy && end >= NO_SECONDS {
            return Err(BadTime::Unreadable("it does not say in seconds when it ends"));
        }
        let (now, leeway) = (seconds(now), LEEWAY.as_secs_f64());
        // What old gateways say is of milliseconds, and so never over.
        if now >= end + leeway {
            return Err(BadTime::Over(end));
        }
        if !self.legacy && claims.seconds("nbf").is_some_and(|start| now + leeway < start) {
            return Err(BadTime::Unreadable("it does not hold yet"));
        }
        Ok(())
    }
}

/// Why a token is of no use, though its signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It says something that does not hold here.
    Token(&'static str),
    /// Its user may not use the service.
    NoRole,
}

/// Why a token does not hold now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum BadTime {
    /// It ended that many seconds after 1970.
    Over(f64),
    Unreadable(&'static str),
}

#[expect(clippy::cast_precision_loss, reason = "nobody asks for less than a millisecond")]
fn seconds(time: Time) -> f64 {
    time.micros() as f64 / 1e6
}

impl Tenants {
    /// Those that are named.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Any => None,
            Self::These(names) => Some(names),
        };
        names.into_iter().flatten().map(String::as_str)
    }

    /// Whether `tenant` is one of them.
    pub(super) fn have(&self, tenant: &str) -> bool {
        match self {
            Self::Any => is_name(tenant),
            Self::These(names) => names.contains(tenant),
        }
    }

    /// The one that the name of a header means: there, there are no cases, and `_` is `-`.
    pub(super) fn of_header(&self, header: &str) -> Option<String> {
        match self {
            Self::Any => {
                let name = header.to_ascii_uppercase();
                is_name(&name).then_some(name)
            }
            Self::These(names) => {
                names.iter().find(|name| super::normal(name) == super::normal(header)).cloned()
            }
        }
    }

    fn only(&self) -> Option<&str> {
        match self {
            Self::These(names) if names.len() == 1 => names.first().map(String::as_str),
            _ => None,
        }
    }
}

/// Whether a tenant may be called `text`.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
