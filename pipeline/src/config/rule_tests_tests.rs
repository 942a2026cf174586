//! Files of rule tests as they are written, and every kind of mistake in them.

use super::*;

const RULES: &str = r#"
[[receiver]]
name = "hook"
[receiver.slack]
url_env = "HOOK"

[[rule]]
name = "high"
rollup = "cpu"
condition = "max > 90"
labels = { team = "x" }
receivers = ["hook"]
"#;

const GOOD: &str = r#"rules = "rules.toml"
sql = "sql"

[[test]]
name = "one"
interval = "10s"
quiet = ["hook"]

[[test.series]]
name = "cpu"
labels = { host = "a" }
values = "1 _x2 5+1x2 _"
delay = "1s"
late = { at = 3, by = "1m" }

[[test.silence]]
for = "1h"
matchers = ['host="a"']

[[test.ack]]
at = "2m"
rule = "high"
labels = { host = "a" }

[[test.expect]]
at = "3m"
firing = [{ rule = "high", labels = { host = "a" } }]

[[test.notification]]
receiver = "hook"
at = "2m"
status = "firing"
reason = "repeated"
alerts = ['high{host="a"}']
"#;

const SECOND: i64 = 1_000_000_000;

/// The file beside rules; their secret is nowhere.
fn parse(text: &str, rules: &str) -> Result<RuleTests, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.toml"), rules).unwrap();
    let path = folder.path().join("t.toml");
    let environment = Environment::default().without_secrets();
    let tests = RuleTests::parse(text.to_owned(), &path, &environment, None, Path::new("default"));
    let prefix = format!("{}/", folder.path().display());
    tests.map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn a_test_is_read() {
    let tests = parse(GOOD, RULES).unwrap();
    assert!(tests.sql.ends_with("sql"), "{:?}", tests.sql);
    let test = &tests.tests[0];
    let start = parse_rfc3339(START).unwrap().0;
    let from_start = |at: i64| (at - start) / SECOND;
    let points =
        test.points.iter().map(|point| (from_start(point.time), point.value, from_start(point.arrives)));
    assert_eq!(points.collect::<Vec<_>>(), [(0, 1.0, 1), (30, 5.0, 90), (40, 6.0, 41), (50, 7.0, 51)]);
    let gaps = test.gaps.iter().map(|(arrives, time)| (from_start(*arrives), from_start(*time)));
    assert_eq!(gaps.collect::<Vec<_>>(), [(11, 10), (21, 20), (61, 60)]);
    assert_eq!((test.name.as_str(), test.start, from_start(test.last)), ("one", start, 60));
    assert_eq!(test.quiet, ["hook"]);
    let acts: Vec<i64> = test.acts.iter().map(|(at, _)| from_start(*at)).collect();
    assert_eq!(acts, [0, 120]);
    assert!(matches!(&test.acts[0].1, Act::Silence(silence) if silence.ends_at == start + 3_600 * SECOND));
    assert_eq!((from_start(test.expected[0].at), test.expected[0].firing.len()), (180, 1));
    let notified = &test.notified[0];
    assert_eq!((notified.status, notified.reason), (Some(Status::Firing), Some(Reason::Repeated)));
    assert_eq!(notified.alerts.as_ref().unwrap()[0], test.expected[0].firing[0]);
}

#[test]
fn mistakes_are_pointed_at() {
    // What is written in place of what, and where and how it is refused.
    for (from, to, expected) in [
        ("quiet", "quite", "t.toml:7:1: unknown key `quite`: did you mean `quiet`?"),
        ("interval = \"10s\"", "interval = \"0s\"", "t.toml:6:12: "),
        ("interval = \"10s\"", "interval = \"ten\"", "t.toml:6:12: "),
        ("interval = \"10s\"\n", "", "t.toml:4:1: "),
        (
            "interval = ",
            "start = \"today\"\ninterval = ",
            "t.toml:6:9: not a time: write \"2026-01-01T00:00:00Z\"",
        ),
        ("[\"hook\"]", "[\"hok\"]", "t.toml:7:10: unknown receiver `hok`: did you mean `hook`?"),
        ("1 _x2 5+1x2 _", "1 _x2 5+1xx _", "t.toml:12:17: `5+1xx` is no value of a series: write a number,"),
        ("\"1 _x2 5+1x2 _\"", "'1 five'", "t.toml:12:13: `five` is no value of a series: write a number,"),
        (
            "1 _x2 5+1x2 _",
            "1x999999",
            "t.toml:12:11: with `1x999999` the series has more than 604800 values:",
        ),
        ("at = 3,", "at = 2,", "t.toml:14:15: the series has no value at 2: count its values"),
        ("at = 3,", "at = 9,", "t.toml:14:15: the series has no value at 9: count its values"),
        ("by = \"1m\"", "by = 60", "t.toml:14:"),
        ("name = \"cpu\"", "name = \"\"", "t.toml:10:8: the series has an empty name: name its metric"),
        ("['host=\"a\"']", "[]", "t.toml:18:12: a silence without matchers silences nothing"),
        ("['host=\"a\"']", "['host']", "t.toml:18:13: "),
        ("rule = \"high\"", "rule = \"hihg\"", "t.toml:22:8: unknown rule `hihg`: did you mean `high`?"),
        (
            "[{ rule = \"high\"",
            "[{ rule = \"hihg\"",
            "t.toml:27:20: unknown rule `hihg`: did you mean `high`?",
        ),
        ("at = \"3m\"\nfiring", "firing", "t.toml:25:1: "),
        (
            "status = \"firing\"",
            "status = \"fired\"",
            "t.toml:32:10: unknown status `fired`: did you mean `firing`?",
        ),
        ("\"repeated\"", "\"again\"", "t.toml:33:10: unknown reason `again`: "),
        ("high{host=\"a\"}", "hihg{host=\"a\"}", "t.toml:34:11: unknown rule `hihg`: did you mean `high`?"),
        (
            "high{host=\"a\"}",
            "high{host=a}",
            "t.toml:34:22: the label's value is not in double quotes: write the rule",
        ),
        ("rules = \"rules.toml\"", "rules = \"other.toml\"", "other.toml: "),
        ("rules = \"rules.toml\"\n", "", "t.toml: there are no rules to test: write rules = "),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        let error = parse(&text, RULES).expect_err(to);
        assert!(error.starts_with(expected), "{from} -> {to}: {error}");
    }
    let nothing = "rules = \"rules.toml\"\n[[test]]\nname = \"a\"\ninterval = \"1s\"\n";
    for (text, rules, expected) in [
        (nothing, RULES, "t.toml:3:8: test `a` expects nothing, so it cannot fail: add [[test.expect]]"),
        ("rules = \"rules.toml\"\n", RULES, "t.toml: there is no test in it: write a [[test]]"),
        (
            &format!("{GOOD}{}", &GOOD[GOOD.find("[[test]]").unwrap()..]),
            RULES,
            "t.toml:36:8: there is already a test `one`",
        ),
        (GOOD, "[[rule]]\nname = 1", "rules.toml:2:8: "),
    ] {
        let error = parse(text, rules).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
