//! Values of a series as Prometheus' rule tests write them, and alerts as Prometheus writes series.
//!
//! | written | read |
//! |---|---|
//! | `5`, `-2.5`, `1e3` | one value |
//! | `5x3` | `5 5 5 5`: a value, and three more like it |
//! | `5+2x3` | `5 7 9 11`: a value, and three more, each so much higher |
//! | `5-2x3` | `5 3 1 -1` |
//! | `_` | none at this time |
//! | `_x3` | none at three times |

use std::collections::BTreeMap;

/// Times of one series: a week of seconds. More would be a mistake more often than a wish.
const MOST: usize = 604_800;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// In characters, from 1.
    pub(super) column: usize,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

/// The values of a series, one a time.
pub(super) fn values(text: &str) -> Result<Vec<Option<f64>>, Wrong> {
    let mut values = Vec::new();
    for item in text.split_whitespace() {
        // `item` is a slice of `text`.
        let before = &text[..item.as_ptr().addr() - text.as_ptr().addr()];
        let wrong = |problem, remedy| Wrong { column: before.chars().count() + 1, problem, remedy };
        let (first, step, more) = parsed(item).ok_or_else(|| {
            let problem = format!("`{item}` is no value of a series");
            wrong(problem, "write a number, `_` for none, `5x3` for `5 5 5 5`, `5+2x3` for `5 7 9 11`, or `_x3` for `_ _ _`")
        })?;
        let count = if first.is_some() { more.saturating_add(1) } else { more };
        if values.len().saturating_add(count) > MOST {
            let problem = format!("with `{item}` the series has more than {MOST} values");
            return Err(wrong(problem, "write fewer, at a longer interval"));
        }
        values.extend((0..count).map(|nth| first.map(|first| first + step * nth as f64)));
    }
    Ok(values)
}

/// The first value, the difference to each further one, and how many those are.
fn parsed(item: &str) -> Option<(Option<f64>, f64, usize)> {
    let (value, more) = match item.split_once('x') {
        Some((value, more)) => (value, Some(more.parse::<usize>().ok()?)),
        None => (item, None),
    };
    if value == "_" {
        return Some((None, 0.0, more.unwrap_or(1)));
    }
    if let Some(number) = number(value) {
        return Some((Some(number), 0.0, more.unwrap_or(0)));
    }
    // The sign of the step, not that of the value or of an exponent.
    let signs = value.char_indices().skip(1).filter(|(_, sign)| matches!(sign, '+' | '-'));
    let steps = signs.filter_map(|(at, _)| Some((number(&value[..at])?, number(&value[at..])?)));
    let (first, step) = steps.last()?;
    Some((Some(first), step, more?))
}

fn number(text: &str) -> Option<f64> {
    let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number: f64 = text.bytes().all(is_number).then(|| text.parse().ok())??;
    number.is_finite().then_some(number)
}

/// An alert as Prometheus writes a series: `cpu_high{host="a", region="eu"}`.
pub(super) fn alert(text: &str) -> Result<(String, BTreeMap<String, String>), Wrong> {
    const FORM: &str = "write the rule and its labels, like `cpu_high{host=\"a\"}`";
    let wrong = |rest: &str, problem: &str| {
        let passed = &text[..text.len() - rest.len()];
        Wrong { column: passed.chars().count() + 1, problem: problem.to_owned(), remedy: FORM }
    };
    let (rule, mut rest) = match text.split_once('{') {
        Some((rule, rest)) => (rule.trim(), rest),
        None => (text.trim(), "}"),
    };
    if rule.is_empty() {
        return Err(wrong(text, "the alert has no rule"));
    }
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return match after.trim().is_empty() {
                true => Ok((rule.to_owned(), labels)),
                false => Err(wrong(after, "the alert goes on after its labels")),
            };
        }
        let Some((name, value)) = rest.split_once('=') else {
            return Err(wrong(rest, "a label or the closing brace is missing here"));
        };
        let Some((value, after)) = quoted(value.trim_start()) else {
            return Err(wrong(value, "the label's value is not in double quotes"));
        };
        if name.trim().is_empty() || labels.insert(name.trim().to_owned(), value).is_some() {
            return Err(wrong(rest, "the label has no name, or one that another has"));
        }
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// A text in double quotes, and what is after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_series() {
        // Written, and read with `_` for none.
        let cases = [
            ("", ""),
            ("1", "1"),
            ("  1\t2\n 3 ", "1 2 3"),
            ("1x4", "1 1 1 1 1"),
            ("1x0", "1"),
            ("1+2x3", "1 3 5 7"),
            ("10-2x4", "10 8 6 4 2"),
            ("-2+4x3", "-2 2 6 10"),
            ("-1-1x1", "-1 -2"),
            ("0.5+0.25x2", "0.5 0.75 1"),
            ("1e3", "1000"),
            ("1e-1x1", "0.1 0.1"),
            ("1e2+1e1x2", "100 110 120"),
            ("1e-1-1e-1x1", "0.1 0"),
            ("+5", "5"),
            ("_", "_"),
            ("1 _x3 2", "1 _ _ _ 2"),
            ("_x0 1", "1"),
        ];
        for (text, expected) in cases {
            let read: Vec<String> = values(text)
                .unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
                .into_iter()
                .map(|value| value.map_or("_".to_owned(), |value| value.to_string()))
                .collect();
            assert_eq!(read.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_in_values_are_pointed_at() {
        let cases = [
            ("1 2 three", 5),
            ("x3", 1),
            ("1x", 1),
            ("1 1x-1", 3),
            ("1+2", 1),
            ("_+1x2", 1),
            ("inf", 1),
            ("ü NaN", 1),
            ("1 stale", 3),
            ("0x10x2", 1),
            ("1x604800", 1),
            ("1x18446744073709551615", 1),
        ];
        for (text, column) in cases {
            assert_eq!(values(text).map_err(|wrong| wrong.column), Err(column), "{text}");
        }
        assert_eq!(values("1x604799").map(|values| values.len()), Ok(604_800));
    }

    #[test]
    fn alerts() {
        let cases = [
            ("up", Ok(("up", vec![]))),
            ("up{}", Ok(("up", vec![]))),
            (
                r#" cpu_high { host = "a" , region="eu", } "#,
                Ok(("cpu_high", vec![("host", "a"), ("region", "eu")])),
            ),
            (r#"a{b="{x},\"y\"\\\n"}"#, Ok(("a", vec![("b", "{x},\"y\"\\\n")]))),
            (r#"{b="c"}"#, Err(1)),
            ("", Err(1)),
            (r#"a{b="c"} d"#, Err(9)),
            (r#"a{b}"#, Err(3)),
            (r#"a{b=c}"#, Err(5)),
            (r#"a{b="c}"#, Err(5)),
            (r#"a{b="c",b="d"}"#, Err(9)),
            (r#"a{="c"}"#, Err(3)),
            (r#"a{b="c""#, Err(8)),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(rule, labels): (&str, Vec<(&str, &str)>)| {
                let owned = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                (rule.to_owned(), owned.collect::<BTreeMap<_, _>>())
            });
            assert_eq!(alert(text).map_err(|wrong| wrong.column), expected, "{text}");
        }
    }
}
