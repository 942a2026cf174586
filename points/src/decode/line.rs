//! Points as InfluxDB line protocol:
//! `measurement,tag=value field=1.5,other=2i 1700000000000000000`.
//!
//! Each field is a point. Its name is `measurement.field`, or `measurement` alone for a field
//! called `value`; the tags are its labels. The timestamp is in nanoseconds; without one the
//! message's own counts. Blank lines and those that start with `#` are skipped, and lines may end
//! in CR LF.
//!
//! - Floats, integers (`2i`), unsigned integers (`2u`) become 64-bit floats, so integers above 2^53
//!   are rounded. Booleans (`t T true True TRUE f F false False FALSE`) become 1 and 0.
//! - A string field is a rejection of its own, and so is any other bad value: the line's other
//!   fields are kept. With a bad timestamp, tag or syntax the whole line is one rejection.
//! - A backslash escapes a comma, a space or an equals sign right after it, and is itself
//!   otherwise. Within string fields it escapes quotes and backslashes, and strings may go over
//!   several lines.
//! - A tag without a value is no label. A tag given twice refuses the line; a field given twice is
//!   refused, every time it is given, and the line's other fields are kept.
//!
//! Format: <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>.

use super::rejection::{Fault, Reason, shown};
use super::time::parse_nanoseconds;
use super::{LineNumbers, Outcome, Scratch, TextBounds, next_line, refuse_duplicates};
use crate::series::SeriesTable;
use std::ops::Range;

/// One field of the line being read: where its key and its value are in the text.
#[derive(Debug)]
pub(super) struct Field {
    key: Range<usize>,
    value: Range<usize>,
}

/// The parts of a line, as positions in the text. Its fields are in [`Scratch::fields`].
struct Line {
    /// Measurement and tags.
    head: Range<usize>,
    /// Empty when the line has no timestamp.
    time: Range<usize>,
    /// Behind the line feed.
    end: usize,
}

pub(super) fn decode(
    text: &[u8],
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
) {
    let mut lines = LineNumbers::new();
    let mut position = 0;
    loop {
        position = skip(text, position, b" \t\r\n");
        match text.get(position) {
            None => return,
            Some(b'#') => {
                position = next_line(text, position);
                continue;
            }
            Some(_) => {}
        }
        let start = position;
        match split(text, start, &mut scratch.fields) {
            Ok(line) => {
                position = line.end;
                accept(text, &line, series, scratch, outcome, &mut lines);
            }
            Err(fault) => {
                // A quote that is never closed must not swallow the lines after it.
                position = next_line(text, start);
                let number = lines.at(text, start);
                outcome.reject(fault, || format!("line {number}"), text[start..position].trim_ascii_end(), 1);
            }
        }
    }
}

/// Takes the points of a line, whose fields are in `scratch`.
fn accept(
    text: &[u8],
    line: &Line,
    series: &mut SeriesTable,
    scratch: &mut Scratch,
    outcome: &mut Outcome<'_>,
    lines: &mut LineNumbers,
) {
    let Scratch { spelling, labels, fields, order } = scratch;
    let time = match &text[line.time.clone()] {
        [] => outcome.time(None),
        own => parse_nanoseconds(own).and_then(|time| outcome.time(Some(time))),
    };
    let time = match time {
        Ok(time) => time,
        Err(fault) => return reject_line(fault, text, line, fields.len(), outcome, lines),
    };

    let head = &text[line.head.clone()];
    let has_duplicates = sort_if_duplicated(text, fields, order);
    for (index, field) in fields.iter().enumerate() {
        let value = if has_duplicates && is_duplicated(text, fields, order, field) {
            let key = shown(&text[field.key.clone()]);
            Err(Fault::new(Reason::DuplicateKey, format!("a field is given twice in a line, field=`{key}`")))
        } else {
            parse_value(&text[field.value.clone()])
        };
        let value = match value {
            Ok(value) => value,
            Err(fault) => {
                let number = lines.at(text, line.head.start);
                let key = shown(&text[field.key.clone()]);
                let place = || format!("line {number}, field {key}");
                outcome.reject(fault, place, text[line.head.start..line.end].trim_ascii_end(), 1);
                continue;
            }
        };
        // The bytes from the measurement to the equals sign after the field's key. Spellings of
        // JSON never end in that, so that the two cannot be taken for each other.
        let known = if field.key.start == line.head.end + 1 {
            series.lookup(&text[line.head.start..=field.key.end])
        } else {
            spell(spelling, head, &text[field.key.clone()]);
            series.lookup(spelling)
        };
        let id = match known {
            Some(id) => id,
            None => {
                spell(spelling, head, &text[field.key.clone()]);
                match parse_series(head, &text[field.key.clone()], outcome.bounds, labels) {
                    Ok(name) => series.intern(spelling, &name, labels),
                    Err(fault) => {
                        // What is wrong with the measurement or the tags is wrong for all fields.
                        return reject_line(fault, text, line, fields.len() - index, outcome, lines);
                    }
                }
            }
        };
        outcome.points.push(id, time, value);
    }
}

