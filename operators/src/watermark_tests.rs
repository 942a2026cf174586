use super::*;
use proptest::prelude::*;

const OPTIONS: WatermarkOptions =
    WatermarkOptions { max_out_of_orderness: 5, idle_timeout: 60, owner_timeout: 30 };

fn fact(partition: i32, high: Option<i64>, at_end: bool, silent: i64) -> PartitionFacts {
    PartitionFacts { topic: "points".into(), partition, from: 0, to: 1, high, low: high, at_end, silent }
}

fn epoch(wall: i64, count: i32, partitions: Vec<PartitionFacts>) -> EpochFacts {
    EpochFacts {
        wall,
        uptime: None,
        topics: BTreeMap::from([("points".into(), count)]),
        partitions,
        owner: None,
    }
}

/// Folds the epochs and returns the watermark after each.
fn check(epochs: &[EpochFacts], expected: &[Option<i64>]) -> Watermark {
    let mut watermark = Watermark::default();
    let found: Vec<_> = epochs.iter().map(|facts| watermark.observe(facts, &OPTIONS)).collect();
    assert_eq!(found, expected);
    watermark
}

#[test]
fn minimum_over_all_partitions_and_never_back() {
    let watermark = check(
        &[
            epoch(0, 2, vec![fact(0, Some(100), false, 0)]),
            epoch(1, 2, vec![fact(1, Some(50), false, 0)]),
            epoch(2, 2, vec![fact(1, Some(200), false, 0)]),
            epoch(3, 2, vec![fact(0, Some(90), false, 0)]),
            epoch(4, 2, vec![fact(0, Some(300), false, 0), fact(1, None, false, 1)]),
        ],
        &[None, Some(45), Some(95), Some(95), Some(195)],
    );
    let holder = watermark.holder(&OPTIONS).unwrap();
    assert_eq!((holder.source.1, holder.reason), (1, HoldReason::Slowest));
}

#[test]
fn unread_data_is_never_idle() {
    check(
        &[
            epoch(0, 2, vec![fact(0, Some(100), true, 0), fact(1, Some(50), false, 1_000)]),
            epoch(1, 2, vec![fact(0, Some(200), true, 0), fact(1, None, false, 2_000)]),
            epoch(2, 2, vec![fact(0, Some(200), true, 0), fact(1, None, true, 2_000)]),
            epoch(3, 2, vec![fact(0, None, true, 1), fact(1, None, true, 2_001)]),
        ],
        &[Some(45), Some(45), Some(45), Some(195)],
    );
}

#[test]
fn an_idle_partition_lets_pass_only_what_was_known_at_the_report_before_the_last() {
    let idle = |wall| epoch(wall, 2, vec![fact(1, None, true, 60)]);
    check(
        &[
            epoch(0, 2, vec![fact(0, Some(100), true, 0), fact(1, Some(100), true, 0)]),
            idle(1),
            epoch(2, 2, vec![fact(0, Some(200), true, 0)]),
            // Looked for the end before it knew of the 200: points of 150 may still be unread.
            idle(3),
            epoch(4, 2, vec![fact(0, Some(300), true, 0)]),
            idle(5),
            // And indeed.
            epoch(6, 2, vec![fact(1, Some(250), true, 0)]),
        ],
        &[Some(95), Some(95), Some(95), Some(95), Some(95), Some(195), Some(245)],
    );
}

#[test]
fn a_point_of_a_partition_that_is_silent_again_at_once_still_counts() {
    check(
        &[
            epoch(0, 2, vec![fact(0, Some(100), true, 60), fact(1, None, true, 60)]),
            epoch(1, 2, vec![fact(0, Some(200), true, 0)]),
            epoch(2, 2, vec![fact(0, None, true, 60)]),
            epoch(3, 2, vec![fact(1, None, true, 60)]),
            epoch(4, 2, vec![fact(1, None, true, 60), fact(0, None, true, 60)]),
        ],
        &[None, None, None, Some(95), Some(195)],
    );
}

