//! The consumer's loop: from joining the group to leaving it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use sinks::influx::{InfluxTiers, Permit, RejectedLine};
use sinks::parquet::RollupParquet;
use tokio::sync::{broadcast, watch};

use super::Event;
use super::announce::Announcer;
use super::outputs::{Outputs, RollupSink};
use super::share::RollupShare;
use crate::alerting::Alerting;
use crate::catalog::coarser_tiers;
use crate::config::InfluxConfig;
use crate::error::{Error, Result};
use crate::kafka::{self, ConsumerSettings};
use crate::memory::Part;
use crate::roles::context::Context;
use crate::roles::group::{Group, Valve, commit};
use crate::roles::lease::Lease;
use crate::storage::Snapshots;
use crate::telemetry::{ErrorLabels, SinkLabels};

const POLL: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_secs(1);
/// The part of `/readyz` that shows that InfluxDB refuses a rollup's rows, and for how long after
/// the last one.
const REFUSED: &str = "influx rows";
const REFUSED_SHOWN: Duration = Duration::from_secs(60);
/// How often event time is reported to others.
const PROGRESS: Duration = Duration::from_secs(5);

type RollupConsumer = BaseConsumer<Group<RollupShare>>;

pub(super) fn run(
    context: &Context,
    alerting: &Alerting,
    events: Option<broadcast::Sender<Event>>,
) -> Result<()> {
    let generation = alerting.generation();
    context.readiness.waiting("rollup", "no partition assigned yet");
    let announcer = Arc::new(Announcer::new(context)?);
    let snapshots = Snapshots::open(context.config.storage.url.as_str())?;
    let lease = Lease::start(&context.clock, kafka::session_timeout(&context.config.kafka))?;
    let sink = sink(context, &lease)?;
    context.board.sink_connected(sink.name);
    let outputs = Outputs::start(context, sink, snapshots.clone(), Arc::clone(&announcer));
    let share = RollupShare::new(context, alerting, announcer, snapshots, outputs, events);
    let settings = ConsumerSettings {
        strict: true,
        ..ConsumerSettings::of_large(&context.config.rollup.group, context.shares.get(Part::PartialsAhead))
    };
    let consumer = kafka::consumer(&context.config.kafka, settings, Group::new(share))?;
    consumer
        .subscribe(&[&context.config.topics.partials])
        .map_err(Error::client("subscribe to the partials topic"))?;
    let unchanged = || alerting.generation() == generation;
    let result = consume(context, &consumer, &lease, unchanged);
    if result.is_err() {
        consumer.context().share().abandon();
    }
    crate::roles::context::leave(consumer);
    result
}

/// Ends in order at shutdown, and when the rules are no longer those that the session began with.
fn consume(
    context: &Context,
    consumer: &RollupConsumer,
    lease: &Lease,
    unchanged: impl Fn() -> bool,
) -> Result<()> {
    let group = consumer.context();
    let mut valve = Valve::default();
    let mut checkpointed = context.clock.monotonic();
    let (mut reported, mut announced) = (checkpointed, checkpointed);
    while !context.shutdown.is_triggered() && unchanged() {
        // While the sinks have no room nothing is read, but the group is still polled: the log
        // waits.
        let full = !group.share().has_room();
        valve.set(consumer, full)?;
        context.board.sink_queue(group.share().queued(), full);
        match consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                group.share().take(&message)?;
            }
            Some(Err(error)) => kafka::go_on_after("read partials", error)?,
        }
        group.check()?;
        lease.check()?;
        group.share().rebuild()?;
        let committable = group.share().committable()?;
        commit(consumer, &committable)?;
        group.share().clean_up(&committable);
        let now = context.clock.monotonic();
        if now.saturating_sub(checkpointed) >= context.config.rollup.checkpoint_interval {
            group.share().checkpoint()?;
            checkpointed = now;
        }
        if now.saturating_sub(reported) >= REPORT {
            group.share().report();
            reported = now;
        }
        if now.saturating_sub(announced) >= PROGRESS {
            group.share().announce_progress()?;
            announced = now;
        }
    }
    tracing::info!("rollup ends: writing what it holds");
    let (offsets, _) = group.share().finish()?;
    commit(consumer, &offsets)?;
    if context.shutdown.is_triggered() { Ok(()) } else { Err(Error::Changed("the alert rules")) }
}

