//! What an operator is notified of partitions: what became of their states, which windows are left
//! out, what overflows.

use operators::fold::Restored;
use operators::overflow::Overflow;
use operators::rebuild::{Change, Rebuild, Retyped};

use crate::time::shown;

pub(super) fn warn_of_overflow(partition: i32, overflow: &Overflow) {
    let window = chrono::DateTime::from_timestamp_nanos(overflow.window);
    let (rollup, groups) = (&overflow.rollup, overflow.groups);
    if overflow.out_of_memory {
        tracing::warn!(
            rollup, partition, %window, groups,
            "no memory for new groups, they go to the window's overflow group: raise `budget` of [memory]"
        );
    } else {
        tracing::warn!(
            rollup, partition, %window, groups,
            "more groups than the series limit, new ones go to the window's overflow group: raise `series_limit` of the \
             rollup or of [rollup], or group by fewer labels"
        );
    }
}

/// Logs which rollups go on, and which start over.
pub(super) fn tell_changes(partition: i32, restored: &Restored) {
    if let Some(version) = &restored.other_version {
        tracing::warn!(partition, version, "the snapshot has another format: all rollups start over");
    }
    for (rollup, change) in &restored.changes {
        match change {
            Change::Kept { lateness_before: None, other_results: false, new_tiers }
                if new_tiers.is_empty() => {}
            Change::Kept { new_tiers, .. } => {
                tracing::info!(partition, rollup, ?new_tiers, "changed, its states are kept");
            }
            Change::StartsOver { windows } => {
                tracing::info!(partition, rollup, windows, "its states are of another plan, it starts over");
            }
            Change::New => tracing::info!(partition, rollup, "it has no state, it starts over"),
            Change::Removed { windows } => {
                tracing::warn!(partition, rollup, windows, "rollup removed, its open windows are dropped");
            }
        }
    }
    for (rollup, columns) in &restored.retyped {
        for Retyped { column, before, now } in columns {
            tracing::warn!(
                partition,
                rollup,
                column,
                before,
                now,
                "a column is of another kind than before: stores that have rows of before may refuse the new ones; give \
                 the column another name"
            );
        }
    }
    tell_rebuilds(partition, &restored.fold.rebuilds(), "their states are missing");
}

pub(super) fn tell_rebuilds(partition: i32, rebuilds: &[Rebuild], why: &'static str) {
    for rebuild in rebuilds {
        tracing::info!(
            partition,
            table = rebuild.tier().table,
            from = shown(rebuild.gap.from),
            to = shown(rebuild.gap.to),
            due = shown(rebuild.due()),
            why,
            "windows are left out, to be rebuilt from raw points once they are final"
        );
    }
}
