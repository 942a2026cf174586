//! The topics Tidemark needs: what they are for, how they are set up, and creating those that are
//! missing.

mod inspect;

use std::fmt;
use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::BaseProducer;

pub use inspect::{Inspection, inspect};

use crate::config::{Config, KafkaConfig, TopicsConfig};
use crate::kafka::{self, KafkaError, MAX_MESSAGE_BYTES, Plain};

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    pub name: String,
    pub purpose: &'static str,
    pub partitions: i32,
    pub replication: i32,
    /// Topic settings besides the broker's defaults.
    pub properties: Vec<(&'static str, String)>,
    /// Whether another number of partitions would be wrong, and not just another choice.
    pub partitions_matter: bool,
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Created,
    /// Was there already, with this many partitions, and was left as it is.
    Exists {
        partitions: usize,
    },
}

/// What [`create`] did; displays as a table for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsReport {
    /// In the order of [`plan`].
    pub topics: Vec<(TopicPlan, Outcome)>,
}

/// The purpose of the topic whose partitions are configured.
const PARTIALS: &str = "partial states";

/// Days that the topics keep their messages, chosen so that an outage of a sink, a weekend long,
/// loses nothing: `rollup` reads partial states again from its last snapshot.
const PARTIALS_DAYS: u64 = 7;
const LATE_DAYS: u64 = 7;
const DEAD_LETTER_DAYS: u64 = 14;
const ALERTS_DAYS: u64 = 30;
const LEDGER_DAYS: u64 = 90;

/// How often, and how many times, the broker is asked whether it knows a new topic.
const SEEN_POLL: Duration = Duration::from_millis(50);
const SEEN_TRIES: usize = 200;

/// Every topic of the configuration, source topics first. `points_partitions` is for source topics
/// that are made here.
pub fn plan(topics: &TopicsConfig, points_partitions: i32) -> Vec<TopicPlan> {
    // The broker's default of 1 MiB is less than an epoch's partial states, or what the alert
    // manager remembers of a group.
    let size = || ("max.message.bytes", MAX_MESSAGE_BYTES.to_string());
    let days = |days: u64| {
        let age = (days * 86_400_000).to_string();
        vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", age), size()]
    };
    let own = |name: &str, purpose, partitions, properties, partitions_matter| TopicPlan {
        name: name.to_owned(),
        purpose,
        partitions,
        replication: topics.replication,
        properties,
        partitions_matter,
    };
    let mut plans: Vec<TopicPlan> = Vec::new();
    for name in &topics.points {
        plans.push(own(name, "raw points", points_partitions, Vec::new(), false));
    }
    let mut partials = days(PARTIALS_DAYS);
    // Bytes must not cut the time short.
    partials.push(("retention.bytes", "-1".to_owned()));
    plans.push(own(&topics.partials, PARTIALS, topics.partials_partitions, partials, true));
    plans.push(own(&topics.late, "points too late for their window", 4, days(LATE_DAYS), false));
    plans.push(own(&topics.dead_letter, "messages that could not be read", 4, days(DEAD_LETTER_DAYS), false));
    // One partition, so that transitions of all alerts are read in one order.
    plans.push(own(&topics.alerts, "transitions of alerts", 1, days(ALERTS_DAYS), false));
    let compacted = || vec![("cleanup.policy", "compact".to_owned()), size()];
    plans.push(own(&topics.alert_states(), "state of each alert", 1, compacted(), false));
    plans.push(own(&topics.alert_manager(), "what the alert manager remembers", 1, compacted(), true));
    plans.push(own(&topics.alert_commands(), "silences and acknowledgements", 1, compacted(), true));
    plans.push(own(&topics.alert_log(), "notifications, and reasons for none", 1, days(LEDGER_DAYS), false));
    plans
}

/// Creates the topics that are missing and leaves the others as they are.
///
/// # Errors
/// [`KafkaError::Unreachable`] when no broker answers within `timeout`, [`KafkaError::Refused`]
/// naming the topic that could not be made. Topics made until then stay.
pub async fn create(
    config: &Config,
    points_partitions: i32,
    timeout: Duration,
) -> Result<TopicsReport, KafkaError> {
    let admin = kafka::admin(&config.kafka)?;
    let asker = kafka::asker(&config.kafka)?;
    let kafka_config = config.kafka.clone();
    // Metadata requests block: not on a thread of the runtime.
    let listing = tokio::task::spawn_blocking(move || {
        let metadata = kafka::metadata(&kafka_config, &asker, None, timeout);
        (asker, metadata)
    });
    let (asker, metadata) = listing.await.expect("a metadata request neither panics nor is cancelled");
    let metadata = metadata?;

    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let mut topics = Vec::new();
    for plan in plan(&config.topics, points_partitions) {
        if let Some(found) = metadata.topics().iter().find(|topic| topic.name() == plan.name) {
            let outcome = Outcome::Exists { partitions: found.partitions().len() };
            topics.push((plan, outcome));
            continue;
        }
        let mut topic = NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replication));
        for (name, value) in &plan.properties {
            topic = topic.set(name, value);
        }
        let refused = |source| {
            kafka::refused(
                &config.kafka,
                &format!("create the topic `{}` with replication {}", plan.name, plan.replication),
                timeout,
                kafka::cause(&asker),
                source,
            )
        };
        let results = admin.create_topics([&topic], &options).await.map_err(refused)?;
        for result in results {
            match result {
                // Someone else was faster: that is fine too.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(refused(ClientError::AdminOp(code))),
            }
        }
        topics.push((plan, Outcome::Created));
    }
    let made = topics.iter().filter(|(_, outcome)| *outcome == Outcome::Created);
    let names: Vec<String> = made.map(|(plan, _)| plan.name.clone()).collect();
    let kafka_config = config.kafka.clone();
    let seeing = tokio::task::spawn_blocking(move || {
        names.iter().try_for_each(|name| see(&kafka_config, &asker, name, timeout))
    });
    seeing.await.expect("a metadata request neither panics nor is cancelled")?;
    Ok(TopicsReport { topics })
}

