//! Loading from files to a (mock) topic, and every way in which files can be wrong.

use std::collections::BTreeMap;
use std::fs;

use clap::Parser;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

use super::*;

/// 15 January 2027, 08:00.
const NOW: i64 = 1_800_000_000_000_000_000;

/// Name and text of each file.
type Contents<'a> = &'a [(&'a str, &'a str)];

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

fn args(line: &[&str]) -> LoadArgs {
    Line::try_parse_from(std::iter::once(&"load").chain(line)).expect("valid options").load
}

/// A directory with these files, and their paths.
fn files(contents: Contents<'_>) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut paths = Vec::new();
    for (name, text) in contents {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file");
        paths.push(path.to_str().expect("UTF-8").to_owned());
    }
    (directory, paths)
}

/// Every point of the files in the order in which it would be sent, as `key time value`.
fn read(contents: Contents<'_>, options: &[&str]) -> Result<Vec<String>, String> {
    let (directory, paths) = files(contents);
    let line: Vec<&str> = paths.iter().map(String::as_str).chain(options.iter().copied()).collect();
    let mut book = SeriesBook::default();
    let shown = |error: LoadError| error.to_string().replace(&format!("{}/", directory.path().display()), "");
    let beyond = Beyond::new(&Config::default().ingest, NOW);
    let inputs = Inputs::open(&args(&line), &mut book, beyond).map_err(shown)?;
    let mut merge = Merge::new(inputs.files, &mut book).map_err(shown)?;
    let mut points = Vec::new();
    while let Some(point) = merge.next(&mut book).map_err(shown)? {
        points.push(format!("{} {} {}", book.get(point.series).key, point.time / 1_000_000_000, point.value));
    }
    Ok(points)
}

