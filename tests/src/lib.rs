//! What the trials and the benchmark stand on: real servers, scripted receivers, made-up input.
//!
//! | module | gives |
//! |---|---|
//! | [`kafka`], [`influx`], [`alertmanager`], [`duckdb`], [`flink`] | the real thing, provided by the scripts in `tests/servers` |
//! | [`webhook_consumer`] | webhooks read by Alertmanager's own code |
//! | [`offsets`] | how far a group has come, asked again and again |
//! | [`tidemark`] | the built program as a child process, its metrics, its end |
//! | [`smtp`], [`mail`], [`http`] | receivers that record what they get, and answer or misbehave by a script or a seed |
//! | [`secrets`] | the secret of all trials, and that nothing shows it |
//! | [`serving`] | any router on a port of loopback |
//! | [`input`], [`nab`] | points: generated from a seed, or a recorded data set |
//! | [`oracle`] | a rollup's SELECT in batch, and what differs from it |
//! | [`drill`] | faults while points flow, and the accounting afterwards |
//! | [`notices`] | the licences of everything that is linked into the program |
//! | [`wait`] | waiting for an event, never for a while |
//!
//! Starting something that this machine cannot run gives [`Unavailable`], and a trial says that it
//! skips and why. Every other failure of the harness is a failure of the trial, so methods here
//! panic, and the message has what was waited for, what was seen last, and the end of the server's
//! log. Methods block, and may be called from a thread of an async runtime too. Servers listen on
//! loopback only, keep their data in a temporary directory, and end with the process that started
//! them, however that ends.
#![allow(clippy::unwrap_used)]

pub mod alertmanager;
pub mod drill;
pub mod duckdb;
pub mod flink;
pub mod hmac;
pub mod http;
pub mod influx;
pub mod input;
pub mod kafka;
pub mod mail;
pub mod nab;
pub mod notices;
pub mod offsets;
pub mod oracle;
pub mod process;
pub mod provided;
pub mod secrets;
pub mod serving;
pub mod smtp;
pub mod tidemark;
pub mod tls;
pub mod wait;
pub mod webhook_consumer;

mod background;
mod ports;

pub use provided::Unavailable;
pub use wait::wait_until;
