//! Which message is settled by whom: the offset that may be committed for each partition, and the ids that were told.
//!
//! Pure bookkeeping, without Kafka and without a clock. It promises:
//!
//! - The offset to commit is never above a message that a receiver has not settled.
//! - A receiver is told an id once, as long as it is among the last [`REMEMBERED`] ids. Messages from before the
//!   committed offset are read again for that, [`HISTORY`] of them a partition, and not told to anyone.
//! - What is settled above the committed offset is in the text to be committed, so the next owner does not repeat it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::progress::Progress;

/// Messages before the committed offset that are read again for their ids.
pub(super) const HISTORY: i64 = 10_000;

/// Ids that are remembered, the latest of all partitions: about 150 bytes each.
const REMEMBERED: usize = 50_000;

/// An offset to commit, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// All receivers there are.
    receivers: Vec<Arc<str>>,
    partitions: BTreeMap<i32, Partition>,
    told: Told,
}

#[derive(Debug, Default)]
struct Partition {
    /// Messages below it were settled before this process took over.
    begin: i64,
    /// Messages below it were read, history included.
    read: i64,
    /// Messages from `begin` to below it were read and handed out.
    next: i64,
    /// The receivers that have not settled a message yet, for messages that have any.
    open: BTreeMap<i64, Vec<Arc<str>>>,
    /// What the owner before had settled.
    earlier: Progress,
    committed: Option<Position>,
    changed: bool,
}

impl Ledger {
    pub(super) fn new(receivers: Vec<Arc<str>>) -> Self {
        Self { receivers, partitions: BTreeMap::new(), told: Told::new(REMEMBERED) }
    }

    /// Takes a partition over and says where to begin to read; `None` is the oldest message. `committed` is the
    /// group's offset, if it has one, and the text that was committed with it.
    pub(super) fn take_over(&mut self, partition: i32, committed: Option<i64>, text: &str) -> Option<i64> {
        let Some(begin) = committed else {
            self.partitions.insert(partition, Partition::default());
            return None;
        };
        let earlier = Progress::decode(begin, text).unwrap_or_else(|| {
            tracing::warn!(
                partition,
                text,
                "unknown text with the committed offset, receivers may be told again what they settled"
            );
            Progress::default()
        });
        let read = (begin - HISTORY).max(0);
        let position = Position { partition, offset: begin, text: text.to_owned() };
        let state = Partition {
            begin,
            read,
            next: begin,
            open: BTreeMap::new(),
            earlier,
            committed: Some(position),
            changed: false,
        };
        self.partitions.insert(partition, state);
        Some(read)
    }

    /// Notes that a message was read. Returns whom it has to be told, each of which must be settled later.
    /// `receivers` are all of those there are that the message is for.
    pub(super) fn read(
        &mut self,
        partition: i32,
        offset: i64,
        id: &str,
        receivers: &[Arc<str>],
    ) -> Vec<Arc<str>> {
        let Some(state) = self.partitions.get_mut(&partition) else { return Vec::new() };
        state.read = offset + 1;
        let mut untold = self.told.tell(id, receivers);
        if offset < state.begin {
            return Vec::new();
        }
        untold.retain(|receiver| !state.earlier.contains(receiver, offset));
        state.next = offset + 1;
        state.changed = true;
        if !untold.is_empty() {
            state.open.insert(offset, untold.clone());
        }
        untold
    }

    /// Notes that a message was read which is for nobody.
    pub(super) fn pass(&mut self, partition: i32, offset: i64) {
        self.read(partition, offset, "", &[]);
    }

    /// Notes that a receiver was told, or never will be.
    pub(super) fn settle(&mut self, partition: i32, offset: i64, receiver: &str) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        let Some(open) = state.open.get_mut(&offset) else { return };
        open.retain(|other| &**other != receiver);
        if open.is_empty() {
            state.open.remove(&offset);
        }
        state.changed = true;
    }

    /// Messages that some receiver has not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.partitions.values().map(|state| state.open.len()).sum()
    }

    /// Whether a message was there for the owner before: settled, and read again for its id only.
    pub(super) fn is_history(&self, partition: i32, offset: i64) -> bool {
        self.partitions.get(&partition).is_some_and(|state| offset < state.begin)
    }

    /// Whether messages from before the committed offset are still being read.
    pub(super) fn reads_history(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_some_and(|state| state.read < state.begin)
    }

    /// Notes that there is nothing more to read and that the partition ends at `end`. True when it ends before the
    /// committed offset: it is not the log that offset was committed for, and has to be read from its beginning.
    pub(super) fn ended(&mut self, partition: i32, end: i64) -> bool {
        let Some(state) = self.partitions.get_mut(&partition) else { return false };
        if end >= state.begin {
            // What was in between is no longer kept by the broker.
            state.read = state.read.max(state.begin);
            return false;
        }
        *state = Partition::default();
        self.told = Told::new(REMEMBERED);
        true
    }

    /// What is to be committed: the positions that are not those last committed.
    pub(super) fn due(&self) -> Vec<Position> {
        let mut due = Vec::new();
        for (&partition, state) in &self.partitions {
            if !state.changed {
                continue;
            }
            let position = state.position(partition, &self.receivers);
            if state.committed.as_ref() != Some(&position) {
                due.push(position);
            }
        }
        due
    }

    /// Notes that all that was [`due`](Self::due) has been committed. Nothing may have changed since.
    pub(super) fn committed(&mut self, due: Vec<Position>) {
        for state in self.partitions.values_mut() {
            state.changed = false;
        }
        for position in due {
            if let Some(state) = self.partitions.get_mut(&position.partition) {
                state.committed = Some(position);
            }
        }
    }
}

impl Partition {
    fn position(&self, partition: i32, receivers: &[Arc<str>]) -> Position {
        let offset = self.open.keys().next().copied().unwrap_or(self.next);
        let mut progress = Progress::default();
        for receiver in receivers {
            let mut from = offset;
            for (&message, open) in &self.open {
                if open.contains(receiver) {
                    progress.push(receiver, from..message);
                    from = message + 1;
                }
            }
            progress.push(receiver, from..self.next);
            for range in self.earlier.after(receiver, self.next) {
                progress.push(receiver, range);
            }
        }
        Position { partition, offset, text: progress.encode(offset) }
    }
}

/// Who was told which id, for the latest ids.
#[derive(Debug)]
struct Told {
    receivers_by_id: HashMap<Arc<str>, Vec<Arc<str>>>,
    oldest_first: VecDeque<Arc<str>>,
    capacity: usize,
}

impl Told {
    fn new(capacity: usize) -> Self {
        Self { receivers_by_id: HashMap::new(), oldest_first: VecDeque::new(), capacity }
    }

    /// Returns those of `receivers` that were not told before, and remembers that they are now.
    fn tell(&mut self, id: &str, receivers: &[Arc<str>]) -> Vec<Arc<str>> {
        if receivers.is_empty() {
            return Vec::new();
        }
        if !self.receivers_by_id.contains_key(id) {
            let id: Arc<str> = id.into();
            self.oldest_first.push_back(Arc::clone(&id));
            self.receivers_by_id.insert(id, Vec::new());
        }
        let mut untold = Vec::new();
        if let Some(told) = self.receivers_by_id.get_mut(id) {
            for receiver in receivers {
                if !told.contains(receiver) {
                    told.push(Arc::clone(receiver));
                    untold.push(Arc::clone(receiver));
                }
            }
        }
        if self.oldest_first.len() > self.capacity
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.receivers_by_id.remove(&oldest);
        }
        untold
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
