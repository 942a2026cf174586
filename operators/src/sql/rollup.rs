//! A planned rollup: its windows, the meaning of its columns, and the stages that compute it.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, Select, SelectItem, Statement as SqlStatement, visit_expressions,
};
use futures::executor::block_on;
use twox_hash::XxHash3_64;

use super::columns::Columns;
use super::empty::empty_is_null;
use super::error::SqlError;
use super::labels::{label_column, labels_to_columns};
use super::planning::planning_error;
use super::session::rollup_session;
use super::tier::{self, Tier};
use super::view::View;
use super::{POINTS_COLUMN, batch};
use crate::stages::{Inlet, Stages};

/// A rollup, ready to run on batches.
#[derive(Debug)]
pub struct Rollup {
    pub name: String,
    /// How long after its end a window is still corrected, nanoseconds.
    pub allowed_lateness: i64,
    /// Groups of one window, beyond which points go to its overflow group; none leaves it to the
    /// configuration.
    pub series_limit: Option<u64>,
    /// Columns of a result: the window's start, the tags, the fields.
    pub schema: SchemaRef,
    pub shape: Shape,
    /// Tells states of this plan from those of another: a hash of what decides them and where they
    /// are kept, which is the name, the plan up to the states, their types, and the names of the
    /// tags. It does not depend on other rollups, on how the query is written, on the fields'
    /// names, or on what is computed from the states.
    pub fingerprint: u64,
    /// The same for what is computed from the states: HAVING, and the columns of the result.
    pub results_fingerprint: u64,
    /// Fields that only grow while a window gets points: counts and maxima, and sums where no value
    /// is negative.
    pub growing: Vec<String>,
    /// The finest first, at least one.
    tiers: Vec<Tier>,
    /// The group column that holds the window's start; the same in states of all stages.
    window_column: usize,
    /// Result name and result column of each group column.
    groups: Vec<(String, usize)>,
    pub(super) stages: Stages,
    pub(super) context: Arc<TaskContext>,
}

/// Names of the columns that are one of these aggregates and nothing more.
fn growing(select: &Select) -> Vec<String> {
    let grows = |expr: &SqlExpr| match expr {
        SqlExpr::Function(call) => {
            let name = call.name.to_string().to_lowercase();
            ["count", "max", "sum", "approx_distinct"].contains(&name.as_str()) && call.over.is_none()
        }
        _ => false,
    };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } if grows(expr) => Some(alias.value.clone()),
        _ => None,
    };
    select.projection.iter().filter_map(name).collect()
}

/// What the columns of a result mean to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Start of the window, `Timestamp(Nanosecond, None)`.
    pub time: usize,
    /// Group columns, text, part of the row's identity.
    pub tags: Vec<usize>,
    /// Aggregates and what is computed from them.
    pub fields: Vec<usize>,
}

impl Rollup {
    pub(super) fn plan(mut view: View, labels: &[String]) -> Result<Self, SqlError> {
        let mut planned = Planned::of(&view.select, &view.select, labels)?;
        let is_aggregate = |name: &str| planned.state.aggregate_functions().contains_key(name);
        let (tags, groups) = (&planned.shape.tags, &planned.columns.groups);
        if let Some(select) = empty_is_null(&view.select, tags, groups, is_aggregate)? {
            planned = Planned::of(&select, &view.select, labels)?;
            view.select = select;
        }
        let Planned { state, columns, schema, shape, stages } = planned;
        Ok(Self {
            allowed_lateness: view.allowed_lateness,
            series_limit: view.series_limit,
            shape,
            growing: growing(&view.select),
            fingerprint: fingerprint(&view, &stages, &columns),
            results_fingerprint: XxHash3_64::oneshot(
                format!("{schema:?}{}", stages.finish.explain()).as_bytes(),
            ),
            tiers: tier::tiers(&view.name, &view.select, columns.windows, &view.tiers)?,
            window_column: columns.window_group,
            groups: columns.groups,
            schema,
            stages,
            context: state.task_ctx(),
            name: view.name,
        })
    }

    /// The lengths of windows in which the rollup is kept, the finest, that of its SELECT, first.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The tier of the SELECT's own windows. States come by its panes, and what is late is what its
    /// windows miss.
    pub fn finest(&self) -> &Tier {
        &self.tiers[0]
    }

