//! A rollup partition's fold, as the status tells it: the same for a live one and for a snapshot.

use operators::fold::Fold;

use super::status::{Holder, OpenWindow, Origin, RollupPartition, SourceStanding};
use super::time::{Time, milliseconds};

/// Open windows told one by one.
const OPEN_WINDOWS: usize = 100;

/// The state of `fold` after everything before `next_offset`, with the open windows of every tier: whoever answers
/// keeps those of one.
pub(crate) fn view(fold: &Fold, partition: i32, next_offset: i64, checkpoint_offset: i64) -> PartitionView {
    let open = fold.open_windows().map(|(tier, windows)| {
        let count = windows.len();
        let told = windows.into_iter().take(OPEN_WINDOWS).map(|(start, rows)| OpenWindow {
            start: Time(start),
            end: Time(tier.windows.end(start)),
            rows,
        });
        (tier.table.clone(), OpenWindows { oldest: told.collect(), count })
    });
    let open = open.collect();
    let sources: Vec<SourceStanding> = fold.sources().into_iter().map(standing).collect();
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
    pub(super) fn about(&self, table: Option<&str>, from: Origin) -> RollupPartition {
        let mut status = RollupPartition { from, ..self.status.clone() };
        if let Some((_, open)) = self.open.iter().find(|(name, _)| Some(name.as_str()) == table) {
            status.open.clone_from(&open.oldest);
            status.open_windows = open.count;
        }
        status
    }
}

fn standing(view: operators::watermark::SourceView) -> SourceStanding {
    SourceStanding {
        topic: view.source.0,
        partition: view.source.1,
        standing: view.standing,
        newest: view.high.map(Time),
        next_offset: view.next_offset,
        silent_ms: milliseconds(view.silent),
        reported: view.reported.map(Time),
        owner: view.owner,
    }
}
