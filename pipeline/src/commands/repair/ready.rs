//! Whether a range can be judged: its windows are final, and the archive holds what was aggregated.
//!
//! A window is final when the watermark has passed its end and the allowed lateness; from then on
//! the stream neither writes it nor corrects it. Watermarks are taken from the snapshots of the
//! *committed* offsets, not from the newest ones: a new owner of a partition goes on from there,
//! and writes again what came after. Everything that a snapshot has given out is in the store, as
//! it is committed only then.
//!
//! The archive follows the aggregation by up to `roll_age`. What was aggregated before this started
//! to look is waited for; points that come later are late for windows that are final already.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::fold::snapshot_watermark;
use query::Target;
use sinks::parquet::SafeOffsets;

use crate::clock::Clock;
use crate::config::{Config, KafkaConfig};
use crate::error::{Error, Result};
use crate::kafka;
use crate::roles::group::{blocking, committed};
use crate::storage::archive_progress::ArchiveProgress;
use crate::storage::{self, Snapshots};
use crate::time::shown;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a commit may move on while its snapshot is looked for.
const ATTEMPTS: usize = 5;
const LOOK: Duration = Duration::from_millis(500);

/// How far the partitions of the partials topic have come, as of what their group has committed.
#[derive(Debug)]
pub(super) struct Frontier {
    topic: String,
    watermarks: BTreeMap<i32, Option<i64>>,
}

impl Frontier {
    /// Asks Kafka for the commits and the storage for their snapshots.
    pub(super) async fn read(config: &Config) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::attempt(config).await {
                // A newer commit has made the snapshot unnecessary in the meantime.
                Err(Error::NoSnapshot { .. }) if attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    async fn attempt(config: &Config) -> Result<Self> {
        let topic = config.topics.partials.clone();
        let partitions = (0..config.topics.partials_partitions).map(|partition| (topic.clone(), partition));
        let committed = committed(&config.kafka, &config.rollup.group, partitions.collect()).await?;
        let snapshots = Snapshots::open(config.storage.url.as_str())?;
        let mut watermarks = BTreeMap::new();
        for ((_, partition), commit) in committed {
            let watermark = match commit {
                Some((offset, _)) => snapshot_watermark(&snapshots.get(partition, offset).await?)?,
                None => None,
            };
            watermarks.insert(partition, watermark);
        }
        Ok(Self { topic, watermarks })
    }

    /// Windows of `target` that start before this are final; none before every partition has a
    /// watermark.
    pub(super) fn final_until(&self, target: &Target) -> Option<i64> {
        let slowest = self.watermarks.values().min().copied().flatten()?;
        let windows = &target.windows;
        // A hopping window ends after the next ones have started.
        let overlap = windows.size().saturating_sub(windows.pane().size());
        Some(windows.start(slowest.saturating_sub(target.allowed_lateness).saturating_sub(overlap)))
    }

    /// # Errors
    /// Reports which part of the windows that start in `[from, to)` is not final yet, and until when.
    pub(super) fn check(&self, target: &Target, from: i64, to: i64) -> Result<(), String> {
        let slowest = self.watermarks.iter().min_by_key(|(_, watermark)| **watermark);
        let Some((partition, Some(watermark))) = slowest else {
            let partition = slowest.map_or(0, |(partition, _)| *partition);
            return Err(format!(
                "no window is final yet: partition {partition} of `{}` has no committed snapshot with a watermark; is \
                 the role `rollup` running, and has every source partition been read?",
                self.topic
            ));
        };
        let until = self.final_until(target).unwrap_or(i64::MIN);
        if to <= until {
            return Ok(());
        }
        let lateness = Duration::from_nanos(target.allowed_lateness.unsigned_abs());
        let remedy = if until > from { format!("give --to {}, ", shown(until)) } else { String::new() };
        Err(format!(
            "windows of `{}` from {} to {} are not final yet: event time has come to {} in partition {partition} of \
             `{}`, and they are corrected until {} (allowed_lateness {}); {remedy}wait, or take the risk with --force",
            target.table.name,
            shown(until.max(from)),
            shown(to),
            shown(*watermark),
            self.topic,
            shown(target.windows.end_of_last(to).saturating_add(target.allowed_lateness)),
            humantime::format_duration(lateness),
        ))
    }
}

/// What the group of `ingest` has committed: by source partition, the next message to aggregate,
/// and the offset before which the archive is durable, if it is kept.
#[derive(Debug)]
pub(super) struct ArchiveState(BTreeMap<(String, i32), (i64, Option<i64>)>);

impl ArchiveState {
    pub(super) async fn read(config: &Config) -> Result<Self> {
        let kafka = config.kafka.clone();
        let topics = config.topics.points.clone();
        let partitions = blocking(move || partitions_of(&kafka, &topics)).await?;
        let committed = committed(&config.kafka, &config.ingest.group, partitions).await?;
        let (store, root) = sinks::parquet::store::open(config.storage.url.as_str())?;
        let own = storage::identity(&store, &root).await.map_err(sinks::Error::Store)?;
        let mut states = BTreeMap::new();
        for (source, commit) in committed {
            if let Some((offset, text)) = commit {
                storage::check(own.as_deref(), &text, (&source.0, source.1))?;
                let safe = ArchiveProgress::parse(&text)?.map(|progress| progress.safe);
                states.insert(source, (offset, safe));
            }
        }
        Ok(Self(states))
    }

