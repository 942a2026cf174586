use std::collections::HashMap;

use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::exchange;
use crate::fold::{Fold, Restored};
use crate::sql::compile;
use crate::testing::{OPTIONS, SECOND, message, points};

const SUM: &str = "sum(value) AS total";
const MAX: &str = "max(value) AS highest";

/// Ten-second windows of `cpu` by host; a minute of lateness unless `lateness` is set.
fn cpu(aggregate: &str, lateness: &str, having: &str) -> Vec<Arc<Rollup>> {
    let sql = format!(
        "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '{lateness}') AS
         SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, {aggregate}
         FROM points GROUP BY 1, 2 {having}"
    );
    let catalog = compile(&[("cpu.sql".into(), sql)]);
    assert_eq!(catalog.errors, []);
    catalog.rollups
}

fn shown(rows: &RecordBatch) -> Vec<String> {
    let table = pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string();
    let lines = table.lines().skip(3).filter(|line| line.starts_with('|'));
    lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()).collect()
}

fn restore(rollups: &[Arc<Rollup>], bytes: &[u8]) -> (Fold, Change) {
    let Restored { fold, mut changes, other_version, .. } = Fold::restore(rollups, OPTIONS, bytes).unwrap();
    assert_eq!(other_version, None);
    (fold, changes.remove("cpu").unwrap())
}

fn seconds(rebuild: &Rebuild) -> (i64, i64, Option<i64>) {
    let Gap { from, to, written, .. } = rebuild.gap;
    (from / SECOND, to / SECOND, written.map(|at| at / SECOND))
}

fn all_seconds(rebuilds: &[Rebuild]) -> Vec<(i64, i64, Option<i64>)> {
    rebuilds.iter().map(seconds).collect()
}

#[test]
fn another_plan_begins_at_a_window_and_its_open_windows_are_rebuilt() {
    let (before, after) = (cpu(SUM, "1 minute", ""), cpu(MAX, "1 minute", ""));
    let mut fold = Fold::new(&before, OPTIONS);
    fold.apply(&message(&before, &[("a", 5, 1.0), ("a", 95, 2.0)]));
    let (mut fold, change) = restore(&after, &fold.snapshot(String::new()).unwrap());
    // 95 is the watermark: what started at 30 ended at 40, and 40 + 60 is later.
    assert_eq!(change, Change::StartsOver { windows: 1 });
    assert_eq!(all_seconds(&fold.rebuilds()), [(30, 100, Some(95))]);
    assert!(fold.rebuilds()[0].gap.other_fields, "total is no more");

    // An ingest process that has not restarted yet: its window is concerned too.
    let applied = fold.apply(&message(&before, &[("a", 101, 4.0)]));
    assert_eq!(all_seconds(&applied.rebuilds), [(30, 110, Some(95))]);
    assert_eq!(seconds(&fold.rebuilds()[0]), (30, 110, Some(101)), "it may have closed windows until 101");

    let applied = fold.apply(&message(&after, &[("a", 99, 8.0), ("a", 112, 5.0), ("a", 121, 1.0)]));
    assert!(applied.rebuilds.is_empty());
    assert_eq!((applied.points[0].1, applied.set_aside[0].1), (2, 1));
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:01:50 a 5.0"], "110 is whole, 100 is not");
    assert!(fold.due_rebuilds().is_empty(), "110 + 60 is later than 121");

    let last = fold.apply(&message(&after, &[("b", 170, 1.0)]));
    assert_eq!(last.late.len(), 0);
    let due = fold.due_rebuilds().remove(0);
    assert_eq!(due.due(), 170 * SECOND);
    // A snapshot keeps it until it is done.
    let (mut fold, _) = restore(&after, &fold.snapshot(String::new()).unwrap());
    assert_eq!(fold.due_rebuilds().len(), 1);
    fold.rebuilt(&due);
    assert!(fold.rebuilds().is_empty());
    let late = fold.apply(&message(&after, &[("a", 99, 1.0)]));
    assert_eq!((late.late.len(), late.set_aside[0].1), (1, 0), "final is final");
}

