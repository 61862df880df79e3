//! Messages: what is sent to an actor, and what becomes of it in the
//! environment of its execution.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;
use crate::json::Json;
use crate::trace::TraceParent;

/// What is sent to an actor.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// What the container gets as `MSG`.
    pub body: MessageBody,
    /// What the container gets as `_abaco_Content_Type`.
    pub content_type: ContentType,
    /// Variables for this one execution; of a repeated name the first counts.
    /// Of the query parameters of a POST, the message itself and the secret of a
    /// nonce are dropped here.
    pub environment: Vec<(String, String)>,
    /// What the container gets as `_abaco_jwt_header_name`: the header that a
    /// gateway's assertion came in.
    pub jwt_header: Option<String>,
    /// The trace that the message belongs to.
    pub trace: Option<TraceParent>,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MessageBody {
    /// Text, as it is.
    Text(String),
    /// A JSON value.
    Json(Json),
    /// Bytes, which the container gets as the file `/_abaco_binary_data`.
    Binary(Arc<[u8]>),
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// As the parameter `message`, or as JSON under another content type.
    Str,
    /// As a JSON body.
    Json,
    /// As bytes.
    OctetStream,
}

impl ContentType {
    /// The text that containers see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Json => "application/json",
            Self::OctetStream => "application/octet-stream",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Str, Self::Json, Self::OctetStream].into_iter().find(|c| c.as_str() == text)
    }
}

impl NewMessage {
    /// A text message.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            body: MessageBody::Text(text.into()),
            content_type: ContentType::Str,
            environment: Vec::new(),
            jwt_header: None,
            trace: None,
        }
    }

    /// A JSON message.
    #[must_use]
    pub fn json(json: Json) -> Self {
        Self {
            body: MessageBody::Json(json),
            content_type: ContentType::Json,
            environment: Vec::new(),
            jwt_header: None,
            trace: None,
        }
    }

    /// A message of bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            body: MessageBody::Binary(bytes.into()),
            content_type: ContentType::OctetStream,
            environment: Vec::new(),
            jwt_header: None,
            trace: None,
        }
    }

    /// The message as it is kept: checked, and without controls and repetitions.
    pub(crate) fn accept(mut self, config: &Config) -> Result<Self, Error> {
        match &self.body {
            MessageBody::Text(text) => check_variable("message", text, config.max_message_bytes)?,
            MessageBody::Json(json) => {
                check_variable("message", json.as_str(), config.max_message_bytes)?;
                check_variable("message", &json.to_python(), config.max_message_bytes)?;
            }
            MessageBody::Binary(bytes) => {
                let (limit_bytes, actual_bytes) = (config.max_binary_bytes, bytes.len());
                if actual_bytes > limit_bytes {
                    return Err(Error::TooLarge { what: "message", limit_bytes, actual_bytes });
                }
            }
        }
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in std::mem::take(&mut self.environment) {
            let dropped = name == "message" || name == NONCE && !config.nonce_in_environment;
            if !dropped && kept.iter().all(|(n, _)| *n != name) {
                kept.push((name, value));
            }
            if kept.len() > MOST_VARIABLES {
                return Err(Error::invalid(
                    "environment",
                    format!("more than {MOST_VARIABLES} variables"),
                ));
            }
        }
        let refused: Vec<&str> =
            kept.iter().map(|(n, _)| n.as_str()).filter(|n| !may_be_set(n)).collect();
        if !refused.is_empty() {
            return Err(Error::invalid(
                "environment",
                format!("a message may not set {}", refused.join(", ")),
            ));
        }
        if let Some((name, _)) = kept.iter().find(|(_, v)| v.contains('\0')) {
            return Err(Error::invalid("environment", format!("{name} holds a NUL character")));
        }
        let actual_bytes: usize = kept.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
        if actual_bytes > MOST_VARIABLE_BYTES {
            return Err(Error::TooLarge {
                what: "environment",
                limit_bytes: MOST_VARIABLE_BYTES,
                actual_bytes,
            });
        }
        self.environment = kept;
        Ok(self)
    }
}

/// The query parameter with the secret of a nonce.
const NONCE: &str = "x-nonce";
/// A query parameter that asks us to wait. Containers of Abaco see it.
const SYNCHRONOUS: &str = "_abaco_synchronous";
const MOST_VARIABLES: usize = 256;
const MOST_VARIABLE_BYTES: usize = 100_000;

