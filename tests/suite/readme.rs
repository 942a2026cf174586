//! The commands that the README and the pages under `docs/` show run as they are written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use tidemark_tests::tidemark::Tidemark;

use crate::documents::documents;
use crate::golden::root;

pub(crate) fn trials() -> Vec<Trial> {
    let root = root();
    let documents = documents(root).expect("the project's documents can be listed");
    let mut commands = BTreeSet::new();
    for document in documents {
        commands.extend(commands_of(&fs::read_to_string(&document).expect("a document is text")));
    }
    assert!(commands.len() >= 5, "documents show commands in ```sh blocks: {commands:?}");
    let trial = |command: String| {
        Trial::test(format!("readme::{command}"), move || {
            run(root, &command);
            Ok(())
        })
    };
    commands.into_iter().map(trial).collect()
}

/// Lines of the ```sh blocks: those need no server. What needs one stands in ```console blocks.
fn commands_of(document: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_shell = false;
    for line in document.lines() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
        } else if is_shell && !line.trim().is_empty() {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// A shell runs the line in the project's folder, with the built program on its path.
fn run(root: &Path, command: &str) {
    let program = Tidemark::new("").expect("the program was built with the tests");
    let binary = program.command().get_program().to_owned();
    let folder = Path::new(&binary).parent().expect("a program lies in a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(root)
        .env("PATH", path)
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}: {said}", output.status);
    assert!(!output.stdout.is_empty(), "{command} printed nothing");
}
