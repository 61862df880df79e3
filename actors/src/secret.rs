//! Secrets at rest: AES-256-GCM under keys that an operator can change.
//!
//! Of several keys the first seals and each opens what it sealed. To change the
//! key, a new one is added behind the old one in every process, then put before
//! it; what the old one sealed is sealed anew in the background, and the old one
//! may go.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Keys that are worth keeping.
const MOST_KEYS: usize = 16;

/// The keys that secrets are sealed under. Clones share them; `Debug` shows their
/// names only.
#[derive(Clone, Default)]
pub struct SecretKeys(Arc<[Key]>);

struct Key {
    /// What tells it from others, and nothing of it.
    name: String,
    key: RandomizedNonceKey,
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.name)).finish()
    }
}

/// Why a text does not hold keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretKeysError {
    /// Nothing but blank lines and comments.
    #[error("there is no key in it; `openssl rand -base64 32` makes one")]
    NoKey,
    /// A line is no key.
    #[error("line {line} is not 32 bytes in base64; `openssl rand -base64 32` makes such a line")]
    NotAKey {
        /// Which line, from 1.
        line: usize,
    },
    /// A key stands there twice.
    #[error("line {line} has a key that stands before it already")]
    Twice {
        /// Which line, from 1.
        line: usize,
    },
    /// More than anybody needs.
    #[error("there are more than {MOST_KEYS} keys in it; remove those that seal nothing any more")]
    TooMany,
}

/// Why a sealed secret cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its key is not among those of this process.
    #[error("it is sealed under the key {key}, which this process was not given")]
    UnknownKey {
        /// The key's name.
        key: String,
    },
    /// It was not sealed by this key for this place, or was changed since.
    #[error("it was changed since it was sealed under the key {key}")]
    Damaged {
        /// The key's name.
        key: String,
    },
}

/// What is stored of a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) key: String,
    /// The nonce, then the text and its tag.
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("key", &self.key).finish_non_exhaustive()
    }
}

impl SecretKeys {
    /// The keys in `text`: one per line, 32 bytes in base64, the one that seals
    /// first. Blank lines and those that begin with `#` are for the reader.
    ///
    /// # Errors
    ///
    /// The first line that is no key; or there is none.
    pub fn parse(text: &str) -> Result<Self, SecretKeysError> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let not_a_key = SecretKeysError::NotAKey { line: number };
            let bytes = BASE64_STANDARD.decode(line).map_err(|_| not_a_key.clone())?;
            let key = Key::new(&SecretSlice::from(bytes)).ok_or(not_a_key)?;
            if keys.iter().any(|known| known.name == key.name) {
                return Err(SecretKeysError::Twice { line: number });
            }
            keys.push(key);
            if keys.len() > MOST_KEYS {
                return Err(SecretKeysError::TooMany);
            }
        }
        if keys.is_empty() {
            return Err(SecretKeysError::NoKey);
        }
        Ok(Self(keys.into()))
    }

    /// A fresh key, as a line for [`SecretKeys::parse`].
    #[must_use]
    pub fn generate() -> SecretString {
        let bytes: [u8; KEY_BYTES] = rand::random();
        SecretString::from(BASE64_STANDARD.encode(bytes) + "\n")
    }

    /// The name of the key that seals, if there is one.
    pub(crate) fn sealing(&self) -> Option<&str> {
        self.0.first().map(|key| key.name.as_str())
    }

    /// Seals `secret` for `place`; none where there is no key.
    pub(crate) fn seal(&self, place: &Place<'_>, secret: &str) -> Option<Sealed> {
        let Key { name, key } = self.0.first()?;
        let mut text = secret.as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(place.bound(), &mut text).ok()?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut text);
        Some(Sealed { key: name.clone(), bytes })
    }

    /// The secret that was sealed for `place`.
    pub(crate) fn open(&self, place: &Place<'_>, sealed: &Sealed) -> Result<String, OpenError> {
        let key = self.0.iter().find(|key| key.name == sealed.key);
        let key = key.ok_or_else(|| OpenError::UnknownKey { key: sealed.key.clone() })?;
        let damaged = || OpenError::Damaged { key: sealed.key.clone() };
        let (nonce, text) = sealed.bytes.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut text = text.to_vec();
        let secret =
            key.key.open_in_place(nonce, place.bound(), &mut text).map_err(|_| damaged())?;
        String::from_utf8(secret.to_vec()).map_err(|_| damaged())
    }
}

impl Key {
    fn new(bytes: &SecretSlice<u8>) -> Option<Self> {
        let bytes = bytes.expose_secret();
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()?;
        let hash = digest(&SHA256, &[b"name of an abax secret key\0", bytes].concat());
        let name = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { name, key })
    }
}

/// The row that a secret is sealed for: in another one it does not open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) config: &'a str,
}

impl Place<'_> {
    fn bound(&self) -> Aad<Vec<u8>> {
        // No name holds a NUL.
        Aad::from(format!("config\0{}\0{}", self.tenant, self.config).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { tenant: "t", config: "c" };

    fn keys(lines: &[&SecretString]) -> SecretKeys {
        let text: String = lines.iter().map(|line| line.expose_secret()).collect();
        SecretKeys::parse(&text).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_with_its_key_only() {
        let (old, new) = (SecretKeys::generate(), SecretKeys::generate());
        let before = keys(&[&old]);
        let sealed = before.seal(&PLACE, "hunter2 ☂").unwrap();
        assert!(!sealed.bytes.windows(6).any(|bytes| bytes == b"hunter"));
        let after = keys(&[&new, &old]);
        assert_eq!(after.open(&PLACE, &sealed).unwrap(), "hunter2 ☂");
        assert_eq!(after.seal(&PLACE, "x").unwrap().key, after.sealing().unwrap());
        let unknown = keys(&[&new]).open(&PLACE, &sealed).unwrap_err();
        assert_eq!(unknown, OpenError::UnknownKey { key: before.sealing().unwrap().to_owned() });

        for elsewhere in [Place { tenant: "u", ..PLACE }, Place { config: "d", ..PLACE }] {
            let error = before.open(&elsewhere, &sealed).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{elsewhere:?}: {error}");
        }
        for byte in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[byte] ^= 1;
            assert!(before.open(&PLACE, &changed).is_err(), "byte {byte}");
        }
        let short = Sealed { bytes: vec![1; 5], ..sealed.clone() };
        assert!(before.open(&PLACE, &short).is_err());
        assert_ne!(before.seal(&PLACE, "x").unwrap(), before.seal(&PLACE, "x").unwrap());
    }

    #[test]
    fn keys_are_lines_of_base64() {
        let key = SecretKeys::generate();
        let line = key.expose_secret().trim();
        assert!(SecretKeys::parse(&format!("# of today\n\n  {line}  \n")).is_ok());
        for (text, error) in [
            ("", SecretKeysError::NoKey),
            ("# none\n", SecretKeysError::NoKey),
            ("\npassword\n", SecretKeysError::NotAKey { line: 2 }),
            ("c2hvcnQ=", SecretKeysError::NotAKey { line: 1 }),
            (&format!("{line}\n{line}"), SecretKeysError::Twice { line: 2 }),
        ] {
            assert_eq!(SecretKeys::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn no_key_is_shown() {
        let key = SecretKeys::generate();
        let keys = keys(&[&key]);
        let shown = format!("{keys:?}");
        assert_eq!(shown, format!("[{:?}]", keys.sealing().unwrap()));
        assert!(!key.expose_secret().contains(keys.sealing().unwrap()));
        assert!(SecretKeys::default().seal(&PLACE, "x").is_none());
    }
}
