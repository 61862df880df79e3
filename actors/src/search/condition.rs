//! One condition: a field, an operator, and values of the field's type.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder, bytes};
use serde_json::Value;

use super::field::{self, Field, Kind, LOG};
use super::{Collection, MOST_TERMS, Typing, json, moment};
use crate::clock::Time;

/// Bytes of a regular expression.
const LONGEST_REGEX: usize = 1_000;
/// How deep its groups are nested.
const NESTED: u32 = 50;
/// Bytes that a regular expression may take when it is compiled.
const LARGEST_REGEX: usize = 1 << 20;
/// Bytes that it may take without the tables of Unicode: its states. Where they are
/// too many to be remembered, each byte of a text costs a walk through them, for this
/// much four seconds in a text of a megabyte.
const MOST_STATES: usize = 32 << 10;
/// The same for one that needs those tables, so that they count.
const MOST_STATES_WITH_TABLES: usize = 64 << 10;
/// Abaco's two sorts of `token`: a choice is a truth, a default is text.
const CHOSEN_TOKEN: &str = "case when a.token_chosen then a.token end";
const DEFAULT_TOKEN: &str =
    "case when a.token_chosen then null when a.token then 'true' else 'false' end";

/// What a record must fulfil.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// All do, or none.
    Constant(bool),
    /// The column has one of the values, or is null where `null` says so; negated,
    /// it has none of them, and is not null where `null` says so.
    Column { column: &'static str, values: Vec<Scalar>, null: bool, negated: bool },
    /// What is decided on the column's text.
    Text { column: &'static str, test: TextTest },
    /// What is decided on a value within the column's JSON.
    Json { column: &'static str, path: Vec<String>, test: JsonTest, negated: bool },
}

/// A value that a column may have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Text(String),
    Truth(bool),
    Whole(i64),
    /// From the first on, and before the second.
    Span(Option<i64>, Option<i64>),
}

/// What a text must fulfil.
#[derive(Clone, Debug)]
pub(crate) enum TextTest {
    AnyOf { values: Vec<String>, negated: bool },
    Ordered(Order, String),
    Matches { regex: Regex, negated: bool },
}

/// What a value within JSON must fulfil.
#[derive(Clone, Debug)]
pub(crate) enum JsonTest {
    AnyOf(Vec<Value>),
    Ordered(Order, Value),
    Between(f64, f64),
    Matches(Regex),
}

/// The side of a bound on which a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    /// The values on this side of a bound, where `floor` is the last whole number
    /// up to it, and `ceil` the first from it on.
    fn span(self, floor: i64, ceil: i64) -> Scalar {
        match self {
            Self::Less => Scalar::Span(None, Some(ceil)),
            Self::LessOrEqual => Scalar::Span(None, Some(floor.saturating_add(1))),
            Self::Greater => Scalar::Span(Some(floor.saturating_add(1)), None),
            Self::GreaterOrEqual => Scalar::Span(Some(ceil), None),
        }
    }
}

impl Condition {
    /// The column whose text decides, where it is not the database that does.
    pub(crate) fn text_column(&self) -> Option<&'static str> {
        match self {
            Self::Constant(_) | Self::Column { .. } => None,
            Self::Text { column, .. } | Self::Json { column, .. } => Some(column),
        }
    }

    /// Whether a row fulfils it whose column has `text`; a condition of the
    /// database's is fulfilled.
    pub(crate) fn holds(&self, text: Option<&str>) -> bool {
        match self {
            Self::Constant(_) | Self::Column { .. } => true,
            Self::Text { test, .. } => test.holds(text),
            Self::Json { path, test, negated, .. } => {
                let root = text.and_then(|text| serde_json::from_str(text).ok());
                let values = root.as_ref().map_or_else(Vec::new, |root| json::at(root, path));
                test.holds(&values) != *negated
            }
        }
    }

    /// Equality, or its opposite, with any of `operands`.
    fn any_of(field: &Place, operands: Vec<Operand>, negated: bool) -> Result<Self, String> {
        let Place { column, kind, path, typing } = field;
        if *kind == Kind::Json {
            let values = operands.into_iter().map(Operand::into_json).collect();
            let test = JsonTest::AnyOf(values);
            return Ok(Self::Json { column, path: path.clone(), test, negated });
        }
        let (mut values, mut null) = (Vec::new(), false);
        for operand in operands {
            match operand {
                Operand::Null => null = true,
                other => values.extend(scalar(*kind, other, *typing)?),
            }
        }
        if *column == LOG {
            // A log is in no column.
            let texts = values.into_iter().filter_map(|value| match value {
                Scalar::Text(text) => Some(text),
                _ => None,
            });
            let test = TextTest::AnyOf { values: texts.collect(), negated };
            return Ok(Self::Text { column, test });
        }
        Ok(Self::Column { column, values, null, negated })
    }
}

