//! Points of a file with JSON or line protocol on every line, decoded as `ingest` decodes messages.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use points::book::{Point, SeriesBook};
use points::decode::{DecodeOptions, Decoder, Format, Points, Reason, Rejection, TextBounds};

use super::LoadError;
use super::input::{BadRow, InputLabels, Row};
use super::physical::{MAX_LINE_BYTES, PhysicalLines};

#[derive(Debug)]
pub(super) struct LineReader {
    lines: PhysicalLines,
    /// Lines that were looked at, to see where a string ends, and are to be read next.
    ahead: VecDeque<Vec<u8>>,
    /// The first line of the record in the buffer, and how many lines it has.
    line: u64,
    count: u64,
    buffer: Vec<u8>,
    format: Format,
    decoder: Decoder,
    points: Points,
    rejected: Vec<Rejection>,
    labels: InputLabels,
    /// The book's id for each of the decoder's.
    series: Vec<u32>,
    /// What the current record came to and was not handed out yet.
    ready: VecDeque<Row>,
}

impl LineReader {
    pub(super) fn open(path: &Path, format: Format, labels: InputLabels) -> Result<Self, LoadError> {
        // Any time is accepted here: `ingest` decides what is too old or ahead.
        let options = DecodeOptions {
            format,
            max_future_skew: Duration::MAX,
            max_message_bytes: MAX_LINE_BYTES,
            oldest: i64::MIN,
            // And a series that is too long is the book's to refuse, whatever the format.
            bounds: TextBounds::NONE,
        };
        Ok(Self {
            lines: PhysicalLines::open(path)?,
            ahead: VecDeque::new(),
            line: 0,
            count: 0,
            buffer: Vec::new(),
            format,
            decoder: Decoder::new(options, Vec::new()),
            points: Points::default(),
            rejected: Vec::new(),
            labels,
            series: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// The next point with its line, or what is wrong with the line. `None` at the end.
    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Row>, io::Error> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            self.line += self.count;
            self.buffer.clear();
            let Some(first) = self.next_line()? else { return Ok(None) };
            self.line = self.line.max(1);
            self.count = 1;
            self.buffer = first;
            self.decode();
            if self.format == Format::LineProtocol && self.is_open() {
                self.join()?;
            }
            self.hand_out(book);
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, io::Error> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => Ok(self.lines.next_bytes()?.map(<[u8]>::to_vec)),
        }
    }

    /// Adds the lines that the string at the end of the buffer goes on in. One that is never closed
    /// is a mistake of its first line and swallows none, as in a message.
    fn join(&mut self) -> Result<(), io::Error> {
        let first = self.buffer.clone();
        let mut taken = Vec::new();
        while self.is_open() {
            let next = if self.buffer.len() > MAX_LINE_BYTES { None } else { self.next_line()? };
            let Some(next) = next else { break };
            self.buffer.extend_from_slice(&next);
            taken.push(next);
            self.decode();
        }
        let is_whole = !self.has_syntax_error();
        if is_whole {
            self.count += taken.len() as u64;
        } else {
            for line in taken.into_iter().rev() {
                self.ahead.push_front(line);
            }
            self.buffer = first;
            self.decode();
        }
        Ok(())
    }

    /// Whether the buffer ends in the middle of a string: it cannot be read, and could be if the
    /// string ended here.
    fn is_open(&mut self) -> bool {
        if !self.has_syntax_error() {
            return false;
        }
        self.buffer.extend_from_slice(b"\n\"");
        self.decode();
        let is_open = !self.has_syntax_error();
        self.buffer.truncate(self.buffer.len() - 2);
        self.decode();
        is_open
    }

    fn has_syntax_error(&self) -> bool {
        self.rejected.iter().any(|rejection| rejection.reason == Reason::Syntax)
    }

    fn decode(&mut self) {
        self.points.clear();
        self.rejected.clear();
        self.decoder.decode(&self.buffer, None, 0, &mut self.points, &mut self.rejected);
    }

    fn hand_out(&mut self, book: &mut SeriesBook) {
        for index in 0..self.points.len() {
            let series = self.book_id(self.points.series[index], book);
            let point = Point { time: self.points.time[index], value: self.points.value[index], series };
            self.ready.push_back(Ok((point, self.line)));
        }
        // Several points of a line may be refused; it is skipped once.
        let mut lines = self.count;
        for rejection in &self.rejected {
            let problem = rejection.detail.clone();
            self.ready.push_back(Err(BadRow { line: self.line, lines: std::mem::take(&mut lines), problem }));
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
