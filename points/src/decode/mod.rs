//! Decoding of the messages on the `points` topic.
//!
//! A message carries one or many points as JSON (see [`json`]) or as line protocol (see [`line`]).
//! Decoding is total: any bytes give points and rejections, never a panic, and a bad point costs
//! none of its neighbours. Each point in a message is either accepted or described by a
//! [`Rejection`]; only blank messages, comments and heartbeats are neither.
//!
//! Accepted points have a finite value, a name that is not empty, labels without empty keys or
//! values, and a time from [`DecodeOptions::oldest`] to [`DecodeOptions::max_future_skew`] ahead of
//! the wall clock. No text of a series is longer than [`TextBounds`] allow.

mod bounds;
mod json;
mod line;
mod rejection;
mod scan;
mod time;

#[cfg(test)]
mod tests;

pub use bounds::TextBounds;
pub use rejection::{MAX_EXCERPT_BYTES, MAX_REJECTIONS, Reason, Rejection};

use crate::series::SeriesTable;
use crate::time::rfc3339;
use rejection::Fault;
use std::time::Duration;

/// How the messages of a topic are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// JSON when the first byte that is not blank is `{` or `[`, or else line protocol. A
    /// measurement whose name starts with a bracket needs [`Format::LineProtocol`].
    #[default]
    Auto,
    Json,
    LineProtocol,
}

/// What is accepted.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    pub format: Format,
    /// How far ahead of the wall clock a point may be. One bad clock must not make all others late.
    pub max_future_skew: Duration,
    /// Messages above this many bytes are refused unread.
    pub max_message_bytes: usize,
    /// Points before this, in nanoseconds since the epoch, are refused. The default, 1971, lets no
    /// timestamp pass that was meant as seconds, milliseconds or microseconds and is read as
    /// nanoseconds: they all land in January 1970. Set it lower to load older history.
    pub oldest: i64,
    pub bounds: TextBounds,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            max_future_skew: Duration::from_secs(300),
            max_message_bytes: 1 << 20,
            oldest: 365 * 24 * 3600 * 1_000_000_000,
            bounds: TextBounds::default(),
        }
    }
}

/// Decoded points, in columns of equal length.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Ids in the decoder's [`SeriesTable`].
    pub series: Vec<u32>,
    /// Event time in nanoseconds since the epoch.
    pub time: Vec<i64>,
    /// Always finite.
    pub value: Vec<f64>,
}

impl Points {
    /// Creates an empty set with room for `points` points.
    pub fn with_capacity(points: usize) -> Self {
        Self {
            series: Vec::with_capacity(points),
            time: Vec::with_capacity(points),
            value: Vec::with_capacity(points),
        }
    }

    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn clear(&mut self) {
        self.series.clear();
        self.time.clear();
        self.value.clear();
    }

    fn push(&mut self, series: u32, time: i64, value: f64) {
        self.series.push(series);
        self.time.push(time);
        self.value.push(value);
    }
}

/// What one message came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Decoded {
    /// Points accepted.
    pub points: usize,
    /// The latest heartbeat, in nanoseconds since the epoch: event time has come this far.
    pub heartbeat: Option<i64>,
}

/// Decodes messages, and interns the series found in them.
///
/// ```
/// use points::decode::{DecodeOptions, Decoder, Points};
///
/// let mut decoder = Decoder::new(DecodeOptions::default(), Vec::new());
/// let (mut points, mut rejected) = (Points::default(), Vec::new());
/// let now = 1_700_000_000_000_000_000;
/// let message = br#"{"name": "cpu", "labels": {"host": "a"}, "ts": 1700000000, "value": 93.5}
///     {"name": "cpu", "ts": 1700000000, "value": "high"}"#;
/// let decoded = decoder.decode(message, None, now, &mut points, &mut rejected);
/// assert_eq!(decoded.points, 1);
/// assert_eq!((points.time[0], points.value[0]), (now, 93.5));
/// // A bad point costs no neighbour, and has its reason.
/// assert_eq!(rejected.len(), 1);
/// ```
#[derive(Debug)]
pub struct Decoder {
    options: DecodeOptions,
    series: SeriesTable,
    scratch: Scratch,
}

/// Buffers that are reused from point to point.
#[derive(Debug, Default)]
struct Scratch {
    spelling: Vec<u8>,
    labels: Vec<(String, String)>,
    fields: Vec<line::Field>,
    order: Vec<usize>,
}

impl Decoder {
    /// `wanted_labels` get a column of their own, see [`SeriesTable::columns`].
    pub fn new(options: DecodeOptions, wanted_labels: Vec<String>) -> Self {
        Self { options, series: SeriesTable::new(wanted_labels), scratch: Scratch::default() }
    }

    /// Refuses points before `oldest` from now on, see [`DecodeOptions::oldest`].
    pub fn set_oldest(&mut self, oldest: i64) {
        self.options.oldest = oldest;
    }

