//! JSON values as Python prints them: what `MSG` and the state look like inside
//! a container. Existing images call a literal parser on them.

use std::fmt::Write;

use crate::json::Tree;

/// `value` as Python's `str()`: a top-level string is not quoted.
pub(crate) fn print(value: &Tree) -> String {
    let mut out = String::new();
    match value {
        Tree::String(text) => out.push_str(text),
        other => literal(other, &mut out),
    }
    out
}

/// Python's `repr()`.
fn literal(value: &Tree, out: &mut String) {
    match value {
        Tree::Null => out.push_str("None"),
        Tree::Bool(true) => out.push_str("True"),
        Tree::Bool(false) => out.push_str("False"),
        Tree::Integer(digits) => out.push_str(digits),
        Tree::Float(float) => float_literal(*float, out),
        Tree::String(text) => string_literal(text, out),
        Tree::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                literal(item, out);
            }
            out.push(']');
        }
        Tree::Object(members) => {
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                string_literal(key, out);
                out.push_str(": ");
                literal(value, out);
            }
            out.push('}');
        }
    }
}

/// The shortest digits that read back as the same float; an exponent below
/// 1e-04 and from 1e+16 on, of two digits at least.
fn float_literal(float: f64, out: &mut String) {
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes a decimal exponent");
    if (-4..16).contains(&exponent) {
        let plain = format!("{float}");
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
}

fn string_literal(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`: not of the categories Other and Separator, but
/// for the blank.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{a0}' => false,
        // The standard library knows the same categories, and tells by what it
        // escapes. A letter goes first: a text that starts with a combining
        // character has that escaped as well.
        _ => {
            let mut buffer = [b'a'; 5];
            let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
            let text = std::str::from_utf8(&buffer[..length]).expect("a letter and a character");
            text.escape_debug().nth(1) == Some(c)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Json;
    use proptest::prelude::*;

    #[test]
    fn values_look_as_python_prints_them() {
        for (json, python) in [
            (r#"{"a": true, "b": null, "c": "x'y"}"#, r#"{'a': True, 'b': None, 'c': "x'y"}"#),
            ("{}", "{}"),
            ("[]", "[]"),
            ("[1,2 , [3]]", "[1, 2, [3]]"),
            (r#"{"a":1,"b":2,"a":3}"#, "{'a': 3, 'b': 2}"),
            ("true", "True"),
            ("null", "None"),
            (r#""plain 'text'""#, "plain 'text'"),
            (r#"["it's"]"#, r#"["it's"]"#),
            (r#"["say \"hi\""]"#, r#"['say "hi"']"#),
            (r#"["it's \"both\""]"#, r#"['it\'s "both"']"#),
            (r#"["a\\b\n\r\t\u0000\u001b\u007f"]"#, r"['a\\b\n\r\t\x00\x1b\x7f']"),
            (r#"["\b\f"]"#, r"['\x08\x0c']"),
            (r#"["é ü 日本 😀"]"#, "['é ü 日本 😀']"),
            (r#"["\u00a0\u00ad\u2028\u200b\ufeff"]"#, r"['\xa0\xad\u2028\u200b\ufeff']"),
            (r#"["\udb40\udc01\ue000"]"#, r"['\U000e0001\ue000']"),
            (r#"["e\u0301"]"#, "['e\u{301}']"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.0", "1.0"),
            ("0.1", "0.1"),
            ("1e5", "100000.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345678.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.5e-7", "1.5e-07"),
            ("1e100", "1e+100"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ] {
            assert_eq!(Json::parse(json).unwrap().to_python(), python, "{json}");
        }
    }

    proptest! {
        #[test]
        fn every_text_stays_on_one_line(text in "\\PC*|[\\x00-\\x20]*") {
            let json = Json::from(serde_json::json!([text]));
            let python = json.to_python();
            prop_assert!(!python.contains(['\n', '\r', '\0']), "{}", python);
        }

        #[test]
        fn floats_read_back(float in proptest::num::f64::NORMAL) {
            let python = Json::from(serde_json::json!(float)).to_python();
            prop_assert_eq!(python.parse::<f64>().unwrap(), float);
        }
    }
}
