//! Points as JSON:
//! `{"name": "cpu.load", "labels": {"host": "a1"}, "ts": 1700000000, "value": 0.5}`.
//!
//! A message is one such object, an array of them, or either of these again and again, commonly one
//! a line. Other keys are ignored, and a key given twice is refused.
//!
//! - `name`: a string, not empty.
//! - `labels`: an object, null or missing. Values are strings; numbers and booleans are taken as
//!   they are written; null and the empty string mean that there is no such label. A key must not
//!   be empty.
//! - `ts`: a number or a string, see [`super::time`]; when null or missing, the message's own
//!   timestamp.
//! - `value`: a number; true is 1 and false is 0. Strings are refused, also when they hold a
//!   number.
//!
//! `{"heartbeat": ts}`, with neither `name` nor `value`, is no point: it moves event time to `ts`.
//!
//! After a syntax error in an object, decoding goes on with the next line. In an array it cannot,
//! since there is no telling where the next element starts: those before the error are kept, and
//! the rest of the message is one rejection.

use super::rejection::{Fault, Reason, shown};
use super::scan::{Scanner, is_number, unquote};
use super::time::parse_time;
use super::{LineNumbers, Outcome, Scratch, TextBounds, next_line};
use crate::series::SeriesTable;

/// The raw values of one object. A `fault` that leaves the syntax whole is kept until the object's
/// end has been read, where the next one starts.
#[derive(Default)]
struct RawPoint<'a> {
    name: Option<&'a [u8]>,
    labels: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    heartbeat: Option<&'a [u8]>,
    fault: Option<Fault>,
}

pub(super) fn decode(
    text: &[u8],
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
) {
    let mut scanner = Scanner::new(text);
    let mut lines = LineNumbers::new();
    while let Some(first) = scanner.peek() {
        let start = scanner.position;
        if first == b'[' {
            if let Err((element, fault)) =
                decode_array(&mut scanner, text, series, scratch, outcome, &mut lines)
            {
                let line = lines.at(text, start);
                outcome.reject(
                    fault,
                    || format!("line {line}, element {element}"),
                    &text[scanner.position..],
                    1,
                );
                return;
            }
            continue;
        }
        let decoded = match first {
            b'{' => decode_object(&mut scanner, series, scratch, outcome),
            _ => Err(scanner.unexpected("`{` or `[`")),
        };
        let refused = match decoded {
            Ok(Ok(())) => continue,
            // The object is whole: what follows it is a matter of its own.
            Ok(Err(fault)) => fault,
            Err(fault) => {
                scanner.position = next_line(text, start);
                fault
            }
        };
        let line = lines.at(text, start);
        outcome.reject(refused, || format!("line {line}"), text[start..scanner.position].trim_ascii_end(), 1);
    }
}

/// Decodes an array. When it is broken, the error is the number of the broken element, and the
/// scanner is left at that element's start.
fn decode_array(
    scanner: &mut Scanner<'_>,
    text: &[u8],
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
    lines: &mut LineNumbers,
) -> Result<(), (usize, Fault)> {
    let array = scanner.position;
    scanner.position += 1;
    if scanner.take(b']') {
        return Ok(());
    }
    for element in 1.. {
        let first = scanner.peek();
        let start = scanner.position;
        let decoded = if first == Some(b'{') {
            decode_object(scanner, series, scratch, outcome)
        } else {
            scanner.value().map(|raw| {
                let detail = format!("an element of an array must be an object, found=`{}`", shown(raw));
                Err(Fault::new(Reason::NotAPoint, detail))
            })
        };
        match decoded {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                let line = lines.at(text, array);
                let place = || format!("line {line}, element {element}");
                outcome.reject(fault, place, &text[start..scanner.position], 1);
            }
            Err(fault) => {
                scanner.position = start;
                return Err((element, fault));
            }
        }
        if scanner.take(b',') {
            continue;
        }
        return scanner.expect(b']').map_err(|fault| (element + 1, fault));
    }
    Ok(())
}

/// Decodes the object that comes next. The outer error is one of syntax, and leaves the scanner
/// anywhere; with the inner one the object has been passed, and is no point.
fn decode_object(
    scanner: &mut Scanner<'_>,
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
) -> Result<Result<(), Fault>, Fault> {
    let point = scan_object(scanner)?;
    Ok(accept(point, series, scratch, outcome))
}

fn scan_object<'a>(scanner: &mut Scanner<'a>) -> Result<RawPoint<'a>, Fault> {
    let mut point = RawPoint::default();
    scanner.expect(b'{')?;
    if scanner.take(b'}') {
        return Ok(point);
    }
    loop {
        let key = scanner.string()?;
        scanner.expect(b':')?;
        let value = scanner.value()?;
        let place = match key {
            b"\"name\"" => Some(&mut point.name),
            b"\"labels\"" => Some(&mut point.labels),
            b"\"ts\"" => Some(&mut point.time),
            b"\"value\"" => Some(&mut point.value),
            b"\"heartbeat\"" => Some(&mut point.heartbeat),
            _ if key.contains(&b'\\') => match unquote(key).as_deref() {
                Ok("name") => Some(&mut point.name),
                Ok("labels") => Some(&mut point.labels),
                Ok("ts") => Some(&mut point.time),
                Ok("value") => Some(&mut point.value),
                Ok("heartbeat") => Some(&mut point.heartbeat),
                _ => None,
            },
            _ => None,
        };
        if let Some(place) = place
            && place.replace(value).is_some()
        {
            let detail = format!("a key is given twice, key=`{}`", shown(key));
            point.fault = Some(Fault::new(Reason::DuplicateKey, detail));
        }
        if !scanner.take(b',') {
            break;
        }
    }
    scanner.expect(b'}')?;
    Ok(point)
}

