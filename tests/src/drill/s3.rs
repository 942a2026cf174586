//! A stand-in for S3: the few requests of its API that object stores are used with, on a directory,
//! with faults.
//!
//! It is no S3. It shows what the program does when the storage refuses, is silent or breaks
//! connections; what a real service does beyond the answers below it cannot show. Signatures are
//! not checked.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tempfile::TempDir;

use super::proxy::cut;
use crate::serving::Serving;

pub(super) const BUCKET: &str = "drill";
/// When everything was changed last: nothing looks at it, but an answer without is not one.
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// What happens to a request that stores an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Error500,
    SlowDown503,
    /// Stored, and never answered.
    Silent,
    /// Stored, and the connection breaks before the answer.
    Reset,
}

#[derive(Debug, Default)]
struct Script {
    fault: Option<Fault>,
    /// Requests that met the fault, by the first part of the object's key.
    injected: BTreeMap<String, usize>,
}

/// Dropping it ends it and removes the objects.
#[derive(Debug)]
pub(super) struct S3 {
    serving: Serving,
    script: Arc<Mutex<Script>>,
    objects: TempDir,
}

#[derive(Clone)]
struct Shared {
    objects: PathBuf,
    script: Arc<Mutex<Script>>,
}

impl S3 {
    pub(super) fn start() -> Self {
        let objects = tempfile::Builder::new().prefix("tidemark-s3-").tempdir().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let shared = Shared { objects: objects.path().to_owned(), script: Arc::clone(&script) };
        let router = Router::new().fallback(answer).with_state(shared).layer(DefaultBodyLimit::disable());
        Self { serving: Serving::start(router), script, objects }
    }

    /// The variables by which a client finds it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let url = self.serving.url();
        [
            ("AWS_ENDPOINT", url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "drill"),
            ("AWS_SECRET_ACCESS_KEY", "drill"),
            ("AWS_REGION", "us-east-1"),
            // A request is given up soon, and tried again.
            ("AWS_TIMEOUT", "3s"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Where the objects are, as files.
    pub(super) fn directory(&self) -> &Path {
        self.objects.path()
    }

    /// From now on storing an object meets this fault, or none.
    pub(super) fn inject(&self, fault: Option<Fault>) {
        *self.script.lock().unwrap() = Script { fault, injected: BTreeMap::new() };
    }

    /// Requests that have met the fault, for objects whose key starts like this.
    pub(super) fn injected(&self, first: &str) -> usize {
        self.script.lock().unwrap().injected.get(first).copied().unwrap_or(0)
    }
}

async fn answer(
    State(shared): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = decoded(uri.path());
    let Some(key) = path.strip_prefix(&format!("/{BUCKET}")) else { return error(404, "NoSuchBucket") };
    let key = key.trim_start_matches('/');
    match method {
        Method::GET if query.contains_key("list-type") => list(&shared, &query),
        Method::POST if query.contains_key("delete") => delete_all(&shared, &body),
        Method::PUT => put(&shared, key, &headers, &body).await,
        Method::GET | Method::HEAD => get(&shared, key, &headers),
        Method::DELETE => {
            // Deleting what is not there is no error.
            let _ = fs::remove_file(shared.objects.join(key));
            StatusCode::NO_CONTENT.into_response()
        }
        // Among them multipart uploads, which only objects above the sizes here need.
        _ => error(501, "NotImplemented"),
    }
}

async fn put(shared: &Shared, key: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let fault = {
        let mut script = shared.script.lock().unwrap();
        if script.fault.is_some() {
            let first = key.split('/').next().unwrap_or_default().to_owned();
            *script.injected.entry(first).or_default() += 1;
        }
        script.fault
    };
    match fault {
        Some(Fault::Error500) => return error(500, "InternalError"),
        Some(Fault::SlowDown503) => return error(503, "SlowDown"),
        _ => {}
    }
    let file = shared.objects.join(key);
    if headers.contains_key(header::IF_NONE_MATCH) && file.exists() {
        return error(412, "PreconditionFailed");
    }
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // A reader sees all of it or nothing.
    let temporary = tempfile::NamedTempFile::new_in(&shared.objects).unwrap();
    fs::write(temporary.path(), body).unwrap();
    temporary.persist(&file).unwrap();
    match fault {
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Reset) => cut(),
        _ => ([(header::ETAG, etag(body.len()))], "").into_response(),
    }
}

fn get(shared: &Shared, key: &str, headers: &HeaderMap) -> Response {
    let Ok(content) = fs::read(shared.objects.join(key)) else { return error(404, "NoSuchKey") };
    let size = content.len();
    let found = [
        (header::ETAG, etag(size)),
        (header::LAST_MODIFIED, MODIFIED.to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((from, to)) = asked.and_then(|range| range.split_once('-')) else {
        return (found, content).into_response();
    };
    let (start, end) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) => (from, (to + 1).min(size)),
        (Ok(from), Err(_)) => (from, size),
        (Err(_), Ok(last)) => (size.saturating_sub(last), size),
        (Err(_), Err(_)) => (0, size),
    };
    if start >= end {
        return error(416, "InvalidRange");
    }
    let range = format!("bytes {start}-{}/{size}", end - 1);
    let part = content[start..end].to_vec();
    (StatusCode::PARTIAL_CONTENT, found, [(header::CONTENT_RANGE, range)], part).into_response()
}

/// All keys at once: there is no paging here.
fn list(shared: &Shared, query: &BTreeMap<String, String>) -> Response {
    let asked = |name: &str| query.get(name).map_or("", String::as_str);
    let (prefix, delimiter, after) = (asked("prefix"), asked("delimiter"), asked("start-after"));
    let mut keys = Vec::new();
    collect(&shared.objects, &shared.objects, &mut keys);
    keys.sort();
    let mut folders = BTreeSet::new();
    let mut text = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, size) in &keys {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        if key.as_str() <= after && !after.is_empty() {
            continue;
        }
        match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(end) => {
                folders.insert(format!("{prefix}{}", &rest[..end + delimiter.len()]));
            }
            None => write!(
                text,
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{}</ETag>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
                etag(usize::try_from(*size).unwrap())
            )
            .unwrap(),
        }
    }
    for folder in folders {
        write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>").unwrap();
    }
    text.push_str("</ListBucketResult>");
    ([(header::CONTENT_TYPE, "application/xml")], text).into_response()
}

fn collect(root: &Path, directory: &Path, keys: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(directory).unwrap().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, keys);
        } else if let Ok(metadata) = entry.metadata()
            && !entry.file_name().to_string_lossy().starts_with(".tmp")
        {
            keys.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), metadata.len()));
        }
    }
}

/// The keys of Tidemark hold nothing that XML escapes.
fn delete_all(shared: &Shared, body: &[u8]) -> Response {
    let asked = String::from_utf8_lossy(body);
    let mut text = String::from("<DeleteResult>");
    for part in asked.split("<Key>").skip(1) {
        let key = part.split("</Key>").next().unwrap_or_default();
        let _ = fs::remove_file(shared.objects.join(key));
        write!(text, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
    }
    text.push_str("</DeleteResult>");
    ([(header::CONTENT_TYPE, "application/xml")], text).into_response()
}

fn error(status: u16, code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>said by the stand-in</Message></Error>");
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

fn etag(size: usize) -> String {
    format!("\"{size}\"")
}

/// A path without its percent signs.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if code.is_some() { &tail[2..] } else { tail };
        bytes.push(code.unwrap_or(*first));
    }
    String::from_utf8(bytes).unwrap()
}
