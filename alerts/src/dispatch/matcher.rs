//! Conditions on labels, in the text of Prometheus: `region="eu"`, `region!="eu"`,
//! `host=~"web-.*"`, `host!~"web-.*"`. A name of other characters than ASCII letters, digits and
//! `_.-:/` is quoted, `"größe"="x"`, as Alertmanager writes it.
//!
//! What a matcher may cost is bounded, since anybody who may silence alerts writes some. One that
//! is read from a topic is compiled when it is first asked, so that it can be listed and removed
//! whatever it holds.

use super::policy::AlertLabels;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::OnceLock;

/// Bytes of a matcher's text.
const LONGEST: usize = 4 << 10;
/// Bytes of a compiled regular expression, and again of what it remembers while it runs.
const LARGEST: usize = 256 << 10;

/// A condition on one label. A label that an alert does not have is the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    operator: Operator,
    value: String,
    /// Anchored at both ends. None inside where it cannot be compiled: then the matcher holds of
    /// nothing. Not asked by the operators that compare.
    regex: OnceLock<Option<Regex>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
    NotMatches,
}

impl Operator {
    /// The longer ones first: `=~` begins with `=`.
    const ALL: [Operator; 4] = [Self::Matches, Self::NotMatches, Self::NotEqual, Self::Equal];

    fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

impl Matcher {
    /// The error names the mistake and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "a matcher has {} bytes, more than {LONGEST}; write a shorter one",
                text.len()
            ));
        }
        let matcher = Self::read(text)?;
        if matcher.is_regex() {
            let regex = compile(&matcher.value).map_err(|error| {
                format!("the matcher `{text}` has a mistake in its regular expression; correct it: {error}")
            })?;
            matcher.regex.get_or_init(|| Some(regex));
        }
        Ok(matcher)
    }

    /// The same without compiling a regular expression.
    fn read(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let no_operator = || {
            format!(
                "the matcher `{text}` has no operator; write `label=\"value\"`, or one of `!=`, `=~`, `!~`"
            )
        };
        let (label, rest) = match trimmed.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted).ok_or_else(|| {
                    format!("the matcher `{text}` has no closing quote after its label; write `\"label\"=\"value\"`")
                })?;
                let label = unquoted(&trimmed[..end + 2])
                    .map_err(|problem| format!("the matcher `{text}` {problem}"))?;
                (label, quoted[end + 1..].trim_start())
            }
            None => {
                let end = trimmed.find(['=', '!']).ok_or_else(no_operator)?;
                let (label, rest) = trimmed.split_at(end);
                (label.trim().to_owned(), rest)
            }
        };
        if label.is_empty() || !trimmed.starts_with('"') && !is_plain(&label) {
            return Err(format!(
                "the matcher `{text}` has no valid label before its operator; write a label's name there, as in \
                 `region=\"eu\"`, in double quotes where it has other characters than letters, digits and `_.-:/`"
            ));
        }
        if rest.is_empty() {
            return Err(no_operator());
        }
        let Some(operator) = Operator::ALL.into_iter().find(|operator| rest.starts_with(operator.as_str()))
        else {
            return Err(format!(
                "the matcher `{text}` has an unknown operator; use one of `=`, `!=`, `=~`, `!~`"
            ));
        };
        let value = unquoted(rest[operator.as_str().len()..].trim())
            .map_err(|problem| format!("the matcher `{text}` {problem}"))?;
        Ok(Self { label, operator, value, regex: OnceLock::new() })
    }

    fn is_regex(&self) -> bool {
        matches!(self.operator, Operator::Matches | Operator::NotMatches)
    }

    /// Whether it asks for nothing in particular: it holds of a label that is not there, or of
    /// whatever value there is.
    pub fn is_idle(&self) -> bool {
        const ANY: [&str; 7] = ["a", "Zz9", "cpu_high", "größe", "x y", "0", "web-1.example.com:80/%"];
        self.matches("") || ANY.iter().all(|value| self.matches(value))
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it holds of this value of its label.
    pub fn matches(&self, value: &str) -> bool {
        let regex = || self.regex.get_or_init(|| compile(&self.value).ok()).as_ref();
        match self.operator {
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
            Operator::Matches => regex().is_some_and(|regex| regex.is_match(value)),
            Operator::NotMatches => regex().is_some_and(|regex| !regex.is_match(value)),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let build =
        |pattern: &str| RegexBuilder::new(pattern).size_limit(LARGEST).dfa_size_limit(LARGEST).build();
    // Anchored only after it has compiled alone: `a)|(b` must not pass for being put in brackets.
    let built = build(pattern).and_then(|_| build(&format!("^(?s:{pattern})$")));
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("it takes more than {} KiB, repeat less, or write [0-9a-z] for \\w", LARGEST >> 10)
        }
        other => other.to_string(),
    })
}

fn is_plain(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-:/".contains(&byte))
}

/// Where the quote is that ends a text.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Whether all of them hold.
pub(super) fn all_match(matchers: &[Matcher], labels: AlertLabels<'_>) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.label())))
}

