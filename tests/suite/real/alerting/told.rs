//! One site with everything that decides notifications: routes and receivers of every kind, each
//! with a job of its own whose hosts are ill. What comes of it is looked at in `routes` and
//! `receivers`.

use std::env;
use std::fmt::Write as _;

use alerts::dispatch::{Acknowledge, Command, Entry, Matcher, Silence, What};
use libtest_mimic::Trial;
use tidemark_tests::alertmanager::Alertmanager;
use tidemark_tests::http::{Http, Request};
use tidemark_tests::provided::Unavailable;
use tidemark_tests::smtp::{Action, Security, Smtp};
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;
use tidemark_tests::webhook_consumer::WebhookConsumer;

use super::super::{PATIENCE, Servers};
use super::feed::{Feed, LOAD, deployment};
use super::ledger::Ledger;
use super::{receivers, routes, shared_trials};

pub(super) const SIGNING_KEY: &str = "a key of 32 bytes, for this trial";
/// What the receiver of signed webhooks asks for: longer than any first pause of our own. Seconds.
pub(super) const RETRY_AFTER: u64 = 5;
/// Of the route `pair`, seconds.
pub(super) const GROUP_INTERVAL: i64 = 5;

/// The site, and all that it tells.
pub(super) struct Notified {
    pub(super) ledger: Ledger,
    /// One path a receiver, all of which behave.
    hooks: Http,
    pub(super) strict: Http,
    pub(super) signed: Http,
    pub(super) private: Http,
    pub(super) away: Http,
    pub(super) starttls: Smtp,
    pub(super) implicit: Smtp,
    pub(super) plain: Smtp,
    /// Where they cannot be had, their trials are ignored.
    pub(super) strangers: Result<(Alertmanager, WebhookConsumer), Unavailable>,
    /// Runs until the last trial has looked.
    _tidemark: Tidemark,
}

impl Notified {
    /// What a receiver of the path has been sent.
    pub(super) fn posts(&self, path: &str) -> Vec<Request> {
        let path = format!("/{path}");
        self.hooks.requests().into_iter().filter(|request| request.path == path).collect()
    }

    #[track_caller]
    pub(super) fn wait_for_posts(&self, path: &str, count: usize) -> Vec<Request> {
        wait_until(PATIENCE, &format!("{count} posts to {path}"), || {
            let posts = self.posts(path);
            if posts.len() >= count {
                Ok(posts)
            } else {
                Err(format!("{posts:#?}\n{:#?}", self.ledger.entries()))
            }
        })
    }

    /// What the ledger says of the transitions of a host's alert, in its order.
    pub(super) fn said_of(&self, rule: &str, host: &str) -> Vec<Entry> {
        let mut entries = self.ledger.entries();
        entries.retain(|entry| entry.transition.is_some() && entry.rule == rule && is_host(entry, host));
        entries
    }
}

pub(super) fn is_host(entry: &Entry, host: &str) -> bool {
    entry.labels.get("host").is_some_and(|label| label == host)
}

pub(super) fn is_about(entry: &Entry, receiver: &str, what: What) -> bool {
    entry.receiver.as_deref() == Some(receiver) && entry.what == what
}

pub(super) fn trials() -> Vec<Trial> {
    let missing = Alertmanager::find().and_then(|_| WebhookConsumer::find()).is_err()
        && env::var_os("TIDEMARK_REQUIRE_SERVERS").is_none();
    let of_strangers = |trial: &Trial| receivers::STRANGERS.iter().any(|name| trial.name().ends_with(name));
    // Why they are missing is said where the trials of these servers alone are.
    shared_trials(start, [routes::CHECKS.as_slice(), receivers::CHECKS.as_slice()].concat())
        .into_iter()
        .map(|trial| if missing && of_strangers(&trial) { trial.with_ignored_flag(true) } else { trial })
        .collect()
}

const RULES: &str = r#"
[[rule]]
name = "High"
rollup = "load"
condition = "job NOT IN ('inhibited', 'template') AND avg > 90"
summary = "load of {{ labels.host }} is {{ values.avg|fixed(0) }}"

[[rule]]
name = "Down"
rollup = "load"
condition = "job = 'inhibited' AND avg > 90"

[[rule]]
name = "Slow"
rollup = "load"
condition = "job = 'inhibited' AND avg > 80"

[[rule]]
name = "Broken"
rollup = "load"
condition = "job = 'template' AND avg > 90"
# Only the values that come show that it cannot be rendered.
summary = "number {{ labels.host|int }}"

