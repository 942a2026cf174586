//! How late results and notifications are while points come in at a steady rate, as they are sent:
//! from the end of a window by the wall clock until InfluxDB has acknowledged its rows, and until
//! the receiver of a webhook, or a mail server, has the alert.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use flate2::read::GzDecoder;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::serving::Serving;
use tidemark_tests::smtp::{Delivery, Security, Smtp};
use tidemark_tests::tidemark::Tidemark;

use crate::load::bar;
use crate::report::{Latency, Percentiles};

const PARTITIONS: usize = 4;
const HOSTS: usize = 10_000;
const REGIONS: usize = 8;
/// Of the rollup, in nanoseconds: short, so that a run has many ends of windows.
const WINDOW: i64 = 10_000_000_000;
/// As configured: `max_out_of_orderness`.
const DISORDER: Duration = Duration::from_secs(1);
/// The hosts that change between the two states of the rule with every window.
const ALERTING: usize = 100;
const BODY: usize = 64 << 20;
/// After the last point, for its window to come through.
const PATIENCE: Duration = Duration::from_secs(60);
/// Points are sent in portions of so much time.
const TICK: Duration = Duration::from_millis(20);

const ROLLUP: &str = "CREATE MATERIALIZED VIEW bench AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS points, avg(value) AS avg, max(value) AS max, min(value) AS min
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3
";

/// What arrived: how long after the end of its window, in milliseconds.
#[derive(Debug, Default)]
struct Arrivals {
    rows: Vec<f64>,
    notifications: Vec<f64>,
    /// Windows that start earlier are not whole.
    first_window: i64,
}

type Shared = Arc<Mutex<Arrivals>>;

/// Sends `rate` points a second for `length`, each with the time at which it is sent; fewer when
/// the machine cannot send so fast, which the result says.
pub(crate) fn measure(
    kafka: &Kafka,
    influx: &Influx,
    rate: usize,
    length: Duration,
) -> Result<Latency, Unavailable> {
    let arrivals = Shared::default();
    let proxy =
        Serving::start(Router::new().fallback(pass_on).layer(DefaultBodyLimit::max(BODY)).with_state((
            influx.url(),
            reqwest::Client::new(),
            Arc::clone(&arrivals),
        )));
    let receiver = Serving::start(Router::new().fallback(notified).with_state(Arc::clone(&arrivals)));
    let smtp = Smtp::start(Security::StartTls);
    let topic = kafka.unique_topic("latency", PARTITIONS);
    let mut tidemark = Tidemark::new(&config(kafka, influx, &proxy.url(), &topic))?;
    tidemark.write("sql/bench.sql", ROLLUP);
    tidemark.write("alerts.toml", &rules(&receiver.url(), &smtp));
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    arrivals.lock().unwrap().first_window = (now() / WINDOW + 1) * WINDOW;
    let Sent { rate: sent, newest } = send(kafka, &topic, rate, length);
    // Event time stands at the newest points less the disorder, until all partitions are idle: a
    // window that it has not passed stays open, and is not waited for.
    let reached = newest - i64::try_from(DISORDER.as_nanos()).unwrap();
    let last_window = reached / WINDOW * WINDOW - WINDOW;
    let windows = (last_window - arrivals.lock().unwrap().first_window) / WINDOW + 1;
    let rows = usize::try_from(windows).unwrap() * HOSTS;
    tidemark.wait_until(PATIENCE, &format!("{rows} rows"), || {
        let arrived = arrivals.lock().unwrap().rows.len();
        if arrived >= rows { Ok(()) } else { Err(format!("{arrived}")) }
    });
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let mut arrived = arrivals.lock().unwrap();
    let first = arrived.first_window;
    let mut mails: Vec<f64> = smtp.deliveries().iter().filter_map(|mail| since_end_of(mail, first)).collect();
    Ok(Latency {
        rate: sent,
        disorder: DISORDER,
        rows: Percentiles::of(&mut arrived.rows),
        notifications: Percentiles::of(&mut arrived.notifications),
        mails: Percentiles::of(&mut mails),
    })
}

struct Sent {
    /// The rate that was reached.
    rate: f64,
    /// Every partition has a point that is as new as this, in nanoseconds.
    newest: i64,
}

