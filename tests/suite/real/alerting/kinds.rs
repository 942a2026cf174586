//! Every kind of rule, over the same points.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use alerts::Cause;
use libtest_mimic::Trial;
use tidemark_tests::wait_until;

use super::super::{PATIENCE, Servers};
use super::feed::{Feed, LOAD, deployment};
use super::ledger::{Ledger, told};
use super::shared_trials;

/// Metric, host and the value in each window; `None`: the host is silent.
type Series = (&'static str, &'static str, [Option<f64>; 8]);

const SERIES: [Series; 8] = [
    ("load", "a", each([50.0, 95.0, 95.0, 95.0, 70.0, 50.0, 50.0, 50.0])),
    ("load", "b", each([50.0, 95.0, 50.0, 95.0, 50.0, 50.0, 50.0, 50.0])),
    ("gaps", "g", [Some(95.0), Some(95.0), None, None, None, Some(95.0), Some(50.0), Some(50.0)]),
    ("gaps", "h", [Some(50.0), Some(50.0), None, None, Some(50.0), Some(50.0), Some(50.0), Some(50.0)]),
    // A counter that starts over in the sixth window.
    ("sent", "c", each([0.0, 100.0, 200.0, 1_000.0, 1_100.0, 50.0, 60.0, 70.0])),
    ("errors", "d", each([1.0, 1.0, 30.0, 1.0, 1.0, 1.0, 1.0, 1.0])),
    ("requests", "d", each([100.0, 2.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0])),
    ("last", "z", [None, None, None, None, None, None, None, Some(1.0)]),
];

const fn each(values: [f64; 8]) -> [Option<f64>; 8] {
    let mut points = [None; 8];
    let mut at = 0;
    while at < values.len() {
        points[at] = Some(values[at]);
        at += 1;
    }
    points
}

struct Kind {
    trial: &'static str,
    rule: &'static str,
    text: &'static str,
    /// What it has to say, host by host.
    expected: &'static [&'static str],
}

