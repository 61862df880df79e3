//! Who is asking: tokens, and the extractor that reads them.
//!
//! A token is a JWT: our own, signed with HS256 under this service's key, or one of an
//! [`Issuer`] that the operator trusts, signed with RS256. Whichever header carries
//! it, the token alone says who the caller is. It holds by the clock of the service,
//! which all its processes share, not by that of a machine. Where there is none that
//! holds, a nonce may ([`crate::nonce`]).

mod jwt;
mod public_key;

mod issuer;
mod issuers;
mod key_set;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use abax_actors::{Caller, ClaimKey, ExecutionId, Role, Tenant, Time};
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use issuer::{Issuer, KeySource, Tenants};
pub(crate) use issuers::Issuers;
pub use public_key::{NotAKey, PublicKey, Strength};

use crate::App;
use crate::bodies::Sender;
use crate::edge::Asking;
use crate::error::{ApiError, Meaning};
use crate::nonce;
use issuer::OnBehalf;
use issuers::{Refusal, Way};

/// How far the clock of whoever made a token may be behind the service's.
const LEEWAY: Duration = Duration::from_secs(30);
/// What a key must have at least: the length of the hash that it keys, RFC 7518 §3.2.
const SHORTEST_KEY: usize = 32;

/// The key that signs and verifies tokens. Clones share it; `Debug` does not show it.
#[derive(Clone)]
pub struct Keys {
    signing: Arc<EncodingKey>,
    verifying: Arc<DecodingKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

/// The key has too few bytes to be safe.
#[derive(Debug, thiserror::Error)]
#[error("the signing key has {actual} bytes; it needs at least {SHORTEST_KEY} random ones")]
pub struct KeyTooShort {
    actual: usize,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// The user.
    sub: String,
    tenant: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Seconds since the epoch, as are all times of RFC 7519.
    iat: i64,
    exp: i64,
    /// The execution that the token was made for, and which claim of it.
    #[serde(rename = "abax/execution", default, skip_serializing_if = "Option::is_none")]
    execution: Option<String>,
    #[serde(rename = "abax/epoch", default, skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
}

/// Why a token does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a JWT, not ours, or changed on the way.
    #[error("the token is not one of this service's: {problem}; get a new one with `abax token`")]
    Invalid {
        /// What gives it away.
        problem: &'static str,
    },
    /// It held until then.
    #[error("the token expired at {at}, and it is {now}; get a new one with `abax token`")]
    Expired {
        /// When that was.
        at: String,
        /// What the time is for the service.
        now: String,
    },
}

impl Keys {
    /// Keys made of `secret`.
    ///
    /// # Errors
    ///
    /// Fewer than 32 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, KeyTooShort> {
        if secret.len() < SHORTEST_KEY {
            return Err(KeyTooShort { actual: secret.len() });
        }
        Ok(Self {
            signing: Arc::new(EncodingKey::from_secret(secret)),
            verifying: Arc::new(DecodingKey::from_secret(secret)),
        })
    }

    /// A token for `user` of `tenant` that holds for `lifetime` from `now` on.
    ///
    /// Of the roles, `admin` and `privileged` (and Abaco's names for them) mean something.
    ///
    /// # Panics
    ///
    /// Never: texts and integers always serialize, and HMAC takes a key of any length.
    pub fn mint<R: AsRef<str>>(
        &self,
        user: &str,
        tenant: &str,
        roles: &[R],
        now: Time,
        lifetime: Duration,
    ) -> SecretString {
        let roles = roles.iter().map(|role| role.as_ref().to_owned()).collect();
        self.sign(Claims::new(user, tenant, roles, now, lifetime))
    }

    /// A token for an execution of an actor of `user`'s, as long as it runs under
    /// `claim`: the service tells its writes from those of other attempts by it.
    ///
    /// # Panics
    ///
    /// Never, as [`Keys::mint`].
    pub fn mint_for(
        &self,
        claim: &ClaimKey,
        user: &str,
        tenant: &str,
        now: Time,
        lifetime: Duration,
    ) -> SecretString {
        self.sign(Claims {
            execution: Some(claim.execution.to_string()),
            epoch: Some(claim.epoch),
            ..Claims::new(user, tenant, Vec::new(), now, lifetime)
        })
    }

    fn sign(&self, claims: Claims) -> SecretString {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .expect("claims serialize, and HMAC takes a key of any length")
            .into()
    }

    /// The key that signs what the webhook of an actor gets.
    pub(crate) fn webhook_secret(&self, tenant: &str, actor: &str) -> WebhookSecret {
        // No token's text has such characters, so none is signed like this.
        let name = format!("abax webhook\0{tenant}\0{actor}");
        WebhookSecret(keyed_hash(&self.signing, name.as_bytes()))
    }

    /// The caller that `token` names, when it is `now`.
    ///
    /// # Errors
    ///
    /// [`TokenError`]: not ours, or no longer.
    pub fn verify(&self, token: &str, now: Time) -> Result<Caller, TokenError> {
        let invalid = |problem| TokenError::Invalid { problem };
        if token.len() > jwt::LONGEST {
            return Err(invalid("too long"));
        }
        // The algorithm is ours to choose, never the token's.
        let mut validation = Validation::new(Algorithm::HS256);
        // Checked below, by the service's clock and with the time in the message.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation)
            .map_err(|error| invalid(problem(error.kind())))?
            .claims;
        let end = Time::from_micros(claims.exp.saturating_mul(1_000_000));
        if now >= end.after(LEEWAY) {
            return Err(TokenError::Expired { at: end.iso_millis(), now: now.iso_millis() });
        }
        if claims.sub.is_empty() || claims.tenant.is_empty() {
            return Err(invalid("it names no user or no tenant"));
        }
        let role = claims.roles.iter().map(|role| role_of(role)).max().unwrap_or(Role::User);
        let caller = Caller::new(Tenant::new(claims.tenant), claims.sub, role);
        match (claims.execution.as_deref().map(ExecutionId::parse), claims.epoch) {
            (None, None) => Ok(caller),
            (Some(Some(execution)), Some(epoch)) => Ok(caller.by(ClaimKey { execution, epoch })),
            _ => Err(invalid("it names no claim of an execution")),
        }
    }
}

