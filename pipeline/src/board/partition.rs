//! A rollup partition's fold, as the status tells it: the same for a live one and for a snapshot.

use operators::fold::Fold;

use super::status::{Holder, OpenWindow, Origin, RollupPartition, SourceStanding};
use crate::time::{Time, milliseconds};

/// Open windows that are reported one by one.
const OPEN_WINDOWS: usize = 100;

/// The state of `fold` after everything before `next_offset`, with the open windows of every tier:
/// who answers keeps those of one. `heard`: when the newest facts came in, by this process's clock.
/// What sources are judged by is their age at that moment: the clocks of their owners may be apart
/// from this one.
pub(crate) fn view(
    fold: &Fold,
    partition: i32,
    next_offset: i64,
    checkpoint_offset: i64,
    heard: Option<i64>,
) -> PartitionView {
    let open = fold.open_windows().map(|(tier, windows)| {
        let count = windows.len();
        let notified = windows.into_iter().take(OPEN_WINDOWS).map(|(start, rows)| OpenWindow {
            start: Time(start),
            end: Time(tier.windows.end(start)),
            rows,
        });
        (tier.table.clone(), OpenWindows { oldest: notified.collect(), count })
    });
    let open = open.collect();
    let sources: Vec<SourceStanding> =
        fold.sources().into_iter().map(|source| standing(source, heard)).collect();
    let heard_of_any = sources.iter().any(|source| source.reported.is_some());
    let holder = fold.holder().map(|holder| Holder {
        topic: holder.source.0,
        partition: holder.source.1,
        reason: holder.reason,
    });
    let status = RollupPartition {
        partition,
        from: Origin::Owner,
        next_offset,
        checkpoint_offset,
        log_time: heard_of_any.then(|| Time(fold.wall())),
        watermark: fold.watermark().map(Time),
        holder,
        sources,
        open: Vec::new(),
        open_windows: 0,
    };
    PartitionView { status, open }
}

/// A partition with the open windows of every tier of every rollup.
#[derive(Debug, Clone)]
pub(crate) struct PartitionView {
    status: RollupPartition,
    open: Vec<(String, OpenWindows)>,
}

#[derive(Debug, Clone)]
struct OpenWindows {
    oldest: Vec<OpenWindow>,
    count: usize,
}

impl PartitionView {
    /// The partition with the open windows of `table`, or without any.
    pub(crate) fn about(&self, table: Option<&str>, from: Origin) -> RollupPartition {
        let mut status = RollupPartition { from, ..self.status.clone() };
        if let Some((_, open)) = self.open.iter().find(|(name, _)| Some(name.as_str()) == table) {
            status.open.clone_from(&open.oldest);
            status.open_windows = open.count;
        }
        status
    }
}

fn standing(view: operators::watermark::SourceView, heard: Option<i64>) -> SourceStanding {
    let by_age = heard.zip(view.age).map(|(heard, age)| heard.saturating_sub(age));
    SourceStanding {
        topic: view.source.0,
        partition: view.source.1,
        standing: view.standing,
        newest: view.high.map(Time),
        next_offset: view.next_offset,
        silent_ms: milliseconds(view.silent),
        reported: view.reported.map(|reported| Time(by_age.unwrap_or(reported))),
        owner: view.owner,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use operators::exchange::Partials;
    use operators::watermark::{EpochFacts, PartitionFacts, Uptime, WatermarkOptions};

    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    #[test]
    fn reports_are_as_old_as_the_log_says_whatever_their_clocks_say() {
        let options =
            WatermarkOptions { max_out_of_orderness: 0, idle_timeout: SECOND, owner_timeout: 10 * SECOND };
        let mut fold = Fold::new(&[], options);
        for second in 0..60 {
            for (run, partition, ahead) in [("fast", 0, HOUR), ("slow", 1, -HOUR)] {
                if run == "slow" && second > 50 {
                    continue;
                }
                let facts = EpochFacts {
                    wall: ahead + second * SECOND,
                    uptime: Some(Uptime { run: run.to_owned(), nanos: second * SECOND }),
                    topics: BTreeMap::from([("points".to_owned(), 2)]),
                    partitions: vec![PartitionFacts {
                        topic: "points".to_owned(),
                        partition,
                        from: 0,
                        to: 0,
                        high: Some(second),
                        low: None,
                        at_end: true,
                        silent: 0,
                    }],
                    owner: None,
                };
                fold.apply(&Partials { facts, plans: BTreeMap::new(), states: Vec::new() });
            }
        }
        let reported = |heard| {
            let sources = view(&fold, 0, 0, 0, heard).status.sources;
            sources.iter().map(|source| source.reported.map(|time| time.0)).collect::<Vec<_>>()
        };
        let now = 5 * HOUR;
        assert_eq!(reported(Some(now)), [Some(now), Some(now - 9 * SECOND)]);
        assert_eq!(reported(None), [Some(HOUR + 59 * SECOND), Some(50 * SECOND - HOUR)]);
    }
}