static KINDS: [Kind; 15] = [
    Kind {
        trial: "a_threshold_fires_once_it_has_held_for_its_time_and_a_shorter_one_is_never_told",
        rule: "Held",
        text: "rollup = \"load\"\ncondition = \"avg > 90\"\nfor = \"20s\"",
        expected: &[
            "a: 2 pending since 2",
            "a: 4 firing since 2",
            "a: 5 resolved since 2",
            "b: 2 pending since 2",
            "b: 3 inactive since 2",
            "b: 4 pending since 4",
            "b: 5 inactive since 4",
        ],
    },
    Kind {
        trial: "a_recovery_condition_ends_an_alert_and_what_lies_between_does_not",
        rule: "Recovering",
        text: "rollup = \"load\"\ncondition = \"avg > 90\"\nrecovery = \"avg < 60\"",
        expected: &[
            "a: 2 firing since 2",
            "a: 6 resolved since 2",
            "b: 2 firing since 2",
            "b: 3 resolved since 2",
            "b: 4 firing since 4",
            "b: 5 resolved since 4",
        ],
    },
    Kind {
        trial: "keep_firing_for_bridges_a_short_recovery",
        rule: "Kept",
        text: "rollup = \"load\"\ncondition = \"avg > 90\"\nkeep_firing_for = \"20s\"",
        expected: &[
            "a: 2 firing since 2",
            "a: 7 resolved since 2",
            "b: 2 firing since 2",
            "b: 7 resolved since 2",
        ],
    },
    Kind {
        trial: "two_of_three_windows_are_enough_where_the_rule_says_so",
        rule: "TwoOfThree",
        text: "rollup = \"load\"\ncondition = \"avg > 90\"\nwindows = \"2 of 3\"",
        expected: &[
            "a: 3 firing since 3",
            "a: 6 resolved since 3",
            "b: 4 firing since 4",
            "b: 5 resolved since 4",
        ],
    },
    Kind {
        trial: "a_query_smooths_by_a_moving_average",
        rule: "Smooth",
        text: "query = \"SELECT window_start, host, ema(avg, 0.5) AS smooth FROM load\"\ncondition = \"smooth > 80\"",
        expected: &["a: 3 firing since 3", "a: 5 resolved since 3"],
    },
    Kind {
        trial: "a_query_takes_the_rate_of_a_counter_that_may_begin_anew",
        rule: "Rate",
        text: "query = \"SELECT window_start, host, rate(avg) AS rate FROM sent\"\ncondition = \"rate > 50\"",
        expected: &["c: 4 firing since 4", "c: 5 resolved since 4"],
    },
    Kind {
        trial: "a_query_compares_with_the_window_before",
        rule: "Jump",
        text: "query = \"SELECT *, lag(avg) AS before FROM load\"\ncondition = \"avg > 1.5 * before\"",
        expected: &[
            "a: 2 firing since 2",
            "a: 3 resolved since 2",
            "b: 2 firing since 2",
            "b: 3 resolved since 2",
            "b: 4 firing since 4",
            "b: 5 resolved since 4",
        ],
    },
    Kind {
        trial: "a_query_takes_the_ratio_of_two_rollups",
        rule: "Ratio",
        text: "query = \"SELECT window_start, host, e.avg / r.avg AS ratio FROM errors e JOIN requests r USING (window_start, host)\"\ncondition = \"ratio > 0.25\"",
        expected: &["d: 2 firing since 2", "d: 4 resolved since 2"],
    },
    Kind {
        trial: "a_dead_mans_alert_fires_after_silence_and_ends_with_a_row",
        rule: "DeadMan",
        text: "rollup = \"gaps\"\ndead_man = \"20s\"",
        expected: &[
            "g: 3 pending since 3",
            "g: 4 firing since 3",
            "g: 6 resolved since 3",
            "h: 3 pending since 3",
            "h: 4 firing since 3",
            "h: 5 resolved since 3",
        ],
    },
    Kind {
        trial: "missing_data_keep_what_an_alert_is",
        rule: "MissingKeep",
        text: "rollup = \"gaps\"\ncondition = \"avg > 90\"\nmissing_data = \"keep\"",
        expected: &["g: 1 firing since 1", "g: 7 resolved since 1"],
    },
    Kind {
        trial: "missing_data_are_ok_where_the_rule_says_so",
        rule: "MissingOk",
        text: "rollup = \"gaps\"\ncondition = \"avg > 90\"\nmissing_data = \"ok\"",
        expected: &[
            "g: 1 firing since 1",
            "g: 3 resolved since 1",
            "g: 6 firing since 6",
            "g: 7 resolved since 6",
        ],
    },
    Kind {
        trial: "missing_data_alert_where_the_rule_says_so",
        rule: "MissingAlert",
        text: "rollup = \"gaps\"\ncondition = \"avg > 90\"\nmissing_data = \"alert\"",
        expected: &[
            "g: 1 firing since 1",
            "g: 7 resolved since 1",
            "h: 3 firing since 3",
            "h: 5 resolved since 3",
        ],
    },
    Kind {
        trial: "missing_data_have_an_alert_of_their_own_where_the_rule_says_so",
        rule: "MissingNoData",
        text: "rollup = \"gaps\"\ncondition = \"avg > 90\"\nmissing_data = \"no_data\"",
        expected: &[
            "g no_data: 3 firing since 3",
            "g no_data: 6 resolved since 3",
            "g: 1 firing since 1",
            "g: 7 resolved since 1",
            "h no_data: 3 firing since 3",
            "h no_data: 5 resolved since 3",
        ],
    },
    Kind {
        trial: "a_rule_of_rules_fires_while_all_or_any_of_them_do",
        rule: "Either",
        text: "any = [\"Held\", \"TwoOfThree\"]",
        expected: &[
            "a: 3 firing since 3",
            "a: 6 resolved since 3",
            "b: 4 firing since 4",
            "b: 5 resolved since 4",
        ],
    },
    Kind {
        trial: "a_rule_of_rules_does_not_fire_while_one_does_that_must_not",
        rule: "Without",
        text: "all = [\"Recovering\", \"Kept\"]\nnone = [\"Held\"]",
        expected: &[
            "a: 2 firing since 2",
            "a: 4 resolved since 2",
            "a: 5 firing since 5",
            "a: 6 resolved since 5",
            "b: 2 firing since 2",
            "b: 3 resolved since 2",
            "b: 4 firing since 4",
            "b: 5 resolved since 4",
        ],
    },
];