#[test]
fn states_of_an_unchanged_plan_go_on_with_other_lateness_and_having() {
    let before = cpu(SUM, "1 minute", "");
    let after = cpu(SUM, "5 minutes", "HAVING sum(value) > 2");
    let mut fold = Fold::new(&before, OPTIONS);
    fold.apply(&message(&before, &[("a", 5, 1.0), ("a", 45, 2.0)]));
    fold.apply(&message(&before, &[("a", 96, 1.0)]));
    let (mut fold, change) = restore(&after, &fold.snapshot(String::new()).unwrap());
    let kept =
        Change::Kept { lateness_before: Some(60 * SECOND), other_results: true, new_tiers: Vec::new() };
    assert_eq!(change, kept);
    assert!(fold.rebuilds().is_empty());
    // The window of 5 was final, and its state is forgotten: a correction would be a fragment.
    let applied = fold.apply(&message(&after, &[("a", 6, 9.0), ("a", 46, 9.0), ("a", 97, 9.0)]));
    assert_eq!(shown(&applied.late[0].rows), ["1970-01-01T00:00:00 a 9.0"]);
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:00:40 a 11.0"]);
    // The longer lateness counts for what was not final, also after another snapshot.
    let (mut fold, _) = restore(&after, &fold.snapshot(String::new()).unwrap());
    let applied = fold.apply(&message(&after, &[("a", 7, 9.0), ("a", 300, 1.0)]));
    assert_eq!(applied.late.len(), 1);
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:01:30 a 10.0"]);
    let applied = fold.apply(&message(&after, &[("a", 47, 1.0)]));
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:00:40 a 12.0"]);
}

#[test]
fn a_rollup_that_is_new_and_one_that_is_no_more() {
    let cpu = cpu(SUM, "1 minute", "");
    let mut fold = Fold::new(&cpu, OPTIONS);
    fold.apply(&message(&cpu, &[("a", 5, 1.0), ("a", 95, 2.0)]));
    let bytes = fold.snapshot(String::new()).unwrap();
    let sql = "CREATE MATERIALIZED VIEW n AS SELECT tumble(time, INTERVAL '30 seconds') AS w, count(*) AS n
               FROM points GROUP BY 1";
    let n = compile(&[("n.sql".into(), sql.into())]).rollups;
    let Restored { fold, changes, .. } = Fold::restore(&n, OPTIONS, &bytes).unwrap();
    assert_eq!((&changes["n"], &changes["cpu"]), (&Change::New, &Change::Removed { windows: 1 }));
    assert_eq!(all_seconds(&fold.rebuilds()), [(-510, 120, Some(95))]);
    // Nothing was seen yet: nothing is missing.
    let empty = Fold::new(&cpu, OPTIONS).snapshot(String::new()).unwrap();
    let Restored { changes, fold, .. } = Fold::restore(&n, OPTIONS, &empty).unwrap();
    assert_eq!((&changes["n"], fold.rebuilds().len()), (&Change::New, 0));
}

/// A snapshot as release 0.0 wrote them, whose header has no plans.
#[test]
fn of_another_format_the_watermark_is_kept_and_all_open_windows_are_rebuilt() {
    let cpu = cpu(SUM, "1 minute", "");
    let mut fold = Fold::new(&cpu, OPTIONS);
    fold.apply(&message(&cpu, &[("a", 5, 1.0), ("a", 95, 2.0)]));
    let ours = exchange::decode(&fold.snapshot("alerts".into()).unwrap(), "snapshot").unwrap();
    let mut header: serde_json::Value = ours.header("fold").unwrap();
    let header = header.as_object_mut().unwrap();
    header.remove("plans").unwrap();
    header.remove("sections").unwrap();
    let metadata = HashMap::from([
        ("tidemark.version".to_owned(), "1".to_owned()),
        ("tidemark.fold".to_owned(), serde_json::to_string(header).unwrap()),
    ]);
    let schema = arrow::datatypes::Schema::new_with_metadata(arrow::datatypes::Fields::empty(), metadata);
    let mut bytes = Vec::new();
    arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &schema).unwrap().finish().unwrap();

    let restored = Fold::restore(&cpu, OPTIONS, &bytes).unwrap();
    assert_eq!(restored.other_version.as_deref(), Some("1"));
    assert_eq!((restored.alerts.as_str(), restored.fold.watermark()), ("alerts", Some(95 * SECOND)));
    assert_eq!(all_seconds(&restored.fold.rebuilds()), [(30, 100, Some(95))]);

    let error = Fold::restore(&cpu, OPTIONS, b"no snapshot").unwrap_err().to_string();
    assert!(error.starts_with("unreadable snapshot: "), "{error}");
}