#[test]
fn a_partition_without_an_owner_holds_even_when_it_was_idle() {
    let watermark = check(
        &[
            epoch(0, 2, vec![fact(0, Some(100), false, 0), fact(1, None, true, 60)]),
            epoch(1, 2, vec![fact(1, None, true, 60)]),
            epoch(20, 2, vec![fact(0, Some(120), false, 0)]),
            epoch(60, 2, vec![fact(0, Some(160), false, 0)]),
            epoch(61, 2, vec![fact(1, None, true, 60)]),
            epoch(62, 2, vec![fact(1, None, true, 60)]),
        ],
        &[None, Some(95), Some(95), Some(95), Some(95), Some(155)],
    );
    assert!(watermark.holder(&OPTIONS).is_some());
}

#[test]
fn when_all_are_idle_event_time_keeps_the_pace_of_the_wall_clock() {
    check(
        &[
            epoch(1_000, 1, vec![fact(0, Some(100), true, 0)]),
            epoch(1_070, 1, vec![fact(0, None, true, 70)]),
            epoch(1_080, 1, vec![fact(0, None, true, 80)]),
            epoch(1_085, 1, vec![fact(0, None, true, 85)]),
            epoch(1_092, 1, vec![fact(0, None, true, 92)]),
            epoch(1_095, 1, vec![fact(0, None, true, 95)]),
            epoch(1_096, 1, vec![fact(0, Some(101), true, 0)]),
            epoch(1_097, 1, vec![fact(0, Some(300), true, 0)]),
        ],
        &[Some(95), Some(95), Some(95), Some(95), Some(100), Some(107), Some(107), Some(295)],
    );
}

/// A report of `run` at `uptime`: partition `partition` is silent and read to its end, or has a
/// point.
fn report(run: &str, wall: i64, uptime: i64, facts: PartitionFacts) -> EpochFacts {
    let uptime = Some(Uptime { run: run.to_owned(), nanos: uptime });
    EpochFacts { uptime, ..epoch(wall, 2, vec![facts]) }
}

#[test]
fn a_wall_clock_that_is_set_moves_nothing() {
    let mut watermark = Watermark::default();
    let mut seen = Vec::new();
    for (step, ahead) in [0, 0, 0, 0, HOUR, HOUR, -HOUR, 0, 0, 0].into_iter().enumerate() {
        let time = 10 * step as i64;
        for partition in 0..2 {
            let facts = match step {
                0 => fact(partition, Some(100), true, 0),
                _ => fact(partition, None, true, 60 + time),
            };
            watermark.observe(&report("a", 1_000_000 + time + ahead, time, facts), &OPTIONS);
        }
        seen.push(watermark.value());
    }
    let expected = [95, 95, 95, 95, 105, 115, 125, 135, 145, 155];
    assert_eq!(seen, expected.map(Some));
}

#[test]
fn clocks_that_differ_by_more_than_the_timeout_hold_nothing() {
    let mut watermark = Watermark::default();
    for time in 0..200 {
        let silent = 60.min(time);
        watermark.observe(
            &report("fast", 1_000_000 + 90 + time, 5_000 + time, fact(0, Some(100 + time), true, 0)),
            &OPTIONS,
        );
        watermark.observe(&report("slow", 1_000_000 + time, time, fact(1, None, true, silent)), &OPTIONS);
    }
    assert_eq!(watermark.value(), Some(100 + 198 - 5), "the idle partition lets the other one pass");
    assert_eq!(watermark.holder(&OPTIONS).unwrap().source.1, 0);
}

