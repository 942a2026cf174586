//! A notification about a group of alerts, as every sink of alerts takes it. Times are nanoseconds
//! since the epoch, UTC.

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

/// Why the group is notified now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// Alerts began, ended or were corrected.
    #[default]
    Changed,
    /// Nothing changed, and the alerts have fired for long.
    Repeated,
    /// The receivers notified before did not acknowledge it.
    Escalated,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Repeated => "repeated",
            Self::Escalated => "escalated",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One message to one receiver about one group of alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The key under which a receiver counts it once; the same for every attempt.
    pub id: String,
    /// The name of the receiver in the alert configuration.
    pub receiver: String,
    /// Of the group within the receiver, the same from the first notification to the last: mails
    /// thread on it, and it is Alertmanager's `groupKey`.
    pub group_key: String,
    pub group_labels: BTreeMap<String, String>,
    /// Where people reach the program that notifies.
    pub external_url: Option<String>,
    /// At least one; firing first.
    pub alerts: Vec<Alert>,
    pub reason: Reason,
    /// Further sentences for the reader.
    pub notes: Vec<String>,
}

/// The newest state of one alert of the group.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Ids of the transitions that this notification announces, oldest first; empty for a repeated
    /// one.
    pub transitions: Vec<String>,
    pub incident: String,
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
    /// `condition`, `no_data`, `correction`, `forgotten` or `rule_changed`.
    pub cause: String,
    /// The window is still open; it is confirmed or withdrawn when it closes.
    pub provisional: bool,
    pub owner: Option<String>,
    /// What to do about it: an address, or text.
    pub runbook: Option<String>,
    /// Where to look at the rollup of the alert.
    pub generator_url: Option<String>,
    /// Event time of the newest sample of the alert.
    pub sample: Option<i64>,
    pub ingested: Option<i64>,
    pub evaluated: Option<i64>,
}

impl Notification {
    /// Firing while any alert fires.
    pub fn status(&self) -> Status {
        if self.firing() > 0 { Status::Firing } else { Status::Resolved }
    }

    /// How many alerts fire.
    pub fn firing(&self) -> usize {
        self.with_status(Status::Firing).count()
    }

    pub(crate) fn with_status(&self, status: Status) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(move |alert| alert.status == status)
    }
}

impl Alert {
    /// The labels as receivers see them: with the rule as `alertname`, and `severity`.
    pub(crate) fn labels_with_rule(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert("alertname".into(), self.rule.clone());
        if !self.severity.is_empty() {
            labels.insert("severity".into(), self.severity.clone());
        }
        labels
    }

    /// The texts as receivers of Alertmanager's form know them.
    pub(crate) fn annotations(&self) -> BTreeMap<&'static str, &str> {
        let mut annotations =
            BTreeMap::from([("summary", self.summary.as_str()), ("description", self.description.as_str())]);
        annotations.extend(self.runbook.as_deref().map(|runbook| ("runbook_url", runbook)));
        annotations.extend(self.owner.as_deref().map(|owner| ("owner", owner)));
        annotations
    }

    /// What stays the same from firing to resolved and in the next incident: rule and labels.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:016x}", fingerprint(&self.labels_with_rule()))
    }
}

/// The address if it is one of the web: other schemes could run something on a click.
pub(crate) fn web_address(url: &str) -> Option<&str> {
    Some(url).filter(|url| url.starts_with("http://") || url.starts_with("https://"))
}

/// The label fingerprint of Prometheus and Alertmanager: 64-bit FNV-1a over sorted names and
/// values, each followed by byte 255 (`prometheus/common`, `model/signature.go`).
fn fingerprint(labels: &BTreeMap<String, String>) -> u64 {
    fnv(labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
}

/// 64-bit FNV-1a over texts, each followed by byte 255, which is in no text.
pub(crate) fn fnv<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([255]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A firing alert with something to escape in every text.
    pub(crate) fn alert() -> Alert {
        Alert {
            transitions: vec!["t1".into()],
            incident: "i1".into(),
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
            cause: "condition".into(),
            provisional: false,
            owner: None,
            runbook: None,
            generator_url: Some("http://tidemark.example/rollups/cpu?a=1&b=2".into()),
            sample: Some(1_699_999_999_000_000_000),
            ingested: Some(1_700_000_001_000_000_000),
            evaluated: None,
        }
    }

    /// One alert, firing.
    pub(crate) fn example() -> Notification {
        Notification {
            id: "cpu-high/eu <1>".into(),
            receiver: "on-call".into(),
            group_key: r#"cpu:{region="eu"}"#.into(),
            group_labels: BTreeMap::from([("region".into(), "eu".into())]),
            external_url: Some("http://tidemark.example/".into()),
            alerts: vec![alert()],
            reason: Reason::Changed,
            notes: vec![],
        }
    }

    pub(crate) fn resolved() -> Notification {
        let ended = Alert {
            status: Status::Resolved,
            transitions: vec!["t2".into()],
            ends_at: Some(1_700_000_600_000_000_000),
            ..alert()
        };
        Notification { id: "cpu-high/eu <2>".into(), alerts: vec![ended], ..example() }
    }

    /// Two that fire and one that has ended, with all that an alert can have.
    pub(crate) fn group() -> Notification {
        let memory = Alert {
            rule: "MemoryLow".into(),
            severity: String::new(),
            labels: BTreeMap::from([("region".into(), "eu".into()), ("host".into(), "h>1".into())]),
            summary: "Memory <low>".into(),
            cause: "no_data".into(),
            provisional: true,
            owner: Some("core & co".into()),
            runbook: Some("https://runbooks.example/memory?a=1&b=2".into()),
            generator_url: Some("javascript:alert(1)".into()),
            ..alert()
        };
        let disk = Alert {
            rule: "DiskFull".into(),
            transitions: vec!["t3".into(), "t4".into()],
            summary: "Disk of eu full".into(),
            ..resolved().alerts.remove(0)
        };
        Notification {
            id: "group-1".into(),
            alerts: vec![alert(), memory, disk],
            notes: vec!["data incomplete since 12:00".into()],
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
        assert_eq!(alert().fingerprint(), resolved().alerts[0].fingerprint());
        let mut other = alert();
        other.labels.insert("region".into(), "us".into());
        assert_ne!(other.fingerprint(), alert().fingerprint());
    }

    #[test]
    fn a_group_fires_while_one_of_it_does() {
        for (notification, status, firing) in
            [(example(), Status::Firing, 1), (resolved(), Status::Resolved, 0), (group(), Status::Firing, 2)]
        {
            assert_eq!((notification.status(), notification.firing()), (status, firing));
        }
    }
}
