//! Fingerprints of the rollups that the program comes with. Another value costs every user of such
//! a rollup its open windows at the upgrade: they are rebuilt from the archive.

use super::compile;

#[test]
fn fingerprints_of_ordinary_rollups_stay_as_they_are() {
    let mut files = Vec::new();
    for entry in std::fs::read_dir("../sql").unwrap() {
        let path = entry.unwrap().path();
        files.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    }
    files.sort();
    let plain = "CREATE MATERIALIZED VIEW plain AS SELECT tumble(time, INTERVAL '1 minute', 'Europe/Berlin') AS w,
        name, labels['host'] AS host, sum(value) AS sum, min(value) AS min, max(value) AS max, avg(value) AS avg,
        count(*) AS n, count(value) AS v, approx_percentile_cont(value, 0.95) AS p95, stddev(value) AS dev,
        approx_distinct(labels['pod']) AS pods, first_value(value ORDER BY time) AS first,
        last_value(value ORDER BY time) AS last, avg(value * 8) AS bits, max(abs(value)) FILTER (WHERE value / 2 > 1) AS m
        FROM points WHERE name <> 'x' AND labels['env'] = 'prod' AND value < 1e9 GROUP BY 1, 2, 3
        HAVING sum(value) / count(*) > 0";
    files.push(("plain.sql".to_owned(), plain.to_owned()));
    let catalog = compile(&files);
    assert_eq!(catalog.errors, []);
    let found: Vec<(&str, u64, u64)> = catalog
        .rollups
        .iter()
        .map(|rollup| (rollup.name.as_str(), rollup.fingerprint, rollup.results_fingerprint))
        .collect();
    assert_eq!(
        found,
        [
            ("cpu_by_host", 7970264286782682403, 15280040221111545543),
            ("cpu_moving", 9168447888984199117, 16127862484118020692),
            ("disk_by_mount", 9900877492935816936, 2299186836428376183),
            ("memory_by_host", 1189172438619879789, 11873722448073548438),
            ("network_by_interface", 7667280693891949700, 11342106375257851243),
            ("plain", 4326382971435157974, 18401194385118109976),
            ("requests_by_day", 5331991201801901068, 9966278731097736282),
            ("utilization_by_instance", 2604683882917024549, 6712003024691088121),
        ]
    );
}
