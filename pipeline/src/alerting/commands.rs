//! What people say to the alert manager: silences and acknowledgements, as records of a compacted topic.

use std::time::Duration;

use operators::dispatch::{Acknowledge, Command, Matcher, Silence};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer};
use uuid::Uuid;

use super::evidence::Evidence;
use crate::clock::nanoseconds;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka;

const PATIENCE: Duration = Duration::from_secs(30);
/// The longest silence: a longer one is a mistake, or a rule that should be removed.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A silence as it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) matchers: Vec<String>,
    pub(crate) length: Duration,
    /// Nanoseconds since the epoch; none: now.
    pub(crate) starts_at: Option<i64>,
    pub(crate) by: String,
    pub(crate) comment: String,
}

/// Checks what was asked for.
///
/// # Errors
/// What is wrong and what to write, for people.
pub(crate) fn silence(wanted: &Wanted, now: i64) -> Result<Silence, String> {
    if wanted.matchers.is_empty() {
        return Err(
            "a silence without matchers would silence everything: write some, like host=\"a\"".to_owned()
        );
    }
    if wanted.length.is_zero() || wanted.length > LONGEST {
        return Err("a silence lasts more than nothing and at most a year: write --for 2h".to_owned());
    }
    if wanted.comment.trim().is_empty() {
        return Err("say why: --comment \"…\"".to_owned());
    }
    let matchers: Result<Vec<Matcher>, String> =
        wanted.matchers.iter().map(|text| Matcher::parse(text)).collect();
    let starts_at = wanted.starts_at.unwrap_or(now);
    let ends_at = starts_at.saturating_add(nanoseconds(wanted.length));
    if ends_at <= now {
        return Err("the silence would be over already".to_owned());
    }
    Ok(Silence {
        id: Uuid::new_v4().to_string(),
        matchers: matchers?,
        starts_at,
        ends_at,
        created_by: wanted.by.clone(),
        comment: wanted.comment.clone(),
        created_at: now,
    })
}

/// The incident with this id, or the beginning of one; of those that fire.
pub(crate) fn incident(evidence: &Evidence, prefix: &str) -> Result<String, String> {
    let found =
        evidence.active.iter().filter(|state| !prefix.is_empty() && state.incident.starts_with(prefix));
    let mut found: Vec<&str> = found.map(|state| state.incident.as_str()).collect();
    found.dedup();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            Err(format!("no alert that fires has an incident `{prefix}`: `tidemark alerts list` shows them"))
        }
        several => Err(format!("several incidents begin with `{prefix}`: {}", several.join(", "))),
    }
}

pub(crate) fn acknowledge(incident: String, by: String, comment: String, now: i64) -> Acknowledge {
    Acknowledge { incident, by, comment, at: now }
}

pub(crate) fn silence_key(id: &str) -> String {
    format!("silence/{id}")
}

pub(crate) fn acknowledge_key(incident: &str) -> String {
    format!("ack/{incident}")
}

/// Writes a command, or takes it back, and waits until the broker has it. Blocks.
///
/// # Errors
/// When no broker takes it.
pub(crate) fn send(config: &Config, key: &str, command: Option<&Command>) -> Result<()> {
    let topic = config.topics.alert_commands();
    let producer = kafka::producer(&config.kafka, DefaultProducerContext)?;
    if kafka::partition_count(&config.kafka, producer.client(), &topic, PATIENCE)? == 0 {
        return Err(Error::Refused(format!(
            "topic `{topic}` does not exist: create it with `tidemark topics create`"
        )));
    }
    let payload = match command {
        None => None,
        Some(command) => {
            let json = serde_json::to_vec(command);
            Some(json.map_err(|error| Error::Refused(format!("not expressible as JSON: {error}")))?)
        }
    };
    let mut record = BaseRecord::<str, [u8]>::to(&topic).key(key);
    if let Some(payload) = &payload {
        record = record.payload(payload);
    }
    producer.send(record).map_err(|(error, _)| Error::client("send a command to the alerts")(error))?;
    producer.flush(PATIENCE).map_err(Error::client("send a command to the alerts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silences_are_checked() {
        let wanted = Wanted {
            matchers: vec!["host=\"a\"".to_owned()],
            length: Duration::from_secs(3_600),
            starts_at: None,
            by: "me".to_owned(),
            comment: "maintenance".to_owned(),
        };
        let made = silence(&wanted, 5).expect("all is right");
        assert_eq!((made.starts_at, made.ends_at), (5, 3_600_000_000_005));
        for (wrong, part) in [
            (Wanted { matchers: Vec::new(), ..wanted.clone() }, "would silence everything"),
            (Wanted { matchers: vec!["host".to_owned()], ..wanted.clone() }, "has no operator"),
            (Wanted { length: Duration::from_secs(400 * 86_400), ..wanted.clone() }, "at most a year"),
            (Wanted { length: Duration::ZERO, ..wanted.clone() }, "more than nothing"),
            (Wanted { comment: " ".to_owned(), ..wanted.clone() }, "say why"),
            (Wanted { starts_at: Some(-3_600_000_000_000), ..wanted }, "over already"),
        ] {
            let error = silence(&wrong, 5).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
