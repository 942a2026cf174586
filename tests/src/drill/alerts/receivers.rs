//! Those who are notified: four web servers and a mail server, each bad in its own way, and what
//! they have.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::books::Books;
use super::story::RULES;
use crate::http::{Http, Misbehaviour};
use crate::smtp::{Action, Security, Smtp};

#[derive(Debug)]
pub(super) struct Receivers {
    /// Answers always, and at once.
    pub(super) steady: Http,
    flaky: Http,
    /// Up and down, and bad when it is up.
    away: Http,
    /// Is told in groups.
    grouped: Http,
    /// Is told in groups.
    mail: Smtp,
}

/// What a receiver has.
#[derive(Debug)]
pub(super) struct Notified {
    pub(super) receiver: &'static str,
    /// By when the first of their attempts came.
    pub(super) notifications: Vec<Notification>,
    /// Requests, mails.
    pub(super) attempts: usize,
    /// What is wrong with them by themselves.
    pub(super) problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notification {
    /// By which a receiver knows that it has it already.
    pub(super) key: String,
    /// The ids of the transitions that are notified by it.
    pub(super) transitions: Vec<String>,
}

impl Receivers {
    pub(super) fn start(random: &mut StdRng) -> Self {
        let receivers = Self {
            steady: Http::start(),
            flaky: Http::start(),
            away: Http::start(),
            grouped: Http::start(),
            mail: Smtp::start(Security::StartTls),
        };
        let passing = Misbehaviour::passing(Duration::from_millis(300));
        for (http, share) in [(&receivers.flaky, 0.3), (&receivers.away, 0.1), (&receivers.grouped, 0.3)] {
            http.misbehave_from(random.random(), share, &passing);
        }
        receivers
    }

    fn web(&self) -> [(&'static str, &Http); 4] {
        [("steady", &self.steady), ("flaky", &self.flaky), ("away", &self.away), ("grouped", &self.grouped)]
    }

    /// The text of the alerts file.
    pub(super) fn rules(&self) -> String {
        let [(high, high_to), (held, _)] = RULES;
        let mut text = format!(
            r#"
[[rule]]
name = "{high}"
rollup = "load"
condition = "avg > 90"
receivers = {high_to:?}

[[rule]]
name = "{held}"
rollup = "load"
condition = "avg > 90"
for = "20s"
receivers = ["away"]

[[route]]
matchers = ['alertname="{held}"']
receivers = ["grouped", "mail"]
group_by = ["region"]
group_wait = "300ms"
group_interval = "1s"

[[receiver]]
name = "mail"
[receiver.email]
host = "127.0.0.1"
port = {port}
tls = "starttls"
ca_file = "{ca}"
from = "tidemark@example.org"
to = ["oncall@example.org"]
"#,
            port = self.mail.port(),
            ca = self.mail.ca_pem().display(),
        );
        for (name, http) in self.web() {
            text.push_str(&format!(
                "\n[[receiver]]\nname = \"{name}\"\n[receiver.webhook]\nurl = \"{}\"\nallow_private = true\n",
                http.url()
            ));
        }
        text
    }

    /// What goes wrong next, besides what always does.
    pub(super) fn turn(&self, random: &mut StdRng, part: usize) {
        match part % 3 {
            0 => self.away.down(),
            1 => self.away.up(),
            _ => {}
        }
        let wrongs = [
            ("CONNECT", Action::Drop),
            ("MAIL FROM", Action::Reply("450 4.2.1 busy".to_owned())),
            ("RCPT TO", Action::Reply("451 4.3.0 try again".to_owned())),
            ("DATA", Action::DropInMail(5)),
            (".", Action::DropTaken),
            ("STARTTLS", Action::Drop),
        ];
        for _ in 0..3 {
            let (line, action) = &wrongs[random.random_range(0..wrongs.len())];
            self.mail.script(line, random.random_range(1..=2), action.clone());
        }
    }

    pub(super) fn behave(&self) {
        self.away.up();
        self.web().into_iter().for_each(|(_, http)| http.behave());
    }

    /// What the web servers did wrong.
    pub(super) fn faults(&self) -> usize {
        self.web().into_iter().map(|(_, http)| http.misbehaved().len()).sum()
    }

    pub(super) fn told(&self, books: &Books) -> Vec<Notified> {
        let mut told: Vec<Notified> = self.web().into_iter().map(|(name, http)| by_web(name, http)).collect();
        told.push(by_mail(&self.mail, books));
        told
    }
}

/// A request counts once it was read, whatever has become of the answer, unless the answer was that
/// it is not taken.
fn by_web(receiver: &'static str, http: &Http) -> Notified {
    let requests = http.requests();
    let mut told =
        Notified { receiver, notifications: Vec::new(), attempts: requests.len(), problems: Vec::new() };
    let mut bodies: BTreeMap<String, Value> = BTreeMap::new();
    for request in &requests {
        let refused = [Some(Misbehaviour::Unavailable), Some(Misbehaviour::Busy { retry_after: 1 })];
        if refused.contains(&request.misbehaviour) {
            continue;
        }
        let key = &request.headers["idempotency-key"];
        let alerts = request.json()["alerts"].clone();
        if let Some(before) = bodies.get(key) {
            if *before != alerts {
                told.problems.push(format!("{receiver}: {key} was {before}, and then {alerts}"));
            }
            continue;
        }
        let ids = alerts.as_array().expect("a list").iter().flat_map(|alert| {
            alert["transitions"].as_array().expect("a list").iter().map(|id| id.as_str().unwrap().to_owned())
        });
        told.notifications.push(Notification { key: key.clone(), transitions: ids.collect() });
        bodies.insert(key.clone(), alerts);
    }
    told
}

/// A mail does not say of which transitions it tells: the ledger says it of its id.
fn by_mail(mail: &Smtp, books: &Books) -> Notified {
    let deliveries = mail.deliveries();
    let mut told = Notified {
        receiver: "mail",
        notifications: Vec::new(),
        attempts: deliveries.len(),
        problems: Vec::new(),
    };
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    let mut keys = Vec::new();
    for delivery in &deliveries {
        let id = delivery.mail.header("Message-ID");
        let key = id.trim_start_matches('<').split('@').next().unwrap_or_default();
        let text = delivery.mail.text("text/plain");
        match bodies.insert(key, text) {
            None => keys.push(key),
            Some(before) if before == text => {}
            Some(before) => told.problems.push(format!("mail: {key} was {before:?}, and then {text:?}")),
        }
    }
    let mut transitions = books.told("mail", &bodies.keys().copied().collect());
    told.notifications = keys
        .into_iter()
        .map(|key| Notification {
            key: key.to_owned(),
            transitions: transitions.remove(key).unwrap_or_default(),
        })
        .collect();
    told
}
