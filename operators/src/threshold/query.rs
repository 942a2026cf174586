//! Rules over SQL: a SELECT over the closed windows of one rollup, or over two that are joined by
//! window and group.
//!
//! The SELECT sees the rows of the windows that have just closed, so it has to give each window's
//! rows from that window alone; what looks back are the functions of [`super::functions`], which
//! have a state per group. They become columns of the rows before the SELECT runs.

use super::compile::refuse_chains;
use super::complaint::{Complaint, listed, nearest};
use super::condition::{explain, refuse_unrepeatable};
use super::functions::{FUNCTIONS, Function};
use super::rule::Watched;
use crate::sql::{Shape, finite_rows, plan_expression, rule_session};
use crate::stages::Inlet;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, common::collect};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query as SqlQuery, Select,
    SetExpr, Statement as SqlStatement, TableFactor, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::executor::block_on;
use std::ops::ControlFlow;
use std::sync::Arc;

const FORM: &str = "write `SELECT window_start, host, avg, ema(avg, 0.2) AS smooth FROM cpu_by_host`";

/// A planned SELECT.
pub(super) struct Query {
    /// The rollups that it reads, in the order of the inlets.
    pub(super) sources: Vec<String>,
    inlets: Vec<Arc<Inlet>>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    pub(super) calls: Vec<Call>,
    /// Column and name of each tag of the first source.
    pub(super) tags: Vec<(usize, String)>,
}

