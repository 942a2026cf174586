//! What lies in the storage beside points and rollups, and which storage it is.
//!
//! - `snapshots`: the states of partitions; `archive_progress`: how far the archive is
//!
//! A storage is known by a name that is made up once and lies in its root as `tidemark.id`. It goes
//! with what `ingest` commits. A process whose `url` leads elsewhere, to a folder of its own
//! machine or to an empty volume, would divide the archive, and `recompute` would take the other
//! part for points that never were.

pub(crate) mod archive_progress;
mod snapshots;

pub(crate) use snapshots::Snapshots;

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use crate::error::{Error, Result};

const FILE: &str = "tidemark.id";
const KEY: &str = ";storage=";

type Stored<T> = std::result::Result<T, object_store::Error>;

/// The storage's name, none when it has none yet.
pub(crate) async fn identity(store: &Arc<dyn ObjectStore>, root: &Path) -> Stored<Option<String>> {
    match store.get(&root.clone().join(FILE)).await {
        Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await?).trim().to_owned())),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The storage's name, made up when it has none. Of several processes that do so at once, one wins.
pub(crate) async fn named(store: &Arc<dyn ObjectStore>, root: &Path) -> Stored<Option<String>> {
    if let Some(name) = identity(store, root).await? {
        return Ok(Some(name));
    }
    let name = format!("{}\n", Uuid::new_v4());
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(&root.clone().join(FILE), name.into(), options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => identity(store, root).await,
        Err(error) => Err(error),
    }
}

/// The storage that a commit is about; none in commits of older releases.
pub(crate) fn committed(text: &str) -> Option<&str> {
    text.split_once(KEY).map(|(_, name)| name)
}

/// The text of a commit that is about a storage.
pub(crate) fn with_storage(text: String, name: Option<&str>) -> String {
    match name {
        Some(name) if !text.is_empty() => format!("{text}{KEY}{name}"),
        _ => text,
    }
}

/// Refuses a storage that a commit is not about.
pub(crate) fn check(own: Option<&str>, text: &str, (topic, partition): (&str, i32)) -> Result<()> {
    match committed(text) {
        Some(known) if own != Some(known) => Err(Error::Refused(format!(
            "the archive of topic `{topic}` partition {partition} is in the storage `{known}`, and `url` of [storage] leads to {}: \
             let it lead to the same storage in all processes; a folder of one machine is another storage than that of the next",
            own.map_or("one without a name".to_owned(), |own| format!("`{own}`")),
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_storage_keeps_its_name_and_another_one_is_refused() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (first, second) = (Path::from("a"), Path::from("b"));
        assert_eq!(block_on(identity(&store, &first)).unwrap(), None);
        let name = block_on(named(&store, &first)).unwrap().unwrap();
        assert_eq!(block_on(named(&store, &first)).unwrap().as_deref(), Some(&*name));
        let other = block_on(named(&store, &second)).unwrap().unwrap();
        assert_ne!(name, other);
        let text = with_storage("archive=1,2".to_owned(), Some(&name));
        assert_eq!(committed(&text), Some(&*name));
        let place = ("points", 0);
        check(Some(&name), &text, place).unwrap();
        check(Some(&other), "archive=1,2", place).unwrap();
        for wrong in [Some(&*other), None] {
            let error = check(wrong, &text, place).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("url"), "{error}");
        }
        assert_eq!(with_storage(String::new(), Some(&name)), "", "the archive is off");
    }
}
