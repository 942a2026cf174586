//! Answers of a server, whole, cut, wrong and large.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
use secrecy::SecretString;
use serde_json::Value as Json;
use url::Url;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;

const ANSWER: &str = "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339Nano,double,string,string,string\r
,result,table,_start,_stop,_time,_value,_field,_measurement,host\r
,_result,0,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,2026-01-01T00:01:00.000000001Z,1.5,avg,cpu,a\r
,_result,0,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,2026-01-01T00:02:00Z,-2e-7,avg,cpu,a\r
\r
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339Nano,long,string,string,string,string\r
,result,table,_start,_stop,_time,_value,_field,_measurement,host,\"a,b\"\r
,_result,1,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,2026-01-01T00:01:00.000000001Z,7,n,cpu,a,\r
,_result,2,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,2026-01-01T00:01:00Z,8,n,cpu,\"x \"\"y\"\"\",z\r
\r
";
const MINUTE: i64 = 60_000_000_000;
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

fn key(time: i64, tags: &[(&str, &str)]) -> RowKey {
    RowKey {
        time,
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

fn table() -> Table {
    let rollup = "c\"pu${".to_owned();
    Table { name: "t".into(), rollup, is_finest: true, tags: vec![1], fields: vec![2, 3], ..Table::default() }
}

#[test]
fn tables_of_different_columns_are_united_by_key() {
    let mut rows = BTreeMap::new();
    parse(ANSWER.as_bytes(), &mut rows).unwrap();
    let field = |name: &str, value| (name.to_owned(), value);
    let expected = BTreeMap::from([
        (
            key(NEW_YEAR + MINUTE, &[("host", "x \"y\""), ("a,b", "z")]),
            Fields::from([field("n", Value::Int(8))]),
        ),
        (
            key(NEW_YEAR + MINUTE + 1, &[("host", "a")]),
            Fields::from([field("avg", Value::Float(1.5)), field("n", Value::Int(7))]),
        ),
        (key(NEW_YEAR + 2 * MINUTE, &[("host", "a")]), Fields::from([field("avg", Value::Float(-2e-7))])),
    ]);
    assert_eq!(rows, expected);
}

#[test]
fn no_answer_makes_the_parser_panic() {
    for end in 0..ANSWER.len() {
        if ANSWER.is_char_boundary(end) {
            let _ = parse(&ANSWER.as_bytes()[..end], &mut BTreeMap::new());
            let _ = parse(&ANSWER.as_bytes()[end..], &mut BTreeMap::new());
        }
    }
    for (answer, reason) in [
        ("#datatype,string,string\r\n,error,reference\r\n,out of memory,897\r\n", "out of memory"),
        (&ANSWER.replace("1.5", "one"), "`one` is no double"),
        (&ANSWER.replace("2026-01-01T00:02:00Z", "noon"), "without time"),
        (&ANSWER.replace("-2e-7,", ""), "9 cells under 10 names"),
    ] {
        let error = parse(answer.as_bytes(), &mut BTreeMap::new()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn rows_of_a_batch_are_as_line_protocol_writes_them() {
    let columns: [(&str, ArrayRef); 4] = [
        ("w", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3]))),
        ("host", Arc::new(StringArray::from(vec![Some("a\\"), None, Some("")]))),
        ("a\\vg", Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), None]))),
        ("n", Arc::new(Int64Array::from(vec![None, Some(3), None]))),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let rows = stored_rows(&table(), &batch).unwrap();
    let expected = [
        Some((key(1, &[("host", "a\\ ")]), Fields::from([("a_vg".to_owned(), Value::Float(1.0))]))),
        Some((key(2, &[]), Fields::from([("n".to_owned(), Value::Int(3))]))),
        None,
    ];
    assert_eq!(rows, expected);
}

async fn reader(server: &MockServer) -> InfluxReader {
    let token = SecretString::from("t0ken");
    let config = InfluxConfig::new(Url::parse(&server.uri()).unwrap(), "o rg", "b", token);
    let hourly = Bucket { name: "b_1h".into(), retention: None };
    InfluxReader::new(&config, BTreeMap::from([("1h".into(), hourly)])).unwrap()
}

#[tokio::test]
async fn a_query_names_bucket_range_and_measurement() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(503).set_body_string(r#"{"message":"starting"}"#);
    Mock::given(method("POST")).respond_with(busy).up_to_n_times(1).with_priority(1).mount(&server).await;
    Mock::given(method("POST"))
        .and(path("/api/v2/query"))
        .and(query_param("org", "o rg"))
        .and(header("authorization", "Token t0ken"))
        .respond_with(ResponseTemplate::new(200).set_body_string(ANSWER))
        .mount(&server)
        .await;
    let rows = reader(&server).await.rows(&table(), NEW_YEAR, NEW_YEAR + MINUTE).await.unwrap();
    assert_eq!(rows.len(), 3, "a server that is busy is asked again");
    let hourly = Table { is_finest: false, tier: "1h".into(), ..table() };
    reader(&server).await.rows(&hourly, 0, 1).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let asked = |index: usize| -> Json {
        let body: Json = serde_json::from_slice(&requests[index].body).unwrap();
        body["query"].clone()
    };
    assert!(asked(2).as_str().unwrap().starts_with("from(bucket: \"b_1h\")"));
    assert_eq!(
        asked(1),
        "from(bucket: \"b\") |> range(start: 2026-01-01T00:00:00Z, stop: 2026-01-01T00:01:00Z) \
         |> filter(fn: (r) => r._measurement == \"c\\\"pu\\${\")"
    );
}

#[tokio::test]
async fn an_answer_larger_than_a_page_is_asked_for_in_halves() {
    let server = MockServer::start().await;
    let large = vec![b'x'; PAGE + 1];
    let respond = move |request: &Request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let whole =
            body.contains("start: 2026-01-01T00:00:00Z") && body.contains("stop: 2026-01-01T00:01:00Z");
        let answer = if whole { large.clone() } else { ANSWER.into() };
        ResponseTemplate::new(200).set_body_bytes(answer)
    };
    Mock::given(method("POST")).respond_with(respond).mount(&server).await;
    let rows = reader(&server).await.rows(&table(), NEW_YEAR, NEW_YEAR + MINUTE).await.unwrap();
    assert_eq!((rows.len(), server.received_requests().await.unwrap().len()), (3, 3));
}

#[tokio::test]
async fn refusals_say_why() {
    let server = MockServer::start().await;
    let answer =
        ResponseTemplate::new(404).set_body_string(r#"{"code":"not found","message":"no bucket b"}"#);
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let error = reader(&server).await.rows(&table(), 0, 1).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("no bucket b"), "{error}");
}
