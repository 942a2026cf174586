//! Reference pages against the program: the command line and the configuration, which are made from
//! it, and the metrics.

use std::collections::BTreeSet;
use std::fs;

use libtest_mimic::{Failed, Trial};
use regex::Regex;
use tidemark_tests::tidemark::Tidemark;

use crate::golden::{check_text, root};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("reference::command_line", command_line),
        Trial::test("reference::configuration", configuration),
        Trial::test("reference::metrics", metrics),
    ]
}

/// `docs/reference/metrics.md` lists the metrics that the program registers, and no others.
fn metrics() -> Result<(), Failed> {
    let root = root();
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

/// `docs/reference/configuration.md` is the commented example as a page. That the example has every
/// option, with its default, is a unit test of the configuration.
fn configuration() -> Result<(), Failed> {
    let root = root();
    let example = fs::read_to_string(root.join("config/pipeline.toml"))?;
    let page = page_of(&example);
    assert!(page.matches("\n## ").count() > 8 && page.matches("\n- `").count() > 40, "{page}");
    check_text(&root.join("docs/reference/configuration.md"), &page)
}

/// A heading a section, an item an option: its line, then its comment.
fn page_of(example: &str) -> String {
    let option = r#"^(?<off># )?(?<line>(\[[a-z."0-9]+\]|["a-z_.]+ = .+))$"#;
    let option = Regex::new(option).expect("the pattern is valid");
    let mut page = "# Configuration\n\n\
        Made from `config/pipeline.toml` by `make golden`. What is optional is commented out there.\n"
        .to_owned();
    let mut comment: Vec<&str> = Vec::new();
    for line in example.lines().chain([""]) {
        if let Some(found) = option.captures(line) {
            let optional = if found.name("off").is_some() { ", optional" } else { "" };
            let (head, indent) = match &found["line"] {
                section if section.starts_with('[') => (format!("## `{section}`{optional}"), ""),
                option => (format!("- `{option}`{optional}"), "  "),
            };
            page.push_str(&format!("\n{head}\n"));
            describe_by(&std::mem::take(&mut comment), indent, &mut page);
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else {
            describe_by(&std::mem::take(&mut comment), "", &mut page);
        }
    }
    page
}

/// The lines of a comment; those that are indented in it are code.
fn describe_by(comment: &[&str], indent: &str, page: &mut String) {
    if !comment.is_empty() {
        page.push('\n');
    }
    let mut in_list = false;
    for line in comment {
        let is_code = line.starts_with(' ');
        if is_code != in_list {
            page.push('\n');
        }
        in_list = is_code;
        page.push_str(&match *line {
            "" => "\n".to_owned(),
            code if is_code => format!("{indent}- `{}`\n", code.trim()),
            text => format!("{indent}{}\n", text.replace('<', "\\<")),
        });
    }
}

/// `docs/reference/cli.md` holds the help of every command.
fn command_line() -> Result<(), Failed> {
    let root = root();
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
