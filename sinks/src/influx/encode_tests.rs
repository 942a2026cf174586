//! Golden lines, and a round trip through a parser that keeps to the rules of InfluxDB's.

use std::sync::Arc;

use arrow::array::{StringViewArray, TimestampNanosecondArray};
use proptest::prelude::*;

use super::*;

fn table(tags: usize, fields: usize) -> Table {
    let tags_end = 1 + tags;
    Table {
        rollup: "cpu,load avg".into(),
        time: 0,
        tags: (1..tags_end).collect(),
        fields: (tags_end..tags_end + fields).collect(),
        ..Table::default()
    }
}

fn rows(time: &[i64], columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(time.to_vec()));
    RecordBatch::try_from_iter(std::iter::once(("window_start", time)).chain(columns)).unwrap()
}

fn text(values: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringViewArray::from(values))
}

fn check(table: &Table, rows: &RecordBatch, expected: &[&str]) -> (u64, u64) {
    let mut lines = Lines::new(table, rows).unwrap();
    let texts: Vec<String> = lines.by_ref().map(|line| line.text).collect();
    assert_eq!(texts, expected);
    (lines.non_finite, lines.empty)
}

#[test]
fn tags_are_sorted_and_empty_ones_left_out() {
    let rows = rows(
        &[1, 2, 3, -4],
        vec![
            ("region", text(vec![Some("eu west"), Some(""), None, Some("a=b,c")])),
            ("host", text(vec![Some("h1"), Some("h2"), None, Some("h\n\\")])),
            ("avg", Arc::new(Float64Array::from(vec![Some(0.5), Some(1e300), Some(-0.0), Some(3.0)]))),
        ],
    );
    check(
        &table(2, 1),
        &rows,
        &[
            r"cpu\,load\ avg,host=h1,region=eu\ west avg=0.5 1",
            r"cpu\,load\ avg,host=h2 avg=1e300 2",
            r"cpu\,load\ avg avg=-0.0 3",
            r"cpu\,load\ avg,host=h\n\\ ,region=a\=b\,c avg=3.0 -4",
        ],
    );
}

#[test]
fn every_type_has_its_form() {
    let rows = rows(
        &[7],
        vec![
            ("f", Arc::new(Float64Array::from(vec![95.5]))),
            ("i", Arc::new(arrow::array::Int32Array::from(vec![-3]))),
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("b", Arc::new(BooleanArray::from(vec![true]))),
            ("s=1", text(vec![Some("say \"hi\\\"\n")])),
            ("t", Arc::new(TimestampNanosecondArray::from(vec![12]))),
            ("n", Arc::new(arrow::array::NullArray::new(1))),
        ],
    );
    check(
        &table(0, 7),
        &rows,
        &["cpu\\,load\\ avg f=95.5,i=-3i,u=18446744073709551615u,b=true,\
            s\\=1=\"say \\\"hi\\\\\\\"\n\",t=12i 7"],
    );
}

#[test]
fn what_influx_refuses_is_left_out_and_counted() {
    let float = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let rows = rows(
        &[1, 2, 3],
        vec![
            ("avg", float(vec![Some(f64::NAN), Some(f64::INFINITY), None])),
            ("max", float(vec![Some(1.0), Some(f64::NEG_INFINITY), None])),
        ],
    );
    assert_eq!(check(&table(0, 2), &rows, &[r"cpu\,load\ avg max=1.0 1"]), (3, 2));
}

#[test]
fn columns_that_cannot_be_stored_are_named() {
    let list = arrow::array::new_null_array(&DataType::new_list(DataType::Int64, true), 1);
    let cases = [
        (table(0, 1), rows(&[1], vec![("l", list)]), "column=`l`"),
        (table(1, 1), rows(&[1], vec![("l", text(vec![None]))]), "column 2 is missing"),
        (Table { time: 1, ..table(0, 0) }, rows(&[1], vec![("x", text(vec![None]))]), "column `x` must be"),
    ];
    for (table, rows, expected) in cases {
        let error = Lines::new(&table, &rows).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_hold_no_backslash_and_start_no_comment() {
    for (name, stored) in [("#a", "_a"), ("a\\", "a_"), ("a\nb", "a_b"), ("é#", "é#")] {
        assert_eq!(stored_name(name), stored);
    }
}

/// A line taken apart by the rules of InfluxDB's parser: in names and tags a backslash escapes
/// comma, equals and space and else stands for itself; an unescaped space ends the key; quotes only
/// matter in field values.
#[derive(Debug, PartialEq)]
struct Parsed {
    measurement: String,
    tags: Vec<(String, String)>,
    field: (String, String),
    time: i64,
}

fn parse(line: &str) -> Parsed {
    let mut rest = line.chars().collect::<Vec<_>>().into_iter().peekable();
    let mut token = |stops: &[char]| {
        let (mut out, mut previous) = (String::new(), ' ');
        for c in rest.by_ref() {
            if previous != '\\' && stops.contains(&c) {
                return (out, c);
            }
            if previous == '\\' && matches!(c, ',' | '=' | ' ') {
                out.pop();
            }
            out.push(c);
            previous = c;
        }
        panic!("line ends within {out:?}");
    };
    let (measurement, mut stop) = token(&[',', ' ']);
    let mut tags = Vec::new();
    while stop == ',' {
        let (name, _) = token(&['=']);
        let (value, next) = token(&[',', ' ']);
        tags.push((name, value));
        stop = next;
    }
    let (name, _) = token(&['=']);
    assert_eq!(rest.next(), Some('"'));
    let mut value = String::new();
    loop {
        match rest.next().unwrap() {
            '"' => break,
            '\\' => value.push(rest.next().unwrap()),
            c => value.push(c),
        }
    }
    assert_eq!(rest.next(), Some(' '));
    Parsed { measurement, tags, field: (name, value), time: rest.collect::<String>().parse().unwrap() }
}

/// Texts in which the characters with a meaning are common.
fn tricky() -> impl Strategy<Value = String> {
    prop_oneof!["[a,= \"\\\\\n\r#é\t]{0,8}", ".{0,12}"]
}

proptest! {
    #[test]
    fn lines_read_back_as_written(
        measurement in tricky(),
        (tag, value, other) in (tricky(), tricky(), tricky()),
        (field, string) in (tricky(), tricky()),
        time: i64,
    ) {
        prop_assume!(!measurement.is_empty() && !tag.is_empty() && !field.is_empty());
        let table = Table { rollup: measurement, ..table(2, 1) };
        let rows = rows(&[time], vec![
            (&tag, text(vec![Some(&value)])),
            ("~", text(vec![Some(&other)])),
            (&field, text(vec![Some(&string)])),
        ]);
        let line = Lines::new(&table, &rows).unwrap().next().unwrap();
        let mut tags: Vec<_> = [(stored_name(&tag), &value), ("~".into(), &other)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, stored_tag_value(value).into_owned()))
            .collect();
        tags.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = Parsed {
            measurement: stored_name(&table.rollup),
            tags,
            field: (stored_name(&field), string),
            time,
        };
        prop_assert_eq!(parse(&line.text), expected);
        prop_assert!(!line.point().0.contains('\n'));
    }

    #[test]
    fn different_tag_values_stay_apart(a in "[a\\\\]{1,6}", b in "[a\\\\]{1,6}") {
        prop_assert_eq!(a == b, stored_tag_value(&a) == stored_tag_value(&b));
    }
}
