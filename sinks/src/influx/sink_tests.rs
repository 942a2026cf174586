//! Every row of the error table, order, backpressure and recovery, against a server on loopback
//! that keeps points as InfluxDB does.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex as Lock, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::super::deliver::RejectedLine;
use super::*;

/// Nothing here should take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with one bucket. Lines of series `bad` are malformed, those of `conflict` are dropped.
#[derive(Clone, Default)]
struct Influx(Arc<Lock<Bucket>>);

#[derive(Default)]
struct Bucket {
    /// Fields by series and time.
    points: BTreeMap<String, String>,
    posts: Vec<(Instant, usize)>,
    deletes: Vec<Value>,
    /// Answers instead of the normal ones: so many times, then no more.
    instead: Option<(usize, ResponseTemplate)>,
    max_lines: Option<usize>,
    partial_status: u16,
    delay: Duration,
}

impl Influx {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap()
    }

    fn answer_instead(&self, times: usize, status: u16, headers: &[(&str, &str)]) {
        let mut template = ResponseTemplate::new(status);
        for (name, value) in headers {
            template = template.insert_header(*name, *value);
        }
        self.bucket().instead = Some((times, template));
    }

    fn points(&self) -> Vec<String> {
        self.bucket().points.iter().map(|(key, fields)| format!("{key} {fields}")).collect()
    }

    async fn start(&self) -> (MockServer, InfluxConfig) {
        let server = MockServer::start().await;
        let found = |body: Value| ResponseTemplate::new(200).set_body_json(body);
        Mock::given(path("/base/health")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
        Mock::given(path("/base/api/v2/buckets"))
            .respond_with(found(json!({ "buckets": [{ "id": "b1" }] })))
            .mount(&server)
            .await;
        for endpoint in ["write", "delete"] {
            Mock::given(method("POST"))
                .and(path(format!("/base/api/v2/{endpoint}")))
                .and(header("authorization", "Token token-secret"))
                .and(query_param("org", "o rg"))
                .and(query_param("bucket", "b&b"))
                .respond_with(self.clone())
                .mount(&server)
                .await;
        }
        let config = config(&server.uri());
        (server, config)
    }
}

impl Respond for Influx {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut bucket = self.bucket();
        if let Some((times, template)) = bucket.instead.take() {
            if times > 1 {
                bucket.instead = Some((times - 1, template.clone()));
            }
            return template;
        }
        if request.url.path().ends_with("delete") {
            bucket.deletes.push(request.body_json().unwrap());
            return ResponseTemplate::new(204);
        }
        let mut body = String::new();
        GzDecoder::new(request.body.as_slice()).read_to_string(&mut body).unwrap();
        let lines: Vec<&str> = body.lines().collect();
        bucket.posts.push((Instant::now(), lines.len()));
        if bucket.max_lines.is_some_and(|max| lines.len() > max) {
            return ResponseTemplate::new(413);
        }
        if let Some(bad) = lines.iter().find(|line| line.contains("=bad ")) {
            return error(400, &format!("unable to parse '{bad}'"));
        }
        let mut dropped = 0;
        for line in &lines {
            let parts: Vec<&str> = line.split(' ').collect();
            if line.contains("=conflict ") {
                dropped += 1;
            } else {
                bucket.points.insert(format!("{} {}", parts[0], parts[2]), parts[1].to_owned());
            }
        }
        if dropped > 0 {
            return error(bucket.partial_status, &format!("partial write: type conflict dropped={dropped}"));
        }
        ResponseTemplate::new(204).set_delay(bucket.delay)
    }
}

fn error(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "code": "invalid", "message": message }))
}

fn config(server: &str) -> InfluxConfig {
    let url = format!("{server}/base").parse().unwrap();
    InfluxConfig {
        batch_lines: 4,
        in_flight: 2,
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(5),
        ..InfluxConfig::new(url, "o rg", "b&b", "token-secret".to_owned().into())
    }
}

type Rejected = Arc<Lock<Vec<RejectedLine>>>;