impl Claims {
    fn new(user: &str, tenant: &str, roles: Vec<String>, now: Time, lifetime: Duration) -> Self {
        let seconds = |time: Time| time.micros().div_euclid(1_000_000);
        Self {
            sub: user.to_owned(),
            tenant: tenant.to_owned(),
            roles,
            iat: seconds(now),
            exp: seconds(now.after(lifetime)),
            execution: None,
            epoch: None,
        }
    }
}

/// The key that one actor's events are signed with, so that their receiver knows
/// whom they are from.
pub(crate) struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// As its receivers are told, in the form of the Standard Webhooks specification.
    pub(crate) fn encoded(&self) -> SecretString {
        format!("whsec_{}", STANDARD.encode(&self.0)).into()
    }

    /// What the header `webhook-signature` holds.
    pub(crate) fn signature(&self, id: &str, timestamp: i64, body: &str) -> String {
        let signed = format!("{id}.{timestamp}.{body}");
        let hash = keyed_hash(&EncodingKey::from_secret(&self.0), signed.as_bytes());
        format!("v1,{}", STANDARD.encode(hash))
    }
}

/// HMAC-SHA-256.
fn keyed_hash(key: &EncodingKey, text: &[u8]) -> Vec<u8> {
    let encoded = jsonwebtoken::crypto::sign(text, key, Algorithm::HS256)
        .expect("HMAC takes a key of any length");
    URL_SAFE_NO_PAD.decode(encoded).expect("it was just encoded so")
}

fn problem(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;

    match kind {
        ErrorKind::InvalidSignature => "its signature does not fit",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "it is not signed with HS256"
        }
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
            "it lacks one of the claims sub, tenant, iat and exp"
        }
        _ => "it is no JWT",
    }
}

/// Our names, Abaco's v3 names, Abaco's v2 names.
fn role_of(name: &str) -> Role {
    match name {
        "admin" | "abaco_admin" | "Internal/abaco-admin" => Role::Admin,
        "privileged" | "abaco_privileged" | "Internal/abaco-privileged" => Role::Privileged,
        _ => Role::User,
    }
}

/// The header that a gateway's assertion came in, of a request whose caller it names:
/// `X-Jwt-Assertion-Dev-Develop`.
#[derive(Debug, Clone)]
pub(crate) struct AssertionHeader(pub(crate) String);

impl AssertionHeader {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let (name, _) = assertion(headers)?;
        let words = name.split('-').map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        });
        Some(Self(words.collect::<Vec<_>>().join("-")))
    }
}

/// The header with an assertion, its name in small letters and with dashes only.
fn assertion(headers: &HeaderMap) -> Option<(String, &HeaderValue)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().replace('_', "-"), value))
        .find(|(name, _)| name.starts_with(ASSERTION))
}

/// The caller of a request; a handler that takes it is not for strangers.
#[derive(Debug)]
pub(crate) struct Signed(pub(crate) Caller);