[[inhibit]]
source = ['alertname="Down"']
target = ['alertname="Slow"']
equal = ["host"]

[[mute]]
name = "always"
windows = [{ times = ["00:00-24:00"] }]
"#;

/// The job that a route is for, and the route but for its matcher.
const ROUTES: [(&str, &str); 15] = [
    (
        "pair",
        "receivers = [\"mail-pair\"]\ngroup_by = [\"job\"]\ngroup_wait = \"4s\"\ngroup_interval = \"5s\"",
    ),
    ("repeated", "receivers = [\"repeated\"]\nrepeat_interval = \"2s\""),
    ("inhibited", "receivers = [\"inhibited\"]"),
    ("silenced", "receivers = [\"silenced\"]"),
    ("muted", "receivers = [\"muted\"]\nmute = [\"always\"]"),
    ("calls", "receivers = [\"first\"]\nescalate = [{ after = \"10s\", receivers = [\"second\"] }]"),
    ("rejected", "receivers = [\"strict\"]"),
    ("template", "receivers = [\"template\"]"),
    ("corrected", "receivers = [\"corrected\"]"),
    ("recipients", "receivers = [\"mail-two\"]"),
    ("plain", "receivers = [\"mail-plain\"]"),
    ("signed", "receivers = [\"signed\"]"),
    ("private", "receivers = [\"private\"]"),
    ("away", "receivers = [\"away\"]"),
    ("strangers", "receivers = [\"strangers\", \"alertmanager\", \"consumer\"]"),
];

/// Receivers by webhook that behave, each with the path of its name.
const HOOKS: [&str; 10] = [
    "repeated",
    "inhibited",
    "silenced",
    "muted",
    "first",
    "second",
    "template",
    "corrected",
    "fallback",
    "strangers",
];

fn webhook(name: &str, url: &str, more: &str, allow_private: bool) -> String {
    format!(
        "[[receiver]]\nname = \"{name}\"\n{more}\n[receiver.webhook]\nurl = \"{url}\"\nallow_private = {allow_private}\n"
    )
}

fn mail(name: &str, smtp: &Smtp, tls: &str, to: &str, more: &str) -> String {
    format!(
        "[[receiver]]\nname = \"{name}\"\n[receiver.email]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"{tls}\"\n\
         from = \"tidemark@example.org\"\nto = {to}\nca_file = \"{}\"\n{more}\n",
        smtp.port(),
        smtp.ca_pem().display()
    )
}

const ALERTMANAGER: &str = r#"
route: { receiver: nobody, group_by: [job], group_wait: 1s }
receivers: [{ name: nobody }]
"#;

impl Notified {
    fn alerts(&self) -> String {
        let mut text = RULES.to_owned();
        for (job, route) in ROUTES {
            let known = self.strangers.is_ok();
            let route =
                if known { route.to_owned() } else { route.replace(", \"alertmanager\", \"consumer\"", "") };
            let _ = writeln!(text, "[[route]]\nname = \"{job}\"\nmatchers = ['job=\"{job}\"']\n{route}\n");
        }
        for name in HOOKS {
            text.push_str(&webhook(name, &format!("{}/{name}", self.hooks.url()), "", true));
        }
        text.push_str(&webhook("strict", &self.strict.url(), "fallback = \"fallback\"", true));
        // A name, because the file may not even name an address that is private.
        let by_name = self.private.url().replace("127.0.0.1", "localhost");
        text.push_str(&webhook("private", &by_name, "fallback = \"fallback\"", false));
        text.push_str(&webhook("away", &self.away.url(), "", true));
        text.push_str(&webhook("signed", &self.signed.url(), "", true));
        let _ = writeln!(text, "signing_key = \"{SIGNING_KEY}\"");
        text.push_str(&mail("mail-pair", &self.starttls, "starttls", "[\"oncall@example.org\"]", ""));
        let login = "username = \"tidemark\"\npassword = \"sesame\"";
        let two = "[\"gone@example.org\", \"here@example.org\"]";
        text.push_str(&mail("mail-two", &self.implicit, "implicit", two, login));
        text.push_str(&mail("mail-plain", &self.plain, "starttls", "[\"oncall@example.org\"]", ""));
        if let Ok((alertmanager, consumer)) = &self.strangers {
            text.push_str(&webhook("consumer", &consumer.url(), "", true));
            let url = alertmanager.url();
            let _ = writeln!(
                text,
                "[[receiver]]\nname = \"alertmanager\"\n[receiver.alertmanager]\nurl = \"{url}\"\nallow_private = true"
            );
        }
        text
    }

