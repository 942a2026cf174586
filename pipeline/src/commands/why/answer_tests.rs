use std::collections::BTreeMap;

use operators::watermark::{HoldReason, Source, Standing};

use super::super::brokers::{Brokers, GroupFacts, Log, Member};
use super::super::picture::{Asked, Evidence, Rules};
use super::*;
use crate::board::history::{Change, OffsetRange, WindowHistory};
use crate::board::status::{
    Origin, OwnedSource, Refused, RollupDetail, RollupPartition, RollupStatus, SinkStatus, SinkTrouble,
    SourceStanding, Status,
};

const SECOND: i64 = 1_000_000_000;
/// Wall time of the answers, an hour after the event time of the points.
const NOW: i64 = 1_767_229_200 * SECOND;
const EPOCH: i64 = NOW - 3_600 * SECOND;

/// Two source partitions at 100 s and 200 s of event time, reported a second ago and read to their
/// ends, all owned by one live process; a window from 60 s to 120 s that is open, as the watermark
/// is at 95 s.
struct Scene {
    evidence: Evidence,
    question: Question,
}

fn at(seconds: i64) -> Time {
    Time(EPOCH + seconds * SECOND)
}

fn source(partition: i32) -> Source {
    ("points".to_owned(), partition)
}

fn standing(partition: i32, standing: Standing, newest: Option<i64>) -> SourceStanding {
    SourceStanding {
        topic: "points".to_owned(),
        partition,
        standing,
        newest: newest.map(at),
        next_offset: Some(10),
        silent_ms: 4_000,
        reported: Some(Time(NOW - SECOND)),
        owner: Some("a:1".to_owned()),
    }
}

fn owned(partition: i32) -> OwnedSource {
    OwnedSource {
        topic: "points".to_owned(),
        partition,
        next_offset: 10,
        read_per_second: Some(2.0),
        newest: None,
        at_end: false,
        silent_ms: 4_000,
        accepted: Some(Time(NOW - 5 * SECOND)),
        refused: BTreeMap::new(),
        last_refused: None,
        farthest_ahead_ms: None,
    }
}

fn group(topic: &str, partitions: i32, end: i64) -> GroupFacts {
    let all: Vec<Source> = (0..partitions).map(|partition| (topic.to_owned(), partition)).collect();
    let log = Log { end, committed: Some(end) };
    GroupFacts {
        logs: all.iter().map(|source| (source.clone(), log)).collect(),
        state: "Stable".to_owned(),
        members: vec![Member { id: "tidemark-x".to_owned(), host: "10.0.0.1".to_owned(), partitions: all }],
    }
}

impl Scene {
    fn new() -> Self {
        let partition = RollupPartition {
            partition: 0,
            from: Origin::Owner,
            next_offset: 50,
            checkpoint_offset: 45,
            log_time: Some(Time(NOW - SECOND)),
            watermark: Some(at(95)),
            holder: Some(Holder { topic: "points".to_owned(), partition: 0, reason: HoldReason::Slowest }),
            sources: vec![standing(0, Standing::Active, Some(100)), standing(1, Standing::Active, Some(200))],
            open: vec![crate::board::status::OpenWindow { start: at(60), end: at(120), rows: 1 }],
            open_windows: 1,
        };
        let sink = SinkStatus {
            name: "influx".to_owned(),
            queued: 0,
            paused: false,
            flushed: Some(Time(NOW - 2 * SECOND)),
            checkpoint_since: None,
            trouble: None,
        };
        let detail = RollupDetail { table: "cpu".to_owned(), ..RollupDetail::default() };
        let status = Status {
            instance: "a:1".to_owned(),
            version: "0".to_owned(),
            started: Time(NOW - 500 * SECOND),
            now: Time(NOW),
            waiting: BTreeMap::new(),
            ingest: Some(vec![owned(0), owned(1)]),
            rollup: Some(RollupStatus { partitions: vec![partition], sink, asked: Some(detail) }),
            failures: Vec::new(),
        };
        let rules = Rules {
            epoch: SECOND,
            max_out_of_orderness: 5 * SECOND,
            max_future_skew: 300 * SECOND,
            idle_timeout: 60 * SECOND,
            owner_timeout: 10 * SECOND,
            partials: "partials".to_owned(),
            partials_partitions: 1,
        };
        let brokers = Brokers { ingest: group("points", 2, 10), rollup: group("partials", 1, 51) };
        let evidence = Evidence {
            now: NOW,
            rules,
            asked: vec![Asked { url: "http://a".to_owned(), status: Ok(status) }],
            kafka: Ok(brokers),
            snapshots: Vec::new(),
            notes: Vec::new(),
        };
        let question = Question {
            rollup: "cpu".to_owned(),
            tier: "1m".to_owned(),
            table: "cpu".to_owned(),
            allowed_lateness: 600 * SECOND,
            window: None,
        };
        Self { evidence, question }
    }

