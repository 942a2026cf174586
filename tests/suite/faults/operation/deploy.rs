//! Containers, tokens, licences: files that come with the project.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;
use tidemark_tests::notices;
use tidemark_tests::tidemark::text;

use super::{real, trial};
use crate::real::Servers;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("containers_have_what_they_need_and_no_more", containers),
        trial("every_licence_is_permissive_and_comes_with_its_text", licences),
        trial("dependencies_are_built_as_they_are_locked", locked),
        real("each_container_gets_a_token_for_what_it_does", tokens),
    ]
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Blocks of a YAML mapping whose keys are indented so far, by key.
fn blocks(text: &str, indent: usize) -> BTreeMap<String, String> {
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        let is_key = depth == indent && line.trim_end().ends_with(':') && !line.trim_start().starts_with('#');
        if is_key {
            current = line.trim().trim_end_matches(':').to_owned();
        } else if depth < indent && !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            current = String::new();
        }
        if !current.is_empty() {
            let block = blocks.entry(current.clone()).or_default();
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

fn containers() {
    let compose = read("deploy/compose.yaml");
    let services = blocks(compose.split_once("\nservices:\n").unwrap().1, 2);
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    for expected in ["grafana", "influxdb", "kafka", "sample", "tidemark", "tokens", "topics"] {
        assert!(names.contains(&expected), "{expected} is not in {names:?}");
    }
    for (name, service) in &services {
        // Only InfluxDB and who makes tokens know the administrator's.
        let knows = service.contains("${INFLUX_TOKEN");
        assert_eq!(knows, ["influxdb", "tokens"].contains(&name.as_str()), "{name}:\n{service}");
        for line in service.lines().filter(|line| line.contains("ports:")) {
            assert!(line.contains("\"127.0.0.1:"), "{name} publishes beyond this machine: {line}");
        }
        for line in service.lines().filter(|line| line.trim_start().starts_with("image:")) {
            let image = line.trim().trim_start_matches("image:").trim();
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image} has no tag");
        }
        // Topics and samples need Kafka alone.
        if ["topics", "sample"].contains(&name.as_str()) {
            assert!(!service.contains("volumes:") && !service.contains("INFLUX"), "{name}:\n{service}");
        }
    }
    assert!(services["grafana"].contains("grafana-token:/run/influx:ro"));
    assert!(services["tidemark"].contains("TIDEMARK_INFLUX__TOKEN_FILE: /run/influx/token"));
    assert!(read("deploy/grafana/datasources.yaml").contains("token: $__file{/run/influx/token}"));
    let common = compose.split_once("\nservices:\n").unwrap().0;
    for hardened in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
        assert!(common.contains(hardened), "{hardened}");
    }

    let dockerfile = read("deploy/Dockerfile");
    for line in ["HEALTHCHECK", "CMD [\"tidemark\", \"health\"]", "USER 10001", "THIRD_PARTY.md", "--locked"]
    {
        assert!(dockerfile.contains(line), "{line}");
    }
    // Who runs the image without saying so opens nothing.
    assert!(!dockerfile.lines().any(|line| line.trim_start().starts_with("TIDEMARK_HTTP__LISTEN")));
}

fn licences() {
    let deny = read("deny.toml");
    let list = deny.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
    let allowed: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(allowed.iter().all(|licence| !licence.contains("GPL")), "{allowed:?}");
    let packages = notices::packages(&project()).unwrap();
    assert!(packages.len() > 200, "{} packages", packages.len());
    for package in &packages {
        assert!(package.is_allowed(&allowed), "{} {}: {}", package.name, package.version, package.licence);
    }
    let text = notices::notices(&project()).unwrap();
    for part in ["| arrow |", "librdkafka", "Permission is hereby granted", "| ring |"] {
        assert!(text.contains(part), "{part}");
    }
    let copyleft = packages.iter().find(|package| package.is_allowed(&["GPL-3.0-only".to_owned()]));
    assert_eq!(copyleft, None);
}

fn locked() {
    for file in ["Makefile", ".ci/run", "deploy/Dockerfile"] {
        for line in read(file).lines().filter(|line| !line.trim_start().starts_with('#')) {
            let builds = ["cargo build", "cargo test", "cargo clippy", "cargo metadata"]
                .iter()
                .any(|command| line.contains(command));
            assert!(!builds || line.contains("--locked"), "{file}: {line}");
        }
    }
}

fn tokens(servers: &Servers) {
    let influx = &servers.influx;
    let folder = tempfile::tempdir().unwrap();
    let (tidemark, grafana) = (folder.path().join("tidemark"), folder.path().join("grafana"));
    let make = || {
        let output = Command::new("sh")
            .arg(project().join("deploy/influxdb/tokens.sh"))
            .env("INFLUX_URL", influx.url())
            .env("INFLUX_ORG", influx.org())
            .env("INFLUX_ADMIN_TOKEN", influx.token())
            .env("TIDEMARK_TOKEN_FILE", &tidemark)
            .env("GRAFANA_TOKEN_FILE", &grafana)
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let tokens = [&tidemark, &grafana].map(|file| fs::read_to_string(file).unwrap());
        assert!(tokens.iter().all(|token| !said.contains(token.as_str())), "{said}");
        (said, tokens)
    };
    let (said, [writer, reader]) = make();
    assert!(said.contains("made one for tidemark") && said.contains("made one for grafana"), "{said}");
    assert!(writer.len() > 40 && reader.len() > 40 && writer != reader);
    // A second run leaves what works.
    let (said, again) = make();
    assert!(said.contains("grafana has one that works"), "{said}");
    assert_eq!(again, [writer.clone(), reader.clone()]);
    fs::write(&grafana, "broken").unwrap();
    let (said, [_, reader]) = make();
    assert!(said.contains("made one for grafana"), "{said}");

    let org = influx.org();
    let write = format!("/api/v2/write?org={org}&bucket={}", influx.bucket());
    let query = format!("/api/v2/query?org={org}");
    let flux = json!({ "query": format!("from(bucket: \"{}\") |> range(start: -1m)", influx.bucket()) });
    let user = json!({ "name": "intruder" });
    let status = |token: &str, path: &str, body: &str| influx.status(token, path, body);
    assert_eq!(status(&writer, &write, "m v=1"), 204);
    assert_eq!(status(&writer, &query, &flux.to_string()), 200);
    assert_eq!(status(&reader, &query, &flux.to_string()), 200);
    assert!([401, 403, 404].contains(&status(&reader, &write, "m v=1")), "Grafana's token cannot write");
    for token in [&writer, &reader] {
        assert!([401, 403].contains(&status(token, "/api/v2/users", &user.to_string())), "nor make users");
    }
    // Tidemark makes the buckets of longer tiers.
    let id = influx.org_id();
    let bucket = json!({ "orgID": id, "name": "made-by-tidemarks-token" });
    assert_eq!(status(&writer, "/api/v2/buckets", &bucket.to_string()), 201);
    assert!(text(&influx.url()).is_ok());
}
