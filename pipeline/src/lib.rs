//! The `tidemark` program: its roles and commands, and what they share. A module imports only from
//! those listed below it; `tests/suite/layers.rs` holds the order.
//!
//! - `cli`: the command line
//! - `commands`: what it offers, a module a command; `run` starts the roles
//! - `roles`: `ingest`, `rollup` and `notify`, each a member of a consumer group, and what members
//!   have in common
//! - `alerting`: the rules of a running process
//! - `storage`: what lies beside points and rollups, and reading both as SQL
//! - `board`: what roles know, for commands that ask
//! - `kafka`: clients and topics; `http`: the port of a process
//! - `catalog`: the rollups of the SQL files; `memory`: one budget, divided over what holds data;
//!   `error`
//! - `config`: `config/pipeline.toml` and `config/alerts.toml`
//! - `telemetry`: metrics and logs; `clock`, `time`: what time it is, and how it is written;
//!   `columns`: tables for people;
//!   `role`, `shutdown`

pub mod alerting;
pub mod board;
pub mod catalog;
pub mod cli;
pub mod clock;
mod columns;
pub mod commands;
pub mod config;
pub mod error;
pub mod http;
pub mod kafka;
pub mod memory;
pub mod role;
pub mod roles;
pub mod shutdown;
mod storage;
pub mod telemetry;
pub mod time;