impl FromRequestParts<App> for Signed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let by_token = by_token(parts, app).await;
        let caller = match by_token {
            // A token that holds comes first: the nonce is not spent.
            Ok(Some(caller)) => {
                if let Some(header) = AssertionHeader::of(&parts.headers) {
                    parts.extensions.insert(header);
                }
                caller
            }
            without => match nonce::redeem(parts, app).await? {
                Some(caller) => caller,
                None => return Err(without.err().unwrap_or_else(nobody)),
            },
        };
        let span = tracing::Span::current();
        span.record("caller.user", caller.user.as_str());
        span.record("caller.tenant", caller.tenant.as_str());
        parts.extensions.insert(Sender::of(&caller));
        if let Some(asking) = parts.extensions.get::<Asking>() {
            asking.learn(&caller);
        }
        Ok(Self(caller))
    }
}

fn refused(message: impl std::fmt::Display) -> ApiError {
    ApiError::new(Meaning::Unauthenticated, format!("Not authenticated: {message}."))
}

fn nobody() -> ApiError {
    ApiError::new(
        Meaning::Unauthenticated,
        "No JWT or nonce provided. Send the header Authorization: Bearer TOKEN; \
         `abax token` prints one.",
    )
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoKeys { .. } => Self::new(Meaning::Unavailable, format!("{refusal}.")),
            Refusal::NoRole => {
                Self::new(Meaning::Forbidden, format!("Not authorized -- {refusal}."))
            }
            _ => refused(refusal),
        }
    }
}

/// The caller by the request's token, if it has one.
async fn by_token(parts: &Parts, app: &App) -> Result<Option<Caller>, ApiError> {
    let Some(Presented { token, header }) = presented(&parts.headers)? else { return Ok(None) };
    let now = app.service().clock().now();
    if app.issuers().may_know(token) {
        let way = match header {
            Carrier::Assertion { ref tenant } => Way::Assertion { tenant },
            Carrier::Tapis { on_behalf } => Way::Plain { on_behalf },
            Carrier::Authorization => Way::Plain { on_behalf: None },
        };
        let caller = app.issuers().verify(token, way, now).await?;
        if let Carrier::Tapis { on_behalf: None } = header {
            must_be_of_host(parts, app, &caller)?;
        }
        return Ok(Some(caller));
    }
    if let Carrier::Tapis { on_behalf: Some(_) } = header {
        return Err(refused(
            "X-Tapis-User and X-Tapis-Tenant are for service tokens, and this is a user's",
        ));
    }
    let caller = app.keys().verify(token, now).map_err(refused)?;
    if let Some(claim) = &caller.claim
        && !app.service().may_still_act(claim).await?
    {
        let execution = &claim.execution;
        return Err(refused(format!("execution {execution}, whose token this is, has ended")));
    }
    if let Carrier::Assertion { tenant: named } = header
        && normal(&named) != normal(caller.tenant.as_str())
    {
        let own = &caller.tenant;
        return Err(refused(format!("the token is for tenant {own}, the header names {named}")));
    }
    Ok(Some(caller))
}

/// Where a host name is that of some tenants, users of others have no business there.
fn must_be_of_host(parts: &Parts, app: &App, caller: &Caller) -> Result<(), ApiError> {
    let Some(host) = parts.headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return Ok(());
    };
    let mut tenants = app.service().config().tenants.iter().filter_map(|(tenant, settings)| {
        let server = settings.api_server.as_deref()?;
        let authority = server.split_once("://").map_or(server, |(_, authority)| authority);
        authority.eq_ignore_ascii_case(host).then_some(tenant)
    });
    let Some(first) = tenants.next() else { return Ok(()) };
    if *first == caller.tenant || tenants.any(|tenant| *tenant == caller.tenant) {
        return Ok(());
    }
    let own = &caller.tenant;
    Err(refused(format!("the token is for tenant {own}, which is not the one of {host}")))
}

/// A token as it was presented.
struct Presented<'a> {
    token: &'a str,
    header: Carrier<'a>,
}

/// Which header a token came in, and what else that says.
enum Carrier<'a> {
    /// `X-JWT-Assertion-TENANT`: the tenant that its own name claims.
    Assertion {
        tenant: String,
    },
    /// `X-Tapis-Token`, and for whom a service acts.
    Tapis {
        on_behalf: Option<OnBehalf<'a>>,
    },
    Authorization,
}

const TAPIS_TOKEN: HeaderName = HeaderName::from_static("x-tapis-token");
const TAPIS_USER: HeaderName = HeaderName::from_static("x-tapis-user");
const TAPIS_TENANT: HeaderName = HeaderName::from_static("x-tapis-tenant");
const ASSERTION: &str = "x-jwt-assertion-";

