//! The roles of a process: each on a thread of its own, sharing nothing but Kafka. None imports
//! another.
//!
//! - `context`: what every role is given, and how it is kept running
//! - `group`: members of a consumer group; `lease`: knowing that the process was frozen; `brokers`:
//!   whether one answers
//! - `ingest`: points to states; `rollup`: states to windows and alerts; `notify`: alerts to
//!   receivers

pub(crate) mod brokers;
pub mod context;
pub(crate) mod group;
pub mod ingest;
mod lease;
pub mod notify;
pub mod rollup;
