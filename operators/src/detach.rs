//! Rows in memory of their own.
//!
//! Arrow cuts batches without copying: a slice of one row keeps the buffers of the whole batch
//! alive, and a column of texts those of every batch that it was taken from. What is kept for long
//! is detached first, so that it weighs what it holds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::overflow::content_bytes;

/// What a column of a batch takes beside its content: the array itself, its buffers' heads and
/// alignment.
pub(crate) const COLUMN_BYTES: usize = 128;

/// The same rows, copied when their buffers are more than twice as large as their content.
pub(crate) fn detach(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let fits = 2 * content_bytes(rows) + COLUMN_BYTES * rows.num_columns();
    if rows.get_array_memory_size() <= fits {
        return Ok(rows.clone());
    }
    if rows.num_rows() == 0 {
        return Ok(RecordBatch::new_empty(rows.schema()));
    }
    let columns = rows.columns().iter().map(copy).collect::<Result<_, _>>()?;
    RecordBatch::try_new(rows.schema(), columns)
}

fn copy(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        // Short texts lie in the views, which collecting alone would not copy.
        DataType::Utf8View => Arc::new(taken(array)?.as_string_view().gc()),
        DataType::BinaryView => Arc::new(taken(array)?.as_binary_view().gc()),
        DataType::List(field) => {
            // Taking makes the offsets start at zero and the values fit.
            let taken = taken(array)?;
            let list = taken.as_list::<i32>();
            let values = copy(list.values())?;
            Arc::new(ListArray::try_new(
                Arc::clone(field),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )?)
        }
        DataType::Struct(fields) => {
            let given = array.as_struct();
            let columns = given.columns().iter().map(copy).collect::<Result<_, _>>()?;
            Arc::new(StructArray::try_new(fields.clone(), columns, given.nulls().cloned())?)
        }
        _ => taken(array)?,
    })
}

fn taken(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    take(array, &UInt64Array::from_iter_values(0..array.len() as u64), None)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, ListBuilder, StringViewArray, StringViewBuilder};

    use super::*;

    #[test]
    fn a_row_cut_out_of_many_weighs_what_it_holds() {
        let text = |row: usize| format!("a host with a name that is not short, number {row}");
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for row in 0..10_000 {
            lists.values().append_value(text(row));
            lists.append(row % 3 > 0);
        }
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..10_000).map(text)));
        let lists: ArrayRef = Arc::new(lists.finish());
        let numbers: ArrayRef =
            Arc::new(Float64Array::from_iter((0..10_000).map(|row| (row % 2 > 0).then_some(1.0))));
        let pair = StructArray::from(vec![(
            Arc::new(arrow::datatypes::Field::new("text", DataType::Utf8View, true)),
            Arc::clone(&texts),
        )]);
        let pair: ArrayRef = Arc::new(pair);
        let all = RecordBatch::try_from_iter_with_nullable([
            ("texts", texts, true),
            ("lists", lists, true),
            ("numbers", numbers, true),
            ("pair", pair, true),
        ])
        .unwrap();
        for (from, rows) in [(0, 1), (4_321, 1), (9_990, 10), (5, 0)] {
            let part = all.slice(from, rows);
            let own = detach(&part).unwrap();
            assert_eq!(own, part);
            let (before, after) = (part.get_array_memory_size(), own.get_array_memory_size());
            assert!(after < 6_000 && before > 1_000_000, "{before} bytes became {after}");
        }
        assert_eq!(detach(&all).unwrap(), all);
    }
}
