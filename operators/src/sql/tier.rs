//! Tiers: the same rollup over windows of several lengths, each from the same states.
//!
//! `WITH (tiers = '1m, 1h, 1d')` lists them. The first has the length of the SELECT's own window;
//! each further one is a multiple of the one before, so that every window lies in one window of
//! each coarser tier.

use datafusion::sql::sqlparser::ast::{Expr, Select, Spanned, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::batch;
use super::error::SqlError;
use crate::window::{Tumble, Windows, length_name};

const FORM: &str = "write lengths such as tiers = '1m, 1h, 1d', each a whole number and s, m, h or d";
const SECOND: i64 = 1_000_000_000;

/// One length of windows in which a rollup is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The length, as short as it can be written: `1m`, `1h`, `1d`.
    pub name: String,
    /// The rollup's name for its finest tier, `<rollup>_<tier>` for the others: what its rows are
    /// called where the tiers of a rollup are kept apart by name.
    pub table: String,
    pub windows: Windows,
    /// The SELECT of this tier, as it runs in batch over a table `points` whose `labels` is a map.
    /// It needs the session of [`batch_session`](super::batch_session).
    pub batch_sql: String,
}

/// A tier as it is written in a file.
#[derive(Debug, Clone)]
pub(super) struct WrittenTier {
    pub(super) place: Location,
    /// Nanoseconds.
    size: i64,
}

impl WrittenTier {
    pub(super) fn table(&self, rollup: &str) -> String {
        format!("{rollup}_{}", length_name(self.size))
    }
}

/// The value of the option.
pub(super) fn parse(value: &Expr) -> Result<Vec<WrittenTier>, SqlError> {
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) = value else {
        return Err(SqlError::new(value.span(), format!("{value} is not a quoted list of lengths"), FORM));
    };
    let mut tiers: Vec<WrittenTier> = Vec::new();
    let mut passed = 0;
    for item in text.split(',') {
        let place = place_in(*span, text, passed + item.len() - item.trim_start().len());
        passed += item.len() + 1;
        let written = item.trim();
        let Some(size) = length(written) else {
            let problem = match written {
                "" => "a tier is missing here".to_owned(),
                _ => format!("`{written}` is not the length of a tier"),
            };
            return Err(SqlError::at(place, problem, FORM));
        };
        if let Some(before) = tiers.last()
            && (size <= before.size || size % before.size != 0)
        {
            return Err(SqlError::at(
                place,
                format!("{written} is not a multiple of {}, the tier before it", length_name(before.size)),
                "write lengths that hold each other, shortest first, such as '1m, 1h, 1d'",
            ));
        }
        tiers.push(WrittenTier { place, size });
    }
    Ok(tiers)
}

/// Where a part of a literal stands; its start, when it has several lines.
fn place_in(literal: Span, text: &str, at: usize) -> Location {
    let quote = 1;
    let before = text[..at].chars().count() as u64;
    let column = if text.contains('\n') { 0 } else { quote + before };
    Location { line: literal.start.line, column: literal.start.column + column }
}

fn length(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" => 86_400 * SECOND,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|length| *length > 0)
}

/// What the tier of a length is called: `1h` for both `1h` and `60m`. None when it is not a length.
pub fn tier_name(written: &str) -> Option<String> {
    length(written).map(length_name)
}

/// All tiers of a rollup, the finest first. `windows` are those of `select`.
pub(super) fn tiers(
    rollup: &str,
    select: &Select,
    windows: Windows,
    written: &[WrittenTier],
) -> Result<Vec<Tier>, SqlError> {
    let mut tiers = vec![Tier {
        name: length_name(windows.size()),
        table: rollup.to_owned(),
        windows,
        batch_sql: batch::sql(select)?,
    }];
    let Some((first, coarser)) = written.split_first() else { return Ok(tiers) };
    if windows.is_hopping() {
        return Err(SqlError::at(
            first.place,
            "hopping windows overlap, so they cannot be added up to longer ones",
            "leave tiers out, or write tumble(time, INTERVAL '1 minute') in place of hop",
        ));
    }
    if first.size != windows.size() {
        let (first_name, own) = (length_name(first.size), length_name(windows.size()));
        return Err(SqlError::at(
            first.place,
            format!("the first tier is {first_name}, but the window of the SELECT is {own}"),
            format!("begin the tiers with {own}, or write tumble(time, {})", batch::interval(first.size)),
        ));
    }
    for tier in coarser {
        let name = length_name(tier.size);
        let pane = Tumble::new(tier.size, windows.zone()).map_err(|error| {
            SqlError::at(
                tier.place,
                format!("a tier of {name} has no windows in the time zone: {error}"),
                "write a tier of one day, or one that divides a day; or leave out the time zone of tumble",
            )
        })?;
        tiers.push(Tier {
            table: tier.table(rollup),
            windows: Windows::tumbling(pane),
            batch_sql: batch::sql(&batch::with_window(select, tier.size)?)?,
            name,
        });
    }
    Ok(tiers)
}
