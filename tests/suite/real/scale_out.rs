//! More processes change nothing but the speed.

use tidemark_tests::nab;

use super::exactness::{HOURLY, batch};
use super::{Body, Deployment, PATIENCE, Servers, assert_same};

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("two_processes_of_each_role_give_the_same_influxdb_as_one_of_each", two_of_each)]
}

fn two_of_each(servers: &Servers) {
    let total = nab::points().unwrap().len() as f64;
    let topic = servers.kafka.unique_topic("scale", 8);
    let one = Deployment::new(servers, "scale-one", &topic, 8);
    let two = Deployment::new(servers, "scale-two", &topic, 8);
    let storage = tempfile::tempdir().unwrap();
    let place = |name: &str| storage.path().join(name).to_str().unwrap().to_owned();
    // Without the percentile: sketches that were merged in another order differ within their bound.
    let sql = HOURLY.replace(",\n       approx_percentile_cont(value, 0.95) AS p95", "");
    let sql = [("nab_hourly", sql.as_str())];

    let mut single = one.process(&place("one"), &sql);
    single.call(&["topics", "create"]);
    one.load_nab(&single);
    single.run("ingest,rollup");

    let roles = ["ingest", "ingest", "rollup", "rollup"];
    let mut several: Vec<_> = roles.iter().map(|_| two.process(&place("two"), &sql)).collect();
    several[0].call(&["topics", "create"]);
    for (process, role) in several.iter_mut().zip(roles) {
        process.spawn(&["run", "--roles", role], &[]);
    }
    for process in &mut several {
        process.wait_until_ready();
    }

    let expected = batch(sql[0].1, &nab::points().unwrap());
    single.wait_for_metric(PATIENCE, "tidemark_ingest_points_total", &[], total);
    single.wait_until(PATIENCE, "all windows of the one deployment", || {
        let found = servers.influx.rows(&one.id, "nab_hourly").len();
        if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
    });
    several[0].wait_until(PATIENCE, "all windows of the other deployment", || {
        let found = servers.influx.rows(&two.id, "nab_hourly").len();
        if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
    });
    assert!(single.terminate().success(), "{}", single.log_text());
    for process in &mut several {
        assert!(process.terminate().success(), "{}", process.log_text());
    }
    let (one, two) = (servers.influx.rows(&one.id, "nab_hourly"), servers.influx.rows(&two.id, "nab_hourly"));
    assert_same(&one, &expected);
    assert_same(&two, &one);
}