#[test]
fn an_owner_is_gone_when_others_have_reported_for_long_enough() {
    let mut watermark = Watermark::default();
    let holder =
        |watermark: &Watermark| watermark.holder(&OPTIONS).map(|holder| (holder.source.1, holder.reason));
    for time in 0..5 {
        watermark.observe(&report("gone", 0, 7_000 + time, fact(1, Some(50), true, 60)), &OPTIONS);
        watermark.observe(&report("here", HOUR, time, fact(0, Some(100 + time), true, 0)), &OPTIONS);
    }
    assert_eq!(holder(&watermark), Some((0, HoldReason::Slowest)));
    // Its machine alone is suspended, or all are: the monotone clock has not moved.
    watermark.observe(&report("here", 2 * HOUR, 5, fact(0, Some(200), true, 0)), &OPTIONS);
    assert_eq!(holder(&watermark), Some((0, HoldReason::Slowest)));
    for time in 6..80 {
        watermark.observe(&report("here", -HOUR, time, fact(0, Some(200 + time), true, 0)), &OPTIONS);
    }
    assert_eq!(holder(&watermark), Some((1, HoldReason::NoOwner)));
}

#[test]
fn no_single_report_is_believed_to_tell_of_more_than_the_timeout() {
    let mut watermark = Watermark::default();
    let idle = |uptime, partition| report("a", 0, uptime, fact(partition, None, true, 60));
    watermark.observe(&report("a", 0, 0, fact(0, Some(100), true, 60)), &OPTIONS);
    for time in 1..10 {
        watermark.observe(&idle(time, 0), &OPTIONS);
        watermark.observe(&idle(time, 1), &OPTIONS);
    }
    let before = watermark.value().unwrap();
    for step in 0..3 {
        watermark.observe(&idle(1_000_000 + step, 0), &OPTIONS);
        watermark.observe(&idle(1_000_000 + step, 1), &OPTIONS);
    }
    let passed = watermark.value().unwrap() - before;
    assert!((30..40).contains(&passed), "{passed} has passed");
}

#[test]
fn a_snapshot_without_clocks_is_read() {
    let mut watermark = check(&[epoch(0, 1, vec![fact(0, Some(100), true, 60)])], &[None]);
    let mut json = serde_json::to_value(&watermark).unwrap();
    let fields = json.as_object_mut().unwrap();
    fields.remove("elapsed");
    fields.remove("idle_since");
    fields.insert("all_idle_since".to_owned(), serde_json::json!([1_700_000_000, 95]));
    fields["sources"][0][1].as_object_mut().unwrap().remove("at");
    let mut read: Watermark = serde_json::from_value(json).unwrap();
    assert_eq!(read.holder(&OPTIONS).unwrap().reason, HoldReason::NoOwner, "until it is reported");
    for time in 1..30 {
        watermark.observe(&epoch(time, 1, vec![fact(0, None, true, 60)]), &OPTIONS);
        read.observe(&epoch(time, 1, vec![fact(0, None, true, 60)]), &OPTIONS);
    }
    assert!(watermark.value() > Some(110) && read.value() > Some(110), "{watermark:?} {read:?}");
}

#[test]
fn a_partition_that_was_added_holds_until_it_is_reported() {
    let watermark = check(
        &[
            epoch(0, 1, vec![fact(0, Some(100), true, 0)]),
            epoch(1, 2, vec![fact(0, Some(200), true, 0)]),
            epoch(2, 2, vec![fact(0, Some(300), true, 0), fact(1, Some(150), false, 0)]),
            // A process that does not know of it yet.
            epoch(3, 1, vec![fact(0, Some(400), true, 0)]),
        ],
        &[Some(95), Some(95), Some(145), Some(145)],
    );
    assert_eq!(watermark.holder(&OPTIONS).unwrap().source.1, 1);
}

#[test]
fn survives_a_snapshot() {
    let watermark = check(&[epoch(0, 1, vec![fact(0, Some(100), true, 0)])], &[Some(95)]);
    let text = serde_json::to_string(&watermark).unwrap();
    assert_eq!(serde_json::from_str::<Watermark>(&text).unwrap(), watermark);
}

