//! What can be measured, and the names of it.

use std::fmt;

use tidemark_tests::input::Format;

/// How the points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    /// JSON, a point a message.
    Json,
    /// InfluxDB line protocol, 100 points a message.
    Lines,
}

impl Input {
    pub(crate) const ALL: [Self; 2] = [Self::Json, Self::Lines];

    pub(crate) fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Lines => Format::LineProtocol(100),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Lines => "lines",
        })
    }
}

/// What is done with the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// librdkafka on one thread counts messages: as fast as anything that reads Kafka with it can be.
    Count,
    /// Tidemark's `ingest` and `rollup`. Results go to InfluxDB or, without it, to Parquet; with `archive`, raw points
    /// go to Parquet too.
    Pipeline { archive: bool, influx: bool },
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) input: Input,
    pub(crate) work: Work,
}

impl Case {
    /// In the order in which they are run.
    pub(crate) fn all(with_influx: bool) -> Vec<Self> {
        let mut cases = Vec::new();
        for input in Input::ALL {
            cases.push(Self { input, work: Work::Count });
            for archive in [false, true] {
                cases.push(Self { input, work: Work::Pipeline { archive, influx: false } });
            }
            if with_influx {
                cases.push(Self { input, work: Work::Pipeline { archive: false, influx: true } });
            }
        }
        cases
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let all = Self::all(true);
        let names: Vec<String> = all.iter().map(Self::to_string).collect();
        let position = names.iter().position(|known| known == name);
        position.map(|at| all[at]).ok_or_else(|| format!("no such case; there are {}", names.join(", ")))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Count => "count",
            Work::Pipeline { archive: false, influx: false } => "rollup",
            Work::Pipeline { archive: true, influx: false } => "rollup-archive",
            Work::Pipeline { archive: false, influx: true } => "rollup-influx",
            Work::Pipeline { archive: true, influx: true } => "rollup-archive-influx",
        };
        write!(f, "{}-{work}", self.input)
    }
}