/// A function that looks back, and what it is of.
pub(super) struct Call {
    pub(super) function: Function,
    argument: Arc<dyn PhysicalExpr>,
    /// The rows with its column.
    schema: SchemaRef,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Query {
    /// Plans `sql` over rollups, each given by its name and what a rule can see of it. Returns what
    /// the rule sees then.
    pub(super) fn compile(
        sql: &str,
        rollups: &dyn Fn(&str) -> Result<Watched, Complaint>,
    ) -> Result<(Self, Watched), Complaint> {
        refuse_chains(sql)?;
        let mut select = parse(sql)?;
        let tables = tables(&select)?;
        let mut watched = Vec::new();
        for (name, _) in &tables {
            watched.push(rollups(name)?);
        }
        let calls = match watched.as_slice() {
            [one] => take_calls(&mut select, &tables[0].1, one)?,
            _ => refuse_calls(&mut select)?,
        };
        let windows = watched[0].windows;
        if let Some(other) = watched.iter().find(|other| other.windows != windows) {
            let message = format!("windows of {} and of {windows} do not close together", other.windows);
            return Err(Complaint::new(message, "join rollups or tiers of one length, see the key `tier`"));
        }

        let session = rule_session();
        let mut inlets = Vec::new();
        for ((name, _), source) in tables.iter().zip(&watched) {
            let schema =
                calls.last().map_or_else(|| Arc::clone(&source.schema), |call| Arc::clone(&call.schema));
            let inlet = Inlet::new(schema);
            let table = inlet.table().map_err(|error| own(&error))?;
            session.register_table(name.as_str(), Arc::new(table)).map_err(|error| own(&error))?;
            inlets.push(inlet);
        }
        let query = SqlQuery {
            with: None,
            body: Box::new(SetExpr::Select(Box::new(select))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        };
        let statement = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
        let state = session.state();
        let columns = DFSchema::try_from(watched[0].schema.as_ref().clone()).map_err(|error| own(&error))?;
        let logical =
            block_on(state.statement_to_plan(statement)).map_err(|error| explain(&error, &columns))?;
        refuse_beyond_a_window(&logical, watched.len())?;
        let plan =
            block_on(state.create_physical_plan(&logical)).map_err(|error| explain(&error, &columns))?;
        let schema = plan.schema();
        let shape = shape(&schema, &watched)?;
        let sees = Watched {
            schema,
            shape,
            windows,
            // What it makes of one window may depend on others, or on rows that are not at hand any
            // more.
            lateness: if calls.is_empty() && watched.len() == 1 { watched[0].lateness } else { 0 },
            growing: Vec::new(),
        };
        let sources = tables.into_iter().map(|(name, _)| name).collect();
        let tags = watched[0].tags().map(|(column, name)| (column, name.to_owned())).collect();
        Ok((Self { sources, inlets, plan, context: session.task_ctx(), calls, tags }, sees))
    }

    /// Of each source, the columns that the plan reads.
    pub(super) fn schemas(&self) -> impl Iterator<Item = SchemaRef> {
        self.inlets.iter().map(|inlet| inlet.schema())
    }

    /// Runs over the rows of each source, which have the columns of [`Query::extend`].
    pub(super) fn run(&self, rows: Vec<RecordBatch>) -> Result<RecordBatch, String> {
        for (inlet, rows) in self.inlets.iter().zip(rows) {
            // A column that looks back may have come to what is no number.
            inlet.fill(finite_rows(&rows));
        }
        let run = || {
            let plan = reset_plan_states(Arc::clone(&self.plan))?;
            let stream = plan.execute(0, Arc::clone(&self.context))?;
            let batches = block_on(collect(stream))?;
            Ok::<_, DataFusionError>(concat_batches(&self.plan.schema(), &batches)?)
        };
        run().map_err(|error| error.strip_backtrace())
    }

    /// Adds the column of each function; `remember` gives its value for a row: number of the
    /// function, row, argument.
    pub(super) fn extend(
        &self,
        rows: &RecordBatch,
        mut remember: impl FnMut(usize, usize, Option<f64>) -> Option<f64>,
    ) -> Result<RecordBatch, String> {
        let mut rows = rows.clone();
        for (number, call) in self.calls.iter().enumerate() {
            let extended = call.values(&rows).and_then(|values| {
                let value = |row| remember(number, row, values.is_valid(row).then(|| values.value(row)));
                let column: Float64Array = (0..rows.num_rows()).map(value).collect();
                let mut columns = rows.columns().to_vec();
                columns.push(Arc::new(column) as ArrayRef);
                Ok(RecordBatch::try_new(Arc::clone(&call.schema), columns)?)
            });
            rows = extended.map_err(|error| error.strip_backtrace())?;
        }
        Ok(rows)
    }
}

impl Call {
    fn values(&self, rows: &RecordBatch) -> Result<Float64Array, DataFusionError> {
        let values = self.argument.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(cast(&values, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    }
}

fn parse(sql: &str) -> Result<Select, Complaint> {
    let parsed =
        Parser::new(&GenericDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_statements());
    let mut statements =
        parsed.map_err(|error| Complaint::new(error.to_string().replace("sql parser error: ", ""), FORM))?;
    let (Some(SqlStatement::Query(query)), None) = (statements.pop(), statements.pop()) else {
        return Err(Complaint::new("the query is not one SELECT", FORM));
    };
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    match *query.body {
        SetExpr::Select(select) if plain => Ok(*select),
        _ => Err(Complaint::new("WITH, UNION, ORDER BY and LIMIT have no meaning for a rule", FORM)),
    }
}

/// Name and alias of the tables after FROM.
fn tables(select: &Select) -> Result<Vec<(String, String)>, Complaint> {
    let mut tables = Vec::new();
    for from in &select.from {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            let TableFactor::Table { name, alias, .. } = factor else {
                return Err(Complaint::new("a rule reads rollups, and nothing else", FORM));
            };
            let name = name.to_string();
            let alias = alias.as_ref().map_or_else(|| name.clone(), |alias| alias.name.value.clone());
            tables.push((name, alias));
        }
    }
    match tables.len() {
        1 | 2 => Ok(tables),
        count => {
            let message = format!("the query reads {count} rollups");
            Err(Complaint::new(message, "read one, or join two by `USING (window_start, …)`"))
        }
    }
}

/// Replaces each function that looks back by a column.
fn take_calls(select: &mut Select, alias: &str, source: &Watched) -> Result<Vec<Call>, Complaint> {
    let mut calls: Vec<Call> = Vec::new();
    let context = rule_session();
    let walked = visit_expressions_mut(select, |expression| {
        let (function, argument) = match call_of(expression) {
            Ok(Some(found)) => found,
            Ok(None) => return ControlFlow::Continue(()),
            Err(complaint) => return ControlFlow::Break(complaint),
        };
        let schema = calls.last().map_or(&source.schema, |call| &call.schema);
        let planned = DFSchema::try_from_qualified_schema(alias, schema).map_err(|error| own(&error));
        let argument = planned.and_then(|columns| {
            let parsed =
                context.parse_sql_expr(&argument, &columns).map_err(|error| explain(&error, &columns))?;
            plan_expression(&context, parsed, &columns).map_err(|error| explain(&error, &columns))
        });
        let argument = match argument {
            Ok(argument) => argument,
            Err(complaint) => return ControlFlow::Break(complaint),
        };
        let name = format!("__{}", calls.len());
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new(&name, DataType::Float64, true)));
        calls.push(Call { function, argument, schema: Arc::new(Schema::new(fields)) });
        *expression = SqlExpr::Identifier(Ident::with_quote('"', name));
        ControlFlow::Continue(())
    });
    match walked {
        ControlFlow::Break(complaint) => Err(complaint),
        ControlFlow::Continue(()) => Ok(calls),
    }
}

fn refuse_calls(select: &mut Select) -> Result<Vec<Call>, Complaint> {
    let walked = visit_expressions_mut(select, |expression| match call_of(expression) {
        Ok(Some(_)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    match walked {
        ControlFlow::Continue(()) => Ok(Vec::new()),
        ControlFlow::Break(()) => {
            let names = listed(FUNCTIONS.iter().map(|(name, _)| *name));
            let message = format!("{names} look back in one rollup, and the query joins two");
            Err(Complaint::new(message, "compare the two as they are, or make two rules and a composite one"))
        }
    }
}

/// The function that an expression calls and its argument, when it is one of those that look back.
fn call_of(expression: &SqlExpr) -> Result<Option<(Function, String)>, Complaint> {
    let SqlExpr::Function(call) = expression else { return Ok(None) };
    let name = call.name.to_string().to_lowercase();
    if !FUNCTIONS.iter().any(|(known, _)| *known == name) || call.over.is_some() {
        return Ok(None);
    }
    let FunctionArguments::List(list) = &call.args else { return Ok(None) };
    let mut arguments = Vec::new();
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
            return Err(Complaint::new(format!("`{name}` takes values"), FORM));
        };
        arguments.push(argument.to_string());
    }
    let mut arguments = arguments.into_iter();
    let Some(value) = arguments.next() else {
        return Err(Complaint::new(format!("`{name}` has no value to look at"), FORM));
    };
    let function = Function::new(&name, arguments.next().as_deref())?;
    Ok(Some((function, value)))
}

/// A window's rows must come from that window alone: not from whatever windows happen to close with
/// it.
fn refuse_beyond_a_window(plan: &LogicalPlan, sources: usize) -> Result<(), Complaint> {
    let mut complaint = None;
    let mut joined = sources == 1;
    let walked = plan.apply(|node| {
        match node {
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => {
                complaint = Some(Complaint::new(
                    "a rule's query cannot aggregate, it sees the windows that have just closed",
                    "aggregate in a rollup, and select from that",
                ));
            }
            LogicalPlan::Window(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
                complaint = Some(Complaint::new(
                    "a rule's query cannot look at other rows by OVER, ORDER BY or LIMIT",
                    "use `lag`, `change`, `rate` or `ema`, which look back in the row's own group",
                ));
            }
            LogicalPlan::Join(join) => {
                let is_window =
                    |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == WINDOW_START);
                joined |= join.on.iter().any(|(left, right)| is_window(left) && is_window(right));
            }
            _ => {}
        }
        node.apply_expressions(|expression| {
            complaint = complaint.take().or(refuse_unrepeatable(expression).err());
            Ok(TreeNodeRecursion::Continue)
        })
    });
    if let Some(complaint) = complaint {
        return Err(complaint);
    }
    walked.map_err(|error| own(&error))?;
    match joined {
        true => Ok(()),
        false => Err(Complaint::new(
            "the join is not by window",
            "write `a JOIN b USING (window_start, …)` with the columns that both are grouped by",
        )),
    }
}

const WINDOW_START: &str = "window_start";

/// Of the result: the window, the text columns that are tags of a source, the numbers.
fn shape(schema: &SchemaRef, sources: &[Watched]) -> Result<Shape, Complaint> {
    let is_tag = |name: &str| sources.iter().any(|source| source.tags().any(|(_, tag)| tag == name));
    let is_text = |field: &Field| {
        matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    };
    let mut shape = Shape { time: usize::MAX, tags: Vec::new(), fields: Vec::new() };
    for (column, field) in schema.fields().iter().enumerate() {
        match field.name().as_str() {
            WINDOW_START => shape.time = column,
            name if is_text(field) && is_tag(name) => shape.tags.push(column),
            _ => shape.fields.push(column),
        }
    }
    if shape.time == usize::MAX {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let remedy = match nearest(WINDOW_START, names.into_iter()) {
            Some(close) => format!("rename `{close}` to `{WINDOW_START}`"),
            None => format!("select `{WINDOW_START}`, by which rows are told apart"),
        };
        return Err(Complaint::new("the query does not select the window of a row", remedy));
    }
    Ok(shape)
}

fn own(error: &DataFusionError) -> Complaint {
    Complaint::new(error.strip_backtrace(), FORM)
}