#[test]
fn what_files_mean() {
    let cases: &[(Contents<'_>, &[&str], &[&str])] = &[
        // The name of the file is the name of the metric.
        (&[("cpu.csv", "timestamp,value\n1970-01-01 00:00:05,1.5\n")], &[], &["cpu 5 1.5"]),
        // The file's name holds name and labels.
        (
            &[("ec2_cpu_24ae8d.csv", "timestamp,value\n5,1\n")],
            &["--file-pattern", "(?<name>.+)_(?<instance>[^_]+)", "--label", "source=nab"],
            &["ec2_cpu,instance=24ae8d,source=nab 5 1"],
        ),
        // Columns by name, in any order.
        (
            &[("x.csv", "host,v,metric,when\na,1,cpu,5\nb,2,mem,6\n,3,cpu,7\n")],
            &[
                "--value-column",
                "v",
                "--name-column",
                "metric",
                "--time-column",
                "when",
                "--label-column",
                "host",
            ],
            &["cpu,host=a 5 1", "mem,host=b 6 2", "cpu 7 3"],
        ),
        (
            &[("x.csv", "time,value\n14/02/2014 14:30,1\n")],
            &["--time-format", "%d/%m/%Y %H:%M", "--name", "y"],
            &["y 1392388200 1"],
        ),
        // Unsorted files are sorted, several are merged; equal times keep the order of files and
        // rows.
        (
            &[("a.csv", "ts,value\n9,1\n3,2\n3,3\n"), ("b.csv", "ts,value\n3,4\n10,5\n")],
            &[],
            &["a 3 2", "a 3 3", "b 3 4", "a 9 1", "b 10 5"],
        ),
        // Lines of JSON and of line protocol have their own names; labels of the options are added.
        (
            &[
                ("a.jsonl", "{\"name\":\"m\",\"labels\":{\"k\":\"v\"},\"ts\":2,\"value\":1}\n\n"),
                ("b.lp", "# comment\ndisk,k=w used=5i,free=2i 1000000000\n"),
            ],
            &["--label", "k=default", "--label", "site=x"],
            &["disk.used,k=w,site=x 1 5", "disk.free,k=w,site=x 1 2", "m,k=v,site=x 2 1"],
        ),
        // Bad rows are skipped when asked.
        (
            &[
                ("a.csv", "ts,value\n1,x\nsoon,1\n2,7\n3\n"),
                ("b.jsonl", "{\"name\":1}\n{\"name\":\"n\",\"ts\":4,\"value\":1}"),
            ],
            &["--skip-bad"],
            &["a 2 7", "n 4 1"],
        ),
        // Too large for memory, but sorted: read again while it is sent.
        (
            &[("a.csv", "ts,value\n1,1\n3,3\n5,5\n"), ("b.csv", "ts,value\n4,4\n2,2\n")],
            &["--sort-points", "2"],
            &["a 1 1", "b 2 2", "a 3 3", "b 4 4", "a 5 5"],
        ),
        (&[("empty.csv", "ts,value\n")], &[], &[]),
        // As spreadsheets of half of the world write it, with a mark of the byte order and line
        // breaks of Windows.
        (
            &[("x.csv", "\u{feff}ts;value;host\r\n5;1,5;a\r\n\r\n6;-2;\"b;c\"\r\n7;1e-1;\r\n")],
            &["--delimiter", ";", "--decimal-comma", "--label-column", "host"],
            &["x,host=a 5 1.5", "x,host=b;c 6 -2", "x 7 0.1"],
        ),
        (&[("x.csv", "ts\tvalue\n5\t1.5\n")], &["--delimiter", "tab"], &["x 5 1.5"]),
        (
            &[("x.csv", "time,value\n2014-02-14 15:30,1\n")],
            &["--time-zone", "Europe/Berlin"],
            &["x 1392388200 1"],
        ),
        // A string over several lines, as `ingest` reads it; one that is never closed swallows
        // nothing.
        (
            &[("a.lp", "m text=\"one\ntwo, three\",v=1 1000000000\nm v=2 2000000000\n")],
            &["--skip-bad"],
            &["m.v 1 1", "m.v 2 2"],
        ),
        (
            &[("a.lp", "m v=1 1000000000\nm text=\"one,v=5 2000000000\nm v=3 3000000000\nm v=4 4000000000")],
            &["--skip-bad"],
            &["m.v 1 1", "m.v 3 3", "m.v 4 4"],
        ),
        // An alternative that matches a piece does not hide one that matches the whole.
        (
            &[("cpu_a.csv", "ts,value\n1,1\n")],
            &["--file-pattern", "cpu|(?<name>[a-z]+)_(?<host>.)"],
            &["cpu,host=a 1 1"],
        ),
    ];
    for (contents, options, expected) in cases {
        let points = read(contents, options).expect("the files are good");
        assert_eq!(&points, expected, "{contents:?} {options:?}");
    }
}

#[test]
fn what_is_wrong_with_files() {
    let cases: &[(Contents<'_>, &[&str], &str)] = &[
        (
            &[("a.csv", "ts,value\n1,1\n2,high\n")],
            &[],
            "a.csv:3: `high` is not a finite number: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts,value\nnoon,1\n")],
            &[],
            "a.csv:2: `noon` is not a time (see --time-format): correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts,load\n1,1\n")],
            &[],
            "a.csv:1: there is no column `value`: name one of ts, load with --value-column",
        ),
        (
            &[("a.csv", "when,value\n1,1\n")],
            &[],
            "a.csv:1: there is no column `timestamp`: name one of when, value with --time-column",
        ),
        (
            &[("a.csv", "ts,value,host\n1,1,a\n2,1,234,a\n")],
            &[],
            "a.csv:3: the row has 4 cells and the header 3: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts,value,host\n1,1\n")],
            &[],
            "a.csv:2: the row has 2 cells and the header 3: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts,value,host\n1,1,a\n2,2,\"b\n3,3,c\n")],
            &[],
            "a.csv:3: a quote is not closed in its line: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts;value\n1;1\n")],
            &[],
            "a.csv:1: there is no column `timestamp`: name one of ts;value with --time-column",
        ),
        (
            &[("a.csv", "ts;value\n1;1\n")],
            &["--time-column", "ts"],
            "a.csv:1: there is no column `ts`: add --delimiter ';'",
        ),
        (
            &[("a.csv", "ts;value\n1;1,5\n")],
            &["--delimiter", ";"],
            "a.csv:2: `1,5` is not a finite number (see --decimal-comma): correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts;value\n1;1.234,5\n")],
            &["--delimiter", ";", "--decimal-comma"],
            "a.csv:2: `1.234,5` is not a finite number: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("a.csv", "ts,value,value\n1,1,2\n")],
            &[],
            "a.csv:1: the column `value` is there twice: correct the header",
        ),
        (
            &[("a.csv", "time,value\n2024-10-27 02:30,1\n")],
            &["--time-zone", "Europe/Berlin"],
            "a.csv:2: 2024-10-27 02:30:00 is there twice in Europe/Berlin: only a time with its offset says which is meant: correct the line, or skip such lines with --skip-bad",
        ),
        (
            &[("xcpu.csv", "ts,value\n")],
            &["--file-pattern", "cpu"],
            "xcpu.csv: `xcpu` does not match the pattern ^(?:cpu)$ of --file-pattern",
        ),
        (
            &[("_a.csv", "ts,value\n")],
            &["--file-pattern", "(?<name>.*)_(?<host>.)"],
            "_a.csv: the name of the metric is empty: let the group `name` of --file-pattern match a character, or add --name",
        ),
        (
            &[("a.dat", "")],
            &[],
            "a.dat: its name does not tell its format: add --format csv, json or line-protocol",
        ),
        (
            &[("plain.csv", "ts,value\n")],
            &["--file-pattern", "(?<name>.+)_(?<instance>.+)"],
            "plain.csv: `plain` does not match the pattern ^(?:(?<name>.+)_(?<instance>.+))$ of --file-pattern",
        ),
        (
            &[("a.csv", "ts,value\n3,1\n2,1\n1,1\n")],
            &["--sort-points", "2"],
            "a.csv:3: earlier than the row before it, in a file too large to be sorted in memory: sort the file by time, or raise --sort-points above 2",
        ),
    ];
    for (contents, options, expected) in cases {
        assert_eq!(read(contents, options).expect_err(expected), *expected);
    }
    let bad = read(&[("a.jsonl", "{\"name\":\"m\",\"ts\":1,\"value\":1}\n{\"name\":\"m\",\"ts\":1}\n")], &[]);
    let bad = bad.expect_err("no value");
    assert!(bad.starts_with("a.jsonl:2: "), "{bad}");
}

