//! Pure computation on Arrow batches: no I/O, no clock, no waiting.
//!
//! In the order in which a point meets them, after the crate `points` has decoded it:
//! - `sql`: rollups defined in SQL files, refused or planned
//! - `epoch`: what was decoded in an epoch, as columns
//! - `partial`: one epoch's points to mergeable states, one message per rollup partition
//! - `exchange`: the format of those messages and of snapshots
//! - `fold`: what a `rollup` partition does with its log: merge, move the watermark, close and
//!   correct windows
//! - `failure`: what of a rollup could not be computed
//! - `overflow`: bounds on groups and state, and the group that takes what is beyond them
//! - `gaps`, `rebuild`: windows that the stream cannot give whole, computed from raw points instead
//! - `threshold`: alert rules over closed windows (their transitions are those of the crate
//!   `alerts`)
//! - `detach`: rows in memory of their own; `time`: lengths
//! - `watermark`, `window`, `state`, `keys`, `stages`: the parts of the fold and of the plans it
//!   runs

mod detach;
pub mod epoch;
mod error;
pub mod exchange;
pub mod failure;
pub mod fold;
pub mod gaps;
mod keys;
pub mod overflow;
pub mod partial;
pub mod rebuild;
pub mod sql;
mod stages;
mod state;
#[cfg(test)]
mod testing;
pub mod threshold;
mod time;
pub mod watermark;
pub mod window;

pub use error::{Error, Result};