/// Lines of up to so many fields are searched for duplicates pair by pair.
const FEW_FIELDS: usize = 8;

/// Whether a field is given twice. If so, `order` has the fields by their keys. Keys are compared
/// as they are written: no two spellings have one meaning.
fn sort_if_duplicated(text: &[u8], fields: &[Field], order: &mut Vec<usize>) -> bool {
    let key = |index: usize| &text[fields[index].key.clone()];
    order.clear();
    if fields.len() <= FEW_FIELDS {
        let twice = (1..fields.len()).any(|later| (0..later).any(|earlier| key(earlier) == key(later)));
        if !twice {
            return false;
        }
    }
    order.extend(0..fields.len());
    order.sort_unstable_by_key(|index| key(*index));
    order.windows(2).any(|pair| key(pair[0]) == key(pair[1]))
}

fn is_duplicated(text: &[u8], fields: &[Field], order: &[usize], field: &Field) -> bool {
    let key = |index: usize| &text[fields[index].key.clone()];
    let own = &text[field.key.clone()];
    let first = order.partition_point(|index| key(*index) < own);
    order.get(first + 1).is_some_and(|next| key(*next) == own)
}

#[cold]
fn reject_line(
    fault: Fault,
    text: &[u8],
    line: &Line,
    count: usize,
    outcome: &mut Outcome<'_>,
    lines: &mut LineNumbers,
) {
    let number = lines.at(text, line.head.start);
    outcome.reject(
        fault,
        || format!("line {number}"),
        text[line.head.start..line.end].trim_ascii_end(),
        count,
    );
}

fn spell(spelling: &mut Vec<u8>, head: &[u8], key: &[u8]) {
    spelling.clear();
    spelling.extend_from_slice(head);
    spelling.push(b' ');
    spelling.extend_from_slice(key);
    spelling.push(b'=');
}