    fn about(mut self, start: i64, end: i64) -> Self {
        self.question.window = Some((at(start).0, at(end).0));
        self
    }

    fn status(&mut self) -> &mut Status {
        self.evidence.asked[0].status.as_mut().expect("the process answers")
    }

    fn rollup(&mut self) -> &mut RollupStatus {
        self.status().rollup.as_mut().expect("it runs rollup")
    }

    fn partition(&mut self) -> &mut RollupPartition {
        &mut self.rollup().partitions[0]
    }

    fn owned(&mut self, partition: usize) -> &mut OwnedSource {
        &mut self.status().ingest.as_mut().expect("it runs ingest")[partition]
    }

    fn kafka(&mut self) -> &mut Brokers {
        self.evidence.kafka.as_mut().expect("kafka answers")
    }

    fn history(&mut self, window: WindowHistory) {
        self.rollup().asked.as_mut().expect("it was asked about the rollup").windows.push(window);
    }

    /// The cause, and that the summary has these words.
    #[track_caller]
    fn expect(self, cause: Cause, words: &[&str]) -> Answer {
        let answer = answer(&self.question, Picture::new(self.evidence));
        assert_eq!(answer.cause, cause, "{}", answer.summary);
        for part in words {
            assert!(answer.summary.contains(part), "`{part}` is not in: {}", answer.summary);
        }
        answer
    }
}

fn change(offset: i64, rows: u64, sources: &[(i32, i64, i64)]) -> Change {
    let range = |(partition, from, to): &(i32, i64, i64)| OffsetRange {
        topic: "points".to_owned(),
        partition: *partition,
        from: *from,
        to: *to,
    };
    Change {
        at: Time(NOW - 30 * SECOND),
        offset,
        watermark: Some(at(95)),
        rows,
        sources: sources.iter().map(range).collect(),
    }
}

fn closed_window() -> WindowHistory {
    WindowHistory {
        partition: 0,
        start: at(0),
        end: at(60),
        closed: Some(change(40, 3, &[])),
        corrections: 0,
        corrected: Vec::new(),
        late_points: 0,
        late: Vec::new(),
    }
}

#[test]
fn a_source_whose_producers_sent_nothing_newer_has_a_countdown() {
    let words =
        ["window 2026-01-01T00:01:00Z to 2026-01-01T00:02:00Z of cpu has not closed", "points[0] holds"];
    let answer = Scene::new().expect(Cause::SlowSource, &words);
    assert!(answer.summary.ends_with("it stops counting in 55s if it stays silent"), "{}", answer.summary);
    assert_eq!(answer.sources[0].owner.as_ref().and_then(|owner| owner.instance.as_deref()), Some("a:1"));
}

#[test]
fn unread_messages_of_the_holder_count_and_usual_ones_do_not() {
    let mut scene = Scene::new();
    scene.kafka().ingest.logs.insert(source(0), Log { end: 10_010, committed: Some(10) });
    scene.expect(
        Cause::UnreadMessages,
        &[
            "points[0] holds the watermark at 2026-01-01T00:01:35Z, 1m 40s behind the newest",
            "a:1 has 10000 messages",
            "2 a second",
        ],
    );

    let mut scene = Scene::new();
    scene.kafka().ingest.logs.insert(source(0), Log { end: 16, committed: Some(10) });
    scene.expect(Cause::SlowSource, &[]);
}

#[test]
fn a_partition_without_an_owner() {
    let mut scene = Scene::new();
    scene.status().ingest = None;
    scene.kafka().ingest.members.clear();
    scene.kafka().ingest.logs.insert(source(0), Log { end: 17, committed: Some(10) });
    scene.expect(
        Cause::NoOwner,
        &["no process runs `ingest`, 7 messages unread", "a:1 reported it last, 1s ago"],
    );

    let mut scene = Scene::new();
    scene.status().ingest = None;
    scene.kafka().ingest.members[0].partitions.remove(0);
    scene.expect(Cause::NoOwner, &["no process owns it"]);

    let mut scene = Scene::new();
    scene.kafka().ingest.state = "PreparingRebalance".to_owned();
    scene.expect(Cause::Rebalancing, &[]);
}