#[test]
fn what_is_skipped_is_counted_in_lines() {
    let long = "x".repeat(5_000);
    let cases: &[(&str, &str, u64, u64)] = &[
        // Name, text, points, lines skipped.
        ("a.csv", "ts,value,host\n1,1,a\n2,2,\"b\n3,3,c\n4,4,d\nx,5,e\n6,6\n7,7,\"f\"\n", 4, 3),
        ("a.csv", "ts,value\n1,1\n2,1,234\n", 1, 1),
        ("a.jsonl", "{\"name\":1}\n{\"name\":\"n\",\"ts\":4,\"value\":1}\nx\n", 1, 2),
        // Two mistakes of one line, and a string over two lines.
        ("a.lp", "m a=\"x\",b=\"y\" 1\nm a=\"x\ny\" 2\nm v=1 3\n", 1, 3),
        ("a.lp", "m a=\"x 1\nm v=1 3\nm v=2 4\n", 2, 1),
        // Series that are too long, in every format; two points of one line, and a field given
        // twice.
        ("a.csv", &format!("ts,value,host\n1,1,a\n2,2,{long}\n3,3,{long}\n"), 1, 2),
        ("a.jsonl", &format!("{{\"name\":\"{long}\",\"ts\":4,\"value\":1}}\n"), 0, 1),
        ("a.lp", &format!("m,h={long} a=1,b=2 1\nm,h=x a=1,a=2,b=3 1\n"), 1, 2),
    ];
    for (name, text, points, skipped) in cases {
        let (_directory, paths) = files(&[(name, text)]);
        let labels: &[&str] =
            if text.starts_with("ts,value,host\n1,1,a\n2,2,x") { &["--label-column", "host"] } else { &[] };
        let args = args(&[&[paths[0].as_str(), "--skip-bad"], labels].concat());
        let beyond = Beyond::new(&Config::default().ingest, NOW);
        let inputs = Inputs::open(&args, &mut SeriesBook::default(), beyond).expect("mistakes are skipped");
        assert_eq!((inputs.points, inputs.skipped), (*points, *skipped), "{text}");
    }
}

