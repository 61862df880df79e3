//! The form of a token: three segments with a dot between (RFC 7519), before
//! anybody has asked whether it holds.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A larger token is none of anybody's.
pub(super) const LONGEST: usize = 8 << 10;

/// How segments may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As the standard says: URL-safe base64 without padding.
    Standard,
    /// That, or plain base64 with or without padding, as old gateways wrote it.
    Lax,
}

impl Encoding {
    fn decode(self, segment: &str) -> Option<Vec<u8>> {
        const ANY: GeneralPurpose = GeneralPurpose::new(
            &STANDARD,
            GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true),
        );
        match self {
            Self::Standard => BASE64_URL_SAFE_NO_PAD.decode(segment).ok(),
            Self::Lax => ANY.decode(segment.replace('-', "+").replace('_', "/")).ok(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that whoever reads the token must know; we know none.
    crit: Option<Value>,
}

/// A token as it was presented: nothing of it is to be believed yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// The algorithm that it says it is signed with.
    pub(super) algorithm: String,
    /// The key that it says it is signed with.
    pub(super) key: Option<String>,
    pub(super) claims: Claims,
    /// What the signature is of.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl<'a> Token<'a> {
    /// Takes `text` apart.
    ///
    /// # Errors
    ///
    /// What gives it away as no token.
    pub(super) fn parse(text: &'a str, encoding: Encoding) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("it is too long");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("it is no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("it is no JWT")?;
        let decode = |segment| encoding.decode(segment).ok_or("it is no JWT");
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| "it is no JWT")?;
        if header.crit.is_some() {
            return Err("it needs extensions that are not known here");
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| "it is no JWT")?;
        Ok(Self {
            algorithm: header.alg,
            key: header.kid,
            claims: Claims(claims),
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }
}

impl Claims {
    /// The text under `name`, if it is one and has letters.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// Whether there is something under `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// One text, or a list of them.
    pub(super) fn one_or_more(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A list of texts, or one text with commas in it.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => text.split(',').map(str::trim).collect(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A moment in seconds since 1970; fractions are allowed, RFC 7519 §2.
    pub(super) fn seconds(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    /// Its claims have bytes that the two alphabets write in their own ways.
    fn token(encode: impl Fn(&[u8]) -> String) -> String {
        let header = br#"{"alg":"RS256"}"#;
        let claims = "{\"sub\":\"ÿÿ?>~ü\"}".as_bytes();
        format!("{}.{}.{}", encode(header), encode(claims), encode(&[0xfb, 0xff, 0xfe, 0xff]))
    }

    #[test]
    fn both_alphabets_are_read_where_that_is_allowed() {
        let today = token(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let old = token(|bytes| BASE64_STANDARD.encode(bytes));
        assert!(old.contains('+') && old.contains('/') && old.contains('='), "{old}");
        for (text, encoding, good) in [
            (&today, Encoding::Standard, true),
            (&today, Encoding::Lax, true),
            (&old, Encoding::Lax, true),
            (&old, Encoding::Standard, false),
        ] {
            let token = Token::parse(text, encoding);
            assert_eq!(token.is_ok(), good, "{text} {encoding:?}");
            if let Ok(token) = token {
                assert_eq!(token.claims.text("sub"), Some("ÿÿ?>~ü"));
                assert_eq!(token.signature, [0xfb, 0xff, 0xfe, 0xff]);
                assert_eq!(token.signed, &text.as_bytes()[..text.rfind('.').unwrap()]);
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let critical = format!("{}.{}.", encode(r#"{"alg":"RS256","crit":["x"]}"#), encode("{}"));
        for (text, problem) in [
            ("", "no JWT"),
            ("a.b.c", "no JWT"),
            ("..", "no JWT"),
            (&format!("{}.{}.", encode("{}"), encode("{}")), "no JWT"),
            (&format!("{}.{}.", encode(r#"{"alg":"RS256"}"#), encode("[]")), "no JWT"),
            (&critical, "extensions"),
            (&"x".repeat(LONGEST + 1), "too long"),
        ] {
            let error = Token::parse(text, Encoding::Standard).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn roles_come_as_a_list_or_with_commas() {
        let claims = |json: Value| Claims(json.as_object().unwrap().clone());
        let of = |json| claims(serde_json::json!({ "r": json }));
        assert_eq!(of("a, b".into()).texts("r"), ["a", "b"]);
        assert_eq!(of(serde_json::json!(["a", 1, "b"])).texts("r"), ["a", "b"]);
        assert_eq!(of("".into()).texts("r"), [""]);
        assert!(of(Value::Null).texts("r").is_empty() && !of(Value::Null).has("r"));
    }
}
