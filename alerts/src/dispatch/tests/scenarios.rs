use super::*;

fn one(route: Route) -> Policy {
    Policy {
        routes: vec![route],
        receivers: receivers(&["ops", "boss", "pager"]),
        default_repeat: 60 * MINUTE,
        ..Policy::default()
    }
}

fn alone() -> Policy {
    one(route("all", "", &["ops"], GroupBy::None))
}

fn by_region() -> Policy {
    one(route("all", "", &["ops"], GroupBy::Labels(vec!["region".into()])))
}

#[test]
fn groups_wait_for_others_and_tell_changes_at_their_interval() {
    let mut s = Simulation::new(by_region());
    s.fire("cpu", "region=eu host=a", "A");
    s.until(10);
    s.fire("cpu", "region=eu host=b", "B");
    s.fire("cpu", "region=us host=c", "C");
    s.until(100);
    s.check(&[
        "30: send ops changed A:firing[A/firing@0], B:firing[B/firing@10]",
        "40: send ops changed C:firing[C/firing@10]",
    ]);
    s.resolve("cpu", "region=eu host=a", "A");
    s.until(329);
    s.check(&[]);
    s.until(330);
    s.check(&["330: send ops changed A:resolved[A/resolved@100]"]);
    // What begins and ends between two flushes is notified once.
    s.fire("cpu", "region=eu host=a", "A2");
    s.until(400);
    s.resolve("cpu", "region=eu host=a", "A2");
    s.until(700);
    s.check(&["630: send ops changed A2:resolved[A2/firing@330 A2/resolved@400]"]);
}

#[test]
fn what_happens_at_one_moment_after_a_quiet_interval_is_told_together() {
    let mut s = Simulation::new(by_region());
    s.fire("cpu", "region=eu host=a", "A");
    s.until(1000);
    s.check(&["30: send ops changed A:firing[A/firing@0]"]);
    s.fire("cpu", "region=eu host=b", "B");
    s.fire("cpu", "region=eu host=c", "C");
    s.until(1300);
    s.check(&["1030: send ops changed B:firing[B/firing@1000], C:firing[C/firing@1000]"]);
}

#[test]
fn alerts_alone_are_told_at_once_and_repeated_while_they_fire() {
    let mut s = Simulation::new(alone());
    s.fire("cpu", "host=a", "A");
    s.check(&["0: send ops changed A:firing[A/firing@0]"]);
    s.until(7300);
    s.check(&["3600: send ops repeated A:firing[]", "7200: send ops repeated A:firing[]"]);
    s.resolve("cpu", "host=a", "A");
    s.until(20_000);
    s.check(&["7300: send ops changed A:resolved[A/resolved@7300]"]);
    assert_eq!(s.dispatcher.next_due(), None, "nothing is left");
}

#[test]
fn the_first_route_takes_the_alert_unless_it_goes_on() {
    let mut policy = one(route("pages", "severity=page", &["boss", "ops"], GroupBy::None));
    policy.routes[0].goes_on = true;
    policy.routes.push(route("cpu", "alertname=~\"cpu|down\"", &["ops"], GroupBy::None));
    policy.routes.push(route("rest", "host!=\"\"", &["boss"], GroupBy::None));
    let mut s = Simulation::new(policy);
    s.fire("down", "host=a", "A");
    s.fire("cpu", "host=a", "B");
    s.fire("disk", "host=a", "C");
    s.fire("disk", "", "D");
    let mut named = transition("disk", "", "E", Status::Firing, 0);
    named.labels = labels("disk=1");
    named.receivers = vec!["ops".into(), "nobody".into()];
    s.change(&named);
    s.resolve("disk", "", "D");
    s.check(&[
        "0: send ops changed A:firing[A/firing@0]",
        "0: send boss changed A:firing[A/firing@0]",
        "0: send ops changed B:firing[B/firing@0]",
        "0: send boss changed C:firing[C/firing@0]",
        "0: NotRouted - D/firing@0",
        "0: NotRouted nobody E/firing@0",
        "0: send ops changed E:firing[E/firing@0]",
        "0: NotRouted - D/resolved@0",
    ]);
}

