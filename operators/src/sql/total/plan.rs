//! Plans whose operations are total.
//!
//! Rewritten as the planner makes them, before any other rule of the physical optimizer: then there
//! are few kinds of nodes, and optimizers move the wrapped expressions as they move any other.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use super::count::Root;
use super::{Total, total};

type Expr = Arc<dyn PhysicalExpr>;
type Plan = Arc<dyn ExecutionPlan>;

/// Makes the operations of a plan total, as the first rule of the physical optimizer.
#[derive(Debug)]
pub(in crate::sql) struct TotalOperations {
    counting: Counting,
}

impl TotalOperations {
    /// [`counted`](super::counted) counts what fails. The plan is less well optimized.
    pub(in crate::sql) fn counted() -> Self {
        Self { counting: Counting::On }
    }

    /// Nothing counts what fails.
    pub(in crate::sql) fn uncounted() -> Self {
        Self { counting: Counting::Off }
    }
}

impl PhysicalOptimizerRule for TotalOperations {
    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        rewrite(plan, self.counting)
    }

    fn name(&self) -> &str {
        "total_operations"
    }

    /// Columns that could not be null can be now.
    fn schema_check(&self) -> bool {
        false
    }
}

/// The plan with total operations, whose failures [`counted`](super::counted) counts.
pub(crate) fn total_plan(plan: Plan) -> Result<Plan> {
    rewrite(plan, Counting::On)
}

/// The expression with total operations, whose failures [`counted`](super::counted) counts.
/// `schema` is that of the rows.
pub(crate) fn total_root(expr: &Expr, schema: &Schema) -> Result<Expr> {
    Counting::On.root(expr, schema)
}

#[derive(Debug, Clone, Copy)]
enum Counting {
    On,
    /// Roots hide conjunctions from the rules of the optimizer.
    Off,
}

impl Counting {
    fn root(self, expr: &Expr, schema: &Schema) -> Result<Expr> {
        let inner = total(expr, schema)?;
        Ok(match self {
            Self::On if !Arc::ptr_eq(&inner, expr) => Arc::new(Root { inner }),
            _ => inner,
        })
    }
}

fn rewrite(plan: Plan, counting: Counting) -> Result<Plan> {
    plan.transform_up(|node| Ok(Transformed::yes(rewrite_node(node, counting)?))).data()
}

fn rewrite_node(node: Plan, counting: Counting) -> Result<Plan> {
    if let Some(node) = node.downcast_ref::<ProjectionExec>() {
        let schema = node.input().schema();
        let exprs = node.expr().iter().map(|item| {
            let expr = counting.root(&item.expr, &schema)?;
            Ok(ProjectionExpr { expr, alias: item.alias.clone() })
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(node.input()))?));
    }
    if let Some(node) = node.downcast_ref::<FilterExec>() {
        let predicate = counting.root(node.predicate(), &node.input().schema())?;
        return Ok(Arc::new(FilterExecBuilder::from(node).with_predicate(predicate).build()?));
    }
    if let Some(node) = node.downcast_ref::<AggregateExec>() {
        return aggregate(node, counting);
    }
    if let Some(node) = node.downcast_ref::<SortExec>() {
        return sort(node);
    }
    if let Some(node) = node.downcast_ref::<HashJoinExec>() {
        let (left, right) = (node.left().schema(), node.right().schema());
        let on = node.on().iter().map(|(l, r)| Ok((total(l, &left)?, total(r, &right)?)));
        let builder = node.builder().with_on(on.collect::<Result<_>>()?);
        return builder.with_filter(join_filter(node.filter(), counting)?).build_exec();
    }
    if let Some(node) = node.downcast_ref::<NestedLoopJoinExec>() {
        return Ok(Arc::new(NestedLoopJoinExec::try_new(
            Arc::clone(node.left()),
            Arc::clone(node.right()),
            join_filter(node.filter(), counting)?,
            node.join_type(),
            node.projection().as_ref().map(|columns| columns.to_vec()),
        )?));
    }
    if let Some(node) = node.downcast_ref::<UnnestExec>() {
        return Ok(Arc::new(UnnestExec::new(
            Arc::clone(node.input()),
            node.list_column_indices().to_vec(),
            node.struct_column_indices().to_vec(),
            nullable(&node.schema()),
            node.options().clone(),
        )?));
    }
    let windows = node
        .downcast_ref::<WindowAggExec>()
        .map(WindowAggExec::input)
        .or_else(|| node.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::input));
    if let Some(input) = windows {
        let given = input.schema().fields().len();
        return finite_from(given, node);
    }
    Ok(node)
}

