//! `abax token`

use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use crate::args::{self, TokenRole};
use crate::commands::service::keys;
use crate::config::Settings;
use crate::exit::Usage;
use crate::output;

pub(crate) fn run(settings: &Settings, args: &args::Token) -> anyhow::Result<()> {
    let lifetime = lifetime(&args.lifetime)?;
    let keys = keys::existing(settings)?.with_context(|| {
        format!(
            "there is no signing key in {}; `abax serve` makes one on its first start (name its \
             directory with --data or --root, or a shared key with --signing-key)",
            settings.data().display()
        )
    })?;
    let roles: &[&str] = match args.role {
        TokenRole::Admin => &["admin"],
        TokenRole::Privileged => &["privileged"],
        TokenRole::User => &[],
    };
    let token = keys::mint(&keys, &args.user, &args.tenant, roles, lifetime);
    // The token alone: `export TOKEN=$(abax token)`.
    output::line(token.expose_secret())?;
    Ok(())
}

/// `30m`, `12h`, `7d`: a whole number and a unit.
fn lifetime(text: &str) -> Result<Duration, Usage> {
    let wrong = || Usage(format!("--lifetime {text}: write it like 30m, 12h or 7d"));
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    // A hundred years are as good as for ever, and clocks can hold them.
    match number.checked_mul(seconds) {
        Some(seconds @ 1..=3_153_600_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(lifetime(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "12", "h", "-1h", "0h", "1y", "99999999999999999d", "1é"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
