//! The program under test: `tidemark run --roles ingest,rollup`, from the first point to the last result.

use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::{Tidemark, metric};

use crate::case::Case;
use crate::load::{Loaded, bar};
use crate::machine;
use crate::report::Measured;

/// For one case. A rate of a hundredth of what is expected is a failure, and not a result to wait for.
const LIMIT: Duration = Duration::from_secs(900);

const ROLLUP: &str = "CREATE MATERIALIZED VIEW by_host AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       labels['region'] AS region,
       count(*) AS points,
       avg(value) AS avg,
       max(value) AS max,
       min(value) AS min
FROM points
WHERE name = 'cpu.load'
GROUP BY 1, 2, 3
";

/// The version of the program that will be measured.
pub(crate) fn program_version() -> Result<String, Unavailable> {
    Ok(Tidemark::new("")?.call(&["--version"]).trim().to_owned())
}

/// When what had happened, as seen on the metrics page.
#[derive(Debug)]
struct Moments {
    /// The last look at which no point had been counted.
    before_first: Instant,
    all_read: Option<Instant>,
}

/// Runs the program on a topic until every point is counted and every result is written.
///
/// # Panics
/// When it does not get there, and when points were refused or came late: then its rate is that of other work.
pub(crate) fn measure(
    kafka: &Kafka,
    influx: Option<&Influx>,
    case: Case,
    archive: bool,
    input: &Loaded,
) -> Result<Measured, Unavailable> {
    let mut tidemark = Tidemark::new(&config(kafka, influx, case, archive, input))?;
    tidemark.write("sql/by_host.sql", ROLLUP);
    tidemark.call(&["topics", "create"]);
    let bar = bar(input.points, &case.to_string());

    let started = Instant::now();
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    let mut moments = Moments { before_first: started, all_read: None };
    let points = input.points as f64;
    let rows = input.result_rows as f64;
    let page = tidemark.wait_for_metrics(LIMIT, &format!("{points} points and {rows} results"), |page| {
        let read = metric(page, "tidemark_ingest_points_total", &[]).unwrap_or_default();
        let written = metric(page, "tidemark_rollup_rows_written_total", &[]).unwrap_or_default();
        bar.set_position(read as u64);
        if read == 0.0 {
            moments.before_first = Instant::now();
        }
        if read >= points && moments.all_read.is_none() {
            moments.all_read = Some(Instant::now());
        }
        if read >= points && written >= rows {
            Ok(page.to_owned())
        } else {
            Err(format!("{read}, {written}"))
        }
    });
    let finished = Instant::now();
    let cpu_seconds = machine::cpu_seconds(tidemark.id());
    let peak_bytes = machine::peak_bytes(tidemark.id());
    bar.finish_and_clear();
    for lost in ["tidemark_ingest_rejected_total", "tidemark_rollup_late_points_total"] {
        let count = metric(&page, lost, &[]).unwrap_or_default();
        assert!(
            count == 0.0,
            "{case}: {lost} is {count}, of an input in which every point is good and on time"
        );
    }
    tidemark.kill9();
    let since_first = |moment: Instant| (moment - moments.before_first).as_secs_f64();
    Ok(Measured {
        case,
        points: input.points,
        ingest_seconds: moments.all_read.map(since_first),
        result_seconds: Some(since_first(finished)),
        start_seconds: Some((moments.before_first - started).as_secs_f64()),
        cpu_seconds,
        peak_bytes,
    })
}

/// Topics and groups are the case's own: each starts at the beginning of the input, and with no state.
fn config(kafka: &Kafka, influx: Option<&Influx>, case: Case, archive: bool, input: &Loaded) -> String {
    let brokers = kafka.brokers();
    let topic = &input.topic;
    let mut text = format!(
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
"#
    );
    if let Some(influx) = influx {
        let (url, org, bucket, token) = (influx.url(), influx.org(), influx.bucket(), influx.token());
        text += &format!(
            r#"
[influx]
url = "{url}"
org = "{org}"
bucket = "{bucket}"
token = "{token}"
"#
        );
    }
    text
}
