//! The format of messages in the partials topic and of snapshots: Arrow IPC inside Arrow IPC.
//!
//! Both are one Arrow IPC stream with a batch of one row per section,
//! `rollup: Utf8, fingerprint: UInt64, states: Binary`; `states` is an IPC stream of that rollup's
//! state batches, compressed with LZ4. The schema's metadata carries the format version and, as
//! JSON, what is not tabular. Of another version a reader takes the metadata that it still
//! understands and no states, and it leaves out sections whose fingerprint is not that of its own
//! plan: what is not known is missing, which [`crate::rebuild`] deals with, and never misread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::sql::Rollup;
use crate::watermark::EpochFacts;

const VERSION: &str = "2";

/// One message of the partials topic: an epoch's facts and the states that belong to one rollup
/// partition.
#[derive(Debug, Clone)]
pub struct Partials {
    pub facts: EpochFacts,
    /// The plans that the epoch's points went through, by rollup, with their fingerprints: without
    /// a section of its own, a rollup that is in here had no point in the epoch.
    pub plans: BTreeMap<String, u64>,
    pub states: Vec<Section>,
}

/// State batches of one rollup.
#[derive(Debug, Clone)]
pub struct Section {
    pub rollup: String,
    /// Of the plan that made the states.
    pub fingerprint: u64,
    pub batches: Vec<RecordBatch>,
}

impl Partials {
    pub(crate) fn push(&mut self, rollup: &Rollup, rows: RecordBatch) {
        self.states.push(Section {
            rollup: rollup.name.clone(),
            fingerprint: rollup.fingerprint,
            batches: vec![rows],
        });
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        encode(&[("facts", json(&self.facts)?), ("plans", json(&self.plans)?)], &self.states)
    }

    /// As [`Partials::encode`], in several messages when one would be larger than `limit` bytes; a
    /// single row is never divided. Only the last one has the facts, so that all states are merged
    /// before the watermark moves.
    pub fn encode_within(mut self, limit: usize) -> Result<Vec<Vec<u8>>> {
        let bytes = self.encode()?;
        if bytes.len() <= limit {
            return Ok(vec![bytes]);
        }
        let Some(first) = self.take_half()? else { return Ok(vec![bytes]) };
        let mut messages = first.encode_within(limit)?;
        messages.extend(self.encode_within(limit)?);
        Ok(messages)
    }

    /// Whether the states of the plan with this fingerprint are in the message, or in those it was
    /// divided from.
    pub(crate) fn covers(&self, rollup: &Rollup) -> bool {
        self.plans.get(&rollup.name) == Some(&rollup.fingerprint)
    }

    /// The highest event time of the epoch: no point in its states is newer. None when it had no
    /// point.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.facts.partitions.iter().filter_map(|partition| partition.high).max()
    }

    /// Half of the states, with empty facts; none when there is only one row.
    fn take_half(&mut self) -> Result<Option<Self>> {
        let facts = EpochFacts::nothing();
        if self.states.len() > 1 {
            let half = self.states.len() / 2;
            let states = self.states.drain(..half).collect();
            return Ok(Some(Self { facts, plans: self.plans.clone(), states }));
        }
        let Some(section) = self.states.first_mut() else { return Ok(None) };
        let mut halves = (Vec::new(), Vec::new());
        for batch in &section.batches {
            let half = batch.num_rows().div_ceil(2);
            halves.0.push(compact(&batch.slice(0, half))?);
            if half < batch.num_rows() {
                halves.1.push(compact(&batch.slice(half, batch.num_rows() - half))?);
            }
        }
        if halves.1.is_empty() {
            return Ok(None);
        }
        let first = Section { batches: halves.0, ..section.clone() };
        section.batches = halves.1;
        Ok(Some(Self { facts, plans: self.plans.clone(), states: vec![first] }))
    }

    /// Memory of the states.
    pub fn memory_bytes(&self) -> usize {
        let batches = self.states.iter().flat_map(|section| &section.batches);
        batches.map(RecordBatch::get_array_memory_size).sum()
    }

    /// A message of another version has facts only.
    ///
    /// # Errors
    /// When not even the facts can be read.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut message = decode(bytes, "partials message")?;
        let facts = message.header("facts")?;
        match message.states.take() {
            Some(states) => Ok(Self { facts, plans: message.header("plans")?, states }),
            None => Ok(Self { facts, plans: BTreeMap::new(), states: Vec::new() }),
        }
    }
}

