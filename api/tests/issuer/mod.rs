//! Somebody who issues tokens: a key pair, and a server that publishes its key set.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A key pair that signs tokens.
pub struct Signer {
    pub id: &'static str,
    pair: RsaKeyPair,
}

impl Signer {
    pub fn new(id: &'static str) -> Self {
        Self { id, pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// A token with these claims, as the standard writes it.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"typ": "JWT", "alg": "RS256", "kid": self.id}), claims)
    }

    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Its public key, as a set has it.
    pub fn jwk(&self) -> Value {
        let key = self.pair.public_key();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": encode(key.modulus().big_endian_without_leading_zero()),
            "e": encode(key.exponent().big_endian_without_leading_zero()),
        })
    }
}

/// A server with a key set.
pub struct Publisher {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    broken: AtomicBool,
}

impl Publisher {
    pub async fn start(signers: &[&Signer]) -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/keys", get(keys)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let this = Self { address, shared, server };
        this.publish(signers);
        this
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// From now on, these are its keys.
    pub fn publish(&self, signers: &[&Signer]) {
        // Whoever reads it must pass over what is not for them.
        let mut keys = vec![json!({"kty": "EC", "crv": "P-256", "kid": "other"}), json!("odd")];
        keys.extend(signers.iter().map(|signer| signer.jwk()));
        *self.shared.keys.lock().unwrap() = keys;
    }

    /// From now on, it answers nothing of use, or does again.
    pub fn set_broken(&self, broken: bool) {
        self.shared.broken.store(broken, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    if shared.broken.load(Ordering::SeqCst) {
        return (StatusCode::BAD_GATEWAY, "<html>".to_owned());
    }
    let keys = shared.keys.lock().unwrap().clone();
    (StatusCode::OK, json!({ "keys": keys }).to_string())
}
