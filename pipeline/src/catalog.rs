//! The rollups of a directory of SQL files, their tiers, and the names that mistakes are held
//! against.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use operators::sql::{self, Catalog, Rollup, SqlError};

use crate::config::{Config, ConfigError, TierConfig, suggest};

/// The directory of the rollups cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: cannot read the directory of the rollups: {source}\n  help: `sql` in [rollup] names it, relative to the working directory",
    path.display()
)]
pub struct SqlDirError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Plans the rollups of every `.sql` file in `sql_dir`, in the order of their names. Files that
/// cannot be read or are refused are in `errors` of the catalog.
///
/// # Errors
/// When the directory itself cannot be read.
pub fn load_catalog(sql_dir: &Path) -> Result<Catalog, SqlDirError> {
    let unreadable = |source| SqlDirError { path: sql_dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(sql_dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Hidden files are those of editors, archives and systems, such as `._cpu.sql`.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let file = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => files.push((file, text)),
            Err(error) => errors.push(SqlError {
                file,
                line: 0,
                column: 0,
                message: format!("cannot read the file: {error}"),
                remedy: "it must be text in UTF-8 that this user may read".to_owned(),
            }),
        }
    }
    let mut catalog = sql::compile(&files);
    catalog.errors.append(&mut errors);
    catalog.errors.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(catalog)
}

/// The names of all tiers beyond the finest of their rollup.
pub(crate) fn coarser_tiers(catalog: &Catalog) -> BTreeSet<String> {
    let coarser = catalog.rollups.iter().flat_map(|rollup| &rollup.tiers()[1..]);
    coarser.map(|tier| tier.name.clone()).collect()
}

/// Tiers that the configuration has a bucket for, but no rollup.
pub fn unused_tiers(config: &Config, catalog: &Catalog) -> Vec<ConfigError> {
    let Some(influx) = &config.influx else { return Vec::new() };
    let used = coarser_tiers(catalog);
    let names: Vec<&str> = used.iter().map(String::as_str).collect();
    let remedy = |name: &str| match names.is_empty() {
        true => "list it in WITH (tiers = …) of a SQL file, or remove the section".to_owned(),
        false => format!("{}; or remove the section", suggest(name, &names)),
    };
    let unused = influx.tiers.iter().filter(|(name, _)| !used.contains(*name));
    let error = |(name, tier): (&String, &TierConfig)| {
        tier.error(format!("no rollup has the tier `{name}` beyond its finest"), remedy(name))
    };
    unused.map(error).collect()
}

/// The nearest of the rollups, or all of them.
pub(crate) fn suggest_rollup(given: &str, names: &[&str]) -> String {
    match names {
        [] => "there are no rollups: write one as a .sql file in the directory that `sql` in [rollup] names"
            .to_owned(),
        names => suggest(given, names),
    }
}

pub(crate) fn rollup_names(rollups: &[Arc<Rollup>]) -> Vec<&str> {
    rollups.iter().map(|rollup| rollup.name.as_str()).collect()
}
