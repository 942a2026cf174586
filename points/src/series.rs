//! Interning of series, so that a point carries a four-byte id in place of its name and labels.
//!
//! A series is a name and its labels. Two maps lead to its id: the *raw* map from the bytes by
//! which a message spelled it, and the *canonical* map from the name and the sorted labels. A
//! spelling that was seen before costs one hash of its bytes, one comparison and no allocation; a
//! new spelling of a known series is parsed once and ends at the same id.
//!
//! The text of all series is also kept as Arrow columns, one row a series, which only ever grow:
//! the columns of a batch of points are a `take` of 16-byte views from them.

use arrow::array::{
    ArrayRef, AsArray, MapArray, MapBuilder, StringBuilder, StringViewArray, StringViewBuilder, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields};
use hashbrown::HashTable;
use std::mem::size_of;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Interns series. Ids are dense from 0, and valid until [`SeriesTable::clear`].
///
/// Nothing is ever removed one by one: watch [`SeriesTable::memory_bytes`], and clear the table
/// when it passes the bound, between two batches.
#[derive(Debug)]
pub struct SeriesTable {
    wanted_labels: Vec<String>,
    series: Vec<Series>,
    canonical: HashTable<u32>,
    spellings: HashTable<Spelling>,
    /// The raw bytes of all spellings, one after the other.
    spelling_bytes: Vec<u8>,
    /// Bytes held by `series` outside of its own vector.
    text_bytes: usize,
    columns: Columns,
    text: String,
    ends: Vec<u32>,
}

/// A series as one string, `name key value key value …`, and where each part ends.
#[derive(Debug)]
struct Series {
    text: Box<str>,
    ends: Box<[u32]>,
}

#[derive(Debug)]
struct Spelling {
    hash: u64,
    start: usize,
    length: u32,
    id: u32,
}

/// The series' text as Arrow columns, and snapshots of them that cover `snapshot_rows` series.
#[derive(Debug)]
struct Columns {
    name: StringViewBuilder,
    labels: Vec<StringViewBuilder>,
    snapshot: Vec<ArrayRef>,
    snapshot_rows: usize,
}

/// The name and labels of one series.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    pub name: &'a str,
    series: &'a Series,
}

impl SeriesTable {
    /// `wanted_labels` are those that get a column of their own in [`SeriesTable::columns`].
    pub fn new(wanted_labels: Vec<String>) -> Self {
        let columns = Columns::new(wanted_labels.len());
        Self {
            wanted_labels,
            series: Vec::new(),
            canonical: HashTable::new(),
            spellings: HashTable::new(),
            spelling_bytes: Vec::new(),
            text_bytes: 0,
            columns,
            text: String::new(),
            ends: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn wanted_labels(&self) -> &[String] {
        &self.wanted_labels
    }

    /// An estimate of the memory held, in bytes: capacities, without the allocator's own overhead.
    pub fn memory_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Series>()
            + self.text_bytes
            + self.canonical.allocation_size()
            + self.spellings.allocation_size()
            + self.spelling_bytes.capacity()
            + self.columns.memory_bytes()
    }

    /// Of `memory_bytes`, the names and labels themselves.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Forgets every series and gives the memory back. All ids handed out before are void.
    pub fn clear(&mut self) {
        *self = Self::new(std::mem::take(&mut self.wanted_labels));
    }

    /// The series with this id.
    ///
    /// # Panics
    /// If `id` was not handed out since the last [`SeriesTable::clear`].
    pub fn get(&self, id: u32) -> SeriesRef<'_> {
        let series = &self.series[id as usize];
        SeriesRef { name: &series.text[..series.ends[0] as usize], series }
    }

    /// `name`, and one column for each wanted label (null where a series lacks it), with a row per
    /// id.
    ///
    /// # Panics
    /// If an id was not handed out since the last [`SeriesTable::clear`].
    pub fn columns(&mut self, ids: &[u32]) -> (StringViewArray, Vec<StringViewArray>) {
        let indices = UInt32Array::from(ids.to_vec());
        let mut taken = self.text().iter().map(|column| {
            let rows = take(column, &indices, None).expect("string views of the table's rows can be taken");
            rows.as_string_view().clone()
        });
        let name = taken.next().expect("the first column is the name");
        (name, taken.collect())
    }

    /// The columns of [`SeriesTable::columns`] with a row for each series, in the order of their
    /// ids.
    pub fn text(&mut self) -> &[ArrayRef] {
        self.columns.refresh(self.series.len());
        &self.columns.snapshot
    }

