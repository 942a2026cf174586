//! Routes, inhibitions and mutes as they are written, and mistakes in them.

use super::tests::parse_alerts;
use std::time::Duration;

const ROUTED: &str = r#"
repeat_interval = "1h"

[behind]
after = "1m"
receivers = ["hook"]

[[receiver]]
name = "hook"
[receiver.webhook]
url = "https://hook.example.com/"

[[mute]]
name = "nights"
time_zone = "Europe/Berlin"
windows = [{ times = ["22:00-06:00"], weekdays = ["mon-fri"] }, { days_of_month = ["-1"], months = ["dec"] }]

[[route]]
matchers = ['severity="critical"', 'region=~"eu-.*"']
receivers = ["hook"]
group_by = ["region"]
group_wait = "1s"
mute = ["nights"]
escalate = [{ after = "15m", receivers = ["hook"] }]
continue = true

[[route]]
receivers = ["hook"]
group_by = []

[[inhibit]]
source = ['alertname="a"']
target = ['severity!="critical"']
equal = ["host"]
"#;

#[test]
fn routes_are_read() {
    let alerts = parse_alerts(ROUTED).expect("all is right");
    let policy = &alerts.policy;
    let minutes = |minutes: i64| minutes * 60_000_000_000;
    assert_eq!((policy.default_repeat, alerts.behind.after), (minutes(60), Duration::from_secs(60)));
    assert_eq!(alerts.behind.receivers, ["hook"]);
    let [first, second] = policy.routes.as_slice() else { panic!("{:?}", policy.routes) };
    assert_eq!(first.name, r#"severity="critical",region=~"eu-.*""#);
    assert_eq!(first.group_by, alerts::dispatch::GroupBy::Labels(vec!["region".to_owned()]));
    assert_eq!((first.group_wait, first.group_interval), (1_000_000_000, minutes(5)));
    assert_eq!((first.repeat_interval, first.goes_on), (minutes(240), true));
    assert_eq!(
        (first.escalations[0].after, first.mutes.as_slice()),
        (minutes(15), &["nights".to_owned()][..])
    );
    assert_eq!((second.name.as_str(), &second.group_by), ("all", &alerts::dispatch::GroupBy::All));
    assert_eq!((policy.inhibitions.len(), policy.mutes[0].windows.len()), (1, 2));
    assert!(policy.receivers["hook"].send_resolved);
}

#[test]
fn mistakes_in_routes() {
    for (right, wrong, expected) in [
        (
            "receivers = [\"hook\"]\ngroup_by = [\"region\"]",
            "receivers = [\"hok\"]",
            "unknown receiver `hok`: did you mean `hook`?",
        ),
        ("mute = [\"nights\"]", "mute = [\"night\"]", "unknown mute `night`: did you mean `nights`?"),
        (
            "severity=\"critical\"",
            "severity",
            "the matcher `severity` has no operator: write `label=\"value\"`",
        ),
        ("eu-.*", "eu-(", "has a mistake in its regular expression"),
        ("22:00-06:00", "22-06", "`22-06` is no range of times: write two different ones"),
        ("mon-fri", "mo-fr", "`mo-fr` is no weekday: write one or two"),
        ("Europe/Berlin", "Berlin", "unknown time zone `Berlin`: write an IANA name"),
        (
            "matchers = ['severity=\"critical\"', 'region=~\"eu-.*\"']\n",
            "",
            "there is already a route `all`: give each its own name",
        ),
        ("after = \"15m\"", "after = \"0s\"", "`after` is out of bounds"),
        ("after = \"1m\"", "after = \"1s\"", "`after` is out of bounds"),
        ("group_wait", "group_wiat", "unknown key `group_wiat`: did you mean `group_wait`?"),
    ] {
        assert!(ROUTED.contains(right), "{right}");
        let error = parse_alerts(&ROUTED.replacen(right, wrong, 1)).expect_err(wrong).to_string();
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}
