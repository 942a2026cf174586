//! The program under test: `tidemark run`, a process for `ingest` and one for `rollup`, from the first point to the last
//! result.

use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::{Tidemark, metric};

use crate::case::{Case, Group, Sink};
use crate::discard;
use crate::load::{Loaded, bar};
use crate::machine;
use crate::report::Measured;

/// For one case. A rate of a hundredth of what is expected is a failure, and not a result to wait for.
const LIMIT: Duration = Duration::from_secs(900);
const GLANCE: Duration = Duration::from_millis(20);

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
        "CREATE MATERIALIZED VIEW bench AS
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
    all_read: Option<Instant>,
}

/// Runs the program on a topic until every point is counted, archived if it should be, and every result is written.
///
/// # Panics
/// When it does not get there, and when points were refused or came late: then its rate is that of other work.
pub(crate) fn measure(
    kafka: &Kafka,
    influx: Option<&Influx>,
    case: Case,
    (group, archive, sink): (Group, bool, Sink),
    input: &Loaded,
) -> Result<Measured, Unavailable> {
    let discard = (sink == Sink::Discard).then(discard::start);
    let target = match sink {
        Sink::Embedded => String::new(),
        Sink::Influx => {
            let influx = influx.expect("started for such cases");
            section(&influx.url(), influx.org(), influx.bucket(), influx.token())
        }
        Sink::Discard => section(&discard.as_ref().expect("just started").url(), "none", "none", "none"),
    };
    let config = config(kafka, case, archive, input) + &target;
    let mut ingest = Tidemark::new(&config)?;
    let mut rollup = Tidemark::new(&config)?;
    for process in [&ingest, &rollup] {
        process.write("sql/bench.sql", &self::rollup(group));
    }
    ingest.call(&["topics", "create"]);
    let bar = bar(input.points, &case.to_string());

    rollup.spawn(&["run", "--roles", "rollup"], &[]);
    rollup.wait_until_ready();
    let started = Instant::now();
    ingest.spawn(&["run", "--roles", "ingest"], &[]);
    let mut moments = Moments { before_first: started, all_read: None };
    let points = input.points as f64;
    let rows = input.rows(group) as f64;
    ingest.wait_for_metrics(LIMIT, &format!("{points} points"), |page| {
        let read = metric(page, "tidemark_ingest_points_total", &[]).unwrap_or_default();
        bar.set_position(read as u64);
        if read == 0.0 {
            moments.before_first = Instant::now();
            std::thread::park_timeout(GLANCE);
            return Err("no point".to_owned());
        }
        if read < points { Err(format!("{read}")) } else { Ok(()) }
    });
    moments.all_read = Some(Instant::now());
    rollup.wait_for_metric(LIMIT, "tidemark_rollup_rows_written_total", &[], rows);
    if archive {
        ingest.wait_for_metric(LIMIT, "tidemark_archive_rows_total", &[], points);
    }
    let finished = Instant::now();
    let processes = [("ingest", ingest.id()), ("rollup", rollup.id())];
    let cpu_seconds = processes.map(|(role, id)| (role, machine::cpu_seconds(id))).to_vec();
    let peak_bytes = processes.map(|(role, id)| (role, machine::peak_bytes(id).unwrap_or_default())).to_vec();
    bar.finish_and_clear();
    let pages = ingest.metrics().expect("it answers") + &rollup.metrics().expect("it answers");
    let total = |name: &str| metric(&pages, name, &[]).unwrap_or_default();
    for lost in ["tidemark_ingest_rejected_total", "tidemark_rollup_late_points_total"] {
        let count = total(lost);
        assert!(
            count == 0.0,
            "{case}: {lost} is {count}, of an input in which every point is good and on time"
        );
    }
    ingest.kill9();
    rollup.kill9();
    let since_first = |moment: Instant| (moment - moments.before_first).as_secs_f64();
    Ok(Measured {
        read_seconds: moments.all_read.map(since_first),
        result_seconds: Some(since_first(finished)),
        cpu_seconds,
        peak_bytes,
        partials_bytes: Some(kafka.topic_bytes(&format!("{case}-partials"))),
        archive_bytes: archive.then(|| total("tidemark_archive_bytes_total") as u64),
        ..Measured::new(case, input.points)
    })
}

/// Topics and groups are the case's own: each starts at the beginning of the input, and with no state.
fn config(kafka: &Kafka, case: Case, archive: bool, input: &Loaded) -> String {
    let brokers = kafka.brokers();
    let topic = &input.topic;
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
url = "data"

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