    /// All labels of each id's series, sorted by key, as [`labels_type`].
    ///
    /// # Panics
    /// If an id was not handed out since the last [`SeriesTable::clear`], or if the text of one
    /// batch passes the 2 GiB that 32-bit offsets can address.
    pub fn labels_map(&self, ids: &[u32]) -> MapArray {
        let (mut pairs, mut bytes) = (0, 0);
        for &id in ids {
            let series = &self.series[id as usize];
            pairs += series.ends.len() / 2;
            bytes += series.text.len();
        }
        let keys = StringBuilder::with_capacity(pairs, bytes / 2);
        let values = StringBuilder::with_capacity(pairs, bytes / 2);
        let mut map = MapBuilder::with_capacity(None, keys, values, ids.len());
        for &id in ids {
            for (key, value) in self.get(id).labels() {
                map.keys().append_value(key);
                map.values().append_value(value);
            }
            map.append(true).expect("keys and values are appended in pairs");
        }
        map.finish()
    }

    /// The id of the series that was spelled by these bytes before.
    pub(crate) fn lookup(&self, spelling: &[u8]) -> Option<u32> {
        let hash = XxHash3_64::oneshot(spelling);
        let found = self.spellings.find(hash, |known| {
            known.hash == hash && &self.spelling_bytes[known.start..][..known.length as usize] == spelling
        });
        found.map(|known| known.id)
    }

    /// The id of the series with this name and these labels, from now on also found by `spelling`,
    /// which must not be known yet. Labels come with distinct keys, in any order; those without a
    /// value are no labels.
    pub(crate) fn intern(&mut self, spelling: &[u8], name: &str, labels: &mut Vec<(String, String)>) -> u32 {
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_unstable();
        self.text.clear();
        self.ends.clear();
        for part in std::iter::once(name).chain(labels.iter().flat_map(|(key, value)| [&**key, &**value])) {
            self.text.push_str(part);
            self.ends.push(u32::try_from(self.text.len()).expect("a message is far below 4 GiB"));
        }

        let hash = XxHash3_64::oneshot(self.text.as_bytes());
        let known = self.canonical.find(hash, |&id| {
            let series = &self.series[id as usize];
            *series.text == *self.text && *series.ends == *self.ends
        });
        let id = match known {
            Some(&id) => id,
            None => self.append(hash),
        };

        let hash = XxHash3_64::oneshot(spelling);
        let start = self.spelling_bytes.len();
        let length = u32::try_from(spelling.len()).expect("a message is far below 4 GiB");
        self.spelling_bytes.extend_from_slice(spelling);
        self.spellings.insert_unique(hash, Spelling { hash, start, length, id }, |known| known.hash);
        id
    }

    /// Adds the series in `text` and `ends`.
    fn append(&mut self, hash: u64) -> u32 {
        let id = u32::try_from(self.series.len()).expect("memory ends before 2^32 series");
        let series = Series { text: self.text.as_str().into(), ends: self.ends.as_slice().into() };
        self.text_bytes += series.text.len() + size_of_val(&*series.ends);
        self.series.push(series);
        let all = &self.series;
        self.canonical.insert_unique(hash, id, |&id| XxHash3_64::oneshot(all[id as usize].text.as_bytes()));

        let series = &self.series[id as usize];
        let series = SeriesRef { name: &series.text[..series.ends[0] as usize], series };
        self.columns.name.append_value(series.name);
        for (label, column) in self.wanted_labels.iter().zip(&mut self.columns.labels) {
            column.append_option(series.label(label));
        }
        id
    }
}

impl<'a> SeriesRef<'a> {
    /// Key and value of each label, sorted by key, never with an empty value.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let series = self.series;
        (1..series.ends.len()).step_by(2).map(|key| (series.part(key), series.part(key + 1)))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels().find(|(candidate, _)| *candidate == key).map(|(_, value)| value)
    }
}

impl Series {
    fn part(&self, index: usize) -> &str {
        &self.text[self.ends[index - 1] as usize..self.ends[index] as usize]
    }
}

impl Columns {
    fn new(labels: usize) -> Self {
        // The same few names and values return in many series: they are stored once.
        let column = || StringViewBuilder::new().with_deduplicate_strings();
        let labels = (0..labels).map(|_| column()).collect();
        Self { name: column(), labels, snapshot: Vec::new(), snapshot_rows: usize::MAX }
    }

