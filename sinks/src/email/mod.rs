//! Notifications by email: one message a recipient, as text and HTML, over SMTP.

mod config;
pub mod encode;
mod server;
mod sink;

pub use config::{EmailConfig, Tls};
pub use sink::EmailSink;
