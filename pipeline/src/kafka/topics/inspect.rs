//! `tidemark check --brokers`: whether the topics that exist are as they should be.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::metadata::MetadataTopic;

use super::{TopicPlan, plan};
use crate::config::Config;
use crate::kafka::{self, KafkaError, Plain};

/// What is wrong, and what is only otherwise than it would be made here. Displays as a paragraph
/// each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    topics: usize,
}

/// The brokers' answers about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    partitions: usize,
    /// The fewest of a partition.
    replicas: usize,
    /// Settings, as far as the brokers tell them.
    settings: BTreeMap<String, String>,
}

/// Asks the brokers about every topic of the configuration. Changes nothing.
///
/// # Errors
/// When no broker answers within `timeout`.
pub async fn inspect(config: &Config, timeout: Duration) -> Result<Inspection, KafkaError> {
    let (admin, asker) = (kafka::admin(&config.kafka)?, kafka::asker(&config.kafka)?);
    let kafka_config = config.kafka.clone();
    // Metadata requests block: not on a thread of the runtime.
    let listing = tokio::task::spawn_blocking(move || kafka::metadata(&kafka_config, &asker, None, timeout));
    let metadata = listing.await.map_err(|_| KafkaError::GivenUp)??;
    let mut inspection = Inspection::default();
    // Source topics are others', as far as their partitions are concerned.
    for plan in plan(&config.topics, 1) {
        let found = match metadata.topics().iter().find(|topic| topic.name() == plan.name) {
            Some(topic) => Some(found(topic, settings(&admin, &plan.name, timeout).await)),
            None => None,
        };
        inspection.judge(&plan, found.as_ref());
    }
    Ok(inspection)
}

fn found(topic: &MetadataTopic, settings: BTreeMap<String, String>) -> Found {
    let partitions = topic.partitions();
    let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
    Found { partitions: partitions.len(), replicas: replicas.unwrap_or_default(), settings }
}

