//! Tokens of others: whose a token may be, whether its signature is theirs, and who
//! its bearer is.
//!
//! An issuer is asked only for tenants that it may speak for, and only its own keys
//! count then. The algorithm is ours to choose (RS256), never the token's.

use abax_actors::{Caller, Time};

use super::issuer::{BadTime, Issuer, KeySource, OnBehalf, Unfit};
use super::jwt::{Encoding, Token};
use super::key_set::KeySet;
use super::public_key::PublicKey;
use crate::config::ConfigError;

/// All whose tokens are taken beside our own.
#[derive(Debug, Default)]
pub(crate) struct Issuers(Vec<Known>);

#[derive(Debug)]
struct Known {
    issuer: Issuer,
    /// Where its keys are not in its settings.
    set: Option<KeySet>,
}

/// How a token came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// In a header whose own name says the tenant, if not quite in its letters.
    Assertion { tenant: &'a str },
    /// In any other; a service says for whom it acts.
    Plain { on_behalf: Option<OnBehalf<'a>> },
}

/// Why nobody is known by a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{problem}")]
    NoToken { problem: &'static str },
    #[error("no issuer that is known here vouches for the tenant that it names")]
    NoIssuer,
    #[error("the token is not one of {issuer}'s: {problem}")]
    Invalid { issuer: String, problem: &'static str },
    #[error("the token expired at {at}, and it is {now}; get a new one from {issuer}")]
    Expired { issuer: String, at: String, now: String },
    #[error("missing required role")]
    NoRole,
    #[error("the keys of {issuer} cannot be had at the moment; try again in a few seconds")]
    NoKeys { issuer: String },
}

impl Refusal {
    /// How much it tells: of several issuers that refuse a token, the one that knew
    /// its signature is right.
    fn weight(&self) -> u8 {
        match self {
            Self::NoToken { .. } | Self::NoIssuer => 0,
            Self::Invalid { problem: SIGNATURE, .. } => 1,
            Self::NoKeys { .. } => 2,
            Self::Invalid { .. } | Self::Expired { .. } | Self::NoRole => 3,
        }
    }
}

const SIGNATURE: &str = "its signature does not fit";

impl Issuers {
    /// Those of the settings; certificates of `ca_pem` are trusted beside the system's.
    ///
    /// # Errors
    ///
    /// The first that cannot work.
    pub(crate) fn new(issuers: &[Issuer], ca_pem: Option<&[u8]>) -> Result<Self, ConfigError> {
        let known = issuers.iter().map(|issuer| {
            let wrong =
                |problem: String| ConfigError::Issuer { name: issuer.name.clone(), problem };
            if let Some(problem) = issuer.problem() {
                return Err(wrong(problem.to_owned()));
            }
            let set = match &issuer.keys {
                KeySource::Known(_) => None,
                KeySource::Set { url, fresh_for } => {
                    Some(KeySet::new(url, *fresh_for, ca_pem).map_err(wrong)?)
                }
            };
            Ok(Known { issuer: issuer.clone(), set })
        });
        known.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a token may be one of theirs rather than ours, which are signed with
    /// another algorithm.
    pub(super) fn may_know(&self, token: &str) -> bool {
        !self.0.is_empty()
            && Token::parse(token, Encoding::Lax).is_ok_and(|token| token.algorithm != "HS256")
    }

    /// The tenants that they speak for, as far as these are named.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|known| known.issuer.tenants.names())
    }

    /// The public key of whoever speaks for `tenant`, in PEM, if it is known already.
    pub(crate) fn public_key_of(&self, tenant: &str) -> Option<String> {
        self.0.iter().filter(|known| known.issuer.tenants.have(tenant)).find_map(|known| {
            match (&known.issuer.keys, &known.set) {
                (KeySource::Known(keys), _) => keys.first().map(PublicKey::pem),
                (_, Some(set)) => set.known_keys().first().map(PublicKey::pem),
                (_, None) => None,
            }
        })
    }

    /// Who the bearer of `token` is, when it is `now`.
    ///
    /// # Errors
    ///
    /// [`Refusal`], the one of several that tells most.
    pub(super) async fn verify(
        &self,
        token: &str,
        way: Way<'_>,
        now: Time,
    ) -> Result<Caller, Refusal> {
        let mut refusal = Refusal::NoIssuer;
        for known in &self.0 {
            let answer = match known.candidate(token, way) {
                Ok(Some((token, tenant))) => known.verify(&token, &tenant, way, now).await,
                Ok(None) => continue,
                Err(problem) => Err(Refusal::NoToken { problem }),
            };
            match answer {
                Ok(caller) => return Ok(caller),
                Err(other) if other.weight() > refusal.weight() => refusal = other,
                Err(other @ Refusal::NoToken { .. }) if refusal == Refusal::NoIssuer => {
                    refusal = other;
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

impl Known {
    /// The token and its tenant, if it may be one of this issuer's.
    ///
    /// # Errors
    ///
    /// What gives it away as no token at all.
    fn candidate<'a>(
        &self,
        text: &'a str,
        way: Way<'_>,
    ) -> Result<Option<(Token<'a>, String)>, &'static str> {
        let issuer = &self.issuer;
        if issuer.legacy && !matches!(way, Way::Assertion { .. }) {
            return Ok(None);
        }
        let encoding = if issuer.legacy { Encoding::Lax } else { Encoding::Standard };
        let token = Token::parse(text, encoding)?;
        if issuer.iss.is_some() && token.claims.text("iss") != issuer.iss.as_deref() {
            return Ok(None);
        }
        let tenant = match way {
            // What else the token says is of no interest.
            Way::Assertion { tenant } if issuer.legacy => issuer.tenants.of_header(tenant),
            Way::Assertion { tenant } => issuer
                .tenant_in(&token.claims)
                .filter(|named| super::normal(named) == super::normal(tenant))
                .map(str::to_owned),
            Way::Plain { .. } => issuer.tenant_in(&token.claims).map(str::to_owned),
        };
        Ok(tenant.filter(|tenant| issuer.tenants.have(tenant)).map(|tenant| (token, tenant)))
    }

    async fn verify(
        &self,
        token: &Token<'_>,
        tenant: &str,
        way: Way<'_>,
        now: Time,
    ) -> Result<Caller, Refusal> {
        let name = || self.issuer.name.clone();
        let invalid = |problem| Refusal::Invalid { issuer: name(), problem };
        let is_rs256 = match token.algorithm.as_str() {
            "RS256" => true,
            // As Java calls it.
            other => self.issuer.legacy && other.eq_ignore_ascii_case("SHA256withRSA"),
        };
        if !is_rs256 {
            return Err(invalid("it is not signed with RS256"));
        }
        let id = token.key.as_deref();
        let verifies = |keys: &[PublicKey]| {
            keys.iter()
                .filter(|key| key.may_be(id))
                .any(|key| key.verifies(token.signed, &token.signature))
        };
        let is_theirs = match (&self.issuer.keys, &self.set) {
            (KeySource::Known(keys), _) => verifies(keys),
            (_, Some(set)) => {
                let keys = set.keys(id, now).await;
                verifies(&keys.ok_or_else(|| Refusal::NoKeys { issuer: name() })?)
            }
            (_, None) => false,
        };
        if !is_theirs {
            return Err(invalid(SIGNATURE));
        }
        self.issuer.check_times(&token.claims, now).map_err(|bad| match bad {
            BadTime::Unreadable(problem) => invalid(problem),
            BadTime::Over(seconds) => {
                let since_1970 =
                    std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
                let at = Time::from_micros(0).after(since_1970);
                let (at, now) = (at.iso_millis(), now.iso_millis());
                Refusal::Expired { issuer: name(), at, now }
            }
        })?;
        let on_behalf = match way {
            Way::Plain { on_behalf } => on_behalf,
            Way::Assertion { .. } => None,
        };
        self.issuer.caller(&token.claims, tenant, on_behalf).map_err(|unfit| match unfit {
            Unfit::Token(problem) => invalid(problem),
            Unfit::NoRole => Refusal::NoRole,
        })
    }
}
