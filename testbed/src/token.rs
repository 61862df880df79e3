use std::fmt;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::front::{Listener, Request};
use crate::{PASSWORD, USER};

/// The `service` that tokens are for.
pub const SERVICE: &str = "testbed";
pub(crate) const ISSUER: &str = "testbed-issuer";

/// A token server of the distribution spec's bearer flow: it signs tokens that
/// a real registry verifies by certificate.
pub struct TokenServer {
    listener: Listener,
    certificate: PathBuf,
    issued: Arc<AtomicUsize>,
}

impl fmt::Debug for TokenServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenServer").field("realm", &self.realm()).finish_non_exhaustive()
    }
}

impl TokenServer {
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let key = directory.join("token.key");
        let certificate = directory.join("token.crt");
        make_certificate(&key, &certificate, &[])?;
        let pem = std::fs::read_to_string(&certificate)?;
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let issued = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&issued);
        let listener = Listener::start(move |request, stream| {
            counter.fetch_add(1, Ordering::SeqCst);
            answer(&key, &der, request, stream)
        })?;
        Ok(Self { listener, certificate, issued })
    }

    /// The URL that challenges name.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.listener.address())
    }

    /// How many tokens were asked for.
    pub fn requests(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }
}

/// Makes a key and a certificate for 127.0.0.1 that is signed by itself, with
/// further options of `openssl req`.
pub(crate) fn make_certificate(key: &Path, certificate: &Path, options: &[&str]) -> Result<()> {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=testbed", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(options)
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .context("could not run openssl (run testbed/install.sh)")?;
    if !output.status.success() {
        bail!("openssl made no key: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn answer(key: &Path, der: &str, request: &Request, mut stream: TcpStream) -> Result<()> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let (status, body) = match request.header("authorization") {
        Some(given) if given == expected => {
            let token = sign(key, der, &granted(&request.target))?;
            ("200 OK", json!({ "token": token, "expires_in": 300 }))
        }
        Some(_) => (
            "401 Unauthorized",
            json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "wrong password" }] }),
        ),
        None => {
            let token = sign(key, der, &json!([]))?;
            ("200 OK", json!({ "token": token, "expires_in": 300 }))
        }
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// The `access` claim for the scopes in a query.
fn granted(target: &str) -> serde_json::Value {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let scopes = scopes.map(|s| s.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","));
    let access = scopes.filter_map(|scope| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions: Vec<&str> = actions.split(',').collect();
        Some(json!({ "type": kind, "name": name, "actions": actions }))
    });
    access.collect()
}

fn sign(key: &Path, der: &str, access: &serde_json::Value) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "the registry compares with the wall clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "access": access,
        "iat": now, "nbf": now - 10, "exp": now + 300, "jti": format!("{now}"),
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl.stdin.take().context("stdin is piped")?.write_all(signed.as_bytes())?;
    let output = openssl.wait_with_output()?;
    if !output.status.success() {
        bail!("openssl did not sign");
    }
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout)))
}