    /// The series of all points decoded since it was last cleared.
    pub fn series(&mut self) -> &mut SeriesTable {
        &mut self.series
    }

    /// Decodes one message, and appends to `out` and `rejected`.
    ///
    /// `message_time` is the message's own timestamp, for points without one; `now` is the wall
    /// clock. Both are nanoseconds since the epoch.
    pub fn decode(
        &mut self,
        payload: &[u8],
        message_time: Option<i64>,
        now: i64,
        out: &mut Points,
        rejected: &mut Vec<Rejection>,
    ) -> Decoded {
        let skew = i64::try_from(self.options.max_future_skew.as_nanos()).unwrap_or(i64::MAX);
        let first_rejected = rejected.len();
        let first_point = out.len();
        let mut outcome = Outcome {
            message_time,
            oldest: self.options.oldest,
            latest: now.saturating_add(skew),
            bounds: self.options.bounds,
            heartbeat: None,
            points: out,
            first_rejected,
            rejected,
        };
        if payload.len() > self.options.max_message_bytes {
            let limit = self.options.max_message_bytes;
            let detail = format!(
                "the message is larger than max_message_bytes, size={}, limit={limit}",
                payload.len()
            );
            outcome.reject(Fault::new(Reason::Oversize, detail), || "message".to_owned(), payload, 1);
            return Decoded::default();
        }

        // Some editors and shells put a byte order mark before text.
        let text = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
        let is_json = match self.options.format {
            Format::Json => true,
            Format::LineProtocol => false,
            Format::Auto => {
                let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
                matches!(first, Some(b'{' | b'['))
            }
        };
        if is_json {
            json::decode(text, &mut self.series, &mut self.scratch, &mut outcome);
        } else {
            line::decode(text, &mut self.series, &mut self.scratch, &mut outcome);
        }
        let heartbeat = outcome.heartbeat;
        Decoded { points: out.len() - first_point, heartbeat }
    }
}

/// Where the points and rejections of one message go.
struct Outcome<'a> {
    message_time: Option<i64>,
    oldest: i64,
    latest: i64,
    bounds: TextBounds,
    heartbeat: Option<i64>,
    points: &'a mut Points,
    /// The rejections of this message start here.
    first_rejected: usize,
    rejected: &'a mut Vec<Rejection>,
}

impl Outcome<'_> {
    /// The time of a point that gives `own` time, or none, if that is acceptable.
    fn time(&self, own: Option<i64>) -> Result<i64, Fault> {
        let Some(time) = own.or(self.message_time) else {
            let detail = "neither the point nor its message has a timestamp";
            return Err(Fault::new(Reason::MissingTimestamp, detail));
        };
        if time < self.oldest {
            let detail = format!(
                "the timestamp is before the oldest accepted time (is its unit right?), oldest={}, found={}",
                rfc3339(self.oldest),
                rfc3339(time)
            );
            return Err(Fault::of_time(Reason::TimestampTooOld, detail, time));
        }
        if time > self.latest {
            let detail = format!(
                "the timestamp is further ahead than max_future_skew (is the sender's clock right?), latest={}, \
                 found={}",
                rfc3339(self.latest),
                rfc3339(time)
            );
            return Err(Fault::of_time(Reason::FutureTimestamp, detail, time));
        }
        Ok(time)
    }

    #[cold]
    fn reject(&mut self, fault: Fault, place: impl FnOnce() -> String, raw: &[u8], count: usize) {
        if self.rejected.len() - self.first_rejected >= MAX_REJECTIONS
            && let Some(last) = self.rejected.last_mut()
        {
            last.count += count;
            return;
        }
        let excerpt = raw[..raw.len().min(MAX_EXCERPT_BYTES)].to_vec();
        self.rejected.push(Rejection {
            reason: fault.reason,
            detail: fault.detail,
            place: place(),
            excerpt,
            count,
            time: fault.time,
        });
    }
}

/// The numbers of the lines that byte positions are in, for positions that only grow.
#[derive(Debug)]
struct LineNumbers {
    position: usize,
    line: usize,
}

impl LineNumbers {
    fn new() -> Self {
        Self { position: 0, line: 1 }
    }

    /// Counted from 1.
    fn at(&mut self, text: &[u8], position: usize) -> usize {
        let passed = &text[self.position..position];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.position = position;
        self.line
    }
}

/// The position after the next line feed, or the end.
fn next_line(text: &[u8], position: usize) -> usize {
    let rest = &text[position..];
    rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| position + length + 1)
}

/// Sorts labels by key, and refuses two with the same one.
fn refuse_duplicates(labels: &mut [(String, String)]) -> Result<(), Fault> {
    labels.sort_unstable();
    for pair in labels.windows(2) {
        if pair[0].0 == pair[1].0 {
            let detail =
                format!("a label is given twice, label=`{}`", rejection::shown(pair[0].0.as_bytes()));
            return Err(Fault::new(Reason::DuplicateKey, detail));
        }
    }
    Ok(())
}
