//! The properties of librdkafka: which clients know each, and which values it takes.
//!
//! The table is that of the CONFIGURATION.md which comes with the library; a test asks the library
//! itself about every row. What a client does not know it would ignore with a warning each time one
//! is made, and a name that none of them knows is a slip of the pen, most often near a secret. So
//! values never appear in an error.

use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use super::source::suggest;

/// The clients that know a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    All,
    Consumers,
    Producers,
}

use Clients::{All, Consumers, Producers};

/// What exactness rests on, and what the client library's binding needs, so that it is not for the
/// configuration to change.
const OWN: [&str; 25] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "builtin.features",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "enabled_events",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "internal.termination.signal",
    "isolation.level",
    "log.queue",
    "offset.store.method",
    "partition.assignment.strategy",
    "queuing.strategy",
    "statistics.interval.ms",
    "transactional.id",
];

/// Names of Java's clients, and what librdkafka has in their place.
const JAVA: [(&str, &str); 5] = [
    ("sasl.jaas.config", "write \"sasl.username\" and \"sasl.password\", and \"sasl.mechanism\""),
    ("sasl.login.callback.handler.class", "write \"sasl.oauthbearer.method\" = \"oidc\" and its properties"),
    ("ssl.truststore.location", "write \"ssl.ca.location\", a file in PEM"),
    ("ssl.truststore.password", "leave it out: the file of \"ssl.ca.location\" has no password"),
    ("ssl.truststore.certificates", "write \"ssl.ca.pem\""),
];

/// What is wrong with a property: the problem, and the remedy.
type Wrong = (String, String);

/// The name by which a property is known here.
pub(super) fn check_name(name: &str) -> Result<&'static str, Wrong> {
    let known = canonical(name).ok_or_else(|| unknown(name))?;
    if OWN.contains(&known) {
        return Err((format!("the librdkafka property `{name}` is set by Tidemark"), "remove it".to_owned()));
    }
    Ok(known)
}

/// Asks the library whether the property takes the value.
pub(super) fn check_value(name: &str, value: &SecretString) -> Result<(), Wrong> {
    let taken = ClientConfig::new().set(name, value.expose_secret()).create_native_config();
    if taken.is_ok() {
        return Ok(());
    }
    let values = row(name).map(|row| row.2).filter(|values| !values.is_empty());
    let remedy = format!("write {}", values.unwrap_or("a value that librdkafka's CONFIGURATION.md allows"));
    Err((format!("the librdkafka property `{name}` does not take this value"), remedy))
}

/// Whether a client of this kind knows the property.
pub(crate) fn is_known_to(name: &str, clients: Clients) -> bool {
    row(name).is_some_and(|(_, known_to, _)| *known_to == All || *known_to == clients)
}

fn row(name: &str) -> Option<&'static (&'static str, Clients, &'static str)> {
    PROPERTIES.iter().find(|(known, ..)| *known == name)
}

/// Two names of one property would overwrite each other by chance.
fn canonical(name: &str) -> Option<&'static str> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, known)| *known);
    alias.or_else(|| row(name).map(|(known, ..)| *known))
}

fn unknown(name: &str) -> Wrong {
    let problem = format!("`{name}` is not a property of librdkafka");
    if let Some((_, remedy)) = JAVA.iter().find(|(java, _)| *java == name) {
        return (problem, (*remedy).to_owned());
    }
    let known: Vec<&str> = PROPERTIES.iter().map(|(known, ..)| *known).collect();
    let near = suggest(name, &known);
    let is_near = near.starts_with("did you mean");
    (problem, if is_near { near } else { "see librdkafka's CONFIGURATION.md, or remove it".to_owned() })
}

