//! Points of a file with JSON or line protocol on every line, decoded as `ingest` decodes messages.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use operators::decode::{DecodeOptions, Decoder, Format, Points, Rejection};

use super::LoadError;
use super::input::{BadRow, InputLabels, Row};
use super::point::{Point, SeriesBook};

/// Longer lines are bad rows.
const MAX_LINE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct LineReader {
    text: BufReader<File>,
    line: u64,
    buffer: Vec<u8>,
    decoder: Decoder,
    points: Points,
    rejected: Vec<Rejection>,
    labels: InputLabels,
    /// The book's id for each of the decoder's.
    series: Vec<u32>,
    /// What the current line came to and was not handed out yet.
    ready: VecDeque<Row>,
}

impl LineReader {
    pub(super) fn open(path: &Path, format: Format, labels: InputLabels) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        // Any time is accepted here: what is too old or ahead is for `ingest` to say.
        let options = DecodeOptions {
            format,
            max_future_skew: Duration::MAX,
            max_message_bytes: MAX_LINE_BYTES,
            oldest: i64::MIN,
        };
        Ok(Self {
            text: BufReader::with_capacity(1 << 18, file),
            line: 0,
            buffer: Vec::new(),
            decoder: Decoder::new(options, Vec::new()),
            points: Points::default(),
            rejected: Vec::new(),
            labels,
            series: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// The next point with its line, or what is wrong with the line. `None` at the end.
    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Row>, std::io::Error> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if !self.read_line()? {
                return Ok(None);
            }
            self.decode(book);
        }
    }

    /// Reads a line into the buffer; of one that is too long, as much as shows that.
    fn read_line(&mut self) -> Result<bool, std::io::Error> {
        self.buffer.clear();
        self.line += 1;
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = self.text.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        if self.buffer.len() > MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n') {
            self.text.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }

    fn decode(&mut self, book: &mut SeriesBook) {
        self.points.clear();
        self.rejected.clear();
        let decoded = self.decoder.decode(&self.buffer, None, 0, &mut self.points, &mut self.rejected);
        for index in 0..decoded.points {
            let series = self.book_id(self.points.series[index], book);
            let point = Point { time: self.points.time[index], value: self.points.value[index], series };
            self.ready.push_back(Ok((point, self.line)));
        }
        for rejection in &self.rejected {
            self.ready.push_back(Err(BadRow { line: self.line, problem: rejection.detail.clone() }));
        }
    }

    /// Series of a file come with the labels that hold for the whole file; their own win.
    fn book_id(&mut self, id: u32, book: &mut SeriesBook) -> u32 {
        // The decoder hands out its ids in order, each when its series is first seen.
        while self.series.len() <= id as usize {
            let next = u32::try_from(self.series.len()).expect("no more than the decoder's ids");
            let series = self.decoder.series().get(next);
            let mut labels = self.labels.labels.clone();
            labels.extend(series.labels().map(|(key, value)| (key.to_owned(), value.to_owned())));
            self.series.push(book.intern(series.name, &labels));
        }
        self.series[id as usize]
    }
}
