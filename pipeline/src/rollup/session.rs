//! The consumer's loop: from joining the group to leaving it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use sinks::influx::{InfluxTiers, Permit};
use sinks::parquet::RollupParquet;
use tokio::sync::broadcast;

use super::announce::Announcer;
use super::outputs::{Outputs, RollupSink};
use super::share::RollupShare;
use super::snapshots::Snapshots;
use super::{Event, Rules};
use crate::check::coarser_tiers;
use crate::error::{Error, Result};
use crate::group::{Group, commit};
use crate::kafka::{self, ConsumerSettings, SESSION_TIMEOUT};
use crate::lease::Lease;
use crate::roles::Context;
use crate::telemetry::{ErrorLabels, Metrics, SinkLabels};

const POLL: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_secs(1);

type RollupConsumer = BaseConsumer<Group<RollupShare>>;

pub(super) fn run(context: &Context, rules: &Rules, events: Option<broadcast::Sender<Event>>) -> Result<()> {
    context.readiness.waiting("rollup", "no partition assigned yet");
    let announcer = Arc::new(Announcer::new(context)?);
    let snapshots = Snapshots::open(context.config.storage.url.as_str())?;
    let lease = Lease::start(&context.clock, SESSION_TIMEOUT)?;
    let sink = sink(context, &lease)?;
    let outputs = Outputs::start(context, sink, snapshots.clone(), Arc::clone(&announcer));
    let share = RollupShare::new(context, rules, announcer, snapshots, outputs, events);
    let settings = ConsumerSettings::new(&context.config.rollup.group);
    let consumer = kafka::consumer(&context.config.kafka, settings, Group::new(share))?;
    consumer
        .subscribe(&[&context.config.topics.partials])
        .map_err(Error::client("subscribe to the partials topic"))?;
    let result = consume(context, &consumer, &lease);
    if result.is_err() {
        consumer.context().share().abandon();
    }
    crate::roles::leave(consumer);
    result
}

fn consume(context: &Context, consumer: &RollupConsumer, lease: &Lease) -> Result<()> {
    let group = consumer.context();
    let mut paused = false;
    let mut checkpointed = context.clock.monotonic();
    let mut reported = checkpointed;
    while !context.shutdown.is_triggered() {
        paused = pause_when_full(consumer, paused)?;
        match consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                group.share().take(&message)?;
            }
            Some(Err(error)) => return Err(Error::client("read partials")(error)),
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
    }
    tracing::info!("rollup ends: writing what it holds");
    let finished = group.share().finish()?;
    commit(consumer, &finished)
}

/// While the sinks have no room nothing is read, but the group is still polled: the log waits.
fn pause_when_full(consumer: &RollupConsumer, paused: bool) -> Result<bool> {
    let full = !consumer.context().share().has_room();
    if full == paused {
        return Ok(paused);
    }
    let assignment = consumer.assignment().map_err(Error::client("list its partitions"))?;
    if full {
        consumer.pause(&assignment).map_err(Error::client("pause its partitions"))?;
    } else {
        consumer.resume(&assignment).map_err(Error::client("resume its partitions"))?;
    }
    Ok(full)
}

/// Shows the sink's retries on `/metrics` for as long as it lives.
async fn report_retries(sink: Weak<InfluxTiers>, metrics: Arc<Metrics>) {
    let retries = metrics.sink.retries.get_or_create(&SinkLabels { sink: "influx" }).clone();
    let mut known = 0;
    while let Some(sink) = sink.upgrade() {
        let now = sink.stats().iter().map(|stats| stats.retries).sum();
        retries.inc_by(now - known);
        known = now;
        drop(sink);
        tokio::time::sleep(REPORT).await;
    }
}

/// InfluxDB when it is configured, Parquet below the storage root otherwise.
fn sink(context: &Context, lease: &Lease) -> Result<RollupSink> {
    let Some(influx) = &context.config.influx else {
        let (store, prefix) = sinks::parquet::store::open(context.config.storage.url.as_str())?;
        return Ok(RollupSink { name: "parquet", sink: Arc::new(RollupParquet::new(store, prefix)) });
    };
    let config = sinks::influx::InfluxConfig {
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
    };
    let metrics = Arc::clone(&context.metrics);
    let rejected = Arc::new(move |line: sinks::influx::RejectedLine| {
        metrics.sink.errors.get_or_create(&ErrorLabels { sink: "influx", kind: "rejected" }).inc();
        tracing::error!(line = line.line, reason = line.reason, "influxdb rejected a row");
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
    context.runtime.spawn(report_retries(Arc::downgrade(&connected), Arc::clone(&context.metrics)));
    Ok(RollupSink { name: "influx", sink: connected })
}
