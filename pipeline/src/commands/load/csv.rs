//! Points of a CSV file with a header line.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use points::book::{Point, SeriesBook};

use super::cells::Cells;
use super::input::{BadRow, InputLabels, Row};
use super::physical::{Physical, PhysicalLines};
use super::time::Times;
use super::{LoadArgs, LoadError};

/// Names that a column of event times goes by.
const TIME_COLUMNS: [&str; 4] = ["timestamp", "time", "ts", "date"];

#[derive(Debug)]
pub(super) struct CsvReader {
    lines: PhysicalLines,
    cells: Cells,
    delimiter: char,
    decimal_comma: bool,
    /// Cells of the header.
    width: usize,
    columns: Columns,
    times: Times,
    labels: InputLabels,
    /// Series by the cells that make it, each followed by a zero byte.
    known: HashMap<String, u32>,
    key: String,
}

/// Positions of columns.
#[derive(Debug)]
struct Columns {
    time: usize,
    value: usize,
    name: Option<usize>,
    labels: Vec<(String, usize)>,
}

impl CsvReader {
    pub(super) fn open(path: &Path, args: &LoadArgs, labels: InputLabels) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let mut lines = PhysicalLines::open(path)?;
        let mut cells = Cells::default();
        let header = match lines.next().map_err(read)? {
            Some(Physical::Text(header)) => header,
            Some(Physical::TooLong | Physical::NotUtf8) => {
                return Err(header_problem(path, "the header is not a line of UTF-8 text"));
            }
            None => "",
        };
        cells.read(header, args.delimiter).map_err(|problem| header_problem(path, problem))?;
        let columns = Columns::find(path, &cells, args)?;
        Ok(Self {
            lines,
            width: cells.len(),
            cells,
            delimiter: args.delimiter,
            decimal_comma: args.decimal_comma,
            columns,
            times: args.times()?,
            labels,
            known: HashMap::new(),
            key: String::new(),
        })
    }

    /// The next point with its line, or what is wrong with the row. `None` at the end.
    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Row>, io::Error> {
        loop {
            let text = match self.lines.next()? {
                None => return Ok(None),
                // As other readers do.
                Some(Physical::Text("")) => continue,
                Some(Physical::Text(text)) => Ok(text),
                Some(Physical::NotUtf8) => Err("the row is not UTF-8"),
                Some(Physical::TooLong) => Err("the row is longer than a mebibyte"),
            };
            let read = text.and_then(|text| self.cells.read(text, self.delimiter)).map_err(str::to_owned);
            let point = match read {
                Ok(()) => self.point(book),
                Err(problem) => Err(problem),
            };
            let line = self.lines.number();
            return Ok(Some(point.map(|point| (point, line)).map_err(|problem| BadRow {
                line,
                lines: 1,
                problem,
            })));
        }
    }

    fn point(&mut self, book: &mut SeriesBook) -> Result<Point, String> {
        if self.cells.len() != self.width {
            let (found, width) = (self.cells.len(), self.width);
            return Err(format!("the row has {found} cells and the header {width}"));
        }
        let cell = |index: usize| self.cells.get(index);
        let time = self.times.parse(cell(self.columns.time))?;
        let value = number(cell(self.columns.value), self.decimal_comma)?;
        self.key.clear();
        let label_columns = self.columns.labels.iter().map(|(_, index)| *index);
        for index in self.columns.name.into_iter().chain(label_columns) {
            self.key.push_str(cell(index));
            self.key.push('\0');
        }
        if let Some(series) = self.known.get(&self.key) {
            return Ok(Point { time, value, series: *series });
        }
        let name = match self.columns.name {
            Some(index) if cell(index).is_empty() => return Err("the name of the metric is empty".to_owned()),
            Some(index) => cell(index),
            None => &self.labels.name,
        };
        let mut labels = self.labels.labels.clone();
        for (label, index) in &self.columns.labels {
            labels.push((label.clone(), cell(*index).to_owned()));
        }
        let series = book.intern(name, &labels);
        self.known.insert(self.key.clone(), series);
        Ok(Point { time, value, series })
    }
}

/// A finite number, with the decimal sign of the options and no other.
fn number(text: &str, decimal_comma: bool) -> Result<f64, String> {
    let parsed = match decimal_comma {
        true if text.contains('.') => None,
        true => text.replace(',', ".").parse::<f64>().ok(),
        false => text.parse().ok(),
    };
    match parsed {
        Some(value) if value.is_finite() => Ok(value),
        _ if !decimal_comma && text.replace(',', ".").parse::<f64>().is_ok() => {
            Err(format!("`{text}` is not a finite number (see --decimal-comma)"))
        }
        _ => Err(format!("`{text}` is not a finite number")),
    }
}

impl Columns {
    fn find(path: &Path, header: &Cells, args: &LoadArgs) -> Result<Self, LoadError> {
        let position = |wanted: &str| header.iter().position(|column| column == wanted);
        let named = |wanted: &str, option: &str| {
            let found = position(wanted).ok_or_else(|| missing_column(path, header, wanted, option, args))?;
            if header.iter().filter(|column| *column == wanted).count() > 1 {
                return Err(header_problem(path, &format!("the column `{wanted}` is there twice")));
            }
            Ok(found)
        };
        let time = match &args.time_column {
            Some(column) => column,
            None => TIME_COLUMNS
                .into_iter()
                .find(|column| position(column).is_some())
                .ok_or_else(|| missing_column(path, header, TIME_COLUMNS[0], "--time-column", args))?,
        };
        let time = named(time, "--time-column")?;
        let value = named(&args.value_column, "--value-column")?;
        let name = match &args.name_column {
            Some(column) => Some(named(column, "--name-column")?),
            None => None,
        };
        let mut labels = Vec::new();
        for column in &args.label_columns {
            labels.push((column.clone(), named(column, "--label-column")?));
        }
        Ok(Self { time, value, name, labels })
    }
}

fn header_problem(path: &Path, problem: &str) -> LoadError {
    LoadError::Options(format!("{}:1: {problem}: correct the header", path.display()))
}

fn missing_column(path: &Path, header: &Cells, wanted: &str, option: &str, args: &LoadArgs) -> LoadError {
    const SHOWN: usize = 20;
    let mut columns: Vec<&str> = header.iter().take(SHOWN).collect();
    if header.len() > SHOWN {
        columns.push("…");
    }
    // One cell that holds separators of another kind: most likely those of the file.
    let other = [',', ';', '\t', '|'].into_iter().find(|other| {
        header.len() == 1
            && *other != args.delimiter
            && header.get(0).split(*other).any(|part| part.trim() == wanted)
    });
    let remedy = match other {
        Some('\t') => "add --delimiter tab".to_owned(),
        Some(other) => format!("add --delimiter '{other}'"),
        None => format!("name one of {} with {option}", columns.join(", ")),
    };
    LoadError::Options(format!("{}:1: there is no column `{wanted}`: {remedy}", path.display()))
}
