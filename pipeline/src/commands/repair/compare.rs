//! The differences between the rows that batch SQL gives and those that a store holds.

use std::collections::BTreeMap;

use sinks::rows::{Fields, RowKey, Value};

/// Sums of floats depend on the order of adding.
const TOLERANCE: f64 = 1e-9;

/// A row as batch SQL gives it.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// Its place in the batch.
    pub(super) row: u32,
    pub(super) fields: Fields,
    /// Fields that may lie between two values.
    pub(super) bounds: BTreeMap<String, (f64, f64)>,
    /// Fields that are not compared.
    pub(super) unjudged: Vec<String>,
}

/// How one row differs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Difference {
    /// Batch gives it, the store lacks it.
    Missing,
    /// The store has it, batch does not give it.
    Extra,
    /// Fields that differ: name, value of batch, value in the store.
    Fields(Vec<(String, Option<Value>, Option<Value>)>),
}

/// The rows that differ, in the order of their keys.
pub(super) fn differences(
    expected: &BTreeMap<RowKey, Expected>,
    found: &BTreeMap<RowKey, Fields>,
) -> BTreeMap<RowKey, Difference> {
    let mut all = BTreeMap::new();
    for (key, row) in expected {
        let difference = match found.get(key) {
            None => Some(Difference::Missing),
            Some(fields) => {
                let fields = different_fields(row, fields);
                (!fields.is_empty()).then_some(Difference::Fields(fields))
            }
        };
        all.extend(difference.map(|difference| (key.clone(), difference)));
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        all.insert(key.clone(), Difference::Extra);
    }
    all
}

fn different_fields(row: &Expected, found: &Fields) -> Vec<(String, Option<Value>, Option<Value>)> {
    let mut names: Vec<&String> = row.fields.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| {
        let (expected, found) = (row.fields.get(*name), found.get(*name));
        let is_same = match (expected, found) {
            _ if row.unjudged.contains(name) => expected.is_some() == found.is_some(),
            (Some(expected), Some(found)) => {
                is_close(expected, found)
                    || row.bounds.get(*name).is_some_and(|(low, high)| is_between(found, *low, *high))
            }
            (expected, found) => expected == found,
        };
        !is_same
    });
    let different = |name: &String| (name.clone(), row.fields.get(name).cloned(), found.get(name).cloned());
    names.into_iter().map(different).collect()
}

fn is_close(a: &Value, b: &Value) -> bool {
    if a == b {
        return true;
    }
    let is_float = matches!(a, Value::Float(_)) || matches!(b, Value::Float(_));
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) if a.is_nan() && b.is_nan() => true,
        (Some(a), Some(b)) if is_float => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn is_between(value: &Value, low: f64, high: f64) -> bool {
    let (low, high) = (low.min(high), low.max(high));
    let room = TOLERANCE * low.abs().max(high.abs());
    value.as_f64().is_some_and(|value| low - room <= value && value <= high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(time: i64) -> RowKey {
        RowKey { time, tags: BTreeMap::from([("host".to_owned(), "a".to_owned())]) }
    }

    fn fields(avg: f64, count: i64) -> Fields {
        BTreeMap::from([("avg".to_owned(), Value::Float(avg)), ("n".to_owned(), Value::Int(count))])
    }

    fn check(expected: Expected, found: Fields, differing: &[&str]) {
        let expected = BTreeMap::from([(key(0), expected)]);
        let found = BTreeMap::from([(key(0), found)]);
        let names: Vec<String> = match differences(&expected, &found).remove(&key(0)) {
            Some(Difference::Fields(fields)) => fields.into_iter().map(|(name, ..)| name).collect(),
            other => {
                assert_eq!(other, None);
                Vec::new()
            }
        };
        assert_eq!(names, differing);
    }

    #[test]
    fn fields_are_compared_one_by_one() {
        let row = |fields| Expected { fields, ..Expected::default() };
        check(row(fields(1.0, 2)), fields(1.0 + 1e-12, 2), &[]);
        check(row(fields(1.0, 2)), fields(1.0 + 1e-6, 3), &["avg", "n"]);
        check(row(fields(f64::NAN, 2)), fields(f64::NAN, 2), &[]);
        let mut lacking = fields(1.0, 2);
        lacking.remove("n");
        check(row(fields(1.0, 2)), lacking.clone(), &["n"]);
        check(row(lacking), fields(1.0, 2), &["n"]);
        // An integer that was written as a float is the same number.
        check(
            row(fields(3.0, 2)),
            Fields::from([("avg".into(), Value::Int(3)), ("n".into(), Value::UInt(2))]),
            &[],
        );
    }

    #[test]
    fn approximate_fields_have_room() {
        let bounds = BTreeMap::from([("avg".to_owned(), (2.0, 1.0))]);
        let row = Expected { fields: fields(1.5, 2), bounds, ..Expected::default() };
        check(row.clone(), fields(1.9, 2), &[]);
        check(row, fields(2.1, 2), &["avg"]);
        let row = Expected { fields: fields(1.5, 2), unjudged: vec!["avg".into()], ..Expected::default() };
        check(row.clone(), fields(9.0, 2), &[]);
        check(row, Fields::from([("n".into(), Value::Int(2))]), &["avg"]);
    }

    #[test]
    fn rows_are_missing_or_extra() {
        let expected = BTreeMap::from([(key(0), Expected::default()), (key(1), Expected::default())]);
        let found = BTreeMap::from([(key(1), Fields::new()), (key(2), Fields::new())]);
        let all = differences(&expected, &found);
        assert_eq!(all, BTreeMap::from([(key(0), Difference::Missing), (key(2), Difference::Extra)]));
    }
}