fn unquoted(value: &str) -> Result<String, &'static str> {
    let Some(inner) = value.strip_prefix('"') else {
        if value.contains(['"', ',', '{', '}']) || value.chars().any(char::is_whitespace) {
            return Err("has a value that is not plain; put it in double quotes");
        }
        return Ok(value.to_owned());
    };
    let mut plain = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' if characters.as_str().is_empty() => return Ok(plain),
            '"' => return Err("goes on after its closing quote; write `\\\"` for a quote in the value"),
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(escaped @ ('"' | '\\')) => plain.push(escaped),
                // As in Prometheus' configuration: `\.` and `\d` are for the regular expression.
                Some(other) => plain.extend(['\\', other]),
                None => break,
            },
            _ => plain.push(character),
        }
    }
    Err("has no closing quote; end the value with `\"`")
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_plain(&self.label) {
            true => f.write_str(&self.label)?,
            false => write_quoted(f, &self.label)?,
        }
        f.write_str(self.operator.as_str())?;
        write_quoted(f, &self.value)
    }
}

/// A label's value as it stands in matchers and group keys.
pub(super) fn write_quoted(f: &mut impl fmt::Write, value: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in value.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.operator, &self.value) == (&other.label, other.operator, &other.value)
    }
}

impl Eq for Matcher {}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_hold_of_values() {
        // Text, a value of the label, whether it holds.
        let cases = [
            (r#"region="eu""#, "eu", true),
            (r#"region="eu""#, "eu-1", false),
            ("region=eu", "eu", true),
            ("region = eu", "eu", true),
            ("region=", "", true),
            (r#"region!="eu""#, "", true),
            (r#"host=~"web-.*""#, "web-1", true),
            (r#"host=~"web-.*""#, "my-web-1", false),
            (r#"host=~"a|b""#, "ab", false),
            (r#"host=~"a|b""#, "b", true),
            (r#"host=~"a.b""#, "a\nb", true),
            (r#"host=~"web\.1""#, "web.1", true),
            (r#"host=~"web\.1""#, "webx1", false),
            (r#"host!~"web-.*""#, "db", true),
            (r#"host!~"web-.*""#, "web-", false),
            (r#"text="say \"hi\" \\ \n""#, "say \"hi\" \\ \n", true),
            (r#"a="x=y!z""#, "x=y!z", true),
            (r#""größe"="x""#, "x", true),
            (r#""a=\"b!" =~ "x.*""#, "xy", true),
            (r#""region"!=eu"#, "us", true),
            (r#"host=~"[\w-]+-\d{1,3}""#, "wéb-1", true),
        ];
        for (text, value, expected) in cases {
            let matcher = Matcher::parse(text).unwrap();
            assert_eq!(matcher.matches(value), expected, "{text} of {value:?}");
            let again = Matcher::parse(&matcher.to_string()).unwrap();
            assert_eq!(again, matcher, "{text} is another one when written as {matcher}");
            assert_eq!(again.matches(value), expected, "{text} of {value:?}, written as {matcher}");
        }
    }

    #[test]
    fn mistakes_come_with_their_remedy() {
        let cases = [
            ("region", "has no operator; write `label=\"value\"`"),
            ("=\"x\"", "no valid label"),
            ("a b=x", "no valid label"),
            ("a!b", "unknown operator; use one of"),
            ("größe=x", "in double quotes"),
            ("\"a", "no closing quote"),
            ("\"a\"", "has no operator"),
            ("\"\"=x", "no valid label"),
            ("\"a\" ~ x", "unknown operator"),
            ("a=~\"\\w{100}\"", "takes more than 256 KiB"),
            ("a=x y", "put it in double quotes"),
            ("a=\"x", "end the value with"),
            ("a=\"x\\\"", "end the value with"),
            ("a=\"x\"y", "after its closing quote"),
            ("a=~\"(\"", "mistake in its regular expression"),
            ("a=~\"x)|(y\"", "mistake in its regular expression"),
        ];
        for (text, expected) in cases {
            let problem = Matcher::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(
            Matcher::parse(&format!("a={}", "x".repeat(LONGEST))).unwrap_err().contains("more than 4096")
        );
    }

    #[test]
    fn what_is_stored_is_read_whatever_it_would_cost() {
        let stored = r#""a=~\"\\\\w{100}\"""#;
        let matcher: Matcher = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&matcher).unwrap(), stored);
        assert!(!matcher.matches(&"a".repeat(100)), "it holds of nothing");
    }

    #[test]
    fn matchers_that_ask_for_nothing() {
        for idle in ["a=~\".*\"", "a=~\".+\"", "a!=\"x\"", "a!~\"x\"", "a=", "a=~\"[^,]+\"", "a=~\".{1,}\""] {
            assert!(Matcher::parse(idle).unwrap().is_idle(), "{idle}");
        }
        for asking in ["a=x", "a=~\"web-.*\"", "a=~\"[a-z]+\"", "a=~\"x|y\""] {
            assert!(!Matcher::parse(asking).unwrap().is_idle(), "{asking}");
        }
    }
}
