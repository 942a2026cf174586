//! Why a point was refused: in words for people, and in bytes for the dead-letter topic.

use std::fmt;

/// The raw bytes kept of a refused point. Longer ones are cut.
pub const MAX_EXCERPT_BYTES: usize = 4 << 10;

/// Refused points of one message that are described one by one. Further ones are only counted, in
/// the last entry, so that a message of rubbish does not turn into hundreds of times its size.
pub const MAX_REJECTIONS: usize = 1_000;

/// Why a point was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The message is larger than `max_message_bytes`; nothing in it was read.
    Oversize,
    /// The text is neither valid JSON nor valid line protocol.
    Syntax,
    /// A name or a label is not UTF-8.
    InvalidUtf8,
    /// JSON brackets are nested too deep.
    TooDeep,
    /// A JSON value that should be a point is no object.
    NotAPoint,
    /// There is no name, or it is empty or no string.
    BadName,
    /// A label has no key, or a value that is no scalar.
    BadLabel,
    /// A name, or the key or value of a label, is longer than its bound.
    LabelTooLong,
    /// A key, a label or a field is given twice, so that it is undefined which one is meant.
    DuplicateKey,
    /// The point has no value.
    MissingValue,
    /// The value is not a number.
    BadValue,
    /// The value is a string, which line protocol allows and a metric cannot hold.
    StringValue,
    /// The value is NaN, infinite, or too large for a 64-bit float.
    NotFinite,
    /// The timestamp cannot be understood.
    BadTimestamp,
    /// Neither the point nor its message has a timestamp.
    MissingTimestamp,
    /// The timestamp is before the oldest accepted time.
    TimestampTooOld,
    /// The timestamp is further ahead of the wall clock than `max_future_skew`.
    FutureTimestamp,
}

impl Reason {
    /// A stable name, for metric labels and message headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Oversize => "oversize",
            Reason::Syntax => "syntax",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::TooDeep => "too_deep",
            Reason::NotAPoint => "not_a_point",
            Reason::BadName => "bad_name",
            Reason::BadLabel => "bad_label",
            Reason::LabelTooLong => "label_too_long",
            Reason::DuplicateKey => "duplicate_key",
            Reason::MissingValue => "missing_value",
            Reason::BadValue => "bad_value",
            Reason::StringValue => "string_value",
            Reason::NotFinite => "not_finite",
            Reason::BadTimestamp => "bad_timestamp",
            Reason::MissingTimestamp => "missing_timestamp",
            Reason::TimestampTooOld => "timestamp_too_old",
            Reason::FutureTimestamp => "future_timestamp",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    pub reason: Reason,
    /// For people: what is wrong, and what would be right.
    pub detail: String,
    /// Where in the message: `message`, `line 3`, `line 3, field usage_idle`, `line 1, element 17`,
    /// and the byte of a syntax error.
    pub place: String,
    /// The raw bytes of the refused point, at most [`MAX_EXCERPT_BYTES`] of them.
    pub excerpt: Vec<u8>,
    /// How many points this stands for. More than 1 when the timestamp of a line with several
    /// fields is refused, and in the last entry of a message that has more than [`MAX_REJECTIONS`].
    /// A part that cannot be divided into points, such as the rest of a broken array, counts as 1.
    pub count: usize,
    /// The event time, where that is what was refused; nanoseconds since the epoch.
    pub time: Option<i64>,
}

/// A reason and its detail, before it is known where they belong.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// The event time, where that is what is wrong.
    pub(super) time: Option<i64>,
}

impl Fault {
    #[cold]
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), time: None }
    }

    #[cold]
    pub(super) fn of_time(reason: Reason, detail: String, time: i64) -> Self {
        Self { reason, detail, time: Some(time) }
    }
}

/// Raw bytes as they may be shown in a detail: cut short and printable.
pub(super) fn shown(raw: &[u8]) -> String {
    const LONGEST: usize = 64;
    let text = String::from_utf8_lossy(&raw[..raw.len().min(LONGEST)]);
    let dots = if raw.len() > LONGEST { "…" } else { "" };
    format!("{}{dots}", text.escape_debug())
}
