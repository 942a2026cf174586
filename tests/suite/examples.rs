//! The files that the project comes with are ones that it accepts.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use pipeline::catalog::load_catalog;
use pipeline::commands::check::check;
use pipeline::commands::explain::explain;
use pipeline::commands::rule_tests::{self, TestArgs};
use pipeline::config::{Config, Environment};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("examples::have_no_problems", have_no_problems),
        Trial::test("examples::can_be_explained", can_be_explained),
        Trial::test("examples::rules_pass_their_tests", rules_pass_their_tests),
    ]
}

fn project(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).display().to_string()
}

fn have_no_problems() -> Result<(), Failed> {
    let environment = Environment::from_iter([
        ("TIDEMARK_ROLLUP__SQL".to_owned(), project("sql")),
        ("TIDEMARK_ALERTS__RULES".to_owned(), project("config/alerts.toml")),
    ]);
    let report = check(Path::new(&project("config/pipeline.toml")), &environment);
    if report.is_ok() && report.rollups > 0 && report.rules > 0 {
        Ok(())
    } else {
        Err(report.to_string().into())
    }
}

fn can_be_explained() -> Result<(), Failed> {
    let catalog = load_catalog(Path::new(&project("sql")))?;
    for rollup in &catalog.rollups {
        let text = explain(&catalog, &rollup.name, &Config::default())?;
        if !text.contains("mode=Partial") || !text.contains("mode=Final") {
            return Err(format!("both stages are shown: {text}").into());
        }
    }
    Ok(())
}

fn rules_pass_their_tests() -> Result<(), Failed> {
    let args = TestArgs { files: vec![project("config/alerts_test.toml").into()] };
    let environment = Environment::from_iter([]);
    let tested =
        rule_tests::run(&Config::default(), &environment, &args).map_err(|error| error.to_string())?;
    if tested.has_failed() { Err(tested.to_string().into()) } else { Ok(()) }
}
