//! A rollup's SELECT in batch, over the archived points of a range.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{FieldRef, Schema, TimestampNanosecondType};
use datafusion::catalog::TableProvider;
use datafusion::prelude::{SessionContext, col};
use sinks::parquet::live::retry_while_missing;

use crate::cold::{self, Cold, MEMORY, POINTS};
use crate::error::Result;
use crate::percentile::{Judged, widen};
use crate::target::Target;

/// A target's query, ready for any range.
#[derive(Debug)]
pub struct BatchQuery {
    sql: String,
    /// By column of the target's schema.
    judged: Vec<Judged>,
}

/// The result of a query over one range.
#[derive(Debug)]
pub struct Batch {
    /// Columns of the target's schema, then those that bound percentiles.
    pub rows: RecordBatch,
    /// Event hours of which the archive holds points.
    pub hours: BTreeSet<i64>,
}

impl BatchQuery {
    /// The SELECT, widened by the columns that bound percentiles: see [`Self::judged`].
    pub fn new(target: &Target) -> Self {
        let (sql, judged) = widen(&target.batch_sql);
        Self { sql, judged }
    }

    /// Without what bounds percentiles: for rows that are not compared with stored ones.
    pub fn plain(target: &Target) -> Self {
        Self { sql: target.batch_sql.clone(), judged: Vec::new() }
    }

    /// How a column of the target's schema is compared.
    pub fn judged(&self, column: usize) -> &Judged {
        self.judged.get(column).unwrap_or(&Judged::Exactly)
    }

    /// Columns that no bound is known for.
    pub fn not_compared(&self, target: &Target) -> Vec<String> {
        let columns = target.table.fields.iter().filter(|column| *self.judged(**column) == Judged::Not);
        columns.map(|column| target.schema.field(*column).name().clone()).collect()
    }

    /// The rows of the windows that start in `[from, to)`; both must be starts of windows.
    ///
    /// # Errors
    /// Storage that cannot be read, files that are none of the archive's, and DataFusion's errors.
    pub async fn run(&self, cold: &Cold, target: &Target, from: i64, to: i64) -> Result<Batch> {
        retry_while_missing(|| self.attempt(cold, target, from, to)).await
    }

    async fn attempt(&self, cold: &Cold, target: &Target, from: i64, to: i64) -> Result<Batch> {
        let session = cold.session(Some(MEMORY))?;
        let end = target.windows.end_of_last(to);
        let files = cold.hours(Some((from, end))).await?;
        let hours = files.keys().copied().collect();
        let Some(points) =
            cold.table(&session, files.into_values().flatten().collect(), &POINTS, None).await?
        else {
            return Ok(Batch { rows: RecordBatch::new_empty(Arc::clone(&target.schema)), hours });
        };
        let rows = self.select(&session, points, from, end).await?;
        Ok(Batch { rows: within(target, &typed(target, &rows)?, from, to)?, hours })
    }

    async fn select(
        &self,
        session: &SessionContext,
        points: Arc<dyn TableProvider>,
        from: i64,
        to: i64,
    ) -> datafusion::error::Result<RecordBatch> {
        let points = session.read_table(points)?.filter(cold::within(col("time"), from, to))?;
        session.register_table("points", points.into_view())?;
        let frame = session.sql(&self.sql).await?;
        // Also a count may be null in its column, when arithmetic with it has failed.
        let fields = frame.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(concat_batches(&schema, &frame.collect().await?)?)
    }
}

/// Windows that overlap begin before the first point, and end after the last: those are not whole.
fn within(target: &Target, rows: &RecordBatch, from: i64, to: i64) -> Result<RecordBatch> {
    let starts = rows.column(target.table.time).as_primitive_opt::<TimestampNanosecondType>();
    let Some(starts) = starts else { return Ok(rows.clone()) };
    let inside: BooleanArray =
        starts.iter().map(|start| start.map(|start| from <= start && start < to)).collect();
    Ok(filter_record_batch(rows, &inside)?)
}

/// The columns of the target in the types of its schema: text from Parquet may come as another kind
/// of text.
fn typed(target: &Target, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns = Vec::new();
    for (index, column) in rows.columns().iter().enumerate() {
        let field = match target.schema.fields().get(index) {
            Some(field) => Arc::clone(field),
            None => Arc::clone(&rows.schema().fields()[index]),
        };
        columns.push(cast(column, field.data_type())?);
        fields.push(field);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
