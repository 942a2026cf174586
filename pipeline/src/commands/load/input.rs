//! The files of a load: read through once, checked, and kept in memory where they fit.

use std::path::{Path, PathBuf};

use points::book::{Point, SeriesBook};
use points::decode::{DecodeOptions, Format};

use super::csv::CsvReader;
use super::lines::LineReader;
use super::{FileFormat, LoadArgs, LoadError, file_format};
use crate::config::IngestConfig;
use crate::time::{nanoseconds, shown};

/// All files, checked.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) files: Vec<Input>,
    pub(super) points: u64,
    /// Lines with mistakes, which will be left out.
    pub(super) skipped: u64,
    /// Earliest and latest event time.
    pub(super) times: Option<(i64, i64)>,
    /// Points that `ingest` refuses by the limits of its configuration.
    pub(super) beyond: Beyond,
}

/// Points outside of the times that `ingest` takes.
#[derive(Debug)]
pub(super) struct Beyond {
    oldest: i64,
    newest: i64,
    too_old: Option<(u64, Example)>,
    too_new: Option<(u64, Example)>,
}

/// The first of several points.
#[derive(Debug, Clone)]
struct Example {
    path: PathBuf,
    line: u64,
    time: i64,
}

impl Beyond {
    pub(super) fn new(config: &IngestConfig, now: i64) -> Self {
        let default = DecodeOptions::default().oldest;
        Self {
            oldest: config.oldest.map_or(default, |age| now.saturating_sub(nanoseconds(age))),
            newest: now.saturating_add(nanoseconds(config.max_future_skew)),
            too_old: None,
            too_new: None,
        }
    }

    fn look(&mut self, time: i64, path: &Path, line: u64) {
        let found = if time < self.oldest {
            &mut self.too_old
        } else if time > self.newest {
            &mut self.too_new
        } else {
            return;
        };
        let example = || (0, Example { path: path.to_owned(), line, time });
        found.get_or_insert_with(example).0 += 1;
    }

    /// What the user has to know before wondering where the points are.
    pub(super) fn warnings(&self) -> Vec<String> {
        let too_old = self.too_old.as_ref().map(|found| (found, "before", self.oldest, "`oldest`"));
        let too_new = self.too_new.as_ref().map(|found| (found, "after", self.newest, "`max_future_skew`"));
        let warning = |((count, first), side, limit, option): (&(u64, Example), &str, i64, &str)| {
            let Example { path, line, time } = first;
            format!(
                "{count} points are {side} {}, and `ingest` refuses them by {option} of [ingest]; the first is {}:{line}, at {}",
                shown(limit),
                path.display(),
                shown(*time)
            )
        };
        too_old.into_iter().chain(too_new).map(warning).collect()
    }
}

/// The points of one file, by time.
#[derive(Debug)]
pub(super) enum Input {
    Memory(std::vec::IntoIter<Point>),
    File(PointReader),
}

/// Name and labels that hold for a whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputLabels {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
}

/// A row that is no point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRow {
    /// From 1.
    pub(super) line: u64,
    /// How many lines are skipped with it.
    pub(super) lines: u64,
    pub(super) problem: String,
}

/// A point and its line, or what is wrong with the row.
pub(super) type Row = Result<(Point, u64), BadRow>;

/// The points of one file, in its order.
#[derive(Debug)]
pub(super) struct PointReader {
    path: PathBuf,
    rows: Rows,
    skip_bad: bool,
    skipped: u64,
    /// The last line that was skipped for its series: several points of it count once.
    last_skipped: u64,
}

#[derive(Debug)]
enum Rows {
    Csv(Box<CsvReader>),
    Lines(Box<LineReader>),
}

impl Inputs {
    /// Reads every file to its end.
    ///
    /// # Errors
    /// The first bad row (without `--skip-bad`), a file that cannot be read, or one that is too
    /// large and not sorted.
    pub(super) fn open(args: &LoadArgs, book: &mut SeriesBook, beyond: Beyond) -> Result<Self, LoadError> {
        let mut inputs = Self { files: Vec::new(), points: 0, skipped: 0, times: None, beyond };
        // What is left for files to come of the points that may be kept.
        let mut room = args.sort_points;
        for path in &args.files {
            let file = inputs.open_file(path, args, book, &mut room)?;
            inputs.files.push(file);
        }
        Ok(inputs)
    }