    /// Makes the snapshot cover all `rows`. It shares the finished blocks of text with the
    /// builders, so that new series cost a copy of the views and of the last block, and none cost
    /// nothing.
    fn refresh(&mut self, rows: usize) {
        if self.snapshot_rows == rows {
            return;
        }
        self.snapshot.clear();
        self.snapshot.push(Arc::new(self.name.finish_cloned()));
        for label in &self.labels {
            self.snapshot.push(Arc::new(label.finish_cloned()));
        }
        self.snapshot_rows = rows;
    }

    fn memory_bytes(&self) -> usize {
        let builders = self.labels.iter().chain([&self.name]).map(StringViewBuilder::allocated_size);
        // Of the snapshots only the views are their own.
        let views = self.snapshot.iter().map(|column| column.len() * size_of::<u128>());
        builders.sum::<usize>() + views.sum::<usize>()
    }
}

/// The Arrow type of a point's labels: `Map<Utf8, Utf8>` with the entries sorted by key. The type's
/// own sorted flag is unset, as readers of Parquet leave it.
pub fn labels_type() -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    fn intern(table: &mut SeriesTable, spelling: &str, name: &str, labels: &[(&str, &str)]) -> u32 {
        if let Some(id) = table.lookup(spelling.as_bytes()) {
            return id;
        }
        let mut labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        table.intern(spelling.as_bytes(), name, &mut labels)
    }

    #[test]
    fn equal_series_have_equal_ids() {
        // Spelling, name, labels, id.
        type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], u32);
        let cases: &[Case] = &[
            ("a", "cpu", &[("host", "1"), ("region", "eu")], 0),
            ("b", "cpu", &[("region", "eu"), ("host", "1")], 0),
            ("c", "cpu", &[("region", "eu"), ("host", "1"), ("empty", "")], 0),
            ("d", "cpu", &[("region", "eu"), ("host", "2")], 1),
            ("e", "cpu", &[], 2),
            // The same text, cut in other places.
            ("f", "cpuhost", &[("1region", "eu")], 3),
            ("g", "cpuhost1regioneu", &[], 4),
            ("a", "never looked at", &[], 0),
        ];
        let mut table = SeriesTable::new(vec![]);
        for (spelling, name, labels, id) in cases {
            assert_eq!(intern(&mut table, spelling, name, labels), *id, "spelling {spelling}");
        }
        assert_eq!(table.len(), 5);
        let first = table.get(0);
        assert_eq!(first.name, "cpu");
        assert_eq!(first.labels().collect::<Vec<_>>(), [("host", "1"), ("region", "eu")]);
        assert_eq!(first.label("region"), Some("eu"));
        assert_eq!(first.label("zone"), None);
    }

    #[test]
    fn columns_grow_with_the_table() {
        let long = "a label value that does not fit into a view";
        let mut table = SeriesTable::new(vec!["region".into(), "zone".into()]);
        let (name, labels) = table.columns(&[]);
        assert_eq!((name.len(), labels.len()), (0, 2));

        intern(&mut table, "a", "cpu", &[("region", "eu")]);
        intern(&mut table, "b", "mem", &[("zone", long)]);
        let (name, labels) = table.columns(&[1, 0, 1]);
        assert_eq!(name.iter().flatten().collect::<Vec<_>>(), ["mem", "cpu", "mem"]);
        assert_eq!(labels[0].iter().collect::<Vec<_>>(), [None, Some("eu"), None]);
        assert_eq!(labels[1].iter().collect::<Vec<_>>(), [Some(long), None, Some(long)]);

        intern(&mut table, "c", "disk", &[("zone", long)]);
        let (later, labels) = table.columns(&[2]);
        assert_eq!(later.value(0), "disk");
        assert_eq!(labels[1].value(0), long);
        assert_eq!(name.value(0), "mem", "earlier columns stay as they were");

        let before = table.memory_bytes();
        assert!(before > 0);
        table.clear();
        assert!(table.is_empty() && table.memory_bytes() < before);
        assert_eq!(table.lookup(b"a"), None);
        assert_eq!(intern(&mut table, "c", "disk", &[]), 0);
        assert_eq!(table.columns(&[0]).0.value(0), "disk");
    }

    #[test]
    fn labels_map_is_sorted() {
        let mut table = SeriesTable::new(vec![]);
        intern(&mut table, "a", "cpu", &[("region", "eu"), ("host", "1")]);
        intern(&mut table, "b", "cpu", &[]);
        let map = table.labels_map(&[0, 1, 0]);
        assert_eq!(map.data_type(), &labels_type());
        assert_eq!(map.value_offsets(), [0, 2, 2, 4]);
        let keys = map.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>();
        assert_eq!(keys, ["host", "region", "host", "region"]);
        assert_eq!(map.null_count(), 0);
    }
}
