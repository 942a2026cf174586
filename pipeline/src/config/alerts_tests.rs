//! Mistakes in `alerts.toml`, with the exact text a user reads.

use super::tests::parse_alerts;
use super::*;

#[test]
fn mistakes_in_alerts() {
    let rule = "[[rule]]\nname = \"r\"\nrollup = \"cpu\"\ncondition = \"avg > 1\"\n";
    let webhook = "[[receiver]]\nname = \"hook\"\n[receiver.webhook]\nurl = \"http://hook.example/\"\n";
    let fallback = |name: &str, fallback: &str| {
        format!(
            "[[receiver]]\nname = \"{name}\"\nfallback = \"{fallback}\"\n[receiver.webhook]\nurl = \"http://h/\"\n"
        )
    };
    let slack = "[[receiver]]\nname = \"chat\"\n[receiver.slack]\n";
    let email =
        "[[receiver]]\nname = \"mail\"\n[receiver.email]\nhost = \"mx\"\nfrom = \"a@b\"\nto = [\"c@d\"]\n";
    let cases = [
        (
            "[[rule]]\nname = \"r\"\n".to_owned(),
            "alerts.toml:2:8: rule `r` has no `rollup`: name a rollup, like rollup = \"cpu_by_host\"; or write `query`, or `all` and `any` with names of rules",
        ),
        (format!("{rule}{rule}"), "alerts.toml:6:8: there is already a rule `r`: give each its own name"),
        (
            format!("{webhook}{webhook}"),
            "alerts.toml:6:8: there is already a receiver `hook`: give each its own name",
        ),
        (
            format!("{rule}receivers = [\"hok\"]\n{webhook}"),
            "alerts.toml:5:14: unknown receiver `hok`: did you mean `hook`?",
        ),
        (
            format!("{rule}receivers = [\"hook\"]\n"),
            "alerts.toml:5:14: unknown receiver `hook`: add a [[receiver]] with this name",
        ),
        (
            format!("{rule}for = \"5\"\n"),
            "alerts.toml:5:7: `5` is not a duration: write a number with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\"",
        ),
        (
            format!("{rule}sevrity = \"x\"\n"),
            "alerts.toml:5:1: unknown key `sevrity`: did you mean `severity`?",
        ),
        (
            rule.replace("avg > 1", " "),
            "alerts.toml:4:13: `condition` is empty: write a condition over the columns, like condition = \"avg > 90\"",
        ),
        (
            format!("{rule}windows = \"3/5\"\n"),
            "alerts.toml:5:11: `3/5` is not a number of windows: write windows = \"3 of 5\": true in three of the last five windows",
        ),
        (
            format!("{rule}missing_data = \"none\"\n"),
            "alerts.toml:5:16: unknown value `none` of `missing_data`: known: keep, ok, alert, no_data",
        ),
        (
            format!("{rule}all = [\"other\"]\n"),
            "alerts.toml:3:10: a rule with `all, any or none` has no use for `rollup`: remove it, or make two rules",
        ),
        (
            format!("{rule}dead_man = \"5m\"\n"),
            "alerts.toml:4:13: a rule with `dead_man` has no use for `condition`: remove it, or make two rules",
        ),
        (
            "[[receiver]]\nname = \"x\"\n".to_owned(),
            "alerts.toml:2:8: receiver `x` has no address: add [receiver.email], [receiver.webhook], [receiver.slack] or [receiver.alertmanager] below it",
        ),
        (
            format!("{webhook}[receiver.slack]\nurl = \"http://h/\"\n"),
            "alerts.toml:2:8: receiver `hook` has two addresses: make a second [[receiver]] and name both in the rules",
        ),
        (
            webhook.replace("hook.example", "127.0.0.1"),
            "alerts.toml:4:7: the host is this machine or in a private network: if that is meant, add allow_private = true",
        ),
        (
            format!("{slack}url = \"http://[fe80::1]/s3cret\"\n"),
            "alerts.toml:4:7: the host is this machine or in a private network: if that is meant, add allow_private = true",
        ),
        (
            format!("{slack}url = \"hooks.slack.com/s3cret\"\n"),
            "alerts.toml:4:7: not an http or https URL: copy that of the chat's incoming webhook, like \"https://hooks.slack.com/services/…\"",
        ),
        (
            slack.to_owned(),
            "alerts.toml:3:1: [receiver.slack] has no URL: add url_file = \"path\" or url_env = \"NAME\"",
        ),
        (
            slack.replace("slack", "alertmanager"),
            "alerts.toml:3:1: `url` is missing: add url = \"https://alertmanager.example.com\"",
        ),
        (
            format!(
                "{}url = \"http://h/\"\nresolve_after = \"1s\"\n",
                slack.replace("slack", "alertmanager")
            ),
            "alerts.toml:5:17: `resolve_after` is out of bounds: write 1m to 30days",
        ),
        (
            format!("{webhook}cert_file = \"c\"\n"),
            "alerts.toml:5:13: `cert_file` has no key: add key_file = \"path\"",
        ),
        (
            format!("{webhook}key_file = \"k\"\n"),
            "alerts.toml:5:12: `key_file` has no certificate: add cert_file = \"path\"",
        ),
        (
            format!("{}{webhook}", fallback("first", "hok")),
            "alerts.toml:3:12: unknown receiver `hok`: did you mean `hook`?",
        ),
        (
            fallback("first", "second"),
            "alerts.toml:3:12: unknown receiver `second`: add a [[receiver]] with this name",
        ),
        (
            fallback("first", "first"),
            "alerts.toml:3:12: the fallbacks of `first` lead back to it: leave one of them without a fallback",
        ),
        (
            format!("{}{}{}", fallback("a", "b"), fallback("b", "c"), fallback("c", "a")),
            "alerts.toml:13:12: the fallbacks of `c` lead back to it: leave one of them without a fallback",
        ),
        (
            format!("{webhook}tiemout = \"1s\"\n"),
            "alerts.toml:5:1: unknown key `tiemout`: did you mean `timeout`?",
        ),
        (
            format!("{webhook}bearer_token_file = \"/does/not/exist\"\n"),
            "alerts.toml:5:21: cannot read the file of the secret: No such file or directory (os error 2): the path is relative to the working directory, and this user must be able to read the file",
        ),
        (
            format!("{email}tls = \"ssl\"\n"),
            "alerts.toml:7:7: unknown value `ssl` of `tls`: known: starttls, implicit, none",
        ),
        (
            format!("{email}username = \"u\"\n"),
            "alerts.toml:7:12: `username` has no password: add password_file = \"path\" or password_env = \"NAME\"",
        ),
        (
            format!("{email}tls = \"none\"\nusername = \"u\"\npassword = \"p\"\n"),
            "alerts.toml:4:8: the password would cross the network in the clear: write tls = \"starttls\" or tls = \"implicit\"",
        ),
        (
            email.replace("c@d", "nobody"),
            "alerts.toml:6:6: `nobody` is not a mail address: write \"user@example.com\" or \"Name <user@example.com>\"",
        ),
        (
            email.replace("c@d", "a..b@x.de"),
            "alerts.toml:2:8: receiver `mail` cannot work: cannot send email: no valid address, Invalid input; correct it address=`a..b@x.de`: correct what its section names",
        ),
        (
            format!("{email}ca_file = \"/no/such.pem\"\n"),
            "alerts.toml:2:8: receiver `mail` cannot work: cannot send email: No such file or directory (os error 2); check the CA file=`/no/such.pem` host=`mx` port=`587`: correct what its section names",
        ),
        (email.replace("to = ", "too = "), "alerts.toml:6:1: unknown key `too`: did you mean `to`?"),
    ];
    for (text, expected) in cases {
        let error = parse_alerts(&text).expect_err(&text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn receivers_have_fallbacks_and_may_do_without_the_end() {
    let receiver = |name: &str, keys: &str| {
        format!(
            "[[receiver]]\nname = \"{name}\"\n{keys}[receiver.webhook]\nurl = \"http://127.0.0.1/\"\nallow_private = true\n"
        )
    };
    let text = receiver("a", "fallback = \"b\"\n") + &receiver("b", "send_resolved = false\n");
    let alerts = parse_alerts(&text).expect("both are valid");
    let shown: Vec<_> = alerts
        .receivers
        .iter()
        .map(|it| (it.name.as_str(), it.fallback.as_deref(), it.send_resolved))
        .collect();
    assert_eq!(shown, [("a", Some("b"), true), ("b", None, false)]);

    // A fallback that cannot be used is left out, and its receiver stays.
    let none = Environment::default();
    let text = text.replace(
        "[receiver.webhook]\nurl = \"http://127.0.0.1/\"\nallow_private = true\n[[receiver]]",
        "[receiver.webhook]\nurl = \"http://h/\"\n[[receiver]]",
    );
    let broken = text.replace("allow_private = true", "");
    let path = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(path.path(), broken).expect("written");
    let (config, problems) = AlertsConfig::load_all(path.path(), &none);
    assert_eq!((config.receivers.len(), problems.len()), (1, 1), "{problems:?}");
    assert_eq!(config.receivers[0].fallback, None);
}
