//! Secrets that stand where they should not, or are written wrongly: no output shows them.

use libtest_mimic::Trial;
use tidemark_tests::secrets::PLANTED;

use super::{ended, program, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("no_secret_is_printed_however_it_is_mistyped", mistyped),
        trial("variables_that_nothing_reads_are_named_without_their_values", variables),
        trial("the_last_line_is_json_like_the_others", last_line),
        trial("the_demo_says_where_it_answers", demo),
        trial("demos_beside_one_another_have_ports_of_their_own", demos),
    ]
}

fn mistyped() {
    let secret = PLANTED;
    let influx = "[influx]\nurl = \"http://127.0.0.1:1\"\norg = \"o\"\nbucket = \"b\"\n";
    let wrong = [
        format!("[kafka.properties]\n\"sasl.pasword\" = \"{secret}\"\n"),
        format!("[kafka.properties]\n\"sasl.jaas.config\" = \"... password={secret};\"\n"),
        format!("[kafka.properties]\n\"security.protocol\" = \"{secret}\"\n"),
        format!("[kafka.properties]\n\"sasl.password\" = [\"{secret}\"]\n"),
        format!("[kafka.properties]\n\"sasl.password\" = {{ fiel = \"{secret}\" }}\n"),
        format!("[kafka.properties]\n\"ssl.key.pem\" = \"{secret}\"\n\"security.protocol\" = \"ssl\"\n"),
        format!("[kafka.properties]\n\"sasl.password\" = {secret}\n"),
        format!("[kafka.properties]\n\"sasl.password\" = \"{secret}\n"),
        format!("[kafka.properties]\n\"sasl.password\" = '{secret}\"\n"),
        format!("[kafka]\nproperties = \"{secret}\"\n"),
        format!("{influx}token = {secret}\n"),
        format!("{influx}token = \"{secret}\n"),
        format!("{influx}token = [\"{secret}\"]\n"),
        format!("{influx}token == \"{secret}\"\n"),
        format!("{influx}token \"{secret}\"\n"),
        format!("{influx}tokn = \"{secret}\"\n"),
        format!("{influx}token_file = \"{secret}\"\n"),
        format!("{influx}token_env = \"{secret}\"\n"),
        format!("{influx}token = \"{secret}\"\ntoken = \"{secret}\"\n"),
        format!("{influx}token = \"{secret}\"\ntoken_env = \"X\"\n"),
        format!(
            "[influx]\nurl = \"http://u:{secret}@127.0.0.1:1\"\norg = \"o\"\nbucket = \"b\"\ntoken = \"t\"\n"
        ),
        // Right, and its servers are not there.
        format!(
            "{influx}token = \"{secret}\"\n[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"u\"\n\"sasl.password\" = \"{secret}\"\n"
        ),
    ];
    for config in wrong {
        let kafka = if config.starts_with("[kafka]") { "" } else { "[kafka]\nbrokers = \"127.0.0.1:1\"\n" };
        let tidemark = program(&format!("{kafka}{config}"));
        for arguments in [
            &["check"][..],
            &["--log", "debug", "topics", "create", "--timeout", "300ms"],
            &["--log-format", "json", "topics", "create", "--timeout", "300ms"],
        ] {
            let said = ended(tidemark.command(), arguments);
            let output = format!("{}{}", said.stdout, said.stderr);
            assert!(!output.contains(secret), "{config}\n{arguments:?}:\n{output}");
            assert!(!output.is_empty(), "{config}");
        }
    }
    for (name, value) in [
        ("TIDEMARK_KAFKA__PROPERTIES__SASL_PASWORD", secret),
        ("TIDEMARK_KAFKA__PROPERTIES__SASL_JAAS_CONFIG", secret),
        ("TIDEMARK_INFLUX__TOKN", secret),
        ("TIDEMARK_INFLUX_TOKEN", secret),
        ("TIDEMARK_INFLUX__TOKEN__FILE", secret),
        ("TIDEMARK_KAFKA__PROPERTIES", secret),
    ] {
        let tidemark = program(influx);
        let mut command = tidemark.command();
        command.env(name, value);
        let said = ended(command, &["check"]);
        let output = format!("{}{}", said.stdout, said.stderr);
        assert!(!said.success && output.contains(name) && !output.contains(secret), "{name}:\n{output}");
    }
}

fn variables() {
    let tidemark = program("");
    let check = |name: &str| {
        let mut command = tidemark.command();
        command.env(name, "10.9.8.7:6");
        ended(command, &["check"])
    };
    let slip = check("TIDEMARK_HTTP_LISTEN");
    assert!(!slip.success && !slip.stdout.contains("10.9.8.7"), "{}", slip.stdout);
    assert!(
        slip.stdout.contains("environment variable TIDEMARK_HTTP_LISTEN: nothing reads it\n  help: did you mean TIDEMARK_HTTP__LISTEN?"),
        "{}",
        slip.stdout
    );
    let stranger = check("TIDEMARK_COLOUR");
    assert!(stranger.success, "{}", stranger.stdout);
    assert!(
        stranger.stdout.contains("warning: nothing reads the environment variable TIDEMARK_COLOUR"),
        "{}",
        stranger.stdout
    );
}

fn last_line() {
    let tidemark = program("[ingest]\nepohc = \"1s\"\n");
    for arguments in [&["run"][..], &["reconcile", "cpu", "--from", "2026-01-01"], &["topics", "create"]] {
        let mut all = vec!["--log-format", "json"];
        all.extend(arguments);
        let said = ended(tidemark.command(), &all);
        assert!(!said.success);
        let last = said.stderr.lines().last().unwrap_or_default();
        let line: serde_json::Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", said.stderr));
        assert_eq!(line["level"], "ERROR", "{last}");
        assert!(line["message"].as_str().unwrap().contains("unknown key `epohc`"), "{last}");
    }
}

fn demo() {
    let tidemark = program("");
    let said = ended(tidemark.command(), &["demo", "--duration", "3s", "--no-burn"]);
    assert!(said.success, "{}", said.stderr);
    assert!(said.stdout.starts_with("http://127.0.0.1:"), "{}", said.stdout);
}

/// Started at one moment, they see the same port free.
fn demos() {
    let run = || {
        let tidemark = program("");
        let said = ended(tidemark.command(), &["demo", "--duration", "5s", "--no-burn"]);
        assert!(said.success, "{}", said.stderr);
        said.stdout.lines().next().unwrap_or_default().to_owned()
    };
    let addresses: Vec<String> = std::thread::scope(|scope| {
        let demos: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        demos.into_iter().map(|demo| demo.join().unwrap()).collect()
    });
    let different: std::collections::BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(different.len(), 3, "{addresses:?}");
}