/// A stage of an aggregation. Its results are made finite: sums overflow, and a correlation of
/// equal values is none.
fn aggregate(node: &AggregateExec, counting: Counting) -> Result<Plan> {
    let input = node.input();
    let takes_rows = matches!(
        node.mode(),
        AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned
    );
    let rows = match input.downcast_ref::<AggregateExec>() {
        Some(below) if !takes_rows => below.input_schema(),
        _ if takes_rows => input.schema(),
        _ => node.input_schema(),
    };
    let groups = node.group_expr();
    let mut group_exprs = Vec::new();
    for (expr, name) in groups.expr() {
        group_exprs.push((counting.root(expr, &input.schema())?, name.clone()));
    }
    let (nulls, sets) = (groups.null_expr().to_vec(), groups.groups().to_vec());
    let group_by = PhysicalGroupBy::new(group_exprs, nulls, sets, groups.has_grouping_set());
    let (mut functions, mut filters) = (Vec::new(), Vec::new());
    for (function, filter) in node.aggr_expr().iter().zip(node.filter_expr()) {
        functions.push(aggregate_function(function, &rows, counting)?);
        filters.push(filter.as_ref().map(|filter| counting.root(filter, &rows)).transpose()?);
    }
    let given = groups.num_group_exprs() + usize::from(groups.has_grouping_set());
    let total = AggregateExec::try_new(*node.mode(), group_by, functions, filters, Arc::clone(input), rows)?;
    let total = total.with_limit_options(node.limit_options());
    match node.mode() {
        AggregateMode::Partial | AggregateMode::PartialReduce => Ok(Arc::new(total)),
        _ => finite_from(given, Arc::new(total)),
    }
}

fn aggregate_function(
    function: &Arc<AggregateFunctionExpr>,
    rows: &Schema,
    counting: Counting,
) -> Result<Arc<AggregateFunctionExpr>> {
    let all = function.all_expressions();
    let root =
        |exprs: &[Expr]| exprs.iter().map(|expr| counting.root(expr, rows)).collect::<Result<Vec<_>>>();
    let (args, orders) = (root(&all.args)?, root(&all.order_by_exprs)?);
    let same = |new: &[Expr], old: &[Expr]| new.iter().zip(old).all(|(new, old)| Arc::ptr_eq(new, old));
    if same(&args, &all.args) && same(&orders, &all.order_by_exprs) {
        return Ok(Arc::clone(function));
    }
    match function.with_new_expressions(args, orders) {
        Some(function) => Ok(Arc::new(function)),
        None => datafusion::common::internal_err!("{} takes no other arguments", function.name()),
    }
}

fn sort(node: &SortExec) -> Result<Plan> {
    let schema = node.input().schema();
    let mut keys = Vec::new();
    for key in node.expr() {
        keys.push(PhysicalSortExpr { expr: total(&key.expr, &schema)?, options: key.options });
    }
    let Some(keys) = LexOrdering::new(keys) else { return Ok(Arc::new(node.clone())) };
    let sort = SortExec::new(keys, Arc::clone(node.input())).with_fetch(node.fetch());
    Ok(Arc::new(sort.with_preserve_partitioning(node.preserve_partitioning())))
}

fn join_filter(filter: Option<&JoinFilter>, counting: Counting) -> Result<Option<JoinFilter>> {
    let Some(filter) = filter else { return Ok(None) };
    let expr = counting.root(filter.expression(), filter.schema())?;
    Ok(Some(JoinFilter::new(expr, filter.column_indices().to_vec(), nullable(filter.schema()))))
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// The rows of `node` with null in place of floats that are not finite, in its columns from the
/// number `first` on.
fn finite_from(first: usize, node: Plan) -> Result<Plan> {
    let schema = node.schema();
    let is_float = |field: &DataType| field.is_floating();
    if !schema.fields().iter().skip(first).any(|field| is_float(field.data_type())) {
        return Ok(node);
    }
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let column: Expr = Arc::new(Column::new(field.name(), index));
        let makes_finite = index >= first && is_float(field.data_type());
        let expr = if makes_finite { Arc::new(Total { inner: column }) } else { column };
        ProjectionExpr { expr, alias: field.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), node)?))
}