/// Finds the parts of the line that starts at `start`, which is neither blank nor a comment.
fn split(text: &[u8], start: usize, fields: &mut Vec<Field>) -> Result<Line, Fault> {
    fields.clear();
    let head = start..unescaped(text, start, |byte| matches!(byte, b' ' | b'\n'));
    let mut position = skip(text, head.end, b" ");
    loop {
        let key = position..unescaped(text, position, |byte| matches!(byte, b'=' | b',' | b' ' | b'\n'));
        if text.get(key.end) != Some(&b'=') {
            return Err(syntax(text, key.end, "a field as `key=value`"));
        }
        if key.is_empty() {
            return Err(syntax(text, key.end, "a field key before `=`"));
        }
        let value = key.end + 1..value_end(text, key.end + 1)?;
        position = value.end;
        if value.is_empty() {
            return Err(syntax(text, value.end, "a field value after `=`"));
        }
        fields.push(Field { key, value });
        if text.get(position) != Some(&b',') {
            break;
        }
        position += 1;
    }

    position = skip(text, position, b" ");
    let time = position..end_of(text, position, |byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let end = skip(text, time.end, b" \r");
    match text.get(end) {
        None => Ok(Line { head, time, end }),
        Some(b'\n') => Ok(Line { head, time, end: end + 1 }),
        Some(_) => Err(syntax(text, end, "the end of the line")),
    }
}

/// The end of the field value that starts at `start`: of a string after its closing quote.
fn value_end(text: &[u8], start: usize) -> Result<usize, Fault> {
    if text.get(start) != Some(&b'"') {
        return Ok(end_of(text, start, |byte| matches!(byte, b',' | b' ' | b'\r' | b'\n')));
    }
    let mut position = start + 1;
    while let Some(&byte) = text.get(position) {
        match byte {
            b'"' => {
                position += 1;
                return match text.get(position) {
                    None | Some(b',' | b' ' | b'\r' | b'\n') => Ok(position),
                    Some(_) => Err(syntax(text, position, "a comma or a space after a string")),
                };
            }
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    Err(syntax(text, start, "a string that is closed"))
}

/// The position of the next byte that fits, or the end.
#[inline]
fn end_of(text: &[u8], start: usize, fits: impl Fn(u8) -> bool) -> usize {
    text[start..].iter().position(|byte| fits(*byte)).map_or(text.len(), |length| start + length)
}

/// The position of the next byte that fits and has no backslash right before it, or the end. A line
/// feed cannot be escaped.
#[inline]
fn unescaped(text: &[u8], start: usize, fits: impl Fn(u8) -> bool) -> usize {
    let mut position = start;
    while position < text.len() {
        let byte = text[position];
        if fits(byte) && (position == start || text[position - 1] != b'\\' || byte == b'\n') {
            return position;
        }
        position += 1;
    }
    text.len()
}

fn skip(text: &[u8], start: usize, bytes: &[u8]) -> usize {
    let rest = &text[start..];
    rest.iter().position(|byte| !bytes.contains(byte)).map_or(text.len(), |length| start + length)
}

#[cold]
fn syntax(text: &[u8], position: usize, expected: &str) -> Fault {
    let found = match &text[position.min(text.len())..] {
        [] => "the end".to_owned(),
        rest => format!("`{}`", shown(&rest[..rest.len().min(16)])),
    };
    let detail = format!("invalid line protocol at byte {position}: expected {expected}, found={found}");
    Fault::new(Reason::Syntax, detail)
}

fn parse_value(raw: &[u8]) -> Result<f64, Fault> {
    let value = match raw {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Some(1.0),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Some(0.0),
        [b'"', ..] => {
            let detail = format!("a string field cannot be a metric, found=`{}`", shown(raw));
            return Err(Fault::new(Reason::StringValue, detail));
        }
        [digits @ .., b'i'] => number::<i64>(digits).map(|value| value as f64),
        [digits @ .., b'u'] => number::<u64>(digits).map(|value| value as f64),
        // Rust also reads words such as `inf` as floats.
        _ if raw.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            number::<f64>(raw)
        }
        _ => None,
    };
    let word = raw.strip_prefix(b"-").or(raw.strip_prefix(b"+")).unwrap_or(raw);
    let not_finite = [&b"nan"[..], b"inf", b"infinity"].iter().any(|name| word.eq_ignore_ascii_case(name));
    match value {
        Some(value) if value.is_finite() => Ok(value),
        None if !not_finite => {
            let detail = format!("a field must be a number or a boolean, found=`{}`", shown(raw));
            Err(Fault::new(Reason::BadValue, detail))
        }
        _ => Err(Fault::new(Reason::NotFinite, format!("the value is not finite, found=`{}`", shown(raw)))),
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The name of a field's series, and its labels.
fn parse_series(
    head: &[u8],
    key: &[u8],
    bounds: TextBounds,
    labels: &mut Vec<(String, String)>,
) -> Result<String, Fault> {
    labels.clear();
    let measurement = 0..unescaped(head, 0, |byte| byte == b',');
    if measurement.is_empty() {
        return Err(Fault::new(Reason::BadName, "the measurement is empty"));
    }
    let mut position = measurement.end;
    while position < head.len() {
        let tag = position + 1..unescaped(head, position + 1, |byte| byte == b',');
        let raw = &head[tag.clone()];
        let equals = unescaped(raw, 0, |byte| byte == b'=');
        if equals == raw.len() {
            let detail = format!("a tag must be written `key=value`, found=`{}`", shown(raw));
            return Err(Fault::new(Reason::Syntax, detail));
        }
        let value = &raw[equals + 1..];
        if unescaped(value, 0, |byte| byte == b'=') < value.len() {
            let detail =
                format!("an equals sign in a tag needs a backslash before it, found=`{}`", shown(raw));
            return Err(Fault::new(Reason::Syntax, detail));
        }
        let (key, value) = (unescape(&raw[..equals])?, unescape(value)?);
        if key.is_empty() {
            return Err(Fault::new(
                Reason::BadLabel,
                format!("a tag has an empty key, found=`{}`", shown(raw)),
            ));
        }
        bounds.check_label(&key, &value)?;
        labels.push((key, value));
        position = tag.end;
    }
    refuse_duplicates(labels)?;

    let mut name = unescape(&head[measurement])?;
    let field = unescape(key)?;
    if field != "value" {
        name.push('.');
        name.push_str(&field);
    }
    bounds.check_name(&name)?;
    Ok(name)
}

/// Resolves the escapes outside of strings.
fn unescape(raw: &[u8]) -> Result<String, Fault> {
    let Ok(text) = simdutf8::basic::from_utf8(raw) else {
        let detail = format!("a name or a tag is not utf-8, found=`{}`", shown(raw));
        return Err(Fault::new(Reason::InvalidUtf8, detail));
    };
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(&escaped @ (',' | ' ' | '='))) => {
                plain.push(escaped);
                characters.next();
            }
            _ => plain.push(character),
        }
    }
    Ok(plain)
}
