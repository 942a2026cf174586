//! Where results go. Every sink is a folder with the same shape (config, encoding as a pure
//! function, sink) and answers to one trait, [`Sink`]: `Ok` from `flush` means that the data
//! survives a crash.
//!
//! | module | takes | delivers to |
//! |---|---|---|
//! | [`influx`] | [`RollupRows`] | InfluxDB 2, a bucket for each tier |
//! | [`parquet::rollup`] | [`RollupRows`] | Parquet files, the store when no InfluxDB is configured |
//! | [`parquet::raw`] | [`parquet::RawChunk`] | Parquet files of raw points, each point exactly once |
//! | [`parquet::ledger`] | [`parquet::LedgerChunk`] | Parquet files of the ledger of alerts, each entry exactly once |
//! | [`email`] | [`Notification`] | an SMTP server, one message a recipient |
//! | [`webhook`] | [`Notification`] | an HTTP endpoint, in the form of Alertmanager's webhook |
//! | [`slack`] | [`Notification`] | an incoming webhook of Slack, Mattermost or Rocket.Chat |
//! | [`alertmanager`] | [`Notification`] | Alertmanager's API for alerts |
//!
//! The last three share [`HttpConfig`] and how answers are understood. A sink of notifications
//! makes one attempt a write; its [`Error`] has whether another helps, when, and whether the
//! message may have arrived.
//!
//! [`rows`] is the form in which what the stores hold is compared. [`parquet::store::open`] turns a
//! directory or a URL into the object store under the Parquet sinks.

pub mod alertmanager;
pub mod email;
mod error;
mod http;
pub mod influx;
mod notify;
pub mod parquet;
mod plain;
pub mod rows;
mod sink;
pub mod slack;
mod timestamp;
pub mod webhook;
mod wording;

pub use error::{Error, FailedRecipient};
pub use http::{ClientCertificate, HttpConfig, private_address};
pub use notify::{Alert, Notification, Reason, Status};
pub use plain::{plain, plain_json, plain_lines};
pub use sink::{RollupRows, Sink, Table};
