//! The texts of an alert: Jinja templates (<https://jinja.palletsprojects.com/>, by minijinja).
//!
//! Templates see `labels` (the rule's and the group's; a tag that is null is the empty string),
//! `values` (the rollup's numeric fields; none when null), `rule`, `severity`, `status` (`firing`
//! or `resolved`), and the times `starts_at`, `ends_at` (none while firing), `window_start`,
//! `window_end`, as RFC 3339 in UTC. Besides minijinja's own filters there are
//!
//! - `fixed(digits)`: a number with so many digits after the point, `{{ values.avg|fixed(1) }}`;
//! - `si`: a number with three significant digits and a prefix, 1234567 as `1.23M`.
//!
//! Unknown names are an error, found when the rule is compiled if they are written out. A template
//! that fails when it is rendered is replaced by a plain text with the reason: it never swallows an
//! alert. There is no `range`, the work and the memory of a rendering are bounded, and the output
//! is cut at [`LONGEST`] bytes.

use super::complaint::{Complaint, listed, nearest};
use super::rule::RuleSpec;
use alerts::Transition;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use alerts::rfc3339;

/// Bytes of a rendered text. Longer ones are cut.
const LONGEST: usize = 16 << 10;

/// Instructions of a rendering, and bytes of the texts that it makes on its way.
const FUEL: u64 = 1_000_000;
/// Macros within macros. Each takes a part of the stack.
const DEEPEST: usize = 32;

const SUMMARY: &str = "summary";
const DESCRIPTION: &str = "description";
const OWNER: &str = "owner";
const RUNBOOK: &str = "runbook";
const VARIABLES: [&str; 9] =
    ["labels", "values", "rule", "severity", "status", "starts_at", "ends_at", "window_start", "window_end"];

#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
    labels: Vec<String>,
    fields: Vec<String>,
}

impl Templates {
    /// `labels` and `fields` are the names that `labels` and `values` will have. The error comes
    /// with the key of the template that is wrong.
    pub(super) fn compile(
        spec: &RuleSpec,
        labels: &[&str],
        fields: &[&str],
    ) -> Result<Self, (&'static str, Complaint)> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.remove_global("range");
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST);
        environment.add_filter("fixed", fixed);
        environment.add_filter("si", si);
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut templates = Self { environment, labels: owned(labels), fields: owned(fields) };
        for (key, source) in [(SUMMARY, &spec.summary), (DESCRIPTION, &spec.description)] {
            templates.add(key, source.clone()).map_err(|complaint| (key, complaint))?;
        }
        for (key, source) in [(OWNER, &spec.owner), (RUNBOOK, &spec.runbook)] {
            if let Some(source) = source {
                templates.add(key, source.clone()).map_err(|complaint| (key, complaint))?;
            }
        }
        Ok(templates)
    }

    /// Fills in the texts of a transition that is otherwise complete.
    pub(super) fn render(&self, transition: &mut Transition) {
        let context = self.context(transition);
        for key in [SUMMARY, DESCRIPTION] {
            let text =
                self.render_one(key, &context).unwrap_or_else(|error| fallback(transition, key, &error));
            match key {
                SUMMARY => transition.summary = text,
                _ => transition.description = text,
            }
        }
        // Where these fail there is nothing better to show than nothing: a link with a hole in it
        // leads astray.
        if transition.owner.is_some() {
            transition.owner = self.render_one(OWNER, &context).ok();
        }
        if transition.runbook.is_some() {
            transition.runbook = self.render_one(RUNBOOK, &context).ok();
        }
    }

    fn add(&mut self, key: &'static str, source: String) -> Result<(), Complaint> {
        if source.len() > LONGEST {
            let message = format!("the template has {} bytes, more than {LONGEST}", source.len());
            return Err(Complaint::new(message, "make it shorter"));
        }
        self.environment.add_template_owned(key, source).map_err(|error| {
            let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
            let message = format!("the template has a mistake{line}: {}", described(&error));
            Complaint::new(
                message,
                "write Jinja, for example `{{ labels.host }} is at {{ values.avg|fixed(1) }}`",
            )
        })?;
        self.check_names(key)?;

        // A trial with made-up values finds what no look at the names does.
        let sample = context! {
            labels => self.labels.iter().map(|name| (name.clone(), "x")).collect::<BTreeMap<_, _>>(),
            values => self.fields.iter().map(|name| (name.clone(), 1.0)).collect::<BTreeMap<_, _>>(),
            rule => "x", severity => "x", status => "firing",
            starts_at => rfc3339(0), ends_at => (), window_start => rfc3339(0), window_end => rfc3339(0),
        };
        let Err(error) = self.render_one(key, &sample) else {
            return Ok(());
        };
        let remedy = match error.kind() {
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest => {
                "use `fixed`, `si`, or one of minijinja's own"
            }
            ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => "use variables and filters only",
            ErrorKind::TooManyArguments | ErrorKind::MissingArgument => "correct the filter's arguments",
            ErrorKind::OutOfFuel => "make it shorter: it works longer than a text about an alert needs",
            ErrorKind::TemplateNotFound => "write the whole text here; there are no other templates",
            // Anything else may be due to the made-up values.
            _ => return Ok(()),
        };
        Err(Complaint::new(format!("the template cannot be rendered: {}", described(&error)), remedy))
    }

    /// Refuses names that will never have a value.
    fn check_names(&self, key: &str) -> Result<(), Complaint> {
        let Ok(template) = self.environment.get_template(key) else {
            return Ok(());
        };
        let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        names.sort_unstable();
        for name in &names {
            let mut path = name.split('.');
            let (root, attribute) = (path.next().unwrap_or_default(), path.next());
            let known: Vec<&str> = match (root, attribute) {
                ("labels", Some(_)) => self.labels.iter().map(String::as_str).collect(),
                ("values", Some(_)) => self.fields.iter().map(String::as_str).collect(),
                _ => VARIABLES.into_iter().chain(self.environment.globals().map(|(name, _)| name)).collect(),
            };
            let (word, kind) = match (root, attribute) {
                ("labels", Some(label)) => (label, "label"),
                ("values", Some(value)) => (value, "value"),
                _ => (root, "variable"),
            };
            if known.contains(&word) {
                continue;
            }
            let remedy = match nearest(word, known.iter().copied()) {
                _ if kind == "variable" && self.labels.iter().any(|label| label == word) => {
                    format!("write `labels.{word}`")
                }
                _ if kind == "variable" && self.fields.iter().any(|field| field == word) => {
                    format!("write `values.{word}`")
                }
                Some(meant) => format!("did you mean `{meant}`?"),
                None if kind == "variable" => format!("there are {}", listed(VARIABLES.into_iter())),
                None if known.is_empty() => format!("the rollup has no {kind}s"),
                None => format!("there are {}", listed(known.into_iter())),
            };
            return Err(Complaint::new(format!("there is no {kind} `{word}`"), remedy));
        }
        Ok(())
    }

    fn context(&self, transition: &Transition) -> Value {
        let label = |name: &String| transition.labels.get(name).cloned().unwrap_or_default();
        let value =
            |name: &String| transition.values.get(name).map_or(Value::from(()), |value| Value::from(*value));
        context! {
            labels => self.labels.iter().map(|name| (name.clone(), label(name))).collect::<BTreeMap<_, _>>(),
            values => self.fields.iter().map(|name| (name.clone(), value(name))).collect::<BTreeMap<_, _>>(),
            rule => transition.rule.clone(),
            severity => transition.severity.clone(),
            status => transition.status.as_str(),
            starts_at => rfc3339(transition.starts_at),
            ends_at => transition.ends_at.map(rfc3339),
            window_start => rfc3339(transition.window_start),
            window_end => rfc3339(transition.window_end),
        }
    }

    fn render_one(&self, key: &str, context: &Value) -> Result<String, minijinja::Error> {
        let template = self.environment.get_template(key)?;
        let mut output = Bounded { text: Vec::new(), full: false };
        let rendered = template.render_captured_to(context.clone(), &mut output).map(drop);
        match rendered {
            Err(error) if !output.full => Err(error),
            _ => Ok(cut(output.text, output.full)),
        }
    }
}

