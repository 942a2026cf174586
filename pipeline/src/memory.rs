//! One memory budget for the process, divided over everything that holds data.
//!
//! A fixed part is the program itself: code, plans, clients, threads. The rest is divided by weight
//! over what the process's roles hold. Nobody asks for memory at run time: each part keeps within
//! its share by itself, by ending epochs early, pausing partitions, emptying the series table, or
//! sending new groups to overflow groups. So a full budget slows the process down and never ends
//! it.

use operators::overflow::Bounds;
use sinks::parquet::raw::WORKERS;

use crate::config::Config;
use crate::role::Role;

/// The program without data, all roles together.
const PROGRAM: usize = 112 << 20;

/// Sorted and encoded for its file, a point takes this many times more than in the archive's
/// buffer.
const ARCHIVE_EXPANSION: usize = 3;

/// Memory of a point while it waits for the end of its epoch: series, time and value, in vectors
/// that double as they grow. Its columns are made a slice at a time.
pub(crate) const WAITING_POINT_BYTES: usize = 2 * 20;

/// A point of an epoch, and one of the next, which is read while the epoch is aggregated.
pub(crate) const LEAST_POINT_BYTES: usize = 2 * WAITING_POINT_BYTES;

/// However little memory there is, files are not smaller, unless they are set to be.
const LEAST_FILE: usize = 1 << 10;

/// Bytes for each part of the process; zero where its role does not run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    pub budget: usize,
    /// Points that librdkafka has fetched ahead, with its own overhead for each message.
    pub points_ahead: usize,
    /// The points of an epoch, their Arrow columns, the states that they become, and those of the
    /// epoch being committed.
    pub epoch: usize,
    /// Names and labels of the series.
    pub series: usize,
    /// Points waiting for their file, and the file being written.
    pub archive: usize,
    /// Partial states that librdkafka has fetched ahead.
    pub partials_ahead: usize,
    /// Open and correctable windows, and merging them.
    pub state: usize,
    /// Results on their way to the sink.
    pub results: usize,
    /// Encoded snapshots that are being stored.
    pub snapshots: usize,
    /// Transitions of alerts that librdkafka has fetched ahead.
    pub alerts_ahead: usize,
}

impl Shares {
    /// Divides `budget` over what `roles` hold.
    pub fn of(budget: usize, roles: &[Role], archive: bool) -> Self {
        let runs = |role: Role| usize::from(roles.contains(&role));
        let (ingest, rollup, notify) = (runs(Role::Ingest), runs(Role::Rollup), runs(Role::Notify));
        let weights = Self {
            budget: 0,
            points_ahead: 10 * ingest,
            epoch: 30 * ingest,
            series: 20 * ingest,
            archive: 25 * ingest * usize::from(archive),
            partials_ahead: 6 * rollup,
            state: 50 * rollup,
            results: 12 * rollup,
            snapshots: 6 * rollup,
            alerts_ahead: notify,
        };
        let total: usize = weights.parts().iter().map(|(_, weight)| weight).sum();
        let unit = budget.saturating_sub(PROGRAM) / total.max(1);
        Self {
            budget,
            points_ahead: weights.points_ahead * unit,
            epoch: weights.epoch * unit,
            series: weights.series * unit,
            archive: weights.archive * unit,
            partials_ahead: weights.partials_ahead * unit,
            state: weights.state * unit,
            results: weights.results * unit,
            snapshots: weights.snapshots * unit,
            alerts_ahead: weights.alerts_ahead * unit,
        }
    }

