//! What messages decode to: tables of cases, round trips, and arbitrary bytes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: i64 = 1_700_000_000_000_000_000;
const MESSAGE_TIME: i64 = NOW - 1_000_000_000;

#[derive(Clone, Debug, PartialEq)]
struct Point {
    name: String,
    labels: BTreeMap<String, String>,
    time: i64,
    value: f64,
}

#[derive(Debug)]
struct Result {
    points: Vec<Point>,
    rejected: Vec<Rejection>,
    heartbeat: Option<i64>,
}

fn decode_as(format: Format, payload: &[u8]) -> Result {
    let options = DecodeOptions { format, max_message_bytes: 1 << 20, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(options, vec![]);
    let mut rejected = Vec::new();
    let (mut first, mut second) = (Points::default(), Points::default());
    let decoded = decoder.decode(payload, Some(MESSAGE_TIME), NOW, &mut first, &mut rejected);
    assert_eq!(decoded.points, first.len());

    // A second time all series are known by their raw bytes, and the outcome is the same.
    let known = decoder.series().len();
    let mut again = Vec::new();
    assert_eq!(decoder.decode(payload, Some(MESSAGE_TIME), NOW, &mut second, &mut again), decoded);
    assert_eq!(again, rejected);
    assert_eq!(decoder.series().len(), known);
    assert_eq!((&first.series, &first.time, &first.value), (&second.series, &second.time, &second.value));

    let mut points = Vec::new();
    for row in 0..first.len() {
        let series = decoder.series().get(first.series[row]);
        points.push(Point {
            name: series.name.to_owned(),
            labels: series.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            time: first.time[row],
            value: first.value[row],
        });
    }
    Result { points, rejected, heartbeat: decoded.heartbeat }
}

/// Points as `name{key=value,…}@seconds=value`, rejections as `place: reason`, apart by ` | `. The
/// time is left out when it is the message's.
fn summary(result: &Result) -> String {
    let mut parts = Vec::new();
    for point in &result.points {
        let labels: Vec<String> = point.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let time = match point.time {
            MESSAGE_TIME => String::new(),
            time => format!("@{}", time as f64 / 1e9),
        };
        parts.push(format!("{}{{{}}}{time}={}", point.name, labels.join(","), point.value));
    }
    for rejection in &result.rejected {
        let count = if rejection.count == 1 { String::new() } else { format!(" ×{}", rejection.count) };
        parts.push(format!("{}: {}{count}", rejection.place, rejection.reason));
    }
    parts.extend(result.heartbeat.map(|time| format!("heartbeat@{}", time as f64 / 1e9)));
    parts.join(" | ")
}

fn check(cases: &[(&str, &str)]) {
    for (payload, expected) in cases {
        assert_eq!(summary(&decode_as(Format::Auto, payload.as_bytes())), *expected, "payload {payload}");
    }
}

#[test]
fn json_points() {
    check(&[
        // Forms of a message.
        (r#"{"name":"a","value":1}"#, "a{}=1"),
        (
            r#"{"name":"a","labels":{"h":"1","r":"eu"},"ts":1600000000,"value":0.5}"#,
            "a{h=1,r=eu}@1600000000=0.5",
        ),
        ("\u{feff} {\n  \"name\": \"a\",\n  \"value\": 1\n}\n", "a{}=1"),
        (r#"[{"name":"a","value":1}, {"name":"b","value":2}]"#, "a{}=1 | b{}=2"),
        ("{\"name\":\"a\",\"value\":1}\r\n\n{\"name\":\"b\",\"value\":2}\n", "a{}=1 | b{}=2"),
        ("{\"name\":\"a\",\"value\":1}{\"name\":\"b\",\"value\":2}", "a{}=1 | b{}=2"),
        ("[{\"name\":\"a\",\"value\":1}]\n[{\"name\":\"b\",\"value\":2}]", "a{}=1 | b{}=2"),
        ("[]", ""),
        ("", ""),
        (" \r\n\t", ""),
        // Times.
        (r#"{"name":"a","ts":null,"value":1}"#, "a{}=1"),
        (r#"{"name":"a","ts":"1600000000","value":1}"#, "a{}@1600000000=1"),
        (r#"{"name":"a","ts":1600000000.5,"value":1}"#, "a{}@1600000000.5=1"),
        (r#"{"name":"a","ts":"2020-09-13T12:26:40Z","value":1}"#, "a{}@1600000000=1"),
        (r#"{"name":"a","ts":1700000300,"value":1}"#, "a{}@1700000300=1"),
        (r#"{"name":"a","ts":1700000301,"value":1}"#, "line 1: future_timestamp"),
        (r#"{"name":"a","ts":1700000000000000,"value":1}"#, "a{}@1700000000=1"),
        (r#"{"name":"a","ts":0,"value":1}"#, "line 1: timestamp_too_old"),
        (r#"{"name":"a","ts":-1,"value":1}"#, "line 1: timestamp_too_old"),
        (r#"{"name":"a","ts":1e30,"value":1}"#, "line 1: bad_timestamp"),
        (r#"{"name":"a","ts":"yesterday","value":1}"#, "line 1: bad_timestamp"),
        (r#"{"name":"a","ts":[1],"value":1}"#, "line 1: bad_timestamp"),
        (r#"{"name":"a","ts":true,"value":1}"#, "line 1: bad_timestamp"),
        // Values.
        (r#"{"name":"a","value":-1.5e3}"#, "a{}=-1500"),
        (r#"{"name":"a","value":true}"#, "a{}=1"),
        (r#"{"name":"a","value":false}"#, "a{}=0"),
        (r#"{"name":"a","value":1e-400}"#, "a{}=0"),
        (r#"{"name":"a","value":123456789012345678901234567890}"#, "a{}=123456789012345680000000000000"),
        (r#"{"name":"a","value":1e400}"#, "line 1: not_finite"),
        (r#"{"name":"a","value":NaN}"#, "line 1: not_finite"),
        (r#"{"name":"a","value":-Infinity}"#, "line 1: not_finite"),
        (r#"{"name":"a","value":"1"}"#, "line 1: bad_value"),
        (r#"{"name":"a","value":01}"#, "line 1: bad_value"),
        (r#"{"name":"a","value":{}}"#, "line 1: bad_value"),
        (r#"{"name":"a","value":null}"#, "line 1: missing_value"),
        (r#"{"name":"a"}"#, "line 1: missing_value"),
        // Names.
        (r#"{"value":1}"#, "line 1: bad_name"),
        (r#"{"name":"","value":1}"#, "line 1: bad_name"),
        (r#"{"name":1,"value":1}"#, "line 1: bad_name"),
        (r#"{"name":null,"value":1}"#, "line 1: bad_name"),
        (r#"{"na\u006de":"\u00e4\n","value":1}"#, "ä\n{}=1"),
        (r#"{"name":"\ud800","value":1}"#, "line 1: syntax"),
        // Labels.
        (r#"{"name":"a","labels":null,"value":1}"#, "a{}=1"),
        (r#"{"name":"a","labels":{ },"value":1}"#, "a{}=1"),
        (
            r#"{"name":"a","labels":{"port":8080,"up":true,"x":null,"y":""},"value":1}"#,
            "a{port=8080,up=true}=1",
        ),
        (r#"{"name":"a","labels":{"":"x"},"value":1}"#, "line 1: bad_label"),
        (r#"{"name":"a","labels":{"x":[]},"value":1}"#, "line 1: bad_label"),
        (r#"{"name":"a","labels":{"x":NaN},"value":1}"#, "line 1: bad_label"),
        (r#"{"name":"a","labels":"x","value":1}"#, "line 1: bad_label"),
        (r#"{"name":"a","labels":{"x":"1" "y":"2"},"value":1}"#, "line 1: syntax"),
        (r#"{"name":"a","labels":{"x":"1","x":"1"},"value":1}"#, "line 1: duplicate_key"),
        // Other keys.
        (r#"{"name":"a","unit":{"x":[1,null]},"value":1}"#, "a{}=1"),
        (r#"{"name":"a","value":1,"value":1}"#, "line 1: duplicate_key"),
        (r#"{"name":"a","value":1,"v\u0061lue":2}"#, "line 1: duplicate_key"),
        // Heartbeats.
        (r#"{"heartbeat":1600000000}"#, "heartbeat@1600000000"),
        ("{\"heartbeat\":1600000000}\n{\"heartbeat\":1500000000}", "heartbeat@1600000000"),
        (r#"[{"heartbeat":1600000000},{"name":"a","value":1}]"#, "a{}=1 | heartbeat@1600000000"),
        (r#"{"heartbeat":"soon"}"#, "line 1: bad_timestamp"),
        (r#"{"heartbeat":1800000000}"#, "line 1: future_timestamp"),
        (r#"{"heartbeat":1600000000,"name":"a","value":1}"#, "a{}=1"),
    ]);
}

#[test]
fn a_bad_json_point_costs_no_neighbour() {
    let deep = format!("{{\"name\":\"a\",\"value\":{}}}", "[".repeat(100_000));
    check(&[
        (
            r#"[{"name":"a","value":1},{"name":"b"},3,null,[{}],{"name":"c","value":3}]"#,
            "a{}=1 | c{}=3 | line 1, element 2: missing_value | line 1, element 3: not_a_point | \
          line 1, element 4: not_a_point | line 1, element 5: not_a_point",
        ),
        (r#"[{"name":"a","value":NaN},{"name":"b","value":2}]"#, "b{}=2 | line 1, element 1: not_finite"),
        // A broken array ends at the break.
        (
            r#"[{"name":"a","value":1},{"name":"b" "value":2},{"name":"c","value":3}]"#,
            "a{}=1 | line 1, element 2: syntax",
        ),
        (r#"[{"name":"a","value":1}"#, "a{}=1 | line 1, element 2: syntax"),
        (r#"[{"name":"a","value":1},"#, "a{}=1 | line 1, element 2: syntax"),
        ("[", "line 1, element 1: syntax"),
        // A broken line ends at the line feed.
        ("{\"name\":\"a\n{\"name\":\"b\",\"value\":2}", "b{}=2 | line 1: syntax"),
        ("{\"name\":\"a\",\"value\":1\n{\"name\":\"b\",\"value\":2}", "b{}=2 | line 1: syntax"),
        (
            "{\"name\":\"a\",\"value\":1}\noops\n\n{\"name\":\"b\",\"value\":2}\n{",
            "a{}=1 | b{}=2 | line 2: syntax | line 5: syntax",
        ),
        ("{\"name\":\"a\",\"value\":1} }", "a{}=1 | line 1: syntax"),
        ("{\"x\":[\n{\"name\":\"b\",\"value\":2}", "b{}=2 | line 1: syntax"),
        (&deep, "line 1: too_deep"),
        (&format!("{deep}\n{{\"name\":\"b\",\"value\":2}}"), "b{}=2 | line 1: too_deep"),
    ]);
}

#[test]
fn line_protocol_points() {
    check(&[
        ("cpu value=1", "cpu{}=1"),
        ("cpu,host=a,region=eu load=0.5 1600000000000000000", "cpu.load{host=a,region=eu}@1600000000=0.5"),
        ("cpu,host=a load=1,value=2", "cpu.load{host=a}=1 | cpu{host=a}=2"),
        (
            "  cpu   value=1   1600000000000000000  \r\n# a comment\n\n\r\nmem value=2\r\n",
            "cpu{}@1600000000=1 | mem{}=2",
        ),
        ("# nothing", ""),
        // Values.
        (
            "m a=1i,b=-2i,c=3u,d=1.,e=.5,f=+1e3",
            "m.a{}=1 | m.b{}=-2 | m.c{}=3 | m.d{}=1 | m.e{}=0.5 | m.f{}=1000",
        ),
        ("m a=t,b=T,c=true,d=True,e=TRUE", "m.a{}=1 | m.b{}=1 | m.c{}=1 | m.d{}=1 | m.e{}=1"),
        ("m a=f,b=F,c=false,d=False,e=FALSE", "m.a{}=0 | m.b{}=0 | m.c{}=0 | m.d{}=0 | m.e{}=0"),
        (
            "m a=NaN,b=-inf,c=1e400,d=2",
            "m.d{}=2 | line 1, field a: not_finite | line 1, field b: not_finite | line 1, field c: not_finite",
        ),
        (
            "m a=-1u,b=9223372036854775808i,c=tRUE,d=1x,e=2",
            "m.e{}=2 | line 1, field a: bad_value | \
          line 1, field b: bad_value | line 1, field c: bad_value | line 1, field d: bad_value",
        ),
        // Strings.
        (
            "m a=\"x, y=1 \\\"z\\\" \\\\\",b=1 1600000000000000000",
            "m.b{}@1600000000=1 | line 1, field a: string_value",
        ),
        ("m a=\"two\nlines\",b=1\nm c=2", "m.b{}=1 | m.c{}=2 | line 1, field a: string_value"),
        ("m a=\"open\nm c=2", "m.c{}=2 | line 1: syntax"),
        ("m a=\"x\"y\nm c=2", "m.c{}=2 | line 1: syntax"),
        // Escapes.
        (r"my\ cpu\,x,ho\=st=a\ b\,c\=d used\ idle\=x=1", "my cpu,x.used idle=x{ho=st=a b,c=d}=1"),
        (r"c:\temp,path=C:\dir\x value=1", r"c:\temp{path=C:\dir\x}=1"),
        (r"a\\ b value=1", r"a\ b{}=1"),
        ("a=b value=1", "a=b{}=1"),
        ("größe,ort=köln value=1", "größe{ort=köln}=1"),
        // Tags.
        ("m,a=,b=x value=1", "m{b=x}=1"),
        ("m,b=1,a=2 value=1\nm,a=2,b=1 value=2", "m{a=2,b=1}=1 | m{a=2,b=1}=2"),
        ("m,a=1,a=2 value=1", "line 1: duplicate_key"),
        // Fields.
        ("m a=1,a=2", "line 1, field a: duplicate_key | line 1, field a: duplicate_key"),
        (
            "m,h=x b=3,a=1,value=4,a=\"text\"\nm a=5",
            "m.b{h=x}=3 | m{h=x}=4 | m.a{}=5 | line 1, field a: duplicate_key | line 1, field a: duplicate_key",
        ),
        (
            r"m a\ b=1,a=2,a\ b=3 1600000000000000000",
            r"m.a{}@1600000000=2 | line 1, field a\\ b: duplicate_key | line 1, field a\\ b: duplicate_key",
        ),
        ("m,=1 value=1", "line 1: bad_label"),
        ("m,a value=1", "line 1: syntax"),
        ("m,a=b=c value=1", "line 1: syntax"),
        ("m, value=1", "line 1: syntax"),
        (",a=b value=1,x=2", "line 1: bad_name ×2"),
        // Times.
        ("m value=1 0", "line 1: timestamp_too_old"),
        ("m a=1,b=2 1700000000\nm value=3", "m{}=3 | line 1: timestamp_too_old ×2"),
        ("m value=1 1700000300000000001", "line 1: future_timestamp"),
        ("m value=1 1.5", "line 1: bad_timestamp"),
        ("m value=1 99999999999999999999", "line 1: bad_timestamp"),
        // Syntax.
        ("m", "line 1: syntax"),
        ("m value", "line 1: syntax"),
        ("m value=", "line 1: syntax"),
        ("m =1", "line 1: syntax"),
        ("m a=1,,b=2", "line 1: syntax"),
        ("m a=1, b=2", "line 1: syntax"),
        ("m value=1 1600000000000000000 x", "line 1: syntax"),
        ("m\nn value=1\no value", "n{}=1 | line 1: syntax | line 3: syntax"),
    ]);
}

#[test]
fn a_field_given_twice_among_many_is_found() {
    let fields: Vec<String> = (0..40).map(|number| format!("f{}={number}", number % 38)).collect();
    let result = decode_as(Format::Auto, format!("m {}", fields.join(",")).as_bytes());
    assert_eq!(result.points.len(), 36);
    let places: Vec<&str> = result.rejected.iter().map(|rejection| rejection.place.as_str()).collect();
    assert_eq!(places, ["line 1, field f0", "line 1, field f1", "line 1, field f0", "line 1, field f1"]);
    assert!(result.rejected.iter().all(|rejection| rejection.reason == Reason::DuplicateKey));
}

#[test]
fn equal_series_are_one_however_written() {
    let mut decoder = Decoder::new(DecodeOptions::default(), vec!["host".into()]);
    let (mut points, mut rejected) = (Points::default(), Vec::new());
    for payload in [
        r#"{"name":"cpu.load","labels":{"host":"a","region":"eu"},"value":1}"#,
        r#"{"labels":{"region":"eu", "host":"a", "zone":""}, "value":1, "name":"cpu.load"}"#,
        r#"{"name":"cpu.\u006coad","labels":{"host":"\u0061","region":"eu"},"value":1}"#,
        "cpu,host=a,region=eu load=1",
        "cpu,region=eu,host=a x=0,load=1",
        "cpu.load,region=eu,host=a value=1",
    ] {
        decoder.decode(payload.as_bytes(), Some(NOW), NOW, &mut points, &mut rejected);
    }
    assert_eq!(rejected, []);
    assert_eq!(points.series, [0, 0, 0, 0, 1, 0, 0]);
    let (names, labels) = decoder.series().columns(&points.series);
    assert_eq!(names.value(6), "cpu.load");
    assert_eq!(labels[0].value(6), "a");
}

#[test]
fn spellings_of_the_two_formats_are_told_apart() {
    // Without care for the difference, both would be known by the same bytes.
    let mut decoder = Decoder::new(DecodeOptions::default(), vec![]);
    let (mut points, mut rejected) = (Points::default(), Vec::new());
    let json = r#"{"name":"a","labels":{"b": "x"},"value":1}"#;
    decoder.decode(json.as_bytes(), Some(NOW), NOW, &mut points, &mut rejected);
    decoder.decode(br#""a"{"b": "x"}=1"#, Some(NOW), NOW, &mut points, &mut rejected);
    assert_eq!((points.len(), rejected.len()), (2, 0));
    assert_eq!(decoder.series().get(points.series[1]).name, r#""a"{"b":."x"}"#);
}

#[test]
fn bytes_that_are_no_utf8() {
    let cases: &[(&[u8], &str)] = &[
        (b"{\"name\":\"\xff\",\"value\":1}\n{\"name\":\"b\",\"value\":2}", "b{}=2 | line 1: invalid_utf8"),
        (
            b"[{\"name\":\"a\",\"labels\":{\"x\":\"\xc3\"},\"value\":1},{\"name\":\"b\",\"value\":2}]",
            "b{}=2 | line 1, element 1: invalid_utf8",
        ),
        (b"{\"name\":\"a\",\"note\":\"\xff\",\"value\":1}", "a{}=1"),
        (b"m\xff value=1\nn value=2", "n{}=2 | line 1: invalid_utf8"),
        (b"m \xff=1\nn value=\xff", "line 1: invalid_utf8 | line 2, field value: bad_value"),
        (b"\x00\x01\x02", "line 1: syntax"),
    ];
    for (payload, expected) in cases {
        assert_eq!(
            summary(&decode_as(Format::Auto, payload)),
            *expected,
            "payload {}",
            payload.escape_ascii()
        );
    }
}

#[test]
fn formats_can_be_forced() {
    let cases = [
        (Format::LineProtocol, "{m} value=1", "{m}{}=1"),
        (Format::Json, "m value=1", "line 1: syntax"),
        (Format::Json, "{\"name\":\"a\",\"value\":1}", "a{}=1"),
    ];
    for (format, payload, expected) in cases {
        assert_eq!(summary(&decode_as(format, payload.as_bytes())), expected);
    }
}

#[test]
fn refused_points_keep_their_bytes() {
    let bad = r#"{"name":"a","value":"x"}"#;
    let good = r#"{"name":"a","value":1}"#;
    let rejected = decode_as(Format::Auto, format!("[{good},{bad} ,{good}]").as_bytes()).rejected;
    assert_eq!(rejected[0].excerpt, bad.as_bytes());
    let rejected = decode_as(Format::Auto, format!("{good}\n{bad}\n{good}").as_bytes()).rejected;
    assert_eq!((rejected[0].excerpt.as_slice(), rejected[0].place.as_str()), (bad.as_bytes(), "line 2"));
    assert!(rejected[0].detail.contains("found=`\\\"x\\\"`"), "{}", rejected[0].detail);
    let rejected = decode_as(Format::Auto, b"m,h=a x=1,y=\"s\" \nn value=1").rejected;
    assert_eq!(rejected[0].excerpt, b"m,h=a x=1,y=\"s\"");

    let large = vec![b'x'; (1 << 20) + 1];
    let rejected = decode_as(Format::Auto, &large).rejected;
    assert_eq!(rejected[0].reason, Reason::Oversize);
    assert_eq!(rejected[0].excerpt.len(), MAX_EXCERPT_BYTES);
}

#[test]
fn rejections_of_a_message_are_bounded() {
    let elements = 5_000;
    let rejected = decode_as(Format::Auto, format!("[{}1]", "1,".repeat(elements - 1)).as_bytes()).rejected;
    assert_eq!(rejected.len(), MAX_REJECTIONS);
    assert_eq!(rejected.iter().map(|rejection| rejection.count).sum::<usize>(), elements);
}

#[test]
fn a_point_needs_a_time_from_somewhere() {
    let mut decoder = Decoder::new(DecodeOptions::default(), vec![]);
    let (mut points, mut rejected) = (Points::default(), Vec::new());
    for (payload, message_time) in [
        ("m value=1", None),
        ("{\"name\":\"a\",\"value\":1}", None),
        ("m value=1", Some(NOW + 301_000_000_000)),
        ("m value=1", Some(0)),
    ] {
        decoder.decode(payload.as_bytes(), message_time, NOW, &mut points, &mut rejected);
    }
    let reasons: Vec<Reason> = rejected.iter().map(|rejection| rejection.reason).collect();
    use Reason::{FutureTimestamp, MissingTimestamp, TimestampTooOld};
    assert_eq!(reasons, [MissingTimestamp, MissingTimestamp, FutureTimestamp, TimestampTooOld]);
    assert!(points.is_empty() && decoder.series().is_empty(), "refused points leave no series");
}

fn point(text: &'static str) -> impl Strategy<Value = Point> {
    let labels = prop::collection::btree_map(text, text, 0..4);
    let value = any::<f64>().prop_filter("finite", |value| value.is_finite());
    (text, labels, 100_000_000_000_000_000..NOW, value).prop_map(|(name, labels, time, value)| Point {
        name,
        labels,
        time,
        value,
    })
}

fn to_json(point: &Point) -> String {
    let Point { name, labels, time, value } = point;
    serde_json::json!({"name": name, "labels": labels, "ts": time, "value": value}).to_string()
}

fn to_line(point: &Point) -> String {
    let escape = |text: &str| text.replace(',', "\\,").replace(' ', "\\ ").replace('=', "\\=");
    let mut line = escape(&point.name);
    for (key, value) in &point.labels {
        line += &format!(",{}={}", escape(key), escape(value));
    }
    format!("{line} value={} {}", point.value, point.time)
}

/// Checks what holds for every message, and returns its outcome.
fn check_total(payload: &[u8]) -> std::result::Result<Result, TestCaseError> {
    let result = decode_as(Format::Auto, payload);
    for point in &result.points {
        prop_assert!(point.value.is_finite() && !point.name.is_empty());
        prop_assert!(point.labels.iter().all(|(key, value)| !key.is_empty() && !value.is_empty()));
    }
    for rejection in &result.rejected {
        prop_assert!(rejection.count > 0 && rejection.excerpt.len() <= MAX_EXCERPT_BYTES);
        prop_assert!(rejection.detail.len() < 1_000);
    }
    Ok(result)
}

proptest! {
    #[test]
    fn json_round_trip(points in prop::collection::vec(point("\\PC{1,12}|[\"\\\\\n/]{1,6}"), 0..6)) {
        let texts: Vec<String> = points.iter().map(to_json).collect();
        for payload in [texts.join("\n"), format!("[{}]", texts.join(" , "))] {
            let result = check_total(payload.as_bytes())?;
            prop_assert_eq!(&result.points, &points);
            prop_assert_eq!(result.rejected, vec![]);
        }
    }

    // A backslash at the end of a name or tag, or a line feed, cannot be written in line protocol.
    #[test]
    fn line_protocol_round_trip(points in prop::collection::vec(point("[^\\\\\\s#{\\[\"\u{feff}][^\\p{Cc}]{0,8}[^\\\\\\s]"), 0..6)) {
        let text: Vec<String> = points.iter().map(to_line).collect();
        let result = check_total(text.join("\n").as_bytes())?;
        prop_assert_eq!(&result.points, &points);
        prop_assert_eq!(result.rejected, vec![]);
    }

    #[test]
    fn any_bytes(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        check_total(&payload)?;
    }

    #[test]
    fn any_text_of_the_formats(payload in "([{}\\[\\]\":,=\\\\ \n#a1.e-]|name|value|\"name\":|\"value\":|null|\\PC){0,60}") {
        let result = check_total(payload.as_bytes())?;
        let blank = payload.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let empty_arrays = payload.chars().all(|character| character.is_ascii_whitespace() || "[]".contains(character));
        prop_assert!(blank || empty_arrays || !result.points.is_empty() || !result.rejected.is_empty());
    }

    #[test]
    fn damaged_messages(
        points in prop::collection::vec(point("[a-z,= ]{1,6}[a-z]"), 1..5),
        as_json in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let texts: Vec<String> = points.iter().map(|point| if as_json { to_json(point) } else { to_line(point) }).collect();
        let mut payload = texts.join("\n").into_bytes();
        for (index, byte, kind) in damage {
            let position = index.index(payload.len());
            match kind {
                0 => payload[position] = byte,
                1 => payload.insert(position, byte),
                _ => { payload.remove(position); }
            }
        }
        let result = check_total(&payload)?;
        let counted = result.points.len() + result.rejected.iter().map(|rejection| rejection.count).sum::<usize>();
        prop_assert!(counted >= 1 || payload.first() == Some(&b'#') || points.len() == 1);
    }
}