/// The batch with only the text that its rows use: a row taken from a larger batch still holds all
/// of that one's, and IPC would write it.
pub(crate) fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for column in batch.columns() {
        columns.push(match column.as_string_view_opt() {
            Some(texts) => Arc::new(texts.gc()) as ArrayRef,
            None => Arc::clone(column),
        });
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

pub(crate) fn json(header: &impl Serialize) -> Result<String> {
    serde_json::to_string(header).map_err(|error| Error::format("header", error))
}

/// Writes headers, given as name and JSON, and sections.
pub(crate) fn encode(headers: &[(&str, String)], sections: &[Section]) -> Result<Vec<u8>> {
    let mut stream = Stream::start(headers)?;
    for section in sections {
        stream.write(section, body(&section.batches)?)?;
    }
    stream.finish()
}

/// As [`encode`], of batches that may hold more text than their rows use. One section after the
/// other is made compact, encoded and given up, so that no second copy of all of them comes to be.
pub(crate) fn encode_compact(headers: &[(&str, String)], sections: Vec<Section>) -> Result<Vec<u8>> {
    let mut stream = Stream::start(headers)?;
    for mut section in sections {
        for batch in &mut section.batches {
            *batch = compact(batch)?;
        }
        let bytes = body(&section.batches)?;
        stream.write(&section, bytes)?;
    }
    stream.finish()
}

/// The outer IPC stream: a batch of one row for each section, so that only one body is held beside
/// the bytes.
struct Stream {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl Stream {
    fn start(headers: &[(&str, String)]) -> Result<Self> {
        let mut metadata = HashMap::from([("tidemark.version".to_owned(), VERSION.to_owned())]);
        metadata.extend(headers.iter().map(|(name, json)| (format!("tidemark.{name}"), json.clone())));
        let schema = Arc::new(Schema::new_with_metadata(
            vec![
                Field::new("rollup", DataType::Utf8, false),
                Field::new("fingerprint", DataType::UInt64, false),
                Field::new("states", DataType::Binary, false),
            ],
            metadata,
        ));
        let writer = StreamWriter::try_new(Vec::new(), &schema)?;
        Ok(Self { schema, writer })
    }

    fn write(&mut self, section: &Section, body: Vec<u8>) -> Result<()> {
        if i32::try_from(body.len()).is_err() {
            let detail = format!("{} bytes of one rollup, more than 2 GiB", body.len());
            return Err(Error::format("section", detail));
        }
        let states = BinaryArray::try_new(OffsetBuffer::from_lengths([body.len()]), body.into(), None)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values([&section.rollup])),
            Arc::new(UInt64Array::from_iter_values([section.fingerprint])),
            Arc::new(states),
        ];
        Ok(self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?)
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.writer.into_inner()?)
    }
}

/// What was decoded.
pub(crate) struct Decoded {
    what: &'static str,
    pub(crate) version: String,
    metadata: HashMap<String, String>,
    /// None when another version of the format wrote them.
    pub(crate) states: Option<Vec<Section>>,
}

impl Decoded {
    /// A header by its name.
    pub(crate) fn header<H: DeserializeOwned>(&self, name: &str) -> Result<H> {
        let Some(json) = self.metadata.get(&format!("tidemark.{name}")) else {
            return Err(Error::format(self.what, format!("no {name}, format version=`{}`", self.version)));
        };
        let unreadable = |error| format!("{name}: {error}, format version=`{}`", self.version);
        serde_json::from_str(json).map_err(|error| Error::format(self.what, unreadable(error)))
    }
}

pub(crate) fn decode(bytes: &[u8], what: &'static str) -> Result<Decoded> {
    let unreadable = |error: arrow::error::ArrowError| Error::format(what, error);
    let mut reader = StreamReader::try_new(bytes, None).map_err(unreadable)?;
    let metadata = reader.schema().metadata().clone();
    let Some(version) = metadata.get("tidemark.version").cloned() else {
        return Err(Error::format(what, "not written by tidemark: no version"));
    };
    if version != VERSION {
        return Ok(Decoded { what, version, metadata, states: None });
    }
    let mut sections = Vec::new();
    while let Some(batch) = reader.next().transpose().map_err(unreadable)? {
        if batch.num_columns() != 3 {
            return Err(Error::format(what, "sections need three columns"));
        }
        let names = batch.column(0).as_string_opt::<i32>();
        let fingerprints = batch.column(1).as_primitive_opt::<UInt64Type>();
        let bodies = batch.column(2).as_binary_opt::<i32>();
        let (Some(names), Some(fingerprints), Some(bodies)) = (names, fingerprints, bodies) else {
            return Err(Error::format(what, "sections have other column types"));
        };
        for row in 0..batch.num_rows() {
            let reader = StreamReader::try_new(bodies.value(row), None).map_err(unreadable)?;
            sections.push(Section {
                rollup: names.value(row).to_owned(),
                fingerprint: fingerprints.value(row),
                batches: reader.collect::<Result<_, _>>().map_err(unreadable)?,
            });
        }
    }
    Ok(Decoded { what, version, metadata, states: Some(sections) })
}