#[test]
fn points_that_ingest_refuses_are_told_of() {
    let (directory, paths) = files(&[(
        "a.csv",
        "ts,value\n1970-01-20 00:00:00,1\n1969-01-01 00:00:00,1\n2027-01-15 08:00:00,1\n2027-01-15 08:05:00,1\n2027-01-15 08:05:01,1\n",
    )]);
    let beyond = Beyond::new(&Config::default().ingest, NOW);
    let inputs = Inputs::open(&args(&[&paths[0]]), &mut SeriesBook::default(), beyond).expect("good rows");
    let warnings: Vec<String> = inputs
        .beyond
        .warnings()
        .iter()
        .map(|warning| warning.replace(&format!("{}/", directory.path().display()), ""))
        .collect();
    assert_eq!(
        warnings,
        [
            "2 points are before 1971-01-01T00:00:00Z, and `ingest` refuses them by `oldest` of [ingest]; the first is a.csv:2, at 1970-01-20T00:00:00Z",
            "1 points are after 2027-01-15T08:05:00Z, and `ingest` refuses them by `max_future_skew` of [ingest]; the first is a.csv:6, at 2027-01-15T08:05:01Z",
        ]
    );
}

#[test]
fn closing_waits_for_no_others_and_harms_none() {
    let second = 1_000_000_000;
    let cluster = MockCluster::new(1).expect("mock cluster");
    let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
    let start = |topic: &str, options: &[&str], now: i64, time: i64| {
        let line: Vec<&str> = ["a.csv", "--close"].into_iter().chain(options.iter().copied()).collect();
        Closing::start(&args(&line), &config, &Clock::manual(now), topic, time)
    };
    for topic in ["alone", "shared"] {
        cluster.create_topic(topic, 2, 1).expect("mock topic");
    }
    let now = Clock::system().now_ns();
    let producer = crate::kafka::producer(&config.kafka, crate::kafka::Plain::default()).expect("a producer");
    let send = || {
        let record = rdkafka::producer::BaseRecord::<(), str>::to("shared").payload("x").partition(1);
        producer.send(record).expect("room in the queue");
        rdkafka::producer::Producer::flush(&producer, Duration::from_secs(30))
            .expect("the mock cluster answers");
    };
    let alone = start("alone", &[], now, now).expect("nobody else sends");
    alone.check(&[0, 0]).expect("nobody else has sent");
    // While the load was under way.
    let began = start("shared", &[], now, now).expect("nobody else sends");
    send();
    assert!(matches!(began.check(&[0, 0]), Err(LoadError::Others { .. })));
    began.check(&[0, 1]).expect("the message is our own");
    let forced = start("shared", &["--force"], now, now).expect("forced");
    forced.check(&[0, 0]).expect("forced");
    // Long ago nobody is hurt.
    let history = start("shared", &[], now, now - 3_600 * second).expect("far behind the clock");
    history.check(&[0, 0]).expect("far behind the clock");
}

