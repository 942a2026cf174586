//! How large a message may be: each topic has a bound, and a message beyond it is refused however
//! often it is sent.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::Plain;

/// What every own topic has to take, in bytes: the default of brokers.
pub(crate) const LEAST_MESSAGE_BYTES: usize = 1_000_000;

/// The largest message, in bytes, that a topic takes; none when the broker does not answer that.
///
/// # Errors
/// As librdkafka's, above all when the broker does not let its configuration be read.
pub(crate) async fn max_message_bytes(
    client: &AdminClient<Plain>,
    topic: &str,
) -> Result<Option<usize>, ClientError> {
    Ok(all_max_message_bytes(client, &[topic]).await?.into_iter().next().flatten())
}

/// As [`max_message_bytes`], of several topics with one request.
async fn all_max_message_bytes(
    client: &AdminClient<Plain>,
    topics: &[&str],
) -> Result<Vec<Option<usize>>, ClientError> {
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let mut limits = vec![None; topics.len()];
    for resource in client.describe_configs(&resources, &options).await? {
        let resource = resource.map_err(ClientError::AdminOp)?;
        let OwnedResourceSpecifier::Topic(name) = &resource.specifier else { continue };
        let value = resource.get("max.message.bytes").and_then(|entry| entry.value.as_ref());
        if let Some(position) = topics.iter().position(|topic| topic == name) {
            limits[position] = value.and_then(|value| value.parse().ok());
        }
    }
    Ok(limits)
}

/// The largest messages that these topics take. Of those that the broker does not tell: what it
/// most likely has.
pub(crate) async fn message_limits<const N: usize>(
    client: &AdminClient<Plain>,
    topics: [&str; N],
) -> [usize; N] {
    let asked = all_max_message_bytes(client, &topics).await.unwrap_or_default();
    let mut limits = [LEAST_MESSAGE_BYTES; N];
    for (limit, asked) in limits.iter_mut().zip(asked) {
        *limit = asked.unwrap_or(*limit);
    }
    limits
}

/// Whether a message was refused because its topic takes none so large. Sending it again would not
/// help.
pub(crate) fn is_too_large(error: &ClientError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}
