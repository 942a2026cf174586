//! A bucket for each tier.
//!
//! The rows of all tiers of a rollup share measurement and tags, and windows of several lengths
//! start at the same instant, so in one bucket they would overwrite each other; and a bucket is
//! what has a retention. Each bucket has a sink of its own. Nothing needs an order across buckets:
//! they have no point in common.

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

/// Writes the finest tier of each rollup to one bucket, and each coarser one to the bucket of its
/// length.
#[derive(Debug)]
pub struct InfluxTiers {
    finest: InfluxSink,
    coarser: BTreeMap<String, InfluxSink>,
}

impl InfluxTiers {
    /// Connects to the bucket of `config`, and to one for each coarser tier, as
    /// [`InfluxSink::connect`] does.
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
    use serde_json::json;
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::Table;

    fn rows(tier: &str, is_finest: bool) -> RollupRows {
        let columns: [(&str, ArrayRef); 3] = [
            ("time", Arc::new(TimestampNanosecondArray::from(vec![0]))),
            ("host", Arc::new(StringArray::from(vec!["a"]))),
            ("n", Arc::new(Int64Array::from(vec![1]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let table = Table {
            name: format!("cpu_{tier}"),
            rollup: "cpu".into(),
            tier: tier.into(),
            is_finest,
            time: 0,
            tags: vec![1],
            fields: vec![2],
        };
        let withdrawn = Some(rows.clone());
        RollupRows { table: Arc::new(table), rows, withdrawn, partition: 0, offset: 0 }
    }

    #[tokio::test]
    async fn each_tier_is_written_and_deleted_in_its_own_bucket() {
        let server = MockServer::start().await;
        let found = json!({ "buckets": [{ "id": "b" }] });
        for (verb, endpoint, status, body) in [
            ("GET", "/health", 200, json!({})),
            ("GET", "/api/v2/buckets", 200, found),
            ("POST", "/api/v2/write", 204, json!({})),
            ("POST", "/api/v2/delete", 204, json!({})),
        ] {
            let answer = ResponseTemplate::new(status).set_body_json(body);
            Mock::given(method(verb)).and(path(endpoint)).respond_with(answer).mount(&server).await;
        }
        let config = InfluxConfig::new(server.uri().parse().unwrap(), "o", "all", "t".to_owned().into());
        let hours = Bucket { name: "hours".into(), retention: None };
        let tiers = BTreeMap::from([("1h".to_owned(), hours)]);
        let sink = InfluxTiers::connect(config, tiers, Arc::new(|line| panic!("{line:?}"))).await.unwrap();

        sink.write(rows("1m", true)).await.unwrap();
        sink.write(rows("1h", false)).await.unwrap();
        // An hour is the finest tier of another rollup.
        sink.write(rows("1h", true)).await.unwrap();
        sink.flush().await.unwrap();
        let requests = server.received_requests().await.unwrap();
        let to = |endpoint: &str, bucket: &str| {
            let matching = requests.iter().filter(|request| {
                let place = request.url.query_pairs().find(|(key, _)| key == "bucket");
                request.url.path() == endpoint && place.is_some_and(|(_, name)| name == bucket)
            });
            matching.count()
        };
        assert_eq!((to("/api/v2/delete", "all"), to("/api/v2/delete", "hours")), (2, 1));
        assert_eq!((to("/api/v2/write", "all"), to("/api/v2/write", "hours")), (2, 1));
        assert_eq!(sink.stats().iter().map(|stats| stats.lines).sum::<u64>(), 3);

        let error = sink.write(rows("1d", false)).await.unwrap_err().to_string();
        assert!(error.contains("tier=`1d`"), "{error}");
    }
}
