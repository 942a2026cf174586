//! Each kind of rule, and each way to treat missing data, from rows and event time to transitions.

use super::tests::{MINUTE, Row, batch, closed, compile_over, rows, shape, spec};
use super::*;
use alerts::Cause;
use proptest::prelude::*;
use std::time::Duration;

/// What comes in: rows of windows that close, event time alone, a row that late points have
/// changed.
#[derive(Clone, Copy, Debug)]
enum Event {
    Close(&'static [Row]),
    Time(i64),
    Correct(Row),
    /// A row that late points have taken away, or that is replaced by one of these.
    Withdraw(Row, &'static [Row]),
    /// A row of a window that is still open.
    Open(Row),
}
use Event::{Close, Correct, Open, Time, Withdraw};

const HIGH: Option<f64> = Some(95.0);
const LOW: Option<f64> = Some(50.0);

pub(super) fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

pub(super) fn build(specs: &[RuleSpec]) -> Threshold {
    let mut rules: Vec<Rule> = Vec::new();
    for spec in specs {
        rules.push(compile_over(spec.clone(), &shape(), &rules).unwrap());
    }
    Threshold::new(rules)
}

fn take(threshold: &mut Threshold, event: Event) -> Vec<Transition> {
    let times = StageTimes::default();
    match event {
        Time(minute) => threshold.apply(&[], Some(minute * MINUTE), times),
        Close(rows) => {
            let until = rows.iter().map(|row| row.0 * MINUTE).max();
            let (rows, ends) = batch(rows);
            threshold.apply(&[closed(&rows, &ends)], until, times)
        }
        Open(row) => {
            let (rows, ends) = batch(&[row]);
            threshold.look(&[closed(&rows, &ends)], times)
        }
        Withdraw(withdrawn, rows) => {
            let (withdrawn, _) = batch(&[withdrawn]);
            let (rows, ends) = batch(rows);
            let withdrawn = Some(&withdrawn);
            let given = WindowRows { corrected: true, withdrawn, ..closed(&rows, &ends) };
            let now = threshold.rules.iter().map(|rule| rule.newest).max();
            threshold.apply(&[given], now, times)
        }
        Correct(row) => {
            let (rows, ends) = batch(&[row]);
            let given = WindowRows { corrected: true, ..closed(&rows, &ends) };
            // Event time stays where it is.
            let now = threshold.rules.iter().map(|rule| rule.newest).max();
            threshold.apply(&[given], now, times)
        }
    }
}

/// `minute region rule status since minute`, with the cause where it is not the condition.
pub(super) fn emitted(transitions: &[Transition]) -> String {
    let mut text = Vec::new();
    for transition in transitions {
        let cause = match transition.cause {
            Cause::Condition => String::new(),
            other => format!(" ({})", other.as_str()),
        };
        let region = transition.labels.get("region").map_or("-", String::as_str);
        let provisional = if transition.provisional { " provisionally" } else { "" };
        let absence = if transition.labels.contains_key(NO_DATA_LABEL) { " no-data" } else { "" };
        let (at, since) = (transition.window_end / MINUTE, transition.starts_at / MINUTE);
        text.push(format!("{at} {region}{absence} {}{provisional} since {since}{cause}", transition.status));
    }
    text.join(", ")
}

/// The verdict of the last rule.
fn check(specs: &[RuleSpec], events: &[Event], expected: &str) {
    let mut threshold = build(specs);
    let mut transitions = Vec::new();
    for event in events {
        // Everything must survive a snapshot between any two messages.
        let mut next = build(specs);
        next.restore(&threshold.snapshot()).unwrap();
        assert_eq!(next.snapshot(), threshold.snapshot());
        threshold = next;
        transitions.extend(take(&mut threshold, *event));
    }
    let last = &specs[specs.len() - 1].name;
    transitions.retain(|transition| transition.rule == *last);
    assert_eq!(emitted(&transitions), expected, "{events:?}");
    let ids: std::collections::HashSet<_> = transitions.iter().map(|transition| &transition.id).collect();
    assert_eq!(ids.len(), transitions.len(), "each transition has an id of its own");
    assert_eq!(threshold.take_failures(), []);
}

#[test]
fn pending_is_shown() {
    let spec = RuleSpec { for_: minutes(2), ..spec() };
    let events = [Close(&[(1, "eu", HIGH)]), Close(&[(2, "eu", LOW)]), Close(&[(3, "eu", HIGH)])];
    check(&[spec], &events, "1 eu pending since 1, 2 eu inactive since 1, 3 eu pending since 3");
}

#[test]
fn missing_data_ok() {
    let spec = RuleSpec { missing_data: MissingData::Ok, ..spec() };
    let events = [Close(&[(1, "eu", HIGH), (1, "us", HIGH)]), Close(&[(2, "us", HIGH)]), Time(4)];
    check(
        &[spec],
        &events,
        "1 eu firing since 1, 1 us firing since 1, 2 eu resolved since 1 (no_data), 3 us resolved since 1 (no_data)",
    );
}

#[test]
fn missing_data_keep() {
    let events = [Close(&[(1, "eu", HIGH)]), Time(100_000), Close(&[(100_001, "eu", LOW)])];
    check(&[spec()], &events, "1 eu firing since 1, 100001 eu resolved since 1");
}

#[test]
fn missing_data_alert() {
    let spec = RuleSpec { missing_data: MissingData::Alert, for_: minutes(1), ..spec() };
    let events = [Close(&[(1, "eu", LOW)]), Time(3), Close(&[(4, "eu", LOW)])];
    check(
        std::slice::from_ref(&spec),
        &events,
        "2 eu pending since 2 (no_data), 3 eu firing since 2 (no_data), 4 eu resolved since 2",
    );
    // A group that does not come back is forgotten, and its alert with it.
    let spec = RuleSpec { forget_after: Some(minutes(5)), ..spec };
    let events = [Close(&[(1, "eu", LOW)]), Time(100)];
    let expected =
        "2 eu pending since 2 (no_data), 3 eu firing since 2 (no_data), 6 eu resolved since 2 (forgotten)";
    check(&[spec], &events, expected);
}

#[test]
fn missing_data_no_data() {
    let spec = RuleSpec { missing_data: MissingData::NoData, ..spec() };
    // The alert stays as it is, and another reports missing data.
    let events = [Close(&[(1, "eu", HIGH)]), Time(2), Close(&[(3, "eu", HIGH)]), Close(&[(4, "eu", LOW)])];
    check(
        &[spec],
        &events,
        "1 eu firing since 1, 2 eu no-data firing since 2 (no_data), 3 eu no-data resolved since 2 (no_data), \
         4 eu resolved since 1",
    );
}

#[test]
fn fires_early_and_is_confirmed_or_withdrawn() {
    let early = RuleSpec { early: true, ..spec() };
    let events = [
        Close(&[(1, "eu", LOW)]),
        Open((2, "eu", LOW)),
        Open((2, "eu", HIGH)),
        Open((2, "eu", HIGH)),
        Close(&[(2, "eu", HIGH)]),
        Open((3, "eu", HIGH)),
        Close(&[(3, "eu", LOW)]),
    ];
    let expected = "2 eu firing provisionally since 2, 2 eu firing since 2, 3 eu resolved since 2";
    check(std::slice::from_ref(&early), &events, expected);
    // What it fired for is not so when the window closes, or is not there at all.
    for close in [Close(&[(2, "eu", LOW)]), Time(2)] {
        let expected = "2 eu firing provisionally since 2, 2 eu resolved since 2 (correction)";
        check(std::slice::from_ref(&early), &[Open((2, "eu", HIGH)), close], expected);
    }
    for (wrong, part) in [
        (
            RuleSpec { watches: rows("avg < 90"), ..early.clone() },
            "may be true in an open window and false when it closes",
        ),
        (RuleSpec { watches: rows("avg > 90 OR region = 'eu'"), ..early.clone() }, "`region = "),
        (RuleSpec { for_: minutes(1), ..early.clone() }, "waits for several windows"),
    ] {
        let error = compile_over(wrong, &shape(), &[]).unwrap_err();
        assert!(error.key == "early" && error.to_string().contains(part), "{error}");
    }
    compile_over(RuleSpec { watches: rows("avg > 90 AND 10 <= points"), ..early }, &shape(), &[]).unwrap();
}

#[test]
fn late_data_are_not_missing() {
    let spec = RuleSpec { missing_data: MissingData::Alert, ..spec() };
    let events = [Close(&[(1, "eu", LOW)]), Time(2), Correct((2, "eu", LOW))];
    check(&[spec], &events, "2 eu firing since 2 (no_data), 2 eu resolved since 2 (correction)");
}

#[test]
fn dead_man() {
    let watches = Watches::DeadMan { rollup: "cpu_by_region".into(), tier: "1m".into(), after: minutes(3) };
    let spec = RuleSpec { watches, ..spec() };
    let events = [
        Close(&[(1, "eu", LOW), (1, "us", LOW)]),
        Close(&[(2, "us", LOW)]),
        Time(4),
        Close(&[(5, "eu", LOW)]),
    ];
    check(
        &[spec],
        &events,
        "2 eu pending since 2 (no_data), 3 us pending since 3 (no_data), 4 eu firing since 2 (no_data), \
         5 eu resolved since 2 (no_data), 5 us firing since 3 (no_data)",
    );
}

#[test]
fn m_of_n_and_keep_firing() {
    let spec = RuleSpec { m_of_n: Some((2, 3)), keep_firing_for: minutes(1), ..spec() };
    let events = [
        Close(&[(1, "eu", HIGH)]),
        Close(&[(2, "eu", LOW)]),
        Close(&[(3, "eu", HIGH)]),
        Close(&[(4, "eu", LOW), (5, "eu", LOW), (6, "eu", LOW)]),
    ];
    check(&[spec], &events, "3 eu firing since 3, 5 eu resolved since 3");
}

#[test]
fn late_corrections_are_told() {
    let events = [Close(&[(1, "eu", LOW)]), Close(&[(2, "eu", HIGH)]), Correct((2, "eu", LOW))];
    check(&[spec()], &events, "2 eu firing since 2, 2 eu resolved since 2 (correction)");
    // A group that was never worth a state.
    let events = [Close(&[(1, "eu", LOW)]), Close(&[(2, "eu", LOW)]), Correct((1, "eu", HIGH))];
    check(&[spec()], &events, "1 eu firing since 1 (correction), 1 eu resolved since 1 (correction)");
    let events = [
        Close(&[(1, "eu", LOW)]),
        Close(&[(2, "eu", LOW)]),
        Correct((2, "eu", HIGH)),
        Correct((2, "eu", LOW)),
        Correct((2, "eu", HIGH)),
    ];
    check(
        &[spec()],
        &events,
        "2 eu firing since 2 (correction), 2 eu resolved since 2 (correction), 2 eu firing since 2 (correction)",
    );
    // Final windows are not judged again.
    let events = [Close(&[(1, "eu", LOW)]), Time(20), Correct((1, "eu", HIGH))];
    check(&[spec()], &events, "");
    // A row in a window without one continues what is pending.
    let held = RuleSpec { for_: minutes(2), ..spec() };
    let events = [Close(&[(1, "eu", HIGH)]), Time(3), Correct((3, "eu", HIGH))];
    check(&[held], &events, "1 eu pending since 1, 3 eu firing since 1");
}

#[test]
fn a_row_that_late_points_take_away_is_missing() {
    let events = [Close(&[(1, "eu", LOW)]), Close(&[(2, "eu", HIGH)]), Withdraw((2, "eu", None), &[])];
    check(&[spec()], &events, "2 eu firing since 2, 2 eu resolved since 2 (correction)");
    let alert = RuleSpec { missing_data: MissingData::Alert, ..spec() };
    check(&[alert], &events, "2 eu firing since 2");
    let no_data = RuleSpec { missing_data: MissingData::NoData, ..spec() };
    let expected =
        "2 eu firing since 2, 2 eu no-data firing since 2 (correction), 2 eu resolved since 2 (correction)";
    check(&[no_data], &events, expected);
    // Its fields were withdrawn only to be written again.
    let again = [
        Close(&[(1, "eu", LOW)]),
        Close(&[(2, "eu", HIGH)]),
        Withdraw((2, "eu", None), &[(2, "eu", HIGH), (1, "us", LOW)]),
    ];
    check(&[spec()], &again, "2 eu firing since 2");
    // Nothing was emitted for the group.
    let other = [Close(&[(1, "eu", LOW)]), Close(&[(2, "eu", HIGH)]), Withdraw((2, "us", None), &[])];
    check(&[spec()], &other, "2 eu firing since 2");
}

#[test]
fn rules_over_rules() {
    let named = |name: &str, watches: Watches| RuleSpec {
        name: name.into(),
        watches,
        description: String::new(),
        ..spec()
    };
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let over = |all: &[&str], any: &[&str], none: &[&str], for_: u64| RuleSpec {
        for_: minutes(for_),
        ..named("both", Watches::Rules { all: texts(all), any: texts(any), none: texts(none) })
    };
    let (high, low) = (named("high", rows("avg > 90")), named("very", rows("avg > 99")));
    let given = [
        Close(&[(1, "eu", HIGH), (1, "us", Some(100.0))]),
        Close(&[(2, "eu", Some(100.0)), (2, "us", Some(100.0))]),
        Close(&[(3, "eu", LOW), (3, "us", LOW)]),
    ];
    let cases = [
        (
            over(&["high", "very"], &[], &[], 0),
            "1 us firing since 1, 2 eu firing since 2, 3 eu resolved since 2, 3 us resolved since 1",
        ),
        (over(&["high"], &[], &["very"], 0), "1 eu firing since 1, 2 eu resolved since 1"),
        (
            over(&[], &["high", "very"], &[], 1),
            "1 eu pending since 1, 1 us pending since 1, 2 eu firing since 1, 2 us firing since 1, 3 eu resolved since 1, 3 us resolved since 1",
        ),
    ];
    for (both, expected) in cases {
        let specs = [high.clone(), low.clone(), both];
        check(&specs, &given, expected);
        // However much of it comes at once.
        let whole: Vec<Row> = vec![
            (1, "eu", HIGH),
            (1, "us", Some(100.0)),
            (2, "eu", Some(100.0)),
            (2, "us", Some(100.0)),
            (3, "eu", LOW),
            (3, "us", LOW),
        ];
        check(&specs, &[Close(whole.leak())], expected);
    }
    for (both, part) in [
        (over(&[], &[], &["high"], 0), "names no rule that has to fire"),
        (over(&["hihg"], &[], &[], 0), "did you mean `high`?"),
    ] {
        let rules = [compile_over(high.clone(), &shape(), &[]).unwrap()];
        let error = compile_over(both, &shape(), &rules).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

pub(super) fn query(sql: &str, condition: &str) -> RuleSpec {
    let watches = Watches::Query { sql: sql.into(), condition: condition.into() };
    RuleSpec { watches, description: String::new(), ..spec() }
}

#[test]
fn rules_over_sql() {
    let jumps = [Close(&[(1, "eu", Some(10.0))]), Close(&[(2, "eu", Some(60.0)), (3, "eu", Some(61.0))])];
    let select = "SELECT window_start, region, avg, change(avg) AS jump FROM cpu_by_region";
    check(&[query(select, "jump > 40")], &jumps, "2 eu firing since 2, 3 eu resolved since 2");
    let select = "SELECT *, lag(avg) AS before FROM cpu_by_region";
    check(&[query(select, "avg > 2 * before")], &jumps, "2 eu firing since 2, 3 eu resolved since 2");
    let select =
        "SELECT window_start, region, ema(avg, 0.5) AS smooth FROM cpu_by_region c WHERE c.points >= 0";
    check(&[query(select, "smooth > 40")], &jumps, "3 eu firing since 3");
    let select = "SELECT window_start, region, rate(avg) AS rate FROM cpu_by_region";
    check(&[query(select, "rate > 0.5")], &jumps, "2 eu firing since 2, 3 eu resolved since 2");
    // Without functions, corrections are judged too.
    let select = "SELECT window_start, region, avg / 2 AS half FROM cpu_by_region";
    let events = [Close(&[(1, "eu", HIGH)]), Correct((1, "eu", LOW))];
    check(&[query(select, "half > 45")], &events, "1 eu firing since 1, 1 eu resolved since 1 (correction)");
}

#[test]
fn a_ratio_of_two_rollups() {
    let sql = "SELECT window_start, region, a.avg / b.avg AS ratio \
               FROM cpu_by_region a JOIN memory_by_region b USING (window_start, region)";
    let mut threshold = build(&[query(sql, "ratio > 1")]);
    let (cpu, cpu_ends) = batch(&[(1, "eu", Some(80.0)), (1, "us", Some(80.0))]);
    let (memory, memory_ends) = batch(&[(1, "eu", Some(50.0)), (1, "us", Some(90.0))]);
    let rows =
        [closed(&cpu, &cpu_ends), WindowRows { rollup: "memory_by_region", ..closed(&memory, &memory_ends) }];
    let transitions = threshold.apply(&rows, Some(MINUTE), StageTimes::default());
    assert_eq!(emitted(&transitions), "1 eu firing since 1");
    assert_eq!(transitions[0].values, BTreeMap::from([("ratio".into(), 1.6)]));
    assert_eq!(threshold.take_failures(), []);
}

#[test]
fn mistakes_in_queries() {
    for (sql, part) in [
        ("SELECT", "write `SELECT window_start"),
        ("SELECT window_start, avg FROM nowhere", "unknown rollup `nowhere`"),
        ("SELECT region, avg FROM cpu_by_region", "does not select the window"),
        ("SELECT window_start, max(avg) AS avg FROM cpu_by_region GROUP BY 1", "cannot aggregate"),
        ("SELECT window_start, avg, lag(avg) OVER (ORDER BY window_start) FROM cpu_by_region", "by OVER"),
        ("SELECT window_start, avg FROM cpu_by_region LIMIT 1", "LIMIT"),
        ("SELECT window_start, avg, random() AS r FROM cpu_by_region", "`random()` gives another answer"),
        ("SELECT window_start, ema(avg) AS avg FROM cpu_by_region", "no weight"),
        ("SELECT window_start, ema(agv, 0.1) AS avg FROM cpu_by_region", "did you mean `avg`?"),
        (
            "SELECT a.window_start, a.avg FROM cpu_by_region a JOIN memory_by_region b ON a.region = b.region",
            "the join is not by window",
        ),
        (
            "SELECT window_start, lag(a.avg) AS avg FROM cpu_by_region a JOIN memory_by_region b USING (window_start)",
            "look back in one rollup",
        ),
    ] {
        let error = compile_over(query(sql, "avg > 1"), &shape(), &[]).expect_err(sql);
        assert_eq!(error.key, "query", "{error}");
        assert!(error.to_string().contains(part), "{error}\nlacks {part}");
    }
}

#[test]
fn alerts_of_rules_that_are_gone_are_resolved() {
    let mut before = build(&[spec()]);
    take(&mut before, Close(&[(1, "eu", HIGH)]));
    let mut after = build(&[RuleSpec { name: "other".into(), ..spec() }]);
    after.restore(&before.snapshot()).unwrap();
    assert_eq!(emitted(&take(&mut after, Time(2))), "1 eu resolved since 1 (rule_changed)");
    assert_eq!(emitted(&take(&mut after, Time(3))), "");
    // One that cannot be used for a mistake in it is not gone.
    let mut mistaken = Threshold::new(Vec::new()).set_aside(["cpu_high".to_owned()]);
    mistaken.restore(&before.snapshot()).unwrap();
    assert_eq!(emitted(&take(&mut mistaken, Time(2))), "");
    let mut mended = build(&[spec()]);
    mended.restore(&mistaken.snapshot()).unwrap();
    assert_eq!(emitted(&take(&mut mended, Close(&[(3, "eu", LOW)]))), "3 eu resolved since 1");
}

proptest! {
    /// However event time comes in pieces, the same is emitted.
    #[test]
    fn pieces_do_not_matter(
        windows in prop::collection::vec(prop::option::of(prop::option::of(0u8..3)), 1..20), cut in prop::collection::vec(any::<bool>(), 20),
        hold in 0u64..3, keep in 0u64..3, missing in 0usize..4, m in prop::option::of(1u32..3),
    ) {
        let missing_data = [MissingData::Keep, MissingData::Ok, MissingData::Alert, MissingData::NoData][missing];
        let spec = RuleSpec { for_: minutes(hold), keep_firing_for: minutes(keep), missing_data, m_of_n: m.map(|m| (m, 3)), recovery: Some("avg < 60".into()), ..spec() };
        let value = |level: u8| [50.0, 80.0, 95.0][usize::from(level)];
        let all: Vec<Row> = (1..).zip(&windows).filter_map(|(minute, row)| Some((minute, "eu", row.as_ref()?.map(value)))).collect();
        let end = windows.len() as i64;
        let mut at_once = build(std::slice::from_ref(&spec));
        let (rows, ends) = batch(&all);
        let whole = at_once.apply(&[closed(&rows, &ends)], Some(end * MINUTE), StageTimes::default());
        let mut piecewise = build(&[spec]);
        let (mut pieces, mut from) = (Vec::new(), 0);
        for minute in 1..=end {
            if !cut[minute as usize - 1] && minute < end { continue; }
            let part: Vec<Row> = all.iter().copied().filter(|row| from < row.0 && row.0 <= minute).collect();
            let (rows, ends) = batch(&part);
            pieces.extend(piecewise.apply(&[closed(&rows, &ends)], Some(minute * MINUTE), StageTimes::default()));
            from = minute;
        }
        prop_assert_eq!(pieces, whole);
    }
}
