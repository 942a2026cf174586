//! Options of the Slack sink.

use crate::HttpConfig;

/// Where to post. The whole URL of an incoming webhook is a secret: who has it can write to the
/// channel.
#[derive(Debug, Clone)]
pub struct SlackConfig {
    pub http: HttpConfig,
}