#[test]
fn what_is_silenced_is_told_when_the_silence_ends_or_never() {
    let mut s = Simulation::new(alone());
    s.command("s", Some(&silence("S", "host=~\"a|b\"", 0, 100)));
    s.fire("cpu", "host=a", "A");
    s.fire("cpu", "host=b", "B");
    s.until(50);
    s.resolve("cpu", "host=a", "A");
    s.until(200);
    s.check(&[
        "0: Silenced ops A/firing@0 by S",
        "0: Silenced ops B/firing@0 by S",
        "50: EndedUntold ops A/firing@0 by S",
        "50: EndedUntold ops A/resolved@50 by S",
        "100: send ops changed B:firing[B/firing@0]",
    ]);
    // Notified before it was silenced: it is not repeated, its end is notified.
    s.command("t", Some(&silence("T", "host=b", 200, 100_000)));
    s.until(9000);
    s.check(&[]);
    s.resolve("cpu", "host=b", "B");
    s.check(&["9000: send ops changed B:resolved[B/resolved@9000]"]);
    // Taken back by hand.
    s.fire("cpu", "host=b", "C");
    s.until(9100);
    s.command("t", None);
    s.check(&["9000: Silenced ops C/firing@9000 by T", "9100: send ops changed C:firing[C/firing@9000]"]);
    // One without matchers silences nothing.
    s.command("u", Some(&silence("U", "", 0, 100_000)));
    s.fire("cpu", "host=d", "D");
    s.check(&["9100: send ops changed D:firing[D/firing@9100]"]);
}

#[test]
fn a_source_inhibits_its_targets_until_it_is_over() {
    let mut policy = alone();
    policy.inhibitions = vec![Inhibition {
        source: matchers("severity=page"),
        target: matchers("alertname=~\"cpu|down\""),
        equal: vec!["host".into()],
    }];
    let mut s = Simulation::new(policy);
    // Both are sources and targets: they do not keep each other from being notified.
    s.fire("down", "host=a n=1", "D1");
    s.fire("down", "host=a n=2", "D2");
    s.fire("cpu", "host=a", "A");
    s.fire("cpu", "host=b", "B");
    s.until(10);
    s.resolve("down", "host=a n=1", "D1");
    s.until(20);
    s.resolve("down", "host=a n=2", "D2");
    // The name of the source is one of two.
    for line in &mut s.lines {
        line.truncate(line.find(" by ").unwrap_or(line.len()));
    }
    s.check(&[
        "0: send ops changed D1:firing[D1/firing@0]",
        "0: send ops changed D2:firing[D2/firing@0]",
        "0: Inhibited ops A/firing@0",
        "0: send ops changed B:firing[B/firing@0]",
        "10: send ops changed D1:resolved[D1/resolved@10]",
        "20: send ops changed D2:resolved[D2/resolved@20]",
        "20: send ops changed A:firing[A/firing@0]",
    ]);
}

#[test]
fn a_silenced_source_inhibits_all_the_same() {
    let mut policy = alone();
    policy.inhibitions = vec![Inhibition {
        source: matchers("alertname=down"),
        target: matchers("alertname=cpu"),
        equal: vec!["host".into()],
    }];
    let mut s = Simulation::new(policy);
    s.command("s", Some(&silence("S", "alertname=down", 0, 1000)));
    s.fire("down", "host=a", "D");
    s.fire("cpu", "host=a", "A");
    s.resolve("down", "host=a", "D");
    s.check(&[
        "0: Silenced ops D/firing@0 by S",
        "0: Inhibited ops A/firing@0 by down host=a",
        "0: EndedUntold ops D/firing@0 by S",
        "0: EndedUntold ops D/resolved@0 by S",
        "0: send ops changed A:firing[A/firing@0]",
    ]);
}