    /// About what the state of one group takes, before any is seen: lists, of which the sketches
    /// are made, are taken to be full.
    pub fn state_bytes(&self) -> usize {
        const TEXT: usize = 32;
        const SKETCH: usize = 2 << 10;
        let width = |field: &Arc<Field>| match field.data_type() {
            data_type if data_type.is_nested() || data_type.is_binary() => SKETCH,
            data_type => data_type.primitive_width().unwrap_or(TEXT),
        };
        self.state_schema().fields().iter().map(width).sum()
    }

    /// Arrow schema of states: group columns, then the aggregates' state columns.
    pub fn state_schema(&self) -> SchemaRef {
        self.stages.partial.schema()
    }

    pub(crate) fn window_column(&self) -> usize {
        self.window_column
    }

    pub(crate) fn points_column(&self) -> usize {
        self.stages.points_column
    }

    /// The label columns of a state, as (result name, column), the window left out.
    pub(crate) fn tag_columns(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups
            .iter()
            .enumerate()
            .filter(|(column, _)| *column != self.window_column)
            .map(|(column, (name, _))| (name.as_str(), column))
    }

    /// Column in states and column in results of the window and of each tag.
    pub(crate) fn key_columns(&self) -> Vec<(usize, usize)> {
        self.groups.iter().enumerate().map(|(group, (_, result))| (group, *result)).collect()
    }

    /// Both stages' plans, as text for people.
    pub fn explain(&self) -> String {
        format!(
            "ingest, points to states:\n{}\nrollup, states to results:\n{}",
            indent(self.stages.partial.explain()),
            indent(self.stages.finish.explain())
        )
    }
}

/// A SELECT, planned.
struct Planned {
    state: SessionState,
    columns: Columns,
    schema: SchemaRef,
    shape: Shape,
    stages: Stages,
}

impl Planned {
    /// `written` is the SELECT as it was written, for the places of errors.
    fn of(select: &Select, written: &Select, labels: &[String]) -> Result<Self, SqlError> {
        let mut select = select.clone();
        labels_to_columns(&mut select);
        select.projection.push(points_item()?);

        let inlet = Inlet::new(points_schema(labels));
        let session = rollup_session();
        let points = inlet.table().and_then(|table| session.register_table("points", Arc::new(table)));
        points.map_err(|error| planning_error(&error, written, None))?;
        let explained = |error| planning_error(&error, written, Some(&session));
        let state = session.state();
        let statement = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query_of(select)))));
        let logical = block_on(state.statement_to_plan(statement)).map_err(explained)?;
        let columns = Columns::of(&logical, written)?;
        // Shared expressions are numbered over all passes of the optimizer, and their names are
        // part of fingerprints, which must not change without a reason: there has always been a
        // pass before.
        state.optimize(&logical).map_err(explained)?;
        let planned = block_on(state.create_physical_plan(&logical)).map_err(explained)?;
        let schema = result_schema(&planned.schema());
        let stages = Stages::cut(planned, inlet, columns.groups.len()).map_err(explained)?;
        let shape = columns.shape(&schema, written)?;
        Ok(Self { state, columns, schema, shape, stages })
    }
}

/// Arrow schema of the points that rollups are planned over. No point lacks its name, time or
/// value; but what is computed from them may be null, and DataFusion would take it for never null.
pub(crate) fn points_schema(labels: &[String]) -> SchemaRef {
    let mut fields = vec![
        Field::new("name", DataType::Utf8View, true),
        Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("value", DataType::Float64, true),
    ];
    fields.extend(labels.iter().map(|label| Field::new(label_column(label), DataType::Utf8View, true)));
    Arc::new(Schema::new(fields))
}

fn points_item() -> Result<SelectItem, SqlError> {
    let expr = batch::parsed_expr("count(*)").map_err(|error| batch::internal(&error))?;
    Ok(SelectItem::ExprWithAlias { expr, alias: Ident::new(POINTS_COLUMN) })
}

