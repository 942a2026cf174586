//! The program under test: `tidemark run`, processes for `ingest` and processes for `rollup`, from
//! the first point to the last result.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::Tidemark;

use crate::case::{Case, Group, Setup, Sink};
use crate::discard;
use crate::load::{Loaded, bar};
use crate::machine;
use crate::report::Measured;

/// For one case. A rate of a hundredth of what is expected is a failure, and not a result to wait
/// for.
const LIMIT: Duration = Duration::from_secs(900);
/// Between two looks at the metrics.
const GLANCE: Duration = Duration::from_millis(50);

/// The version of the program that will be measured.
pub(crate) fn program_version() -> Result<String, Unavailable> {
    Ok(Tidemark::new("")?.call(&["--version"]).trim().to_owned())
}

fn rollup(group: Group) -> String {
    let (columns, keys) = match group {
        Group::Host => ("labels['host'] AS host,\n       labels['region'] AS region,\n       ", "1, 2, 3"),
        Group::Region => ("labels['region'] AS region,\n       ", "1, 2"),
        Group::Nothing => ("", "1"),
    };
    format!(
        "CREATE MATERIALIZED VIEW bench WITH (series_limit = 2000000) AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       {columns}count(*) AS points,
       avg(value) AS avg,
       max(value) AS max,
       min(value) AS min
FROM points
WHERE name = 'cpu.load'
GROUP BY {keys}
"
    )
}

/// When what had happened, as seen on the metrics pages.
#[derive(Debug)]
struct Moments {
    /// The last look at which no point had been counted.
    before_first: Instant,
    all_read: Instant,
    finished: Instant,
}

/// Runs the program on a topic until every point is counted, archived if it should be, and every
/// result is written.
///
/// # Panics
/// When it does not get there, and when points were refused or came late: then its rate is that of
/// other work.
pub(crate) fn measure(
    kafka: &Kafka,
    influx: Option<&Influx>,
    case: Case,
    setup: Setup,
    input: &Loaded,
) -> Result<Measured, Unavailable> {
    let discard = (setup.sink == Sink::Discard).then(discard::start);
    let target = match setup.sink {
        Sink::Embedded => String::new(),
        Sink::Influx => {
            let influx = influx.expect("started for such cases");
            section(&influx.url(), influx.org(), influx.bucket(), influx.token())
        }
        Sink::Discard => section(&discard.as_ref().expect("just started").url(), "none", "none", "none"),
    };
    // Processes that take partitions over from each other need one storage.
    let storage = tempfile::Builder::new().prefix("tidemark-bench-").tempdir().unwrap();
    let config = config(kafka, case, setup, input, storage.path()) + &target;
    let processes = || -> Result<Vec<Tidemark>, Unavailable> {
        let process = || {
            let process = Tidemark::new(&config)?;
            process.write("sql/bench.sql", &rollup(setup.group));
            Ok(process)
        };
        (0..setup.processes).map(|_| process()).collect()
    };
    let (mut ingest, mut rollup) = (processes()?, processes()?);
    ingest[0].call(&["topics", "create"]);
    for process in &mut rollup {
        process.spawn(&["run", "--roles", "rollup"], &[]);
    }
    rollup.iter_mut().for_each(Tidemark::wait_until_ready);
    let kafka_before = machine::cpu_seconds(kafka.id());
    let moments = watch(&mut ingest, &mut rollup, case, setup, input);

    let roles = [("ingest", &ingest), ("rollup", &rollup)];
    let of = |measure: &dyn Fn(&Tidemark) -> f64| {
        roles.map(|(role, processes)| (role, processes.iter().map(measure).sum::<f64>())).to_vec()
    };
    let mut cpu_seconds = of(&|process| machine::cpu_seconds(process.id()));
    cpu_seconds.push(("kafka", machine::cpu_seconds(kafka.id()) - kafka_before));
    let peak_bytes = of(&|process| machine::peak_bytes(process.id()).unwrap_or_default() as f64);
    for lost in ["tidemark_ingest_rejected_total", "tidemark_rollup_late_points_total"] {
        let count = sum(&ingest, lost) + sum(&rollup, lost);
        assert!(
            count == 0.0,
            "{case}: {lost} is {count}, of an input in which every point is good and on time"
        );
    }
    let archived = sum(&ingest, "tidemark_archive_bytes_total");
    ingest.iter_mut().chain(&mut rollup).for_each(Tidemark::kill9);
    let since_first = |moment: Instant| (moment - moments.before_first).as_secs_f64();
    Ok(Measured {
        read_seconds: Some(since_first(moments.all_read)),
        result_seconds: Some(since_first(moments.finished)),
        cpu_seconds,
        peak_bytes: peak_bytes.into_iter().map(|(role, bytes)| (role, bytes as u64)).collect(),
        partials_bytes: Some(kafka.topic_bytes(&format!("{case}-partials"))),
        archive_bytes: setup.archive.then_some(archived as u64),
        ..Measured::new(case, input.points)
    })
}

