//! Merging files by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use points::book::{Point, SeriesBook};

use super::LoadError;
use super::input::Input;

/// Points of all inputs in the order of their times; those of the same time in the order of the
/// inputs.
#[derive(Debug)]
pub(super) struct Merge {
    inputs: Vec<Input>,
    /// The next point of each input.
    heads: Vec<Option<Point>>,
    /// Time and input of each head, the earliest on top.
    order: BinaryHeap<Reverse<(i64, usize)>>,
}

impl Merge {
    /// Each input must be sorted by time.
    pub(super) fn new(inputs: Vec<Input>, book: &mut SeriesBook) -> Result<Self, LoadError> {
        let heads = vec![None; inputs.len()];
        let mut merge = Self { inputs, heads, order: BinaryHeap::new() };
        for index in 0..merge.inputs.len() {
            merge.advance(index, book)?;
        }
        Ok(merge)
    }

    pub(super) fn next(&mut self, book: &mut SeriesBook) -> Result<Option<Point>, LoadError> {
        let Some(Reverse((_, index))) = self.order.pop() else { return Ok(None) };
        let point = self.heads[index].take();
        self.advance(index, book)?;
        Ok(point)
    }

    fn advance(&mut self, index: usize, book: &mut SeriesBook) -> Result<(), LoadError> {
        if let Some(point) = self.inputs[index].next(book)? {
            self.heads[index] = Some(point);
            self.order.push(Reverse((point.time, index)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_input() {
        // The value tells input and position: 10 × input + position.
        let cases: [(&[&[i64]], &[f64]); 5] = [
            (&[], &[]),
            (&[&[], &[5]], &[10.0]),
            (&[&[1, 4], &[2, 3]], &[0.0, 10.0, 11.0, 1.0]),
            (&[&[1, 1], &[1], &[0, 1]], &[20.0, 0.0, 1.0, 10.0, 21.0]),
            (&[&[-5, 9], &[], &[-6]], &[20.0, 0.0, 1.0]),
        ];
        for (inputs, expected) in cases {
            let mut book = SeriesBook::default();
            let mut files = Vec::new();
            for (input, times) in inputs.iter().enumerate() {
                let mut points = Vec::new();
                for (position, time) in times.iter().enumerate() {
                    points.push(Point { time: *time, value: (10 * input + position) as f64, series: 0 });
                }
                files.push(Input::Memory(points.into_iter()));
            }
            let mut merge = Merge::new(files, &mut book).expect("memory is always readable");
            let mut merged = Vec::new();
            while let Some(point) = merge.next(&mut book).expect("memory is always readable") {
                merged.push(point.value);
            }
            assert_eq!(merged, expected, "{inputs:?}");
        }
    }
}