/// Other names of the same property.
const ALIASES: [(&str, &str); 11] = [
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// Name, clients that know it, values that it takes if that is a range or a choice.
const PROPERTIES: [(&str, Clients, &str); 153] = [
    ("acks", Producers, "-1 to 1000"),
    ("allow.auto.create.topics", All, "true, false"),
    ("api.version.fallback.ms", All, "0 to 604800000"),
    ("api.version.request", All, "true, false"),
    ("api.version.request.timeout.ms", All, "1 to 300000"),
    ("auto.commit.enable", Consumers, "true, false"),
    ("auto.commit.interval.ms", Consumers, "0 to 86400000"),
    ("auto.offset.reset", Consumers, "smallest, earliest, beginning, largest, latest, end, error"),
    ("batch.num.messages", Producers, "1 to 1000000"),
    ("batch.size", Producers, "1 to 2147483647"),
    ("bootstrap.servers", All, ""),
    ("broker.address.family", All, "any, v4, v6"),
    ("broker.address.ttl", All, "0 to 86400000"),
    ("broker.version.fallback", All, ""),
    ("builtin.features", All, ""),
    ("check.crcs", Consumers, "true, false"),
    ("client.dns.lookup", All, "use_all_dns_ips, resolve_canonical_bootstrap_servers_only"),
    ("client.id", All, ""),
    ("client.rack", All, ""),
    ("compression.level", Producers, "-1 to 12"),
    ("compression.type", Producers, "none, gzip, snappy, lz4, zstd"),
    ("connections.max.idle.ms", All, "0 to 2147483647"),
    ("consume.callback.max.messages", Consumers, "0 to 1000000"),
    ("coordinator.query.interval.ms", Consumers, "1 to 3600000"),
    (
        "debug",
        All,
        "generic, broker, topic, metadata, feature, queue, msg, protocol, cgrp, security, fetch, interceptor, plugin, consumer, admin, eos, mock, assignor, conf, telemetry, all",
    ),
    ("delivery.report.only.error", Producers, "true, false"),
    ("enable.auto.commit", Consumers, "true, false"),
    ("enable.auto.offset.store", Consumers, "true, false"),
    ("enable.gapless.guarantee", Producers, "true, false"),
    ("enable.idempotence", Producers, "true, false"),
    ("enable.metrics.push", All, "true, false"),
    ("enable.partition.eof", Consumers, "true, false"),
    ("enable.random.seed", All, "true, false"),
    ("enable.sasl.oauthbearer.unsecure.jwt", All, "true, false"),
    ("enable.ssl.certificate.verification", All, "true, false"),
    ("enabled_events", All, "0 to 2147483647"),
    ("fetch.error.backoff.ms", Consumers, "0 to 300000"),
    ("fetch.max.bytes", Consumers, "0 to 2147483135"),
    ("fetch.message.max.bytes", Consumers, "1 to 1000000000"),
    ("fetch.min.bytes", Consumers, "1 to 100000000"),
    ("fetch.queue.backoff.ms", Consumers, "0 to 300000"),
    ("fetch.wait.max.ms", Consumers, "0 to 300000"),
    ("group.id", Consumers, ""),
    ("group.instance.id", Consumers, ""),
    ("group.protocol", Consumers, "classic, consumer"),
    ("group.protocol.type", Consumers, ""),
    ("group.remote.assignor", Consumers, ""),
    ("heartbeat.interval.ms", Consumers, "1 to 3600000"),
    ("https.ca.location", All, ""),
    ("https.ca.pem", All, ""),
    ("internal.termination.signal", All, "0 to 128"),
    ("isolation.level", Consumers, "read_uncommitted, read_committed"),
    ("linger.ms", Producers, "0 to 900000"),
    ("log.connection.close", All, "true, false"),
    ("log.queue", All, "true, false"),
    ("log.thread.name", All, "true, false"),
    ("log_level", All, "0 to 7"),
    ("max.in.flight.requests.per.connection", All, "1 to 1000000"),
    ("max.poll.interval.ms", Consumers, "1 to 86400000"),
    ("message.copy.max.bytes", All, "0 to 1000000000"),
    ("message.max.bytes", All, "1000 to 1000000000"),
    ("message.timeout.ms", Producers, "0 to 2147483647"),
    ("metadata.max.age.ms", All, "1 to 86400000"),
    ("metadata.recovery.rebootstrap.trigger.ms", All, "0 to 2147483647"),
    ("metadata.recovery.strategy", All, "none, rebootstrap"),
    ("offset.store.method", Consumers, "none, file, broker"),
    ("offset.store.path", Consumers, ""),
    ("offset.store.sync.interval.ms", Consumers, "-1 to 86400000"),
    ("partition.assignment.strategy", Consumers, ""),
    ("partitioner", Producers, ""),
    ("plugin.library.paths", All, ""),
    ("produce.offset.report", Producers, "true, false"),
    ("queue.buffering.backpressure.threshold", Producers, "1 to 1000000"),
    ("queue.buffering.max.kbytes", Producers, "1 to 2147483647"),
    ("queue.buffering.max.messages", Producers, "0 to 2147483647"),
    ("queued.max.messages.kbytes", Consumers, "1 to 2097151"),
    ("queued.min.messages", Consumers, "1 to 10000000"),
    ("queuing.strategy", Producers, "fifo, lifo"),
    ("receive.message.max.bytes", All, "1000 to 2147483647"),
    ("reconnect.backoff.jitter.ms", All, "0 to 3600000"),
    ("reconnect.backoff.max.ms", All, "0 to 3600000"),
    ("reconnect.backoff.ms", All, "0 to 3600000"),
    ("request.timeout.ms", Producers, "1 to 900000"),
    ("retries", Producers, "0 to 2147483647"),
    ("retry.backoff.max.ms", All, "1 to 300000"),
    ("retry.backoff.ms", All, "1 to 300000"),
    ("sasl.kerberos.keytab", All, ""),
    ("sasl.kerberos.kinit.cmd", All, ""),
    ("sasl.kerberos.min.time.before.relogin", All, "0 to 86400000"),
    ("sasl.kerberos.principal", All, ""),
    ("sasl.kerberos.service.name", All, ""),
    ("sasl.mechanism", All, ""),
    ("sasl.oauthbearer.assertion.algorithm", All, "RS256, ES256"),
    ("sasl.oauthbearer.assertion.claim.aud", All, ""),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", All, "1 to 2147483647"),
    ("sasl.oauthbearer.assertion.claim.iss", All, ""),
    ("sasl.oauthbearer.assertion.claim.jti.include", All, "true, false"),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", All, "0 to 2147483647"),
    ("sasl.oauthbearer.assertion.claim.sub", All, ""),
    ("sasl.oauthbearer.assertion.file", All, ""),
    ("sasl.oauthbearer.assertion.jwt.template.file", All, ""),
    ("sasl.oauthbearer.assertion.private.key.file", All, ""),
    ("sasl.oauthbearer.assertion.private.key.passphrase", All, ""),
    ("sasl.oauthbearer.assertion.private.key.pem", All, ""),
    ("sasl.oauthbearer.client.id", All, ""),
    ("sasl.oauthbearer.client.secret", All, ""),
    ("sasl.oauthbearer.config", All, ""),
    ("sasl.oauthbearer.extensions", All, ""),
    ("sasl.oauthbearer.grant.type", All, "client_credentials, urn:ietf:params:oauth:grant-type:jwt-bearer"),
    ("sasl.oauthbearer.metadata.authentication.type", All, "none, azure_imds"),
    ("sasl.oauthbearer.method", All, "default, oidc"),
    ("sasl.oauthbearer.scope", All, ""),
    ("sasl.oauthbearer.token.endpoint.url", All, ""),
    ("sasl.password", All, ""),
    ("sasl.username", All, ""),
    ("security.protocol", All, "plaintext, ssl, sasl_plaintext, sasl_ssl"),
    ("session.timeout.ms", Consumers, "1 to 3600000"),
    ("socket.blocking.max.ms", All, "1 to 60000"),
    ("socket.connection.setup.timeout.ms", All, "1000 to 2147483647"),
    ("socket.keepalive.enable", All, "true, false"),
    ("socket.max.fails", All, "0 to 1000000"),
    ("socket.nagle.disable", All, "true, false"),
    ("socket.receive.buffer.bytes", All, "0 to 100000000"),
    ("socket.send.buffer.bytes", All, "0 to 100000000"),
    ("socket.timeout.ms", All, "10 to 300000"),
    ("ssl.ca.certificate.stores", All, ""),
    ("ssl.ca.location", All, ""),
    ("ssl.ca.pem", All, ""),
    ("ssl.certificate.location", All, ""),
    ("ssl.certificate.pem", All, ""),
    ("ssl.cipher.suites", All, ""),
    ("ssl.crl.location", All, ""),
    ("ssl.curves.list", All, ""),
    ("ssl.endpoint.identification.algorithm", All, "none, https"),
    ("ssl.engine.id", All, ""),
    ("ssl.engine.location", All, ""),
    ("ssl.key.location", All, ""),
    ("ssl.key.password", All, ""),
    ("ssl.key.pem", All, ""),
    ("ssl.keystore.location", All, ""),
    ("ssl.keystore.password", All, ""),
    ("ssl.providers", All, ""),
    ("ssl.sigalgs.list", All, ""),
    ("statistics.interval.ms", All, "0 to 86400000"),
    ("sticky.partitioning.linger.ms", Producers, "0 to 900000"),
    ("topic.blacklist", All, ""),
    ("topic.metadata.propagation.max.ms", All, "0 to 3600000"),
    ("topic.metadata.refresh.fast.cnt", All, "0 to 1000"),
    ("topic.metadata.refresh.fast.interval.ms", All, "1 to 60000"),
    ("topic.metadata.refresh.interval.ms", All, "-1 to 3600000"),
    ("topic.metadata.refresh.sparse", All, "true, false"),
    ("transaction.timeout.ms", Producers, "1000 to 2147483647"),
    ("transactional.id", Producers, ""),
];

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    #[test]
    fn librdkafka_knows_every_row() {
        let names = PROPERTIES.iter().map(|(name, ..)| *name).chain(ALIASES.iter().map(|(alias, _)| *alias));
        for name in names {
            // No value at all: what is asked is whether the name is known.
            let made = ClientConfig::new().set(name, "\u{1}").create_native_config();
            let unknown =
                matches!(made, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!unknown, "{name}");
        }
        for own in OWN {
            assert!(row(own).is_some(), "{own}");
        }
        for (_, known) in ALIASES {
            assert!(row(known).is_some(), "{known}");
        }
    }

    #[test]
    fn names_and_values_are_judged_and_never_shown() {
        let secret = "hunter2-planted";
        let cases = [
            ("sasl.password", Ok("sasl.password")),
            ("sasl.mechanisms", Ok("sasl.mechanism")),
            ("ssl.key.password", Ok("ssl.key.password")),
            ("sasl.pasword", Err("did you mean `sasl.password`?")),
            ("sasl.passwort", Err("did you mean `sasl.password`?")),
            (
                "sasl.jaas.config",
                Err("write \"sasl.username\" and \"sasl.password\", and \"sasl.mechanism\""),
            ),
            ("ssl.truststore.location", Err("write \"ssl.ca.location\", a file in PEM")),
            ("security.protocol", Err("write plaintext, ssl, sasl_plaintext, sasl_ssl")),
            ("socket.timeout.ms", Err("write 10 to 300000")),
            ("group.id", Err("remove it")),
            ("metadata.broker.list", Err("remove it")),
            ("request.required.acks", Err("remove it")),
            ("x", Err("see librdkafka's CONFIGURATION.md, or remove it")),
        ];
        for (name, expected) in cases {
            let checked = check_name(name)
                .and_then(|known| check_value(known, &SecretString::from(secret)).map(|()| known));
            if let Err((problem, remedy)) = &checked {
                assert!(!problem.contains(secret) && !remedy.contains(secret), "{problem}: {remedy}");
            }
            assert_eq!(checked.as_ref().map_err(|(_, remedy)| remedy.as_str()).copied(), expected, "{name}");
        }
    }
}