#[test]
fn a_muted_route_tells_after_its_window() {
    let mut policy = alone();
    policy.routes[0].mutes = vec!["night".into()];
    let window = Window { times: vec![TimeRange::parse("00:00-01:00").unwrap()], ..Window::default() };
    policy.mutes = vec![Mute { name: "night".into(), zone: chrono_tz::UTC, windows: vec![window] }];
    let mut s = Simulation::new(policy);
    s.until(60);
    s.fire("cpu", "host=a", "A");
    s.until(4000);
    s.check(&["60: Muted ops A/firing@60 by night", "3600: send ops changed A:firing[A/firing@60]"]);
}

fn escalating() -> Policy {
    let mut policy = alone();
    policy.routes[0].repeat_interval = 0;
    policy.routes[0].escalations = vec![
        Escalation { after: 15 * MINUTE, receivers: vec!["boss".into(), "ops".into()] },
        Escalation { after: 30 * MINUTE, receivers: vec!["pager".into()] },
    ];
    policy
}

#[test]
fn what_nobody_takes_on_is_escalated_and_its_end_is_told() {
    let mut s = Simulation::new(escalating());
    s.fire("cpu", "host=a", "A");
    s.until(1000);
    s.resolve("cpu", "host=a", "A");
    s.until(10_000);
    let mut lines = std::mem::take(&mut s.lines);
    lines[1..3].sort();
    let sends = lines.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        sends[0..3],
        [
            "0: send ops changed A:firing[A/firing@0]",
            "900: send boss escalated A:firing[A/firing@0]",
            "900: send ops escalated A:firing[]",
        ]
    );
    let mut ends = sends[3..].to_vec();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            "1000: EndedUntold pager A/firing@0",
            "1000: EndedUntold pager A/resolved@1000",
            "1000: send boss changed A:resolved[A/resolved@1000]",
            "1000: send ops changed A:resolved[A/resolved@1000]",
        ]
    );
    assert_eq!(s.dispatcher.next_due(), None, "nothing is left");
}

#[test]
fn what_is_acknowledged_is_neither_repeated_nor_escalated() {
    let mut policy = escalating();
    policy.routes[0].repeat_interval = 60 * MINUTE;
    policy.routes[0].escalations.truncate(1);
    policy.routes[0].escalations[0].receivers.truncate(1);
    let mut s = Simulation::new(policy);
    s.fire("cpu", "host=a", "A");
    s.until(10);
    s.command("k", Some(&acknowledge("A")));
    s.until(8000);
    s.check(&[
        "0: send ops changed A:firing[A/firing@0]",
        "10: Acknowledged - A/firing@0 by ann",
        "900: Acknowledged boss A/firing@0 by ann",
    ]);
    s.command("k", None);
    s.check(&["8000: send boss escalated A:firing[A/firing@0]"]);
    s.command("k", Some(&acknowledge("A")));
    s.resolve("cpu", "host=a", "A");
    s.fire("cpu", "host=a", "B");
    s.until(8901);
    let mut lines = std::mem::take(&mut s.lines);
    lines.sort();
    assert_eq!(
        lines,
        [
            "8000: Acknowledged - A/firing@0 by ann",
            "8000: send boss changed A:resolved[A/resolved@8000]",
            "8000: send ops changed A:resolved[A/resolved@8000]",
            "8000: send ops changed B:firing[B/firing@8000]",
            "8900: send boss escalated B:firing[B/firing@8000]",
        ]
    );
}