impl TextTest {
    fn holds(&self, text: Option<&str>) -> bool {
        match self {
            Self::AnyOf { values, negated } => {
                text.is_some_and(|text| values.iter().any(|value| value == text)) != *negated
            }
            Self::Ordered(order, bound) => {
                text.is_some_and(|text| order.allows(text.cmp(bound.as_str())))
            }
            Self::Matches { regex, negated } => {
                text.is_some_and(|text| regex.is_match(text)) != *negated
            }
        }
    }
}

impl JsonTest {
    fn holds(&self, values: &[&Value]) -> bool {
        match self {
            Self::AnyOf(wanted) => {
                (values.is_empty() && wanted.contains(&Value::Null))
                    || values.iter().any(|v| wanted.iter().any(|w| json::equal(v, w)))
            }
            Self::Ordered(order, bound) => {
                values.iter().any(|v| json::order(v, bound).is_some_and(|o| order.allows(o)))
            }
            Self::Between(low, high) => values
                .iter()
                .filter_map(|v| v.as_f64())
                .any(|number| (*low..=*high).contains(&number)),
            Self::Matches(regex) => {
                values.iter().any(|v| v.as_str().is_some_and(|text| regex.is_match(text)))
            }
        }
    }
}

/// Where a condition looks, and what it finds there.
struct Place {
    column: &'static str,
    kind: Kind,
    path: Vec<String>,
    typing: Typing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Different,
    Ordered(Order),
    In,
    NotIn,
    Between,
    Like,
    NotLike,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "eq" => Self::Equal,
            "neq" => Self::Different,
            "lt" => Self::Ordered(Order::Less),
            "lte" => Self::Ordered(Order::LessOrEqual),
            "gt" => Self::Ordered(Order::Greater),
            "gte" => Self::Ordered(Order::GreaterOrEqual),
            "in" => Self::In,
            "nin" => Self::NotIn,
            "between" => Self::Between,
            "like" => Self::Like,
            "nlike" => Self::NotLike,
            _ => return None,
        })
    }

    fn is_negated(self) -> bool {
        matches!(self, Self::Different | Self::NotIn | Self::NotLike)
    }
}

/// The condition that `key=value` stands for.
pub(super) fn parse(
    collection: Collection,
    key: &str,
    value: &str,
    typing: Typing,
) -> Result<Condition, String> {
    let (name, operator) = match key.rsplit_once('.') {
        Some((name, last)) => match Operator::parse(last) {
            Some(operator) => (name, operator),
            None => (key, Operator::Equal),
        },
        None => (key, Operator::Equal),
    };
    let (head, path) = match name.split_once('.') {
        Some((head, path)) => (snake(head), path.split('.').map(str::to_owned).collect()),
        None => (snake(name), Vec::new()),
    };
    let whole = std::iter::once(&head).chain(&path).map(String::as_str).collect::<Vec<_>>();
    let found = field::find(collection, &whole.join("."))
        .map(|field| (field, Vec::new()))
        .or_else(|| field::find(collection, &head).map(|field| (field, path)))
        .filter(|(field, path)| path.is_empty() || field.kind == Kind::Json);
    match found {
        Some((field, path)) => on_field(field, path, operator, value, typing),
        None if typing == Typing::ByValue => on_nothing(operator, value),
        None => {
            let names: Vec<_> = field::all(collection).iter().map(|field| field.name).collect();
            let what = collection.as_str();
            Err(format!("{what} are not searched by this; they are by {}", names.join(", ")))
        }
    }
}