#[test]
fn an_owner_that_does_not_report() {
    let mut scene = Scene::new();
    scene.status().ingest = None;
    for source in &mut scene.partition().sources {
        source.reported = Some(Time(NOW - 14 * SECOND));
    }
    scene.expect(
        Cause::OwnerSilent,
        &["a process on 10.0.0.1 has it in the group", "a:1 reported it last, 14s ago"],
    );
}

#[test]
fn all_idle_moves_with_the_clock_unless_nobody_reads() {
    let idle = || {
        let mut scene = Scene::new();
        let partition = scene.partition();
        partition.holder = None;
        partition.sources =
            vec![standing(0, Standing::Idle, Some(100)), standing(1, Standing::Idle, Some(200))];
        scene
    };
    idle().expect(Cause::AllIdle, &["moves with the clock, and comes to its end in 25s"]);
    let mut scene = idle();
    scene.status().ingest = None;
    scene.kafka().ingest.members.clear();
    scene.expect(Cause::NoOwner, &["no process runs `ingest`"]);
}

#[test]
fn a_partition_without_a_point() {
    let mut scene = Scene::new();
    let partition = scene.partition();
    partition.watermark = None;
    partition.sources[0] = standing(0, Standing::NoPointYet, None);
    partition.holder =
        Some(Holder { topic: "points".to_owned(), partition: 0, reason: HoldReason::NoPointYet });
    scene.expect(
        Cause::NoPointYet,
        &["there is none yet: it has given no point yet; it stops counting in 55s"],
    );
}

#[test]
fn refused_points_explain_a_time_that_stands_still() {
    let refused = |reason: &str, scene: &mut Scene| {
        let owned = scene.owned(0);
        owned.refused = BTreeMap::from([(reason.to_owned(), 120)]);
        owned.farthest_ahead_ms = Some(3_600_000);
        owned.last_refused = Some(Refused {
            reason: reason.to_owned(),
            seen: Time(NOW - SECOND),
            offset: 119,
            time: None,
            excerpt: "{}".to_owned(),
        });
    };
    let mut scene = Scene::new();
    refused("future_timestamp", &mut scene);
    scene.expect(Cause::FuturePoints, &["120 points more than 5m ahead", "up to 1h ahead", "offset 119"]);

    let mut scene = Scene::new();
    refused("syntax", &mut scene);
    scene.expect(Cause::RefusedPoints, &["as syntax"]);

    // Points were accepted since: its clock works again.
    let mut scene = Scene::new();
    refused("future_timestamp", &mut scene);
    scene.owned(0).accepted = Some(Time(NOW));
    scene.expect(Cause::SlowSource, &[]);
}

#[test]
fn nobody_runs_rollup() {
    let mut scene = Scene::new();
    let mut snapshot = scene.partition().clone();
    snapshot.from = Origin::Snapshot;
    scene.evidence.snapshots = vec![snapshot];
    scene.status().rollup = None;
    scene.kafka().rollup.members.clear();
    let answer =
        scene.expect(Cause::RollupNotRunning, &["has not closed: no process runs `rollup`, 1 message"]);
    assert_eq!(answer.watermark, Some(at(95)), "as of the snapshot");

    let mut scene = Scene::new();
    scene.status().rollup = None;
    scene.status().waiting.insert("rollup".to_owned(), "influxdb is unavailable".to_owned());
    scene.kafka().rollup.members.clear();
    scene.expect(Cause::RollupNotReady, &["influxdb is unavailable"]);

    let mut scene = Scene::new();
    scene.status().rollup = None;
    let answer = scene.expect(Cause::RollupNotAsked, &["one is on 10.0.0.1"]);
    assert!(answer.remedy.is_some_and(|remedy| remedy.contains("--url")));
}

#[test]
fn rollup_is_behind_its_log() {
    let mut scene = Scene::new();
    scene.partition().log_time = Some(Time(NOW - 60 * SECOND));
    scene.kafka().rollup.logs.insert(("partials".to_owned(), 0), Log { end: 500, committed: Some(45) });
    scene.expect(Cause::RollupBehind, &["partials[0]", "450 messages"]);
}

#[test]
fn the_sink_holds_open_windows_up_only_when_reading_is_paused() {
    let trouble = || SinkTrouble {
        place: "influx".to_owned(),
        since: Time(NOW - 90 * SECOND),
        failures: 7,
        error: "refused".to_owned(),
    };
    let mut scene = Scene::new().about(60, 120);
    scene.rollup().sink.trouble = Some(trouble());
    scene.expect(Cause::SlowSource, &[]);

    let mut scene = Scene::new().about(60, 120);
    scene.rollup().sink.trouble = Some(trouble());
    scene.rollup().sink.paused = true;
    scene.expect(Cause::SinkUnavailable, &["no room", "1m 30s", "refused"]);

    let mut scene = Scene::new();
    scene.rollup().sink.trouble = Some(trouble());
    scene.expect(Cause::SinkUnavailable, &["results are not written"]);
}

