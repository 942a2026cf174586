//! Conditions on labels, in the text of Prometheus: `region="eu"`, `region!="eu"`, `host=~"web-.*"`, `host!~"web-.*"`.

use super::policy::AlertLabels;
use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A condition on one label. A label that an alert does not have is the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    operator: Operator,
    value: String,
    /// Anchored at both ends. None for the operators that compare.
    regex: Option<Regex>,
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
    /// The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let end = trimmed.find(['=', '!']).ok_or_else(|| {
            format!(
                "the matcher `{text}` has no operator; write `label=\"value\"`, or one of `!=`, `=~`, `!~`"
            )
        })?;
        let (label, rest) = trimmed.split_at(end);
        let label = label.trim();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:/".contains(&byte);
        if label.is_empty() || !label.bytes().all(is_name) {
            return Err(format!(
                "the matcher `{text}` has no valid label before its operator; write a label's name there, as in \
                 `region=\"eu\"`"
            ));
        }
        let Some(operator) = Operator::ALL.into_iter().find(|operator| rest.starts_with(operator.as_str()))
        else {
            return Err(format!(
                "the matcher `{text}` has an unknown operator; use one of `=`, `!=`, `=~`, `!~`"
            ));
        };
        let value = unquoted(rest[operator.as_str().len()..].trim())
            .map_err(|problem| format!("the matcher `{text}` {problem}"))?;
        let regex = match operator {
            Operator::Equal | Operator::NotEqual => None,
            // Anchored only after it has compiled alone: `a)|(b` must not pass for being put in brackets.
            Operator::Matches | Operator::NotMatches => Some(
                Regex::new(&value).and_then(|_| Regex::new(&format!("^(?s:{value})$"))).map_err(|error| {
                    format!(
                        "the matcher `{text}` has a mistake in its regular expression; correct it: {error}"
                    )
                })?,
            ),
        };
        Ok(Self { label: label.to_owned(), operator, value, regex })
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it holds of this value of its label.
    pub fn matches(&self, value: &str) -> bool {
        match (self.operator, &self.regex) {
            (Operator::NotEqual, _) => value != self.value,
            (Operator::Matches, Some(regex)) => regex.is_match(value),
            (Operator::NotMatches, Some(regex)) => !regex.is_match(value),
            _ => value == self.value,
        }
    }
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
            '"' => return Err("goes on behind its closing quote; write `\\\"` for a quote in the value"),
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
        write!(f, "{}{}", self.label, self.operator.as_str())?;
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
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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
            ("a=x y", "put it in double quotes"),
            ("a=\"x", "end the value with"),
            ("a=\"x\\\"", "end the value with"),
            ("a=\"x\"y", "behind its closing quote"),
            ("a=~\"(\"", "mistake in its regular expression"),
            ("a=~\"x)|(y\"", "mistake in its regular expression"),
        ];
        for (text, expected) in cases {
            let problem = Matcher::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