    /// Where the archive is durable; partitions that have none are left out.
    pub(super) fn safe(self) -> SafeOffsets {
        self.0.into_iter().filter_map(|(source, (_, safe))| Some((source, safe?))).collect()
    }

    /// Messages that were aggregated as of `self` and are not archived as of `now`, in words.
    fn unarchived(&self, now: &Self) -> Option<String> {
        self.0.iter().find_map(|((topic, partition), (aggregated, _))| {
            let safe = now.0.get(&(topic.clone(), *partition)).and_then(|(_, safe)| *safe);
            match safe {
                Some(safe) if safe >= *aggregated => None,
                Some(safe) => Some(format!(
                    "the archive is not complete: messages {safe} to {aggregated} of topic `{topic}` partition \
                     {partition} were aggregated, but are not in raw/ yet"
                )),
                None => Some(format!(
                    "the archive is not complete: it was off when messages of topic `{topic}` partition {partition} \
                     were aggregated (`enabled` in [archive])"
                )),
            }
        })
    }
}

/// Refuses a storage that the archive is not in, which no force makes right. Where Kafka is away,
/// nobody knows.
pub(super) async fn check_storage(config: &Config) -> Result<()> {
    match ArchiveState::read(config).await {
        Err(error @ Error::Refused(_)) => Err(error),
        Err(error) => {
            tracing::warn!("forced: whether this is the archive's storage could not be asked: {error}");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Waits until the archive holds everything that has been aggregated by now.
///
/// # Errors
/// After `patience`, what is still missing.
pub(super) async fn wait_for_archive(
    config: &Config,
    patience: Duration,
    waiting: &(dyn Fn(&str) + Send + Sync),
) -> Result<()> {
    let clock = Clock::system();
    let started = clock.monotonic();
    let aggregated = ArchiveState::read(config).await?;
    let mut now = ArchiveState::read(config).await?;
    while let Some(missing) = aggregated.unarchived(&now) {
        if clock.monotonic().saturating_sub(started) >= patience {
            let age = humantime::format_duration(config.archive.roll_age);
            return Err(Error::Refused(format!(
                "{missing}: files are written after roll_age ({age}) while `ingest` runs; wait longer with --wait, or \
                 take the risk with --force"
            )));
        }
        waiting(&missing);
        tokio::time::sleep(LOOK).await;
        now = ArchiveState::read(config).await?;
    }
    Ok(())
}

fn partitions_of(kafka: &KafkaConfig, topics: &[String]) -> Result<Vec<(String, i32)>> {
    let client = kafka::asker(kafka)?;
    let mut partitions = Vec::new();
    for topic in topics {
        let count = kafka::partition_count(kafka, &client, topic, TIMEOUT)?;
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        partitions.extend((0..count).map(|partition| (topic.clone(), partition)));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use operators::sql::compile;

    use super::*;

    use sinks::parquet::live::HOUR;

    fn target() -> Target {
        let sql = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '30 minutes') AS
            SELECT tumble(time, INTERVAL '1 hour') AS w, count(*) AS n FROM points GROUP BY 1";
        query::targets(&compile(&[("cpu.sql".into(), sql.into())]).rollups[0]).remove(0)
    }

    fn frontier(watermarks: &[Option<i64>]) -> Frontier {
        Frontier { topic: "partials".into(), watermarks: (0..).zip(watermarks.iter().copied()).collect() }
    }

    #[test]
    fn windows_are_final_when_the_slowest_partition_has_passed_their_lateness() {
        let target = target();
        let frontier = frontier(&[Some(9 * HOUR), Some(5 * HOUR + HOUR / 2), Some(7 * HOUR)]);
        assert_eq!(frontier.final_until(&target), Some(5 * HOUR));
        assert_eq!(frontier.check(&target, HOUR, 5 * HOUR), Ok(()));
        let refused = frontier.check(&target, HOUR, 6 * HOUR).unwrap_err();
        for expected in [
            "from 1970-01-01T05:00:00Z to 1970-01-01T06:00:00Z",
            "come to 1970-01-01T05:30:00Z in partition 1",
            "until 1970-01-01T06:30:00Z (allowed_lateness 30m)",
            "give --to 1970-01-01T05:00:00Z",
        ] {
            assert!(refused.contains(expected), "{expected} in {refused}");
        }
        assert!(!frontier.check(&target, 5 * HOUR, 6 * HOUR).unwrap_err().contains("--to"));
    }

    #[test]
    fn an_overlapping_window_is_final_when_it_has_ended() {
        let sql = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '30 minutes') AS
            SELECT hop(time, INTERVAL '3 hours', INTERVAL '1 hour') AS w, count(*) AS n FROM points GROUP BY 1";
        let catalog = compile(&[("cpu.sql".into(), sql.into())]);
        assert_eq!(catalog.errors, []);
        let target = query::targets(&catalog.rollups[0]).remove(0);
        // The window that starts at 2 ends at 5, and is corrected until half past.
        for (watermark, until) in [(5 * HOUR + HOUR / 2, 3 * HOUR), (5 * HOUR + HOUR / 2 - 1, 2 * HOUR)] {
            assert_eq!(frontier(&[Some(watermark)]).final_until(&target), Some(until));
        }
    }

    #[test]
    fn a_partition_without_a_watermark_makes_nothing_final() {
        let frontier = frontier(&[Some(9 * HOUR), None]);
        assert_eq!(frontier.final_until(&target()), None);
        assert!(frontier.check(&target(), 0, HOUR).unwrap_err().contains("partition 1"));
    }

    #[test]
    fn the_archive_is_complete_when_it_has_reached_what_was_aggregated() {
        let state =
            |aggregated, safe| ArchiveState(BTreeMap::from([(("p".to_owned(), 0), (aggregated, safe))]));
        assert_eq!(state(10, Some(3)).unarchived(&state(50, Some(10))), None);
        let missing = state(10, Some(3)).unarchived(&state(50, Some(9))).unwrap();
        assert!(missing.contains("messages 9 to 10 of topic `p` partition 0"), "{missing}");
        assert!(state(10, None).unarchived(&state(10, None)).unwrap().contains("it was off"));
    }
}
