//! What people ask of alerts, on the command line and over HTTP.
//!
//! - `evidence`: from the topics; `ledger`: the ones that grow
//! - `why`, `show`: answers from it; `words`: their phrases; `commands`: silences and
//!   acknowledgements
//! - `cli`: `tidemark alerts`; `routes`: the same over HTTP; `times`: times as both of them write
//!   them

pub mod cli;
pub(crate) mod commands;
mod evidence;
mod ledger;
mod routes;
mod show;
mod times;
mod why;
mod words;

pub(crate) use routes::routes;
