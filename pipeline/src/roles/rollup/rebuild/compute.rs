//! The windows of a gap out of the archive, piece by piece.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use operators::gaps::Gap;
use operators::rebuild::{Rebuild, Rebuilder, Rebuilt};
use operators::window::Windows;
use query::{ArchivedPoints, Cold};
use sinks::parquet::live::HOUR;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::roles::context::Context;

/// Rows that go to the sink at once: what comes from the stream, and checkpoints, wait for no more
/// than these.
const ROWS: usize = 1_000;

/// Reads the points of the windows and computes them, an hour or a window at a time: memory is that
/// of the open windows.
pub(super) async fn compute(
    context: Context,
    first: Rebuild,
    gaps: BTreeMap<i32, Gap>,
    rebuilt: mpsc::Sender<Rebuilt>,
) -> Result<()> {
    let windows = first.tier().windows;
    let Gap { from, to, .. } = first.gap;
    let cold = Cold::open(context.config.storage.url.as_str())?;
    let points = ArchivedPoints::new(cold, &context.catalog.labels);
    let bounds = |partition| context.shares.bounds(&context.config, partition);
    let wanted = gaps.into_iter().map(|(partition, gap)| (partition, (gap, bounds(partition)))).collect();
    let mut rebuilder = Rebuilder::new(&first.rollup, first.tier, wanted);
    let hours = points.hours(from, first.gap.end(&windows)).await?;
    let mut at = from;
    while let Some((start, end)) = slice(&windows, &hours, at, to) {
        let points_end = windows.end(windows.start(end - 1));
        let Some(mut batches) = points.read(start, points_end).await? else {
            bail!("the archive's files of a window were there, and are not any more");
        };
        while let Some(batch) = batches.next().await? {
            rebuilder = spawn_blocking(move || -> Result<_> {
                rebuilder.push(&[batch])?;
                Ok(rebuilder)
            })
            .await??;
        }
        let windows;
        (rebuilder, windows) = spawn_blocking(move || -> Result<_> {
            let windows = rebuilder.take(start, end)?;
            Ok((rebuilder, windows))
        })
        .await??;
        context.failed(&rebuilder.take_failures());
        for chunk in windows.iter().flat_map(chunks) {
            if rebuilt.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        at = end;
    }
    Ok(())
}

/// The next windows, by their starts, from `at` on and before `to`, that one hour of the archive
/// reaches into.
fn slice(windows: &Windows, hours: &[i64], at: i64, to: i64) -> Option<(i64, i64)> {
    let hour = *hours.iter().find(|hour| hour.saturating_add(HOUR) > at)?;
    let (pane, last) = (windows.pane(), windows.start(hour.saturating_add(HOUR - 1)));
    let start = windows.holding(windows.start(hour)).next()?.max(at);
    let end = pane.end(last).min(to);
    (start < end).then_some((start, end))
}

/// Pieces that the sink takes without holding anything else up for long. What is withdrawn goes
/// first.
fn chunks(part: &Rebuilt) -> Vec<Rebuilt> {
    let pieces = |rows: &RecordBatch| {
        let cut = |from| rows.slice(from, ROWS.min(rows.num_rows() - from));
        (0..rows.num_rows()).step_by(ROWS).map(cut).collect::<Vec<_>>()
    };
    let none = part.rows.slice(0, 0);
    let mut chunks = Vec::new();
    for withdrawn in part.withdrawn.iter().flat_map(pieces) {
        chunks.push(Rebuilt { rows: none.clone(), withdrawn: Some(withdrawn), ..*part });
    }
    for rows in pieces(&part.rows) {
        chunks.push(Rebuilt { rows, withdrawn: None, ..*part });
    }
    chunks
}

#[cfg(test)]
mod tests {
    use operators::window::Tumble;

    use super::*;

    #[test]
    fn slices_are_whole_windows_and_cover_every_hour_once() {
        let check = |minutes: i64, slide: i64, hours: &[i64], from: i64, to: i64, expected: &[(i64, i64)]| {
            let minute = HOUR / 60;
            let windows = match slide {
                0 => Windows::tumbling(Tumble::new(minutes * minute, None).unwrap()),
                slide => Windows::hopping(minutes * minute, slide * minute).unwrap(),
            };
            let hours: Vec<i64> = hours.iter().map(|hour| hour * HOUR).collect();
            let (mut at, mut found) = (from.saturating_mul(minute), Vec::new());
            while let Some((start, end)) = slice(&windows, &hours, at, to * minute) {
                found.push((start / minute, end / minute));
                at = end;
            }
            assert_eq!(found, expected);
        };
        check(10, 0, &[1, 2], 70, 150, &[(70, 120), (120, 150)]);
        check(10, 0, &[1, 5], 0, 600, &[(60, 120), (300, 360)]);
        check(45, 0, &[1, 2], 45, 180, &[(45, 135), (135, 180)]);
        check(1_440, 0, &[1, 2, 30], 0, 2_880, &[(0, 1_440), (1_440, 2_880)]);
        check(1, 0, &[3], i64::MIN, 200, &[(180, 200)]);
        check(1, 0, &[], 0, 10, &[]);
        check(1, 0, &[7], 0, 10, &[]);
        // Those that start before the hour hold some of it.
        check(30, 10, &[1, 2], 0, 200, &[(40, 120), (120, 180)]);
        check(30, 10, &[2], 110, 130, &[(110, 130)]);
    }
}
