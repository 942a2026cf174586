//! Points as messages that [`crate::decode`] reads: JSON, a point a line, or line protocol.

use std::fmt::Write;

use serde_json::Value;

use crate::book::{Series, SeriesBook};
use crate::time::rfc3339;

/// How a point is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    Json,
    /// Cannot write every series: see [`Encoder::prepare`].
    LineProtocol,
}

/// Encodes points of the series of a [`SeriesBook`]. What comes before a point's time and value is
/// made once for each series.
#[derive(Debug)]
pub struct Encoder {
    encoding: Encoding,
    heads: Vec<Result<String, String>>,
}

impl Encoder {
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, heads: Vec::new() }
    }

    /// Prepares every series of the book. `Err` has the reason why one of them cannot be written in
    /// this encoding.
    pub fn prepare(&mut self, book: &SeriesBook) -> Result<(), String> {
        let known = self.heads.len();
        for series in &book.all()[known..] {
            self.heads.push(match self.encoding {
                Encoding::Json => Ok(json_head(series)),
                Encoding::LineProtocol => line_head(series),
            });
        }
        self.heads[known..]
            .iter()
            .find_map(|head| head.as_ref().err())
            .map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Appends a point and a line break. `Err` as in [`Encoder::prepare`].
    pub fn append(
        &mut self,
        book: &SeriesBook,
        series: u32,
        time: i64,
        value: f64,
        out: &mut String,
    ) -> Result<(), String> {
        if book.all().len() > self.heads.len() {
            self.prepare(book)?;
        }
        let head = self.heads[series as usize].as_ref().map_err(Clone::clone)?;
        out.push_str(head);
        // `{:?}` writes the shortest digits that read back as the same number.
        let written = match self.encoding {
            Encoding::Json => writeln!(out, "{},\"value\":{value:?}}}", json_time(time)),
            Encoding::LineProtocol => writeln!(out, "{value:?} {time}"),
        };
        written.expect("a String takes everything");
        Ok(())
    }
}

/// A message that moves event time.
pub fn heartbeat(time: i64) -> String {
    format!("{{\"heartbeat\":{}}}", json_time(time))
}

/// Nanoseconds as a number where no reader takes them for another unit, as RFC 3339 where one might
/// (before 1973).
fn json_time(time: i64) -> String {
    if time >= 100_000_000_000_000_000 { time.to_string() } else { format!("\"{}\"", rfc3339(time)) }
}

/// Up to the time.
fn json_head(series: &Series) -> String {
    let labels: serde_json::Map<String, Value> =
        series.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let name = Value::from(series.name.as_str());
    format!("{{\"name\":{name},\"labels\":{},\"ts\":", Value::Object(labels))
}

/// Up to the value. The field is called `value`, which readers take for "the measurement itself".
fn line_head(series: &Series) -> Result<String, String> {
    let mut head = String::new();
    let parts = series.labels.iter().flat_map(|(key, value)| [key, value]);
    for part in std::iter::once(&series.name).chain(parts) {
        if part.contains(['\n', '\r']) || part.ends_with('\\') {
            let key = &series.key;
            return Err(format!(
                "series `{}` cannot be written as line protocol (a line break, or a backslash at an end)",
                key.escape_debug()
            ));
        }
    }
    if series.name.starts_with(['#', '{', '[']) {
        return Err(format!("series `{}` does not look like line protocol", series.key));
    }
    escape_into(&mut head, &series.name);
    for (key, value) in &series.labels {
        head.push(',');
        escape_into(&mut head, key);
        head.push('=');
        escape_into(&mut head, value);
    }
    head.push_str(" value=");
    Ok(head)
}

/// A name needs its equals signs escaped too: after a backslash of its own, one would be taken for
/// an escape.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        if matches!(c, ',' | ' ' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::decode::{DecodeOptions, Decoder, Points};
    use proptest::prelude::*;

    use super::*;

    /// Name, labels, time, value.
    type Read = (String, Vec<(String, String)>, i64, f64);

    /// Encodes a point and decodes it as `ingest` does. `None`: this encoding refuses the series.
    fn round_trip(
        encoding: Encoding,
        name: &str,
        labels: &[(String, String)],
        time: i64,
        value: f64,
    ) -> Option<Read> {
        let mut book = SeriesBook::default();
        let series = book.intern(name, labels);
        let mut message = String::new();
        Encoder::new(encoding).append(&book, series, time, value, &mut message).ok()?;
        let options =
            DecodeOptions { oldest: i64::MIN, max_future_skew: Duration::MAX, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(options, Vec::new());
        let (mut points, mut rejected) = (Points::default(), Vec::new());
        decoder.decode(message.as_bytes(), None, 0, &mut points, &mut rejected);
        assert!(rejected.is_empty(), "{message}: {rejected:?}");
        assert_eq!(points.len(), 1, "{message}");
        let decoded = decoder.series().get(points.series[0]);
        let labels = decoded.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some((decoded.name.to_owned(), labels, points.time[0], points.value[0]))
    }

    proptest! {
        #[test]
        fn ingest_reads_what_is_sent(
            name in "[a-zA-Z0-9 ,=\\\\\"{\\[#é\n]{1,8}",
            labels in proptest::collection::btree_map("[a-z ,=\\\\\"é]{1,4}", "[a-z ,=\\\\\"é\n]{1,4}", 0..3),
            time in -1_000_000_000_000_000_000_i64..2_000_000_000_000_000_000,
            value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        ) {
            let labels: Vec<(String, String)> = labels.into_iter().collect();
            for encoding in [Encoding::Json, Encoding::LineProtocol] {
                let read = round_trip(encoding, &name, &labels, time, value);
                if read.is_none() {
                    prop_assert_eq!(encoding, Encoding::LineProtocol, "JSON can write everything");
                    continue;
                }
                prop_assert_eq!(read, Some((name.clone(), labels.clone(), time, value)));
            }
        }
    }

    #[test]
    fn messages() {
        let mut book = SeriesBook::default();
        let series = book.intern("cpu load", &[("host".to_owned(), "a,b".to_owned())]);
        let cases = [
            (
                Encoding::Json,
                "{\"name\":\"cpu load\",\"labels\":{\"host\":\"a,b\"},\"ts\":1700000000000000000,\"value\":0.5}\n",
            ),
            (Encoding::LineProtocol, "cpu\\ load,host=a\\,b value=0.5 1700000000000000000\n"),
        ];
        for (encoding, expected) in cases {
            let mut message = String::new();
            let mut encoder = Encoder::new(encoding);
            encoder
                .append(&book, series, 1_700_000_000_000_000_000, 0.5, &mut message)
                .expect("can be written");
            assert_eq!(message, expected);
        }
        assert_eq!(heartbeat(0), "{\"heartbeat\":\"1970-01-01T00:00:00Z\"}");
    }
}
