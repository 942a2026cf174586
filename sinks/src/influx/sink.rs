//! The InfluxDB sink: order, concurrency and backpressure over batches.
//!
//! **Order.** A rollup is corrected by writing the whole point again, so an older version of a
//! point must never be applied after a newer one. Within a batch each point occurs once (see
//! `batch.rs`). Between batches: a batch is sent only while no batch under way holds one of its
//! points; else it waits for that one's acknowledgement. Retries, halving and waiting belong to a
//! batch's time under way. So versions of a point reach the server one after another, and batches
//! with different points in any order. What remains is a request given up after the timeout which
//! the server applies later than its successor; that is why the timeout should be long.
//!
//! **Withdrawn rows.** All earlier batches are acknowledged first, then the points are deleted, one
//! request a row and `in_flight` at once, then the rest is written. A field that became null is not
//! erased by a write, as InfluxDB unites the fields of a point; withdraw the key in the same
//! [`RollupRows`] to get rid of it.
//!
//! **Backpressure.** At most `in_flight` batches are under way and one is being filled, so memory
//! is bounded by (`in_flight` + 1) × `batch_lines` lines; `write` waits when all are taken. While
//! the server is away that lasts as long as the outage. While it refuses (bad token, missing
//! bucket), `write` and `flush` fail instead of waiting. The batches stay and are tried at the
//! longest pause, so that a later `flush` succeeds once the cause is gone. Dropping the sink ends
//! all attempts.

use std::collections::HashMap;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use tokio::task::{Id, JoinSet};

use super::batch::{Batch, Points};
use super::client::Client;
use super::delete::{Deletion, deletion};
use super::deliver::{Delivery, OnPost, OnRejected, Permit};
use super::encode::{Lines, Series};
use super::stats::{Counters, InfluxStats};
use super::{InfluxConfig, setup};
use crate::{Error, RollupRows, Sink, Table};

/// Writes rollups to one bucket. See the top of this file for what it promises.
pub struct InfluxSink {
    batch_lines: usize,
    max_in_flight: usize,
    delivery: Arc<Delivery>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The batch being filled.
    batch: Batch,
    tasks: JoinSet<()>,
    in_flight: HashMap<Id, Points>,
}

impl InfluxSink {
    /// Connects and checks server, organisation and bucket, and creates the bucket when allowed.
    ///
    /// Fails with [`Error::Unavailable`] when the server is away, and with [`Error::Config`] or
    /// [`Error::Refused`] when it is there but not usable. `rejected` hears of each line given up.
    pub async fn connect(config: InfluxConfig, rejected: OnRejected) -> Result<Self, Error> {
        config.check()?;
        let client = Client::new(&config)?;
        setup::verify(&client, &config).await?;
        Ok(Self {
            batch_lines: config.batch_lines,
            max_in_flight: config.in_flight,
            delivery: Arc::new(Delivery::new(client, &config, rejected)),
            state: Mutex::default(),
        })
    }

    /// Calls `hook` with the duration of every write request from now on. The first hook stays.
    pub fn on_post(&self, hook: OnPost) {
        self.delivery.on_post.get_or_init(|| hook);
    }

    /// Asks `permit` before each request from now on. Once it refuses, what is left waits until the
    /// sink is dropped. The first permit stays.
    pub fn only_while(&self, permit: Permit) {
        self.delivery.permit.get_or_init(|| permit);
    }

    pub fn stats(&self) -> InfluxStats {
        self.delivery.counters.snapshot()
    }

    async fn withdraw(&self, state: &mut State, table: &Table, rows: &RecordBatch) -> Result<(), Error> {
        let series = Series::new(table, rows)?;
        self.drain(state).await?;
        let mut requests = Vec::new();
        for row in 0..series.len() {
            match deletion(&series, row) {
                Deletion::Request(request) => requests.push((row, request)),
                Deletion::Impossible { point, missing_tag } => {
                    let reason = format!(
                        "the withdrawn row stays: InfluxDB cannot delete a point without tag `{missing_tag}` \
                         and keep those with it"
                    );
                    self.delivery.reject(point, &reason);
                }
            }
        }
        let series = &series;
        let deletions = requests.into_iter().map(|(row, request)| async move {
            let point = || format!("{} {}", series.line_head(row), series.time(row));
            self.delivery.delete(point, &request).await
        });
        stream::iter(deletions).buffer_unordered(self.max_in_flight).try_collect().await
    }

    async fn drain(&self, state: &mut State) -> Result<(), Error> {
        self.send_batch(state).await?;
        while !state.in_flight.is_empty() {
            self.wait_for_one(state).await?;
        }
        Ok(())
    }

    /// Sends the batch being filled as soon as there is room and no batch under way shares a point
    /// with it.
    async fn send_batch(&self, state: &mut State) -> Result<(), Error> {
        if state.batch.is_empty() {
            return Ok(());
        }
        while state.in_flight.len() >= self.max_in_flight
            || state.in_flight.values().any(|points| state.batch.shares_a_point(points))
        {
            self.wait_for_one(state).await?;
        }
        let (lines, points) = state.batch.take();
        let delivery = self.delivery.clone();
        delivery.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let task = state.tasks.spawn(async move {
            delivery.deliver(&lines).await;
            delivery.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        });
        state.in_flight.insert(task.id(), points);
        Ok(())
    }

    /// Waits for a batch under way to end. Fails when the server refuses, which may last for ever.
    async fn wait_for_one(&self, state: &mut State) -> Result<(), Error> {
        let mut refusal = self.delivery.refusal.subscribe();
        tokio::select! {
            biased;
            ended = state.tasks.join_next_with_id() => {
                match ended {
                    Some(Ok((id, ()))) => _ = state.in_flight.remove(&id),
                    // Its lines may not be durable, so nobody may go on as if they were.
                    Some(Err(error)) => resume_unwind(error.into_panic()),
                    None => state.in_flight.clear(),
                }
                Ok(())
            }
            refused = refusal.wait_for(Option::is_some) => match refused.as_deref() {
                Ok(Some(refusal)) => Err(self.delivery.refused(refusal)),
                // The sender lives as long as this sink.
                Ok(None) | Err(_) => Ok(()),
            }
        }
    }
}

#[async_trait]
impl Sink<RollupRows> for InfluxSink {
    async fn write(&self, input: RollupRows) -> Result<(), Error> {
        let mut lines = Lines::new(&input.table, &input.rows)?;
        let mut state = self.state.lock().await;
        if let Some(withdrawn) = &input.withdrawn {
            self.withdraw(&mut state, &input.table, withdrawn).await?;
        }
        for line in lines.by_ref() {
            let mut unplaced = Some(line);
            while let Some(line) = unplaced {
                unplaced = state.batch.push(line, self.batch_lines);
                if unplaced.is_some() || state.batch.is_full(self.batch_lines) {
                    self.send_batch(&mut state).await?;
                }
            }
        }
        Counters::add(&self.delivery.counters.non_finite, lines.non_finite);
        Counters::add(&self.delivery.counters.empty, lines.empty);
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        self.drain(&mut *self.state.lock().await).await
    }
}

impl fmt::Debug for InfluxSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfluxSink").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
