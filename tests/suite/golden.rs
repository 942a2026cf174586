//! Folders of cases, and files of expected output.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project's folder")
}

/// The folders in `suite/<name>`, sorted.
pub(crate) fn folders(name: &str) -> Vec<PathBuf> {
    let root = suite(name);
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// A path in this folder.
pub(crate) fn suite(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suite").join(name)
}

/// The last part of a folder's path.
pub(crate) fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Compares `actual` with the file at `path` by `equal`, which explains a difference; or rewrites
/// the file.
pub(crate) fn check(
    path: &Path,
    actual: &str,
    equal: impl Fn(&str) -> Result<(), Failed>,
) -> Result<(), Failed> {
    if env::var("TIDEMARK_GOLDEN").is_ok_and(|what| what == "rewrite") {
        return Ok(fs::write(path, actual)?);
    }
    match fs::read_to_string(path) {
        Ok(expected) => equal(&expected),
        Err(error) => Err(format!(
            "{}: {error}\nwrite it with TIDEMARK_GOLDEN=rewrite; it would be\n{actual}",
            path.display()
        )
        .into()),
    }
}

/// Compares text with the file at `path`, or rewrites the file.
pub(crate) fn check_text(path: &Path, actual: &str) -> Result<(), Failed> {
    check(path, actual, |expected| match expected == actual {
        true => Ok(()),
        false => {
            Err(format!("not as in {}\n--- expected\n{expected}\n--- actual\n{actual}", path.display())
                .into())
        }
    })
}