/// `createTime` → `create_time`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// A condition on a field that all records lack.
fn on_nothing(operator: Operator, value: &str) -> Result<Condition, String> {
    let null = match operator {
        Operator::Equal | Operator::Different => Operand::by_value(value) == Operand::Null,
        Operator::In | Operator::NotIn => list(value)?.contains(&Operand::Null),
        Operator::Between => pair(value).map(|_| false)?,
        Operator::Like | Operator::NotLike => regex(value).map(|_| false)?,
        Operator::Ordered(_) => false,
    };
    Ok(Condition::Constant(null != operator.is_negated()))
}

fn on_field(
    field: Field,
    path: Vec<String>,
    operator: Operator,
    value: &str,
    typing: Typing,
) -> Result<Condition, String> {
    let mut place = Place { column: field.column, kind: field.kind, path, typing };
    let negated = operator.is_negated();
    match operator {
        Operator::Equal | Operator::Different | Operator::In | Operator::NotIn => {
            let operands = match operator {
                Operator::In | Operator::NotIn => list(value)?,
                _ => vec![Operand::read(place.kind, value, typing)?],
            };
            if place.kind == Kind::Token {
                let text = operands.iter().any(|operand| matches!(operand, Operand::Text(_)));
                place.use_token(text);
            }
            Condition::any_of(&place, operands, negated)
        }
        Operator::Ordered(order) => ordered(&place, order, value),
        Operator::Between => between(&place, value),
        Operator::Like | Operator::NotLike => {
            let regex = regex(value)?;
            if place.kind == Kind::Token && typing == Typing::ByValue {
                place.use_token(true);
            }
            let Place { column, kind, path, .. } = place;
            match kind {
                Kind::Text => {
                    Ok(Condition::Text { column, test: TextTest::Matches { regex, negated } })
                }
                Kind::Json => {
                    let test = JsonTest::Matches(regex);
                    Ok(Condition::Json { column, path, test, negated })
                }
                kind if typing == Typing::ByField => {
                    Err(format!("like and nlike are for texts, and this is {}", noun(kind)))
                }
                _ => Ok(Condition::Constant(negated)),
            }
        }
    }
}

impl Place {
    /// The sort of `token` that is a text, or that is a truth; by field it is a truth.
    fn use_token(&mut self, text: bool) {
        (self.column, self.kind) = match self.typing {
            Typing::ByField => (self.column, Kind::Truth),
            Typing::ByValue if text => (DEFAULT_TOKEN, Kind::Text),
            Typing::ByValue => (CHOSEN_TOKEN, Kind::Truth),
        };
    }

    fn column(&self, value: Scalar) -> Condition {
        Condition::Column { column: self.column, values: vec![value], null: false, negated: false }
    }
}

fn ordered(place: &Place, order: Order, value: &str) -> Result<Condition, String> {
    let Place { column, kind, path, typing } = place;
    if *kind == Kind::Time {
        let millisecond = millisecond(value)?;
        // Whatever is shown as this millisecond is equal to it.
        return Ok(place.column(match order {
            Order::Less => Scalar::Span(None, Some(millisecond)),
            Order::LessOrEqual => Scalar::Span(None, Some(millisecond.saturating_add(1_000))),
            Order::Greater => Scalar::Span(Some(millisecond.saturating_add(1_000)), None),
            Order::GreaterOrEqual => Scalar::Span(Some(millisecond), None),
        }));
    }
    match (kind, Operand::read(*kind, value, *typing)?) {
        (Kind::Whole, Operand::Number(number)) => {
            Ok(place.column(order.span(number.floor(), number.ceil())))
        }
        (Kind::Text, Operand::Text(text)) => {
            Ok(Condition::Text { column, test: TextTest::Ordered(order, text) })
        }
        (Kind::Json, operand @ (Operand::Number(_) | Operand::Text(_))) => Ok(Condition::Json {
            column,
            path: path.clone(),
            test: JsonTest::Ordered(order, operand.into_json()),
            negated: false,
        }),
        _ if *typing == Typing::ByField => Err(format!("{} has no order", noun(*kind))),
        _ => Ok(Condition::Constant(false)),
    }
}

