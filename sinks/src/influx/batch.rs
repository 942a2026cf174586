//! Lines gathered for one request.
//!
//! A batch holds each point once: a newer line of a point that was not sent yet takes the older
//! one's place.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::encode::Line;

/// A batch closes at this size even when it has few lines.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: Vec<Line>,
    /// Where the line of a point is, by the hash of the point.
    by_point: HashMap<u64, usize>,
    bytes: usize,
}

impl Batch {
    /// Takes the line, or gives it back when the batch has to be sent first.
    pub(crate) fn push(&mut self, line: Line, max_lines: usize) -> Option<Line> {
        let point = hash(&line);
        if let Some(&at) = self.by_point.get(&point) {
            if self.lines[at].point() != line.point() {
                // Two points with one hash: keep them in different batches, where only the hash
                // counts.
                return Some(line);
            }
            self.bytes = self.bytes - self.lines[at].text.len() + line.text.len();
            self.lines[at] = line;
            return None;
        }
        if self.is_full(max_lines) {
            return Some(line);
        }
        self.by_point.insert(point, self.lines.len());
        self.bytes += line.text.len();
        self.lines.push(line);
        None
    }

    pub(crate) fn is_full(&self, max_lines: usize) -> bool {
        self.lines.len() >= max_lines || self.bytes >= MAX_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether this batch and another with these points must not be under way at once.
    pub(crate) fn shares_a_point(&self, points: &Points) -> bool {
        self.by_point.keys().any(|point| points.0.contains_key(point))
    }

    pub(crate) fn take(&mut self) -> (Vec<Line>, Points) {
        let batch = std::mem::take(self);
        (batch.lines, Points(batch.by_point))
    }
}

/// The points of a batch under way, by hash: a collision makes a batch wait, nothing worse.
#[derive(Debug)]
pub(crate) struct Points(HashMap<u64, usize>);

fn hash(line: &Line) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.point().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};

    use super::*;
    use crate::Table;
    use crate::influx::encode::Lines;

    fn lines(times: &[i64], value: i64) -> Lines {
        let table = Table { rollup: "m".into(), time: 0, tags: vec![], fields: vec![1], ..Table::default() };
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(times.to_vec()));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![value; times.len()]));
        Lines::new(&table, &RecordBatch::try_from_iter([("time", time), ("n", values)]).unwrap()).unwrap()
    }

    #[test]
    fn a_newer_line_takes_the_place_of_an_unsent_one() {
        let mut batch = Batch::default();
        for line in lines(&[1, 2], 1).chain(lines(&[1], 5)) {
            assert_eq!(batch.push(line, 2), None);
        }
        assert!(batch.is_full(2));
        let third = lines(&[3], 1).next().unwrap();
        assert_eq!(batch.push(third.clone(), 2), Some(third.clone()), "a full batch gives the line back");
        let (sent, points) = batch.take();
        let texts: Vec<&str> = sent.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["m n=5i 1", "m n=1i 2"]);

        assert_eq!(batch.push(third, 2), None);
        assert!(!batch.shares_a_point(&points));
        batch.push(lines(&[2], 7).next().unwrap(), 2);
        assert!(batch.shares_a_point(&points));
    }
}
