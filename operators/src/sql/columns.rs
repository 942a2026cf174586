//! What a planned SELECT makes of its groups and aggregates: the window, the tags, the fields.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::Column;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, GroupByExpr, Select, Spanned, Value};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::SqlError;
use super::place::place_of;
use super::planning::bare;
use super::rollup::Shape;
use super::{batch, hop, tumble};
use crate::window::Windows;

/// What the SELECT list makes of the groups.
pub(super) struct Columns {
    pub(super) windows: Windows,
    pub(super) window_group: usize,
    /// Result name and result column of each group column.
    pub(super) groups: Vec<(String, usize)>,
}

impl Columns {
    /// `select` is the SELECT as it was written, for the places of errors.
    pub(super) fn of(plan: &LogicalPlan, select: &Select) -> Result<Self, SqlError> {
        let span = select.span();
        let LogicalPlan::Projection(projection) = plan else {
            return Err(SqlError::new(span, "this is not a plain SELECT with GROUP BY", ""));
        };
        let aggregate = match projection.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) => aggregate,
            LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                LogicalPlan::Aggregate(aggregate) => aggregate,
                _ => return Err(SqlError::new(span, "this is not a plain SELECT with GROUP BY", "")),
            },
            _ => return Err(SqlError::new(span, "this is not a plain SELECT with GROUP BY", "")),
        };
        let (window_group, windows) = window_of(aggregate, select)?;
        let mut groups = Vec::new();
        for (group, expr) in aggregate.group_expr.iter().enumerate() {
            let selected = projection.expr.iter().position(|item| is_group(item, aggregate, group));
            let Some(column) = selected else {
                let what = if group == window_group { "the window's start" } else { "a group column" };
                return Err(SqlError::new(
                    group_span(select, group),
                    format!("{what} is missing from the SELECT list: {}", readable(expr)),
                    "add it to the SELECT list, or two groups would write the same row",
                ));
            };
            groups.push((projection.schema.field(column).name().clone(), column));
        }
        Ok(Self { windows, window_group, groups })
    }

    pub(super) fn shape(&self, schema: &Schema, select: &Select) -> Result<Shape, SqlError> {
        let time = self.groups[self.window_group].1;
        let mut tags = Vec::new();
        for (group, (name, column)) in self.groups.iter().enumerate() {
            if group == self.window_group {
                continue;
            }
            let kind = schema.field(*column).data_type();
            if !matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
                return Err(SqlError::new(
                    item_span(select, *column),
                    format!("group column `{name}` is {kind}, tags are text"),
                    format!("write CAST(… AS VARCHAR) AS {name}"),
                ));
            }
            tags.push(*column);
        }
        for (column, field) in schema.fields().iter().enumerate().filter(|(column, _)| *column != time) {
            refuse_reserved(field.name(), item_span(select, column))?;
        }
        let fields: Vec<usize> =
            (0..schema.fields().len()).filter(|column| *column != time && !tags.contains(column)).collect();
        if fields.is_empty() {
            return Err(SqlError::new(
                select.span(),
                "there is no aggregate",
                "add one, such as avg(value) AS avg",
            ));
        }
        for column in &fields {
            let field = schema.field(*column);
            let storable = field.data_type().is_numeric()
                || field.data_type() == &DataType::Boolean
                || matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            if !storable {
                return Err(SqlError::new(
                    item_span(select, *column),
                    format!("field `{}` is {}, which cannot be stored", field.name(), field.data_type()),
                    "cast it to a number, a text or a boolean",
                ));
            }
        }
        Ok(Shape { time, tags, fields })
    }
}