/// Waits until the broker knows a topic that it has confirmed: what starts next would find it
/// missing.
fn see(
    kafka_config: &KafkaConfig,
    asker: &BaseProducer<Plain>,
    name: &str,
    timeout: Duration,
) -> Result<(), KafkaError> {
    let count = || match kafka::partition_count(kafka_config, asker, name, timeout) {
        Ok(0) => Err(None),
        Ok(_) => Ok(()),
        Err(error) => Err(Some(error)),
    };
    let pauses = ConstantBuilder::default().with_delay(SEEN_POLL).with_max_times(SEEN_TRIES);
    match count.retry(pauses).when(Option::is_none).call() {
        Err(Some(error)) => Err(error),
        // It was made; that is all that was promised.
        Ok(()) | Err(None) => Ok(()),
    }
}

impl TopicsReport {
    /// Topics whose number of partitions is wrong, with what to do about it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (plan, outcome) in &self.topics {
            let Outcome::Exists { partitions } = outcome else { continue };
            let planned = usize::try_from(plan.partitions).unwrap_or_default();
            if plan.partitions_matter && *partitions != planned {
                problems.push(other_partitions(plan, *partitions));
            }
        }
        problems
    }
}

impl fmt::Display for TopicsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.topics.iter().map(|(plan, _)| plan.name.len()).max().unwrap_or_default();
        for (plan, outcome) in &self.topics {
            let (what, partitions) = match outcome {
                Outcome::Created => ("created", plan.partitions.to_string()),
                Outcome::Exists { partitions } => ("exists", partitions.to_string()),
            };
            write!(f, "{:width$}  {what:7}  {partitions:>4} partitions  {}", plan.name, plan.purpose)?;
            match (outcome, retention_days(plan)) {
                (Outcome::Created, Some(days)) => writeln!(f, ", kept for {days} days")?,
                _ => writeln!(f)?,
            }
        }
        for problem in self.problems() {
            writeln!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A topic whose keys are placed by the number of its partitions, or which follows another one's.
fn other_partitions(plan: &TopicPlan, partitions: usize) -> String {
    let TopicPlan { name, partitions: planned, .. } = plan;
    let problem = format!("topic `{name}` has {partitions} partitions and the configuration says {planned}");
    match plan.purpose {
        PARTIALS => {
            format!("{problem}: set partials_partitions = {partitions}, or name a new topic in `partials`")
        }
        _ => format!("{problem}: name new topics in `alerts`, or create it again with {planned}"),
    }
}

fn retention_days(plan: &TopicPlan) -> Option<u64> {
    let (_, millis) = plan.properties.iter().find(|(name, _)| *name == "retention.ms")?;
    Some(millis.parse::<u64>().ok()? / 86_400_000)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test]
    async fn existing_topics_are_left_alone() {
        let cluster = MockCluster::new(1).expect("mock cluster");
        let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
        for plan in plan(&config.topics, 4) {
            let partitions = if plan.name == "tidemark-partials" { 3 } else { plan.partitions };
            cluster.create_topic(&plan.name, partitions, 1).expect("mock topic");
        }
        let report = create(&config, 4, Duration::from_secs(30)).await.expect("all topics exist");
        assert_eq!(
            report.to_string(),
            "\
points                    exists      4 partitions  raw points
tidemark-partials         exists      3 partitions  partial states
tidemark-late             exists      4 partitions  points too late for their window
tidemark-dead-letter      exists      4 partitions  messages that could not be read
tidemark-alerts           exists      1 partitions  transitions of alerts
tidemark-alerts-states    exists      1 partitions  state of each alert
tidemark-alerts-manager   exists      1 partitions  what the alert manager remembers
tidemark-alerts-commands  exists      1 partitions  silences and acknowledgements
tidemark-alerts-log       exists      1 partitions  notifications, and reasons for none
topic `tidemark-partials` has 3 partitions and the configuration says 8: set partials_partitions = 3, or name a new topic in `partials`
"
        );
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_named() {
        // Bound and never accepted from as a broker: nothing answers there.
        let silent = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = silent.local_addr().expect("bound").to_string();
        let config = Config::local(&address, Path::new("/tmp"));
        let error = create(&config, 4, Duration::from_millis(300)).await.expect_err("nobody answers");
        assert_eq!(
            error.to_string(),
            format!(
                "no Kafka broker answered within 300ms: start one, or name a running one in `brokers` of [kafka] or in TIDEMARK_KAFKA__BROKERS, brokers=`{address}`"
            )
        );
    }
}
