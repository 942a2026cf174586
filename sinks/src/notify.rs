//! A notification: what the alerting side tells a person or a program, whatever the way it travels.

use std::collections::BTreeMap;
use std::fmt;

/// Whether an alert began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Firing,
    Resolved,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        })
    }
}

/// One alert transition for one receiver. Times are nanoseconds since the epoch, UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The same for every attempt and replay of this transition: the key under which it counts once.
    pub id: String,
    /// The name of the receiver in the alert configuration.
    pub receiver: String,
    pub status: Status,
    pub rule: String,
    pub severity: String,
    /// The labels of the rule and of the group it fired for.
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub description: String,
    /// The aggregates that the condition looked at.
    pub values: BTreeMap<String, f64>,
    pub starts_at: i64,
    /// Set once resolved.
    pub ends_at: Option<i64>,
    pub window_start: i64,
    pub window_end: i64,
    /// Where to look at the rollup behind the alert.
    pub generator_url: Option<String>,
}

impl Notification {
    /// The labels as receivers see them: with the rule as `alertname`, and `severity`.
    pub(crate) fn labels_with_rule(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert("alertname".into(), self.rule.clone());
        if !self.severity.is_empty() {
            labels.insert("severity".into(), self.severity.clone());
        }
        labels
    }

    /// What stays the same from firing to resolved and in the next incident: rule and labels.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:016x}", fingerprint(&self.labels_with_rule()))
    }
}

/// The label fingerprint of Prometheus and Alertmanager: 64-bit FNV-1a over sorted names and values, each
/// followed by byte 255 (`prometheus/common`, `model/signature.go`).
fn fingerprint(labels: &BTreeMap<String, String>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (name, value) in labels {
        for text in [name, value] {
            text.bytes().for_each(&mut add);
            add(255);
        }
    }
    hash
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A firing notification with something to escape in every text.
    pub(crate) fn example() -> Notification {
        Notification {
            id: "cpu-high/eu <1>".into(),
            receiver: "on-call".into(),
            status: Status::Firing,
            rule: "CpuHigh".into(),
            severity: "critical".into(),
            labels: BTreeMap::from([("region".into(), "eu".into()), ("team".into(), "<b>core</b>".into())]),
            summary: "CPU of eu above 90 %".into(),
            description: "avg is \"95.5\" & rising".into(),
            values: BTreeMap::from([("avg".into(), 95.5), ("max".into(), 100.0)]),
            starts_at: 1_700_000_000_000_000_000,
            ends_at: None,
            window_start: 1_699_999_940_000_000_000,
            window_end: 1_700_000_000_000_000_000,
            generator_url: Some("http://tidemark.example/rollups/cpu?a=1&b=2".into()),
        }
    }

    pub(crate) fn resolved() -> Notification {
        Notification {
            id: "cpu-high/eu <2>".into(),
            status: Status::Resolved,
            ends_at: Some(1_700_000_600_000_000_000),
            ..example()
        }
    }

    #[test]
    fn fingerprint_is_prometheus_own() {
        // The value of an empty label set in prometheus/common is the FNV offset basis.
        assert_eq!(fingerprint(&BTreeMap::new()), 14_695_981_039_346_656_037);
        // Computed from the published definition of FNV-1a.
        let labels = BTreeMap::from([("alertname".into(), "a".into()), ("region".into(), "eu".into())]);
        assert_eq!(fingerprint(&labels), 17_103_272_034_202_563_235);
        assert_eq!(example().fingerprint(), resolved().fingerprint());
        let mut other = example();
        other.labels.insert("region".into(), "us".into());
        assert_ne!(other.fingerprint(), example().fingerprint());
    }
}