#[test]
fn a_window_that_is_not_over() {
    let start = NOW - EPOCH - 30 * SECOND;
    let scene = Scene::new().about(start / SECOND, start / SECOND + 60);
    scene.expect(Cause::StillOpen, &["it is not over, it is due in 39s"]);
}

#[test]
fn without_an_open_window_nothing_is_held_up() {
    let mut scene = Scene::new();
    scene.partition().open.clear();
    scene.expect(Cause::Current, &["no window of cpu is open: nothing is held up, the watermark is"]);
}

#[test]
fn a_closed_window_is_pending_until_a_checkpoint_covers_it() {
    let mut scene = Scene::new().about(0, 60);
    scene.history(closed_window());
    scene.expect(Cause::Closed, &["has closed", "3 rows, stored"]);

    let mut scene = Scene::new().about(0, 60);
    scene.history(WindowHistory { closed: Some(change(45, 3, &[])), ..closed_window() });
    scene.expect(Cause::BeingWritten, &["on their way"]);

    let mut scene = Scene::new().about(0, 60);
    scene.history(WindowHistory { closed: Some(change(45, 3, &[])), ..closed_window() });
    scene.rollup().sink.trouble = Some(SinkTrouble {
        place: "influx".to_owned(),
        since: Time(NOW - SECOND),
        failures: 1,
        error: "away".to_owned(),
    });
    scene.expect(Cause::SinkUnavailable, &["are not written, influx takes nothing since", "away"]);

    Scene::new().about(0, 60).expect(Cause::NotRemembered, &["nothing has happened to it since"]);
}

#[test]
fn a_changed_window_says_by_what() {
    let corrected = WindowHistory {
        corrections: 2,
        corrected: vec![change(42, 1, &[(0, 5, 6)]), change(44, 1, &[(1, 7, 9)])],
        ..closed_window()
    };
    let mut scene = Scene::new().about(0, 60);
    scene.history(corrected.clone());
    scene.expect(Cause::Corrected, &["changed it 2 times", "by points[1] offsets 7 to 8", "final when"]);

    let mut scene = Scene::new().about(0, 60);
    scene.history(WindowHistory { late_points: 1, late: vec![change(44, 1, &[(0, 8, 9)])], ..corrected });
    let answer =
        scene.expect(Cause::LatePoints, &["1 point came after it was final", "by points[0] offset 8"]);
    let remedy = answer.remedy.expect("there is one");
    assert!(
        remedy.contains("tidemark recompute cpu --from 2026-01-01T00:00:00Z --to 2026-01-01T00:01:00Z"),
        "{remedy}"
    );
}

#[test]
fn what_does_not_answer_is_told() {
    let mut scene = Scene::new();
    scene.evidence.kafka = Err("no broker".to_owned());
    let second = Asked { url: "http://b".to_owned(), status: Err("refused".to_owned()) };
    scene.evidence.asked.push(second);
    let answer = scene.expect(Cause::SlowSource, &[]);
    assert_eq!(answer.notes.len(), 2, "{:?}", answer.notes);
}

/// Readers of the JSON rely on these names.
#[test]
fn names_in_json() {
    let mut scene = Scene::new();
    scene.history(closed_window());
    let answer = scene.expect(Cause::SlowSource, &[]);
    let json = serde_json::to_value(&answer).expect("JSON");
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let all = [
        names(&json),
        names(&json["window"]),
        names(&json["sources"][0]),
        names(&json["sources"][0]["owner"]),
        names(&json["partitions"][0]),
        names(&json["sinks"][0]),
        names(&json["windows"][0]),
        names(&json["windows"][0]["closed"]),
    ];
    let found: Vec<String> = all.iter().map(|names| names.join(" ")).collect();
    assert_eq!(
        found,
        [
            "cause failures holder late_points notes now partitions remedy rollup sinks sources summary tier watermark window windows",
            "end final_at start",
            "accepted event_time farthest_ahead_ms idle_in_ms last_refused newest owner partition \
         read_per_second refused reported reported_by silent_ms standing topic unread_messages",
            "host instance member url",
            "checkpoint_offset from holder log_time next_offset open open_windows owner partition \
         unread_messages watermark",
            "checkpoint_since flushed instance name paused queued trouble",
            "closed corrected corrections end late late_points partition start",
            "at offset rows sources watermark",
        ]
    );
    assert_eq!(json["cause"], "slow_source");
    assert_eq!(json["watermark"], "2026-01-01T00:01:35Z");
}
