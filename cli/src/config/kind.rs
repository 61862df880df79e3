//! What a setting may look like, in the file and as text of the environment.

use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net};
use toml::Value;
use tracing_subscriber::EnvFilter;

use crate::output;

/// The form of a setting's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Anything that is not empty.
    Text,
    /// A file or directory.
    Path,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// What is logged.
    Filter,
    /// An address and a port.
    Address,
    /// An IPv4 network.
    Subnet,
    /// An address with one of these schemes. It may hold a password.
    Url(&'static [&'static str]),
    /// Bytes, such as `512m`.
    Size,
    /// A whole number between these two.
    Whole(i64, i64),
    /// A number above zero.
    Number,
    /// Several texts; separated by commas in the environment.
    Texts,
    /// Several names of letters, digits, `-`, `_` and `.`.
    Names,
    /// Several networks of IPv4 or IPv6.
    Networks,
    /// Several ports.
    Ports,
    /// Registries, each with a list of mirrors.
    Mirrors,
    /// Names, each with a table of settings of its own.
    Tables,
}

impl Kind {
    /// What to write, for an error message.
    pub(crate) fn wanted(self) -> String {
        match self {
            Self::Text => "a text in quotes".to_owned(),
            Self::Path => "the path of a file or directory".to_owned(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Filter => "error, warn, info, debug, trace, or a filter".to_owned(),
            Self::Address => "an address and a port, like 127.0.0.1:8000".to_owned(),
            Self::Subnet => "a network, like 172.30.0.0/16".to_owned(),
            Self::Url(schemes) => {
                let forms: Vec<_> = schemes.iter().map(|s| format!("{s}://HOST")).collect();
                format!("an address like {}", forms.join(" or "))
            }
            Self::Size => "a size, like 512m or 2g".to_owned(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Number => "a number above 0, like 1.5".to_owned(),
            Self::Texts => "a list, like [\"a\", \"b\"]; a,b in the environment".to_owned(),
            Self::Names => {
                "a list of names of letters, digits, '-', '_' and '.', like [\"default\"]"
                    .to_owned()
            }
            Self::Networks => "a list of networks, like [\"10.1.0.0/16\", \"fd00::/8\"]".to_owned(),
            Self::Ports => "a list of ports, like [8080]; 8080,9090 in the environment".to_owned(),
            Self::Tables => "a table of tables, like {\"NAME\" = {setting = \"value\"}}".to_owned(),
            Self::Mirrors => {
                "a table of lists, like {\"docker.io\" = [\"https://mirror.example.org\"]}"
                    .to_owned()
            }
        }
    }

    /// Whether the value may hold a secret.
    pub(crate) fn may_hold_a_secret(self) -> bool {
        matches!(self, Self::Url(_))
    }

    /// The value that `text` of the environment or of a default stands for, if it is one.
    pub(crate) fn read(self, text: &str) -> Option<Value> {
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let value = match self {
            Self::Whole(..) => Value::Integer(text.trim().parse().ok()?),
            Self::Number => Value::Float(text.trim().parse().ok()?),
            Self::Texts | Self::Names | Self::Networks => {
                Value::Array(parts().map(Value::from).collect())
            }
            Self::Ports => Value::Array(
                parts().map(|p| Some(Value::Integer(p.parse().ok()?))).collect::<Option<_>>()?,
            ),
            Self::Mirrors | Self::Tables => {
                toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?.remove("value")?
            }
            _ => Value::from(text),
        };
        self.accepts(&value).then_some(value)
    }

    /// Whether `value` is one of this kind.
    pub(crate) fn accepts(self, value: &Value) -> bool {
        let text = |holds: &dyn Fn(&str) -> bool| {
            value.as_str().is_some_and(|text| !text.is_empty() && holds(text))
        };
        let list = |holds: &dyn Fn(&Value) -> bool| {
            value.as_array().is_some_and(|all| all.iter().all(holds))
        };
        match self {
            Self::Text | Self::Path => text(&|text| !text.contains('\0')),
            Self::OneOf(words) => text(&|text| words.contains(&text)),
            Self::Filter => text(&|text| EnvFilter::try_new(text).is_ok()),
            Self::Address => text(&|text| text.parse::<SocketAddr>().is_ok()),
            Self::Subnet => text(&|text| text.parse::<Ipv4Net>().is_ok()),
            Self::Url(schemes) => text(&|text| {
                reqwest::Url::parse(text).is_ok_and(|url| {
                    schemes.contains(&url.scheme()) && url.host_str().is_some_and(|h| !h.is_empty())
                })
            }),
            Self::Size => text(&|text| output::parse_size(text).is_ok()),
            Self::Whole(least, most) => {
                value.as_integer().is_some_and(|number| (least..=most).contains(&number))
            }
            Self::Number => number(value).is_some_and(|n| n.is_finite() && n > 0.0),
            Self::Texts => list(&|value| value.as_str().is_some_and(|text| !text.is_empty())),
            Self::Names => {
                !value.as_array().is_none_or(Vec::is_empty)
                    && list(&|value| value.as_str().is_some_and(is_name))
            }
            Self::Networks => {
                list(&|value| value.as_str().is_some_and(|text| text.parse::<IpNet>().is_ok()))
            }
            Self::Ports => {
                list(&|value| value.as_integer().is_some_and(|n| (1..=65_535).contains(&n)))
            }
            // What is in them is checked where they are used.
            Self::Tables => {
                value.as_table().is_some_and(|table| table.values().all(Value::is_table))
            }
            Self::Mirrors => value.as_table().is_some_and(|table| {
                table.values().all(|mirrors| {
                    mirrors.as_array().is_some_and(|all| all.iter().all(Value::is_str))
                })
            }),
        }
    }
}

/// Whole numbers are numbers too: `cpus = 2`.
#[expect(clippy::cast_precision_loss, reason = "nobody has that many CPUs")]
fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_environment_are_read_by_kind() {
        for (kind, text, good) in [
            (Kind::Address, "127.0.0.1:80", true),
            (Kind::Address, "127.0.0.1", false),
            (Kind::Whole(1, 400), "400", true),
            (Kind::Whole(1, 400), "401", false),
            (Kind::Whole(1, 400), "many", false),
            (Kind::Number, "2", true),
            (Kind::Number, "-1", false),
            (Kind::Number, "inf", false),
            (Kind::Networks, "10.0.0.0/8, fd00::/8", true),
            (Kind::Networks, "10.0.0.1", false),
            (Kind::Ports, "80, 443", true),
            (Kind::Ports, "80,x", false),
            (Kind::Ports, "0", false),
            (Kind::Names, "default,gpu", true),
            (Kind::Names, "a b", false),
            (Kind::Names, "", false),
            (Kind::Size, "512m", true),
            (Kind::Size, "lots", false),
            (Kind::Subnet, "10.0.0.0/8", true),
            (Kind::Subnet, "10.0.0.0", false),
            (Kind::Url(&["postgres"]), "postgres://abax@db/abax", true),
            (Kind::Url(&["postgres"]), "mysql://abax@db/abax", false),
            (Kind::Url(&["amqp"]), "amqp:abax", false),
            (Kind::OneOf(&["text", "json"]), "json", true),
            (Kind::OneOf(&["text", "json"]), "xml", false),
            (Kind::Mirrors, "{\"docker.io\" = [\"https://m\"]}", true),
            (Kind::Mirrors, "docker.io", false),
            (Kind::Tables, "{LAB = {default_token = true}}", true),
            (Kind::Tables, "{LAB = true}", false),
            (Kind::Text, "", false),
        ] {
            assert_eq!(kind.read(text).is_some(), good, "{kind:?}: {text}");
        }
    }
}
