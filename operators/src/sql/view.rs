//! A rollup's SQL file: `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …`, parsed and checked
//! for what can be merged and bounded.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    CreateTableOptions, CreateView, Expr, FunctionArgumentClause, FunctionArguments, Ident, ObjectNamePart,
    Select, SelectItem, SetExpr, Spanned, SqlOption, Statement, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word};

use super::batch::call;
use super::error::SqlError;
use super::labels::name_bare_labels;
use super::planning::nearest;
use super::refuse::refuse_unmergeable;
use super::tier::{self, WrittenTier};
use super::{hop, tumble};

/// The options of `WITH (…)`.
const OPTIONS: [&str; 3] = ["allowed_lateness", "series_limit", "tiers"];
/// Without the option, a closed window is corrected for this long.
const DEFAULT_LATENESS: i64 = 10 * 60 * 1_000_000_000;

/// What a misspelt word may have been meant to be.
const KEYWORDS: [&str; 12] = [
    "as",
    "create",
    "filter",
    "from",
    "group",
    "having",
    "interval",
    "materialized",
    "select",
    "view",
    "where",
    "with",
];

/// One parsed file.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) name: String,
    /// How long after a window's end its late points are still merged, nanoseconds.
    pub(super) allowed_lateness: i64,
    /// The tiers that the file lists; none when it leaves them out.
    pub(super) tiers: Vec<WrittenTier>,
    /// Groups of one window beyond which there is the overflow group.
    pub(super) series_limit: Option<u64>,
    pub(super) select: Select,
    pub(super) name_span: Span,
}

/// The column of a window's start that has no alias.
const WINDOW_START: &str = "window_start";

const FORM: &str = "write CREATE MATERIALIZED VIEW <name> WITH (allowed_lateness = '10 minutes') AS SELECT …";

/// Bytes of a file, and operations one after or within another: planning takes a part of the stack
/// for each.
const LARGEST_FILE: usize = 256 << 10;
const MOST_OPERATIONS: usize = 600;

pub(super) fn parse(text: &str) -> Result<View, SqlError> {
    // Some editors begin a file so.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LARGEST_FILE {
        let problem = format!("the file has {} bytes, more than {LARGEST_FILE}", text.len());
        return Err(SqlError::at(Location { line: 1, column: 1 }, problem, "write several rollups"));
    }
    if let Some(place) = chain_of_operations(text) {
        let problem = format!("more than {MOST_OPERATIONS} operations in one expression");
        return Err(SqlError::at(
            place,
            problem,
            "use several fields, rollups, or IN (…) for many alternatives",
        ));
    }
    let mut statements = Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(syntax_error)?;
    let statement = match statements.len() {
        0 => return Err(SqlError::at(Location { line: 1, column: 1 }, "the file holds no statement", FORM)),
        1 => statements.remove(0),
        _ => {
            let second = statements[1].span();
            return Err(SqlError::new(second, "a second statement in the file", "write one file per rollup"));
        }
    };
    let span = statement.span();
    let Statement::CreateView(view) = statement else {
        return Err(SqlError::new(span, "this is not a materialized view", FORM));
    };
    if !view.materialized {
        return Err(SqlError::new(view.name.span(), "a plain VIEW is not kept up to date", FORM));
    }
    let name = view_name(&view)?;
    let Options { allowed_lateness, tiers, series_limit } = options(&view.options)?;
    let SetExpr::Select(select) = view.query.body.as_ref() else {
        return Err(SqlError::new(
            view.query.body.span(),
            "only one plain SELECT can be kept up to date",
            "write one file per SELECT instead of UNION, EXCEPT, INTERSECT or VALUES",
        ));
    };
    refuse_unmergeable(&view.query, select).map_err(|error| at_keyword(text, error))?;
    let mut select = select.as_ref().clone();
    leave_orders_out(&mut select);
    name_bare_labels(&mut select);
    name_bare_windows(&mut select);
    refuse_equal_names(&select)?;
    Ok(View { name, allowed_lateness, tiers, series_limit, name_span: view.name.span(), select })
}

