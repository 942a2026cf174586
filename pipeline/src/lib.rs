//! The `tidemark` program: its roles, and what they share.
//!
//! - `ingest`, `rollup`, `notify`: the roles, each a member of a consumer group
//! - `group`, `lease`, `roles`, `shutdown`: joining groups, knowing that one was frozen, starting again, ending
//! - `role`: which roles there are; `memory`: one budget, divided over what holds data
//! - `kafka`, `topics`: clients and topics; `brokers`: whether one answers; `clock`: what time it is; `time`: how it is written; `http`, `telemetry`: being watched
//! - `board`: what roles know, for who asks
//! - `repair`, `cold`: results against the archive; what is stored, as tables for SQL; `storage`: which storage it is
//! - `backtest`, `rule_tests`: rules over archived points, and over points made up for a test
//! - `config`: `config/pipeline.toml` and `config/alerts.toml`; `catalog`: the rollups of the SQL files
//! - `cli`, `launch`, `check`, `explain`, `health`, `load`, `sample`, `query`, `why`, `demo`: what the command line offers

pub mod alerting;
pub mod backtest;
pub mod board;
mod brokers;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod clock;
mod cold;
mod compacted;
pub mod config;
pub mod demo;
pub mod error;
pub mod explain;
mod group;
pub mod health;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod launch;
mod lease;
pub mod load;
pub mod memory;
pub mod notify;
pub mod query;
pub mod repair;
pub mod role;
pub mod roles;
pub mod rollup;
pub mod rule_tests;
pub mod sample;
pub mod shutdown;
mod storage;
pub mod telemetry;
pub mod time;
pub mod topics;
pub mod why;
