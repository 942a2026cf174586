//! Reference pages that are made from the program: the command line.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use tidemark_tests::tidemark::Tidemark;

use crate::golden::check_text;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("reference::command_line", command_line)]
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