impl View {
    /// Rows of coarser tiers have names of their own in some stores, which no other rollup may
    /// have.
    pub(super) fn refuse_taken_tables(&self, rollups: &[String]) -> Result<(), SqlError> {
        for tier in self.tiers.iter().skip(1) {
            let table = tier.table(&self.name);
            if rollups.contains(&table) {
                let problem = format!("rows of this tier are called `{table}`, which is also a rollup");
                return Err(SqlError::at(tier.place, problem, "rename that rollup, or leave out this tier"));
            }
        }
        Ok(())
    }
}

/// As [`long_chain`], of a text; none of one that cannot be read.
pub(crate) fn chain_of_operations(text: &str) -> Option<Location> {
    long_chain(&Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()?)
}

/// Where SQL has the operator, since a comma or the last clause began, that is one too many:
/// planning takes a part of the stack for each.
pub fn long_chain(tokens: &[TokenWithSpan]) -> Option<Location> {
    let mut operations = 0;
    for token in tokens {
        match &token.token {
            Token::Comma | Token::SemiColon => operations = 0,
            Token::Whitespace(_)
            | Token::Word(Word { keyword: Keyword::NoKeyword, .. })
            | Token::Period
            | Token::RParen => {}
            Token::Number(..) | Token::SingleQuotedString(_) | Token::RBracket => {}
            Token::Word(word) => match word.keyword {
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::LIKE
                | Keyword::IS
                | Keyword::CASE
                | Keyword::WHEN => {
                    operations += 1;
                }
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING => {
                    operations = 0;
                }
                _ => {}
            },
            _ => operations += 1,
        }
        if operations > MOST_OPERATIONS {
            return Some(token.span.start);
        }
    }
    None
}

/// Aggregates but first_value and last_value give the same in any order, and some of DataFusion's
/// panic on one.
fn leave_orders_out(select: &mut Select) {
    let _ = visit_expressions_mut(select, |expr| {
        if let Expr::Function(call) = expr
            && let FunctionArguments::List(arguments) = &mut call.args
            && !["first_value", "last_value"].contains(&call.name.to_string().to_ascii_lowercase().as_str())
        {
            arguments.clauses.retain(|clause| !matches!(clause, FunctionArgumentClause::OrderBy(_)));
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Gives a window in the SELECT list that has no alias a name that is the same for every length.
fn name_bare_windows(select: &mut Select) {
    let is_taken = |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value == WINDOW_START);
    if select.projection.iter().any(is_taken) {
        return;
    }
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if [tumble::NAME, hop::NAME].iter().any(|name| call(expr, name).is_some()) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(WINDOW_START) };
            return;
        }
    }
}

/// A folder's name has at most 255 bytes, of which a tier takes some.
const LONGEST_NAME: usize = 200;

/// The name becomes an InfluxDB measurement, a folder and a metric label, so it is a plain
/// identifier.
fn view_name(view: &CreateView) -> Result<String, SqlError> {
    let [ObjectNamePart::Identifier(Ident { value, .. })] = view.name.0.as_slice() else {
        return Err(SqlError::new(view.name.span(), "a rollup's name has one part", "leave the schema out"));
    };
    if value.len() > LONGEST_NAME {
        let problem = format!("the rollup's name has {} bytes, more than {LONGEST_NAME}", value.len());
        return Err(SqlError::new(
            view.name.span(),
            problem,
            "use a shorter one: it also names folders, followed by the tier",
        ));
    }
    if value.eq_ignore_ascii_case("points") {
        let problem = "`points` is the table of the raw points";
        return Err(SqlError::new(view.name.span(), problem, "give the rollup a name of its own"));
    }
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && value.starts_with(|c: char| c.is_ascii_alphabetic());
    if !plain {
        return Err(SqlError::new(
            view.name.span(),
            format!("`{value}` cannot name a rollup"),
            "use letters, digits and underscores, starting with a letter",
        ));
    }
    Ok(value.to_ascii_lowercase())
}

/// Columns of a row are told apart by their names alone.
fn refuse_equal_names(select: &Select) -> Result<(), SqlError> {
    let mut names: Vec<&str> = Vec::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias,
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => name,
            _ => continue,
        };
        if names.contains(&name.value.as_str()) {
            let problem = format!("there is already a column named `{}`", name.value);
            return Err(SqlError::new(name.span, problem, "give each its own name, as in max(value) AS max"));
        }
        names.push(&name.value);
    }
    Ok(())
}