/// Rows that InfluxDB refuses because a field of their rollup changed its type.
#[derive(Debug, Clone, Default)]
struct Conflicts {
    rows: u64,
    /// Of the last of them, in InfluxDB's words.
    reason: String,
}

/// Shows the sink's retries on `/metrics`, its trouble to `why`, and on `/readyz` that it refuses a
/// rollup's rows, for as long as it lives. A row that is refused for what it holds costs itself,
/// and is no reason to take the process out of service.
async fn report_stats(sink: Weak<InfluxTiers>, mut conflicts: watch::Receiver<Conflicts>, context: Context) {
    let labels = SinkLabels { sink: "influx" };
    let retries = context.metrics.sink.retries.get_or_create(&labels).clone();
    let (mut known, mut refused_at) = (0, None);
    while let Some(sink) = sink.upgrade() {
        let stats = sink.stats();
        let now = stats.iter().map(|stats| stats.retries).sum();
        retries.inc_by(now - known);
        known = now;
        let now = context.clock.monotonic();
        if conflicts.has_changed().unwrap_or(false) {
            let Conflicts { rows, reason } = conflicts.borrow_and_update().clone();
            context.readiness.waiting(REFUSED, format!("rows are refused, {rows} so far: {reason}"));
            refused_at = Some(now);
        } else if refused_at.is_some_and(|at| now.saturating_sub(at) > REFUSED_SHOWN) {
            context.readiness.ready(REFUSED);
            refused_at = None;
        }
        let troubles = stats.into_iter().filter_map(|stats| stats.trouble);
        context.board.sink_trouble(troubles.max_by_key(|trouble| trouble.since));
        drop(sink);
        tokio::time::sleep(REPORT).await;
    }
    context.readiness.ready(REFUSED);
}

/// InfluxDB when it is configured, Parquet below the storage root otherwise.
fn sink(context: &Context, lease: &Lease) -> Result<RollupSink> {
    let Some(influx) = &context.config.influx else {
        let (store, prefix) = sinks::parquet::store::open(context.config.storage.url.as_str())?;
        return Ok(RollupSink { name: "parquet", sink: Arc::new(RollupParquet::new(store, prefix)) });
    };
    let config = influx_config(influx);
    let reporting = context.clone();
    let (refused, conflicts) = watch::channel(Conflicts::default());
    let rejected = Arc::new(move |rejected: RejectedLine| {
        let counted = ErrorLabels { sink: "influx", kind: "rejected" };
        reporting.metrics.sink.errors.get_or_create(&counted).inc();
        if rejected.is_type_conflict() {
            refused.send_modify(|conflicts| {
                conflicts.rows += 1;
                conflicts.reason.clone_from(&rejected.reason);
            });
        }
        let key = format!("influxdb rejected: {}", rejected.cause());
        if let Some(held_back) = reporting.lines.take(&key, reporting.clock.monotonic()) {
            let RejectedLine { line, reason } = rejected;
            tracing::error!(line, reason, held_back, "influxdb rejected a row; one line a minute");
        }
    });
    let tiers = coarser_tiers(&context.catalog).into_iter().map(|tier| {
        let bucket = influx.bucket_of(&tier);
        (tier, bucket)
    });
    let connecting = InfluxTiers::connect(config, tiers.collect(), rejected);
    let connected = Arc::new(context.runtime.block_on(connecting)?);
    let lease = lease.clone();
    let permit: Permit = Arc::new(move || lease.holds());
    connected.only_while(&permit);
    context.runtime.spawn(report_stats(Arc::downgrade(&connected), conflicts, context.clone()));
    Ok(RollupSink { name: "influx", sink: connected })
}

/// The options of the sink.
pub(crate) fn influx_config(influx: &InfluxConfig) -> sinks::influx::InfluxConfig {
    sinks::influx::InfluxConfig {
        create_bucket: influx.create_bucket,
        retention: influx.retention,
        batch_lines: influx.batch_lines,
        in_flight: influx.in_flight,
        timeout: influx.timeout,
        ..sinks::influx::InfluxConfig::new(
            influx.url.clone(),
            influx.org.clone(),
            influx.bucket.clone(),
            influx.token.clone(),
        )
    }
}
