//! Points of a CSV file with a header line.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::input::{BadRow, InputLabels, Row};
use super::point::{Point, SeriesBook};
use super::time::parse_time;
use super::{LoadArgs, LoadError};

/// Names that a column of event times goes by.
const TIME_COLUMNS: [&str; 4] = ["timestamp", "time", "ts", "date"];

#[derive(Debug)]
pub(super) struct CsvReader {
    rows: csv::Reader<File>,
    row: StringRecord,
    columns: Columns,
    time_format: Option<String>,
    labels: InputLabels,
    /// Series by the cells that make it, each followed by a zero byte.
    known: HashMap<String, u32>,
    cells: String,
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
        let file = File::open(path).map_err(read)?;
        let mut rows = ReaderBuilder::new().flexible(true).from_reader(file);
        let header = match rows.headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(read(io::Error::other(error))),
        };
        let columns = Columns::find(path, &header, args)?;
        Ok(Self {
            rows,
            row: StringRecord::new(),
            columns,
            time_format: args.time_format.clone(),
            labels,
            known: HashMap::new(),
            cells: String::new(),
        })
    }

    /// The next point with its line, or what is wrong with the row. `None` at the end.
    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Row>, io::Error> {
        match self.rows.read_record(&mut self.row) {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                return match error.into_kind() {
                    ErrorKind::Io(source) => Err(source),
                    ErrorKind::Utf8 { .. } => {
                        Ok(Some(Err(BadRow { line, problem: "the row is not UTF-8".to_owned() })))
                    }
                    other => Ok(Some(Err(BadRow { line, problem: format!("not a row of CSV: {other:?}") }))),
                };
            }
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        match self.point(book) {
            Ok(point) => Ok(Some(Ok((point, line)))),
            Err(problem) => Ok(Some(Err(BadRow { line, problem }))),
        }
    }

    fn point(&mut self, book: &mut SeriesBook) -> Result<Point, String> {
        let cell = |index: usize| self.row.get(index).unwrap_or_default().trim();
        let time = cell(self.columns.time);
        let time = parse_time(time, self.time_format.as_deref())
            .ok_or_else(|| format!("`{time}` is not a time (see --time-format)"))?;
        let value = cell(self.columns.value);
        let value = match value.parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            _ => return Err(format!("`{value}` is not a finite number")),
        };
        self.cells.clear();
        let label_columns = self.columns.labels.iter().map(|(_, index)| *index);
        for index in self.columns.name.into_iter().chain(label_columns) {
            self.cells.push_str(cell(index));
            self.cells.push('\0');
        }
        if let Some(series) = self.known.get(&self.cells) {
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
        self.known.insert(self.cells.clone(), series);
        Ok(Point { time, value, series })
    }
}

impl Columns {
    fn find(path: &Path, header: &StringRecord, args: &LoadArgs) -> Result<Self, LoadError> {
        let position = |wanted: &str| header.iter().position(|column| column.trim() == wanted);
        let named = |wanted: &str, option: &str| {
            position(wanted).ok_or_else(|| missing_column(path, header, wanted, option))
        };
        let time = match &args.time_column {
            Some(column) => named(column, "--time-column")?,
            None => TIME_COLUMNS
                .iter()
                .find_map(|column| position(column))
                .ok_or_else(|| missing_column(path, header, TIME_COLUMNS[0], "--time-column"))?,
        };
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

fn missing_column(path: &Path, header: &StringRecord, wanted: &str, option: &str) -> LoadError {
    let columns: Vec<&str> = header.iter().map(str::trim).collect();
    LoadError::Options(format!(
        "{}:1: there is no column `{wanted}`: name one of {} with {option}",
        path.display(),
        columns.join(", ")
    ))
}
