//! Reference pages against the program: the command line, which is made from it, and the metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use regex::Regex;
use tidemark_tests::tidemark::Tidemark;

use crate::golden::check_text;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("reference::command_line", command_line), Trial::test("reference::metrics", metrics)]
}

/// `docs/reference/metrics.md` lists the metrics that the program registers, and no others.
fn metrics() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project's folder");
    let registered = registered(&fs::read_to_string(root.join("pipeline/src/telemetry/metrics.rs"))?);
    assert!(registered.len() > 40, "{registered:?}");
    let page = fs::read_to_string(root.join("docs/reference/metrics.md"))?;
    let name = Regex::new("`([a-z_]+)").expect("the pattern is valid");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let listed: BTreeSet<String> = rows
        .filter(|names| names.starts_with('`'))
        .flat_map(|names| {
            name.captures_iter(names).map(|found| found[1].trim_end_matches("_total").to_owned())
        })
        .collect();
    let missing: Vec<_> = registered.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&registered).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in the page: {missing:?}; in the page alone: {gone:?}"
    );
    Ok(())
}

/// Names of metrics in the code that registers them, without `tidemark_` and `_total`: each has the prefix of the
/// registrar before it, but for those that are given to the registry itself.
fn registered(code: &str) -> BTreeSet<String> {
    let call = r#"prefix: "(?<prefix>[a-z]+)"|(?<registry>\bregistry)?\.(?:metric|seconds|register)\(\s*"(?<name>[a-z_]+)""#;
    let call = Regex::new(call).expect("the pattern is valid");
    let (mut names, mut prefix) = (BTreeSet::new(), "");
    for found in call.captures_iter(code) {
        if let Some(given) = found.name("prefix") {
            prefix = given.as_str();
        }
        let Some(name) = found.name("name") else { continue };
        names.insert(match found.name("registry") {
            Some(_) => name.as_str().to_owned(),
            None => format!("{prefix}_{}", name.as_str()),
        });
    }
    names
}

/// `docs/reference/cli.md` holds the help of every command.
fn command_line() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project's folder");
    let mut page = "# Command line\n\n\
        Made from the program by `make golden`. Every option of the first block also works after a command.\n"
        .to_owned();
    describe(&[], &mut page)?;
    assert!(page.matches("\n## ").count() > 10, "{page}");
    check_text(&root.join("docs/reference/cli.md"), &page)
}

/// Appends the help of a command, then that of its own commands.
fn describe(command: &[&str], page: &mut String) -> Result<(), Failed> {
    let program = Tidemark::new("")?;
    let mut arguments = command.to_vec();
    arguments.push("--help");
    let mut program = program.command();
    // Neither a value nor a width of this machine.
    program.env_remove("TIDEMARK_CONFIG").env_remove("COLUMNS");
    let output = program.args(&arguments).output()?;
    let help = String::from_utf8(output.stdout)?;
    let name = ["tidemark"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
    page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", trimmed(&help)));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| line.starts_with("  ")) {
        let Some(inner) = line.trim().split(' ').next() else { continue };
        // Wrapped descriptions are indented further.
        if line.starts_with("   ") || inner == "help" {
            continue;
        }
        let mut inner_command = command.to_vec();
        inner_command.push(inner);
        describe(&inner_command, page)?;
    }
    Ok(())
}

/// Without blanks at the ends of lines.
fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
