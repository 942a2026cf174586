//! Which part of the program may import which: none may reach up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use regex::Regex;

use crate::golden::root;

/// The modules of `pipeline`, the lowest first. A module imports from the groups above it in this
/// list alone; `lib.rs` and `main.rs` stand over all. Roles and commands are listed one by one, so
/// that none imports another at random.
const MODULES: &[&[&str]] = &[
    &["columns", "role", "shutdown", "telemetry", "time"],
    &["clock"],
    &["config"],
    &["catalog", "http", "kafka", "memory"],
    &["board", "error"],
    &["storage"],
    &["alerting"],
    &["roles::context"],
    &["roles::brokers", "roles::group", "roles::lease"],
    &["roles::ingest", "roles::notify", "roles::rollup"],
    &[
        "commands::check",
        "commands::health",
        "commands::load",
        "commands::sample",
        "commands::simulate",
        "commands::why",
    ],
    &["commands::alerts", "commands::explain", "commands::query", "commands::repair"],
    &["commands::backtest", "commands::rule_tests", "commands::run"],
    &["commands::demo"],
    &["cli"],
];

/// Folders whose modules are listed one by one.
const DIVIDED: [&str; 2] = ["commands", "roles"];

/// The crates by their folders, likewise.
const CRATES: &[&[&str]] =
    &[&["alerts", "points", "sinks"], &["operators"], &["query"], &["pipeline"], &["tests"]];

/// Only these compute with DataFusion; what they give is Arrow. Those below build in seconds.
const WITH_DATAFUSION: [&str; 3] = ["operators", "query", "tests"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("layers::modules_of_pipeline", modules),
        Trial::test("layers::crates", crates),
        Trial::test("layers::an_import_that_reaches_up_is_found", reaching_up),
        Trial::test("layers::the_program_alone_has_the_features_of_the_tests", features_of_the_program_alone),
    ]
}

fn modules() -> Result<(), Failed> {
    let source = root().join("pipeline/src");
    let mut files = Vec::new();
    files_below(&source, &mut files)?;
    assert!(files.len() > 100, "{} files", files.len());
    let mut problems = Vec::new();
    for path in files {
        let name = path.strip_prefix(&source)?.display().to_string();
        problems.extend(problems_of(&name, &fs::read_to_string(&path)?));
    }
    for name in names_in(&source)? {
        let listed = if DIVIDED.contains(&name.as_str()) {
            let inner = names_in(&source.join(&name))?;
            inner.iter().map(|inner| format!("{name}::{inner}")).collect()
        } else {
            vec![name]
        };
        for name in listed {
            if level_of(MODULES, &name).is_none() {
                problems.push(format!("`{name}` has no place in the list of this trial"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}

fn crates() -> Result<(), Failed> {
    let mut problems = Vec::new();
    for name in CRATES.iter().copied().flatten() {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml"))?;
        let manifest: toml::Table = manifest.parse()?;
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            if dependency == "datafusion" && !WITH_DATAFUSION.contains(name) {
                problems.push(format!("`{name}` computes with DataFusion"));
            }
            let reaches =
                level_of(CRATES, dependency).is_some_and(|level| Some(level) >= level_of(CRATES, name));
            if reaches {
                problems.push(format!("`{name}` depends on `{dependency}`"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}

fn reaching_up() -> Result<(), Failed> {
    let text = "\
use crate::config::Config;
// crate::cli
fn f() { crate::commands::backtest::run(); }
use crate::commands::check::check;
use crate::{cli, time};
";
    assert_eq!(
        problems_of("commands/check/state.rs", text),
        [
            "commands/check/state.rs:3: `commands::check` imports `commands::backtest`, which is not below it",
            "commands/check/state.rs:5: write one import a module, so that this trial can read it",
        ]
    );
    assert_eq!(problems_of("lib.rs", text), Vec::<String>::new());
    Ok(())
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failed> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn level_of(layers: &[&[&str]], name: &str) -> Option<usize> {
    layers.iter().position(|layer| layer.contains(&name))
}

/// The modules of a folder, tests aside.
fn names_in(folder: &Path) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !["lib", "main", "mod"].contains(&name.as_str()) && !name.ends_with("_tests") {
            names.push(name);
        }
    }
    Ok(names)
}

/// The name in the list that a file or an import belongs to, by the parts of its path.
fn module_of<'p>(mut parts: impl Iterator<Item = &'p str>) -> Option<String> {
    let first = parts.next()?;
    if !DIVIDED.contains(&first) {
        return Some(first.to_owned());
    }
    Some(format!("{first}::{}", parts.next()?))
}

/// `file`: below `pipeline/src`.
fn problems_of(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file.split(['/', '.'])).unwrap_or_default();
    let Some(level) = level_of(MODULES, &module) else { return Vec::new() };
    let import = Regex::new(r"\bcrate::([a-z_:]+)").expect("the pattern is valid");
    let mut problems = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        let groups = DIVIDED.map(|folder| format!("crate::{folder}::{{"));
        if code.contains("crate::{") || groups.iter().any(|group| code.contains(group)) {
            let problem =
                format!("{file}:{number}: write one import a module, so that this trial can read it");
            problems.insert((number, String::new()), problem);
        }
        for found in import.captures_iter(code) {
            let Some(other) = module_of(found[1].split("::").filter(|part| !part.is_empty())) else {
                continue;
            };
            if other != module && level_of(MODULES, &other).is_some_and(|other| other >= level) {
                let problem = format!("{file}:{number}: `{module}` imports `{other}`, which is not below it");
                problems.entry((number, other)).or_insert(problem);
            }
        }
    }
    problems.into_values().collect()
}

/// Built alone, as `make demo` does, the program must find each dependency with the features that
/// tests build it with: otherwise both build DataFusion.
fn features_of_the_program_alone() -> Result<(), Failed> {
    let alone = features(&["--package", "tidemark", "--edges", "normal,build"])?;
    let all = features(&["--workspace", "--edges", "normal,build,dev"])?;
    assert!(alone.len() > 200, "{} crates", alone.len());
    let own: Vec<&String> = alone.difference(&all).collect();
    assert!(own.is_empty(), "these are built twice, name their features in Cargo.toml: {own:#?}");
    Ok(())
}

/// Each crate with its version and features, a line each.
fn features(options: &[&str]) -> Result<BTreeSet<String>, Failed> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "tree",
        "--locked",
        "--offline",
        "--prefix",
        "none",
        "--format",
        "{p} {f}",
    ]);
    let output = cargo.args(options).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}
