//! The two halves of an aggregation, as DataFusion plans that run on batches in memory.
//!
//! `partial` turns points into mergeable states, `reduce` merges states, `finish` turns states into
//! results. State is plain Arrow: the group columns, then the state columns of each aggregate.
//! DataFusion plans the SELECT once; the stages reuse its aggregate nodes, so every aggregate
//! function of DataFusion works.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions, displayable};
use futures::executor::block_on;

use crate::sql::{Failed, counted, panicked, total_plan};

type Batches = Box<dyn Iterator<Item = RecordBatch> + Send>;

/// Where batches enter a plan: a leaf that yields what was last put into it.
pub(crate) struct Inlet {
    schema: SchemaRef,
    batches: Mutex<Option<Batches>>,
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Inlet {
    pub(crate) fn new(schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self { schema, batches: Mutex::default() })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The inlet as a table that SQL can be planned over.
    pub(crate) fn table(self: &Arc<Self>) -> Result<StreamingTable> {
        StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::clone(self) as Arc<dyn PartitionStream>])
    }

    /// Puts in what the plan reads when it is executed next.
    pub(crate) fn fill(&self, rows: RecordBatch) {
        let batches: Batches = Box::new(std::iter::once(rows));
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner) = Some(batches);
    }

    fn plan(self: &Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.schema);
        let partitions = vec![Arc::clone(self) as Arc<dyn PartitionStream>];
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, vec![], false, None)?))
    }
}

impl PartitionStream for Inlet {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = futures::stream::iter(batches.into_iter().flatten().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

/// Rows that a plan is given at once. What it makes of a batch on the way, filtered rows and
/// evaluated expressions, is as large as the batch.
pub(crate) const ROWS: usize = 8_192;

/// One plan and the inlet under it. Its operations are total: see [`crate::sql::total`].
#[derive(Debug)]
pub(crate) struct Stage {
    inlet: Arc<Inlet>,
    plan: Arc<dyn ExecutionPlan>,
    /// The plan as it was made by DataFusion.
    text: String,
    /// Held while batches are put in and the plan is started, so that callers do not take each
    /// other's.
    start: Mutex<()>,
}

impl Stage {
    fn new(inlet: Arc<Inlet>, plan: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let text = displayable(plan.as_ref()).indent(false).to_string();
        Ok(Self { inlet, plan: total_plan(plan)?, text, start: Mutex::new(()) })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Runs the plan over `batches` to completion, without a runtime: everything it reads is in
    /// memory, or made from what is there when its turn comes. What operations fail on is counted;
    /// a panic, of an aggregate above all, is an error.
    pub(crate) fn run<B>(&self, batches: B, context: &Arc<TaskContext>) -> Result<(RecordBatch, Failed)>
    where
        B: IntoIterator<Item = RecordBatch, IntoIter: Send + 'static>,
    {
        let (rows, failed) = counted(|| {
            let run = AssertUnwindSafe(|| self.collect(batches, context));
            catch_unwind(run).unwrap_or_else(|panic| Err(panicked(&*panic)))
        });
        Ok((rows?, failed))
    }

    fn collect<B>(&self, batches: B, context: &Arc<TaskContext>) -> Result<RecordBatch>
    where
        B: IntoIterator<Item = RecordBatch, IntoIter: Send + 'static>,
    {
        let schema = self.plan.schema();
        let mut batches = batches.into_iter().filter(|batch| batch.num_rows() > 0).peekable();
        if batches.peek().is_none() {
            return Ok(RecordBatch::new_empty(schema));
        }
        // A plan's metrics grow with each execution, so each runs on a fresh copy of the nodes.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        let stream = {
            let _guard = self.start.lock().unwrap_or_else(PoisonError::into_inner);
            *self.inlet.batches.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Box::new(batches.flat_map(slices)));
            plan.execute(0, Arc::clone(context))?
        };
        let results = block_on(datafusion::physical_plan::common::collect(stream))?;
        match results.as_slice() {
            [one] => Ok(one.clone()),
            many => Ok(concat_batches(&schema, many)?),
        }
    }

    pub(crate) fn explain(&self) -> &str {
        &self.text
    }
}

fn slices(batch: RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows).step_by(ROWS).map(move |from| batch.slice(from, ROWS.min(rows - from)))
}

