//! What the command line offers, a module a command.
//!
//! - `run`: the roles of a process, from the configuration to a clean end; `demo`: all of them,
//!   with nothing installed
//! - `check`: everything that can be found wrong before a start; `explain`: what a rollup is
//!   planned as
//! - `load`, `sample`: points into Kafka, from files and from this machine
//! - `query`: SQL over what is stored; `repair`: results against the archive; `why`: the story of a
//!   row
//! - `alerts`: alerts, silences and acknowledgements, also over HTTP
//! - `rule_tests`, `backtest`: rules over points made up for a test, and over archived ones;
//!   `simulate`: the operators of both
//! - `health`: the health check of containers

pub mod alerts;
pub mod backtest;
pub mod check;
pub mod demo;
pub mod explain;
pub mod health;
pub mod load;
pub mod query;
pub mod repair;
pub mod rule_tests;
pub mod run;
pub mod sample;
pub(crate) mod simulate;
pub mod why;
