//! A round: a workload, an installation, faults, and the wait until everything is durable.

use std::path::PathBuf;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::site::{DEAD_LETTERS, Options, PARTIALS, PATIENCE, Site};
use super::verdict::{self, Verdict};
use super::workload::{PARTITIONS, ROLLUPS, Shape, WINDOW, Workload};
use super::{Ground, Plan};
use crate::influx::Influx;
use crate::input::heartbeats;
use crate::kafka::Kafka;
use crate::offsets::Offsets;
use crate::oracle::{self, Rows};
use crate::wait::wait_until;

/// How a round differs from a plain one.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) kafka: &'a Kafka,
    pub(super) influx: &'a Influx,
    pub(super) shape: Shape,
    pub(super) options: Options,
}

impl<'a> Setup<'a> {
    /// So many points in so many parts, on the servers that all share.
    pub(super) fn new(ground: &Ground<'a>, points: usize, slices: usize) -> Self {
        let shape = Shape { points, disorder: Duration::from_secs(120), slices };
        Self { kafka: ground.kafka, influx: ground.influx, shape, options: Options::default() }
    }
}

#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) kafka: &'a Kafka,
    pub(super) influx: &'a Influx,
    pub(super) random: StdRng,
    pub(super) workload: Workload,
    pub(super) site: Site,
    /// What the drill measured or saw, for the closing table.
    pub(super) notes: Vec<String>,
    /// What must be in InfluxDB in the end, by rollup.
    pub(super) expected: Vec<(&'static str, Rows)>,
    /// Where the archive can be read in the end.
    pub(super) archive: PathBuf,
    drill: &'static str,
    seed: u64,
    ingest: Offsets,
    rollup: Offsets,
    sent: usize,
    late_sent: bool,
    started: Instant,
}

impl<'a> Round<'a> {
    pub(super) fn new(drill: &'static str, ground: &Ground<'a>, plan: &Plan, setup: &Setup<'a>) -> Self {
        let mut random = StdRng::seed_from_u64(plan.seed);
        let workload = Workload::new(&mut random, &setup.shape);
        let expected = ROLLUPS.map(|(name, sql)| (name, oracle::rows(sql, &workload.points))).into();
        let topic = setup.kafka.unique_topic(&format!("drill-{drill}"), PARTITIONS);
        let site = Site::new(setup.kafka, setup.influx, (drill, plan.seed), topic, &setup.options);
        Self {
            ground: *ground,
            kafka: setup.kafka,
            influx: setup.influx,
            random,
            workload,
            notes: Vec::new(),
            expected,
            archive: site.data(),
            drill,
            seed: plan.seed,
            ingest: Offsets::new(setup.kafka, &site.group("ingest")),
            rollup: Offsets::new(setup.kafka, &site.group("rollup")),
            site,
            sent: 0,
            late_sent: false,
            started: Instant::now(),
        }
    }

    /// Starts so many members, and waits for none of them.
    pub(super) fn start(&mut self, members: usize) {
        for member in 0..members {
            if member == self.site.members.len() {
                self.site.add();
            }
            self.site.spawn(member);
        }
    }

    /// Whether more than the last part is left to send.
    pub(super) fn has_more(&self) -> bool {
        self.workload.slices() > 1
    }

    /// Sends the next part of the points; false when only the last one is left, see
    /// [`Round::send_last`].
    pub(super) fn send(&mut self) -> bool {
        if !self.has_more() {
            return false;
        }
        let slice = self.workload.next_slice();
        self.produce(slice);
        true
    }

