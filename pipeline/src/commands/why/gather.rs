//! Asks the processes over HTTP, Kafka, and, for partitions that no process reports, the newest
//! snapshots.

use std::sync::Arc;
use std::time::Duration;

use operators::fold::Fold;
use operators::sql::Catalog;
use operators::watermark::WatermarkOptions;
use url::Url;

use super::answer::Question;
use super::brokers::{self, Brokers};
use super::picture::{Asked, Evidence, Rules};
use crate::board::partition;
use crate::board::status::{Origin, RollupPartition, Status};
use crate::config::Config;
use crate::error::Error;
use crate::storage::Snapshots;
use crate::time::nanoseconds;

/// For the answer of one process.
const PATIENCE: Duration = Duration::from_secs(5);

/// From the configuration.
pub(super) fn rules(config: &Config) -> Rules {
    let WatermarkOptions { max_out_of_orderness, idle_timeout, owner_timeout } = config.ingest.watermark();
    Rules {
        epoch: nanoseconds(config.ingest.epoch),
        max_out_of_orderness,
        max_future_skew: nanoseconds(config.ingest.max_future_skew),
        idle_timeout,
        owner_timeout,
        partials: config.topics.partials.clone(),
        partials_partitions: config.topics.partials_partitions,
    }
}

/// Everything that `asked` and Kafka know.
pub(super) async fn evidence(config: &Arc<Config>, now: i64, asked: Vec<Asked>) -> Evidence {
    let kafka = ask_kafka(config).await;
    let notes = Vec::new();
    Evidence { now, rules: rules(config), asked, kafka, snapshots: Vec::new(), notes }
}

/// Blocks a thread that may be blocked.
async fn ask_kafka(config: &Arc<Config>) -> Result<Brokers, String> {
    let config = Arc::clone(config);
    let asking = tokio::task::spawn_blocking(move || brokers::ask(&config));
    match asking.await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks processes about the rollup in question, all at once.
pub(super) async fn processes(urls: &[Url], question: &Question) -> Vec<Asked> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
    let asking = urls.iter().map(|url| {
        let client = &client;
        async move {
            let status = match client {
                Ok(client) => status(client, url, question).await,
                Err(error) => Err(error.to_string()),
            };
            Asked { url: url.as_str().trim_end_matches('/').to_owned(), status }
        }
    });
    futures::future::join_all(asking).await
}

async fn status(client: &reqwest::Client, url: &Url, question: &Question) -> Result<Status, String> {
    let mut place = url.join("/api/status").map_err(|error| error.to_string())?;
    place.query_pairs_mut().append_pair("rollup", &question.table);
    if let Some((start, _)) = question.window {
        place.query_pairs_mut().append_pair("window", &crate::time::Time(start).to_string());
    }
    let notified = async {
        let response = client.get(place).send().await?.error_for_status()?;
        response.json().await
    };
    notified.await.map_err(|error: reqwest::Error| {
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    })
}

/// Fills in the rollup partitions that no process reported, as of their committed offsets.
pub(super) async fn add_snapshots(evidence: &mut Evidence, config: &Config, catalog: &Catalog, table: &str) {
    let Ok(kafka) = &evidence.kafka else { return };
    let notified = |partition: i32| {
        let statuses = evidence.asked.iter().filter_map(|asked| asked.status.as_ref().ok());
        let mut partitions =
            statuses.filter_map(|status| status.rollup.as_ref()).flat_map(|role| &role.partitions);
        partitions.any(|known| known.partition == partition)
    };
    let committed =
        kafka.rollup.logs.iter().filter_map(|((_, partition), log)| Some((*partition, log.committed?)));
    let missing: Vec<(i32, i64)> = committed.filter(|(partition, _)| !notified(*partition)).collect();
    if missing.is_empty() {
        return;
    }
    let snapshots = match Snapshots::open(config.storage.url.as_str()) {
        Ok(snapshots) => snapshots,
        Err(error) => return evidence.notes.push(format!("snapshots cannot be read: {error}")),
    };
    for (partition, offset) in missing {
        match snapshot(&snapshots, config, catalog, partition, offset, table).await {
            Ok(found) => evidence.snapshots.push(found),
            Err(error) => evidence.notes.push(format!("snapshot of rollup partition {partition}: {error}")),
        }
    }
}

async fn snapshot(
    snapshots: &Snapshots,
    config: &Config,
    catalog: &Catalog,
    partition: i32,
    offset: i64,
    table: &str,
) -> Result<RollupPartition, Error> {
    let bytes = snapshots.get(partition, offset).await?;
    let fold = Fold::restore(&catalog.rollups, config.ingest.watermark(), &bytes)?.fold;
    Ok(partition::view(&fold, partition, offset, offset, None).about(Some(table), Origin::Snapshot))
}
