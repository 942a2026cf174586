//! The lines of a file, one at a time and bounded in length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::LoadError;

/// Longer lines are bad rows.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// What editors of one system put before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Debug)]
pub(super) struct PhysicalLines {
    text: BufReader<File>,
    number: u64,
    buffer: Vec<u8>,
}

/// A line without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Physical<'l> {
    Text(&'l str),
    NotUtf8,
    TooLong,
}

impl PhysicalLines {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Ok(Self { text: BufReader::with_capacity(1 << 18, file), number: 0, buffer: Vec::new() })
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line as text; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Physical<'_>>> {
        if !self.read()? {
            return Ok(None);
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            return Ok(Some(Physical::TooLong));
        }
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(std::str::from_utf8(line).map_or(Physical::NotUtf8, Physical::Text)))
    }

    /// The next line with its line break; `None` at the end. Of one that is too long, as much as
    /// shows that.
    pub(super) fn next_bytes(&mut self) -> io::Result<Option<&[u8]>> {
        Ok(self.read()?.then_some(self.buffer.as_slice()))
    }

    fn read(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        if self.text.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(false);
        }
        if self.buffer.len() > MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n') {
            self.text.skip_until(b'\n')?;
        }
        self.number += 1;
        if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}