    /// Sends the last part, and with it the points that are late for certain: the first windows of
    /// every group are written, so the watermark of each partition that these points go to has
    /// passed them long ago.
    pub(super) fn send_last(&mut self) {
        for (position, (name, sql)) in ROLLUPS.into_iter().enumerate() {
            let expected = &self.expected[position].1;
            let first = expected.keys().map(|key| key.time).min().expect("the workload has points");
            let wanted: Vec<_> = expected.keys().filter(|key| key.time == first).cloned().collect();
            self.wait(&format!("the first windows of {name}"), |round| {
                let found = round.influx.rows(&round.site.id, name);
                let missing = wanted.iter().filter(|key| !found.contains_key(*key)).count();
                if missing == 0 { Ok(()) } else { Err(format!("{missing} are missing, of {sql}")) }
            });
        }
        let late = self.workload.late_messages();
        let mut random = StdRng::seed_from_u64(self.random.random());
        self.workload.mix(&mut random, late);
        self.late_sent = true;
        while self.workload.slices() > 0 {
            let slice = self.workload.next_slice();
            self.produce(slice);
        }
    }

    /// Sends everything at once, without late points, and what closes the windows: before anyone
    /// reads, all of it is unread, and no silence can be taken for idleness.
    pub(super) fn send_all(&mut self) {
        self.workload.late.clear();
        while self.workload.slices() > 0 {
            let slice = self.workload.next_slice();
            self.produce(slice);
        }
        self.send_heartbeats();
    }

    fn send_heartbeats(&mut self) {
        let heartbeats = heartbeats(self.workload.end(), PARTITIONS).collect();
        self.produce(heartbeats);
    }

    fn produce(&mut self, messages: Vec<crate::kafka::Message>) {
        self.sent += messages.len();
        self.kafka.produce(&self.site.topic, messages);
    }

    /// Messages sent so far.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Messages that `ingest` has committed.
    pub(super) fn read(&self) -> Result<usize, String> {
        let committed = self.ingest.committed(&self.site.topic, PARTITIONS)?;
        Ok(committed.into_iter().map(|next| usize::try_from(next).unwrap_or(0)).sum())
    }

    /// The end of each partition of a topic.
    pub(super) fn ends(&self, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
        self.ingest.ends(topic, partitions)
    }

    /// Waits until `ingest` has committed so many messages.
    pub(super) fn wait_for_read(&mut self, messages: usize) {
        self.wait(&format!("{messages} messages of {} to be read", self.sent), |round| {
            match round.read()? {
                read if read >= messages => Ok(()),
                read => Err(format!("{read} messages")),
            }
        });
    }

    /// Waits for an instant of the seed's choosing between what is read now and what was sent.
    pub(super) fn wait_for_instant(&mut self) {
        let read = self.wait("the offsets of ingest", Round::read);
        let ahead = self.sent.saturating_sub(read);
        let instant = read + ahead * self.random.random_range(0..90) / 100;
        self.wait_for_read(instant);
        self.pause(300);
    }

    /// Anything up to so many milliseconds: where within an epoch or a checkpoint the next fault
    /// falls.
    pub(super) fn pause(&mut self, most: u64) {
        park_timeout(Duration::from_millis(self.random.random_range(0..=most)));
    }

