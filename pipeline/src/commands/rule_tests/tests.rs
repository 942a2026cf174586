//! Whole files of tests: what passes, and how the others are reported.

use std::fs;

use super::*;

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (tiers = '1m', allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, max(value) AS max,
       count(*) AS points
FROM points WHERE name = 'cpu' GROUP BY 1, 2";

const RULES: &str = r#"
[[receiver]]
name = "direct"
[receiver.slack]
url_env = "NOT_SET"

[[receiver]]
name = "grouped"
[receiver.slack]
url_env = "NOT_SET"

[[rule]]
name = "high"
rollup = "cpu"
condition = "max > 90"
early = true
labels = { team = "x" }
receivers = ["direct"]

[[rule]]
name = "low"
rollup = "cpu"
condition = "max < 10"
for = "2m"

[[route]]
receivers = ["grouped"]
group_by = []
group_wait = "30s"
group_interval = "1m"
repeat_interval = "10m"
"#;

/// One test of two hosts, and what it expects.
fn run_test(series: &str, expected: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.toml"), RULES).unwrap();
    fs::create_dir(folder.path().join("sql")).unwrap();
    fs::write(folder.path().join("sql/cpu.sql"), SQL).unwrap();
    let path = folder.path().join("t.toml");
    let head = "rules = \"rules.toml\"\nsql = \"sql\"\n[[test]]\nname = \"t\"\ninterval = \"10s\"\n";
    let series = series.split('\n').filter(|line| !line.is_empty()).map(|line| {
        let (host, values) = line.split_once(": ").unwrap();
        let (values, more) = values.split_once("; ").unwrap_or((values, ""));
        format!("[[test.series]]\nname = \"cpu\"\nlabels = {{ host = \"{host}\" }}\nvalues = \"{values}\"\n{more}\n")
    });
    fs::write(&path, format!("{head}{}{expected}", series.collect::<String>())).unwrap();
    let environment = Environment::default().without_secrets();
    let args = TestArgs { files: vec![path] };
    match run(&Config::default(), &environment, &args) {
        Ok(tested) => {
            let text = tested.to_string();
            assert_eq!(tested.has_failed(), !text.ends_with("1 passed, 0 failed"), "{text}");
            let lines = text.lines().skip(1).map(str::trim).collect::<Vec<_>>();
            lines.join("\n")
        }
        Err(error) => format!("{error:#}").replace(&format!("{}/", folder.path().display()), ""),
    }
}

const PASSED: &str = "ok      t\n1 passed, 0 failed";

fn alert(kind: &str, rule: &str, host: &str) -> String {
    format!("{kind} = [{{ rule = \"{rule}\", labels = {{ host = \"{host}\" }} }}]\n")
}

#[test]
fn alerts_at_a_time() {
    let expect = |at: &str, alerts: &str| format!("[[test.expect]]\nat = \"{at}\"\n{alerts}");
    // Early: with the first point that is above, before its window closes.
    let early = expect("20s", "") + &expect("30s", &alert("firing", "high", "a"));
    assert_eq!(run_test("a: 50x2 95 50x20", &early), PASSED);
    // Over with the next window, which closes when a point is past its end by the bound on
    // disorder.
    let over = expect("2m", &alert("firing", "high", "a")) + &expect("2m10s", "");
    assert_eq!(run_test("a: 50x2 95 50x20", &over), PASSED);
    let pending =
        expect("1m10s", &alert("pending", "low", "a")) + &expect("3m10s", &alert("firing", "low", "a"));
    assert_eq!(run_test("a: 5x30", &pending), PASSED);
    // With the end of the test the last window closes, which nothing else does.
    let end = expect("1m4s", "") + &expect("1m5s", &alert("pending", "low", "a"));
    assert_eq!(run_test("a: 5", &end), PASSED);
    // Event time goes on where values are left out, and not at all without any.
    assert_eq!(run_test("a: 5 _x7", &expect("1m10s", &alert("pending", "low", "a"))), PASSED);

    let wrong = expect("1m10s", &(alert("firing", "high", "a") + &alert("pending", "low", "b")));
    assert_eq!(
        run_test("a: 5x30\nb: 5x30", &wrong),
        "FAILED  t
at 1m 10s, expected (-) and found (+):
- firing  high{host=\"a\"}
+ pending  low{host=\"a\"}
0 passed, 1 failed"
    );
}

#[test]
fn late_values_correct_windows_as_long_as_they_are_not_final() {
    let expect = |at: &str, alerts: &str| format!("[[test.expect]]\nat = \"{at}\"\n{alerts}");
    // The value of 30s is there at 3m20s: the alert that fired then would have begun a window
    // later, so it only was pending.
    let corrected = expect("3m10s", &alert("firing", "low", "a"))
        + &expect("3m20s", &alert("pending", "low", "a"))
        + &expect("4m10s", &alert("firing", "low", "a"));
    assert_eq!(run_test("a: 5x2 50 5x60; late = { at = 3, by = \"170s\" }", &corrected), PASSED);
    let too_late = expect("20m", "");
    let output = run_test("a: 5x2 50 5x118; late = { at = 3, by = \"15m\" }", &too_late);
    assert!(output.contains("points too late for rollup `cpu`: 1"), "{output}");
}

#[test]
fn notifications_in_their_order() {
    let notified =
        |receiver: &str, more: &str| format!("[[test.notification]]\nreceiver = \"{receiver}\"\n{more}");
    let series = "a: 50x2 95x2 50x30\nb: 50x2 95x2 50x30";
    let right = notified("direct", "at = \"30s\"\nstatus = \"firing\"\nalerts = ['high{host=\"a\"}']\n")
        + &notified("direct", "alerts = ['high{host=\"b\",team=\"x\"}']\n")
        + &notified("direct", "at = \"2m10s\"\nstatus = \"resolved\"\n")
        + &notified("direct", "")
        + &notified(
            "grouped",
            "at = \"1m\"\nalerts = ['high{host=\"b\"}', 'high{host=\"a\"}']\nreason = \"changed\"\n",
        )
        + &notified(
            "grouped",
            "at = \"2m40s\"\nstatus = \"resolved\"\nalerts = ['high{host=\"a\"}', 'high{host=\"b\"}']\n",
        );
    assert_eq!(run_test(series, &right), PASSED);
    let wrong =
        notified("grouped", "at = \"1m\"\n") + &notified("grouped", "at = \"2m\"\nstatus = \"resolved\"\n");
    assert_eq!(
        run_test(series, &wrong),
        "FAILED  t
receiver `grouped`, expected (-) and sent (+):
1m  firing  high{host=\"a\",team=\"x\"}, high{host=\"b\",team=\"x\"}
- 2m  resolved
+ 2m 40s  resolved  high{host=\"a\",team=\"x\"}, high{host=\"b\",team=\"x\"}
0 passed, 1 failed"
    );
    // Silenced, and acknowledged: nobody is notified, or notified again.
    let silenced = "[[test.silence]]\nfor = \"1h\"\nmatchers = ['alertname=\"high\"']\n";
    assert!(run_test(series, &(notified("direct", "") + silenced)).contains("- any notification"));
    let acknowledged = "[[test.ack]]\nat = \"2m\"\nrule = \"high\"\nlabels = { host = \"a\" }\n";
    let repeated = notified("grouped", "at = \"30s\"\n") + &notified("grouped", "reason = \"repeated\"\n");
    let output = run_test("a: 95x80", &(repeated.clone() + &notified("grouped", "status = \"resolved\"\n")));
    assert!(output.contains("\n- resolved\n"), "it never is: {output}");
    assert_eq!(run_test("a: 95x80", &repeated), PASSED);
    assert_eq!(run_test("a: 95x80", &(notified("grouped", "at = \"30s\"\n") + acknowledged)), PASSED);
    let early = acknowledged.replace("2m", "10s");
    let output = run_test("a: 50 95x80", &(notified("direct", "") + &early.replace("10s", "0s")));
    assert!(output.contains("high{host=\"a\"} was to be acknowledged, and does not fire then"), "{output}");
}

#[test]
fn mistakes_are_all_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.toml"), RULES.replace("max > 90", "most > 90")).unwrap();
    fs::create_dir(folder.path().join("sql")).unwrap();
    fs::write(folder.path().join("sql/cpu.sql"), SQL).unwrap();
    let good = "rules = \"rules.toml\"\nsql = \"sql\"\n[[test]]\nname = \"t\"\ninterval = \"10s\"\nquiet = [\"direct\"]\n";
    let files = [("a.toml", good.replace("10s", "ten")), ("b.toml", good.to_owned())].map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    });
    let environment = Environment::default().without_secrets();
    let error =
        run(&Config::default(), &environment, &TestArgs { files: files.to_vec() }).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].contains("a.toml:5:12: "), "{error}");
    assert!(lines[1].contains("rules.toml:15:") && lines[1].contains("most"), "{error}");
}