/// Names that a store has for itself, or for none: InfluxDB's columns, those of the versions in
/// Parquet.
fn refuse_reserved(name: &str, place: Span) -> Result<(), SqlError> {
    let is_reserved = name.trim().is_empty() || name.starts_with('_') || name.eq_ignore_ascii_case("time");
    if !is_reserved && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let problem = match is_reserved {
        true => format!(
            "a column cannot be called `{name}`: names that begin with _, `time` and empty ones are the stores' own"
        ),
        false => format!("the name of a column has {} bytes, more than {LONGEST_NAME}", name.len()),
    };
    let plain = name.trim_start_matches('_').trim();
    let remedy = match plain {
        "" => "give it a name, such as AS avg".to_owned(),
        _ if !is_reserved => "give it a shorter one by AS".to_owned(),
        plain => format!("write AS {plain}_of_points, or another name"),
    };
    Err(SqlError::new(place, problem, remedy))
}

const LONGEST_NAME: usize = 255;

fn window_of(aggregate: &Aggregate, select: &Select) -> Result<(usize, Windows), SqlError> {
    const REMEDY: &str = "write tumble(time, INTERVAL '1 minute') in SELECT and GROUP BY";
    let is_window =
        |expr: &SqlExpr| [tumble::NAME, hop::NAME].iter().any(|name| batch::call(expr, name).is_some());
    let place = place_of(select, is_window).unwrap_or_else(|| select.span());
    let mut found = None;
    for (group, expr) in aggregate.group_expr.iter().enumerate() {
        let Expr::ScalarFunction(call) = expr.clone().unalias_nested().data else { continue };
        let name = call.func.name();
        if name != tumble::NAME && name != hop::NAME {
            continue;
        }
        if found.is_some() {
            return Err(SqlError::new(place, "two windows in one rollup", "write one file per window"));
        }
        if !matches!(&call.args[0], Expr::Column(column) if column.name == "time") {
            let problem = format!("{name} takes the column `time` of the points");
            return Err(SqlError::new(place, problem, REMEDY));
        }
        let literals = call.args[1..].iter().map(|argument| match argument {
            Expr::Literal(value, _) => Ok(value),
            other => Err(SqlError::new(place, format!("{other} in {name} is not a constant"), REMEDY)),
        });
        let literals = literals.collect::<Result<Vec<_>, _>>()?;
        let windows = match name {
            hop::NAME => hop::windows_of_literals(&literals),
            _ => tumble::windows_of_literals(&literals).map(Windows::tumbling),
        };
        found = Some((group, windows.map_err(|error| window_error(place, &bare(&error)))?));
    }
    found.ok_or_else(|| match place_of(select, is_window) {
        Some(place) => SqlError::new(place, "the window is not in GROUP BY", REMEDY),
        None => SqlError::new(group_span(select, 0), "there is no window in GROUP BY", REMEDY),
    })
}

/// What is wrong, and after a comma what to write.
fn window_error(place: Span, text: &str) -> SqlError {
    match text.split_once(", write ") {
        Some((problem, remedy)) => SqlError::new(place, problem, format!("write {remedy}")),
        None => SqlError::new(place, text, "write an interval such as INTERVAL '1 minute'"),
    }
}

/// Where a GROUP BY expression stands; `GROUP BY 2` is the second of the SELECT list.
fn group_span(select: &Select, group: usize) -> Span {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return select.span() };
    match groups.get(group) {
        Some(SqlExpr::Value(value)) => match &value.value {
            Value::Number(number, _) => match number.parse::<usize>() {
                Ok(position) => item_span(select, position.saturating_sub(1)),
                Err(_) => value.span,
            },
            _ => value.span,
        },
        Some(expr) => expr.span(),
        None => select.span(),
    }
}

fn item_span(select: &Select, item: usize) -> Span {
    select.projection.get(item).map_or_else(|| select.span(), Spanned::span)
}

fn is_group(item: &Expr, aggregate: &Aggregate, group: usize) -> bool {
    let Expr::Column(column) = item.clone().unalias_nested().data else { return false };
    aggregate.schema.maybe_index_of_column(&column) == Some(group)
}

fn readable(expr: &Expr) -> String {
    match expr {
        Expr::Column(Column { name, .. }) => name.clone(),
        other => other.to_string().replace("points.", ""),
    }
}
