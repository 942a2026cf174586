//! Environment variables that nothing reads: a slip of the pen would otherwise let the program talk
//! to another server than was meant.

use std::path::Path;

use super::checked::Config;
use super::environment::{Environment, PREFIX};
use super::error::ConfigError;
use super::source::Source;

/// Most underscores of a name for which each may have been meant to be two.
const MOST_UNDERSCORES: usize = 8;

/// Variables that cannot be read, and those that set an option as soon as they are written rightly.
/// They are errors.
pub(super) fn slips(environment: &Environment) -> Vec<ConfigError> {
    let unreadable = environment.unreadable().iter().map(|name| {
        ConfigError::variable(name, "its value is not UTF-8").remedy("set it to a text, or unset it")
    });
    let slips = environment.unread().into_iter().filter_map(|name| {
        let meant = meant(name)?;
        Some(ConfigError::variable(name, "nothing reads it").remedy(format!("did you mean {meant}?")))
    });
    unreadable.chain(slips).collect()
}

/// All others that look meant for this program, each a warning: it may be another program's.
pub(super) fn strangers(environment: &Environment) -> Vec<String> {
    let strangers = environment.unread().into_iter().filter(|name| meant(name).is_none());
    let warning = |name: &str| {
        let remedy = spelled(name).into_iter().find_map(|name| nearest(&name));
        let remedy = remedy.unwrap_or_else(|| {
            "options are set by TIDEMARK_<SECTION>__<KEY>, with two underscores".to_owned()
        });
        format!("nothing reads the environment variable {name}\n  help: {remedy}")
    };
    strangers.map(warning).collect()
}

/// The override that a name becomes in capitals, and with two underscores where it has one.
fn meant(name: &str) -> Option<String> {
    let knows = |name: &String| {
        let alone = alone(name);
        Source::new(Path::new(""), String::new(), &alone).with_overrides().knows_overrides::<Config>()
    };
    spelled(name).into_iter().find(knows)
}

/// Each way to double underscores of a name, those that double few first. None of a name that is
/// all too long.
fn spelled(name: &str) -> Vec<String> {
    let capitals = name.to_uppercase();
    let Some(rest) = capitals.strip_prefix(PREFIX) else { return Vec::new() };
    if rest.contains("__") {
        return vec![capitals];
    }
    let parts: Vec<&str> = rest.split('_').collect();
    let underscores = parts.len() - 1;
    if underscores > MOST_UNDERSCORES {
        return Vec::new();
    }
    let mut choices: Vec<u32> = (1..1 << underscores).collect();
    choices.sort_by_key(|choice| choice.count_ones());
    let spell = |choice: u32| {
        let mut name = PREFIX.to_owned();
        for (index, part) in parts.iter().enumerate() {
            let between = if index > 0 && choice >> (index - 1) & 1 == 1 { "__" } else { "_" };
            name.push_str(if index > 0 { between } else { "" });
            name.push_str(part);
        }
        name
    };
    choices.into_iter().map(spell).collect()
}

/// The nearest name that the refusal of an override suggests.
fn nearest(name: &str) -> Option<String> {
    let alone = alone(name);
    let source = Source::new(Path::new(""), String::new(), &alone).with_overrides();
    let error = source.read::<Config>().err()?;
    error.remedy_text().filter(|remedy| remedy.starts_with("did you mean")).map(str::to_owned)
}

/// The variable without any other, and without its value.
fn alone(name: &str) -> Environment {
    Environment::from_iter([(name.to_owned(), String::new())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(names: &[&str]) -> Environment {
        names.iter().map(|name| ((*name).to_owned(), "planted-secret".to_owned())).collect()
    }

    #[test]
    fn a_slip_is_an_error_that_names_the_option() {
        let cases = [
            ("TIDEMARK_HTTP_LISTEN", "TIDEMARK_HTTP__LISTEN"),
            ("TIDEMARK_KAFKA_BROKERS", "TIDEMARK_KAFKA__BROKERS"),
            ("TIDEMARK_INFLUX_TOKEN_FILE", "TIDEMARK_INFLUX__TOKEN_FILE"),
            ("TIDEMARK_INGEST_MAX_OUT_OF_ORDERNESS", "TIDEMARK_INGEST__MAX_OUT_OF_ORDERNESS"),
            ("TIDEMARK_KAFKA_PROPERTIES_SASL_PASSWORD", "TIDEMARK_KAFKA__PROPERTIES__SASL_PASSWORD"),
            ("TIDEMARK_INFLUX_TIERS_1H_BUCKET", "TIDEMARK_INFLUX__TIERS__1H__BUCKET"),
            ("tidemark_http__listen", "TIDEMARK_HTTP__LISTEN"),
            ("Tidemark_Http_Listen", "TIDEMARK_HTTP__LISTEN"),
        ];
        for (name, meant) in cases {
            let found: Vec<String> = slips(&environment(&[name])).iter().map(ToString::to_string).collect();
            let expected = format!("environment variable {name}: nothing reads it: did you mean {meant}?");
            assert_eq!(found, [expected]);
            assert_eq!(strangers(&environment(&[name])), Vec::<String>::new());
        }
    }

    #[test]
    fn other_variables_are_warned_of_and_no_value_is_shown() {
        let warned = [
            ("TIDEMARK_HTTP_LISTN", "did you mean TIDEMARK_HTTP__LISTEN?"),
            ("TIDEMARK_COLOUR", "options are set by TIDEMARK_<SECTION>__<KEY>, with two underscores"),
            ("TIDEMARK_", "options are set by TIDEMARK_<SECTION>__<KEY>, with two underscores"),
        ];
        for (name, remedy) in warned {
            let expected = format!("nothing reads the environment variable {name}\n  help: {remedy}");
            assert_eq!(strangers(&environment(&[name])), [expected]);
            assert_eq!(slips(&environment(&[name])), []);
        }
        // Read by the command line, overrides, Kubernetes' own, other programs'.
        let silent = [
            "TIDEMARK_CONFIG",
            "TIDEMARK_LOG",
            "TIDEMARK_HTTP__LISTEN",
            "TIDEMARK_SERVICE_HOST",
            "TIDEMARK_SERVICE_PORT_HTTP",
            "TIDEMARK_PORT",
            "TIDEMARK_PORT_7878_TCP_ADDR",
            "TIDEMARK_RUN_SERVICE_HOST",
            "TIDEMARKER_X",
            "PATH",
        ];
        for name in silent {
            assert_eq!(strangers(&environment(&[name])), Vec::<String>::new(), "{name}");
            assert_eq!(slips(&environment(&[name])), [], "{name}");
        }
    }
}