fn body(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(first) = batches.first() else { return Err(Error::format("section", "no batch")) };
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(&mut bytes, &first.schema(), options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringViewArray};

    use super::*;

    fn message(rows: usize) -> Partials {
        let texts =
            StringViewArray::from_iter_values((0..rows).map(|row| format!("a rather long host name {row}")));
        let batch = RecordBatch::try_from_iter([("host", Arc::new(texts) as ArrayRef)]).unwrap();
        let section = |rollup: &str| Section {
            rollup: rollup.to_owned(),
            fingerprint: 1,
            batches: vec![batch.clone()],
        };
        let topics = BTreeMap::from([("points".to_owned(), 4)]);
        let facts = EpochFacts { wall: 7, uptime: None, topics, partitions: Vec::new(), owner: None };
        let plans = BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), 1)]);
        Partials { facts, plans, states: vec![section("one"), section("two")] }
    }

    #[test]
    fn a_large_message_is_divided_and_only_the_last_part_has_the_facts() {
        let whole = message(2_000);
        let parts = whole.clone().encode_within(10_000).unwrap();
        assert!(parts.len() > 4 && parts.iter().all(|part| part.len() <= 10_000));
        let parts: Vec<Partials> = parts.iter().map(|part| Partials::decode(part).unwrap()).collect();
        let (last, others) = parts.split_last().unwrap();
        assert_eq!(last.facts, whole.facts);
        assert!(others.iter().all(|part| part.facts.wall == i64::MIN && part.facts.topics.is_empty()));
        assert!(parts.iter().all(|part| part.plans == whole.plans));
        for rollup in ["one", "two"] {
            let sections =
                parts.iter().flat_map(|part| &part.states).filter(|section| section.rollup == rollup);
            let mut hosts = Vec::new();
            for batch in sections.flat_map(|section| &section.batches) {
                hosts.extend(batch.column(0).as_string_view().iter().map(|host| host.unwrap().to_owned()));
            }
            let expected: Vec<String> =
                (0..2_000).map(|row| format!("a rather long host name {row}")).collect();
            assert_eq!(hosts, expected);
        }
    }

    #[test]
    fn of_another_version_the_facts_are_read_and_nothing_else() {
        let ours = message(3);
        let schema = Schema::new_with_metadata(
            vec![Field::new("columns of another release", DataType::Utf8, true)],
            HashMap::from([
                ("tidemark.version".to_owned(), "1".to_owned()),
                ("tidemark.facts".to_owned(), json(&ours.facts).unwrap()),
            ]),
        );
        let mut bytes = Vec::new();
        StreamWriter::try_new(&mut bytes, &schema).unwrap().finish().unwrap();
        let read = Partials::decode(&bytes).unwrap();
        assert_eq!(read.facts, ours.facts);
        assert!(read.plans.is_empty() && read.states.is_empty());

        let error = |bytes: &[u8]| Partials::decode(bytes).unwrap_err().to_string();
        assert!(error(b"something else").starts_with("unreadable partials message: "));
        let snapshot = encode(&[("fold", "{}".to_owned())], &ours.states).unwrap();
        assert_eq!(error(&snapshot), "unreadable partials message: no facts, format version=`2`");
    }

    #[test]
    fn a_row_is_never_divided() {
        let parts = message(1).encode_within(1).unwrap();
        assert_eq!(parts.len(), 2, "one for each rollup");
    }

    #[test]
    fn a_part_of_a_batch_is_written_without_the_texts_of_the_rest() {
        let whole = message(1_000).states.remove(0).batches.remove(0);
        let part = compact(&whole.slice(0, 1)).unwrap();
        let bytes: usize =
            part.column(0).as_string_view().data_buffers().iter().map(arrow::buffer::Buffer::len).sum();
        assert_eq!(bytes, "a rather long host name 0".len());
        assert_eq!(part.column(0).len(), 1);
    }
}