async fn connect(config: InfluxConfig) -> (InfluxSink, Rejected) {
    let rejected = Rejected::default();
    let to = rejected.clone();
    let sink =
        InfluxSink::connect(config, Arc::new(move |line| to.lock().unwrap().push(line))).await.unwrap();
    (sink, rejected)
}

/// Rows of measurement `m`: host, time, value.
fn rows(rows: &[(&str, i64, i64)]) -> RollupRows {
    let columns: [(&str, ArrayRef); 3] = [
        ("time", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("host", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("n", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RollupRows {
        table: Arc::new(Table {
            rollup: "m".into(),
            time: 0,
            tags: vec![1],
            fields: vec![2],
            ..Table::default()
        }),
        rows: RecordBatch::try_from_iter(columns).unwrap(),
        withdrawn: None,
        partition: 0,
        offset: 0,
    }
}

async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn batches_go_out_full_and_the_rest_by_flush() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let (sink, _) = connect(config).await;
    let calls = Arc::new(Lock::new(0));
    let counted = calls.clone();
    sink.on_post(Arc::new(move |_| *counted.lock().unwrap() += 1));
    for time in 0..10 {
        sink.write(rows(&[("a", time, time)])).await.unwrap();
    }
    sink.flush().await.unwrap();
    let mut sizes: Vec<usize> = influx.bucket().posts.iter().map(|(_, lines)| *lines).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4, 4]);
    assert_eq!(influx.points().len(), 10);
    assert_eq!(*calls.lock().unwrap(), 3);
    let stats = sink.stats();
    assert_eq!((stats.lines, stats.posts, stats.retries, stats.in_flight), (10, 3, 0, 0));
    assert!(!format!("{sink:?}").contains("secret"));
}

/// Each answer, for six good lines in two batches, of which some are bad or in conflict.
#[tokio::test]
async fn every_answer_is_handled_as_the_table_says() {
    type Headers = &'static [(&'static str, &'static str)];
    struct Case {
        name: &'static str,
        instead: Option<(usize, u16, Headers)>,
        bad: &'static [(&'static str, i64, i64)],
        max_lines: Option<usize>,
        partial_status: u16,
        rejected: usize,
        retries: u64,
    }
    let case = |name| Case {
        name,
        instead: None,
        bad: &[],
        max_lines: None,
        partial_status: 422,
        rejected: 0,
        retries: 0,
    };
    let cases = [
        case("all is well"),
        Case { bad: &[("bad", 9, 9)], rejected: 1, ..case("400 bisects") },
        Case { bad: &[("bad", 8, 9), ("bad", 9, 9)], rejected: 2, ..case("400 twice") },
        Case { max_lines: Some(1), ..case("413 halves") },
        Case { max_lines: Some(0), rejected: 6, ..case("413 for a single line") },
        Case { bad: &[("conflict", 9, 9)], rejected: 1, ..case("422") },
        Case { bad: &[("conflict", 9, 9)], rejected: 1, partial_status: 500, ..case("500 partial write") },
        Case { instead: Some((3, 429, &[("Retry-After", "0")])), retries: 3, ..case("429") },
        Case {
            instead: Some((
                2,
                503,
                &[
                    ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                    ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
            )),
            retries: 2,
            ..case("503 with a date")
        },
        Case { instead: Some((2, 500, &[])), retries: 2, ..case("500") },
        Case { instead: Some((2, 502, &[])), retries: 2, ..case("502") },
    ];
    for case in cases {
        let influx = Influx::default();
        let (_server, config) = influx.start().await;
        {
            let mut bucket = influx.bucket();
            (bucket.max_lines, bucket.partial_status) = (case.max_lines, case.partial_status);
        }
        if let Some((times, status, headers)) = case.instead {
            influx.answer_instead(times, status, headers);
        }
        let (sink, rejected) = connect(config).await;
        let good: Vec<(&str, i64, i64)> = (0..6).map(|time| ("a", time, time)).collect();
        sink.write(rows(&good[..2])).await.unwrap();
        sink.write(rows(case.bad)).await.unwrap();
        sink.write(rows(&good[2..])).await.unwrap();
        sink.flush().await.unwrap();

        let rejected = rejected.lock().unwrap();
        assert_eq!(rejected.len(), case.rejected, "{}: {rejected:?}", case.name);
        let written = if case.max_lines == Some(0) { 0 } else { good.len() };
        assert_eq!(influx.points().len(), written, "{}", case.name);
        for (line, (host, time, _)) in rejected.iter().zip(case.bad) {
            assert_eq!(line.line, format!("m,host={host} n=9i {time}"), "{}", case.name);
            assert!(!line.reason.is_empty());
        }
        let stats = sink.stats();
        assert_eq!(stats.lines as usize, written, "{}", case.name);
        assert_eq!(stats.rejected as usize, case.rejected, "{}", case.name);
        assert_eq!(stats.retries, case.retries, "{}", case.name);
        assert_eq!(stats.last_error.is_some(), case.rejected + case.retries as usize > 0, "{}", case.name);
    }
}

