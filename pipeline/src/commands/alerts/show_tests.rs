use alerts::{StageTimes, Status};

use super::*;
use crate::commands::alerts::why::tests::{Stage, transition};

const MINUTE: i64 = 60_000_000_000;

/// Host a fired, was notified twice, and is over. Its dispatches.
fn told_twice() -> (Stage, Vec<String>) {
    let mut stage = Stage::new();
    let mut fired = transition("cpu_high", "a", Status::Firing, 6);
    fired.times = StageTimes {
        sample: Some(6 * MINUTE - 1),
        ingested: Some(6 * MINUTE),
        evaluated: Some(6 * MINUTE + 1),
    };
    let mut dispatches = stage.emit(&fired);
    stage.evidence.dispatcher.failed(&dispatches[0], "status 503", false, 7 * MINUTE);
    stage.evidence.dispatcher.sent(&dispatches[0], 8 * MINUTE);
    stage.note();
    dispatches
        .extend(stage.emit(&Transition { revision: 1, ..transition("cpu_high", "a", Status::Resolved, 9) }));
    stage.evidence.dispatcher.sent(&dispatches[1], 10 * MINUTE);
    stage.note();
    (stage, dispatches)
}

#[test]
fn an_incident_with_everything_in_order_of_time() {
    let (stage, dispatches) = told_twice();
    let shown = show(&stage.evidence, "incident-cpu").expect("there is one");
    assert_eq!(
        show_text(&shown),
        format!(
            "\
incident incident-cpu_high-a of cpu_high
  1970-01-01T00:06:00Z received
  1970-01-01T00:06:00Z dispatched oncall
    dispatch {first}
  1970-01-01T00:06:00.000000001Z {{host=\"a\"}} firing by the window from 1970-01-01T00:05:00Z to 1970-01-01T00:06:00Z with avg=95.5 (condition)
    transition cpu_high-a-firing-6, rule hash, newest sample 1970-01-01T00:05:59.999999999Z, ingested 1970-01-01T00:06:00Z, evaluated 1970-01-01T00:06:00.000000001Z, first delivered 1970-01-01T00:08:00Z
  1970-01-01T00:07:00Z attempted oncall: status 503
    dispatch {first}
  1970-01-01T00:08:00Z delivered oncall
    dispatch {first}
  1970-01-01T00:09:00Z {{host=\"a\"}} resolved by the window from 1970-01-01T00:08:00Z to 1970-01-01T00:09:00Z with avg=95.5 (condition), revision 1
    transition cpu_high-a-resolved-9, rule hash, first delivered 1970-01-01T00:10:00Z
  1970-01-01T00:09:00Z received
  1970-01-01T00:09:00Z dispatched oncall
    dispatch {second}
  1970-01-01T00:10:00Z delivered oncall
    dispatch {second}",
            first = dispatches[0],
            second = dispatches[1],
        )
    );
}

/// What is shown: incidents, a dispatch, or the beginning of the problem.
fn by(stage: &Stage, prefix: &str) -> String {
    match show(&stage.evidence, prefix) {
        Ok(Shown::Incidents(incidents)) => {
            let incidents: Vec<&str> = incidents.iter().map(|incident| incident.incident.as_str()).collect();
            incidents.join(" ")
        }
        Ok(Shown::Dispatch { dispatch, ledger }) => format!("{dispatch} with {} entries", ledger.len()),
        Err(problem) => problem.split(':').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn ids_are_those_of_incidents_transitions_and_dispatches() {
    let (mut stage, dispatches) = told_twice();
    stage.emit(&transition("cpu_high", "b", Status::Firing, 6));
    for (prefix, expected) in [
        ("incident-cpu_high-a", "incident-cpu_high-a"),
        ("cpu_high-b-fir", "incident-cpu_high-b"),
        ("incident", "2 incidents and dispatches begin with `incident`"),
        ("x", "nothing is known by `x`"),
        ("", "nothing is known by ``"),
    ] {
        assert_eq!(by(&stage, prefix), expected, "{prefix}");
    }
    // What the reader of the ledger finds by the id of a dispatch.
    let ids = &mut stage.evidence.ledger.ids;
    ids.dispatches.insert(dispatches[0].clone());
    ids.incidents.insert("incident-cpu_high-a".to_owned());
    assert_eq!(by(&stage, &dispatches[0]), "incident-cpu_high-a");
}

#[test]
fn a_dispatch_about_several_incidents_and_one_that_repeats() {
    let (mut stage, dispatches) = told_twice();
    let evidence = &mut stage.evidence;
    evidence.ledger.ids.dispatches.insert(dispatches[0].clone());
    let mut other = evidence.ledger.entries[1].clone();
    assert_eq!(other.dispatch.as_ref(), Some(&dispatches[0]));
    other.incident = "another".to_owned();
    evidence.ledger.push(other);
    evidence.ledger.ids.incidents.extend(["another".to_owned(), "incident-cpu_high-a".to_owned()]);
    assert_eq!(by(&stage, &dispatches[0]), "another incident-cpu_high-a");

    let (mut stage, _) = told_twice();
    let ledger = &mut stage.evidence.ledger;
    ledger.entries.truncate(1);
    ledger.entries[0] = Entry {
        dispatch: Some("repeated".to_owned()),
        incident: String::new(),
        what: What::Delivered,
        ..ledger.entries[0].clone()
    };
    ledger.ids.dispatches.insert("repeated".to_owned());
    assert_eq!(by(&stage, "repea"), "repeated with 1 entries");
    let text = show_text(&show(&stage.evidence, "repea").expect("it is known"));
    assert!(text.starts_with("dispatch repeated, which tells again what is known\n  1970-"), "{text}");
}

#[test]
fn lists_and_silences_as_text() {
    let (mut stage, _) = told_twice();
    assert_eq!(
        list_text(&stage.evidence, &list(&stage.evidence, None, None)),
        "no alert is pending or fires"
    );
    let fired =
        Transition { summary: "CPU of b".to_owned(), ..transition("cpu_high", "b", Status::Firing, 6) };
    let sent = stage.emit(&fired);
    stage.evidence.dispatcher.sent(&sent[0], 10 * MINUTE);
    stage.note();
    stage.emit(&transition("host_down", "c", Status::Pending, 5));
    let text = |rule, status| list_text(&stage.evidence, &list(&stage.evidence, rule, status));
    let cpu = "firing   cpu_high{host=\"b\"} warning since 1970-01-01T00:01:00Z, incident incident-cpu_high-b\n  CPU of \
               b\n  `oncall` was notified at 1970-01-01T00:10:00Z";
    assert_eq!(text(Some("cpu_high"), None), cpu);
    assert_eq!(text(None, Some("firing")), cpu);
    assert!(text(None, None).contains("\npending  host_down{host=\"c\"}"));

    let silence = |id: &str, from: i64, to: i64| {
        let silence = Silence {
            id: id.to_owned(),
            matchers: vec![alerts::dispatch::Matcher::parse("host=\"a\"").expect("a matcher")],
            starts_at: from * MINUTE,
            ends_at: to * MINUTE,
            created_by: "ada".to_owned(),
            comment: "disks".to_owned(),
            created_at: 0,
        };
        (format!("silence/{id}"), Command::Silence(silence))
    };
    let commands = BTreeMap::from([silence("a", 20, 30), silence("b", 0, 10), silence("c", 5, 11)]);
    let states: Vec<(String, &str)> = silences(&commands, 10 * MINUTE)
        .iter()
        .map(|shown| (shown.silence.id.clone(), shown.state))
        .collect();
    assert_eq!(states, [("b".to_owned(), "over"), ("c".to_owned(), "active"), ("a".to_owned(), "to come")]);
    assert_eq!(
        silences_text(&silences(&BTreeMap::from([silence("c", 5, 11)]), 10 * MINUTE)),
        "c active from 1970-01-01T00:05:00Z to 1970-01-01T00:11:00Z by ada: disks\n  host=\"a\""
    );
    assert_eq!(silences_text(&[]), "no silences");
}