fn between(place: &Place, value: &str) -> Result<Condition, String> {
    let (low, high) = pair(value)?;
    let Place { column, kind, path, typing } = place;
    if *kind == Kind::Time {
        let high = millisecond(high)?.saturating_add(1_000);
        return Ok(place.column(Scalar::Span(Some(millisecond(low)?), Some(high))));
    }
    let (Some(low), Some(high)) = (Number::parse(low), Number::parse(high)) else {
        return Err("between takes two numbers, or two times on a field of times".to_owned());
    };
    match kind {
        Kind::Whole => {
            Ok(place.column(Scalar::Span(Some(low.ceil()), Some(high.floor().saturating_add(1)))))
        }
        Kind::Json => Ok(Condition::Json {
            column,
            path: path.clone(),
            test: JsonTest::Between(low.as_float(), high.as_float()),
            negated: false,
        }),
        kind if *typing == Typing::ByField => {
            Err(format!("between is for numbers and times, and this is {}", noun(*kind)))
        }
        _ => Ok(Condition::Constant(false)),
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text",
        Kind::Whole => "a whole number",
        Kind::Truth | Kind::Token => "true or false",
        Kind::Time => "a time",
        Kind::Json => "a JSON value",
    }
}

/// The value in a column that is `operand`; none where no column of the kind can be.
fn scalar(kind: Kind, operand: Operand, typing: Typing) -> Result<Option<Scalar>, String> {
    Ok(Some(match (kind, operand) {
        (Kind::Time, Operand::Text(text)) => {
            let millisecond = millisecond(&text)?;
            Scalar::Span(Some(millisecond), Some(millisecond.saturating_add(1_000)))
        }
        (Kind::Text, Operand::Text(text)) => Scalar::Text(text),
        (Kind::Truth, Operand::Truth(truth)) => Scalar::Truth(truth),
        (Kind::Whole, Operand::Number(number)) if number.floor() == number.ceil() => {
            Scalar::Whole(number.floor())
        }
        (Kind::Whole, Operand::Number(_)) => return Ok(None),
        (kind, _) if typing == Typing::ByField => return Err(format!("must be {}", noun(kind))),
        (Kind::Time, _) => return Err(NO_TIME.to_owned()),
        _ => return Ok(None),
    }))
}

/// A value before it is known what it is compared with.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Null,
    Truth(bool),
    Number(Number),
    Text(String),
    /// A list or an object.
    Json(Value),
}

