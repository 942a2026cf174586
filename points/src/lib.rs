//! Points of series: their formats in bytes, read and written, and each series known by a number.
//!
//! - `decode`: message bytes to points, whatever the bytes
//! - `encode`: points to the messages that `decode` reads
//! - `series`: the series of decoded points, found by how messages spell them
//! - `book`: the series of points that are sent, found by name and labels
//!
//! No I/O, no clock, no DataFusion.

pub mod book;
pub mod decode;
pub mod encode;
pub mod series;
mod time;