fn query_of(select: Select) -> datafusion::sql::sqlparser::ast::Query {
    use datafusion::sql::sqlparser::ast::{Query, SetExpr};
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

/// The leaf has a column for every label of the catalog, so it and the positions in it are left
/// out: a new rollup must not cost the others their open windows.
fn fingerprint(view: &View, stages: &Stages, columns: &Columns) -> u64 {
    let mut described = view.name.clone();
    // The names of the tags choose the partition of a group.
    for (group, (name, _)) in columns.groups.iter().enumerate() {
        if group != columns.window_group {
            described.push_str(&format!("{name:?}"));
        }
    }
    described.push('\n');
    for line in stages.partial.explain().lines().filter(|line| !line.contains("StreamingTableExec")) {
        let mut parts = line.split('@');
        described.push_str(parts.next().unwrap_or_default());
        for part in parts {
            described.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        described.push('\n');
    }
    // What was taken for a position may have been a part of a text.
    let _ = visit_expressions(&view.select, |expr| {
        let text = expr.to_string();
        if matches!(expr, SqlExpr::Value(_)) && text.contains('@') {
            described.push_str(&text);
        }
        ControlFlow::<()>::Continue(())
    });
    for field in stages.partial.schema().fields() {
        described.push_str(&field.data_type().to_string());
    }
    XxHash3_64::oneshot(described.as_bytes())
}

fn result_schema(planned: &Schema) -> SchemaRef {
    let fields = planned.fields().iter().filter(|field| field.name() != POINTS_COLUMN);
    // Merged results may lack what a single pass never lacks, so every column may be null.
    Arc::new(Schema::new(fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::compile;

    /// The rollup `cpu` of a SELECT list, what follows the FROM, and other files.
    fn cpu(select: &str, rest: &str, others: &[(String, String)]) -> Arc<Rollup> {
        let sql = format!("CREATE MATERIALIZED VIEW cpu AS SELECT {select} FROM points {rest}");
        let mut files = vec![("cpu.sql".to_owned(), sql)];
        files.extend_from_slice(others);
        let catalog = compile(&files);
        assert_eq!(catalog.errors, []);
        Arc::clone(catalog.rollups.iter().find(|rollup| rollup.name == "cpu").unwrap())
    }

    const SELECT: &str = "tumble(time, INTERVAL '1 minute') AS w, labels['host'] AS host, avg(value) AS a,
        last_value(value ORDER BY labels['host']) FILTER (WHERE name <> 'a@1') AS l";
    const REST: &str = "WHERE labels['host'] <> 'b@2' GROUP BY 1, 2";

    #[test]
    fn what_decides_the_states_changes_the_fingerprint() {
        let fingerprint = cpu(SELECT, REST, &[]).fingerprint;
        for (from, to) in [
            ("INTERVAL '1 minute'", "INTERVAL '2 minutes'"),
            ("INTERVAL '1 minute'", "INTERVAL '1 minute', 'Europe/Berlin'"),
            ("labels['host'] AS host", "labels['pod'] AS host"),
            // The tag's name chooses the partition.
            ("labels['host'] AS host", "labels['host'] AS pod"),
            ("avg(value)", "sum(value)"),
            ("avg(value)", "avg(value + 1)"),
            ("'a@1'", "'a@3'"),
            ("'b@2'", "'b@3'"),
            ("ORDER BY labels['host']", "ORDER BY time"),
            ("WHERE labels['host'] <> 'b@2'", ""),
        ] {
            assert_ne!(
                cpu(&SELECT.replace(from, to), &REST.replace(from, to), &[]).fingerprint,
                fingerprint,
                "{to}"
            );
        }
        let having = format!("{REST} HAVING max(value) > 1");
        assert_ne!(cpu(SELECT, &having, &[]).fingerprint, fingerprint, "one more aggregate");
    }

    #[test]
    fn what_does_not_decide_the_states_keeps_it() {
        let before = cpu(SELECT, REST, &[]);
        let keeps = |select: &str, rest: &str, others: &[(String, String)]| {
            let after = cpu(select, rest, others);
            assert_eq!(after.fingerprint, before.fingerprint, "{select} {rest}");
            assert_eq!(after.state_schema().fields().len(), before.state_schema().fields().len());
            after.results_fingerprint == before.results_fingerprint
        };
        assert!(keeps(&format!("/* a comment */ {}", SELECT.replace("avg(", "AVG (")), REST, &[]));
        assert!(!keeps(&SELECT.replace("AS a,", "AS average,"), REST, &[]));
        assert!(!keeps(&SELECT.replace("AS w", "AS window_start"), REST, &[]));
        assert!(!keeps(&SELECT.replace("avg(value) AS a", "avg(value) * 2 AS a"), REST, &[]));
        assert!(!keeps(SELECT, &format!("{REST} HAVING avg(value) > 1"), &[]));
        // Labels of other rollups move the columns of the points.
        let other =
            "CREATE MATERIALIZED VIEW other AS SELECT tumble(time, INTERVAL '1 hour') AS w, labels['a'] AS l,
            max(value) AS m FROM points GROUP BY 1, 2";
        assert!(keeps(SELECT, REST, &[("other.sql".to_owned(), other.to_owned())]));
    }
}
