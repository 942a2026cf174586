//! What goes wrong with topics: transactions that stay open, topics and messages that are deleted.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Kafka, Message, REQUEST};
use crate::background;

/// A producer of transactions, one after the other.
#[expect(missing_debug_implementations, reason = "the client has none")]
pub struct Transactions(ThreadedProducer<DefaultProducerContext>);

impl Transactions {
    /// Begins one with these messages, and waits until the broker has them.
    pub fn begin(&self, topic: &str, messages: impl IntoIterator<Item = Message>) {
        self.0.begin_transaction().unwrap();
        for message in messages {
            let record = BaseRecord::<(), [u8]>::to(topic)
                .partition(message.partition.unwrap_or(0))
                .payload(&message.payload);
            self.0.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.0.flush(REQUEST).unwrap();
    }

    pub fn commit(&self) {
        self.0.commit_transaction(REQUEST).unwrap();
    }

    pub fn abort(&self) {
        self.0.abort_transaction(REQUEST).unwrap();
    }
}

impl Kafka {
    pub fn transactions(&self, id: &str) -> Transactions {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(REQUEST).unwrap();
        Transactions(producer)
    }

    pub fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = name.to_owned();
        let results = background::wait_for(async move {
            admin.delete_topics(&[&topic], &AdminOptions::new().operation_timeout(Some(REQUEST))).await
        });
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(topic, error)| panic!("topic `{topic}` cannot be deleted: {error}"));
        }
        self.wait_until(REQUEST, "the topic to be gone", || match self.partitions(name) {
            Ok(known) if known.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Removes the messages of a partition before an offset, as retention does.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let done = background::wait_for(async move {
            admin.delete_records(&list, &AdminOptions::new().operation_timeout(Some(REQUEST))).await
        });
        done.expect("the broker answers");
    }
}
