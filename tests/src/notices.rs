//! Licences of everything that is linked into the program: who may see them, and their texts.
//!
//! What counts is what cargo resolves for the program on Linux, without what only builds or tests
//! it. Texts come from the packages themselves, those of bundled C libraries included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Files of packages that hold licences or notices begin like this, in capitals.
const BEGINNINGS: [&str; 6] = ["LICENSE", "LICENCE", "NOTICE", "COPYING", "COPYRIGHT", "UNLICENSE"];
/// How deep below a package the licences of bundled libraries are.
const DEPTH: usize = 3;

/// A package that is linked into the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// SPDX.
    pub licence: String,
    folder: PathBuf,
}

/// The packages of others that are linked into the program, by name.
pub fn packages(project: &Path) -> Result<Vec<Package>, String> {
    let target = "x86_64-unknown-linux-gnu";
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target])
        .current_dir(project)
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("no dependencies in the metadata")?;
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let all = metadata["packages"].as_array().ok_or("no packages in the metadata")?;
    let own = |package: &&Value| package["name"] == "tidemark" && package["source"].is_null();
    let root = all.iter().find(own).and_then(|package| package["id"].as_str()).ok_or("no program")?;
    let linked = linked(root, &nodes);
    let mut packages: Vec<Package> = all
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| linked.contains(id)))
        .filter(|package| !package["source"].is_null())
        .map(read)
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

/// What a package needs at run time, by any number of steps. Macros run in the compiler and leave
/// nothing of their own.
fn linked<'m>(root: &'m str, nodes: &BTreeMap<&str, &'m Value>) -> BTreeSet<&'m str> {
    let (mut found, mut open) = (BTreeSet::from([root]), vec![root]);
    while let Some(id) = open.pop() {
        let deps = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let kinds = dep["dep_kinds"].as_array();
            let is_normal = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()));
            if let (true, Some(id)) = (is_normal, dep["pkg"].as_str())
                && found.insert(id)
            {
                open.push(id);
            }
        }
    }
    found
}

fn read(package: &Value) -> Package {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text("manifest_path"));
    Package {
        name: text("name"),
        version: text("version"),
        licence: text("license"),
        folder: manifest.parent().map(Path::to_owned).unwrap_or_default(),
    }
}

impl Package {
    /// The licences and notices that come with it.
    pub fn texts(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.folder, DEPTH, &mut files);
        files.sort();
        let read = |path: &PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let mut texts: Vec<String> = files.iter().filter_map(read).filter(|text| !text.is_empty()).collect();
        texts.dedup();
        texts
    }

    /// Whether the licence allows what `allowed` allows: one of those between OR, all of those
    /// between AND.
    pub fn is_allowed(&self, allowed: &[String]) -> bool {
        // The older way to write OR.
        expression(&self.licence.replace('/', " OR "), allowed)
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_licence = BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, files);
            }
        } else if is_licence && !name.ends_with(".RS") {
            files.push(path);
        }
    }
}

/// An SPDX expression. AND binds tighter than OR, brackets bind tightest.
fn expression(text: &str, allowed: &[String]) -> bool {
    let text = text.trim();
    if let Some((left, right)) = split(text, " OR ") {
        return expression(left, allowed) || expression(right, allowed);
    }
    if let Some((left, right)) = split(text, " AND ") {
        return expression(left, allowed) && expression(right, allowed);
    }
    match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => expression(inner, allowed),
        None => allowed.iter().any(|known| known == text),
    }
}

/// Splits at the first such word outside of brackets.
fn split<'t>(text: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let outside = |at: usize| {
        let before = &text[..at];
        before.matches('(').count() == before.matches(')').count()
    };
    let at = text.match_indices(word).map(|(at, _)| at).find(|at| outside(*at))?;
    Some((&text[..at], &text[at + word.len()..]))
}

/// `THIRD_PARTY.md`: a table of packages, and each text once with those that it belongs to.
pub fn notices(project: &Path) -> Result<String, String> {
    let packages = packages(project)?;
    let mut out = String::from(
        "# Licences of third parties\n\nTidemark is under the Apache License 2.0. These packages are linked into it.\n\n\
         | package | version | licence |\n|---|---|---|\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &packages {
        let Package { name, version, licence, .. } = package;
        writeln!(out, "| {name} | {version} | {licence} |").expect("a String takes everything");
        for text in package.texts() {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    let mut texts: Vec<(Vec<String>, String)> =
        texts.into_iter().map(|(text, packages)| (packages, text)).collect();
    texts.sort();
    for (packages, text) in texts {
        let fence = "`".repeat(4);
        write!(out, "\n## {}\n\n{fence}text\n{text}\n{fence}\n", packages.join(", "))
            .expect("a String takes everything");
    }
    Ok(out)
}
