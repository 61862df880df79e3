//! Challenges, tokens, stored credentials.
//!
//! Requests go out without credentials until the registry asks for them
//! (RFC 9110, 11.6.1). A bearer challenge names a token server, which gives a
//! token for one repository in exchange for the credentials, or for none
//! (distribution, "Token Authentication Specification").

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::config::Endpoint;
use super::error::Error;
use super::http::{Http, Response};

const TOKEN_LIMIT_BYTES: u64 = 1 << 20;
/// What a token that does not say lives for, by the specification.
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A token this near its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// Who we are for one endpoint, and what that has earned us.
pub(super) struct Session<'a> {
    http: &'a Http<'a>,
    pub(super) endpoint: Endpoint,
    docker_config: Option<&'a Path>,
    /// Held while a token is fetched, so that parallel downloads share it.
    authorization: Mutex<Option<Authorization>>,
}

/// A value for the `Authorization` field.
#[derive(Clone)]
struct Authorization {
    value: HeaderValue,
    expires: Option<Instant>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        http: &'a Http<'a>,
        endpoint: Endpoint,
        docker_config: Option<&'a Path>,
    ) -> Self {
        Self { http, endpoint, docker_config, authorization: Mutex::new(None) }
    }

    /// GETs `url` of this endpoint, authenticating where the registry asks for it.
    ///
    /// # Errors
    ///
    /// Any status but 200 and 206 is one.
    pub(super) fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Response<'a>, Error> {
        let used = self.current();
        let mut response = self.send(url, headers, used.as_ref())?;
        if response.status() == 401 {
            let authorization = self.authorize(&response, used.as_ref())?;
            response = self.send(url, headers, Some(&authorization))?;
        }
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            401 | 403 => Err(self.refused(response)),
            _ => Err(response.into_error()),
        }
    }

    fn send(
        &self,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&Authorization>,
    ) -> Result<Response<'a>, Error> {
        let mut headers = headers.clone();
        if let Some(Authorization { value, .. }) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        self.http.send(&Method::GET, url, &headers, None)
    }

    fn current(&self) -> Option<Authorization> {
        let current = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .filter(|authorization| authorization.expires.is_none_or(|end| end > Instant::now()))
            .cloned()
    }

    /// Answers the challenge in `response`, given to a request that went out with `used`.
    fn authorize(
        &self,
        response: &Response<'_>,
        used: Option<&Authorization>,
    ) -> Result<Authorization, Error> {
        let mut current = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else got a new one while we were waiting.
        if let Some(current) = current.as_ref()
            && used.is_none_or(|used| used.value != current.value)
            && current.expires.is_none_or(|end| end > Instant::now())
        {
            return Ok(current.clone());
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let credential = self.credential();
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let authorization = if let Some(challenge) = bearer {
            self.fetch_token(challenge, credential.as_ref(), response)?
        } else if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            let credential = credential.ok_or_else(|| self.credentials_missing())?;
            let Some(value) = credential.basic() else { return Err(self.credentials_missing()) };
            if used.is_some_and(|used| used.value == value) {
                return Err(self.credentials_refused(&credential, Vec::new()));
            }
            Authorization { value, expires: None }
        } else {
            return Err(Error::Protocol {
                url: response.shown_url(),
                problem: "the registry answered 401 and does not say how to log in",
            });
        };
        *current = Some(authorization.clone());
        Ok(authorization)
    }

    fn fetch_token(
        &self,
        challenge: &Challenge,
        credential: Option<&Credential>,
        response: &Response<'_>,
    ) -> Result<Authorization, Error> {
        let protocol = |problem| Error::Protocol { url: response.shown_url(), problem };
        let mut realm = challenge
            .parameter("realm")
            .and_then(|realm| Url::parse(realm).ok())
            .filter(|realm| matches!(realm.scheme(), "http" | "https") && realm.has_host())
            .ok_or_else(|| protocol("the registry names no token server"))?;
        // Who asked over TLS does not send a password without.
        if self.endpoint.base.scheme() == "https" && realm.scheme() == "http" {
            return Err(protocol("the registry names a token server without TLS"));
        }
        let service = challenge.parameter("service").unwrap_or_default();
        let own_scope = format!("repository:{}:pull", self.endpoint.repository);
        let scope = challenge.parameter("scope").unwrap_or(&own_scope);

        let asked = Instant::now();
        let mut answer = match credential {
            Some(Credential::IdentityToken { token }) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("service", service),
                    ("scope", scope),
                    ("client_id", "abax"),
                ];
                self.http.send(&Method::POST, &realm, &HeaderMap::new(), Some(&form))?
            }
            other => {
                realm.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
                let mut headers = HeaderMap::new();
                if let Some(value) = other.and_then(Credential::basic) {
                    headers.insert(AUTHORIZATION, value);
                }
                self.http.send(&Method::GET, &realm, &headers, None)?
            }
        };
        match (answer.status().as_u16(), credential) {
            (200, _) => {}
            (400 | 401 | 403, Some(credential)) => {
                return Err(self.credentials_refused(credential, answer.problems()));
            }
            (401 | 403, None) => return Err(self.credentials_missing()),
            _ => return Err(answer.into_error()),
        }

        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            expires_in: Option<u64>,
        }
        let body = answer.bytes(TOKEN_LIMIT_BYTES)?;
        let no_token = || Error::Protocol {
            url: answer.shown_url(),
            problem: "the token server gave no token",
        };
        let Token { token, access_token, expires_in } =
            serde_json::from_slice(&body).map_err(|_| no_token())?;
        let token = if token.is_empty() { access_token } else { token };
        if token.is_empty() {
            return Err(no_token());
        }
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| no_token())?;
        value.set_sensitive(true);
        let life = expires_in.map_or(DEFAULT_TOKEN_LIFE, Duration::from_secs);
        let life = life.min(Duration::from_secs(3600)).saturating_sub(TOKEN_MARGIN);
        Ok(Authorization { value, expires: Some(asked + life) })
    }

    /// Explains a 401 or 403 that came in spite of all we have.
    fn refused(&self, response: Response<'_>) -> Error {
        match self.credential() {
            Some(credential) => self.credentials_refused(&credential, response.problems()),
            None => self.credentials_missing(),
        }
    }

    fn credentials_missing(&self) -> Error {
        let Endpoint { host, repository, .. } = &self.endpoint;
        Error::CredentialsMissing { host: host.clone(), repository: repository.clone() }
    }

    fn credentials_refused(
        &self,
        credential: &Credential,
        problems: Vec<super::error::Problem>,
    ) -> Error {
        let Endpoint { host, repository, .. } = &self.endpoint;
        Error::CredentialsRefused {
            host: host.clone(),
            repository: repository.clone(),
            user: credential.user().to_owned(),
            problems,
        }
    }

    /// What docker's configuration has for this endpoint.
    fn credential(&self) -> Option<Credential> {
        let path = self.docker_config?;
        // Docker keeps the credentials of its own registry under this name.
        let server = match self.endpoint.host.as_str() {
            "docker.io" => "https://index.docker.io/v1/",
            host => host,
        };
        let file = File::open(path).ok()?;
        match docker_credential::get_credential_from_reader(BufReader::new(file), server) {
            Ok(DockerCredential::UsernamePassword(user, password)) if user == "<token>" => {
                // What credential helpers print for an identity token.
                Some(Credential::IdentityToken { token: password })
            }
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Some(Credential::Password { user, password })
            }
            Ok(DockerCredential::IdentityToken(token)) => Some(Credential::IdentityToken { token }),
            Err(CredentialRetrievalError::NoCredentialConfigured) => None,
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                None
            }
            Err(error) => {
                // As docker does: a public image needs none.
                tracing::warn!(
                    path = %path.display(),
                    registry = server,
                    %error,
                    "no credentials for {server} from {}",
                    path.display()
                );
                None
            }
        }
    }
}

