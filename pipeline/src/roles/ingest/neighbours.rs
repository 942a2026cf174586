//! Whether the other processes of the group archive into the storage of this one.
//!
//! A partition that is taken over shows it by what was committed. Two processes that start
//! at one moment take nothing over from one another, and each would archive its own partitions
//! into a storage of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::error::Result;
use crate::kafka::{self, ConsumerSettings, Plain};
use crate::roles::context::Context;
use crate::roles::group::commits_of;
use crate::storage;

const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Neighbours {
    storage: String,
    /// Asks what the group has committed, and is no member.
    client: BaseConsumer<Plain>,
}

impl Neighbours {
    /// `storage`: the name of the own one.
    pub(super) fn new(context: &Context, storage: String) -> Result<Self> {
        let config = &context.config;
        let settings = ConsumerSettings::new(&config.ingest.group);
        Ok(Self { storage, client: kafka::consumer(&config.kafka, settings, Plain::default())? })
    }

    /// Refuses to go on beside a process whose archive is in another storage. `topics`: how many
    /// partitions each has. Without an answer of the broker nothing is known.
    ///
    /// # Errors
    /// [`crate::error::Error::Refused`] with both storages.
    pub(super) fn check(&self, topics: &BTreeMap<String, i32>) -> Result<()> {
        let mut all = TopicPartitionList::new();
        for (topic, count) in topics {
            all.add_partition_range(topic, 0, count.saturating_sub(1));
        }
        let Ok(committed) = self.client.committed_offsets(all, TIMEOUT) else { return Ok(()) };
        for ((topic, partition), commit) in commits_of(&committed) {
            if let Some((_, text)) = commit {
                storage::check(Some(&self.storage), &text, (&topic, partition))?;
            }
        }
        Ok(())
    }
}