    /// Waits for `probe`.
    ///
    /// # Panics
    /// When the time is over, or a member ends by itself: with the end of the members' logs.
    pub(super) fn wait<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Result<T, String>) -> T {
        // The probe looks at the round, of which the site is a part.
        wait_until(PATIENCE, what, || {
            self.site.check_running(what);
            probe(self).map_err(|seen| format!("{seen}\n{}", self.site.label()))
        })
    }

    /// A random member that runs.
    pub(super) fn any_member(&mut self) -> usize {
        self.site.any_of(&mut self.random, 0..self.site.members.len())
    }

    pub(super) fn running(&self) -> Vec<usize> {
        let members = self.site.members.iter().enumerate();
        members.filter(|(_, member)| member.is_started()).map(|(position, _)| position).collect()
    }

    /// Ends a member as a crash would, and starts it again.
    pub(super) fn crash(&mut self, member: usize) {
        self.site.members[member].kill9();
        self.site.faults += 1;
        self.site.spawn(member);
    }

    /// Asks a member to end, and says how long it took.
    pub(super) fn terminate(&mut self, member: usize) -> Duration {
        self.site.terminate(member)
    }

    /// Until the last window is closed. Idle partitions let event time follow only with their
    /// owners' next reports, which come after everything was read.
    fn wait_for_event_time(&mut self) {
        let closed = (self.workload.end() - WINDOW) as f64 / 1e9;
        self.wait("event time to pass the last window", |round| {
            for partition in (0..PARTIALS).map(|partition| partition.to_string()) {
                let labels = [("partition", partition.as_str())];
                let members = round.site.members.iter().filter(|member| member.is_started());
                let times =
                    members.filter_map(|member| member.metric("tidemark_rollup_watermark_seconds", &labels));
                let newest = times.fold(f64::MIN, f64::max);
                if newest < closed {
                    return Err(format!("{newest} of {closed} in partition {partition}"));
                }
            }
            Ok(())
        });
    }

    /// Waits until everything that was sent is durable: all messages are read by `ingest`, and
    /// everything that it had sent until the last window was closed has been folded, written and
    /// committed by `rollup`.
    pub(super) fn settle(&mut self) {
        if self.late_sent {
            self.send_heartbeats();
        }
        self.wait_for_read(self.sent);
        self.wait_for_event_time();
        let partials = self.site.topic_of("partials");
        let ends = self.wait("the end of the partials", |round| round.rollup.ends(&partials, PARTIALS));
        self.wait("the partials to be written", |round| {
            let committed = round.rollup.committed(&partials, PARTIALS)?;
            let behind = committed.iter().zip(&ends).any(|(next, end)| next < end);
            if behind { Err(format!("{committed:?} of {ends:?}")) } else { Ok(()) }
        });
    }

    /// Ends all members in order. One that was given partitions a moment before leaves what it has
    /// not archived of them to the next owner: where nobody is left, another one is started.
    fn end_members(&mut self) {
        for member in self.running() {
            self.terminate(member);
        }
        if self.wait("the offsets of ingest", Self::unarchived).is_empty() {
            return;
        }
        self.notes.push("the end of the archive was left to a later member".into());
        self.start(1);
        self.wait("everything to be archived", |round| {
            let left = round.unarchived()?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        self.terminate(0);
    }

    /// The partitions' commits by which not everything that was aggregated is in the archive too.
    fn unarchived(&self) -> Result<Vec<(i64, String)>, String> {
        let commits = self.ingest.commits(&self.site.topic, PARTITIONS)?;
        let whole = |(next, text): &(i64, String)| text.split(';').next() == Some(&format!("archive={next}"));
        Ok(commits.into_iter().filter(|commit| !whole(commit)).collect())
    }

    /// Settles, ends all members in order, and compares what is there with what was sent.
    pub(super) fn finish(mut self) -> Verdict {
        self.settle();
        let stored: i64 = self.ends(&self.site.topic, PARTITIONS).expect("the broker answers").iter().sum();
        if usize::try_from(stored) != Ok(self.sent) {
            self.site.fail(&format!("the sender stored {stored} messages in place of {}", self.sent));
        }
        self.end_members();
        for (topic, partitions) in [("partials", PARTIALS), ("dead-letter", DEAD_LETTERS)] {
            let topic = self.site.topic_of(topic);
            self.wait("all transactions to be over", |round| {
                let ends = round.ingest.ends(&topic, partitions)?;
                let stable = round.ingest.stable_ends(&topic, partitions)?;
                if ends == stable { Ok(()) } else { Err(format!("{stable:?} of {ends:?} in `{topic}`")) }
            });
        }
        let accounts = verdict::account(&self);
        if !accounts.problems.is_empty() {
            self.site.keep_logs();
        }
        Verdict {
            drill: self.drill,
            seed: self.seed,
            points: self.workload.accepted().count() + self.workload.refused + self.workload.others,
            faults: self.site.faults,
            took: self.started.elapsed(),
            notes: self.notes,
            accounts,
        }
    }
}
