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

/// What holds data in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Points that librdkafka has fetched ahead, with its own overhead for each message.
    PointsAhead,
    /// The points of an epoch, their Arrow columns, the states that they become, and those of the
    /// epoch being committed.
    Epoch,
    /// Names and labels of the series.
    Series,
    /// Points waiting for their file, and the file being written.
    Archive,
    /// Partial states that librdkafka has fetched ahead.
    PartialsAhead,
    /// Open and correctable windows, and merging them.
    State,
    /// Results on their way to the sink.
    Results,
    /// Encoded snapshots that are being stored.
    Snapshots,
    /// Transitions of alerts that librdkafka has fetched ahead.
    AlertsAhead,
}

/// Each part with the name that metrics give it, the role that holds it, and its weight.
const PARTS: [(Part, &str, Role, usize); 9] = [
    (Part::PointsAhead, "points_ahead", Role::Ingest, 10),
    (Part::Epoch, "epoch", Role::Ingest, 30),
    (Part::Series, "series", Role::Ingest, 20),
    (Part::Archive, "archive", Role::Ingest, 25),
    (Part::PartialsAhead, "partials_ahead", Role::Rollup, 6),
    (Part::State, "state", Role::Rollup, 50),
    (Part::Results, "results", Role::Rollup, 12),
    (Part::Snapshots, "snapshots", Role::Rollup, 6),
    (Part::AlertsAhead, "alerts_ahead", Role::Notify, 1),
];

/// Bytes for each part of the process; zero where its role does not run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    pub budget: usize,
    bytes: [usize; PARTS.len()],
}

impl Shares {
    /// Divides `budget` over what `roles` hold.
    pub fn of(budget: usize, roles: &[Role], archive: bool) -> Self {
        let weights = PARTS.map(|(part, _, role, weight)| {
            let is_held = roles.contains(&role) && (archive || part != Part::Archive);
            weight * usize::from(is_held)
        });
        let unit = budget.saturating_sub(PROGRAM) / weights.iter().sum::<usize>().max(1);
        Self { budget, bytes: weights.map(|weight| weight * unit) }
    }

    /// Bytes for a part.
    pub fn get(&self, part: Part) -> usize {
        self.bytes[part as usize]
    }

    /// Each part by the name that metrics give it.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, usize)> + use<'_> {
        PARTS.iter().map(|(part, name, ..)| (*name, self.get(*part)))
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
            state_bytes: self.get(Part::State) / 2 / partitions,
        }
    }

    /// Largest message of partial states, of which two are on their way to the broker while the
    /// next is made.
    pub fn message(&self, most: usize) -> usize {
        (self.get(Part::Epoch) / 16).clamp(1 << 20, most)
    }

    /// Bytes of buffered points after which a file is written: half of the share is for those that
    /// are being written.
    pub fn archive_file(&self, roll_size: usize) -> usize {
        roll_size.min((self.get(Part::Archive) / 2 / WORKERS / ARCHIVE_EXPANSION).max(LEAST_FILE))
    }

    /// Bytes of buffered points, with the names and labels of their series, after which nothing
    /// more is read.
    pub fn archive_buffer(&self) -> usize {
        (self.get(Part::Archive) / 2).max(LEAST_FILE)
    }
}

/// Settings that were raised above their defaults and that the budget has no room for. They remain
/// upper bounds, as the defaults do.
pub fn warnings(config: &Config) -> Vec<String> {
    let defaults = Config::default();
    let shares = Shares::of(config.memory.budget, &[Role::Ingest, Role::Rollup], config.archive.enabled);
    let budget = shares.budget >> 20;
    let mut warnings = Vec::new();
    let most = shares.get(Part::Epoch) / LEAST_POINT_BYTES;
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
        shares.parts().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn parts_are_in_the_order_of_their_list() {
        for (index, (part, ..)) in PARTS.iter().enumerate() {
            assert_eq!(*part as usize, index, "{part:?}");
        }
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
        assert_eq!(
            (
                rollup.get(Part::PointsAhead),
                rollup.get(Part::Epoch),
                rollup.get(Part::Series),
                rollup.get(Part::Archive)
            ),
            (0, 0, 0, 0)
        );
        let both = Shares::of(512 << 20, &[Role::Ingest, Role::Rollup], true);
        assert!(rollup.get(Part::State) > both.get(Part::State) && both.get(Part::State) > 64 << 20);
        let without = Shares::of(512 << 20, &[Role::Ingest, Role::Rollup], false);
        assert!(without.get(Part::Archive) == 0 && without.get(Part::Epoch) > both.get(Part::Epoch));
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
        assert!(all <= shares.get(Part::State) / 2);
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
