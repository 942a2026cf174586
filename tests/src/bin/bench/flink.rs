//! Apache Flink SQL, the same query over the same topic: what `make bench-peers` compares with.

use tidemark_tests::flink::Flink;
use tidemark_tests::kafka::Kafka;

use crate::case::{Case, Group};
use crate::load::Loaded;
use crate::report::Measured;

/// Runs the job to its end; its start is not counted.
///
/// # Panics
/// When its results are not those of all points.
pub(crate) fn measure(flink: &Flink, kafka: &Kafka, case: Case, input: &Loaded) -> Measured {
    let result = flink.run(kafka, &input.topic, input.partitions);
    assert_eq!(
        result["points"].as_u64(),
        Some(input.points as u64),
        "{case}: points in the results: {result}"
    );
    assert_eq!(result["rows"].as_u64(), Some(input.rows(Group::Host) as u64), "{case}: rows: {result}");
    Measured { result_seconds: result["job_seconds"].as_f64(), ..Measured::new(case, input.points) }
}
