//! The forms of the interface, chosen by the path's prefix: the only file that
//! knows which prefix speaks how.

/// How requests are read and answers are written.
///
/// Handlers know nothing of this: they read parameters by their snake names
/// and answer with snake names, nulls and links from the root `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// Ours: camel case, nulls kept, each HTTP status for what it is for.
    #[default]
    Abax,
    /// Abaco's v2 as hosted: camel case, nulls left out, 400 for nearly everything.
    V2,
    /// Abaco's v2 as its developers ran it: snake case, nulls kept.
    V2Snake,
    /// Abaco's v3: snake case, nulls kept, `metadata` in the envelope.
    V3,
}

impl Dialect {
    /// Every dialect, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Abax, Self::V2, Self::V2Snake, Self::V3];

    /// The dialect that the prefix of `path` asks for, and the path as the router knows it:
    /// one slash between segments, none at the end, `/actors…` whatever the prefix.
    ///
    /// `/actors/v2` is the prefix even where an actor is called `v2`. `bare` is spoken
    /// under a path without a version.
    pub fn of_path(path: &str, bare: Self) -> (Self, String) {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (dialect, before, rest) = match segments.as_slice() {
            ["actors", "v2", rest @ ..] => (Self::V2, Some("actors"), rest),
            ["v3", "actors", rest @ ..] => (Self::V3, Some("actors"), rest),
            all @ ["v3", ..] => (Self::V3, None, all),
            all => (bare, None, all),
        };
        let mut routed = String::with_capacity(path.len() + 1);
        for segment in before.iter().chain(rest) {
            routed.push('/');
            routed.push_str(segment);
        }
        if routed.is_empty() {
            routed.push('/');
        }
        (dialect, routed)
    }

    /// The dialect that settings call `name`, if one is called so.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "abax" => Some(Self::Abax),
            "v2-camel" => Some(Self::V2),
            "v2-snake" => Some(Self::V2Snake),
            "v3" => Some(Self::V3),
            _ => None,
        }
    }

    /// True where Abaco's own clients are served: its statuses and its texts.
    pub fn is_abaco(self) -> bool {
        self != Self::Abax
    }

    /// True where a null attribute of an object is left out.
    pub fn drops_nulls(self) -> bool {
        self == Self::V2
    }

    /// True where the envelope has `metadata`.
    pub fn has_metadata(self) -> bool {
        self == Self::V3
    }

    /// The name of an attribute whose snake name is `snake`.
    pub fn key(self, snake: &str) -> String {
        match self {
            Self::Abax | Self::V2 => camel(snake),
            Self::V2Snake | Self::V3 => snake.to_owned(),
        }
    }

    /// The absolute form of a link from the root: `server` + prefix + the rest of `link`.
    ///
    /// `server` has no slash at its end; the link `/` means the server itself.
    pub fn link(self, server: &str, link: &str) -> String {
        let tail = |prefix| {
            link.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self {
            _ if link == "/" => server.to_owned(),
            Self::V2 | Self::V2Snake => match (tail("/actors"), tail("/profiles")) {
                (Some(rest), _) => format!("{server}/actors/v2{rest}"),
                (_, Some(rest)) => format!("{server}/profiles/v2{rest}"),
                _ => format!("{server}{link}"),
            },
            Self::V3 => match (tail("/actors"), tail("/profiles")) {
                (Some(rest), _) => format!("{server}/v3/actors{rest}"),
                (_, Some(rest)) => format!("{server}/v3/oauth2/profiles{rest}"),
                _ => format!("{server}{link}"),
            },
            Self::Abax => format!("{server}{link}"),
        }
    }
}

/// `max_workers` → `maxWorkers`; an empty part stays an underscore, so `_links` stays `_links`.
fn camel(snake: &str) -> String {
    if !snake.contains('_') {
        return snake.to_owned();
    }
    let mut name = String::with_capacity(snake.len());
    let mut first = true;
    for part in snake.split('_') {
        let mut letters = part.chars();
        match letters.next() {
            None => name.push('_'),
            Some(_) if first => {
                name.push_str(&part.to_lowercase());
                first = false;
            }
            Some(letter) => {
                name.extend(letter.to_uppercase());
                name.push_str(&letters.as_str().to_lowercase());
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_chooses_the_dialect() {
        for (path, dialect, routed) in [
            ("/actors", Dialect::Abax, "/actors"),
            ("//actors//", Dialect::Abax, "/actors"),
            ("/actors/x1/messages", Dialect::Abax, "/actors/x1/messages"),
            ("/actors/v2", Dialect::V2, "/actors"),
            ("/actors/v2/", Dialect::V2, "/actors"),
            ("/actors/v2/x1/messages", Dialect::V2, "/actors/x1/messages"),
            ("//actors//v2///x1", Dialect::V2, "/actors/x1"),
            ("/actors/v2/v2", Dialect::V2, "/actors/v2"),
            ("/actors/v20", Dialect::Abax, "/actors/v20"),
            ("/v3/actors", Dialect::V3, "/actors"),
            ("/v3/actors/x1///messages", Dialect::V3, "/actors/x1/messages"),
            ("/v3/tenants", Dialect::V3, "/v3/tenants"),
            ("/", Dialect::Abax, "/"),
            ("///", Dialect::Abax, "/"),
            ("/health/", Dialect::Abax, "/health"),
        ] {
            assert_eq!(
                Dialect::of_path(path, Dialect::Abax),
                (dialect, routed.to_owned()),
                "{path}"
            );
        }
        assert_eq!(Dialect::of_path("/actors", Dialect::V2Snake).0, Dialect::V2Snake);
    }

    #[test]
    fn names_change_their_case() {
        for (snake, expected) in [
            ("id", "id"),
            ("max_workers", "maxWorkers"),
            ("cron_next_ex", "cronNextEx"),
            ("_links", "_links"),
            ("_metadata", "_metadata"),
            ("api_server", "apiServer"),
            ("a__b", "a_B"),
            ("executionId", "executionId"),
        ] {
            assert_eq!(Dialect::V2.key(snake), expected, "{snake}");
            assert_eq!(Dialect::V3.key(snake), snake, "{snake}");
        }
    }

    #[test]
    fn links_get_the_prefix_of_their_dialect() {
        for (dialect, actor, owner) in [
            (Dialect::Abax, "http://h/actors/x1", "http://h/profiles/ada"),
            (Dialect::V2, "http://h/actors/v2/x1", "http://h/profiles/v2/ada"),
            (Dialect::V3, "http://h/v3/actors/x1", "http://h/v3/oauth2/profiles/ada"),
        ] {
            assert_eq!(dialect.link("http://h", "/actors/x1"), actor);
            assert_eq!(dialect.link("http://h", "/profiles/ada"), owner);
            assert_eq!(dialect.link("http://h", "/"), "http://h");
        }
    }
}