/// The request's token, from the first of the three headers that may carry one.
fn presented(headers: &HeaderMap) -> Result<Option<Presented<'_>>, ApiError> {
    let unreadable = || {
        refused("the token's header cannot be read; send the header Authorization: Bearer TOKEN")
    };
    if let Some((name, value)) = assertion(headers) {
        let tenant = name[ASSERTION.len()..].to_owned();
        let token = value.to_str().map_err(|_| unreadable())?.trim();
        return Ok(Some(Presented { token, header: Carrier::Assertion { tenant } }));
    }
    if let Some(value) = headers.get(TAPIS_TOKEN) {
        let token = value.to_str().map_err(|_| unreadable())?.trim();
        let on_behalf = on_behalf(headers)?;
        return Ok(Some(Presented { token, header: Carrier::Tapis { on_behalf } }));
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| unreadable())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Some(Presented { token: token.trim(), header: Carrier::Authorization }))
        }
        _ => Err(unreadable()),
    }
}

/// For whom a service says that it acts.
fn on_behalf(headers: &HeaderMap) -> Result<Option<OnBehalf<'_>>, ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match (headers.contains_key(TAPIS_USER), headers.contains_key(TAPIS_TENANT)) {
        (false, false) => Ok(None),
        (true, true) => match (text(TAPIS_USER), text(TAPIS_TENANT)) {
            (Some(user), Some(tenant)) => Ok(Some(OnBehalf { user, tenant })),
            _ => Err(refused("X-Tapis-User and X-Tapis-Tenant cannot be read")),
        },
        _ => Err(refused(
            "X-Tapis-User and X-Tapis-Tenant are for service tokens, and come together",
        )),
    }
}

/// Header names have no case, and there `_` is `-`.
fn normal(tenant: &str) -> String {
    tenant.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const MINUTE: Duration = Duration::from_secs(60);

    /// 2027-01-15T08:00:00Z
    fn now() -> Time {
        Time::from_micros(1_800_000_000_000_000)
    }

    #[test]
    fn a_minted_token_names_its_caller_until_it_expires() {
        let keys = Keys::new(SECRET).unwrap();
        let token = keys.mint("ada", "ABAX", &["admin"], now(), MINUTE);
        let last = now().after(MINUTE + LEEWAY).before(Duration::from_micros(1));
        let caller = keys.verify(token.expose_secret(), last).unwrap();
        assert_eq!(caller, Caller::new(Tenant::new("ABAX"), "ada", Role::Admin));

        let over = now().after(MINUTE + LEEWAY);
        let error = keys.verify(token.expose_secret(), over).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token expired at 2027-01-15T08:01:00.000Z, and it is 2027-01-15T08:01:30.000Z; \
             get a new one with `abax token`"
        );
    }

    #[test]
    fn the_token_of_an_execution_names_its_claim() {
        let keys = Keys::new(SECRET).unwrap();
        let claim = ClaimKey { execution: ExecutionId::generate(), epoch: 7 };
        let token = keys.mint_for(&claim, "ada", "ABAX", now(), MINUTE);
        let caller = keys.verify(token.expose_secret(), now()).unwrap();
        assert_eq!(caller, Caller::new(Tenant::new("ABAX"), "ada", Role::User).by(claim.clone()));

        let half = Claims { epoch: None, ..Claims::new("ada", "ABAX", Vec::new(), now(), MINUTE) };
        let half = Claims { execution: Some(claim.execution.to_string()), ..half };
        let error = keys.verify(keys.sign(half).expose_secret(), now()).unwrap_err();
        assert!(error.to_string().contains("names no claim"), "{error}");
    }

    #[test]
    fn roles_have_three_vocabularies_and_the_highest_counts() {
        let keys = Keys::new(SECRET).unwrap();
        for (roles, role) in [
            (vec![], Role::User),
            (vec!["Internal/everyone"], Role::User),
            (vec!["abaco_privileged"], Role::Privileged),
            (vec!["Internal/abaco-privileged", "Internal/abaco-admin"], Role::Admin),
        ] {
            let token = keys.mint("ada", "ABAX", &roles, now(), MINUTE);
            let caller = keys.verify(token.expose_secret(), now()).unwrap();
            assert_eq!(caller.role, role, "{roles:?}");
        }
    }

    #[test]
    fn what_a_webhook_gets_is_signed_by_its_actors_own_key() {
        let keys = Keys::new(SECRET).unwrap();
        let secret = keys.webhook_secret("ABAX", "x1");
        let encoded = secret.encoded().expose_secret().to_owned();
        for (tenant, actor) in [("ABAX", "x2"), ("OTHER", "x1"), ("ABAX\0x1", "")] {
            let other = keys.webhook_secret(tenant, actor).encoded();
            assert_ne!(other.expose_secret(), encoded, "{tenant} {actor}");
        }
        // The example of the specification.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = WebhookSecret(secret).signature(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = Keys::new(SECRET).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys([redacted])");
        assert_eq!(Keys::new(b"short").unwrap_err().actual, 5);
    }
}
