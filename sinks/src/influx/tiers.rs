//! A bucket for each tier.
//!
//! The rows of all tiers of a rollup share measurement and tags, and windows of several lengths start at the same
//! instant, so in one bucket they would overwrite each other; and a bucket is what has a retention. Each bucket has a
//! sink of its own. Nothing needs an order across buckets: they have no point in common.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;

use super::deliver::{OnRejected, Permit};
use super::{InfluxConfig, InfluxSink, InfluxStats};
use crate::{Error, RollupRows, Sink};

/// Where the rows of a tier go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    /// How long the bucket keeps its points, when it is created here; none keeps them for ever.
    pub retention: Option<Duration>,
}

/// Writes the finest tier of each rollup to one bucket, and each coarser one to the bucket of its length.
#[derive(Debug)]
pub struct InfluxTiers {
    finest: InfluxSink,
    coarser: BTreeMap<String, InfluxSink>,
}

impl InfluxTiers {
    /// Connects to the bucket of `config`, and to one for each coarser tier, as [`InfluxSink::connect`] does.
    ///
    /// `in_flight` and `batch_lines` of `config` hold for each bucket.
    pub async fn connect(
        config: InfluxConfig,
        tiers: BTreeMap<String, Bucket>,
        rejected: OnRejected,
    ) -> Result<Self, Error> {
        let mut coarser = BTreeMap::new();
        for (tier, bucket) in tiers {
            let config = InfluxConfig { bucket: bucket.name, retention: bucket.retention, ..config.clone() };
            coarser.insert(tier, InfluxSink::connect(config, Arc::clone(&rejected)).await?);
        }
        Ok(Self { finest: InfluxSink::connect(config, rejected).await?, coarser })
    }

    /// As [`InfluxSink::only_while`], for all buckets.
    pub fn only_while(&self, permit: &Permit) {
        self.sinks().for_each(|sink| sink.only_while(Arc::clone(permit)));
    }

    /// What the sinks of all buckets did since they were connected.
    pub fn stats(&self) -> Vec<InfluxStats> {
        self.sinks().map(InfluxSink::stats).collect()
    }

    fn sinks(&self) -> impl Iterator<Item = &InfluxSink> {
        std::iter::once(&self.finest).chain(self.coarser.values())
    }
}

#[async_trait]
impl Sink<RollupRows> for InfluxTiers {
    async fn write(&self, input: RollupRows) -> Result<(), Error> {
        let table = &input.table;
        if table.is_finest {
            return self.finest.write(input).await;
        }
        let Some(sink) = self.coarser.get(&table.tier) else {
            let reason = format!("no bucket was set up for their tier tier=`{}`", table.tier);
            return Err(Error::Rows { table: table.name.clone(), reason });
        };
        sink.write(input).await
    }

    async fn flush(&self) -> Result<(), Error> {
        try_join_all(self.sinks().map(InfluxSink::flush)).await?;
        Ok(())
    }
}