/// The three stages of one rollup.
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) partial: Stage,
    pub(crate) reduce: Stage,
    pub(crate) finish: Stage,
    /// The state column that counts the points of a state.
    pub(crate) points_column: usize,
}

impl Stages {
    /// Cuts a planned SELECT, whose leaf is `points`, at its aggregation.
    ///
    /// # Errors
    /// When the plan does not aggregate by exactly the `groups` expressions of the query.
    pub(crate) fn cut(planned: Arc<dyn ExecutionPlan>, points: Arc<Inlet>, groups: usize) -> Result<Self> {
        let mut above = Vec::new();
        let mut node = planned;
        while node.downcast_ref::<AggregateExec>().is_none() {
            let child = match node.children().as_slice() {
                [child] => Arc::clone(child),
                _ => return unmergeable(&format!("{} does not stand above an aggregation", node.name())),
            };
            above.push(node);
            node = child;
        }
        let aggregate = aggregate_of(&node, AggregateMode::Final)?;
        let partial = Arc::clone(aggregate.input());
        let first = aggregate_of(&partial, AggregateMode::Partial)?;
        can_accumulate(first)?;
        let group_columns = first.output_group_expr().len();
        if group_columns != groups {
            return unmergeable(&format!("{groups} group expressions were planned as {group_columns}"));
        }
        let points_column = points_column(first, group_columns)?;

        let partial = Stage::new(points, partial)?;
        let (inlet, plan) = second_half(aggregate, AggregateMode::PartialReduce, &partial.schema())?;
        let reduce = Stage::new(inlet, plan)?;
        let (inlet, mut plan) = second_half(aggregate, AggregateMode::Final, &partial.schema())?;
        for node in above.into_iter().rev() {
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            plan = node.replace_children(vec![plan], options)?;
        }
        Ok(Self { partial, reduce, finish: Stage::new(inlet, plan)?, points_column })
    }
}

fn second_half(
    aggregate: &AggregateExec,
    mode: AggregateMode,
    states: &SchemaRef,
) -> Result<(Arc<Inlet>, Arc<dyn ExecutionPlan>)> {
    let inlet = Inlet::new(Arc::clone(states));
    let plan = AggregateExec::try_new(
        mode,
        aggregate.group_expr().as_final(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        inlet.plan()?,
        aggregate.input_schema(),
    )?;
    Ok((inlet, Arc::new(plan)))
}

fn aggregate_of(node: &Arc<dyn ExecutionPlan>, mode: AggregateMode) -> Result<&AggregateExec> {
    match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) if *aggregate.mode() == mode => Ok(aggregate),
        _ => unmergeable(&format!("{} stands where the aggregation in mode {mode:?} should", node.name())),
    }
}

/// Some functions find out only when they start that they do not take the type of their argument.
fn can_accumulate(aggregate: &AggregateExec) -> Result<()> {
    for function in aggregate.aggr_expr() {
        if function.groups_accumulator_supported() {
            function.create_groups_accumulator()?;
        } else {
            function.create_accumulator()?;
        }
    }
    Ok(())
}

/// The state column of the plain `count(*)` that every rollup carries.
fn points_column(aggregate: &AggregateExec, group_columns: usize) -> Result<usize> {
    let mut column = group_columns;
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let counts_rows = function.fun().name() == "count"
            && !function.is_distinct()
            && filter.is_none()
            && function.expressions().iter().all(|argument| {
                argument.downcast_ref::<datafusion::physical_expr::expressions::Literal>().is_some()
            });
        if counts_rows {
            return Ok(column);
        }
        column += function.state_fields()?.len();
    }
    unmergeable("the planned aggregation has no count of points")
}

fn unmergeable<T>(detail: &str) -> Result<T> {
    Err(DataFusionError::Plan(format!("the query cannot be computed from partial states: {detail}")))
}
