//! Where results go. Every sink is a folder with the same shape (config, encoding as a pure function,
//! sink) and answers to one trait, [`Sink`]: `Ok` from `flush` means that the data survives a crash.
//!
//! | module | takes | delivers to |
//! |---|---|---|
//! | [`influx`] | [`RollupRows`] | InfluxDB 2, a bucket for each tier |
//! | [`parquet::rollup`] | [`RollupRows`] | Parquet files, the store when no InfluxDB is configured |
//! | [`parquet::raw`] | [`parquet::RawChunk`] | Parquet files of raw points, each point exactly once |
//! | [`email`] | [`Notification`] | an SMTP server, one message a recipient |
//! | [`webhook`] | [`Notification`] | an HTTP endpoint, in the form of Alertmanager's webhook |
//!
//! [`parquet::store::open`] turns a directory or a URL into the object store under the Parquet sinks.

pub mod email;
mod error;
mod http;
pub mod influx;
mod notify;
pub mod parquet;
mod sink;
mod timestamp;
pub mod webhook;

pub use error::{Error, FailedRecipient};
pub use notify::{Notification, Status};
pub use sink::{RollupRows, Sink, Table};