#[tokio::test]
async fn a_refusal_is_told_and_nothing_is_dropped() {
    for status in [401, 403, 404] {
        let influx = Influx::default();
        let (_server, config) = influx.start().await;
        let (sink, rejected) = connect(config).await;
        influx.answer_instead(usize::MAX, status, &[]);
        sink.write(rows(&[("a", 1, 1)])).await.unwrap();
        let error = sink.flush().await.unwrap_err();
        assert!(!error.retryable());
        let text = error.to_string();
        assert!(
            text.contains(&format!("status=`{status}`")) && text.contains("nothing is dropped"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
        // A writer hears of it as well, as soon as there is no room.
        let many: Vec<(&str, i64, i64)> = (0..40).map(|time| ("b", time, time)).collect();
        assert!(sink.write(rows(&many)).await.is_err());

        // Someone corrects it: the batches are still there.
        influx.bucket().instead = None;
        until(|| influx.points().iter().any(|point| point.starts_with("m,host=a"))).await;
        until(|| sink.delivery.refusal.borrow().is_none()).await;
        sink.write(rows(&many)).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(influx.points().len(), 41);
        assert!(rejected.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_correction_waits_for_the_version_under_way() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let delay = Duration::from_millis(200);
    influx.bucket().delay = delay;
    let (sink, _) = connect(InfluxConfig { in_flight: 4, ..config }).await;
    let version =
        |version| rows(&[("a", 1, version), ("a", 2, version), ("a", 3, version), ("a", 4, version)]);
    sink.write(version(1)).await.unwrap();
    // Other points need not wait.
    sink.write(rows(&[("b", 1, 1), ("b", 2, 1), ("b", 3, 1), ("b", 4, 1)])).await.unwrap();
    until(|| influx.bucket().posts.len() == 2).await;
    sink.write(version(2)).await.unwrap();
    // These replace each other before they are sent.
    sink.write(rows(&[("a", 1, 3)])).await.unwrap();
    sink.write(rows(&[("a", 1, 4)])).await.unwrap();
    sink.flush().await.unwrap();

    let posts: Vec<(Instant, usize)> = influx.bucket().posts.clone();
    assert_eq!(posts.iter().map(|(_, lines)| *lines).collect::<Vec<_>>(), [4, 4, 4, 1]);
    // The clock of the first post's answer starts when it arrives, so this holds on a slow machine
    // too.
    assert!(posts[2].0 - posts[0].0 >= delay, "the second version overtook the first");
    assert!(posts[3].0 - posts[2].0 >= delay, "the third version overtook the second");
    let hosts_a =
        influx.points().into_iter().filter(|point| point.starts_with("m,host=a")).collect::<Vec<_>>();
    assert_eq!(hosts_a, ["m,host=a 1 n=4i", "m,host=a 2 n=2i", "m,host=a 3 n=2i", "m,host=a 4 n=2i"]);
}

#[tokio::test]
async fn an_outage_makes_the_writer_wait_in_bounded_memory() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let (sink, _) = connect(config).await;
    influx.answer_instead(usize::MAX, 503, &[]);
    let sink = Arc::new(sink);
    let writer = tokio::spawn({
        let sink = sink.clone();
        async move {
            for time in 0..100 {
                sink.write(rows(&[("a", time, time)])).await.unwrap();
            }
            sink.flush().await.unwrap();
        }
    });
    until(|| sink.stats().retries > 20).await;
    assert!(!writer.is_finished());
    assert_eq!(sink.stats().in_flight, 2);
    influx.bucket().instead = None;
    writer.await.unwrap();
    assert_eq!(influx.points().len(), 100);
}

#[tokio::test]
async fn a_broken_connection_is_tried_again() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let (mut sink, _) = connect(config.clone()).await;
    // Deliveries now go to a port where connections are accepted and closed.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broken = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let client = Client::new(&InfluxConfig { url: broken.parse().unwrap(), ..config.clone() }).unwrap();
    sink.delivery = Arc::new(Delivery::new(client, &config, Arc::new(|line| panic!("rejected {line:?}"))));
    sink.write(rows(&[("a", 1, 1)])).await.unwrap();
    let sink = Arc::new(sink);
    let flushing = tokio::spawn({
        let sink = sink.clone();
        async move { sink.flush().await }
    });
    until(|| sink.stats().retries > 3).await;
    assert!(!flushing.is_finished());
    assert_eq!(sink.stats().lines, 0);
    flushing.abort();
}

#[tokio::test]
async fn without_the_permit_a_retry_is_not_sent() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let (sink, _) = connect(config).await;
    let asked = Arc::new(Lock::new(0));
    let counted = asked.clone();
    // Twice yes, then the owner is another one.
    sink.only_while(Arc::new(move || {
        let mut asked = counted.lock().unwrap();
        *asked += 1;
        *asked <= 2
    }));
    influx.answer_instead(2, 503, &[]);
    sink.write(rows(&[("a", 1, 1)])).await.unwrap();
    let sink = Arc::new(sink);
    let flushing = tokio::spawn({
        let sink = sink.clone();
        async move { sink.flush().await }
    });
    until(|| *asked.lock().unwrap() == 3).await;
    assert_eq!(influx.points(), [""; 0], "the server would have taken the third request");
    assert!(influx.bucket().instead.is_none(), "both refusals were given");
    assert!(!flushing.is_finished());
    flushing.abort();
}

#[tokio::test]
async fn withdrawn_rows_are_deleted_between_older_and_newer_writes() {
    let influx = Influx::default();
    let (_server, config) = influx.start().await;
    let (sink, rejected) = connect(config).await;
    sink.write(rows(&[("a", 60_000_000_000, 1)])).await.unwrap();
    let withdrawn = rows(&[("a", 60_000_000_000, 0), ("", 7, 0)]).rows;
    influx.answer_instead(2, 503, &[]);
    sink.write(RollupRows { withdrawn: Some(withdrawn), ..rows(&[("b", 1, 1)]) }).await.unwrap();
    assert_eq!(influx.points(), ["m,host=a 60000000000 n=1i"], "older lines are written before the delete");
    assert_eq!(
        influx.bucket().deletes,
        [json!({
            "start": "1970-01-01T00:01:00Z",
            "stop": "1970-01-01T00:01:00Z",
            "predicate": r#"_measurement="m" AND "host"="a""#,
        })]
    );
    let stats = sink.stats();
    assert_eq!((stats.deleted, stats.rejected), (1, 1));
    let line = rejected.lock().unwrap().remove(0);
    assert_eq!(line.line, "m 7");
    assert!(line.reason.contains("without tag `host`"), "{}", line.reason);
    sink.flush().await.unwrap();
    assert_eq!(influx.points().len(), 2);
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    for (url, batch_lines, expected) in [
        ("ftp://h", 1, "http:// or https://"),
        ("http://user:secret@h", 1, "must not hold a user"),
        ("http://h", 0, "at least 1"),
    ] {
        let config = InfluxConfig {
            batch_lines,
            ..InfluxConfig::new(url.parse().unwrap(), "o", "b", "t".to_owned().into())
        };
        let error = InfluxSink::connect(config, Arc::new(|_| ())).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    }
}
