//! Times as text.

use chrono::{DateTime, SecondsFormat};

/// RFC 3339 in UTC of nanoseconds since the epoch, with as many digits as are needed.
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    DateTime::from_timestamp_nanos(nanoseconds).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