#[test]
fn options() {
    assert_eq!(args(&["a.csv", "--speed", "60x"]).speed, Some(60.0));
    assert_eq!(args(&["a.csv", "--disorder", "3h"]).disorder, Some(Duration::from_secs(3 * 3_600)));
    for wrong in [
        &["a.csv", "--speed", "0x"][..],
        &["a.csv", "--speed", "fast"],
        &["a.csv", "--label", "host"],
        &["a.csv", "--points-per-message", "0"],
        &["a.csv", "--close-after", "1h"],
        &["a.csv", "--file-pattern", "("],
        &["a.csv", "--time-format", "%Y-%m-%d %H:%M:%S %Z"],
        &["a.csv", "--time-format", "%H:%M"],
        &["a.csv", "--time-zone", "Berlin"],
        &["a.csv", "--delimiter", ""],
        &["a.csv", "--delimiter", ";;"],
        &["a.csv", "--delimiter", "\""],
        &["a.csv", "--force"],
        &[],
    ] {
        assert!(Line::try_parse_from(std::iter::once(&"load").chain(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn ingest_must_understand_what_is_sent() {
    let mut config = Config::local("127.0.0.1:1", Path::new("/tmp"));
    config.ingest.format = PayloadFormat::LineProtocol;
    assert!(check_encoding(&args(&["a.csv"]), &config).is_err());
    assert!(check_encoding(&args(&["a.csv", "--encoding", "line-protocol"]), &config).is_ok());
    assert!(check_encoding(&args(&["a.csv", "--encoding", "line-protocol", "--close"]), &config).is_err());
}

/// Every message of the topic: partition, key, payload, in the order of each partition.
fn consume(brokers: &str, topic: &str, partitions: i32) -> Vec<(i32, Option<String>, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("an assignment");
    let (mut messages, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(30)).expect("the mock cluster answers") {
            Ok(message) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
                let payload = message.payload().map(text).unwrap_or_default();
                messages.push((message.partition(), message.key().map(text), payload));
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    messages
}

#[test]
fn every_point_arrives_and_event_time_is_closed() {
    let cluster = MockCluster::new(1).expect("mock cluster");
    cluster.create_topic("points", 3, 1).expect("mock topic");
    let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
    let mut text = "ts,value,host\n".to_owned();
    for second in 0..500 {
        text.push_str(&format!("{},{second},h{}\n", 1_700_000_000 + second, second % 7));
    }
    let (_directory, paths) = files(&[("cpu.csv", &text)]);
    let clock = Clock::manual(1_800_000_000_000_000_000);
    let window_end = |last: i64| last + 60_000_000_000;
    for (options, points_per_message) in
        [(&[][..], 1), (&["--points-per-message", "20", "--disorder", "30s"][..], 20)]
    {
        let topic = format!("points-{points_per_message}");
        cluster.create_topic(&topic, 3, 1).expect("mock topic");
        let mut line =
            vec![paths[0].as_str(), "--label-column", "host", "--close", "--topic", topic.as_str()];
        line.extend(options);
        let report = run(&args(&line), &config, &clock, Some(&window_end), false).expect("loaded");
        assert_eq!((report.points, report.partitions, report.skipped), (500, 3, 0));
        assert_eq!(report.times, Some((1_700_000_000_000_000_000, 1_700_000_499_000_000_000)));
        // 60 s of window, and the 5 s that the watermark stays behind.
        assert_eq!(report.closed_at, Some(1_700_000_564_000_000_000));

        let messages = consume(&cluster.bootstrap_servers(), &topic, 3);
        assert_eq!(messages.len() as u64, report.messages);
        let mut partition_of: BTreeMap<String, i32> = BTreeMap::new();
        let mut values: Vec<f64> = Vec::new();
        let mut last_of: BTreeMap<i32, String> = BTreeMap::new();
        for (partition, key, payload) in messages {
            for line in payload.lines() {
                let point: serde_json::Value = serde_json::from_str(line).expect("JSON");
                if point.get("heartbeat").is_some() {
                    continue;
                }
                let host = point["labels"]["host"].as_str().expect("a label").to_owned();
                let series = format!("cpu,host={host}");
                if points_per_message == 1 {
                    assert_eq!(key.as_ref(), Some(&series));
                }
                assert_eq!(*partition_of.entry(series).or_insert(partition), partition, "a series stays");
                values.push(point["value"].as_f64().expect("a number"));
            }
            last_of.insert(partition, payload);
        }
        values.sort_by(f64::total_cmp);
        assert_eq!(values, (0..500).map(f64::from).collect::<Vec<_>>());
        assert_eq!(last_of.len(), 3);
        assert!(last_of.values().all(|last| last == "{\"heartbeat\":1700000564000000000}"), "{last_of:?}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let (_directory, paths) = files(&[("cpu.csv", "ts,value\n1,1\n")]);
    let cluster = MockCluster::new(1).expect("mock cluster");
    cluster
        .topic_error("nowhere", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        .expect("mock");
    let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
    let error = run(&args(&[&paths[0], "--topic", "nowhere"]), &config, &Clock::manual(0), None, false);
    assert_eq!(
        error.expect_err("no such topic").to_string(),
        "no such topic: make it with `tidemark topics create`, or name another with --topic, topic=`nowhere`"
    );
}

#[test]
fn heartbeats_do_not_run_ahead_of_the_clock() {
    let config = Config::local("127.0.0.1:1", Path::new("/tmp"));
    let second = 1_000_000_000;
    // Last event time, wall clock, options, expected heartbeat, all in seconds.
    let cases: &[(i64, i64, &[&str], i64)] = &[
        (1_000, 1_000_000, &["--close"], 1_000 + 86_400 + 5),
        (1_000, 1_000_000, &["--close", "--close-after", "1m"], 1_000 + 60 + 5),
        // Windows that end in the future close by themselves.
        (1_000_000, 1_000_000, &["--close"], 1_000_000),
        (999_990, 1_000_000, &["--close"], 1_000_000),
        // Never before the last point.
        (2_000_000, 1_000_000, &["--close"], 2_000_000),
    ];
    for (last, now, options, expected) in cases {
        let line: Vec<&str> = std::iter::once("a.csv").chain(options.iter().copied()).collect();
        let time = heartbeat_time(&args(&line), &config, &Clock::manual(now * second), None, last * second);
        assert_eq!(time, expected * second, "{options:?}");
    }
}
