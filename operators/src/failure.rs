//! What of a rollup could not be computed, and what that has cost.

use std::fmt;

/// A part of a rollup that failed. Everything else is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub rollup: String,
    pub cause: Cause,
    /// Of this [`Cause`].
    pub count: u64,
    /// What failed first, and why.
    pub first: String,
}

/// What could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Values: an operation of the SELECT failed on a point or a row and gave null for it.
    Value,
    /// Groups in a window: an aggregate failed for them, so they have no row.
    Group,
    /// Points that an aggregate does not take: they are missing from the rollup.
    Point,
    /// States that could not be merged or given out.
    State,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Group => "group",
            Self::Point => "point",
            Self::State => "state",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rollup, cause, count, first } = self;
        let what = match cause {
            Cause::Value => "values are null",
            Cause::Group => "groups of a window have no row",
            Cause::Point => "points are left out",
            Cause::State => "states are lost",
        };
        write!(f, "rollup `{rollup}`: {count} {what}, as an operation failed: {first}")
    }
}
