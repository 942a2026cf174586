//! The lengths that windows are reckoned by.

/// In nanoseconds.
pub(crate) const HOUR: i64 = 3_600_000_000_000;
