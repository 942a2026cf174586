//! How many rows operations have failed on.
//!
//! An expression is evaluated on one thread from its root to its leaves, so what fails below a root
//! is added up in a place of the thread. A failure counts where it is seen: when the root of an
//! expression, a column of a result or an argument of an aggregate, has become null. One that
//! another part of the expression makes up for, `coalesce(…, 0)` or the other side of an AND, has
//! cost nothing.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{FieldRef, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

thread_local! {
    static FAILED: RefCell<Failed> = const { RefCell::new(Failed { rows: 0, first: None }) };
}

/// Rows on which operations have failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) rows: u64,
    /// Which operation failed first, and why.
    pub(crate) first: Option<String>,
}

impl Failed {
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.first = self.first.take().or(other.first);
    }
}

fn swap(failed: Failed) -> Failed {
    FAILED.with(|place| place.replace(failed))
}

pub(super) fn add(rows: usize, failure: impl FnOnce() -> String) {
    if rows == 0 {
        return;
    }
    FAILED.with_borrow_mut(|failed| {
        failed.rows += rows as u64;
        failed.first.get_or_insert_with(failure);
    });
}

/// What `run` gives, and the rows that operations of total plans have failed on in it.
pub(crate) fn counted<T>(run: impl FnOnce() -> T) -> (T, Failed) {
    let before = swap(Failed::default());
    let result = run();
    (result, swap(before))
}

pub(super) fn uncounted<T>(run: impl FnOnce() -> T) -> T {
    counted(run).0
}

pub(super) fn unless_failed<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let (result, failed) = counted(run);
    if result.is_ok() && failed.rows > 0 {
        FAILED.with_borrow_mut(|all| all.add(failed));
    }
    result
}

/// The root of an expression, which reads as `inner` does.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) inner: Arc<dyn PhysicalExpr>,
}

impl PhysicalExpr for Root {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let (values, mut failed) = counted(|| self.inner.evaluate(rows));
        let values = values?;
        if failed.rows > 0 {
            let nulls = match &values {
                ColumnarValue::Array(values) => values.logical_null_count(),
                ColumnarValue::Scalar(value) => {
                    if value.is_null() {
                        rows.num_rows()
                    } else {
                        0
                    }
                }
            };
            failed.rows = failed.rows.min(nulls as u64);
            if failed.rows > 0 {
                FAILED.with_borrow_mut(|all| all.add(failed));
            }
        }
        Ok(values)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { inner: children.swap_remove(0) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Root {}

impl Hash for Root {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}
