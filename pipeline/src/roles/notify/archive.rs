//! The ledger as Parquet files: a thread and a consumer group of its own beside the delivering,
//! which it never holds up.
//!
//! Entries are cut into chunks, each a contiguous range of offsets. Where a chunk ends is committed
//! *before* a file of it is written, and once its files are durable the committed offset moves to
//! its end. The next owner of the partition cuts at the same place, so it writes the same files
//! with the same entries under the same names, and a file that a former owner still has on its way
//! changes nothing. Without a readable commit the files themselves have how far they go.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use serde::Deserialize;
use sinks::parquet::{LedgerChunk, LedgerParquet, LedgerRow};

use crate::error::{Error, Result};
use crate::kafka::{self, ConsumerSettings};
use crate::roles::context::{Context, HANDOVER};
use crate::roles::group::{Assigned, Commit, Group, Membership, Share, Source, commit};
use crate::shutdown::Shutdown;
use crate::storage::archive_progress::ArchiveProgress;

/// A file is written when so many entries wait, or the oldest has waited for so long.
const ROLL_ENTRIES: usize = 10_000;
const ROLL_AGE: Duration = Duration::from_secs(300);
/// Memory of entries that librdkafka has fetched ahead.
const READ_AHEAD: usize = 4 << 20;
const POLL: Duration = Duration::from_millis(500);
/// Pauses between two tries after something failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long storage may take for a chunk. The group would miss a member that is silent for five
/// minutes.
const LONGEST_WRITE: Duration = Duration::from_secs(120);

/// The thread. To be ended with [`Archive::end`].
pub(super) struct Archive {
    thread: Option<thread::JoinHandle<()>>,
    ended: Shutdown,
}

impl Archive {
    pub(super) fn start(context: &Context) -> Self {
        let ended = Shutdown::new();
        let (context, shutdown) = (context.clone(), ended.clone());
        let work = move || keep_running(&context, &shutdown);
        let started = thread::Builder::new().name("notify-archive".into()).spawn(work);
        let thread = started
            .inspect_err(
                |error| tracing::error!(%error, "no thread for the ledger's files, none are written"),
            )
            .ok();
        Self { thread, ended }
    }

    /// Writes what waits, as far as storage takes it soon.
    pub(super) fn end(self) {
        self.ended.trigger();
        // It catches its panics.
        let _ = self.thread.map(thread::JoinHandle::join);
    }
}

/// Whatever goes wrong makes the files wait, and nothing else.
fn keep_running(context: &Context, ended: &Shutdown) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = context.clock.monotonic();
        let session = AssertUnwindSafe(|| session(context, ended));
        let outcome =
            catch_unwind(session).unwrap_or(Err(Error::Interrupted("the ledger's archive panicked")));
        let Err(error) = outcome else { return };
        if ended.is_triggered() {
            tracing::warn!(%error, "the newest entries of the ledger have no file yet, the next owner writes it");
            return;
        }
        if context.clock.monotonic().saturating_sub(started) > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if error.retryable() {
            tracing::warn!(%error, ?pause, "the ledger's files wait; alerts are delivered all the same");
        } else {
            tracing::error!(%error, ?pause, "the ledger's files wait for a person; alerts are delivered all the same");
        }
        let stopped =
            context.runtime.block_on(async { tokio::time::timeout(pause, ended.triggered()).await.is_ok() });
        if stopped {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

type ArchiveConsumer = BaseConsumer<Group<LedgerShare>>;

fn session(context: &Context, ended: &Shutdown) -> Result<()> {
    let config = &context.config;
    let (store, prefix) = sinks::parquet::store::open(config.storage.url.as_str())?;
    let share = LedgerShare::new(context, LedgerParquet::new(store, prefix), ended.clone());
    let group = format!("{}-ledger", config.alerts.group);
    let settings = ConsumerSettings { cooperative: false, ..ConsumerSettings::of_small(&group, READ_AHEAD) };
    let consumer = kafka::consumer(&config.kafka, settings, Group::new(share))?;
    let topic = config.topics.alert_log();
    consumer.subscribe(&[&topic]).map_err(Error::client("subscribe to the ledger's topic"))?;
    let consumed = consume(&consumer, ended);
    let written = match consumed {
        // Still the owner.
        Ok(()) => write(&consumer, LedgerShare::all),
        Err(_) => Ok(()),
    };
    crate::roles::context::leave(consumer);
    consumed.and(written)
}

fn consume(consumer: &ArchiveConsumer, ended: &Shutdown) -> Result<()> {
    let group = consumer.context();
    while !ended.is_triggered() {
        match consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                group.share().come_to(partition, offset);
                write(consumer, LedgerShare::due)?;
                group.share().take(partition, offset, message.payload());
            }
            Some(Err(error)) => kafka::go_on_after("read the ledger", error)?,
        }
        group.check()?;
        write(consumer, LedgerShare::due)?;
    }
    Ok(())
}

