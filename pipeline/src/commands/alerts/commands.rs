//! Commands to the alert manager: silences and acknowledgements, as records of a compacted topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alerts::Status;
use alerts::dispatch::{Acknowledge, Command, Matcher, Silence};
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

use super::evidence::Evidence;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::{self, Plain};
use crate::time::nanoseconds;

const PATIENCE: Duration = Duration::from_secs(30);
/// The longest silence: a longer one is a mistake, or a rule that should be removed.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Every alert is compared with each matcher of each silence.
const MOST_MATCHERS: usize = 32;
const MOST_COMMANDS: usize = 10_000;
const LONGEST_NAME: usize = 256;
const LONGEST_COMMENT: usize = 4 << 10;

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
    if wanted.matchers.len() > MOST_MATCHERS {
        let given = wanted.matchers.len();
        return Err(format!(
            "a silence has at most {MOST_MATCHERS} matchers, this one {given}: write several silences"
        ));
    }
    if wanted.comment.trim().is_empty() {
        return Err("give a reason: --comment \"…\"".to_owned());
    }
    check_person(&wanted.by, &wanted.comment)?;
    let matchers: Result<Vec<Matcher>, String> =
        wanted.matchers.iter().map(|text| Matcher::parse(text)).collect();
    let matchers = matchers?;
    if matchers.iter().all(Matcher::is_idle) {
        return Err("these matchers hold of alerts without these labels, or of any value, so they would silence nearly \
                    everything: write one that asks for a value, like host=\"a\""
            .to_owned());
    }
    let starts_at = wanted.starts_at.unwrap_or(now);
    let ends_at = starts_at.saturating_add(nanoseconds(wanted.length));
    if ends_at <= now {
        return Err("the silence would be over already".to_owned());
    }
    Ok(Silence {
        id: Uuid::new_v4().to_string(),
        matchers,
        starts_at,
        ends_at,
        created_by: wanted.by.clone(),
        comment: wanted.comment.clone(),
        created_at: now,
    })
}

/// Checks the author and the reason of a command.
pub(crate) fn check_person(by: &str, comment: &str) -> Result<(), String> {
    if by.trim().is_empty() {
        return Err("give a name: --by \"…\"".to_owned());
    }
    if by.len() > LONGEST_NAME || comment.len() > LONGEST_COMMENT {
        return Err(format!("a name has at most {LONGEST_NAME} bytes, a comment at most {LONGEST_COMMENT}"));
    }
    Ok(())
}

/// Checks that one silence more can be kept.
pub(crate) fn check_number(commands: &BTreeMap<String, Command>) -> Result<(), String> {
    if commands.len() < MOST_COMMANDS {
        return Ok(());
    }
    Err(format!(
        "there are {MOST_COMMANDS} silences and acknowledgements: end some, `tidemark alerts silences` shows them"
    ))
}

/// The incident with this id, or the beginning of one; of those that fire.
pub(crate) fn incident(evidence: &Evidence, prefix: &str) -> Result<String, String> {
    let firing = evidence.active.iter().filter(|state| state.status == Status::Firing);
    match one(firing.map(|state| state.incident.as_str()), prefix)? {
        Some(incident) => Ok(incident.to_owned()),
        None => {
            Err(format!("no alert that fires has an incident `{prefix}`: `tidemark alerts list` shows them"))
        }
    }
}

/// The silence with this id, or the beginning of one.
pub(crate) fn silence_id(commands: &BTreeMap<String, Command>, prefix: &str) -> Result<String, String> {
    match one(commands.keys().filter_map(|key| key.strip_prefix(SILENCE)), prefix)? {
        Some(id) => Ok(id.to_owned()),
        None => Err(format!("there is no silence `{prefix}`: `tidemark alerts silences` shows them")),
    }
}

/// The incident that was acknowledged, by its id or the beginning of it.
pub(crate) fn acknowledged(commands: &BTreeMap<String, Command>, prefix: &str) -> Result<String, String> {
    match one(commands.keys().filter_map(|key| key.strip_prefix(ACKNOWLEDGE)), prefix)? {
        Some(incident) => Ok(incident.to_owned()),
        None => Err(format!("no incident `{prefix}` is acknowledged: `tidemark alerts list` shows them")),
    }
}