#[test]
fn an_incident_while_the_receiver_is_away_is_told_once() {
    let mut s = Simulation::new(alone());
    s.is_away = true;
    s.fire("cpu", "host=a", "A");
    s.until(60);
    s.fail(false);
    s.resolve("cpu", "host=a", "A");
    s.until(120);
    s.fire("cpu", "host=a", "B");
    s.check(&["0: send ops changed A:firing[A/firing@0]"]);
    s.fail(false);
    s.check(&["120: replace ops changed A:resolved[A/firing@0 A/resolved@60], B:firing[B/firing@120]"]);
    let head = s.dispatcher.groups.values().next().unwrap().queue.head().unwrap();
    assert_eq!(
        head.dispatch.notes,
        [
            "sent late, the receiver was away: cpu host=a began 1970-01-01T00:01:00Z, ended 1970-01-01T00:01:00Z"
        ]
    );
    // Another failure changes nothing: there is nothing after it.
    s.fail(false);
    s.back();
    s.resolve("cpu", "host=a", "B");
    s.check(&["120: send ops changed B:resolved[B/resolved@120]"]);
}

#[test]
fn what_the_receiver_may_have_is_never_replaced() {
    let mut s = Simulation::new(alone());
    s.is_away = true;
    s.fire("cpu", "host=a", "A");
    s.fail(true);
    s.resolve("cpu", "host=a", "A");
    s.fire("cpu", "host=a", "B");
    s.fail(false);
    s.back();
    s.check(&[
        "0: send ops changed A:firing[A/firing@0]",
        "0: send ops changed A:resolved[A/resolved@0], B:firing[B/firing@0]",
    ]);
}

#[test]
fn a_queue_stays_short_while_an_attempt_lasts() {
    let mut s = Simulation::new(alone());
    s.is_away = true;
    for number in 0..1000 {
        s.fire("cpu", "host=a", &format!("I{number}"));
        s.resolve("cpu", "host=a", &format!("I{number}"));
        let queue = &s.dispatcher.groups.values().next().unwrap().queue;
        assert!(queue.iter().count() < 64);
        assert_eq!(queue.head().unwrap().dispatch.alerts[0].transition.id, "I0/firing@0");
    }
    let queue = &s.dispatcher.groups.values().next().unwrap().queue;
    let alerts = queue.iter().flat_map(|queued| &queued.dispatch.alerts);
    assert_eq!(alerts.map(|alert| alert.transitions.len()).sum::<usize>(), 2000);
}

#[test]
fn receivers_that_take_no_resolved_alerts_get_none() {
    let mut s = Simulation::new(one(route("all", "", &["pager"], GroupBy::None)));
    s.fire("cpu", "host=a", "A");
    s.resolve("cpu", "host=a", "A");
    s.check(&["0: send pager changed A:firing[A/firing@0]", "0: NotSent pager A/resolved@0"]);
    assert!(s.dispatcher.groups.is_empty());
}

#[test]
fn corrections_are_told_and_confirmations_are_not() {
    let mut s = Simulation::new(alone());
    let mut early = transition("cpu", "host=a", "A", Status::Firing, 0);
    early.provisional = true;
    s.change(&early);
    s.until(60);
    s.fire("cpu", "host=a", "A");
    s.check(&["0: send ops changed A:firing[A/firing@0]", "60: Confirmed ops A/firing@60"]);
    s.resolve("cpu", "host=a", "A");
    s.until(120);
    let mut withdrawn = transition("cpu", "host=a", "A", Status::Resolved, 120);
    withdrawn.cause = Cause::Correction;
    s.change(&withdrawn);
    s.check(&[
        "60: send ops changed A:resolved[A/resolved@60]",
        "120: send ops changed A:resolved[A/resolved@120]",
    ]);
    // Not one that was never heard of.
    s.resolve("cpu", "host=a", "Z");
    s.check(&["120: EndedUntold - Z/resolved@120"]);

    let mut s = Simulation::new(by_region());
    s.change(&early);
    withdrawn.id = "A/withdrawn".into();
    s.change(&withdrawn);
    s.until(1000);
    s.check(&["0: EndedUntold ops A/firing@0", "0: EndedUntold ops A/withdrawn"]);
}

#[test]
fn an_incident_that_is_never_ended_is_ended_by_the_next() {
    let mut s = Simulation::new(alone());
    s.fire("cpu", "host=a", "A");
    s.until(60);
    s.fire("cpu", "host=a", "B");
    s.check(&[
        "0: send ops changed A:firing[A/firing@0]",
        "60: send ops changed A:resolved[], B:firing[B/firing@60]",
    ]);
}

