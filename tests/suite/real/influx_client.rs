//! Rollups as their users read them: with the `influxdb2` crate, which knows nothing of Tidemark.

use chrono::{DateTime, FixedOffset};
use influxdb2::models::Query;
use influxdb2::{Client, FromDataPoint, RequestError};
use tidemark_tests::input::{Format, Generator, NEW_YEAR, heartbeats, messages};
use tokio::runtime::Builder;

use super::{Body, Deployment, PATIENCE, Servers};

const ROLLUP: &str = "CREATE MATERIALIZED VIEW cpu_by_host AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       avg(value) AS avg, max(value) AS max, count(*) AS points
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("a_stranger_reads_rollups_with_a_client_of_influxdb", read_with_a_client)]
}

// The guide shows what follows, up to the next line of this kind.
// ---
#[derive(Debug, Default, FromDataPoint)]
struct Cpu {
    time: DateTime<FixedOffset>,
    host: String,
    avg: f64,
    points: i64,
}

/// The client puts the fields of a row together by itself.
async fn read(client: &Client, bucket: &str, host: &str) -> Result<Vec<Cpu>, RequestError> {
    let flux = format!(
        r#"from(bucket: "{bucket}") |> range(start: 0)
           |> filter(fn: (r) => r._measurement == "cpu_by_host" and r.host == "{host}")"#
    );
    client.query(Some(Query::new(flux))).await
}
// ---

/// The guide shows the code that runs here.
fn assert_guide_shows_it() {
    let code = include_str!("influx_client.rs").split("// ---").nth(1).expect("between two lines");
    let code = code.trim_start_matches('-').trim();
    let guide = include_str!("../../../docs/guide/querying.md");
    assert!(guide.contains(code), "docs/guide/querying.md shows another code than this:\n{code}");
}

fn read_with_a_client(servers: &Servers) {
    assert_guide_shows_it();
    let topic = servers.kafka.unique_topic("client", 2);
    let deployment = Deployment::new(servers, "client", &topic, 2);
    let mut tidemark = deployment.process("data", &[("cpu_by_host", ROLLUP)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    // 60 hosts for two minutes, a point each 10 s.
    let hosts = 60;
    let points = Generator { hosts, ..Generator::default() }.points(hosts * 12);
    servers.kafka.produce(&topic, messages(&points, 2, Format::JsonLines(10)));
    servers.kafka.produce(&topic, heartbeats(NEW_YEAR + 3_600_000_000_000, 2));
    let rows = [("rollup", "cpu_by_host")];
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_rows_written_total", &rows, 2.0 * hosts as f64);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());

    let client = Client::new(servers.influx.url(), servers.influx.org(), servers.influx.token());
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be started");
    let found = runtime.block_on(read(&client, &deployment.id, "host-00007")).expect("InfluxDB answers");
    let of_host: Vec<f64> = points
        .iter()
        .filter(|point| point.series.labels["host"] == "host-00007")
        .map(|point| point.value)
        .collect();
    let minute = 60_000_000_000;
    let expected: Vec<(i64, f64, i64)> = of_host
        .chunks(6)
        .zip(0..)
        .map(|(values, number)| (NEW_YEAR + number * minute, values.iter().sum::<f64>() / 6.0, 6))
        .collect();
    let start = |row: &Cpu| row.time.timestamp_nanos_opt().expect("a time of this century");
    let found: Vec<(i64, f64, i64)> = found
        .iter()
        .inspect(|row| assert_eq!(row.host, "host-00007"))
        .map(|row| (start(row), row.avg, row.points))
        .collect();
    assert_eq!(found, expected);
}
