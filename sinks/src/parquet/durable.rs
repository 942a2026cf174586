//! A local directory whose files survive a power cut.
//!
//! `object_store`'s own local store renames a file into place without syncing it, so after a crash
//! of the machine a stored file may be empty or gone, and a deleted one back. Here `put` returns
//! after the data, the name and any new directories above it are on disk, and `delete` after the
//! name is gone from there. All else is left to the local store.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// The local store under one directory, with durable writes.
#[derive(Debug)]
pub(crate) struct DurableDirectory {
    inner: LocalFileSystem,
    root: PathBuf,
}

impl DurableDirectory {
    /// Creates the directory when it is missing, closed to users outside its group: labels and
    /// alerts are nobody else's.
    pub(crate) fn open(directory: &FilePath) -> Result<Self> {
        let root = create_closed(directory).and_then(|()| directory.canonicalize()).map_err(failed)?;
        Ok(Self { inner: LocalFileSystem::new_with_prefix(&root)?, root })
    }
}

fn create_closed(directory: &FilePath) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    builder.create(directory)
}

#[async_trait]
impl ObjectStore for DurableDirectory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let root = self.root.clone();
        if opts.mode != PutMode::Overwrite || !opts.attributes.is_empty() {
            let result = self.inner.put_opts(location, payload, opts).await?;
            blocking(move || {
                File::open(&path)?.sync_all()?;
                sync_directories(&path, &root)
            })
            .await?;
            return Ok(result);
        }
        blocking(move || replace(&path, &root, &payload)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = self.inner.clone();
        let deleted = self.inner.delete_stream(locations).and_then(move |location| {
            let path = inner.path_to_filesystem(&location);
            async move {
                let path = path?;
                blocking(move || match path.parent() {
                    Some(directory) => File::open(directory)?.sync_all(),
                    None => Ok(()),
                })
                .await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

impl fmt::Display for DurableDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

/// Writes beside `path`, then renames: a reader sees the old content or the new, never a part.
fn replace(path: &FilePath, root: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let (mut file, staged) = stage(path)?;
    let written = payload
        .iter()
        .try_for_each(|bytes| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&staged, path));
    if let Err(error) = written {
        // The error that counts is the one of the write.
        let _ = fs::remove_file(&staged);
        return Err(error);
    }
    sync_directories(path, root)
}

/// A new file beside `path`. The local store uses such names itself and leaves them out of
/// listings.
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    let mut number = 1;
    loop {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        let staged = PathBuf::from(staged);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
                Some(parent) => fs::create_dir_all(parent)?,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Makes the name durable, and those of the directories up to `root`, any of which may be new.
fn sync_directories(path: &FilePath, root: &FilePath) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        File::open(directory)?.sync_all()?;
        if directory == root {
            break;
        }
    }
    Ok(())
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(failed),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn failed(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "directory", source: source.into() }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn files_are_replaced_whole_and_leftovers_are_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableDirectory::open(&folder.path().join("new/root")).unwrap();
        #[cfg(unix)]
        for created in ["new", "new/root"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join(created)).unwrap().permissions().mode();
            assert_eq!(mode & 0o007, 0, "{created}: {mode:o}");
        }
        let path = Path::from("a/b=1/file.parquet");
        for content in ["first", "2nd"] {
            store.put(&path, content.into()).await.unwrap();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content);
        }
        fs::write(folder.path().join("new/root/a/b=1/file.parquet#1"), "cut short").unwrap();
        store.put(&path, "third".into()).await.unwrap();
        let listed: Vec<_> = store.list(None).map_ok(|file| file.location).try_collect().await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&path));

        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let again = store.put_opts(&path, "fourth".into(), create).await;
        assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "third");

        store.delete(&path).await.unwrap();
        assert!(store.list(None).next().await.is_none());
    }
}
