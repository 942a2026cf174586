//! Both files and every kind of mistake in them, with the exact text a user reads.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

const EXAMPLE: &str = include_str!("../../../config/pipeline.toml");
const EXAMPLE_ALERTS: &str = include_str!("../../../config/alerts.toml");

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text.to_owned(), Path::new("pipeline.toml"), &environment(variables))
}

pub(super) fn parse_alerts(text: &str) -> Result<AlertsConfig, ConfigError> {
    AlertsConfig::parse(text.to_owned(), Path::new("alerts.toml"), &environment(&[]))
}

/// The example with its commented options switched on: every line `# key = …` or `# [section]`.
fn uncommented(example: &str) -> String {
    let mut text = String::new();
    for line in example.lines() {
        let option = line.strip_prefix("# ").filter(|rest| {
            rest.starts_with('[')
                || (rest.starts_with('"') && rest.contains("\" = "))
                || rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        });
        text.push_str(option.unwrap_or(line));
        text.push('\n');
    }
    text
}

#[test]
fn the_example_holds_the_defaults() {
    let example = parse(EXAMPLE, &[]).expect("the example is valid");
    let mut defaults = Config::default();
    defaults.alerts.rules = Some("config/alerts.toml".into());
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));
    let empty = parse("", &[]).expect("every key may be left out");
    assert_eq!(format!("{empty:#?}"), format!("{:#?}", Config::default()));
}

/// Every option that a section may have stands in the example, with its comment.
#[test]
fn the_example_has_every_option() {
    fn keys<T: serde::de::DeserializeOwned>(name: &str) -> (String, Vec<String>) {
        (name.to_owned(), source::known_keys::<T>())
    }
    let sections = [
        keys::<KafkaConfig>("kafka"),
        keys::<TopicsConfig>("topics"),
        keys::<IngestConfig>("ingest"),
        keys::<RollupConfig>("rollup"),
        keys::<StorageConfig>("storage"),
        keys::<ArchiveConfig>("archive"),
        keys::<InfluxConfig>("influx"),
        keys::<AlertsFile>("alerts"),
        keys::<HttpConfig>("http"),
        keys::<MemoryConfig>("memory"),
    ];
    let mut names: Vec<&String> = sections.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let mut all = source::known_keys::<Config>();
    all.sort_unstable();
    assert_eq!(names, all.iter().collect::<Vec<_>>());
    let example: toml::Table = uncommented(EXAMPLE).parse().expect("the example is valid");
    for (name, keys) in &sections {
        let section = example[name].as_table().expect("a section");
        assert!(!keys.is_empty(), "[{name}] has options");
        for key in keys {
            assert!(section.contains_key(key), "`{key}` of [{name}] is missing in config/pipeline.toml");
        }
    }
}

