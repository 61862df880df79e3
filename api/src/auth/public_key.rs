//! Public RSA keys: what a file or a key set has of them, and the signatures that
//! they verify (RS256, RFC 7518 §3.3).

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

/// How short a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// 2048 bits at least.
    Today,
    /// 1024 bits at least: what gateways of long ago were delivered with.
    Legacy,
}

impl Strength {
    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Today => &RSA_PKCS1_2048_8192_SHA256,
            Self::Legacy => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        }
    }
}

/// A public RSA key of somebody whose tokens are taken.
#[derive(Clone)]
pub struct PublicKey {
    /// What tokens call it, where they do.
    id: Option<String>,
    der: Vec<u8>,
    parsed: ParsedPublicKey,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The text is no public RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a public RSA key: it must be PEM (`-----BEGIN PUBLIC KEY-----`) or the same DER in base64"
)]
pub struct NotAKey;

/// A key as key sets have it: RFC 7517 §4, RFC 7518 §6.3.
#[derive(Debug, Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl PublicKey {
    /// The key that `text` is: PEM, or its base64 alone, as Abaco's configuration had it.
    ///
    /// # Errors
    ///
    /// [`NotAKey`].
    pub fn parse(text: &str, strength: Strength) -> Result<Self, NotAKey> {
        let mut base64 = String::new();
        for line in text.lines().map(str::trim) {
            match line.strip_prefix("-----BEGIN ") {
                // A certificate holds a key, and is none.
                Some(kind) if !kind.ends_with("PUBLIC KEY-----") => return Err(NotAKey),
                Some(_) => base64.clear(),
                None if line.starts_with("-----END ") => break,
                None => base64.push_str(line),
            }
        }
        let der = BASE64_STANDARD.decode(base64).map_err(|_| NotAKey)?;
        Self::of(&der, None, strength)
    }

    /// The key of a set; None for one that is not for signatures by RS256.
    pub(super) fn of_set(jwk: &Jwk) -> Option<Self> {
        let for_us = jwk.kty == "RSA"
            && jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.alg.as_deref().is_none_or(|alg| alg == "RS256");
        let number = |text: &Option<String>| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.as_deref()?.trim_end_matches('='));
            let mut bytes = bytes.ok()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes.drain(..zeros);
            Some(bytes)
        };
        if !for_us {
            return None;
        }
        let components = RsaPublicKeyComponents { n: number(&jwk.n)?, e: number(&jwk.e)? };
        let key: PublicEncryptingKey = components.try_into().ok()?;
        let der: PublicKeyX509Der<'_> = key.as_der().ok()?;
        Self::of(der.as_ref(), jwk.kid.clone(), Strength::Today).ok()
    }

    fn of(der: &[u8], id: Option<String>, strength: Strength) -> Result<Self, NotAKey> {
        let parsed = ParsedPublicKey::new(strength.algorithm(), der).map_err(|_| NotAKey)?;
        let der: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| NotAKey)?;
        Ok(Self { id, der: der.as_ref().to_vec(), parsed })
    }

    /// Whether a token that names its key `id` may be signed with this one.
    pub(super) fn may_be(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(named)) => own == named,
            // A key of a file has no name, and a token need not name its key.
            _ => true,
        }
    }

    /// Whether `signature` is one of `message` by the owner of this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// The key in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        let base64 = BASE64_STANDARD.encode(&self.der);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;
    use serde_json::json;

    use super::*;

    fn generated() -> aws_lc_rs::rsa::KeyPair {
        aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap()
    }

    #[test]
    fn a_key_is_the_same_in_every_form() {
        let pair = generated();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let base64 = BASE64_STANDARD.encode(der.as_ref());
        let key = PublicKey::parse(&base64, Strength::Today).unwrap();
        let again = PublicKey::parse(&key.pem(), Strength::Today).unwrap();
        assert_eq!(key.pem(), again.pem());

        let mut signature = vec![0; pair.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        pair.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, b"message", &mut signature)
            .unwrap();
        for key in [&key, &again] {
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"massage", &signature));
            assert!(!key.verifies(b"message", &signature[1..]));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "garbage",
            "QUJD",
            "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
            "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(PublicKey::parse(text, Strength::Legacy).unwrap_err(), NotAKey, "{text}");
        }
    }

    #[test]
    fn of_a_set_only_rsa_keys_for_signatures_count() {
        for (kty, purpose, alg) in [
            ("EC", None, None),
            ("oct", None, None),
            ("RSA", Some("enc"), None),
            ("RSA", Some("sig"), Some("RS512")),
            // Without its numbers.
            ("RSA", Some("sig"), Some("RS256")),
        ] {
            let jwk = json!({"kty": kty, "use": purpose, "alg": alg, "kid": "k", "e": "AQAB"});
            let jwk: Jwk = serde_json::from_value(jwk).unwrap();
            assert!(PublicKey::of_set(&jwk).is_none(), "{jwk:?}");
        }
    }
}