/// Whether `text` fits the environment variable that carries it.
pub(crate) fn check_variable(
    what: &'static str,
    text: &str,
    limit_bytes: usize,
) -> Result<(), Error> {
    if text.len() > limit_bytes {
        return Err(Error::TooLarge { what, limit_bytes, actual_bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(Error::invalid(what, "holds a NUL character, which no environment can carry"));
    }
    Ok(())
}

/// Names, in capitals, by which somebody who may only send messages would change
/// which program runs, where it looks for what it trusts, or what it takes for the
/// service's word.
const REFUSED: &[&str] = &[
    "PATH",
    "HOME",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "CDPATH",
    "ZDOTDIR",
    "MSG",
    "MSG_JSON",
    "_ACTOR_CONFIGS",
    "TIME_MSG_QUEUED",
    "RUBYOPT",
    "RUBYLIB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PERL5DB",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "JAVA_OPTS",
    "CLASSPATH",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "TMPDIR",
    "GLIBC_TUNABLES",
    "LUA_PATH",
    "LUA_CPATH",
    "LUA_INIT",
    "R_PROFILE",
    "R_PROFILE_USER",
    "R_ENVIRON",
    "R_ENVIRON_USER",
    "R_HOME",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "CURL_HOME",
    "WGETRC",
    "NETRC",
    "SSLKEYLOGFILE",
];
const REFUSED_PREFIXES: &[&str] = &[
    "_ABACO_",
    "_ABAX_",
    "LD_",
    "DYLD_",
    "PYTHON",
    "GIT_",
    "BASH_FUNC_",
    "MALLOC_",
    "R_LIBS",
    "NODE_",
    "NPM_CONFIG_",
    "PIP_",
    "UV_",
    "CONDA_",
    "ERL_",
    "DOTNET_",
    "CORECLR_",
    "OPENSSL_",
    "JULIA_",
    "AWS_",
    "XDG_",
    "GUILE_",
    "OCAMLRUN",
];
/// Programs read the proxies of any protocol, some of them in any letter case.
const REFUSED_SUFFIX: &str = "_PROXY";

/// Whether it is for somebody who does not choose the program to set this variable.
pub(crate) fn may_be_set(name: &str) -> bool {
    if name == SYNCHRONOUS {
        return true;
    }
    let capitals = name.to_ascii_uppercase();
    !name.is_empty()
        && !name.contains(['=', '\0'])
        && !REFUSED.contains(&capitals.as_str())
        && !REFUSED_PREFIXES.iter().any(|prefix| capitals.starts_with(prefix))
        && !capitals.ends_with(REFUSED_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_variables(names: &[&str]) -> Result<NewMessage, Error> {
        let mut message = NewMessage::text("x");
        message.environment =
            names.iter().map(|n| ((*n).to_owned(), format!("value of {n}"))).collect();
        message.accept(&Config::sqlite("unused"))
    }

    #[test]
    fn variables_that_hijack_are_refused_by_name() {
        for name in [
            "PATH",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "MSG",
            "MSG_JSON",
            "_abaco_actor_id",
            "_abaco_access_token",
            "_actor_configs",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "HOME",
            "Home",
            "pythonPath",
            "Http_Proxy",
            "hTTPS_proxy",
            "no_proxy",
            "Socks_proxy",
            "WGETRC",
            "OPENSSL_CONF",
            "CURL_HOME",
            "XDG_CONFIG_HOME",
            "ERL_AFLAGS",
            "DOTNET_STARTUP_HOOKS",
            "PIP_INDEX_URL",
            "npm_config_registry",
            "AWS_ENDPOINT_URL",
            "",
            "a=b",
        ] {
            match with_variables(&["fine", name]) {
                Err(Error::Invalid { field, problem }) => {
                    assert_eq!(field, "environment", "{name}");
                    assert!(problem.contains(name), "{name}: {problem}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_message_and_the_nonce_are_dropped_and_the_first_of_a_name_counts() {
        let mut message = NewMessage::text("x");
        message.environment = [
            ("x-nonce", "secret"),
            ("_abaco_synchronous", "true"),
            ("message", "m"),
            ("a", "1"),
            ("a", "2"),
            ("foo-bar.baz", "odd"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .to_vec();
        let names = |config: &Config| -> Vec<(String, String)> {
            message.clone().accept(config).unwrap().environment
        };
        let mut config = Config::sqlite("unused");
        let kept = [("_abaco_synchronous", "true"), ("a", "1"), ("foo-bar.baz", "odd")];
        let kept = kept.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(names(&config), kept);
        config.nonce_in_environment = true;
        assert_eq!(names(&config)[0], ("x-nonce".to_owned(), "secret".to_owned()));
    }

    #[test]
    fn messages_must_fit_one_variable_or_the_limit_of_bytes() {
        let config = Config::sqlite("unused");
        let fits = "x".repeat(config.max_message_bytes);
        assert!(NewMessage::text(fits.clone()).accept(&config).is_ok());
        let large = NewMessage::text(fits.clone() + "x").accept(&config);
        assert!(matches!(large, Err(Error::TooLarge { what: "message", .. })), "{large:?}");
        let json = Json::from(serde_json::json!(["\u{200b}".repeat(30_000)]));
        assert!(json.as_str().len() < config.max_message_bytes);
        let large = NewMessage::json(json).accept(&config);
        assert!(matches!(large, Err(Error::TooLarge { what: "message", .. })), "{large:?}");
        let nul = NewMessage::text("a\0b").accept(&config);
        assert!(matches!(nul, Err(Error::Invalid { .. })), "{nul:?}");
        let bytes = vec![0; config.max_binary_bytes];
        assert!(NewMessage::binary(bytes).accept(&config).is_ok());
        let large = NewMessage::binary(vec![0; config.max_binary_bytes + 1]).accept(&config);
        assert!(matches!(large, Err(Error::TooLarge { what: "message", .. })), "{large:?}");
    }
}