/// What docker's configuration has for a registry.
enum Credential {
    Password { user: String, password: String },
    IdentityToken { token: String },
}

impl Credential {
    fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else { return None };
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let mut value =
            HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
        value.set_sensitive(true);
        Some(value)
    }

    fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::IdentityToken { .. } => "the owner of the identity token",
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One way to log in, as a `WWW-Authenticate` field offers it.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    /// In lower case.
    scheme: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Parses a `WWW-Authenticate` field: RFC 9110, 11.6.1. What cannot be read ends the list.
fn parse_challenges(field: &str) -> Vec<Challenge> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            return challenges;
        }
        let (word, after) = rest.split_at(end);
        let word = word.to_ascii_lowercase();
        let Some(value) = after.trim_start().strip_prefix('=') else {
            challenges.push(Challenge { scheme: word, parameters: Vec::new() });
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            let Some(unquoted) = unquote(quoted) else { return challenges };
            unquoted
        } else {
            let end = value.find(|c| !is_token(c)).unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        // A parameter before any scheme belongs to nothing.
        let Some(challenge) = challenges.last_mut() else { return challenges };
        challenge.parameters.push((word, value));
        rest = after;
    }
}

/// The text up to the closing quote, and what comes after that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Challenge { scheme: scheme.to_owned(), parameters: parameters.iter().map(own).collect() }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (field, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:library/alpine:pull,push"),
                    ],
                )],
            ),
            (r#"BASIC Realm="x y""#, vec![challenge("basic", &[("realm", "x y")])]),
            (
                r#"Negotiate, Basic realm = "a \"b\"" , charset=UTF-8, Bearer realm=c"#,
                vec![
                    challenge("negotiate", &[]),
                    challenge("basic", &[("realm", "a \"b\""), ("charset", "UTF-8")]),
                    challenge("bearer", &[("realm", "c")]),
                ],
            ),
            ("", vec![]),
            (r#"Basic realm="unclosed"#, vec![challenge("basic", &[])]),
            ("realm=\"nobody's\"", vec![]),
        ] {
            assert_eq!(parse_challenges(field), expected, "{field}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let credential = Credential::Password { user: "u".into(), password: "secret".into() };
        assert_eq!(format!("{credential:?}"), "[redacted]");
    }
}
