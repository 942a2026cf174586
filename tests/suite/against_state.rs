//! What `tidemark check --against-state` says before an upgrade, word for word:
//! `against_state/expected.txt`.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use operators::exchange::Partials;
use operators::fold::Fold;
use operators::partial::aggregate;
use operators::sql::{Catalog, compile};
use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};
use pipeline::commands::check::state;
use pipeline::config::Config;

use crate::case::Case;
use crate::golden;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("check::against_state", against_state)]
}

/// Rollups as they were, and as they are now.
const VIEWS: [(&str, &str, &str); 7] = [
    ("unchanged", "SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1", "= before"),
    (
        "longer",
        "SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1",
        "WITH (allowed_lateness = '2 hours') AS SELECT {1m} AS w, avg(value) AS mean FROM points GROUP BY 1",
    ),
    (
        "tiered",
        "SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1",
        "WITH (tiers = '1m, 1h') AS SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1",
    ),
    (
        "changed",
        "SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1",
        "AS SELECT {1m} AS w, max(value) AS max FROM points GROUP BY 1",
    ),
    (
        "retyped",
        "SELECT {1m} AS w, name AS kind, count(*) AS n, avg(value) AS avg FROM points GROUP BY 1, 2",
        "AS SELECT {1m} AS w, avg(value) AS n, count(*) AS avg, max(name) AS kind FROM points GROUP BY 1",
    ),
    ("old", "SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1", ""),
    ("new", "", "AS SELECT {1m} AS w, avg(value) AS avg FROM points GROUP BY 1"),
];

/// Files by name.
type Files = Vec<(String, String)>;

fn catalogs() -> (Files, Files) {
    let view = |name: &str, rest: &str| {
        let rest = rest.replace("{1m}", "tumble(time, INTERVAL '1 minute')");
        (format!("{name}.sql"), format!("CREATE MATERIALIZED VIEW {name} {rest}"))
    };
    let (mut before, mut now) = (Vec::new(), Vec::new());
    for (name, then, after) in VIEWS {
        if !then.is_empty() {
            before.push(view(name, &format!("AS {then}")));
        }
        match after {
            "" => {}
            "= before" => now.push(view(name, &format!("AS {then}"))),
            after => now.push(view(name, after)),
        }
    }
    (before, now)
}

fn against_state() -> Result<(), Failed> {
    let storage = tempfile::tempdir()?;
    let mut config = Config::local("127.0.0.1:1", storage.path());
    let (before, now) = catalogs();
    let now = compile(&now);
    assert_eq!(now.errors, []);
    let said = |config: &Config, catalog: &Catalog| -> Result<String, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(runtime.block_on(state::compare(config, catalog))?.to_string())
    };
    let mut text = format!("# nothing stored\n{}\n", said(&config, &now)?);
    store(&before, storage.path());
    text += &format!("# stored\n{}\n", said(&config, &now)?);
    config.archive.enabled = false;
    text += &format!("# without an archive\n{}\n", said(&config, &now)?);
    golden::check_text(&golden::suite("against_state").join("expected.txt"), &text)
}

/// Snapshots of two partitions, and an older one that does not count.
fn store(files: &[(String, String)], storage: &Path) {
    let points =
        "{\"name\":\"a\",\"ts\":1767225600,\"value\":1}\n{\"name\":\"a\",\"ts\":1767226530,\"value\":1}\n";
    let mut case = Case::new(files, points.as_bytes()).unwrap();
    for partition in [0, 1] {
        let catalog = compile(files);
        assert_eq!(catalog.errors, []);
        let options = WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 1, owner_timeout: 1 };
        let mut fold = Fold::new(&catalog.rollups, options);
        for (offset, point) in [0_usize, 1].into_iter().enumerate() {
            let high = case.time_and_series(point).0 + partition * 60_000_000_000;
            let facts = EpochFacts {
                wall: 0,
                uptime: None,
                topics: [("points".to_owned(), 1)].into(),
                owner: None,
                partitions: vec![PartitionFacts {
                    topic: "points".to_owned(),
                    partition: 0,
                    from: 0,
                    to: 1,
                    high: Some(high),
                    low: Some(high),
                    at_end: false,
                    silent: 0,
                }],
            };
            let batch = case.ingested(&[point]);
            let message = aggregate(&catalog.rollups, &[batch], &facts, 1).messages.remove(0);
            fold.apply(&Partials::decode(&message.encode().unwrap()).unwrap());
            let folder = storage.join(format!("state/{partition}"));
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{offset:020}.arrow"));
            fs::write(file, fold.snapshot(String::new()).unwrap()).unwrap();
        }
    }
}
