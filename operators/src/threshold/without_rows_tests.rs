//! Windows without a row of a group: because there is none, or because the stream cannot give them
//! whole.

use super::kinds_tests::{build, emitted, minutes, query};
use super::tests::{MINUTE, Row, batch, closed, spec};
use super::*;

const HIGH: Option<f64> = Some(95.0);
const LOW: Option<f64> = Some(50.0);

fn unknown(rollup: &str, first: i64, last: i64) -> UnknownWindows {
    UnknownWindows { rollup: rollup.into(), tier: "1m".into(), first: first * MINUTE, last: last * MINUTE }
}

fn close(threshold: &mut Threshold, rows: &[Row], until: i64) -> String {
    let (rows, ends) = batch(rows);
    emitted(&threshold.apply(&[closed(&rows, &ends)], Some(until * MINUTE), StageTimes::default()))
}

#[test]
fn windows_that_the_stream_cannot_give_whole_say_nothing() {
    for (missing_data, notified) in [
        (MissingData::Alert, "4 eu firing since 4 (no_data)"),
        (MissingData::NoData, "4 eu no-data firing since 4 (no_data)"),
        (MissingData::Ok, ""),
    ] {
        let mut threshold = build(&[RuleSpec { missing_data, ..spec() }]);
        close(&mut threshold, &[(1, "eu", LOW)], 1);
        threshold.leave_out(&[unknown("cpu_by_region", 2, 3)]);
        assert_eq!(close(&mut threshold, &[], 3), "", "{missing_data:?}");
        assert_eq!(close(&mut threshold, &[], 4), notified, "{missing_data:?}: the first that is whole");
    }
    // What is missing ends no alert, and brings the end of an alert that is forgotten no nearer.
    let forgetful = RuleSpec { forget_after: Some(minutes(3)), ..spec() };
    for spec in [RuleSpec { missing_data: MissingData::Ok, ..spec() }, forgetful] {
        let mut threshold = build(&[spec]);
        assert_eq!(close(&mut threshold, &[(1, "eu", HIGH)], 1), "1 eu firing since 1");
        threshold.leave_out(&[unknown("cpu_by_region", i64::MIN / MINUTE, 9), unknown("other", 1, 99)]);
        assert_eq!(close(&mut threshold, &[], 9), "");
        threshold.leave_out(&[]);
        assert_eq!(close(&mut threshold, &[(10, "eu", HIGH)], 10), "");
        assert_eq!(close(&mut threshold, &[(11, "eu", LOW)], 11), "11 eu resolved since 1");
    }
}

const SHARE: &str = "SELECT window_start, region, coalesce(b.avg, 0) / a.avg AS share
    FROM cpu_by_region a LEFT JOIN memory_by_region b USING (window_start, region)";

fn both(threshold: &mut Threshold, left: &[Row], right: &[Row], until: i64) -> String {
    let (left, left_ends) = batch(left);
    let (right, right_ends) = batch(right);
    let mut given = Vec::new();
    if left.num_rows() > 0 {
        given.push(closed(&left, &left_ends));
    }
    if right.num_rows() > 0 {
        given.push(WindowRows { rollup: "memory_by_region", ..closed(&right, &right_ends) });
    }
    let notified = emitted(&threshold.apply(&given, Some(until * MINUTE), StageTimes::default()));
    assert_eq!(threshold.take_failures(), []);
    notified
}

#[test]
fn an_outer_join_has_the_rows_of_one_side_when_the_other_has_none() {
    let mut threshold = build(&[query(SHARE, "share > 0.5")]);
    assert_eq!(
        both(&mut threshold, &[(1, "eu", HIGH), (1, "us", HIGH)], &[(1, "eu", HIGH)], 1),
        "1 eu firing since 1"
    );
    // No group of the partition has a row on the right.
    assert_eq!(both(&mut threshold, &[(2, "eu", HIGH)], &[], 2), "2 eu resolved since 1");
    assert_eq!(both(&mut threshold, &[], &[(3, "eu", HIGH)], 3), "");
    assert_eq!(both(&mut threshold, &[], &[], 4), "");
}

#[test]
fn a_join_does_not_judge_windows_that_one_side_cannot_give() {
    let mut threshold = build(&[query(SHARE, "share > 0.5")]);
    assert_eq!(both(&mut threshold, &[(1, "eu", HIGH)], &[(1, "eu", HIGH)], 1), "1 eu firing since 1");
    threshold.leave_out(&[unknown("memory_by_region", 2, 2)]);
    let two = [(2, "eu", HIGH), (3, "eu", HIGH)];
    assert_eq!(both(&mut threshold, &two[..1], &[], 2), "");
    assert_eq!(both(&mut threshold, &two, &[], 3), "3 eu resolved since 1");
}

#[test]
fn a_row_on_which_a_query_fails_costs_itself_alone() {
    let select = "SELECT window_start, region, CAST(100 AS BIGINT) / CAST(avg AS BIGINT) AS percent FROM cpu_by_region";
    let mut threshold = build(&[query(select, "percent >= 1")]);
    let rows = [(1, "eu", HIGH), (1, "idle", Some(0.0)), (1, "us", HIGH)];
    assert_eq!(close(&mut threshold, &rows, 1), "1 eu firing since 1, 1 us firing since 1");
    assert_eq!(threshold.take_failures(), []);
}

#[test]
fn a_long_silence_weighs_what_a_short_one_does() {
    for missing_data in [MissingData::Alert, MissingData::NoData, MissingData::Ok] {
        let patient = RuleSpec { missing_data, for_: minutes(1_000_000), ..spec() };
        let mut rule = build(&[patient]);
        // Every window of a week can still be corrected.
        rule.rules[0].rule.lateness = 10_080 * MINUTE;
        close(&mut rule, &[(1, "eu", HIGH), (1, "us", LOW)], 1);
        close(&mut rule, &[], 3);
        let short = rule.bytes();
        for minute in 4..1_400 {
            close(&mut rule, &[], minute);
        }
        assert_eq!(rule.bytes(), short, "{missing_data:?}");
        assert!((300..3_000).contains(&short), "{short} bytes");
        let mut restored = build(&[spec()]);
        restored.restore(&rule.snapshot()).unwrap();
        assert_eq!(restored.bytes(), short);
        assert!(rule.snapshot().len() < 1_500, "{}", String::from_utf8_lossy(&rule.snapshot()));
    }
}
