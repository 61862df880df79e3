//! Conditions on values within JSON: a list fulfils what one of its elements does.

use serde_json::Value;

/// The values at `path`: of a list those of each element, and at the end both the
/// list and its elements.
pub(super) fn at<'v>(root: &'v Value, path: &[String]) -> Vec<&'v Value> {
    let mut found = Vec::new();
    reach(root, path, &mut found);
    found
}

fn reach<'v>(value: &'v Value, path: &[String], found: &mut Vec<&'v Value>) {
    let Some((name, rest)) = path.split_first() else {
        found.push(value);
        if let Value::Array(items) = value {
            found.extend(items);
        }
        return;
    };
    match value {
        Value::Object(members) => {
            if let Some(member) = members.get(name) {
                reach(member, rest, found);
            }
        }
        Value::Array(items) => {
            for item in items.iter().filter(|item| item.is_object()) {
                reach(item, path, found);
            }
            if let Some(item) = name.parse::<usize>().ok().and_then(|n| items.get(n)) {
                reach(item, rest, found);
            }
        }
        _ => {}
    }
}

/// Equal, numbers by what they are worth.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
        _ => one == other,
    }
}

/// The order of two values of the same type that has one.
pub(super) fn order(one: &Value, other: &Value) -> Option<std::cmp::Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64()?.partial_cmp(&other.as_f64()?),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// All texts in a JSON text, one a line, the names of members left out.
pub(super) fn text(json: &str) -> String {
    let mut text = String::new();
    if let Ok(value) = serde_json::from_str(json) {
        texts(&value, &mut text);
    }
    text
}

fn texts(value: &Value, text: &mut String) {
    match value {
        Value::String(one) => {
            text.push_str(one);
            text.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, text)),
        Value::Object(members) => members.values().for_each(|member| texts(member, text)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_looked_into() {
        let value = json!({"a": [{"b": 1}, {"b": [2, 3]}, 4], "c": null});
        for (path, expected) in [
            ("a.b", json!([1, [2, 3], 2, 3])),
            ("a.0.b", json!([1])),
            ("c", json!([null])),
            ("c.d", json!([])),
            ("x", json!([])),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(json!(at(&value, &path)), expected, "{path:?}");
        }
        assert!(equal(&json!(1), &json!(1.0)) && !equal(&json!(1), &json!("1")));
        assert_eq!(order(&json!(1), &json!("2")), None);
    }

    #[test]
    fn texts_are_the_strings_of_a_value() {
        assert_eq!(text(r#"{"a": ["x", {"b": "y"}], "c": 1}"#), "x\ny\n");
        assert_eq!(text("not JSON"), "");
    }
}
