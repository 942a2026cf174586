//! A refused point on its way to the dead-letter topic: its raw bytes, and headers with where it
//! came from and why it was refused.

use points::decode::Rejection;
use rdkafka::message::{Header, OwnedHeaders};

use super::epoch::Outgoing;

/// Where a message stood.
pub(super) struct Origin<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Of the headers: each is bounded.
const HEADER_BYTES: usize = 2 << 10;

/// `limit`: what the topic takes. Of the raw bytes there is as much as has room.
pub(super) fn outgoing(topic: &str, origin: &Origin<'_>, mut rejection: Rejection, limit: usize) -> Outgoing {
    rejection.excerpt.truncate(limit.saturating_sub(HEADER_BYTES));
    let partition = origin.partition.to_string();
    let offset = origin.offset.to_string();
    let count = rejection.count.to_string();
    let fields = [
        ("topic", origin.topic),
        ("partition", partition.as_str()),
        ("offset", offset.as_str()),
        ("place", rejection.place.as_str()),
        ("reason", rejection.reason.as_str()),
        ("detail", rejection.detail.as_str()),
        ("points", count.as_str()),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(fields.len());
    for (key, value) in fields {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    Outgoing { topic: topic.to_owned(), partition: None, payload: rejection.excerpt, headers: Some(headers) }
}