/// The one id that begins so; one that is given whole is meant alone.
fn one<'i>(ids: impl Iterator<Item = &'i str>, prefix: &str) -> Result<Option<&'i str>, String> {
    let found: BTreeSet<&str> = ids.filter(|id| !prefix.is_empty() && id.starts_with(prefix)).collect();
    match found.into_iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        // Sorted: the shortest comes first.
        [first, ..] if *first == prefix => Ok(Some(first)),
        [only] => Ok(Some(only)),
        several => Err(format!("several begin with `{prefix}`: {}", several.join(", "))),
    }
}

pub(crate) fn acknowledge(incident: String, by: String, comment: String, now: i64) -> Acknowledge {
    Acknowledge { incident, by, comment, at: now }
}

/// How the keys of their records begin.
const SILENCE: &str = "silence/";
const ACKNOWLEDGE: &str = "ack/";

pub(crate) fn silence_key(id: &str) -> String {
    format!("{SILENCE}{id}")
}

pub(crate) fn acknowledge_key(incident: &str) -> String {
    format!("{ACKNOWLEDGE}{incident}")
}

/// Writes a command, or takes it back, and waits until all replicas of the topic in sync have it.
/// Blocks.
///
/// # Errors
/// When no broker takes it. It may have it all the same when the answer was lost.
pub(crate) fn send(config: &Config, key: &str, command: Option<&Command>) -> Result<()> {
    let topic = config.topics.alert_commands();
    let mut settings = kafka::producer_config(&config.kafka);
    settings.set("message.timeout.ms", PATIENCE.as_millis().to_string());
    let failed = || Error::client("send a command to the alerts");
    let producer: FutureProducer<Plain> = settings.create_with_context(Plain::default()).map_err(failed())?;
    let asker = kafka::asker(&config.kafka)?;
    kafka::existing_partitions(&config.kafka, &asker, &topic, PATIENCE)?;
    let payload = match command {
        None => None,
        Some(command) => {
            let json = serde_json::to_vec(command);
            Some(json.map_err(|error| Error::Refused(format!("not expressible as JSON: {error}")))?)
        }
    };
    let mut record = FutureRecord::<str, [u8]>::to(&topic).key(key);
    if let Some(payload) = &payload {
        record = record.payload(payload);
    }
    let delivery = producer.send_result(record).map_err(|(error, _)| failed()(error))?;
    // The producer has a thread of its own that tells what became of it.
    match futures::executor::block_on(delivery) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(failed()(error)),
        Err(_) => Err(Error::Interrupted("the producer of commands ended early")),
    }
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
            (Wanted { matchers: vec!["host=~\".*\"".to_owned()], ..wanted.clone() }, "nearly everything"),
            (Wanted { matchers: vec!["host!=\"a\"".to_owned()], ..wanted.clone() }, "nearly everything"),
            (Wanted { length: Duration::from_secs(400 * 86_400), ..wanted.clone() }, "at most a year"),
            (Wanted { length: Duration::ZERO, ..wanted.clone() }, "more than nothing"),
            (Wanted { comment: " ".to_owned(), ..wanted.clone() }, "give a reason"),
            (Wanted { by: " ".to_owned(), ..wanted.clone() }, "give a name"),
            (Wanted { comment: "x".repeat(5_000), ..wanted.clone() }, "at most 4096"),
            (
                Wanted { matchers: vec!["alertname=~\".+\"".to_owned()], ..wanted.clone() },
                "nearly everything",
            ),
            (Wanted { matchers: vec!["a=b".to_owned(); 33], ..wanted.clone() }, "at most 32"),
            (Wanted { starts_at: Some(-3_600_000_000_000), ..wanted }, "over already"),
        ] {
            let error = silence(&wrong, 5).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_the_only_one() {
        let ids = ["ab1", "ab12", "b"];
        for (prefix, expected) in [
            ("b", Ok(Some("b"))),
            ("ab12", Ok(Some("ab12"))),
            ("ab1", Ok(Some("ab1"))),
            ("a", Err("several begin with `a`: ab1, ab12".to_owned())),
            ("c", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(one(ids.into_iter(), prefix), expected, "{prefix}");
        }
    }
}
