//! Opaque ids, one newtype per noun.
//!
//! An id is Hashids text of 64 random bits under Abaco's salt, so that ids of
//! an older deployment stay valid and no alias can look like an id. Only the
//! part of Hashids that one number needs is here.

use std::fmt;
use std::sync::LazyLock;

const SALT: &[u8] = b"eJa5wZlEX4eWU";
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890";
const SEPARATORS: &[u8] = b"cfhistuCFHISTU";
/// Hashids sets one character in twelve aside to pad short texts with.
const GUARDS: usize = 4;

/// Hashids with its alphabet prepared for one salt.
struct Hashids {
    salt: &'static [u8],
    alphabet: Vec<u8>,
}

impl Hashids {
    fn new(salt: &'static [u8]) -> Self {
        let mut alphabet: Vec<u8> =
            ALPHABET.iter().copied().filter(|c| !SEPARATORS.contains(c)).collect();
        shuffle(&mut alphabet, salt);
        alphabet.drain(..GUARDS);
        Self { salt, alphabet }
    }

    fn encode(&self, number: u64) -> String {
        let length = self.alphabet.len() as u64;
        let lottery = self.alphabet[index(number % 100 % length)];
        let digits_of = self.shuffled(lottery);
        let mut text = Vec::new();
        let mut rest = number;
        loop {
            text.push(digits_of[index(rest % length)]);
            rest /= length;
            if rest == 0 {
                break;
            }
        }
        text.push(lottery);
        text.reverse();
        String::from_utf8(text).expect("the alphabet is ASCII")
    }

    fn decode(&self, text: &str) -> Option<u64> {
        let (&lottery, digits) = text.as_bytes().split_first()?;
        let digits_of = self.shuffled(lottery);
        let mut number = 0_u64;
        for digit in digits {
            let value = digits_of.iter().position(|c| c == digit)?;
            number = number.checked_mul(digits_of.len() as u64)?.checked_add(value as u64)?;
        }
        // Many texts decode; one is the number's own.
        (self.encode(number) == text).then_some(number)
    }

    fn shuffled(&self, lottery: u8) -> Vec<u8> {
        let mut salt = vec![lottery];
        salt.extend_from_slice(self.salt);
        salt.extend_from_slice(&self.alphabet);
        salt.truncate(self.alphabet.len());
        let mut alphabet = self.alphabet.clone();
        shuffle(&mut alphabet, &salt);
        alphabet
    }
}

fn index(small: u64) -> usize {
    usize::try_from(small).expect("smaller than the alphabet")
}

/// Hashids' consistent shuffle.
fn shuffle(values: &mut [u8], salt: &[u8]) {
    let (mut v, mut p) = (0, 0);
    for i in (1..values.len()).rev() {
        v %= salt.len();
        let n = usize::from(salt[v]);
        p += n;
        values.swap(i, (n + v + p) % i);
        v += 1;
    }
}

static IDS: LazyLock<Hashids> = LazyLock::new(|| Hashids::new(SALT));

/// The text of 64 random bits.
pub(crate) fn random_text() -> String {
    IDS.encode(rand::random())
}

/// The longest text that 64 bits become.
const LONGEST: usize = 16;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// A fresh id of 64 random bits.
            #[must_use]
            pub fn generate() -> Self {
                Self(random_text())
            }

            /// `text` as an id; `None` when it is not one (so it may be an alias).
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                (text.len() <= LONGEST && IDS.decode(text).is_some()).then(|| Self(text.to_owned()))
            }

            /// The id as it stands in URLs and rows.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

id! {
    /// Which actor.
    ActorId
}
id! {
    /// Which execution.
    ExecutionId
}
id! {
    /// Which logical worker: one slot of one actor on one host.
    WorkerId
}
id! {
    /// Which delivery of an event.
    DeliveryId
}
id! {
    /// Which host process: a new one each time the process registers.
    HostId
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hashids_are_those_of_other_implementations() {
        let ids = Hashids::new(b"this is my salt");
        for (number, text) in [(12345, "NkK9"), (1_226_198_605_112, "4o6Z7KqxE")] {
            assert_eq!(ids.encode(number), text);
            assert_eq!(ids.decode(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_id_may_be_an_alias() {
        for text in ["", "a", "jane", "my-alias", "ÄÖÜ", "0000000000000000", "9999999999999"] {
            assert_eq!(ActorId::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_the_number_it_was_made_of(number: u64) {
            let text = IDS.encode(number);
            prop_assert!(text.len() <= LONGEST);
            prop_assert_eq!(IDS.decode(&text), Some(number));
        }

        #[test]
        fn no_text_breaks_parsing(text in "\\PC{0,20}|[a-zA-Z0-9]{0,16}") {
            if let Some(id) = ActorId::parse(&text) {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