#[test]
fn pending_alerts_are_told_to_nobody() {
    let mut s = Simulation::new(alone());
    s.change(&transition("cpu", "host=a", "A", Status::Pending, 0));
    s.change(&transition("cpu", "host=a", "A", Status::Inactive, 0));
    s.check(&["0: Pending - A/pending@0", "0: Inactive - A/inactive@0"]);
}

#[test]
fn large_groups_are_several_dispatches_and_many_incidents_are_few_alerts() {
    let mut policy = one(route("all", "", &["ops"], GroupBy::All));
    let mut s = Simulation::new(policy.clone());
    for number in 0..250 {
        s.fire("cpu", &format!("host={number}"), &format!("I{number}"));
    }
    let mut sizes = Vec::new();
    s.dispatcher.advance(30 * SECOND);
    while let Some(Effect::Send(dispatch)) =
        s.dispatcher.take_effects().into_iter().find(|effect| matches!(effect, Effect::Send(_)))
    {
        sizes.push(dispatch.alerts.len());
        s.dispatcher.sent(&dispatch.id, 30 * SECOND);
    }
    assert_eq!(sizes, [100, 100, 50]);

    policy.routes[0].group_wait = 10_000 * SECOND;
    let mut s = Simulation::new(policy);
    for number in 0..50 {
        s.until(number);
        s.fire("cpu", "host=a", &format!("I{number}"));
        s.resolve("cpu", "host=a", &format!("I{number}"));
    }
    s.dispatcher.advance(10_000 * SECOND);
    let effects = s.dispatcher.take_effects();
    let Some(Effect::Send(dispatch)) = effects.iter().find(|effect| matches!(effect, Effect::Send(_))) else {
        panic!("nothing was sent");
    };
    assert_eq!(dispatch.alerts.len(), 20);
    assert_eq!(dispatch.alerts.iter().map(|alert| alert.transitions.len()).sum::<usize>(), 100);
    assert_eq!(dispatch.alerts[19].transition.incident, "I49");
    assert!(dispatch.notes[0].contains("had 30 more incidents"), "{:?}", dispatch.notes);
}

#[test]
fn group_keys_are_those_of_alertmanager_in_form() {
    let mut s = Simulation::new(by_region());
    s.fire("cpu", "region=e\"u host=a", "A");
    s.dispatcher.advance(30 * SECOND);
    let effects = s.dispatcher.take_effects();
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Send(dispatch) => Some(dispatch),
        _ => None,
    });
    let sent = sent.unwrap();
    assert_eq!(sent.group, "{all}:{region=\"e\\\"u\"}");
    assert_eq!(sent.group_labels, labels("region=e\"u"));
    // Receivers remember ids over restarts and upgrades.
    assert_eq!(sent.id, "40ed3be3-9fed-5821-ac06-ea3175eadeb5", "the id of a known dispatch changed");
}

/// A clock that was an hour ahead while something was notified, and is right again: in the same
/// process, and in the next one.
#[test]
fn what_was_told_by_a_clock_that_was_ahead_delays_nothing() {
    for restarts in [false, true] {
        let mut s = Simulation::new(by_region());
        s.now = 3_600;
        s.fire("cpu", "region=eu host=a", "A");
        s.until(3_640);
        assert_eq!(s.lines.len(), 1, "{:?}", s.lines);
        s.lines.clear();
        s.now = 40;
        if restarts {
            let records = s.dispatcher.changes().into_iter().filter_map(|(key, value)| Some((key, value?)));
            s.dispatcher = Dispatcher::restore(by_region(), records).unwrap();
        }
        s.resolve("cpu", "region=eu host=a", "A");
        s.until(40 + 5 * 60);
        s.check(&["340: send ops changed A:resolved[A/resolved@40]"]);
    }
}