fn send(kafka: &Kafka, topic: &str, rate: usize, length: Duration) -> Sent {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "500000")
        .set("queue.buffering.max.messages", "2000000")
        .create()
        .unwrap();
    let heads: Vec<String> = (0..HOSTS)
        .map(|host| {
            let region = host % REGIONS;
            format!(
                r#"{{"name":"cpu.load","labels":{{"host":"host-{host:05}","region":"region-{region}"}},"ts":"#
            )
        })
        .collect();
    let bar = bar(usize::try_from(length.as_secs()).unwrap() * rate, "sending");
    let started = Instant::now();
    let mut sent: usize = 0;
    let mut text = String::new();
    let mut newest = [0; PARTITIONS];
    while started.elapsed() < length {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as usize;
        let time = now() / 1_000_000;
        let is_odd = time * 1_000_000 / WINDOW % 2 == 1;
        while sent < due {
            let host = sent % HOSTS;
            let value = if host < ALERTING && is_odd { 100 } else { sent % 50 };
            text.clear();
            text.push_str(&heads[host]);
            text.push_str(&format!("{time},\"value\":{value}}}"));
            let partition = host % PARTITIONS;
            newest[partition] = time * 1_000_000;
            let partition = i32::try_from(partition).unwrap();
            let mut record = BaseRecord::<(), str>::to(topic).partition(partition).payload(&text);
            while let Err((error, unsent)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(TICK);
                record = unsent;
            }
            sent += 1;
        }
        bar.set_position(sent as u64);
        producer.poll(Duration::ZERO);
        thread::park_timeout(TICK);
    }
    let took = started.elapsed();
    producer.flush(PATIENCE).unwrap();
    bar.finish_and_clear();
    Sent { rate: sent as f64 / took.as_secs_f64(), newest: newest.into_iter().min().unwrap_or_default() }
}

/// Hands a request to the real server, and notes what it acknowledged.
async fn pass_on(
    State((upstream, client, arrivals)): State<(String, reqwest::Client, Shared)>,
    method: axum::http::Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = client.request(method, format!("{upstream}{path}")).body(body.clone());
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host" && *name != "content-length") {
        request = request.header(name, value);
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let arrived = now();
    if status.is_success() && uri.path() == "/api/v2/write" {
        let mut text = String::new();
        if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8_lossy(&body).into_owned();
        }
        let times = text.lines().filter_map(|line| line.rsplit_once(' ')?.1.parse::<i64>().ok());
        let mut arrivals = arrivals.lock().unwrap();
        let first = arrivals.first_window;
        arrivals.rows.extend(times.filter(|time| *time >= first).map(|time| since_end(arrived, time)));
    }
    (status, answer.bytes().await.unwrap_or_default()).into_response()
}

/// The summary of the rule's alerts is the start of their window.
async fn notified(State(arrivals): State<Shared>, body: Bytes) -> StatusCode {
    let arrived = now();
    let alert: Value = serde_json::from_slice(&body).expect("the payload is JSON");
    let window = alert["commonAnnotations"]["summary"].as_str().expect("there is a summary");
    let window = DateTime::parse_from_rfc3339(window).expect("a time").timestamp_nanos_opt().unwrap();
    let mut arrivals = arrivals.lock().unwrap();
    if window >= arrivals.first_window {
        arrivals.notifications.push(since_end(arrived, window));
    }
    StatusCode::OK
}

/// Milliseconds until a mail was taken; its subject ends with the start of the window.
fn since_end_of(mail: &Delivery, first_window: i64) -> Option<f64> {
    let window = mail.mail.header("Subject").rsplit(' ').next()?;
    let window = DateTime::parse_from_rfc3339(window).ok()?.timestamp_nanos_opt()?;
    let taken = i64::try_from(mail.taken_at.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?;
    (window >= first_window).then(|| since_end(taken, window))
}

/// Milliseconds from the end of a window to an instant.
fn since_end(at: i64, window: i64) -> f64 {
    (at - window - WINDOW) as f64 / 1e6
}

#[expect(clippy::disallowed_methods, reason = "points of the present are sent")]
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn rules(receiver: &str, smtp: &Smtp) -> String {
    let (port, ca) = (smtp.port(), smtp.ca_pem().display().to_string());
    format!(
        r#"
[[rule]]
name = "high"
rollup = "bench"
condition = "max > 90"
summary = "{{{{ window_start }}}}"
receivers = ["hook", "mail"]

[[receiver]]
name = "hook"
[receiver.webhook]
url = "{receiver}"
# The receiver is on this machine.
allow_private = true

[[receiver]]
name = "mail"
[receiver.email]
host = "127.0.0.1"
port = {port}
from = "tidemark@example.org"
to = ["oncall@example.org"]
ca_file = "{ca}"
"#
    )
}

fn config(kafka: &Kafka, influx: &Influx, url: &str, topic: &str) -> String {
    let brokers = kafka.brokers();
    let (org, bucket, token) = (influx.org(), influx.bucket(), influx.token());
    let disorder = DISORDER.as_secs();
    format!(
        r#"
[kafka]
brokers = ["{brokers}"]

[topics]
points = ["{topic}"]
partials = "{topic}-partials"
dead_letter = "{topic}-dead-letter"
late = "{topic}-late"
alerts = "{topic}-alerts"

[ingest]
group = "{topic}-ingest"
max_out_of_orderness = "{disorder}s"

[rollup]
group = "{topic}-rollup"

[alerts]
rules = "alerts.toml"

[influx]
url = "{url}"
org = "{org}"
bucket = "{bucket}"
token = "{token}"
"#
    )
}
