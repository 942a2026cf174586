//! The Numenta Anomaly Benchmark's recordings of real machines: one CSV file a series,
//! `timestamp,value`, UTC, every five minutes. <https://github.com/numenta/NAB>

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDateTime;

use crate::input::{Point, Series};
use crate::provided::Unavailable;

/// All recordings in their files' order: series by series, by file name. The name of a metric is
/// that of its file up to the last underscore (`ec2_cpu_utilization`); the rest is its label
/// `instance`.
///
/// They are in `TIDEMARK_NAB`, or in `shared/data/nab` beside the repository.
pub fn points() -> Result<Vec<Point>, Unavailable> {
    Ok(files()?.iter().enumerate().flat_map(|(index, path)| read(path, index)).collect())
}

/// The files themselves, sorted by name.
pub fn files() -> Result<Vec<PathBuf>, Unavailable> {
    let directory = match env::var_os("TIDEMARK_NAB") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nab"),
    };
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .map_err(|error| {
            let place = directory.display();
            Unavailable::new(format!(
                "no recordings of the Numenta Anomaly Benchmark, set TIDEMARK_NAB: {error} path=`{place}`"
            ))
        })?
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path, index: usize) -> Vec<Point> {
    let (name, instance) = path.file_stem().unwrap().to_str().unwrap().rsplit_once('_').unwrap();
    let labels = BTreeMap::from([("instance".to_owned(), instance.to_owned())]);
    let series = Arc::new(Series { name: name.to_owned(), labels, index });
    let mut points = Vec::new();
    for record in csv::Reader::from_path(path).unwrap().records() {
        let record = record.unwrap();
        let time = NaiveDateTime::parse_from_str(&record[0], "%Y-%m-%d %H:%M:%S").unwrap().and_utc();
        let time = time.timestamp_nanos_opt().unwrap();
        points.push(Point { series: Arc::clone(&series), time, value: record[1].parse().unwrap() });
    }
    points
}
