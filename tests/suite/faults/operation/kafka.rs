//! Brokers that refuse, for each reason; properties of clients; topics that are not as they should
//! be.

use libtest_mimic::Trial;
use tidemark_tests::secrets::PLANTED;
use tidemark_tests::tls::{Authority, TlsFront};

use super::{ended, program, real};
use crate::real::{Deployment, PATIENCE, Servers};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        real("a_refused_login_a_tls_port_and_a_closed_port_are_told_apart", causes),
        real("no_client_is_given_properties_that_it_does_not_know", properties),
        real("check_finds_topics_that_are_missing_or_set_up_wrongly", topics),
    ]
}

fn causes(servers: &Servers) {
    let sasl = servers.kafka.sasl();
    let login = |password: &str| {
        format!(
            "[kafka]\nbrokers = \"{sasl}\"\n[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"tidemark\"\n\"sasl.password\" = \"{password}\"\n"
        )
    };
    let authority = Authority::new();
    let front = TlsFront::start(&authority, servers.kafka.brokers());
    let tls = front.url().trim_start_matches("https://").to_owned();
    let plain = servers.kafka.brokers();
    let cases = [
        (login("not the right one"), "a Kafka broker refuses the login", "\"sasl.password\""),
        (
            format!("[kafka]\nbrokers = \"{tls}\"\n"),
            "hangs up on a client without TLS",
            "\"security.protocol\"",
        ),
        (
            format!("[kafka]\nbrokers = \"{plain}\"\n[kafka.properties]\n\"security.protocol\" = \"ssl\"\n"),
            "TLS with a Kafka broker fails",
            "\"ssl.ca.location\"",
        ),
        (
            format!("[kafka]\nbrokers = \"{sasl}\"\n[kafka.properties]\n\"security.protocol\" = \"ssl\"\n"),
            "TLS with a Kafka broker fails",
            "\"security.protocol\"",
        ),
        (
            "[kafka]\nbrokers = \"no-such-host.invalid:9092\"\n".to_owned(),
            "the name of a Kafka broker is unknown",
            "`brokers`",
        ),
        ("[kafka]\nbrokers = \"127.0.0.1:1\"\n".to_owned(), "no Kafka broker answered", "`brokers`"),
    ];
    for (config, problem, key) in cases {
        let tidemark = program(&config);
        let said = ended(tidemark.command(), &["topics", "create", "--timeout", "4s"]);
        let last = said.stderr.lines().last().unwrap_or_default();
        assert!(!said.success && last.contains(problem) && last.contains(key), "{config}\n{}", said.stderr);
    }
    // And the right one gets in.
    let tidemark = program(&login(PLANTED));
    let said = ended(tidemark.command(), &["check", "--brokers", "--timeout", "30s"]);
    assert!(said.stdout.contains("does not exist"), "{}{}", said.stdout, said.stderr);
}

fn properties(servers: &Servers) {
    let topic = servers.kafka.unique_topic("properties", 2);
    let deployment = Deployment::new(servers, "properties", &topic, 2).without_influx().with(
        "\n[kafka.properties]\n\"session.timeout.ms\" = 20000\n\"max.poll.interval.ms\" = 200000\n\"transaction.timeout.ms\" = 30000\n\"batch.num.messages\" = 1000\n",
    );
    let mut tidemark = deployment.process("data", &[("cpu", super::SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    assert!(tidemark.terminate().success());
    let log = tidemark.log_text();
    assert!(!log.contains("CONFWARN") && !log.contains("will be ignored"), "{log}");
}

fn topics(servers: &Servers) {
    let topic = servers.kafka.unique_topic("checked", 2);
    let deployment = Deployment::new(servers, "checked", &topic, 2).without_influx();
    let tidemark = deployment.process("data", &[("cpu", super::SQL)]);
    let check = || ended(tidemark.command(), &["check", "--brokers"]);
    let said = check();
    let id = &deployment.id;
    assert!(!said.success);
    for missing in [
        "partials",
        "late",
        "dead-letter",
        "alerts",
        "alerts-states",
        "alerts-manager",
        "alerts-commands",
        "alerts-log",
    ] {
        let expected = format!("topic `{id}-{missing}` does not exist");
        assert!(said.stdout.contains(&expected), "{expected}:\n{}", said.stdout);
    }
    tidemark.call(&["topics", "create"]);
    let said = check();
    assert!(said.success && said.stdout.contains("no problems with topics: 9 looked at"), "{}", said.stdout);
    servers.kafka.set_property(&format!("{id}-alerts-manager"), "cleanup.policy", "delete");
    servers.kafka.set_property(&format!("{id}-late"), "retention.ms", "60000");
    // The broker takes a moment to show it.
    let said = tidemark_tests::wait_until(PATIENCE, "a topic that is set up wrongly", || {
        let said = check();
        if said.success { Err(said.stdout) } else { Ok(said) }
    });
    assert!(
        said.stdout.contains("has cleanup.policy=delete: what it remembers would be deleted by age"),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.contains("warning: topic") && said.stdout.contains("retention.ms=60000"),
        "{}",
        said.stdout
    );
}