#[test]
fn the_examples_commented_options_are_real() {
    let text = uncommented(EXAMPLE)
        .replace("token_file = \"/run/secrets/influx-token\"\n", "")
        .replace("token = \"…\"\n", "")
        .replace("{ file = \"/run/secrets/kafka-password\" }", "{ env = \"INFLUX_TOKEN\" }");
    let config = parse(&text, &[("INFLUX_TOKEN", "t0ken")]).expect("commented options are valid");
    let influx = config.influx.expect("the section is uncommented");
    assert_eq!(influx.token.expose_secret(), "t0ken");
    assert_eq!(influx.retention, Some(Duration::from_secs(365 * 86_400)));
    assert_eq!(
        config.http.external_url.as_ref().map(url::Url::as_str),
        Some("https://tidemark.example.com/")
    );
    let hours = influx.bucket_of("1h");
    assert_eq!(
        (hours.name.as_str(), hours.retention),
        ("tidemark_1h", Some(Duration::from_secs(1825 * 86_400)))
    );
    assert_eq!(
        (influx.bucket_of("1d").name.as_str(), influx.bucket_of("1d").retention),
        ("tidemark_1d", None)
    );
    let variables = [("INFLUX_TOKEN", "t0ken"), ("TIDEMARK_INFLUX__TIERS__1H__BUCKET", "hours")];
    let overridden = parse(&text, &variables).expect("a tier can be overridden");
    assert_eq!(overridden.influx.expect("the section is uncommented").bucket_of("1h").name, "hours");
    assert_eq!((influx.batch_lines, influx.in_flight, influx.timeout), (5_000, 4, Duration::from_secs(30)));
    assert_eq!(config.ingest.oldest, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.kafka.properties["sasl.password"].expose_secret(), "t0ken");

    let alerts = uncommented(EXAMPLE_ALERTS)
        .replace("password_file = \"/run/secrets/smtp-password\"", "password = \"p\"")
        .replace("bearer_token_file = \"/run/secrets/webhook-token\"", "bearer_token = \"b\"")
        .replace("signing_key_file = \"/run/secrets/webhook-key\"", "signing_key = \"k\"")
        .replace("url_file = \"/run/secrets/slack-url\"", "url = \"https://hooks.slack.com/services/k\"")
        .replace("bearer_token_file = \"/run/secrets/alertmanager-token\"", "bearer_token = \"b\"")
        // Files that are not here; that they are read is another test's.
        .replace("ca_file =", "#")
        .replace("cert_file =", "#")
        .replace("key_file =", "#");
    let alerts = parse_alerts(&alerts).expect("commented options are valid");
    assert_eq!(alerts.receivers.len(), 4);
    assert_eq!(alerts.receivers[0].fallback.as_deref(), Some("oncall-webhook"));
    let ReceiverKind::Webhook(webhook) = &alerts.receivers[1].kind else { panic!("the second is a webhook") };
    assert_eq!(webhook.signing_key.as_ref().map(ExposeSecret::expose_secret), Some("k"));
    assert!(!format!("{webhook:?}").contains("\"k\""));
    assert!(!webhook.http.allow_private);
    let ReceiverKind::Slack(slack) = &alerts.receivers[2].kind else { panic!("the third is a chat") };
    assert!(!format!("{slack:?}").contains("services"));
    let ReceiverKind::Alertmanager(am) = &alerts.receivers[3].kind else {
        panic!("the fourth is an Alertmanager")
    };
    assert_eq!(am.resolve_after, Duration::from_secs(12 * 3_600));
}

#[test]
fn the_example_of_alerts_is_valid() {
    let alerts = parse_alerts(EXAMPLE_ALERTS).expect("the example is valid");
    assert_eq!(alerts.rules.len(), 6);
    let rule = &alerts.rules[0];
    assert_eq!(
        (rule.located("rollup").text.as_str(), rule.spec.for_),
        ("cpu_by_host", Duration::from_secs(300))
    );
    assert_eq!(rule.recovery.as_ref().map(|recovery| recovery.text.as_str()), Some("avg < 80"));
    // A later check, of the condition as SQL or of a template, points at the same place.
    for (key, place) in
        [("condition", "20:13"), ("recovery", "23:12"), ("summary", "51:11"), ("name", "20:13")]
    {
        let error = rule.located(key).error("no column `avq`", "did you mean `avg`?");
        assert_eq!(
            error.to_string(),
            format!("alerts.toml:{place}: no column `avq`: did you mean `avg`?"),
            "{key}"
        );
    }
}