/// A step of the model below; partitions and processes are taken modulo their number.
#[derive(Debug, Clone)]
enum Step {
    /// A point, dated now, is sent to a partition.
    Produce(usize),
    /// A process reads up to so many points of a partition of its own.
    Read(usize, usize),
    /// A process ends its epoch: looks for the ends of its partitions. Its report before is in the
    /// log by then.
    Look(usize),
    /// What it found reaches the log.
    Append(usize),
    Pause(i64),
    /// A process's wall clock is set.
    Set(usize, i64),
    /// A process stands still for so long; its monotone clock goes on, or stands still with it as
    /// on a suspended machine.
    Suspend(usize, i64, bool),
    /// A process ends and starts again, with a clock of its own. What it found is lost and found
    /// again.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..4).prop_map(Step::Produce),
        3 => (0usize..4, 1usize..6).prop_map(|(partition, count)| Step::Read(partition, count)),
        3 => (0usize..3).prop_map(Step::Look),
        3 => (0usize..3).prop_map(Step::Append),
        1 => (1i64..50).prop_map(Step::Pause),
        1 => (0usize..3, -HOUR..HOUR).prop_map(|(process, to)| Step::Set(process, to)),
        1 => (0usize..3, 1i64..300, any::<bool>()).prop_map(|(process, time, stops)| Step::Suspend(process, time, stops)),
        1 => (0usize..3).prop_map(Step::Restart),
    ]
}

const HOUR: i64 = 3_600;

/// A process of the model. Its wall clock shows anything, and its monotone clock the time since
/// some instant.
#[derive(Debug, Clone, Default)]
struct Clocks {
    run: usize,
    wall_ahead: i64,
    stood_still: i64,
    /// Until when it stands still.
    suspended: i64,
}

/// A report on its way, and its points, each with its partition.
type Looked = (EpochFacts, Vec<(usize, i64)>);

/// Partitions that several processes read and report. Every point is dated when it is sent, by a
/// clock that is right; those of the processes need not be.
struct Model {
    now: i64,
    newest: Option<i64>,
    processes: usize,
    queues: Vec<std::collections::VecDeque<i64>>,
    /// Read since the last look, by partition.
    read: Vec<Vec<i64>>,
    last_read: Vec<i64>,
    /// Looked, and not in the log yet; by process.
    pending: Vec<Option<Looked>>,
    watermark: Watermark,
    options: WatermarkOptions,
    clocks: Vec<Clocks>,
}