    /// The first window: everybody is ill.
    fn first_window() -> Feed {
        let ill = [
            ("pair", "p1"),
            ("pair", "p2"),
            ("repeated", "r1"),
            ("inhibited", "i1"),
            ("silenced", "s1"),
            ("muted", "m1"),
            ("calls", "c1"),
            ("calls", "c2"),
            ("rejected", "j1"),
            ("template", "t1"),
            ("corrected", "l1"),
            ("recipients", "a1"),
            ("plain", "n1"),
            ("signed", "g1"),
            ("private", "v1"),
            ("away", "w1"),
            ("strangers", "x1"),
            ("strangers", "x2"),
        ];
        ill.iter().fold(Feed::default(), |feed, (job, host)| feed.load(1, job, host, 95.0)).close(1)
    }

    /// The second: one more of the pair, one is better than before, one was never ill, two are well
    /// again.
    fn second_window() -> Feed {
        Feed::default()
            .load(1, "corrected", "l1", 5.0)
            .load(2, "pair", "p3", 95.0)
            .load(2, "inhibited", "i1", 85.0)
            .load(2, "away", "w1", 50.0)
            .load(2, "strangers", "x1", 50.0)
            .close(2)
    }
}

fn start(servers: &Servers) -> Notified {
    let topic = servers.kafka.unique_topic("told", 1);
    let deployment = deployment(servers, "told", &topic, 2);
    let strangers =
        Alertmanager::start(ALERTMANAGER).and_then(|server| Ok((server, WebhookConsumer::start()?)));
    let mut told = Notified {
        ledger: Ledger::new(servers.kafka, &deployment.id),
        hooks: Http::start(),
        strict: Http::start(),
        signed: Http::start(),
        private: Http::start(),
        away: Http::start(),
        starttls: Smtp::start(Security::StartTls),
        implicit: Smtp::start_with_login(Security::Implicit, "tidemark", "sesame", "PLAIN LOGIN"),
        plain: Smtp::start(Security::Plain),
        strangers,
        _tidemark: deployment.process("data", &[("load", LOAD)]),
    };
    told.strict.answer(400, &[]);
    told.signed.answer(429, &[("retry-after", &RETRY_AFTER.to_string())]);
    told.away.down();
    let unknown = Action::Reply("550 5.1.1 no such user".to_owned());
    told.implicit.script("RCPT TO:<gone@", usize::MAX, unknown);
    told._tidemark.write("alerts.toml", &told.alerts());
    told._tidemark.call(&["topics", "create"]);
    told.ledger.command("silence/s1", &silence(i64::MAX));
    told._tidemark.run("ingest,rollup,notify");

    Notified::first_window().send(servers, &topic);
    // Before it is escalated.
    let calls = told.wait_for_posts("first", 2);
    let taken_on = calls.iter().map(Request::json).find(|post| post["alerts"][0]["labels"]["host"] == "c1");
    let incident = taken_on.unwrap()["alerts"][0]["incident"].as_str().unwrap().to_owned();
    let acknowledge =
        Acknowledge { incident: incident.clone(), by: "kim".to_owned(), comment: "on it".to_owned(), at: 0 };
    told.ledger.command(&format!("ack/{incident}"), &Command::Acknowledge(acknowledge));
    // What the second window changes has been notified before.
    told.starttls.wait_for(1, PATIENCE);
    told.wait_for_posts("corrected", 1);
    told.ledger.wait_for("`away` does not listen", |entry| is_about(entry, "away", What::Attempted));
    if let Ok((alertmanager, _)) = &told.strangers {
        wait_until(PATIENCE, "two alerts at Alertmanager", || match alertmanager.alerts() {
            alerts if alerts.len() == 2 => Ok(()),
            alerts => Err(format!("{alerts:#?}")),
        });
    }
    Notified::second_window().send(servers, &topic);
    told
}

/// Of the job `silenced`, until this time.
pub(super) fn silence(ends_at: i64) -> Command {
    Command::Silence(Silence {
        id: "s1".to_owned(),
        matchers: vec![Matcher::parse("job=\"silenced\"").unwrap()],
        starts_at: 0,
        ends_at,
        created_by: "kim".to_owned(),
        comment: "moved to another rack".to_owned(),
        created_at: 0,
    })
}
