//! A point that is to be sent, and the book of series that it refers to.

use std::collections::HashMap;

use crate::decode::TextBounds;
use twox_hash::XxHash3_64;

/// 24 bytes, so that millions can be sorted in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub value: f64,
    /// Index in the [`SeriesBook`].
    pub series: u32,
}

/// Name and labels, once for each series of all files.
#[derive(Debug, Default)]
pub struct SeriesBook {
    ids: HashMap<String, u32>,
    series: Vec<Series>,
    bounds: TextBounds,
}

#[derive(Debug)]
pub struct Series {
    pub name: String,
    /// Sorted by key; no empty values.
    pub labels: Vec<(String, String)>,
    /// Name and labels as one text: the key of messages.
    pub key: String,
    /// Of `key`; stable across versions and machines, so that a series stays in its partition.
    pub hash: u64,
    /// Why `ingest` would refuse its points: a text is too long.
    pub problem: Option<String>,
}

impl SeriesBook {
    /// With the bounds that `ingest` will have.
    pub fn new(bounds: TextBounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// The id of a series. Of labels with the same key the last counts; an empty value is no label.
    pub fn intern(&mut self, name: &str, labels: &[(String, String)]) -> u32 {
        let mut sorted: Vec<(String, String)> = Vec::with_capacity(labels.len());
        for (key, value) in labels {
            sorted.retain(|(earlier, _)| earlier != key);
            if !value.is_empty() {
                sorted.push((key.clone(), value.clone()));
            }
        }
        sorted.sort_unstable();
        let mut key = escaped(name);
        for (label, value) in &sorted {
            key.push(',');
            key.push_str(&escaped(label));
            key.push('=');
            key.push_str(&escaped(value));
        }
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = u32::try_from(self.series.len()).expect("memory ends before four billion series");
        let hash = XxHash3_64::oneshot(key.as_bytes());
        let texts = sorted.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        let problem = self.bounds.problem(name, texts);
        self.series.push(Series { name: name.to_owned(), labels: sorted, key: key.clone(), hash, problem });
        self.ids.insert(key, id);
        id
    }

    pub fn get(&self, id: u32) -> &Series {
        &self.series[id as usize]
    }

    pub fn all(&self) -> &[Series] {
        &self.series
    }
}

/// Without the characters that separate the parts of a key, so that two series never share one.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ',' | '=' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn equal_series_share_an_id() {
        let mut book = SeriesBook::default();
        let first = book.intern("cpu", &labels(&[("b", "2"), ("a", "1"), ("c", "")]));
        assert_eq!(book.intern("cpu", &labels(&[("a", "0"), ("a", "1"), ("b", "2")])), first);
        assert_eq!(book.get(first).key, "cpu,a=1,b=2");
        assert_ne!(book.intern("cpu,a=1", &labels(&[("b", "2")])), first);
        assert_ne!(book.intern("cpu", &labels(&[("a", "1,b=2")])), first);
        assert_eq!(book.all().len(), 3);
    }
}
