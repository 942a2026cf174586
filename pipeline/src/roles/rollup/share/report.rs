//! What people see of the owned partitions: metrics, and the board that `why` reads.

use std::time::Duration;

use operators::fold::Applied;

use super::RollupShare;
use crate::board::view;
use crate::roles::rollup::tell::warn_of_overflow;
use crate::telemetry::{AgeLabels, HolderLabels, PartitionLabels, RollupLabels, StateLabels, age_label};

impl RollupShare {
    /// Counts what a message led to.
    pub(super) fn count(&self, partition: i32, applied: &Applied) {
        let metrics = &self.context.metrics.rollup;
        for (rollup, points) in &applied.points {
            metrics.points.get_or_create(&RollupLabels { rollup: rollup.clone() }).inc_by(*points);
        }
        for late in &applied.late {
            let age = age_label(Duration::from_nanos(late.age.unsigned_abs()));
            let labels = AgeLabels { rollup: late.rollup.name.clone(), age };
            metrics.late_points.get_or_create(&labels).inc_by(late.points);
        }
        for overflow in &applied.overflows {
            let labels = RollupLabels { rollup: overflow.rollup.clone() };
            metrics.overflow_points.get_or_create(&labels).inc_by(overflow.points);
            metrics.overflow_groups.get_or_create(&labels).inc_by(overflow.groups);
            if overflow.is_first {
                warn_of_overflow(partition, overflow);
            }
        }
        self.context.failed(&applied.failures);
        for (rollup, points) in &applied.set_aside {
            metrics.set_aside_points.get_or_create(&RollupLabels { rollup: rollup.clone() }).inc_by(*points);
        }
    }

    /// Shows progress on `/metrics` and to `why`.
    pub(in crate::roles::rollup) fn report(&self) {
        let views = self.partitions.iter().map(|(partition, state)| {
            (*partition, view(&state.fold, *partition, state.next, state.checkpointed, state.heard))
        });
        self.context.board.partitions(views);
        let metrics = &self.context.metrics.rollup;
        metrics.watermark_holder.clear();
        let state = self.partitions.values().map(|held| held.fold.bytes() + held.threshold.bytes()).sum();
        self.context.metrics.memory.hold("state", state);
        self.context.metrics.memory.hold("results", self.outputs.queued_bytes());
        for (partition, state) in &self.partitions {
            if let Some(watermark) = state.fold.watermark() {
                let seconds = watermark as f64 / 1e9;
                metrics
                    .watermark_seconds
                    .get_or_create(&PartitionLabels { partition: *partition })
                    .set(seconds);
            }
            if let Some(holder) = state.fold.holder() {
                let (topic, source_partition) = holder.source;
                let labels = HolderLabels { partition: *partition, topic, source_partition };
                metrics.watermark_holder.get_or_create(&labels).set(1);
            }
            for (rollup, rows, _) in state.fold.sizes() {
                let labels = StateLabels { partition: *partition, rollup: rollup.to_owned() };
                metrics.state_rows.get_or_create(&labels).set(rows as i64);
            }
        }
    }
}