/// Writes the chunks that `which` names.
fn write(consumer: &ArchiveConsumer, which: fn(&LedgerShare) -> Vec<(i32, i64)>) -> Result<()> {
    let mut share = consumer.context().share();
    for (partition, end) in which(&share) {
        share.write(partition, end, &mut |offsets| commit(consumer, offsets))?;
    }
    Ok(())
}

/// The owned partitions.
struct LedgerShare {
    context: Context,
    topic: String,
    store: LedgerParquet,
    ended: Shutdown,
    roll_entries: usize,
    partitions: BTreeMap<i32, Partition>,
}

struct Partition {
    /// Everything before this is durable.
    safe: i64,
    next: i64,
    /// Where a former owner had cut.
    cut: Option<i64>,
    rows: Vec<LedgerRow>,
    /// When the oldest row came; by the monotonic clock.
    since: Option<Duration>,
}

impl LedgerShare {
    fn new(context: &Context, store: LedgerParquet, ended: Shutdown) -> Self {
        let topic = context.config.topics.alert_log();
        let context = context.clone();
        Self { context, topic, store, ended, roll_entries: ROLL_ENTRIES, partitions: BTreeMap::new() }
    }

    /// Takes a partition over.
    fn start(&self, assigned: &Assigned) -> Result<Partition> {
        let begin = assigned.log.0;
        let committed = ArchiveProgress::parse(&assigned.metadata)?.filter(|known| {
            let ends_known = known.ends.len() < 2 && assigned.offset == Some(known.safe);
            // A chunk whose entries are no longer all there must not replace the file that has
            // them.
            ends_known && (known.ends.is_empty() || begin <= known.safe)
        });
        let (safe, cut) = match committed {
            Some(known) => (known.safe, known.ends.first().copied()),
            None => self.by_files(assigned)?,
        };
        Assigned { offset: Some(cut.unwrap_or(safe)), ..assigned.clone() }.check_offset()?;
        let safe = safe.max(begin);
        Ok(Partition { safe, next: safe, cut, rows: Vec::new(), since: None })
    }

    /// Where to go on when nothing is committed, or somebody has set the offset, or the log has
    /// lost entries.
    fn by_files(&self, assigned: &Assigned) -> Result<(i64, Option<i64>)> {
        let (begin, offset) = (assigned.log.0, assigned.offset.unwrap_or_default());
        let newest = self.context.runtime.block_on(self.store.newest(assigned.partition))?;
        Ok(match newest.map(|(first, last)| (first, last + 1)) {
            // The newest chunk may lack a file, so it is written once more, if all of it can be
            // read.
            Some((first, end)) if end >= offset && first >= begin => (first, Some(end)),
            Some((_, end)) => (end.max(offset), None),
            None => (offset, None),
        })
    }