impl Operand {
    fn read(kind: Kind, text: &str, typing: Typing) -> Result<Self, String> {
        let null = match typing {
            Typing::ByField => text == "null",
            Typing::ByValue => text.eq_ignore_ascii_case("none"),
        };
        if null {
            return Ok(Self::Null);
        }
        if kind == Kind::Time {
            return Ok(Self::Text(text.to_owned()));
        }
        if typing == Typing::ByValue {
            return Ok(Self::by_value(text));
        }
        let refused = || format!("must be {}", noun(kind));
        match kind {
            // In quotes, whatever it is.
            Kind::Text => {
                Ok(Self::Text(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())))
            }
            Kind::Whole => Number::parse(text).map(Self::Number).ok_or_else(refused),
            Kind::Truth | Kind::Token => truth(text).map(Self::Truth).ok_or_else(refused),
            Kind::Time | Kind::Json => Ok(serde_json::from_str(text)
                .map_or_else(|_| Self::Text(text.to_owned()), Self::from_json)),
        }
    }

    /// Abaco's order: truth, null, number, JSON in either sort of quotes, text.
    fn by_value(text: &str) -> Self {
        if let Some(truth) = truth(text) {
            return Self::Truth(truth);
        }
        if text.eq_ignore_ascii_case("none") {
            return Self::Null;
        }
        if let Some(number) = Number::parse(text) {
            return Self::Number(number);
        }
        either_quotes(text).map_or_else(|| Self::Text(text.to_owned()), Self::from_json)
    }

    fn from_json(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Truth(truth),
            Value::String(text) => Self::Text(text),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Self::Number(Number::Whole(whole)),
                (None, Some(float)) => Self::Number(Number::Float(float)),
                (None, None) => Self::Json(Value::Number(number)),
            },
            other => Self::Json(other),
        }
    }

    fn into_json(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Truth(truth) => truth.into(),
            Self::Number(Number::Whole(whole)) => whole.into(),
            Self::Number(Number::Float(float)) => float.into(),
            Self::Text(text) => text.into(),
            Self::Json(value) => value,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(i64),
    Float(f64),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        // The words for what is no number are none.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let float: f64 = text.parse().ok().filter(|_| numeric)?;
        float.is_finite().then_some(Self::Float(float))
    }

    fn floor(self) -> i64 {
        match self {
            Self::Whole(whole) => whole,
            Self::Float(float) => nearest(float.floor()),
        }
    }

    fn ceil(self) -> i64 {
        match self {
            Self::Whole(whole) => whole,
            Self::Float(float) => nearest(float.ceil()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "JSON's numbers are compared as floats")]
    fn as_float(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
    }
}

/// The whole number `float`, or the last there is on its side.
#[expect(clippy::cast_possible_truncation, reason = "what is too large becomes the largest")]
fn nearest(float: f64) -> i64 {
    float as i64
}

