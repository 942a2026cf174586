//! Rollups defined in SQL: parsing, refusing what cannot be streamed, planning.
//!
//! - `view`: a file's `CREATE MATERIALIZED VIEW … AS SELECT …`
//! - `refuse`: what the SELECT may not hold, and what to write instead
//! - `total`: operations that fail on a row give null for it; `constants`: those that are computed
//!   when planning; `sums`: those of whole numbers; `session`, `expression`: where SQL is planned
//!   so; `cause`: why an operation failed
//! - `labels`: `labels['x']` as a column of its own; `empty`: group columns without a text
//! - `tumble`, `hop`: the window functions; `tier`: windows of several lengths from the same states
//! - `rollup`: a planned rollup; `run`: what it computes; `by_group`: at the cost of the groups
//!   that fail; `batch`: its SELECT as it runs over all points at once
//! - `columns`: its window, tags and fields; `planning`: DataFusion's errors in our words; `place`:
//!   where they are

mod batch;
mod by_group;
mod cause;
mod columns;
mod constants;
mod empty;
mod error;
mod expression;
mod hop;
mod labels;
mod place;
mod planning;
mod refuse;
mod rollup;
mod run;
mod session;
mod sums;
mod tier;
mod total;
mod tumble;
mod view;

#[cfg(test)]
mod aggregates_tests;
#[cfg(test)]
mod fingerprint_tests;

pub(crate) use cause::{cause, panicked};
pub use error::SqlError;
pub(crate) use expression::plan_expression;
pub use labels::label_column;
pub(crate) use planning::constant_error;
pub(crate) use rollup::points_schema;
pub use rollup::{Rollup, Shape};
pub(crate) use run::{Finished, Reduced};
pub use session::batch_session;
pub(crate) use session::rule_session;
pub use tier::{Tier, tier_name};
pub use total::finite_rows;
pub(crate) use total::{Failed, counted, total_plan};
pub(crate) use view::chain_of_operations;
pub use view::long_chain;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use view::View;

/// The hidden count of the points of every result row.
pub const POINTS_COLUMN: &str = "__points";

/// All rollups of a deployment, planned over one shared table of points.
#[derive(Debug, Default)]
pub struct Catalog {
    pub rollups: Vec<Arc<Rollup>>,
    /// The labels that some rollup asks for, sorted: one column each after `name`, `time` and
    /// `value`.
    pub labels: Vec<String>,
    /// Why files were left out. The others run without them.
    pub errors: Vec<SqlError>,
}

/// The functions that a tier's SELECT needs in batch, for registration in a session of plain
/// DataFusion. Only in [`batch_session`] does the SELECT mean what it means in a stream also where
/// operations fail.
pub fn batch_functions() -> [ScalarUDF; 2] {
    [tumble::tumble_udf(), hop::hop_starts_udf()]
}

/// Plans the rollups of `files`, given as (name, text). A refused file does not stop the others.
///
/// ```
/// let good = "CREATE MATERIALIZED VIEW cpu AS
///     SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host,
///            avg(value) AS avg
///     FROM points WHERE name = 'cpu.load' GROUP BY 1, 2";
/// let bad = "CREATE MATERIALIZED VIEW all_hosts AS SELECT * FROM points";
/// let files = [("cpu.sql".to_owned(), good.to_owned()), ("bad.sql".to_owned(), bad.to_owned())];
/// let catalog = operators::sql::compile(&files);
/// assert_eq!(catalog.rollups[0].name, "cpu");
/// assert_eq!(catalog.labels, ["host"]);
/// assert_eq!(catalog.errors.len(), 1);
/// ```
pub fn compile(files: &[(String, String)]) -> Catalog {
    let mut views: Vec<(&str, View, Vec<String>)> = Vec::new();
    let mut catalog = Catalog::default();
    for (file, text) in files {
        match view::parse(text) {
            Err(error) => catalog.errors.push(error.in_file(file)),
            Ok(view) => {
                if let Some((first, ..)) = views.iter().find(|(_, other, _)| other.name == view.name) {
                    let message = format!("a second rollup named `{}`", view.name);
                    let remedy = format!("rename it, or the one in {first}");
                    catalog.errors.push(SqlError::new(view.name_span, message, remedy).in_file(file));
                    continue;
                }
                let labels = labels::labels_to_columns(&mut view.select.clone());
                views.push((file, view, labels));
            }
        }
    }
    let names: Vec<String> = views.iter().map(|(_, view, _)| view.name.clone()).collect();
    catalog.labels = views.iter().flat_map(|(_, _, labels)| labels.clone()).collect();
    catalog.labels.sort();
    catalog.labels.dedup();
    for (file, view, _) in views {
        match view.refuse_taken_tables(&names).and_then(|()| Rollup::plan(view, &catalog.labels)) {
            Ok(rollup) => catalog.rollups.push(Arc::new(rollup)),
            Err(error) => catalog.errors.push(error.in_file(file)),
        }
    }
    catalog.rollups.sort_by(|a, b| a.name.cmp(&b.name));
    catalog
}
