//! Alerts to an Alertmanager, which then groups, silences and sends by itself.

mod config;
pub mod encode;
mod sink;

pub use config::AlertmanagerConfig;
pub use sink::AlertmanagerSink;
