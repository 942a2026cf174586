//! Where the states of partitions are kept: `state/<partition>/<offset>.arrow` in object storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Snapshots {
    pub(crate) fn open(url: &str) -> Result<Self> {
        let (store, root) = sinks::parquet::store::open(url)?;
        Ok(Self { store, prefix: root.join("state") })
    }

    /// Stores a state; Ok means that it survives a crash.
    pub(crate) async fn put(&self, partition: i32, offset: i64, state: Bytes) -> Result<()> {
        self.store.put(&self.path(partition, offset), state.into()).await.map_err(stored)?;
        Ok(())
    }

    /// The state as of an offset that the group has committed.
    pub(crate) async fn get(&self, partition: i32, offset: i64) -> Result<Vec<u8>> {
        let path = self.path(partition, offset);
        match self.store.get(&path).await {
            Ok(found) => Ok(found.bytes().await.map_err(stored)?.to_vec()),
            Err(object_store::Error::NotFound { .. }) => Err(Error::NoSnapshot { path: path.to_string() }),
            Err(error) => Err(stored(error)),
        }
    }

    /// The newest state of each partition.
    pub(crate) async fn newest(&self) -> Result<Vec<Vec<u8>>> {
        let mut newest: BTreeMap<i32, (i64, Path)> = BTreeMap::new();
        let mut files = self.store.list(Some(&self.prefix));
        while let Some(file) = files.try_next().await.map_err(stored)? {
            let Some((partition, offset)) = self.parse(&file.location) else { continue };
            let entry = newest.entry(partition).or_insert_with(|| (offset, file.location.clone()));
            if offset > entry.0 {
                *entry = (offset, file.location);
            }
        }
        let mut states = Vec::new();
        for (_, path) in newest.into_values() {
            let bytes = self.store.get(&path).await.map_err(stored)?.bytes().await.map_err(stored)?;
            states.push(bytes.to_vec());
        }
        Ok(states)
    }

    /// The highest offset of the partition's states.
    pub(crate) async fn newest_offset(&self, partition: i32) -> Result<Option<i64>> {
        let folder = self.prefix.clone().join(partition.to_string());
        let files: Vec<_> = self.store.list(Some(&folder)).try_collect().await.map_err(stored)?;
        Ok(files.iter().filter_map(|file| Some(self.parse(&file.location)?.1)).max())
    }

    /// Removes what is older than the committed offset.
    pub(crate) async fn remove_before(&self, partition: i32, offset: i64) -> Result<()> {
        let kept = self.path(partition, offset);
        let folder = self.prefix.clone().join(partition.to_string());
        let mut files = self.store.list(Some(&folder));
        while let Some(file) = files.try_next().await.map_err(stored)? {
            // Offsets are padded, so that the order of the names is the order of the offsets.
            if file.location < kept {
                self.store.delete(&file.location).await.map_err(stored)?;
            }
        }
        Ok(())
    }

    fn parse(&self, path: &Path) -> Option<(i32, i64)> {
        let mut parts = path.prefix_match(&self.prefix)?;
        let partition = parts.next()?.as_ref().parse().ok()?;
        let offset = parts.next()?.as_ref().strip_suffix(".arrow")?.parse().ok()?;
        Some((partition, offset))
    }

    fn path(&self, partition: i32, offset: i64) -> Path {
        self.prefix.clone().join(partition.to_string()).join(format!("{offset:020}.arrow"))
    }
}

fn stored(error: object_store::Error) -> Error {
    Error::Sink(sinks::Error::Store(error))
}