#[test]
fn mistakes_in_the_file() {
    let cases = [
        ("[kafka]\nbrokres = []", "pipeline.toml:2:1: unknown key `brokres`: did you mean `brokers`?"),
        ("[kafak]\n", "pipeline.toml:1:2: unknown key `kafak`: did you mean `kafka`?"),
        (
            "[rollup]\nzzz = 1",
            "pipeline.toml:2:1: unknown key `zzz`: known: sql, group, checkpoint_interval, series_limit",
        ),
        (
            "[ingest]\nepoch = 1",
            "pipeline.toml:2:9: the whole number cannot stand here: write a duration in quotes with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\"",
        ),
        (
            "[ingest]\n  epoch = \"1 parsec\"",
            "pipeline.toml:2:11: `1 parsec` is not a duration: write a number with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\"",
        ),
        ("[ingest]\nepoch = \"1h\"", "pipeline.toml:2:9: `epoch` is out of bounds: write 10ms to 1m"),
        ("[ingest]\nformat = \"jsn\"", "pipeline.toml:2:10: unknown format `jsn`: did you mean `json`?"),
        ("[ingest]\ngroup = \"\"", "pipeline.toml:2:9: `group` is empty: give it a value or remove it"),
        (
            "[archive]\nroll_size = \"64M\"",
            "pipeline.toml:2:13: `64M` is not a size: write a number with B, KiB, MiB, GiB (or kB, MB, GB), like \"64MiB\"",
        ),
        (
            "[archive]\nroll_size = \"1KiB\"",
            "pipeline.toml:2:13: `roll_size` is out of bounds: write 1MiB to 4GiB",
        ),
        (
            "[kafka]\nbrokers = []",
            "pipeline.toml:2:11: `brokers` is empty: name at least one broker, like [\"127.0.0.1:9092\"]",
        ),
        (
            "[kafka.properties]\n\"group.id\" = \"x\"",
            "pipeline.toml:2:14: the librdkafka property `group.id` is set by Tidemark: remove it",
        ),
        (
            "[kafka.properties]\n\"sasl.password\" = { env = \"NOWHERE\" }",
            "pipeline.toml:2:19: the environment variable of the secret is not set: export it before the program starts",
        ),
        (
            "[kafka.properties]\n\"sasl.password\" = { fiel = \"x\" }",
            "pipeline.toml:2:19: a secret kept elsewhere is { file = \"path\" } or { env = \"NAME\" }",
        ),
        (
            "[topics]\npoints = [\"a b\"]",
            "pipeline.toml:2:10: `a b` is not the name of a topic: use up to 249 letters, digits, dots, underscores and hyphens",
        ),
        (
            "[topics]\nlate = \"points\"",
            "pipeline.toml:2:8: topic `points` is already used by `points`: give each its own topic",
        ),
        (
            "[topics]\npartials_partitions = 0",
            "pipeline.toml:2:23: `partials_partitions` is out of bounds: write 1 to 1000",
        ),
        (
            "[storage]\nurl = \"ftp://x/y\"",
            "pipeline.toml:2:7: `ftp://x/y` has a scheme that is not one of file, s3, s3a, gs, az, azure, adl, abfs, abfss: write a directory, or a URL like \"s3://bucket/prefix\"",
        ),
        (
            "[influx]\nurl = \"http://h\"\norg = \"o\"",
            "pipeline.toml:1:1: `bucket` is missing: add bucket = \"tidemark\"",
        ),
        (
            "[influx]\nurl = \"h:8086\"\norg = \"o\"\nbucket = \"b\"\ntoken = \"t\"",
            "pipeline.toml:2:7: not an http or https URL: write it with its scheme, like \"http://127.0.0.1:8086\"",
        ),
        (
            "[influx]\nurl = \"http://h\"\norg = \"o\"\nbucket = \"b\"",
            "pipeline.toml:1:1: [influx] has no token: add token_file = \"path\" or token_env = \"NAME\"",
        ),
        (
            "[influx]\nurl = \"http://h\"\norg = \"o\"\nbucket = \"b\"\ntoken = \"t\"\ntoken_env = \"X\"",
            "pipeline.toml:6:13: `token` is set twice: keep one of `token_file`, `token_env`, `token`",
        ),
        (
            "[http]\nlisten = \"localhost\"",
            "pipeline.toml:2:10: `localhost` is not an address to listen on: write IP address and port, like \"127.0.0.1:7878\" or \"[::1]:7878\"",
        ),
        (
            "[http]\nexternal_url = \"ops.example\"",
            "pipeline.toml:2:16: not an http or https URL: write what people open, like \"https://tidemark.example.com/\"",
        ),
        (
            "[http]\nexternal_url = \"https://ops.example/?a=1\"",
            "pipeline.toml:2:16: a link cannot start with a user, a query or a fragment: write what people open, like \"https://tidemark.example.com/\"",
        ),
        ("[http\n", "pipeline.toml:1:6: unclosed table, expected `]`"),
        ("[http]\ntimeout = \"1s\"\ntimeout = \"2s\"", "pipeline.toml:3:1: duplicate key"),
    ];
    for (text, expected) in cases {
        let error = parse(text, &[]).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn overrides_of_the_environment() {
    let config = parse(
        EXAMPLE,
        &[
            ("TIDEMARK_KAFKA__BROKERS", "a:1, b:2"),
            ("TIDEMARK_KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret"),
            ("TIDEMARK_TOPICS__PARTIALS_PARTITIONS", "16"),
            ("TIDEMARK_INGEST__EPOCH", "250ms"),
            ("TIDEMARK_INGEST__GROUP", "42"),
            ("TIDEMARK_ARCHIVE__ENABLED", "false"),
            ("TIDEMARK_ARCHIVE__ROLL_SIZE", "2000000"),
            ("TIDEMARK_LOG", "debug"),
            ("TIDEMARKER__X", "1"),
        ],
    )
    .expect("overrides are valid");
    assert_eq!(config.kafka.brokers, ["a:1", "b:2"]);
    assert_eq!(config.kafka.properties["sasl.password"].expose_secret(), "s3cret");
    assert_eq!(config.topics.partials_partitions, 16);
    assert_eq!(config.ingest.epoch, Duration::from_millis(250));
    assert_eq!(config.ingest.group, "42");
    assert!(!config.archive.enabled);
    assert_eq!(config.archive.roll_size, 2_000_000);
    assert!(!format!("{config:?}").contains("s3cret"), "secrets do not show");

    let cases = [
        (
            "TIDEMARK_KAFKA__BROKRES",
            "x",
            "environment variable TIDEMARK_KAFKA__BROKRES: sets no known key: did you mean TIDEMARK_KAFKA__BROKERS?",
        ),
        (
            "TIDEMARK_KAFAK__BROKERS",
            "x",
            "environment variable TIDEMARK_KAFAK__BROKERS: sets no known key: did you mean TIDEMARK_KAFKA__BROKERS?",
        ),
        (
            "TIDEMARK_INGEST__EPOCH",
            "soon",
            "environment variable TIDEMARK_INGEST__EPOCH: `soon` is not a duration: write a number with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\"",
        ),
        (
            "TIDEMARK_INGEST__EPOCH",
            "2h",
            "environment variable TIDEMARK_INGEST__EPOCH: `epoch` is out of bounds: write 10ms to 1m",
        ),
        (
            "TIDEMARK_ARCHIVE__ENABLED",
            "maybe",
            "environment variable TIDEMARK_ARCHIVE__ENABLED: the text cannot stand here: write true or false",
        ),
    ];
    for (name, value, expected) in cases {
        let error = parse(EXAMPLE, &[(name, value)]).expect_err(name);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let none = environment(&[]);
    let error = Config::load(Path::new("/nowhere/x.toml"), &none).expect_err("there is no such file");
    assert_eq!(
        error.to_string(),
        "/nowhere/x.toml: no such file: copy the commented example, config/pipeline.toml, from the project and adapt it"
    );
}

#[test]
fn storage_urls_end_in_a_slash() {
    let cases = [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/a/b", "s3://bucket/a/b/"),
        ("/var/lib/tidemark", "file:///var/lib/tidemark/"),
        ("file:///x", "file:///x/"),
    ];
    for (given, expected) in cases {
        let config = parse(&format!("[storage]\nurl = \"{given}\""), &[]).expect(given);
        assert_eq!(config.storage.url.as_str(), expected);
    }
}

#[test]
fn local_needs_no_file() {
    let config = Config::local("127.0.0.1:1, 127.0.0.1:2", Path::new("/tmp/demo"));
    assert_eq!(config.kafka.brokers, ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(config.storage.url.as_str(), "file:///tmp/demo/");
}