    /// Each part by the name that metrics give it.
    pub fn parts(&self) -> [(&'static str, usize); 9] {
        [
            ("points_ahead", self.points_ahead),
            ("epoch", self.epoch),
            ("series", self.series),
            ("archive", self.archive),
            ("partials_ahead", self.partials_ahead),
            ("state", self.state),
            ("results", self.results),
            ("snapshots", self.snapshots),
            ("alerts_ahead", self.alerts_ahead),
        ]
    }

    /// What the folds may hold is half of their share: merging a window makes a second copy of it,
    /// and so do results. Divided over all partitions of the topic, owned here or not: a
    /// partition's bound must not depend on who owns it.
    pub fn bounds(&self, config: &Config, partition: i32) -> Bounds {
        let partitions = usize::try_from(config.topics.partials_partitions).unwrap_or(1).max(1);
        Bounds {
            partition: usize::try_from(partition).unwrap_or(0),
            partitions,
            series_limit: config.rollup.series_limit as u64,
            state_bytes: self.state / 2 / partitions,
        }
    }

    /// Largest message of partial states, of which two are on their way to the broker while the
    /// next is made.
    pub fn message(&self, most: usize) -> usize {
        (self.epoch / 16).clamp(1 << 20, most)
    }

    /// Bytes of buffered points after which a file is written: half of the share is for those that
    /// are being written.
    pub fn archive_file(&self, roll_size: usize) -> usize {
        roll_size.min((self.archive / 2 / WORKERS / ARCHIVE_EXPANSION).max(LEAST_FILE))
    }

    /// Bytes of buffered points, with the names and labels of their series, after which nothing
    /// more is read.
    pub fn archive_buffer(&self) -> usize {
        (self.archive / 2).max(LEAST_FILE)
    }
}

/// Settings that were raised above their defaults and that the budget has no room for. They remain
/// upper bounds, as the defaults do.
pub fn warnings(config: &Config) -> Vec<String> {
    let defaults = Config::default();
    let shares = Shares::of(config.memory.budget, &[Role::Ingest, Role::Rollup], config.archive.enabled);
    let budget = shares.budget >> 20;
    let mut warnings = Vec::new();
    let most = shares.epoch / LEAST_POINT_BYTES;
    let epoch_points = config.ingest.epoch_points;
    if epoch_points > most.max(defaults.ingest.epoch_points) {
        warnings.push(format!(
            "`epoch_points` of [ingest] is {epoch_points}, but epochs end at {most} points or fewer within the memory \
             budget of {budget} MiB\n  help: raise `budget` in [memory], or lower `epoch_points`"
        ));
    }
    let file = shares.archive_file(config.archive.roll_size);
    if config.archive.enabled && config.archive.roll_size > file.max(defaults.archive.roll_size) {
        warnings.push(format!(
            "`roll_size` of [archive] is {} KiB, but files are written at {} KiB within the memory budget of {budget} \
             MiB\n  help: raise `budget` in [memory], or lower `roll_size`",
            config.archive.roll_size >> 10,
            file >> 10
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn sum(shares: &Shares) -> usize {
        shares.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn shares_fill_the_budget_and_no_more() {
        for budget in [crate::config::LEAST_BUDGET, 512 << 20, 1 << 30, 64 << 30] {
            for roles in [Role::value_variants(), &[Role::Ingest], &[Role::Rollup], &[Role::Notify]] {
                for archive in [false, true] {
                    let shares = Shares::of(budget, roles, archive);
                    let used = sum(&shares) + PROGRAM;
                    assert!(used <= budget && used > budget - 1_000, "{roles:?}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn only_roles_that_run_have_shares() {
        let rollup = Shares::of(512 << 20, &[Role::Rollup], true);
        assert_eq!((rollup.points_ahead, rollup.epoch, rollup.series, rollup.archive), (0, 0, 0, 0));
        let both = Shares::of(512 << 20, &[Role::Ingest, Role::Rollup], true);
        assert!(rollup.state > both.state && both.state > 64 << 20);
        let without = Shares::of(512 << 20, &[Role::Ingest, Role::Rollup], false);
        assert!(without.archive == 0 && without.epoch > both.epoch);
    }

    #[test]
    fn a_budget_below_the_program_leaves_nothing_and_does_not_overflow() {
        assert_eq!(sum(&Shares::of(1, Role::value_variants(), true)), 0);
        assert_eq!(sum(&Shares::of(usize::MAX, &[], true)), 0);
    }

    #[test]
    fn a_partitions_bound_does_not_depend_on_its_owner() {
        let config = Config::default();
        let shares = Shares::of(1 << 30, Role::value_variants(), true);
        let all: usize = (0..8).map(|partition| shares.bounds(&config, partition).state_bytes).sum();
        assert!(all <= shares.state / 2);
        let (first, last) = (shares.bounds(&config, 0), shares.bounds(&config, 7));
        assert_eq!(Bounds { partition: 7, ..first }, last);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let mut config = Config::default();
        assert_eq!(warnings(&config), Vec::<String>::new());
        config.memory.budget = 512 << 20;
        config.ingest.epoch_points = 50_000_000;
        config.archive.roll_size = 1 << 30;
        let found = warnings(&config);
        assert!(
            found[0].starts_with("`epoch_points` of [ingest] is 50000000, but epochs end at"),
            "{found:?}"
        );
        assert!(found[1].starts_with("`roll_size` of [archive] is 1048576 KiB, but files are"), "{found:?}");
        // Neither do smaller values than the defaults, which do not warn either, whatever the
        // budget.
        let defaults = Config::default();
        for budget in [crate::config::LEAST_BUDGET, 300 << 20, 512 << 20, 1 << 30] {
            config.memory.budget = budget;
            for (points, size) in [
                (10_000, 1 << 20),
                (defaults.ingest.epoch_points, defaults.archive.roll_size),
                (defaults.ingest.epoch_points - 1, 64_000_000),
            ] {
                (config.ingest.epoch_points, config.archive.roll_size) = (points, size);
                assert_eq!(warnings(&config), Vec::<String>::new(), "{budget}: {points}, {size}");
            }
        }
    }
}