/// The values of `WITH (…)`.
struct Options {
    allowed_lateness: i64,
    tiers: Vec<WrittenTier>,
    series_limit: Option<u64>,
}

fn options(written: &CreateTableOptions) -> Result<Options, SqlError> {
    let mut options = Options { allowed_lateness: DEFAULT_LATENESS, tiers: Vec::new(), series_limit: None };
    let CreateTableOptions::With(written) = written else { return Ok(options) };
    for option in written {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(SqlError::new(option.span(), "an option is written as name = 'value'", ""));
        };
        match key.value.as_str() {
            "allowed_lateness" => options.allowed_lateness = duration(value)?,
            "series_limit" => options.series_limit = Some(groups(value)?),
            "tiers" => options.tiers = tier::parse(value)?,
            unknown => {
                let near = nearest(unknown, OPTIONS.into_iter(), 0.0);
                let remedy = near.map(|option| format!("did you mean `{option}`?")).unwrap_or_default();
                return Err(SqlError::new(key.span, format!("unknown option `{unknown}`"), remedy));
            }
        }
    }
    Ok(options)
}

/// A number of groups, with or without quotes: `100000`, `'100_000'`.
fn groups(value: &Expr) -> Result<u64, SqlError> {
    let text = match value {
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.replace('_', ""),
            _ => String::new(),
        },
        _ => String::new(),
    };
    match text.parse() {
        Ok(groups) if groups > 0 => Ok(groups),
        _ => Err(SqlError::new(
            value.span(),
            format!("{value} is not a number of groups"),
            "write the most groups that one window may have, such as series_limit = 100000",
        )),
    }
}

fn duration(value: &Expr) -> Result<i64, SqlError> {
    let refuse = |message: String| {
        Err(SqlError::new(value.span(), message, "write a duration such as '10 minutes' or '3 hours'"))
    };
    let text = match value {
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) => text,
            other => return refuse(format!("{other} is not a quoted duration")),
        },
        other => return refuse(format!("{other} is not a quoted duration")),
    };
    let Ok(interval) = parse_interval_month_day_nano(text) else {
        return refuse(format!("'{text}' is not a duration"));
    };
    let nanoseconds = i64::from(interval.days)
        .checked_mul(86_400_000_000_000)
        .and_then(|days| days.checked_add(interval.nanoseconds));
    match nanoseconds {
        Some(nanoseconds) if interval.months == 0 && nanoseconds >= 0 => Ok(nanoseconds),
        _ => refuse(format!("'{text}' is not a duration of weeks or less")),
    }
}

/// Clauses have no place in the parsed statement, only their contents have: goes back to the
/// clause's first word.
fn at_keyword(text: &str, mut error: SqlError) -> SqlError {
    let clause = error.message.split(' ').next().unwrap_or_default();
    if !["ORDER", "LIMIT", "QUALIFY"].contains(&clause) {
        return error;
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap_or_default();
    let before = |place: &Location| (place.line, place.column) <= (error.line, error.column);
    let mut keywords = tokens.iter().filter(|token| match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(clause) && before(&token.span.start),
        _ => false,
    });
    if let Some(keyword) = keywords.next_back() {
        (error.line, error.column) = (keyword.span.start.line, keyword.span.start.column);
    }
    error
}

/// The parser writes the place into its message; it is moved to where a user looks for it.
fn syntax_error(error: ParserError) -> SqlError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message.to_owned(), place.to_owned()),
        None => (text, String::new()),
    };
    let mut words = message.split("found: ").skip(1);
    let found = words.next().unwrap_or_default();
    let remedy = match nearest(found, KEYWORDS.into_iter(), 0.85) {
        Some(keyword) if !found.eq_ignore_ascii_case(keyword) => {
            format!("did you mean {}?", keyword.to_uppercase())
        }
        _ => "look just before this place: a comma, a quote or a parenthesis is missing or one too many"
            .to_owned(),
    };
    let message = message.replace("Expected: ", "expected ").replace("found: ", "found ");
    let mut numbers = place.split(", Column: ").map(|number| number.trim().parse::<u64>().unwrap_or(0));
    let place = Location { line: numbers.next().unwrap_or(0), column: numbers.next().unwrap_or(0) };
    SqlError::at(place, format!("syntax error: {message}"), remedy)
}
