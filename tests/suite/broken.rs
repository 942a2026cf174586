//! What a newcomer reads after a mistake: the output of `check` on the folders in `broken`, word
//! for word.
//!
//! A folder holds what is wrong of `pipeline.toml`, `sql/` and `alerts.toml`; the rest is that of
//! `broken/sound`. There are no rules beside a folder's own `sql/`.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use pipeline::commands::check::check;
use pipeline::config::Environment;

use crate::golden;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |folder: &std::path::PathBuf| {
        let folder = folder.clone();
        Trial::test(format!("check::{}", golden::name_of(&folder)), move || report(&folder))
    };
    golden::folders("broken").iter().map(trial).collect()
}

fn report(folder: &Path) -> Result<(), Failed> {
    let sound = golden::suite("broken").join("sound");
    let place = |name: &str| {
        let own = folder.join(name);
        if own.exists() { own } else { sound.join(name) }
    };
    // Relative paths start at the working directory, which all trials share.
    let mut variables = vec![("TIDEMARK_ROLLUP__SQL".to_owned(), place("sql").display().to_string())];
    if folder.join("alerts.toml").exists() || !folder.join("sql").exists() {
        variables.push(("TIDEMARK_ALERTS__RULES".to_owned(), place("alerts.toml").display().to_string()));
    }
    let environment = Environment::from_iter(variables);
    let report = check(&place("pipeline.toml"), &environment).to_string();
    let report = report.replace(&format!("{}/", folder.display()), "");
    golden::check_text(&folder.join("expected.txt"), &format!("{report}\n"))
}