fn accept(
    point: RawPoint<'_>,
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
) -> Result<(), Fault> {
    if let Some(fault) = point.fault {
        return Err(fault);
    }
    if let (Some(heartbeat), None, None) = (point.heartbeat, point.name, point.value) {
        let time = outcome.time(own_time(Some(heartbeat))?)?;
        outcome.heartbeat = outcome.heartbeat.max(Some(time));
        return Ok(());
    }
    let Some(name) = point.name else {
        return Err(Fault::new(Reason::BadName, "the point has no `name`"));
    };
    let value = parse_value(point.value)?;
    let time = outcome.time(own_time(point.time)?)?;

    // A raw name ends with its quote, so that the two cannot run into each other.
    let spelling = &mut scratch.spelling;
    spelling.clear();
    spelling.extend_from_slice(name);
    spelling.extend_from_slice(point.labels.unwrap_or_default());
    let id = match series.lookup(spelling) {
        Some(id) => id,
        None => {
            let name = parse_name(name)?;
            outcome.bounds.check_name(&name)?;
            parse_labels(point.labels, outcome.bounds, &mut scratch.labels)?;
            series.intern(spelling, &name, &mut scratch.labels)
        }
    };
    outcome.points.push(id, time, value);
    Ok(())
}

fn parse_name(raw: &[u8]) -> Result<String, Fault> {
    if !raw.starts_with(b"\"") {
        return Err(Fault::new(Reason::BadName, format!("`name` must be a string, found=`{}`", shown(raw))));
    }
    let name = unquote(raw)?;
    if name.is_empty() {
        return Err(Fault::new(Reason::BadName, "`name` is empty"));
    }
    Ok(name)
}

fn parse_value(raw: Option<&[u8]>) -> Result<f64, Fault> {
    let raw = match raw {
        Some(raw) if raw != b"null" => raw,
        _ => return Err(Fault::new(Reason::MissingValue, "the point has no `value`")),
    };
    if raw == b"true" {
        return Ok(1.0);
    }
    if raw == b"false" {
        return Ok(0.0);
    }
    if is_number(raw) {
        let number = std::str::from_utf8(raw).ok().and_then(|text| text.parse::<f64>().ok());
        return match number {
            Some(value) if value.is_finite() => Ok(value),
            _ => {
                Err(Fault::new(Reason::NotFinite, format!("the value is too large, found=`{}`", shown(raw))))
            }
        };
    }
    let word = raw.strip_prefix(b"-").unwrap_or(raw);
    if matches!(word, b"NaN" | b"nan" | b"Infinity" | b"inf" | b"Inf") {
        return Err(Fault::new(
            Reason::NotFinite,
            format!("the value is not finite, found=`{}`", shown(raw)),
        ));
    }
    let detail = format!("`value` must be a number or a boolean, without quotes, found=`{}`", shown(raw));
    Err(Fault::new(Reason::BadValue, detail))
}

fn own_time(raw: Option<&[u8]>) -> Result<Option<i64>, Fault> {
    let raw = match raw {
        Some(raw) if raw != b"null" => raw,
        _ => return Ok(None),
    };
    match raw {
        [b'"', text @ .., b'"'] => parse_time(text).map(Some),
        _ => parse_time(raw).map(Some),
    }
}

fn parse_labels(
    raw: Option<&[u8]>,
    bounds: TextBounds,
    labels: &mut Vec<(String, String)>,
) -> Result<(), Fault> {
    labels.clear();
    let raw = match raw {
        Some(raw) if raw != b"null" => raw,
        _ => return Ok(()),
    };
    if !raw.starts_with(b"{") {
        return Err(Fault::new(
            Reason::BadLabel,
            format!("`labels` must be an object, found=`{}`", shown(raw)),
        ));
    }
    let mut scanner = Scanner::new(raw);
    scanner.expect(b'{')?;
    if scanner.take(b'}') {
        return Ok(());
    }
    loop {
        let key = unquote(scanner.string()?)?;
        scanner.expect(b':')?;
        let value = scanner.value()?;
        if key.is_empty() {
            return Err(Fault::new(Reason::BadLabel, "a label has an empty key"));
        }
        let value = match value {
            b"null" => String::new(),
            b"true" | b"false" => String::from_utf8_lossy(value).into_owned(),
            [b'"', ..] => unquote(value)?,
            _ if is_number(value) => String::from_utf8_lossy(value).into_owned(),
            _ => {
                let detail = format!(
                    "a label must be a string, a number or a boolean, label=`{}`, found=`{}`",
                    shown(key.as_bytes()),
                    shown(value)
                );
                return Err(Fault::new(Reason::BadLabel, detail));
            }
        };
        bounds.check_label(&key, &value)?;
        labels.push((key, value));
        if !scanner.take(b',') {
            break;
        }
    }
    scanner.expect(b'}')?;
    super::refuse_duplicates(labels)
}
