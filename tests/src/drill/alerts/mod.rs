//! Ten thousand transitions to receivers that refuse, are slow, answer 429 or are cut in the middle
//! of an answer, while the processes that judge and those that tell are killed, frozen and ended.
//!
//! What must be notified follows from the points alone ([`story`]); what was notified is what the
//! receivers have, each key once ([`receivers`]); and the ledger must say the same ([`books`]).

mod books;
mod receivers;
mod story;

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::books::Books;
use self::receivers::Receivers;
use self::story::Story;
use super::site::{Alerting, Options, Site};
use super::verdict::{Accounts, Verdict};
use super::workload::PARTITIONS;
use super::{Ground, Plan};
use crate::duckdb::DuckDb;
use crate::input::{Format, heartbeats, messages};
use crate::kafka::{Kafka, Message};
use crate::offsets::Offsets;

const NAME: &str = "j-alerts";
/// Two that judge, and two that tell: one at work, the other ready to take over.
const ROLES: [&str; 4] = ["ingest,rollup", "ingest,rollup", "notify", "notify"];
const JUDGING: std::ops::Range<usize> = 0..2;
const TELLING: std::ops::Range<usize> = 2..4;
/// Longer than the session of a group's member.
const FROZEN: Duration = Duration::from_secs(8);

/// What is done to processes. Receivers misbehave all the time.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    CrashJudging,
    /// All of them, so that the one at work is among them.
    CrashTelling,
    FreezeTelling,
    EndTelling,
    CrashBoth,
    FreezeJudging,
}

impl Trouble {
    /// In the order in which they come.
    const ALL: [Self; 6] = [
        Self::CrashTelling,
        Self::CrashJudging,
        Self::FreezeTelling,
        Self::EndTelling,
        Self::CrashBoth,
        Self::FreezeJudging,
    ];
}

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let mut round = Round::new(ground, plan);
    for (member, roles) in ROLES.into_iter().enumerate() {
        round.site.spawn_as(member, roles);
    }
    let parts = plan.size(3, 9);
    let mut rest = round.points();
    let part = rest.len().div_ceil(parts);
    for (number, trouble) in Trouble::ALL.into_iter().cycle().take(parts).enumerate() {
        round.send(rest.drain(..part.min(rest.len())).collect());
        round.receivers.turn(&mut round.random, number);
        round.wait_for_instant(number, parts);
        round.make(trouble);
    }
    round.finish(plan)
}

struct Round<'a> {
    kafka: &'a Kafka,
    duckdb: &'a DuckDb,
    random: StdRng,
    story: Story,
    receivers: Receivers,
    site: Site,
    read: Offsets,
    sent: usize,
    started: Instant,
}

impl<'a> Round<'a> {
    fn new(ground: &Ground<'a>, plan: &Plan) -> Self {
        let started = Instant::now();
        let mut random = StdRng::seed_from_u64(plan.seed);
        let story = Story::new(&mut random, plan.size(30, 120), plan.size(24, 160));
        let receivers = Receivers::start(&mut random);
        let options = Options {
            alerting: Some(Alerting { rollup: ("load", story::ROLLUP), rules: receivers.rules() }),
            ..Options::default()
        };
        let topic = ground.kafka.unique_topic(&format!("drill-{NAME}"), PARTITIONS);
        let mut site = Site::new(ground.kafka, ground.influx, (NAME, plan.seed), topic, &options);
        while site.members.len() < ROLES.len() {
            site.add();
        }
        let read = Offsets::new(ground.kafka, &site.group("ingest"));
        Self {
            kafka: ground.kafka,
            duckdb: ground.duckdb,
            random,
            story,
            receivers,
            site,
            read,
            sent: 0,
            started,
        }
    }

    fn points(&self) -> Vec<Message> {
        messages(&self.story.points, PARTITIONS, Format::JsonLines(10)).collect()
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.sent += messages.len();
        self.kafka.produce(&self.site.topic, messages);
    }

