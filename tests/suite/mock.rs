//! The whole pipeline in this process, over librdkafka's mock cluster: fast, with nothing
//! installed. What it cannot show, surviving anything, is shown on real servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use libtest_mimic::Trial;
use pipeline::alerting::Alerting;
use pipeline::catalog::load_catalog;
use pipeline::clock::Clock;
use pipeline::commands::load::{self, LoadArgs};
use pipeline::commands::query::{self, QueryArgs};
use pipeline::commands::run;
use pipeline::config::{AlertsConfig, Config};
use pipeline::http::HttpServer;
use pipeline::kafka::topics;
use pipeline::role::Role;
use pipeline::roles::context::Context;
use pipeline::telemetry::RollupLabels;
use rdkafka::mocking::MockCluster;
use tidemark_tests::wait_until;
use tokio::runtime::Runtime;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// Sums of floats depend on the order of adding, so they are compared rounded.
const SELECT: &str = "SELECT tumble(time, INTERVAL '10 seconds') AS window_start, name AS metric,
       labels['host'] AS host, count(*) AS points, min(value) AS min, max(value) AS max
FROM points GROUP BY 1, 2, 3";

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "mock::a_recording_of_this_projects_own_gives_what_batch_sql_gives_over_cold_storage",
        || {
            recording_equals_batch();
            Ok(())
        },
    )]
}

/// The command line of `tidemark load`.
#[derive(Parser)]
struct Load {
    #[command(flatten)]
    args: LoadArgs,
}

fn recording_equals_batch() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    let config = config(folder.path(), &cluster.bootstrap_servers());
    for plan in topics::plan(&config.topics, PARTITIONS) {
        cluster.create_topic(&plan.name, plan.partitions, 1).unwrap();
    }
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/machine.jsonl");
    let args = ["load", recording.to_str().unwrap(), "--disorder", "5s", "--close"];
    let loaded =
        load::run(&Load::parse_from(args).args, &config, &Clock::system(), Some(&end_of_window), false)
            .unwrap();
    assert!(loaded.points > 1_000, "the recording is not empty");

    let catalog = Arc::new(load_catalog(&config.rollup.sql).unwrap());
    let context = Context::new(config, catalog, runtime.handle().clone());
    let roles: &[Role] = &[Role::Ingest, Role::Rollup];
    let alerting = Alerting::fixed(AlertsConfig::default(), Arc::clone(&context.catalog));
    let server = runtime.block_on(HttpServer::bind(&context.config.http)).unwrap();
    let running = runtime.spawn(run::start(context.clone(), server, roles, alerting, None));
    let labels = RollupLabels { rollup: "machine".to_owned() };
    wait_until(PATIENCE, "all points in closed windows", || {
        let rollup = &context.metrics.rollup;
        let merged = rollup.points.get_or_create(&labels).get();
        let closed = rollup.watermark_seconds.clone();
        let watermarks = (0..context.config.topics.partials_partitions)
            .map(|partition| closed.get_or_create(&pipeline::telemetry::PartitionLabels { partition }).get());
        let least = watermarks.fold(f64::INFINITY, f64::min);
        let last = loaded.times.map_or(0.0, |(_, last)| last as f64 / 1e9);
        if merged == loaded.points && least >= last {
            Ok(())
        } else {
            Err(format!("{merged} points, watermark {least}"))
        }
    });
    context.shutdown.trigger();
    runtime.block_on(running).unwrap().unwrap();

    let ask = |sql: String| runtime.block_on(query::run(&context.config, &QueryArgs { sql })).unwrap();
    let columns = "window_start, metric, host, points, min, max";
    let order = "ORDER BY window_start, metric, host";
    let stream = ask(format!("SELECT {columns} FROM machine {order}"));
    let batch = ask(format!("SELECT {columns} FROM ({SELECT}) {order}"));
    assert!(stream.lines().count() > 20, "{stream}");
    assert_eq!(stream, batch);
    let stored = ask("SELECT count(*) AS points FROM points".to_owned());
    assert!(stored.contains(&loaded.points.to_string()), "{} points in\n{stored}", loaded.points);
}

fn config(folder: &Path, brokers: &str) -> Config {
    let sql: PathBuf = folder.join("sql");
    std::fs::create_dir(&sql).unwrap();
    let view = format!("CREATE MATERIALIZED VIEW machine WITH (allowed_lateness = '1 minute') AS {SELECT}");
    std::fs::write(sql.join("machine.sql"), view).unwrap();
    let mut config = Config::local(brokers, &folder.join("data"));
    config.rollup.sql = sql;
    config.rollup.checkpoint_interval = Duration::from_secs(1);
    config.ingest.epoch = Duration::from_millis(100);
    config.ingest.max_out_of_orderness = Duration::from_secs(1);
    config.topics.partials_partitions = 2;
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config
}

/// End of the ten-second window of the last point.
fn end_of_window(last: i64) -> i64 {
    let size = 10_000_000_000;
    (last.div_euclid(size) + 1) * size
}