#[test]
fn what_could_not_be_read_leaves_out_what_may_be_behind_it() {
    let cpu = cpu(SUM, "1 minute", "");
    let mut fold = Fold::new(&cpu, OPTIONS);
    let missed = fold.missed(42 * SECOND);
    assert_eq!(all_seconds(&missed), [(i64::MIN / SECOND, 50, None)]);
    assert!(fold.missed(31 * SECOND).is_empty(), "known already");
    let applied = fold.apply(&message(&cpu, &[("a", 5, 1.0), ("a", 55, 2.0)]));
    assert_eq!((applied.points[0].1, applied.set_aside[0].1), (1, 1));
    let applied = fold.apply(&message(&cpu, &[("a", 110, 2.0)]));
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:00:50 a 2.0"]);
    assert_eq!(fold.due_rebuilds().len(), 1);
}

#[test]
fn a_rebuild_withdraws_what_was_written_and_is_no_more() {
    let rollup = &cpu("avg(value) AS avg", "1 minute", "HAVING avg(value) < 10")[0];
    let check = |written: Option<i64>, other_fields: bool, expected: &[&str]| {
        let written = written.map(|at| at * SECOND);
        let gap = Gap { from: 0, to: 30 * SECOND, written, other_fields };
        let mut rebuilder = Rebuilder::new(rollup, 0, BTreeMap::from([(0, (gap, Bounds::default()))]));
        rebuilder.push(&[points(&[("a", 1, 1.0), ("b", 2, 50.0), ("b", 12, 50.0)])]).unwrap();
        // Outside of the windows to be rebuilt.
        rebuilder.push(&[points(&[("a", 12, 2.0), ("a", -1, 1.0), ("a", 30, 1.0)])]).unwrap();
        let [part] = &rebuilder.take(i64::MIN, i64::MAX).unwrap()[..] else { panic!("one partition") };
        assert_eq!(shown(&part.rows), ["1970-01-01T00:00:00 a 1.0", "1970-01-01T00:00:10 a 2.0"]);
        let mut withdrawn = part.withdrawn.as_ref().map(shown).unwrap_or_default();
        withdrawn.sort();
        assert_eq!(withdrawn, expected);
        assert!(rebuilder.take(i64::MIN, i64::MAX).unwrap().is_empty(), "what was taken is gone");
        assert_eq!(rebuilder.take_failures(), []);
    };
    check(None, false, &[]);
    check(Some(10), false, &["1970-01-01T00:00:00 b"]);
    check(Some(20), false, &["1970-01-01T00:00:00 b", "1970-01-01T00:00:10 b"]);
    check(Some(10), true, &["1970-01-01T00:00:00 a 1.0", "1970-01-01T00:00:00 b"]);
}

