//! A directory or a URL to its object store.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use super::durable::DurableDirectory;
use crate::Error;

/// Opens a store, and the path in it that the URL points to.
///
/// | given | store |
/// |---|---|
/// | `data`, `/var/lib/tidemark`, `file:///var/lib/tidemark` | a local directory, created when missing |
/// | `s3://bucket/path` | S3, with `AWS_*` from the environment |
/// | `gs://bucket/path` | Google Cloud Storage, with `GOOGLE_*` from the environment |
/// | `az://container/path` | Azure, with `AZURE_*` from the environment |
/// | `memory:///` | memory, for tests |
///
/// A remote store is not contacted yet. Fails with [`Error::Config`].
pub fn open(url_or_path: &str) -> Result<(Arc<dyn ObjectStore>, Path), Error> {
    let wrong = |reason: String| {
        Error::Config(format!(
            "cannot open the store: {reason}; give a directory, or a URL with file, s3, gs or az \
             store=`{}`",
            shown(url_or_path)
        ))
    };
    if url_or_path.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if !url_or_path.contains("://") {
        return directory(url_or_path.as_ref()).map_err(wrong);
    }
    let url = Url::parse(url_or_path).map_err(|error| wrong(error.to_string()))?;
    if url.scheme() == "file" {
        let path =
            url.to_file_path().map_err(|()| wrong("a file URL has three slashes and no host".into()))?;
        return directory(&path).map_err(wrong);
    }
    // The builders know which of these options are theirs and pass over the rest.
    let options = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let ours = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
        if ours { Some((name.to_ascii_lowercase(), value.into_string().ok()?)) } else { None }
    });
    let (store, path) =
        object_store::parse_url_opts(&url, options).map_err(|error| wrong(with_causes(&error)))?;
    Ok((Arc::from(store), path))
}

fn directory(path: &std::path::Path) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let store = DurableDirectory::open(path).map_err(|error| with_causes(&error))?;
    Ok((Arc::new(store), Path::default()))
}

/// Without what may be a secret.
fn shown(url_or_path: &str) -> String {
    match Url::parse(url_or_path) {
        Ok(mut url) if url_or_path.contains("://") => {
            url.set_query(None);
            // Fails for URLs without a host only, which have no password.
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => url_or_path.to_owned(),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some of the store's errors repeat their source.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn directories_are_created() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a/b").to_str().unwrap().to_owned();
        let url = Url::from_file_path(folder.path().join("c d")).unwrap().to_string();
        for place in [plain, url] {
            let (store, prefix) = open(&place).unwrap();
            store.put(&prefix.clone().join("x"), "1".into()).await.unwrap();
        }
        assert!(folder.path().join("a/b/x").exists());
        assert!(folder.path().join("c d/x").exists());
    }

    #[test]
    fn remote_urls_carry_their_path() {
        let (_, path) = open("s3://bucket/cold/points").unwrap();
        assert_eq!(path, Path::from("cold/points"));
        assert_eq!(open("memory:///x").unwrap().1, Path::from("x"));
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (place, expected) in [
            ("", "it is empty"),
            ("ftp://host/x", "store=`ftp://host/x`"),
            ("file://host/x", "three slashes"),
            ("s3://user:secret@bucket/x?token=secret", "store=`s3://"),
            (file.to_str().unwrap(), "store=`"),
        ] {
            let Err(error) = open(place) else {
                assert!(place.starts_with("s3"), "{place}");
                continue;
            };
            let error = error.to_string();
            assert!(error.contains(expected) && error.contains("give a directory"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
