//! Files of silences, for `tidemark backtest`: what would not have been notified, had somebody
//! silenced it.

use std::path::Path;

use alerts::dispatch::{Matcher, Silence};
use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::error::ConfigError;
use super::routes::matchers;
use super::source::Source;
use crate::time::parse_time;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSilences {
    #[serde(default)]
    silence: Vec<RawSilence>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSilence {
    id: Option<String>,
    matchers: Spanned<Vec<Spanned<String>>>,
    starts_at: Spanned<String>,
    ends_at: Spanned<String>,
}

/// The silences of the file at `path`, those without an id numbered in its order.
///
/// # Errors
/// The first thing that is wrong, with its place and what to write instead.
pub fn load_silences(path: &Path) -> Result<Vec<Silence>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::file(path, format!("cannot read the silences: {error}")))?;
    parse(text, path)
}

fn parse(text: String, path: &Path) -> Result<Vec<Silence>, ConfigError> {
    let environment = Environment::default();
    let source = Source::new(path, text, &environment);
    let raw: RawSilences = source.read()?;
    let time = |text: &Spanned<String>| {
        parse_time(text.get_ref()).map_err(|wrong| match wrong.split_once(", ") {
            Some((problem, remedy)) => source.error(&text.span(), problem).remedy(remedy),
            None => source.error(&text.span(), wrong),
        })
    };
    let mut silences = Vec::new();
    for (number, raw) in raw.silence.into_iter().enumerate() {
        let (starts_at, ends_at) = (time(&raw.starts_at)?, time(&raw.ends_at)?);
        if ends_at <= starts_at {
            let error = source.error(&raw.ends_at.span(), "the silence ends before it starts");
            return Err(error.remedy("write an end after `starts_at`"));
        }
        silences.push(Silence {
            id: raw.id.unwrap_or_else(|| format!("silence-{}", number + 1)),
            matchers: silence_matchers(&source, raw.matchers)?,
            starts_at,
            ends_at,
            created_by: path.display().to_string(),
            comment: String::new(),
            created_at: starts_at,
        });
    }
    Ok(silences)
}

/// Which alerts a silence is about: at least one matcher.
pub(super) fn silence_matchers(
    source: &Source<'_>,
    texts: Spanned<Vec<Spanned<String>>>,
) -> Result<Vec<Matcher>, ConfigError> {
    if texts.get_ref().is_empty() {
        let error = source.error(&texts.span(), "a silence without matchers silences nothing");
        return Err(error.remedy("write matchers = [\"alertname=…\"]"));
    }
    matchers(source, texts.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[silence]]
matchers = ["region=\"eu\""]
starts_at = "2026-01-01"
ends_at = "2026-01-01T06:00:00Z"
"#;

    #[test]
    fn silences_and_mistakes_in_them() {
        let silences = parse(GOOD.to_owned(), Path::new("s.toml")).unwrap();
        let hour = 3_600_000_000_000;
        assert_eq!(
            (silences[0].id.as_str(), silences[0].ends_at - silences[0].starts_at),
            ("silence-1", 6 * hour)
        );
        for (from, to, expected) in [
            ("starts_at", "start_at", "s.toml:4:1: unknown key `start_at`: did you mean `starts_at`?"),
            ("\"2026-01-01\"", "\"yesterday\"", "s.toml:4:13: not a time: write 2026-01-31,"),
            ("2026-01-01T06", "2025-01-01T06", "s.toml:5:11: the silence ends before it starts"),
            ("\"region=\\\"eu\\\"\"", "", "s.toml:3:12: a silence without matchers"),
            ("region=", "region", "s.toml:3:13: the matcher"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = parse(text, Path::new("s.toml")).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{to}: {error}");
        }
    }
}
