use super::*;
use proptest::prelude::*;

const OPTIONS: WatermarkOptions =
    WatermarkOptions { max_out_of_orderness: 5, idle_timeout: 60, owner_timeout: 30 };

fn fact(partition: i32, high: Option<i64>, at_end: bool, silent: i64) -> PartitionFacts {
    PartitionFacts { topic: "points".into(), partition, from: 0, to: 1, high, low: high, at_end, silent }
}

fn epoch(wall: i64, count: i32, partitions: Vec<PartitionFacts>) -> EpochFacts {
    EpochFacts { wall, topics: BTreeMap::from([("points".into(), count)]), partitions, owner: None }
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
            epoch(1_090, 1, vec![fact(0, Some(101), true, 0)]),
            epoch(1_091, 1, vec![fact(0, Some(300), true, 0)]),
        ],
        &[Some(95), Some(95), Some(95), Some(105), Some(105), Some(295)],
    );
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
    /// A process ends its epoch: looks for the ends of its partitions. Its report before is in the log by then.
    Look(usize),
    /// What it found reaches the log.
    Append(usize),
    Pause(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..4).prop_map(Step::Produce),
        3 => (0usize..4, 1usize..6).prop_map(|(partition, count)| Step::Read(partition, count)),
        3 => (0usize..3).prop_map(Step::Look),
        3 => (0usize..3).prop_map(Step::Append),
        1 => (1i64..50).prop_map(Step::Pause),
    ]
}

/// Partitions that several processes read and report, with clocks that agree: every point is dated when it is sent.
struct Model {
    now: i64,
    newest: Option<i64>,
    processes: usize,
    queues: Vec<std::collections::VecDeque<i64>>,
    /// Read since the last look, by partition.
    read: Vec<Vec<i64>>,
    last_read: Vec<i64>,
    /// Looked, and not in the log yet; by process.
    pending: Vec<Option<(EpochFacts, Vec<i64>)>>,
    watermark: Watermark,
    options: WatermarkOptions,
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
            options: WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 20, owner_timeout: i64::MAX },
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
                for _ in 0..count {
                    let Some(point) = self.queues[partition].pop_front() else { break };
                    self.read[partition].push(point);
                    self.last_read[partition] = self.now;
                }
            }
            Step::Look(process) => self.look(process % self.processes),
            Step::Append(process) => self.append(process % self.processes),
            Step::Pause(pause) => self.now += pause,
        }
    }

    fn look(&mut self, process: usize) {
        if self.pending[process].is_some() {
            return;
        }
        let (mut points, mut facts) = (Vec::new(), Vec::new());
        for partition in (process..self.queues.len()).step_by(self.processes) {
            let read = std::mem::take(&mut self.read[partition]);
            let silent = self.now - self.last_read[partition];
            let high = read.iter().copied().max();
            facts.push(fact(partition as i32, high, self.queues[partition].is_empty(), silent));
            points.extend(read);
        }
        self.pending[process] = Some((epoch(self.now, self.queues.len() as i32, facts), points));
    }

    fn append(&mut self, process: usize) {
        let Some((facts, points)) = self.pending[process].take() else { return };
        let watermark = self.watermark.value();
        let late = points.iter().find(|point| Some(**point) < watermark);
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
        // All fall silent, then event time goes on at the pace of the wall clock, from the slowest one at worst.
        let end = 2 * model.now + 10 * model.options.idle_timeout;
        while model.now < end {
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
