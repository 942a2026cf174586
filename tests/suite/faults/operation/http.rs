//! The HTTP port under attack, and pages of other sites.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Trial;
use tidemark_tests::tidemark::Tidemark;
use tokio::runtime::Runtime;

use super::{program, trial};
use crate::real::PATIENCE;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("http2_is_refused_in_its_own_words_and_costs_no_memory", http2),
        trial("clients_in_every_stage_of_a_request_keep_no_probe_waiting_and_memory_is_bounded", attacked),
        trial("a_page_whose_name_was_rebound_reads_and_changes_nothing", rebound),
        trial("health_asks_the_process_of_this_machine", health),
    ]
}

/// A process without a Kafka: it answers all the same.
fn started(options: &str) -> Tidemark {
    let config = format!("[kafka]\nbrokers = \"127.0.0.1:1\"\n[http]\n{options}\n");
    let mut tidemark = program(&config);
    tidemark.spawn(&["run", "--roles", "ingest"], &[]);
    let url = format!("{}/healthz", tidemark.url());
    tidemark.wait_until(PATIENCE, "the first answer", || tidemark_tests::tidemark::page(&url).map(drop));
    tidemark
}

fn address(tidemark: &Tidemark) -> String {
    tidemark.url().trim_start_matches("http://").to_owned()
}

/// Sends this, and gives what comes back until the server closes the connection.
fn send(tidemark: &Tidemark, request: &str) -> String {
    let mut stream = TcpStream::connect(address(tidemark)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The most memory that the process has had resident, in bytes.
fn peak(tidemark: &Tidemark) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", tidemark.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn http2() {
    let tidemark = started("");
    let before = peak(&tidemark);
    let runtime = Runtime::new().unwrap();
    let refused = runtime.block_on(async {
        let mut refused = 0;
        for _ in 0..200 {
            let stream = tokio::net::TcpStream::connect(address(&tidemark)).await.unwrap();
            let Ok((mut requests, connection)) = h2::client::handshake(stream).await else { continue };
            let talking = tokio::spawn(connection);
            let request = axum::http::Request::get("http://localhost/healthz").body(()).unwrap();
            let answer = match requests.send_request(request, true) {
                Ok((answer, _)) => answer.await.map(drop),
                Err(error) => Err(error),
            };
            let errors = [answer.err(), talking.await.unwrap().err()];
            let says_why =
                errors.iter().flatten().any(|error| error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED));
            refused += usize::from(says_why);
        }
        refused
    });
    assert_eq!(refused, 200, "every connection learns that HTTP/1.1 is required");
    let grown = peak(&tidemark).saturating_sub(before) >> 20;
    println!("200 connections that speak HTTP/2: {grown} MiB");
    assert!(grown < 64, "{grown} MiB");
    assert!(
        send(&tidemark, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ends_with("ok\n")
    );
}

fn attacked() {
    let tidemark = started("timeout = \"60s\"\n");
    let before = peak(&tidemark);
    let body = "x".repeat(200 << 10);
    let post = format!(
        "POST /api/silences HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len() + 1
    );
    let beginnings = [
        String::new(),
        "GET /metrics HTTP/1.1\r\nHost:".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nX: {}", "y".repeat(1_000), "z".repeat(20_000)),
        // A body that lacks its last byte.
        post,
        // Answers that nobody takes.
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100),
    ];
    let mut held = Vec::new();
    for _ in 0..200 {
        for beginning in &beginnings {
            let mut stream = TcpStream::connect(address(&tidemark)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            // The server may have closed it by now.
            let _ = stream.write_all(beginning.as_bytes());
            held.push(stream);
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer =
            send(&tidemark, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer:?}");
    }
    let grown = peak(&tidemark).saturating_sub(before) >> 20;
    println!("{} connections that hold on: {grown} MiB", held.len());
    assert!(grown < 200, "{grown} MiB");
}

fn rebound() {
    let tidemark = started("allowed_hosts = [\"alerts.example\"]\n");
    let status = |request: String| {
        let answer = send(&tidemark, &request);
        let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
        status
    };
    let get = |path: &str, host: &str| {
        status(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let own = address(&tidemark);
    for path in ["/healthz", "/metrics", "/api/status", "/api/silences", "/nowhere"] {
        assert_eq!(get(path, "evil.example"), 421, "{path}");
        assert_eq!(get(path, &format!("evil.example:{}", own.rsplit(':').next().unwrap())), 421, "{path}");
    }
    for host in [own.as_str(), "localhost", "alerts.example"] {
        assert_eq!(get("/api/status", host), 200, "{host}");
    }
    let post = |headers: &str| {
        let body = "{}";
        status(format!(
            "POST /api/silences HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        ))
    };
    assert_eq!(post("Host: evil.example\r\nOrigin: http://evil.example\r\n"), 421);
    assert_eq!(post("Host: localhost\r\nOrigin: https://evil.example\r\n"), 403);
    assert_eq!(post("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"), 403);
    // Judged, and found wanting of keys.
    assert_eq!(post("Host: localhost\r\n"), 400);
    assert_eq!(
        post("Host: alerts.example\r\nOrigin: https://alerts.example\r\nSec-Fetch-Site: same-origin\r\n"),
        400
    );
}

fn health() {
    let mut tidemark = started("");
    let ask = |tidemark: &Tidemark, arguments: &[&str]| super::ended(tidemark.command(), arguments);
    let well = ask(&tidemark, &["health"]);
    assert_eq!((well.code, well.stdout.as_str()), (Some(0), "ok\n"), "{}", well.stderr);
    let not_ready = ask(&tidemark, &["health", "--ready"]);
    assert_eq!(not_ready.code, Some(1), "{}", not_ready.stdout);
    assert!(not_ready.stderr.contains("ingest: "), "{}", not_ready.stderr);
    tidemark.kill9();
    let gone = ask(&tidemark, &["health"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("no process answers at http://127.0.0.1:"), "{}", gone.stderr);
}
