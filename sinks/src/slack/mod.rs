//! Notifications to chats that take Slack's incoming webhooks: Slack, Mattermost, Rocket.Chat.

mod config;
pub mod encode;
mod sink;

pub use config::SlackConfig;
pub use sink::SlackSink;
