//! Notifications by HTTP, in the form of Alertmanager's webhook, so that whatever understands that
//! one understands this.

mod config;
pub mod encode;
mod signature;
mod sink;

pub use config::WebhookConfig;
pub use sink::WebhookSink;