/// Starts `ingest`, and waits for everything to be done.
fn watch(
    ingest: &mut [Tidemark],
    rollup: &mut [Tidemark],
    case: Case,
    setup: Setup,
    input: &Loaded,
) -> Moments {
    let bar = bar(input.points, &case.to_string());
    let mut before_first = Instant::now();
    for process in &mut *ingest {
        process.spawn(&["run", "--roles", "ingest"], &[]);
    }
    let points = input.points as f64;
    wait(ingest, &format!("{points} points"), |processes| {
        let read = sum(processes, "tidemark_ingest_points_total");
        bar.set_position(read as u64);
        if read == 0.0 {
            before_first = Instant::now();
        }
        read >= points
    });
    let all_read = Instant::now();
    let rows = input.rows(setup.group) as f64;
    wait(rollup, &format!("{rows} rows"), |processes| {
        sum(processes, "tidemark_rollup_rows_written_total") >= rows
    });
    if setup.archive {
        wait(ingest, "every point archived", |processes| {
            sum(processes, "tidemark_archive_rows_total") >= points
        });
    }
    let finished = Instant::now();
    bar.finish_and_clear();
    Moments { before_first, all_read, finished }
}

/// Waits until all processes together are so far, and sees to it that none of them has ended.
fn wait(processes: &mut [Tidemark], what: &str, mut done: impl FnMut(&[Tidemark]) -> bool) {
    let until = Instant::now() + LIMIT;
    while !done(processes) {
        assert!(Instant::now() < until, "no {what} within {LIMIT:?}");
        for process in &mut *processes {
            if let Some(status) = process.ended() {
                panic!("a process ended, {status}: {}", process.log_text());
            }
        }
        std::thread::park_timeout(GLANCE);
    }
}

/// Of a metric, over all of them.
fn sum(processes: &[Tidemark], name: &str) -> f64 {
    processes.iter().filter_map(|process| process.metric(name, &[])).sum()
}

/// Topics and groups are the case's own: each starts at the beginning of the input, and with no
/// state.
fn config(kafka: &Kafka, case: Case, setup: Setup, input: &Loaded, storage: &Path) -> String {
    let brokers = kafka.brokers();
    let (topic, archive, storage) = (&input.topic, setup.archive, storage.display());
    let budget = input.input.budget();
    format!(
        r#"
[kafka]
brokers = ["{brokers}"]

[topics]
points = ["{topic}"]
partials = "{case}-partials"
dead_letter = "{case}-dead-letter"
late = "{case}-late"
alerts = "{case}-alerts"

[ingest]
group = "{case}-ingest"

[rollup]
sql = "sql"
group = "{case}-rollup"

[storage]
url = "{storage}"

[memory]
budget = "{budget}"

[archive]
enabled = {archive}
# What is left at the end is stored at once; before, files are full earlier.
roll_age = "1s"
"#
    )
}

fn section(url: &str, org: &str, bucket: &str, token: &str) -> String {
    format!("\n[influx]\nurl = \"{url}\"\norg = \"{org}\"\nbucket = \"{bucket}\"\ntoken = \"{token}\"\n")
}
