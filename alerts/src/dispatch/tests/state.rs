//! Questions to the state, and restarts under another policy.

use super::*;

fn policy() -> Policy {
    Policy {
        routes: vec![route("all", "", &["ops", "boss"], GroupBy::Labels(vec!["region".into()]))],
        receivers: receivers(&["ops", "boss", "desk"]),
        default_repeat: 60 * MINUTE,
        ..Policy::default()
    }
}

fn records(dispatcher: &mut Dispatcher) -> BTreeMap<String, Vec<u8>> {
    dispatcher.changes().into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

#[test]
fn standing_says_why() {
    let mut s = Simulation::new(policy());
    let of = |s: &Simulation, tags: &str| {
        let standings = s.dispatcher.standing("cpu", &labels(tags), s.now * SECOND);
        standings.into_iter().map(|standing| (standing.receiver, standing.state)).collect::<Vec<_>>()
    };
    s.is_away = true;
    s.fire("cpu", "region=eu", "A");
    let waiting = State::Waiting { until: Some(30 * SECOND) };
    assert_eq!(of(&s, "region=eu"), [("boss".to_owned(), waiting.clone()), ("ops".to_owned(), waiting)]);
    s.until(30);
    s.fail(false);
    let [(_, State::Sending { attempts: 1, last_error, .. }), _] = &of(&s, "region=eu")[..] else {
        panic!("{:?}", of(&s, "region=eu"));
    };
    assert_eq!(last_error.as_deref(), Some("refused"));
    s.back();
    assert!(matches!(&of(&s, "region=eu")[0].1, State::Notified { at, .. } if *at == 30 * SECOND));
    s.command("k", Some(&acknowledge("A")));
    assert_eq!(of(&s, "region=eu")[0].1, State::Acknowledged { by: "ann".into() });

    s.command("s", Some(&silence("S", "region=us", 0, 500)));
    s.fire("cpu", "region=us", "B");
    s.until(100);
    assert_eq!(of(&s, "region=us")[1].1, State::Silenced { id: "S".into(), until: Some(500 * SECOND) });
    assert_eq!(of(&s, "region=none"), []);
}

#[test]
fn commands_are_dropped_when_they_have_no_effect_any_more() {
    let mut s = Simulation::new(policy());
    s.command("s", Some(&silence("S", "region=us", 0, 500)));
    s.command("k", Some(&acknowledge("A")));
    s.fire("cpu", "region=eu", "A");
    let mut state = records(&mut s.dispatcher);
    assert!(state.contains_key("command/s") && state.contains_key("command/k"));
    s.until(5000);
    s.resolve("cpu", "region=eu", "A");
    let changes = s.dispatcher.changes();
    assert!(changes.contains(&("command/s".into(), None)));
    assert!(changes.iter().any(|(key, value)| key == "command/k" && value.is_some()));
    state.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    s.until(20_000);
    let changes = s.dispatcher.changes();
    assert!(changes.contains(&("command/k".into(), None)), "{changes:?}");
    assert!(s.dispatcher.groups.is_empty() && s.dispatcher.alerts.is_empty());
}

#[test]
fn a_new_policy_takes_over_what_fires() {
    let mut s = Simulation::new(policy());
    s.fire("cpu", "region=eu", "A");
    s.until(40);
    s.is_away = true;
    s.fire("cpu", "region=us", "B");
    s.until(80);
    let state = records(&mut s.dispatcher);

    // `boss` is gone, `desk` is new, and the route has another name.
    let mut other = policy();
    other.receivers.remove("boss");
    other.routes[0] = route("other", "", &["desk", "ops"], GroupBy::None);
    s.dispatcher = Dispatcher::restore(other, state.into_iter()).unwrap();
    s.lines.clear();
    s.stuck.clear();
    s.is_away = false;
    s.dispatcher.resume();
    s.collect();
    s.until(81);
    s.resolve("cpu", "region=eu", "A");
    let mut lines = std::mem::take(&mut s.lines);
    lines.sort();
    assert_eq!(
        lines,
        [
            "80: GaveUp boss A/firing@0",
            "80: GaveUp boss B/firing@40",
            "80: GaveUp boss dispatch",
            "80: send desk changed A:firing[A/firing@0]",
            "80: send desk changed B:firing[B/firing@40]",
            "80: send ops changed B:firing[B/firing@40]",
            "81: send desk changed A:resolved[A/resolved@81]",
            "81: send ops changed A:resolved[A/resolved@81]",
        ]
    );
}

/// A process died between sending and hearing the answer. Were the next one to make one
/// notification of this and what came since, under a new key, the receiver would be notified twice.
#[test]
fn what_was_under_way_stays_what_it_is_after_a_restart() {
    let mut policy = policy();
    policy.routes[0] = route("all", "", &["ops"], GroupBy::None);
    let mut s = Simulation::new(policy.clone());
    s.is_away = true;
    s.fire("cpu", "region=eu", "A");
    s.check(&["0: send ops changed A:firing[A/firing@0]"]);
    let state = records(&mut s.dispatcher);
    s.dispatcher = Dispatcher::restore(policy, state.into_iter()).unwrap();
    s.stuck.clear();
    s.dispatcher.resume();
    s.collect();
    s.until(5);
    s.resolve("cpu", "region=eu", "A");
    s.fail(false);
    s.check(&["0: send ops changed A:firing[A/firing@0]"]);
    s.back();
    s.check(&["5: send ops changed A:resolved[A/resolved@5]"]);
}

#[test]
fn damaged_records_are_named() {
    let cases = [
        ("alert/xyz", "{}", "`alert/xyz`"),
        ("other/1", "{}", "`other/1`"),
        ("command/a", "{", "`command/a`"),
        ("dispatch/a", "{}", "`dispatch/a`"),
        ("member/1/2", "{\"open\":null,\"untold\":[]}", "its group is not there"),
    ];
    for (key, value, expected) in cases {
        let records = [(key.to_owned(), value.as_bytes().to_vec())].into_iter();
        let error = Dispatcher::restore(policy(), records).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A count of steps, not of seconds: a change of one alert looks at no other.
#[test]
fn a_transition_touches_its_own_groups_only() {
    let mut policy = policy();
    policy.routes[0].group_by = GroupBy::All;
    let mut dispatcher = Dispatcher::new(policy);
    for number in 0..2000 {
        dispatcher.transition(
            &transition("cpu", &format!("host={number}"), &format!("I{number}"), Status::Firing, 0),
            0,
        );
    }
    dispatcher.changes();
    dispatcher.transition(&transition("cpu", "host=new", "new", Status::Firing, 0), 0);
    // The alert, and a group and a member for each of the two receivers.
    assert_eq!(dispatcher.changes().len(), 5);
}

/// Who takes a command out of its topic, as it is over, reads that back as a command.
#[test]
fn a_command_that_is_over_is_a_change_once() {
    let mut s = Simulation::new(policy());
    s.command("s", Some(&silence("S", "region=us", 0, 500)));
    s.dispatcher.changes();
    s.command("s", None);
    assert_eq!(s.dispatcher.changes(), [("command/s".to_owned(), None)]);
    s.command("s", None);
    assert_eq!(s.dispatcher.changes(), []);
}