/// By rule: what it has said, and why.
struct Said(BTreeMap<String, Vec<(String, Cause)>>);

pub(super) fn trials() -> Vec<Trial> {
    shared_trials(run, KINDS.iter().map(|kind| (kind.trial, move |said: &Said| check(kind, said))))
}

fn check(kind: &Kind, said: &Said) {
    let said = said.0.get(kind.rule).map_or(&[][..], Vec::as_slice);
    let mut texts: Vec<&str> = said.iter().map(|(text, _)| text.as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, kind.expected, "{}: {}", kind.rule, kind.text);
    for (text, cause) in said {
        // Where a row is missing, the message says that it is for this.
        let of_data = kind.rule == "DeadMan" || text.contains("no_data") || is_silent(text);
        let expected = if of_data { Cause::NoData } else { Cause::Condition };
        assert_eq!(*cause, expected, "{}: {text}", kind.rule);
    }
}

/// Whether the host has no point in the window that made the change.
fn is_silent(text: &str) -> bool {
    let (host, rest) = text.split_once(": ").unwrap();
    let window: usize = rest.split(' ').next().unwrap().parse().unwrap();
    SERIES.iter().any(|(_, name, values)| *name == host && values[window - 1].is_none())
}

fn run(servers: &Servers) -> Said {
    let topic = servers.kafka.unique_topic("kinds", 1);
    let deployment = deployment(servers, "kinds", &topic, 1);
    let rollups = ["load", "gaps", "sent", "errors", "requests", "last"];
    let sql: Vec<(&str, String)> = rollups
        .iter()
        .map(|name| {
            (*name, LOAD.replace(" load ", &format!(" {name} ")).replace("'load'", &format!("'{name}'")))
        })
        .collect();
    let sql: Vec<(&str, &str)> = sql.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut tidemark = deployment.process("data", &sql);
    let mut rules = String::new();
    for Kind { rule, text, .. } in &KINDS {
        let _ = writeln!(rules, "[[rule]]\nname = \"{rule}\"\n{text}\n");
    }
    // Once it fires, everything before has been said: there is one partition, and it is in the last
    // window.
    rules.push_str("[[rule]]\nname = \"Last\"\nrollup = \"last\"\ncondition = \"avg > 0\"\n");
    tidemark.write("alerts.toml", &rules);
    tidemark.call(&["topics", "create"]);
    let mut feed = Feed::default();
    for window in 1..=8_i64 {
        for (name, host, values) in &SERIES {
            if let Some(value) = values[usize::try_from(window - 1).unwrap()] {
                feed = feed.point(window, name, "kinds", host, value);
            }
        }
    }
    feed.close(8).send(servers, &topic);
    tidemark.run("ingest,rollup");
    let ledger = Ledger::new(servers.kafka, &deployment.id);
    let transitions = wait_until(PATIENCE, "the last rule to fire", || {
        let transitions = ledger.transitions();
        let is_last = transitions.iter().any(|transition| transition.rule == "Last");
        if is_last { Ok(transitions) } else { Err(format!("{transitions:#?}")) }
    });
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let mut said: BTreeMap<String, Vec<(String, Cause)>> = BTreeMap::new();
    for transition in transitions {
        said.entry(transition.rule.clone()).or_default().push((told(&transition), transition.cause));
    }
    Said(said)
}