/// What is notified in place of a template that failed.
fn fallback(transition: &Transition, key: &str, error: &minijinja::Error) -> String {
    let mut text = format!("{} {}", transition.rule, transition.status);
    for (name, label) in &transition.labels {
        let _ = write!(text, " {name}={label}");
    }
    for (name, value) in &transition.values {
        let _ = write!(text, " {name}={value}");
    }
    let _ = write!(text, " (the rule's {key} template failed: {})", described(error));
    let full = text.len() > LONGEST;
    let mut bytes = text.into_bytes();
    bytes.truncate(LONGEST);
    cut(bytes, full)
}

fn described(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Text from bytes that may end amid a character.
fn cut(bytes: Vec<u8>, full: bool) -> String {
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned()
        }
    };
    if full {
        text.push('…');
    }
    text
}

/// Takes [`LONGEST`] bytes, and ends the rendering of more.
struct Bounded {
    text: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LONGEST - self.text.len();
        if room == 0 && !bytes.is_empty() {
            self.full = true;
            return Err(io::Error::other("the text is too long"));
        }
        let taken = bytes.len().min(room);
        self.text.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fixed(number: f64, digits: usize) -> String {
    format!("{number:.*}", digits.min(17))
}

fn si(number: f64) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut scaled, mut prefix) = (number, 0);
    // What would be shown as 1000 belongs to the next prefix.
    while scaled.abs() >= 999.5 && prefix + 1 < PREFIXES.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    let digits = match scaled.abs() {
        magnitude if magnitude >= 99.95 => 0,
        magnitude if magnitude >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{}", PREFIXES[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let cases = [
            (0.0, "0.00"),
            (1.0, "1.00"),
            (-12.345, "-12.3"),
            (99.94, "99.9"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1_234_567.0, "1.23M"),
            (5e9, "5.00G"),
            (1e18, "1000000T"),
        ];
        for (number, expected) in cases {
            assert_eq!(si(number), expected);
        }
        assert_eq!(fixed(2.0 / 3.0, 2), "0.67");
    }
}