#[test]
fn a_new_tier_begins_at_its_own_window_and_the_others_go_on() {
    let tiers = |tiers: &str| {
        let sql = format!(
            "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '20 seconds', tiers = '{tiers}') AS
             SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, sum(value) AS s
             FROM points GROUP BY 1, 2"
        );
        let catalog = compile(&[("cpu.sql".into(), sql)]);
        assert_eq!(catalog.errors, []);
        catalog.rollups
    };
    let (before, after) = (tiers("10s"), tiers("10s, 60s"));
    let mut fold = Fold::new(&before, OPTIONS);
    fold.apply(&message(&before, &[("a", 5, 1.0), ("a", 65, 2.0)]));
    let (mut fold, change) = restore(&after, &fold.snapshot(String::new()).unwrap());
    let new_tiers = vec!["1m".to_owned()];
    assert_eq!(change, Change::Kept { lateness_before: None, other_results: false, new_tiers });
    let rebuilds = fold.rebuilds();
    assert_eq!((all_seconds(&rebuilds), rebuilds[0].tier), (vec![(0, 120, Some(65))], 1));

    let applied = fold.apply(&message(&after, &[("a", 66, 3.0), ("a", 121, 7.0)]));
    assert_eq!((applied.points[0].1, applied.results.len()), (2, 1));
    assert_eq!(shown(&applied.results[0].rows), ["1970-01-01T00:01:00 a 5.0"], "of ten seconds");
    let applied = fold.apply(&message(&after, &[("a", 185, 1.0)]));
    let minute = applied.results.iter().find(|results| results.tier == 1).unwrap();
    assert_eq!(shown(&minute.rows), ["1970-01-01T00:02:00 a 7.0"]);
    let due = fold.due_rebuilds().remove(0);
    let mut rebuilder =
        Rebuilder::new(&due.rollup, due.tier, BTreeMap::from([(0, (due.gap, Bounds::default()))]));
    rebuilder.push(&[points(&[("a", 5, 1.0), ("a", 65, 2.0), ("a", 66, 3.0), ("a", 121, 7.0)])]).unwrap();
    let rows = &rebuilder.take(0, i64::MAX).unwrap()[0].rows;
    assert_eq!(shown(rows), ["1970-01-01T00:00:00 a 1.0", "1970-01-01T00:01:00 a 5.0"]);
}

#[test]
fn hopping_windows_are_left_out_when_one_of_their_panes_lacks_states() {
    let hop = |aggregate: &str| {
        let sql = format!(
            "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '10 seconds') AS
             SELECT hop(time, INTERVAL '30 seconds', INTERVAL '10 seconds') AS w, {aggregate} AS v
             FROM points GROUP BY 1"
        );
        let catalog = compile(&[("cpu.sql".into(), sql)]);
        assert_eq!(catalog.errors, []);
        catalog.rollups
    };
    let (before, after) = (hop("sum(value)"), hop("max(value)"));
    let mut fold = Fold::new(&before, OPTIONS);
    fold.apply(&message(&before, &[("a", 61, 1.0), ("a", 95, 2.0)]));
    let (mut fold, _) = restore(&after, &fold.snapshot(String::new()).unwrap());
    // The window of 60 ends at 90 and is final at 100.
    assert_eq!(all_seconds(&fold.rebuilds()), [(60, 100, Some(95))]);
    let applied = fold.apply(&message(&after, &[("a", 99, 9.0), ("a", 101, 4.0), ("a", 145, 1.0)]));
    assert_eq!((applied.points[0].1, applied.set_aside[0].1), (2, 1));
    let rows: Vec<_> = applied.results.iter().flat_map(|results| shown(&results.rows)).collect();
    assert_eq!(rows, ["1970-01-01T00:01:40 4.0"]);
    let due = fold.due_rebuilds().remove(0);
    let mut rebuilder =
        Rebuilder::new(&due.rollup, due.tier, BTreeMap::from([(0, (due.gap, Bounds::default()))]));
    let all = [("a", 61, 1.0), ("a", 95, 2.0), ("a", 99, 9.0), ("a", 101, 4.0), ("a", 145, 1.0)];
    rebuilder.push(&[points(&all)]).unwrap();
    let rebuilt = rebuilder.take(i64::MIN, i64::MAX).unwrap();
    assert_eq!(
        shown(&rebuilt[0].rows),
        [
            "1970-01-01T00:01:00 1.0",
            "1970-01-01T00:01:10 9.0",
            "1970-01-01T00:01:20 9.0",
            "1970-01-01T00:01:30 9.0",
        ]
    );
}
