//! Whatever is wrong with a file or a variable, the error shows no secret.

use std::path::Path;

use proptest::prelude::*;

use super::{AlertsConfig, Config, Environment};

const SECRET: &str = "pl4nted-s3cret-of-th1s-test";

/// Pieces of the secret this long are as good as the whole.
const PIECE: usize = 8;

/// Every kind of place for a secret.
const PIPELINE: &str = r#"
[kafka]
brokers = ["127.0.0.1:9092"]
[kafka.properties]
"sasl.username" = "tidemark"
"sasl.password" = "SECRET"
"ssl.key.password" = 'SECRET'
[influx]
url = "http://127.0.0.1:8086"
org = "o"
bucket = "b"
token = "SECRET"
"#;

const ALERTS: &str = r#"
[[receiver]]
name = "mail"
[receiver.email]
host = "mail.example.com"
from = "a@example.com"
to = ["b@example.com"]
username = "u"
password = "SECRET"
[[receiver]]
name = "hook"
[receiver.webhook]
url = "https://hook.example.com/"
bearer_token = "SECRET"
signing_key = """SECRET"""
"#;

/// The errors of both loaders for a text, if any.
fn report(text: &str, is_alerts: bool) -> String {
    let none = Environment::default();
    if is_alerts {
        return AlertsConfig::parse(text.to_owned(), Path::new("alerts.toml"), &none)
            .err()
            .map(|error| format!("{error} {error:#} {error:?}"))
            .unwrap_or_default();
    }
    match Config::parse(text.to_owned(), Path::new("pipeline.toml"), &none) {
        Ok(config) => format!("{config:?}"),
        Err(error) => format!("{error} {error:#} {error:?}"),
    }
}

fn shows_secret(text: &str) -> bool {
    SECRET.as_bytes().windows(PIECE).any(|piece| text.contains(std::str::from_utf8(piece).expect("ASCII")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_slip_of_the_pen_shows_a_secret(
        is_alerts in any::<bool>(),
        slips in proptest::collection::vec((any::<prop::sample::Index>(), "[-a-z0-9\"'=\\[\\]{}#.,_ \n]{0,2}", 0_usize..3), 1..4),
    ) {
        let mut text = if is_alerts { ALERTS } else { PIPELINE }.replace("SECRET", SECRET);
        for (place, put, taken) in slips {
            let at = place.index(text.len());
            let end = (at + taken).min(text.len());
            text.replace_range(at..end, &put);
        }
        let report = report(&text, is_alerts);
        prop_assert!(!shows_secret(&report), "{}\nof\n{}", report, text);
    }
}

#[test]
fn values_of_other_types_and_in_other_places_are_not_shown() {
    let values = [
        "SECRET",
        "\"SECRET",
        "[\"SECRET\"]",
        "{ a = \"SECRET\" }",
        "{ file = [\"SECRET\"] }",
        "'SECRET\"",
        "1SECRET",
        "-SECRET",
        "0xSECRET",
    ];
    let keys = [
        "\"sasl.password\"",
        "\"sasl.pasword\"",
        "\"sasl.jaas.config\"",
        "token",
        "tokn",
        "token_file",
        "password",
        "bearer_token",
    ];
    for section in ["[kafka.properties]", "[influx]", "[kafka]", "[receiver.webhook]", "[[receiver]]"] {
        for key in keys {
            for value in values {
                let text = format!("{section}\n{key} = {}\n", value.replace("SECRET", SECRET));
                for is_alerts in [false, true] {
                    let report = report(&text, is_alerts);
                    assert!(!shows_secret(&report), "{report}\nof\n{text}");
                }
            }
        }
    }
}

#[test]
fn numbers_in_place_of_secrets_are_not_shown() {
    for number in ["123456789012", "1234567890.12", "0x1234567890ab", "1979-05-27", "true"] {
        for text in [format!("[influx]\ntoken = {number}\n"), format!("[kafka]\nproperties = {number}\n")] {
            let report = report(&text, false);
            assert!(!report.contains(&number[..4]), "{report}\nof\n{text}");
        }
    }
}