    /// Waits until a part of what this part of the points leads to has been notified to the
    /// receiver that always answers: an instant of the seed's choosing.
    fn wait_for_instant(&mut self, part: usize, parts: usize) {
        let expected = self.story.expected(story::HIGH).count();
        // The windows at the end of a part are still open.
        let (from, to) = (expected * part / parts, expected * (10 * part + 7) / (10 * parts));
        let enough = self.random.random_range(from..=to);
        let receivers = &self.receivers;
        self.site.wait(&format!("{enough} notifications"), |_| match receivers.steady.count() {
            count if count >= enough => Ok(()),
            count => Err(format!("{count} notifications")),
        });
        park_timeout(Duration::from_millis(self.random.random_range(0..500)));
    }

    fn make(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::CrashJudging => self.crash_one_that_judges(),
            Trouble::CrashTelling => TELLING.for_each(|member| self.crash(member)),
            Trouble::CrashBoth => {
                self.crash_one_that_judges();
                TELLING.for_each(|member| self.crash(member));
            }
            Trouble::FreezeTelling => self.freeze(TELLING),
            Trouble::FreezeJudging => self.freeze(JUDGING),
            Trouble::EndTelling => {
                let member = self.site.any_of(&mut self.random, TELLING);
                self.site.terminate(member);
                self.site.faults += 1;
                self.site.spawn_as(member, ROLES[member]);
            }
        }
    }

    fn crash_one_that_judges(&mut self) {
        let member = self.site.any_of(&mut self.random, JUDGING);
        self.crash(member);
    }

    fn crash(&mut self, member: usize) {
        self.site.members[member].kill9();
        self.site.faults += 1;
        self.site.spawn_as(member, ROLES[member]);
    }

    /// It wakes up when others have what it had.
    fn freeze(&mut self, members: std::ops::Range<usize>) {
        let member = self.site.any_of(&mut self.random, members);
        self.site.members[member].signal("STOP");
        self.site.faults += 1;
        park_timeout(FROZEN);
        self.site.members[member].signal("CONT");
    }

    /// Nothing goes wrong any more, and everything is notified; then the accounts.
    fn finish(mut self, plan: &Plan) -> Verdict {
        self.receivers.behave();
        self.send(heartbeats(self.story.end(), PARTITIONS).collect());
        let (topic, sent) = (self.site.topic.clone(), i64::try_from(self.sent).unwrap());
        let reading = &self.read;
        self.site.wait("all messages to be read", |_| {
            let read = reading.committed(&topic, PARTITIONS)?.into_iter().sum::<i64>();
            if read == sent { Ok(()) } else { Err(format!("{read} of {sent}")) }
        });
        let (kafka, story, receivers) = (self.kafka, &self.story, &self.receivers);
        self.site.wait("all transitions to be notified or said to be untold", |site| {
            let books = Books::read(kafka, site);
            let open = books.open(story);
            if open.is_empty() {
                Ok(())
            } else {
                Err(format!("{} open, among them {:?}", open.len(), open[0]))
            }
        });
        for member in 0..ROLES.len() {
            self.site.terminate(member);
        }
        let books = Books::read(kafka, &self.site);
        let mut accounts = Accounts::default();
        books.compare(story, &mut accounts);
        books.audit_files(self.duckdb, &self.site.data(), &mut accounts);
        let told = receivers.told(&books);
        for told in &told {
            books.audit(told, &mut accounts);
        }
        if !accounts.problems.is_empty() {
            self.site.keep_logs();
        }
        let notes = vec![format!(
            "{} transitions, {} notifications in {} attempts, {} untold",
            story.len(),
            told.iter().map(|told| told.notifications.len()).sum::<usize>(),
            told.iter().map(|told| told.attempts).sum::<usize>(),
            books.untold(),
        )];
        Verdict {
            drill: NAME,
            seed: plan.seed,
            points: story.points.len(),
            faults: self.site.faults + receivers.faults(),
            took: self.started.elapsed(),
            notes,
            accounts,
        }
    }
}
