//! Links and paths in documents lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use regex::Regex;

use crate::golden::root;

/// Folders of the project that documents name files of, by their first part; in `tests/README.md`
/// those of `tests/`.
const FOLDERS: [&str; 9] =
    ["alerts", "pipeline", "operators", "sinks", "tests", "sql", "config", "deploy", "docs"];
const FOLDERS_OF_TESTS: [&str; 5] = ["suite", "src", "servers", "peers", "recordings"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("documents::links_and_paths_lead_somewhere", links_and_paths),
        Trial::test("documents::what_leads_nowhere_is_found", nowhere),
    ]
}

fn links_and_paths() -> Result<(), Failed> {
    let root = root();
    let documents = documents(root)?;
    assert!(documents.len() >= 40, "{documents:?}");
    let mut problems = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document)?;
        let name = document.strip_prefix(root)?.display().to_string();
        problems.extend(
            problems_of(root, &document, &text).into_iter().map(|problem| format!("{name}: {problem}")),
        );
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}

fn nowhere() -> Result<(), Failed> {
    let root = root();
    let text = "\
# A Title, *of its own*
[a](README.md) [b](GONE.md) [c](#a-title-of-its-own) [d](#elsewhere) [e](https://example.com/x)
`pipeline/src/main.rs` `pipeline/src/gone.rs:12` `sinks/src/` `raw/gone.parquet`
```text
[f](GONE-TOO.md)
```
";
    let found = problems_of(root, &root.join("README.md"), text);
    assert_eq!(
        found,
        [
            "line 2: the link `GONE.md` leads to no file",
            "line 2: the link `#elsewhere` leads to no title",
            "line 3: there is no `pipeline/src/gone.rs`"
        ]
    );
    Ok(())
}

/// The Markdown files of the root, of `tests/` and below `docs/`.
pub(crate) fn documents(root: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned(), root.join("tests"), root.join("docs")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && folder.starts_with(root.join("docs")) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn problems_of(root: &Path, document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().expect("a document lies in a folder");
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("the pattern is valid");
    let code = Regex::new(r"`([A-Za-z0-9_][A-Za-z0-9_./-]*/[A-Za-z0-9_./-]*)(:[0-9]+)?`")
        .expect("the pattern is valid");
    let mut problems = Vec::new();
    let mut is_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        }
        if is_block {
            continue;
        }
        for found in link.captures_iter(line) {
            if let Some(problem) = problem_of_link(document, text, &found[1]) {
                problems.push(format!("line {number}: the link `{}` {problem}", &found[1]));
            }
        }
        for found in code.captures_iter(line) {
            let path = &found[1];
            let first = path.split('/').next().unwrap_or_default();
            let of_tests = folder.ends_with("tests") && FOLDERS_OF_TESTS.contains(&first);
            let base = if of_tests { folder } else { root };
            if (of_tests || FOLDERS.contains(&first)) && !base.join(path).exists() {
                problems.push(format!("line {number}: there is no `{path}`"));
            }
        }
    }
    problems
}

fn problem_of_link(document: &Path, text: &str, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, title) = target.split_once('#').map_or((target, None), |(path, title)| (path, Some(title)));
    let of_path;
    let text = if path.is_empty() {
        text
    } else {
        let path = document.parent()?.join(path);
        if !path.exists() {
            return Some("leads to no file");
        }
        title?;
        of_path = fs::read_to_string(path).unwrap_or_default();
        &of_path
    };
    let is_known = title.is_none_or(|title| anchors(text).contains(title));
    (!is_known).then_some("leads to no title")
}

/// The titles of a document, as links name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |title: &str| {
        let words = title.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}