    fn open_file(
        &mut self,
        path: &Path,
        args: &LoadArgs,
        book: &mut SeriesBook,
        room: &mut usize,
    ) -> Result<Input, LoadError> {
        let mut reader = PointReader::open(path, args)?;
        let mut kept: Option<Vec<Point>> = Some(Vec::new());
        let mut unsorted: Option<u64> = None;
        let mut previous = i64::MIN;
        while let Some((point, line)) = reader.next(book)? {
            self.points += 1;
            self.beyond.look(point.time, path, line);
            let (first, last) = self.times.unwrap_or((point.time, point.time));
            self.times = Some((first.min(point.time), last.max(point.time)));
            if point.time < previous && unsorted.is_none() {
                unsorted = Some(line);
            }
            previous = point.time;
            match &mut kept {
                Some(points) if points.len() < *room => points.push(point),
                _ => kept = None,
            }
            if let (Some(line), None) = (unsorted, &kept) {
                let limit = args.sort_points;
                return Err(LoadError::Unsorted { path: path.to_owned(), line, limit });
            }
        }
        self.skipped += reader.skipped;
        match kept {
            Some(mut points) => {
                *room -= points.len();
                if unsorted.is_some() {
                    // Stable: points of the same time stay in the order of the file.
                    points.sort_by_key(|point| point.time);
                }
                Ok(Input::Memory(points.into_iter()))
            }
            None => Ok(Input::File(PointReader::open(path, args)?)),
        }
    }
}

impl Input {
    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Point>, LoadError> {
        match self {
            Self::Memory(points) => Ok(points.next()),
            Self::File(reader) => Ok(reader.next(book)?.map(|(point, _)| point)),
        }
    }
}

impl PointReader {
    fn open(path: &Path, args: &LoadArgs) -> Result<Self, LoadError> {
        let labels = InputLabels::of_file(path, args)?;
        let rows = match file_format(path, args.format)? {
            FileFormat::Csv => Rows::Csv(Box::new(CsvReader::open(path, args, labels)?)),
            FileFormat::Json => Rows::Lines(Box::new(LineReader::open(path, Format::Json, labels)?)),
            FileFormat::LineProtocol => {
                Rows::Lines(Box::new(LineReader::open(path, Format::LineProtocol, labels)?))
            }
        };
        Ok(Self { path: path.to_owned(), rows, skip_bad: args.skip_bad, skipped: 0, last_skipped: 0 })
    }

    /// The next point and its line.
    fn next(&mut self, book: &mut SeriesBook) -> Result<Option<(Point, u64)>, LoadError> {
        loop {
            let row = match &mut self.rows {
                Rows::Csv(rows) => rows.next(book),
                Rows::Lines(rows) => rows.next(book),
            };
            let row = row.map_err(|source| LoadError::Read { path: self.path.clone(), source })?;
            match row {
                None => return Ok(None),
                Some(Ok((point, line))) => match &book.get(point.series).problem {
                    None => return Ok(Some((point, line))),
                    Some(_) if self.skip_bad => {
                        self.skipped += u64::from(self.last_skipped != line);
                        self.last_skipped = line;
                    }
                    Some(problem) => {
                        let (path, problem) = (self.path.clone(), problem.clone());
                        return Err(LoadError::BadRow { path, line, problem });
                    }
                },
                Some(Err(bad)) if self.skip_bad => self.skipped += bad.lines,
                Some(Err(BadRow { line, problem, .. })) => {
                    return Err(LoadError::BadRow { path: self.path.clone(), line, problem });
                }
            }
        }
    }
}

impl InputLabels {
    /// Labels of the options, then of the file's name, which win.
    pub(super) fn of_file(path: &Path, args: &LoadArgs) -> Result<Self, LoadError> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut labels = args.labels.clone();
        let mut name = stem.to_string();
        if let Some(pattern) = &args.file_pattern {
            let Some(found) = pattern.captures(&stem) else {
                return Err(LoadError::Options(format!(
                    "{}: `{stem}` does not match the pattern {pattern} of --file-pattern",
                    path.display()
                )));
            };
            for group in pattern.capture_names().flatten() {
                let Some(text) = found.name(group) else { continue };
                if group == "name" {
                    name = text.as_str().to_owned();
                } else {
                    labels.push((group.to_owned(), text.as_str().to_owned()));
                }
            }
        }
        if let Some(given) = &args.name {
            name.clone_from(given);
        }
        if name.is_empty() {
            return Err(LoadError::Options(format!(
                "{}: the name of the metric is empty: let the group `name` of --file-pattern match a character, or add --name",
                path.display()
            )));
        }
        Ok(Self { name, labels })
    }
}