    /// The next message of a partition has this offset; there are none before it.
    fn come_to(&mut self, partition: i32, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.next = partition.cut.map_or(offset, |cut| offset.min(cut)).max(partition.next);
        }
    }

    fn take(&mut self, partition: i32, offset: i64, payload: Option<&[u8]>) {
        let now = self.context.clock.monotonic();
        let Some(part) = self.partitions.get_mut(&partition) else { return };
        part.next = offset + 1;
        part.since.get_or_insert(now);
        match row(payload) {
            Ok(row) => part.rows.push(row),
            Err(reason) => {
                tracing::error!(partition, offset, reason, "not an entry of the ledger, it is in no file");
            }
        }
    }

    /// Partitions that have a chunk to write, and where it ends.
    fn due(&self) -> Vec<(i32, i64)> {
        let now = self.context.clock.monotonic();
        let is_due = |part: &Partition| match part.cut {
            Some(cut) => part.next >= cut,
            None => {
                let is_old = part.since.is_some_and(|since| now.saturating_sub(since) >= ROLL_AGE);
                is_old || part.rows.len() >= self.roll_entries
            }
        };
        let due = self.partitions.iter().filter(|(_, part)| is_due(part));
        due.map(|(number, part)| (*number, part.next)).collect()
    }

    /// Everything that waits. What a former owner had cut elsewhere is left to the next one.
    fn all(&self) -> Vec<(i32, i64)> {
        let waiting = self.partitions.iter().filter(|(_, part)| part.since.is_some());
        let whole = waiting.filter(|(_, part)| part.cut.is_none_or(|cut| part.next >= cut));
        whole.map(|(number, part)| (*number, part.next)).collect()
    }

    /// Writes what a partition has up to `end`, which is all that was read. After an error the
    /// session has to end.
    fn write(&mut self, number: i32, end: i64, commit: &mut dyn FnMut(&Commit) -> Result<()>) -> Result<()> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        let safe = partition.safe;
        let mut announce = |safe: i64, ends: Vec<i64>| {
            let text = ArchiveProgress { safe, ends }.encode();
            commit(&vec![(self.topic.clone(), number, safe, text)])
        };
        let rows = std::mem::take(&mut partition.rows);
        if !rows.is_empty() {
            if partition.cut != Some(end) {
                announce(safe, vec![end])?;
            }
            let entries = rows.len();
            let chunk = LedgerChunk { partition: number, first_offset: safe, last_offset: end - 1, rows };
            let files = self.context.runtime.block_on(in_time(self.store.write(chunk), &self.ended))?;
            tracing::debug!(partition = number, entries, files, "entries of the ledger stored");
        }
        announce(end, Vec::new())?;
        *partition = Partition { safe: end, next: end, cut: None, rows: Vec::new(), since: None };
        Ok(())
    }
}

impl Share for LedgerShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        let mut starts = Vec::new();
        for assigned in partitions {
            let partition = self.start(assigned)?;
            starts.push(Some(partition.safe));
            self.partitions.insert(assigned.partition, partition);
        }
        Ok(starts)
    }

    /// What has no file yet is read again by the next owner. The group is not cooperative: these
    /// are all.
    fn revoked(&mut self, _: &[Source], _: Membership<'_>) -> Result<Commit> {
        self.partitions.clear();
        Ok(Vec::new())
    }

    fn lost(&mut self) -> Result<()> {
        self.partitions.clear();
        Ok(())
    }
}

async fn in_time(
    writing: impl Future<Output = Result<usize, sinks::Error>>,
    ended: &Shutdown,
) -> Result<usize> {
    let grace = async {
        ended.triggered().await;
        tokio::time::sleep(HANDOVER).await;
    };
    tokio::select! {
        written = writing => Ok(written?),
        () = grace => Err(Error::Interrupted("the role ended before a slow storage took the ledger's file")),
        () = tokio::time::sleep(LONGEST_WRITE) => Err(Error::Interrupted("storage did not take the ledger's file within two minutes")),
    }
}

/// An entry as any release writes it: names of what has become of something are only ever added.
#[derive(Deserialize)]
struct Line {
    at: i64,
    transition: Option<String>,
    dispatch: Option<String>,
    rule: String,
    labels: BTreeMap<String, String>,
    incident: String,
    what: String,
    receiver: Option<String>,
    by: Option<String>,
    reason: Option<String>,
}

fn row(payload: Option<&[u8]>) -> Result<LedgerRow, String> {
    let line: Line =
        serde_json::from_slice(payload.unwrap_or_default()).map_err(|error| error.to_string())?;
    let Line { at, transition, dispatch, rule, labels, incident, what, receiver, by, reason } = line;
    let labels = serde_json::to_string(&labels).map_err(|error| error.to_string())?;
    Ok(LedgerRow { at, transition, dispatch, rule, labels, incident, what, receiver, by, reason })
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