fn truth(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

const NO_TIME: &str = "must be a time: a year, and as much of 2000-01-31T23:59:59.999 as is known, then Z or an \
     offset such as -05:00";

/// The first microsecond of the millisecond that `text` names.
fn millisecond(text: &str) -> Result<i64, String> {
    let micros = moment::parse(text).map(Time::micros).ok_or_else(|| NO_TIME.to_owned())?;
    Ok(micros.div_euclid(1_000) * 1_000)
}

/// JSON, in single quotes too.
fn either_quotes(text: &str) -> Option<Value> {
    serde_json::from_str(text)
        .or_else(|_| {
            let swapped = text.chars().map(|c| match c {
                '\'' => '"',
                '"' => '\'',
                c => c,
            });
            serde_json::from_str(&swapped.collect::<String>())
        })
        .ok()
}

fn list(text: &str) -> Result<Vec<Operand>, String> {
    match either_quotes(text) {
        Some(Value::Array(items)) if items.len() <= MOST_TERMS => {
            Ok(items.into_iter().map(Operand::from_json).collect())
        }
        Some(Value::Array(_)) => Err(format!("at most {MOST_TERMS} values")),
        _ => Err("must be a JSON list, such as [\"COMPLETE\", \"ERROR\"]".to_owned()),
    }
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(',') {
        Some((low, high)) if !high.contains(',') => Ok((low.trim(), high.trim())),
        _ => Err("between takes two values with a comma between them".to_owned()),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    if text.len() > LONGEST_REGEX {
        return Err(format!("a regular expression has at most {LONGEST_REGEX} bytes"));
    }
    let states = bytes::RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MOST_STATES)
        .nest_limit(NESTED)
        .build();
    let size_limit = match states {
        Ok(_) => LARGEST_REGEX,
        Err(regex::Error::CompiledTooBig(_)) => {
            return Err("the regular expression has too many states: repeat less".to_owned());
        }
        Err(_) => MOST_STATES_WITH_TABLES,
    };
    RegexBuilder::new(text)
        .size_limit(size_limit)
        .dfa_size_limit(LARGEST_REGEX)
        .nest_limit(NESTED)
        .build()
        .map_err(|error| {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("no regular expression: {why}")
        })
}

#[cfg(test)]
mod tests {
    use Typing::{ByField, ByValue};

    use super::*;

    fn column(key: &str, value: &str, typing: Typing) -> (Vec<Scalar>, bool, bool) {
        match parse(Collection::Executions, key, value, typing).unwrap() {
            Condition::Column { values, null, negated, .. } => (values, null, negated),
            other => panic!("{key}={value}: {other:?}"),
        }
    }

    fn constant(collection: Collection, key: &str, value: &str) -> bool {
        match parse(collection, key, value, ByValue).unwrap() {
            Condition::Constant(constant) => constant,
            Condition::Column { values, null, negated, .. } if values.is_empty() && !null => {
                negated
            }
            other => panic!("{key}={value}: {other:?}"),
        }
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn values_have_the_type_of_their_field_or_their_own() {
        for (key, value, typing, expected) in [
            ("status", "COMPLETE", ByField, (vec![text("COMPLETE")], false, false)),
            ("status.neq", "COMPLETE", ByValue, (vec![text("COMPLETE")], false, true)),
            ("status", "1", ByField, (vec![text("1")], false, false)),
            ("status", "\"null\"", ByField, (vec![text("null")], false, false)),
            ("exitCode", "null", ByField, (vec![], true, false)),
            ("exit_code", "none", ByValue, (vec![], true, false)),
            ("exit_code.neq", "0", ByValue, (vec![Scalar::Whole(0)], false, true)),
            ("exit_code", "0.0", ByValue, (vec![Scalar::Whole(0)], false, false)),
            ("exit_code.gt", "1.5", ByField, (vec![Scalar::Span(Some(2), None)], false, false)),
            ("exit_code.lte", "1.5", ByField, (vec![Scalar::Span(None, Some(2))], false, false)),
            ("exit_code.lt", "2", ByField, (vec![Scalar::Span(None, Some(2))], false, false)),
            (
                "runtime.between",
                "1, 2.5",
                ByValue,
                (vec![Scalar::Span(Some(1), Some(3))], false, false),
            ),
            ("status.nin", "['COMPLETE', null, 1]", ByValue, (vec![text("COMPLETE")], true, true)),
            (
                "finalState.StartedAt.lt",
                "1970",
                ByField,
                (vec![Scalar::Span(None, Some(0))], false, false),
            ),
            (
                "finish_time",
                "1970-01-01T00:00:00.0015Z",
                ByValue,
                (vec![Scalar::Span(Some(1_000), Some(2_000))], false, false),
            ),
        ] {
            assert_eq!(column(key, value, typing), expected, "{key}={value}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        for (key, value, typing) in [
            ("exit_code", "x", ByField),
            ("exit_code.in", "[\"x\"]", ByField),
            ("exit_code.in", "x", ByValue),
            ("exit_code.in", "{}", ByValue),
            ("exit_code.between", "1", ByValue),
            ("exit_code.between", "1,2,3", ByValue),
            ("exit_code.between", "a,b", ByValue),
            ("status.between", "1,2", ByField),
            ("start_time.gt", "yesterday", ByValue),
            ("start_time", "1", ByValue),
            ("start_time.in", "[1]", ByValue),
            ("final_state.FinishedAt.between", "2000,x", ByValue),
            ("status.like", "(", ByValue),
            ("status.like", "a{1000}{1000}", ByValue),
            // Thousands of states, through which each byte of a text would walk.
            ("status.nlike", "a(?:[ab]{1000}){4}c", ByValue),
            ("status.nlike", "a[ab]{1000}c", ByValue),
            ("status.nlike", "[é]?a(?:[ab]{1000}){2}c", ByValue),
            ("exit_code.like", "1", ByField),
            ("nothing", "1", ByField),
            ("status.nothing", "1", ByField),
            ("nothing.in", "x", ByValue),
        ] {
            let parsed = parse(Collection::Executions, key, value, typing);
            let problem = parsed.expect_err(&format!("{key}={value}"));
            assert!(!problem.is_empty() && !problem.contains('\n'), "{key}={value}: {problem}");
        }
    }

    #[test]
    fn other_types_never_match_and_missing_fields_are_null() {
        for (key, value, matches) in [
            ("name", "1", false),
            ("name.neq", "1", true),
            ("name.gt", "1", false),
            ("revision", "x", false),
            ("revision.nlike", "x", true),
            ("stateless.gt", "true", false),
            ("nothing", "x", false),
            ("nothing", "none", true),
            ("nothing.neq", "x", true),
            ("nothing.nlike", "x", true),
            ("nothing.like", "x", false),
            ("nothing.nin", "[null]", false),
            ("nothing.gt", "2000", false),
            ("pretty", "true", false),
        ] {
            assert_eq!(constant(Collection::Actors, key, value), matches, "{key}={value}");
        }
    }

    #[test]
    fn texts_and_json_are_decided_row_by_row() {
        for (key, value, row, matches) in [
            ("image.like", "abaco.*test$", Some("abacosamples/test"), true),
            ("image.like", r"^\w+/\w+$", Some("abacosamples/test"), true),
            ("image.like", r"(?i)^[\w.-]+@[\w.-]+\.(org|com)$", Some("a@example.ORG"), true),
            ("image.like", r"^\p{L}+$", Some("Éclair"), true),
            ("image.like", "[é]", Some("café"), true),
            ("image.like", r"(?i)(error|warning|fatal|exception): .{1,80}", Some("Error: é"), true),
            ("image.like", r"\d{4}-\d\d-\d\d \d\d:\d\d", Some("2000-01-01 00:00"), true),
            ("image.like", "ABACO", Some("abacosamples/test"), false),
            ("image.nlike", "test", Some("abacosamples/test"), false),
            ("name.nlike", "test", None, true),
            ("name.gt", "b", Some("c"), true),
            ("name.gt", "b", None, false),
            ("name.lte", "b", Some("b"), true),
            ("hints", "sync", Some(r#"["sync", "gpu"]"#), true),
            ("hints.neq", "sync", Some(r#"["sync", "gpu"]"#), false),
            ("hints.in", "['x', 'gpu']", Some(r#"["sync", "gpu"]"#), true),
            ("hints.like", "^g", Some(r#"["sync", "gpu"]"#), true),
            ("mounts.mode", "ro", Some(r#"[{"mode": "rw"}, {"mode": "ro"}]"#), true),
            ("state.n.gt", "1", Some(r#"{"n": 2}"#), true),
            ("state.n.gt", "1", Some(r#"{"n": "2"}"#), false),
            ("state.n.between", "1,2", Some(r#"{"n": 2}"#), true),
            ("state.n", "none", Some("{}"), true),
            ("state.n.neq", "1", Some("{}"), true),
            ("state", "{'n': 1}", Some(r#"{"n": 1.0}"#), false),
            ("state", "{'n': 1}", Some(r#"{"n": 1}"#), true),
            ("default_environment.K", "v", Some(r#"{"K": "v"}"#), true),
        ] {
            let condition = parse(Collection::Actors, key, value, ByValue).unwrap();
            assert!(condition.text_column().is_some(), "{key}");
            assert_eq!(condition.holds(row), matches, "{key}={value} of {row:?}");
        }
    }

    #[test]
    fn the_token_is_a_truth_where_it_was_chosen() {
        for (value, typing, expected) in [
            ("false", ByValue, CHOSEN_TOKEN),
            ("\"false\"", ByValue, DEFAULT_TOKEN),
            ("false", ByField, "a.token"),
        ] {
            match parse(Collection::Actors, "token", value, typing).unwrap() {
                Condition::Column { column, values, .. } => {
                    assert_eq!((column, values.len()), (expected, 1), "{value}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
