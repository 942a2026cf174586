//! What every role is given, and how it is kept running.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use operators::failure::{Cause, Failure};
use operators::sql::Catalog;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use tokio::runtime::Handle;

use crate::board::Board;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::Readiness;
use crate::memory::Shares;
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::telemetry::{FailureLabels, Metrics, OnceAMinute, PartLabels, TopicLabels};

/// Longest pause between two tries to start a role again.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long a role that ends, or gives partitions up, waits for the other side of a sink or of
/// storage. What is not durable by then is done again by the next owner.
pub(crate) const HANDOVER: Duration = Duration::from_secs(5);

/// What every role is given. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub catalog: Arc<Catalog>,
    pub metrics: Arc<Metrics>,
    /// Log lines that are written once a minute.
    pub(crate) lines: Arc<OnceAMinute>,
    /// What the roles know, for `why`.
    pub board: Arc<Board>,
    pub clock: Clock,
    pub readiness: Readiness,
    /// Where the process answers over HTTP, once it does.
    pub(crate) address: Arc<OnceLock<SocketAddr>>,
    /// What each part of the process may hold.
    pub shares: Arc<Shares>,
    pub shutdown: Shutdown,
    /// For what waits: sinks, object storage, timers. The roles themselves run on threads.
    pub runtime: Handle,
}

impl Context {
    /// Everything new, on the clock of this machine.
    pub fn new(config: Config, catalog: Arc<Catalog>, runtime: Handle) -> Self {
        let clock = Clock::system();
        let mut context = Self {
            config: Arc::new(config),
            catalog,
            shares: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            lines: Arc::default(),
            board: Arc::new(Board::new(clock.clone())),
            clock,
            readiness: Readiness::new(),
            address: Arc::default(),
            shutdown: Shutdown::new(),
            runtime,
        };
        context.divide_memory(Role::value_variants());
        context
    }

    /// Divides the memory budget over these roles of the process.
    pub fn divide_memory(&mut self, roles: &[Role]) {
        let shares = Shares::of(self.config.memory.budget, roles, self.config.archive.enabled);
        for (part, bytes) in shares.parts() {
            let labels = PartLabels { part };
            self.metrics.memory.budget.get_or_create(&labels).set(bytes as i64);
        }
        self.shares = Arc::new(shares);
    }

    /// Counts a message that is larger than its topic takes, and logs it once a minute. It is given
    /// up: sent again, it would be refused again, and everything after it would wait.
    pub(crate) fn given_up(&self, topic: &str, what: &str, bytes: usize) {
        let labels = TopicLabels { topic: topic.to_owned() };
        let counter = self.metrics.kafka_given_up.get_or_create_owned(&labels);
        counter.inc();
        let key = format!("given up {topic}");
        if let Some(held_back) = self.lines.take(&key, self.clock.monotonic()) {
            tracing::error!(
                topic,
                bytes,
                total = counter.get(),
                held_back,
                "{what} is larger than its topic takes, and is given up: raise `max.message.bytes` of the topic"
            );
        }
    }

    /// Counts what of rollups could not be computed, shows it to `why`, and logs it once a minute.
    pub(crate) fn failed(&self, failures: &[Failure]) {
        for failure in failures {
            let Failure { rollup, cause, count, first } = failure;
            let labels = FailureLabels { rollup: rollup.clone(), cause: cause.as_str() };
            let counter = self.metrics.sql_failures.get_or_create_owned(&labels);
            counter.inc_by(*count);
            self.board.failed(failure);
            let key = format!("{rollup} {}", cause.as_str());
            if self.lines.take(&key, self.clock.monotonic()).is_none() {
                continue;
            }
            let (cause, total) = (cause.as_str(), counter.get());
            match failure.cause {
                Cause::Value => tracing::warn!(
                    rollup,
                    cause,
                    count,
                    total,
                    first,
                    "an operation failed and gave null; one line a minute"
                ),
                _ => tracing::error!(
                    rollup,
                    cause,
                    count,
                    total,
                    first,
                    "a part of a rollup is lost; one line a minute"
                ),
            }
        }
    }
}

/// Runs a role's sessions until shutdown or an error that trying again does not mend.
pub(crate) fn keep_running(
    role: &'static str,
    context: &Context,
    pause: Duration,
    mut session: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut next = pause;
    loop {
        let started = context.clock.monotonic();
        let Err(error) = session() else { return Ok(()) };
        if !error.retryable() {
            return Err(error);
        }
        if context.shutdown.is_triggered() {
            // As after a crash, which loses nothing: it is no failure of the process.
            tracing::warn!(role, %error, "role ends without handing over, the next owner goes on from the committed offsets");
            return Ok(());
        }
        if let Error::Changed(what) = error {
            tracing::info!(role, "{what} changed: the role goes on with the new ones");
            continue;
        }
        let lasted = context.clock.monotonic().saturating_sub(started);
        next = if lasted > MAX_PAUSE { pause } else { (next * 2).min(MAX_PAUSE) };
        let reason = error.to_string();
        // Roles that wait for the same thing share a line.
        if let Some(held_back) = context.lines.take(&reason, context.clock.monotonic()) {
            tracing::warn!(role, %error, pause = ?next, held_back, "role starts again from its committed offsets");
        }
        context.readiness.waiting(role, reason);
        let stopped = context
            .runtime
            .block_on(async { tokio::time::timeout(next, context.shutdown.triggered()).await.is_ok() });
        if stopped {
            return Ok(());
        }
    }
}

/// Leaves the group. Dropping a consumer can hang for long when a broker is away, so it is not
/// waited for.
pub(crate) fn leave<C: ConsumerContext + 'static>(consumer: BaseConsumer<C>) {
    consumer.unsubscribe();
    let dropped = thread::Builder::new().name("consumer-drop".into()).spawn(move || {
        let _ = consumer.poll(Duration::from_millis(100));
        drop(consumer);
    });
    match dropped {
        Ok(thread) => {
            for _ in 0..50 {
                if thread.is_finished() {
                    return;
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            tracing::warn!("a consumer takes long to leave its group, going on without it");
        }
        Err(error) => tracing::warn!(%error, "no thread to leave the group on"),
    }
}