/// Empty when the brokers do not let them be read.
async fn settings(admin: &AdminClient<Plain>, topic: &str, timeout: Duration) -> BTreeMap<String, String> {
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    let of_topic = |resource: &ConfigResource| matches!(&resource.specifier, OwnedResourceSpecifier::Topic(name) if name == topic);
    let resources = described.unwrap_or_default().into_iter().flatten().filter(of_topic);
    let entries = resources.flat_map(|resource| resource.entries);
    entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

impl Inspection {
    fn judge(&mut self, plan: &TopicPlan, found: Option<&Found>) {
        let name = &plan.name;
        let Some(found) = found else {
            self.problems.push(format!(
                "topic `{name}` does not exist ({})\n  help: create it with `tidemark topics create`",
                plan.purpose
            ));
            return;
        };
        self.topics += 1;
        let planned = usize::try_from(plan.partitions).unwrap_or_default();
        if plan.partitions_matter && found.partitions != planned {
            self.problems.push(super::other_partitions(plan, found.partitions));
        }
        let replication = usize::try_from(plan.replication).unwrap_or_default();
        // Those of source topics are not made here.
        if found.replicas < replication && !plan.properties.is_empty() {
            self.warnings.push(format!(
                "topic `{name}` has {} replicas and `replication` of [topics] says {replication}\n  help: raise them with kafka-reassign-partitions.sh, or set replication = {}",
                found.replicas, found.replicas
            ));
        }
        for (setting, planned) in &plan.properties {
            if let Some(actual) = found.settings.get(*setting) {
                self.judge_setting(plan, setting, planned, actual);
            }
        }
    }

    fn judge_setting(&mut self, plan: &TopicPlan, setting: &str, planned: &str, actual: &str) {
        let TopicPlan { name, purpose, .. } = plan;
        let alter = format!(
            "kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={planned}"
        );
        if setting == "cleanup.policy" {
            let policies: Vec<&str> = actual.split(',').map(str::trim).collect();
            let problem = match planned {
                "compact" if policies.contains(&"delete") => "what it remembers would be deleted by age",
                "compact" if !policies.contains(&"compact") => "it would grow for ever",
                "delete" if policies.contains(&"compact") => "messages with the same key would be removed",
                _ => return,
            };
            self.problems.push(format!(
                "topic `{name}` ({purpose}) has {setting}={actual}: {problem}\n  help: {alter}"
            ));
            return;
        }
        let least = kafka::LEAST_MESSAGE_BYTES;
        if setting == "max.message.bytes" && actual.parse::<usize>().is_ok_and(|actual| actual < least) {
            self.problems.push(format!(
                "topic `{name}` ({purpose}) has {setting}={actual}: messages that are larger are lost, it needs {least} at least\n  help: {alter}"
            ));
            return;
        }
        // A limit: none, or one that is higher, is as good.
        let limit = |text: &str| match text.parse::<i64>() {
            Ok(-1) | Err(_) => i64::MAX,
            Ok(limit) => limit,
        };
        if limit(actual) < limit(planned) {
            self.warnings.push(format!(
                "topic `{name}` ({purpose}) has {setting}={actual}, and would be made here with {planned}\n  help: {alter}"
            ));
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match self.problems.len() {
            0 => write!(f, "no problems with topics: {} looked at", self.topics),
            1 => f.write_str("1 problem with topics"),
            count => write!(f, "{count} problems with topics"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicsConfig;

    /// Topic, partitions or replicas, settings, what is found.
    type Case<'c, E> = (&'c str, usize, &'c [(&'c str, &'c str)], E);

    fn judged(topic: &str, partitions: usize, replicas: usize, settings: &[(&str, &str)]) -> Inspection {
        let config = TopicsConfig { replication: 2, ..TopicsConfig::default() };
        let plans = plan(&config, 1);
        let plan = plans.iter().find(|plan| plan.name == topic).expect("one of ours");
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut inspection = Inspection::default();
        inspection.judge(plan, Some(&Found { partitions, replicas, settings }));
        inspection
    }

    #[test]
    fn topics_that_lose_or_refuse_are_problems() {
        let cases: &[Case<'_, Option<&str>>] = &[
            ("tidemark-partials", 8, &[("cleanup.policy", "delete")], None),
            ("tidemark-partials", 4, &[], Some("topic `tidemark-partials` has 4 partitions")),
            ("tidemark-partials", 8, &[("cleanup.policy", "compact")], Some("same key would be removed")),
            ("tidemark-alerts-manager", 1, &[("cleanup.policy", "compact")], None),
            ("tidemark-alerts", 1, &[("max.message.bytes", "100000")], Some("larger are lost")),
            ("tidemark-dead-letter", 4, &[("max.message.bytes", "1000")], Some("larger are lost")),
            ("tidemark-alerts-manager", 1, &[("cleanup.policy", "delete")], Some("deleted by age")),
            ("tidemark-alerts-states", 1, &[("cleanup.policy", "compact,delete")], Some("deleted by age")),
            ("tidemark-alerts-commands", 3, &[("cleanup.policy", "compact")], Some("has 3 partitions")),
            // Anybody may have as many of these as they like.
            ("points", 99, &[("cleanup.policy", "compact")], None),
            ("tidemark-late", 99, &[], None),
        ];
        for (topic, partitions, settings, expected) in cases {
            let found = judged(topic, *partitions, 2, settings);
            assert_eq!(found.problems.len(), usize::from(expected.is_some()), "{topic}: {found}");
            assert!(expected.is_none_or(|part| found.problems[0].contains(part)), "{topic}: {found}");
            assert_eq!(found.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn smaller_limits_are_warned_of() {
        let cases: &[Case<'_, usize>] = &[
            ("tidemark-partials", 2, &[("max.message.bytes", "1048588"), ("retention.bytes", "-1")], 1),
            ("tidemark-partials", 2, &[("max.message.bytes", "33554432"), ("retention.bytes", "1000")], 1),
            ("tidemark-partials", 2, &[("retention.ms", "3600000")], 1),
            ("tidemark-alerts-manager", 2, &[("max.message.bytes", "1048588")], 1),
            ("tidemark-partials", 2, &[("retention.ms", "-1")], 0),
            ("tidemark-partials", 1, &[], 1),
            ("points", 1, &[], 0),
        ];
        for (topic, replicas, settings, warnings) in cases {
            let found = judged(topic, 8, *replicas, settings);
            assert_eq!(found.warnings.len(), *warnings, "{topic}: {found}");
        }
    }

    #[test]
    fn a_missing_topic_is_named() {
        let mut inspection = Inspection::default();
        for plan in plan(&TopicsConfig::default(), 1) {
            inspection.judge(&plan, None);
        }
        assert_eq!(inspection.problems.len(), 9);
        assert_eq!(
            inspection.problems[2],
            "topic `tidemark-late` does not exist (points too late for their window)\n  help: create it with `tidemark topics create`"
        );
    }
}
