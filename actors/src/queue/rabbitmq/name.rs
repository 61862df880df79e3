use super::Place;

/// Bytes of a queue's name at which it is cut: AMQP takes 255.
const LONGEST: usize = 220;

/// `PREFIX.CLASS.TENANT`. What is no letter, digit, `-` or `_` in class and
/// tenant stands as `%` and two hexadecimal digits, so that two places never
/// have one name; a very long one ends in a sum of itself.
pub(super) fn queue_name(prefix: &str, place: &Place) -> String {
    let name = format!("{prefix}.{}.{}", encode(&place.class), encode(place.tenant.as_str()));
    if name.len() <= LONGEST {
        return name;
    }
    let sum = fnv1a(name.as_bytes());
    // A prefix is a setting and may hold anything.
    let end = (0..=LONGEST).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}~{sum:016x}", &name[..end])
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02x}"));
        }
    }
    encoded
}

/// FNV-1a of 64 bits. Two tenants whose names meet in it share a turn, no more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission::Tenant;

    fn name(class: &str, tenant: &str) -> String {
        queue_name("abax", &Place { class: class.into(), tenant: Tenant::new(tenant) })
    }

    #[test]
    fn names_are_safe_and_tell_places_apart() {
        for (class, tenant, expected) in [
            ("default", "ABAX", "abax.default.ABAX"),
            ("default", "a.b", "abax.default.a%2eb"),
            ("default.a", "b", "abax.default%2ea.b"),
            ("default", "a%2eb", "abax.default.a%252eb"),
            ("gpu", "µ #/*", "abax.gpu.%c2%b5%20%23%2f%2a"),
            ("gpu", "", "abax.gpu."),
        ] {
            assert_eq!(name(class, tenant), expected, "{class} {tenant}");
        }
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (one, other) = (name("default", &"µ".repeat(500)), name("default", &"µ".repeat(501)));
        assert!(one.len() <= 255 && other.len() <= 255, "{one}");
        assert_ne!(one, other);
    }
}