impl Model {
    fn new(partitions: usize, processes: usize) -> Self {
        Self {
            now: 0,
            newest: None,
            processes,
            queues: vec![Default::default(); partitions],
            read: vec![Vec::new(); partitions],
            last_read: vec![0; partitions],
            pending: vec![None; processes],
            watermark: Watermark::default(),
            options: WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 20, owner_timeout: 40 },
            clocks: vec![Clocks::default(); processes],
        }
    }

    fn run(&mut self, step: &Step) {
        self.now += 1;
        let partitions = self.queues.len();
        match *step {
            Step::Produce(partition) => {
                self.queues[partition % partitions].push_back(self.now);
                self.newest = Some(self.now);
            }
            Step::Read(partition, count) => {
                let partition = partition % partitions;
                if self.is_suspended(partition % self.processes) {
                    return;
                }
                for _ in 0..count {
                    let Some(point) = self.queues[partition].pop_front() else { break };
                    self.read[partition].push(point);
                    self.last_read[partition] = self.now;
                }
            }
            Step::Look(process) => self.look(process % self.processes),
            Step::Append(process) => self.append(process % self.processes),
            Step::Pause(pause) => self.now += pause,
            Step::Set(process, to) => self.clocks[process % self.processes].wall_ahead = to,
            Step::Suspend(process, time, stops) => {
                let clocks = &mut self.clocks[process % self.processes];
                clocks.suspended = self.now + time;
                clocks.stood_still += if stops { time } else { 0 };
            }
            Step::Restart(process) => self.restart(process % self.processes),
        }
    }

    fn is_suspended(&self, process: usize) -> bool {
        self.now < self.clocks[process].suspended
    }

    /// Reads again what was not appended.
    fn restart(&mut self, process: usize) {
        self.clocks[process] = Clocks { run: self.clocks[process].run + 1, ..Clocks::default() };
        let pending = self.pending[process].take();
        for partition in (process..self.queues.len()).step_by(self.processes) {
            let looked = pending.as_ref().map_or(&[][..], |(_, points)| points.as_slice());
            let looked = looked.iter().filter(|(of, _)| *of == partition).map(|(_, point)| *point);
            let unread: Vec<i64> = looked.chain(std::mem::take(&mut self.read[partition])).collect();
            for point in unread.into_iter().rev() {
                self.queues[partition].push_front(point);
            }
            self.last_read[partition] = self.now;
        }
    }

    fn look(&mut self, process: usize) {
        if self.pending[process].is_some() || self.is_suspended(process) {
            return;
        }
        let (mut points, mut facts) = (Vec::new(), Vec::new());
        for partition in (process..self.queues.len()).step_by(self.processes) {
            let read = std::mem::take(&mut self.read[partition]);
            let silent = self.now - self.last_read[partition];
            let high = read.iter().copied().max();
            facts.push(fact(partition as i32, high, self.queues[partition].is_empty(), silent));
            points.extend(read.into_iter().map(|point| (partition, point)));
        }
        let Clocks { run, wall_ahead, stood_still, .. } = self.clocks[process];
        let uptime = Uptime {
            run: format!("{process}-{run}"),
            nanos: self.now - stood_still + 1_000 * process as i64,
        };
        let facts = EpochFacts {
            uptime: Some(uptime),
            ..epoch(self.now + wall_ahead, self.queues.len() as i32, facts)
        };
        self.pending[process] = Some((facts, points));
    }

    fn append(&mut self, process: usize) {
        if self.is_suspended(process) {
            return;
        }
        let Some((facts, points)) = self.pending[process].take() else { return };
        let watermark = self.watermark.value();
        let late = points.iter().find(|(_, point)| Some(*point) < watermark);
        assert!(late.is_none(), "{late:?} is late, the watermark is {watermark:?}");
        self.watermark.observe(&facts, &self.options);
    }
}

proptest! {
    #[test]
    fn never_goes_back(
        steps in prop::collection::vec((0i32..3, prop::option::of(0i64..1_000), any::<bool>(), 0i64..200, 0i64..50), 1..60),
    ) {
        let mut watermark = Watermark::default();
        let mut wall = 0;
        let mut last = None;
        for (partition, high, at_end, silent, pause) in steps {
            wall += pause;
            let value = watermark.observe(&epoch(wall, 3, vec![fact(partition, high, at_end, silent)]), &OPTIONS);
            prop_assert!(value >= last, "{value:?} after {last:?}");
            last = value;
        }
    }

    #[test]
    fn idleness_makes_nothing_late_and_the_last_point_is_passed(
        partitions in 1usize..5,
        processes in 1usize..4,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut model = Model::new(partitions, processes.min(partitions));
        for step in &steps {
            model.run(step);
        }
        // All fall silent, then event time goes on at the pace of the wall clock, from the slowest
        // one at worst.
        let end = 2 * model.now + 20 * model.options.idle_timeout + 20 * model.options.owner_timeout;
        while model.now < end && model.watermark.value() < model.newest {
            for partition in 0..partitions {
                model.run(&Step::Read(partition, usize::MAX));
            }
            for process in 0..processes {
                model.run(&Step::Append(process));
                model.run(&Step::Look(process));
            }
        }
        prop_assert!(model.watermark.value() >= model.newest, "{:?} {:?}", model.watermark, model.newest);
    }
}
