//! What can be measured, and the names of it.

use std::fmt;

use tidemark_tests::input::Format;

/// How the points are written, and how many series they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    /// JSON, a point a message.
    Json,
    /// JSON, 100 points a message, one a line.
    JsonLines,
    /// InfluxDB line protocol, 100 points a message.
    Lines,
    /// As [`Input::Lines`], of a million series in place of 10,000.
    Series,
    /// As [`Input::Json`], over 64 partitions in place of 4.
    Wide,
}

impl Input {
    pub(crate) const ALL: [Self; 5] = [Self::Json, Self::JsonLines, Self::Lines, Self::Series, Self::Wide];

    pub(crate) fn format(self) -> Format {
        match self {
            Self::Json | Self::Wide => Format::Json,
            Self::JsonLines => Format::JsonLines(100),
            Self::Lines | Self::Series => Format::LineProtocol(100),
        }
    }

    /// Series of the input.
    pub(crate) fn hosts(self) -> usize {
        match self {
            Self::Json | Self::JsonLines | Self::Lines | Self::Wide => 10_000,
            Self::Series => 1_000_000,
        }
    }

    /// Memory that each process may take. A million groups do not fit into the default twice, as
    /// windows of a minute are kept for ten more.
    pub(crate) fn budget(self) -> &'static str {
        match self {
            Self::Json | Self::JsonLines | Self::Lines | Self::Wide => "1GiB",
            Self::Series => "6GiB",
        }
    }

    /// Of its topic.
    pub(crate) fn partitions(self) -> usize {
        match self {
            Self::Json | Self::JsonLines | Self::Lines | Self::Series => 4,
            Self::Wide => 64,
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::JsonLines => "jsonlines",
            Self::Lines => "lines",
            Self::Series => "series",
            Self::Wide => "wide",
        })
    }
}

/// What the rollup groups by, beside the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Host and region.
    Host,
    Region,
    Nothing,
}

/// Where results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Parquet in a local folder, as without any configuration.
    Embedded,
    /// A real InfluxDB.
    Influx,
    /// A server that takes InfluxDB's writes and forgets them: what it costs to send them.
    Discard,
}

/// What is done with the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// librdkafka on one thread counts messages: as fast as anything that reads Kafka with it can
    /// be.
    Count,
    /// The same, and Tidemark's decoder turns the messages into columns.
    Decode,
    /// The query in one pass of DataFusion over points that are in memory, on all cores: no Kafka,
    /// no windows to close.
    Batch,
    /// Flink SQL, the same query over the same topic.
    Flink,
    /// Tidemark.
    Pipeline(Setup),
}

/// How Tidemark is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) group: Group,
    /// Raw points go to Parquet too.
    pub(crate) archive: bool,
    pub(crate) sink: Sink,
    /// Of each of the roles `ingest` and `rollup`.
    pub(crate) processes: usize,
}

impl Work {
    /// The case that others are compared with.
    pub(crate) const HOST: Self = Self::pipeline(Group::Host, false, Sink::Embedded);

    const fn pipeline(group: Group, archive: bool, sink: Sink) -> Self {
        Self::Pipeline(Setup { group, archive, sink, processes: 1 })
    }

    const fn scaled(processes: usize) -> Self {
        Self::Pipeline(Setup { group: Group::Host, archive: false, sink: Sink::Embedded, processes })
    }

    /// Whether it needs a real InfluxDB.
    pub(crate) fn writes_influx(self) -> bool {
        matches!(self, Self::Pipeline(setup) if setup.sink == Sink::Influx)
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) input: Input,
    pub(crate) work: Work,
}

impl Case {
    /// In the order in which they are run.
    pub(crate) fn all() -> Vec<Self> {
        const HOST: Work = Work::HOST;
        const ARCHIVE: Work = Work::pipeline(Group::Host, true, Sink::Embedded);
        const REGION: Work = Work::pipeline(Group::Region, false, Sink::Embedded);
        const NOTHING: Work = Work::pipeline(Group::Nothing, false, Sink::Embedded);
        const DISCARD: Work = Work::pipeline(Group::Host, false, Sink::Discard);
        const INFLUX: Work = Work::pipeline(Group::Host, false, Sink::Influx);
        let of = |input: Input| {
            let works: &[Work] = match input {
                Input::Json => &[
                    Work::Count,
                    Work::Decode,
                    Work::Batch,
                    HOST,
                    ARCHIVE,
                    REGION,
                    NOTHING,
                    DISCARD,
                    INFLUX,
                    Work::Flink,
                ],
                Input::JsonLines | Input::Lines => &[Work::Count, Work::Decode, HOST, ARCHIVE],
                Input::Series => &[Work::Count, Work::Decode, HOST],
                Input::Wide => &[Work::Count, HOST, const { Work::scaled(4) }],
            };
            works.iter().map(move |work| Self { input, work: *work })
        };
        Input::ALL.into_iter().flat_map(of).collect()
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let all = Self::all();
        let names: Vec<String> = all.iter().map(Self::to_string).collect();
        let position = names.iter().position(|known| known == name);
        position.map(|at| all[at]).ok_or_else(|| format!("no such case; there are {}", names.join(", ")))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.input)?;
        let Setup { group, archive, sink, processes } = match self.work {
            Work::Count => return f.write_str("count"),
            Work::Decode => return f.write_str("decode"),
            Work::Batch => return f.write_str("batch"),
            Work::Flink => return f.write_str("flink"),
            Work::Pipeline(setup) => setup,
        };
        f.write_str(match group {
            Group::Host => "host",
            Group::Region => "region",
            Group::Nothing => "nothing",
        })?;
        f.write_str(if archive { "-archive" } else { "" })?;
        f.write_str(match sink {
            Sink::Embedded => "",
            Sink::Influx => "-influx",
            Sink::Discard => "-discard",
        })?;
        if processes > 1 { write!(f, "-x{processes}") } else { Ok(()) }
    }
}
