//! The receivers of the trials themselves: that they misbehave as they say, and keep what they were
//! given.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use reqwest::Client;
use sinks::webhook::{WebhookConfig, WebhookSink};
use sinks::{ClientCertificate, HttpConfig, Sink};
use tidemark_tests::http::{Answered, Http, Misbehaviour};
use tidemark_tests::smtp::{Action, Security, Smtp};
use tidemark_tests::tls::{Authority, Identity, TlsFront};
use tidemark_tests::wait_until;
use tokio::runtime::{Builder, Runtime};

use crate::peers::alerting::notification;
use crate::real::PATIENCE;

/// A pause that passes.
const SHORT: Duration = Duration::from_millis(100);
/// Of a client that gives up, long enough for a busy machine to have read its request; and of a
/// server that outlasts it.
const IMPATIENCE: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(600);

type Body = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let trials: [(&str, Body); 6] = [
        ("a_webhook_receiver_misbehaves_as_it_says_and_has_what_it_has_read", each_misbehaviour),
        ("a_webhook_receiver_refuses_connections_and_listens_again", refused_and_back),
        ("a_seed_gives_the_same_misbehaviour_again", same_seed_same_misbehaviour),
        ("one_that_tries_again_loses_nothing_to_a_bad_receiver", nothing_is_lost),
        ("a_webhook_trusts_whom_it_is_told_to_and_shows_its_certificate", trusted),
        ("a_mail_server_misbehaves_as_it_says_and_has_what_it_has_taken", each_mail),
    ];
    trials.into_iter().map(|(name, run)| Trial::test(format!("receivers::{name}"), run)).collect()
}

fn each_misbehaviour() -> Result<(), Failed> {
    // The status that the client hears, what it hears of the body, and what the receiver has kept.
    let cases = [
        (Misbehaviour::CutBeforeReading, None, None),
        (Misbehaviour::CutBeforeAnswer, None, Some(Answered::Nothing)),
        (Misbehaviour::CutInHeaders, None, Some(Answered::Part(200))),
        (Misbehaviour::CutInBody, Some((200, false)), Some(Answered::Part(200))),
        (Misbehaviour::Slow { pause: LONG }, None, Some(Answered::Nothing)),
        (Misbehaviour::Slow { pause: SHORT }, Some((200, true)), Some(Answered::Status(200))),
        (Misbehaviour::Busy { retry_after: 7 }, Some((429, true)), Some(Answered::Status(429))),
        (Misbehaviour::Unavailable, Some((503, true)), Some(Answered::Status(503))),
        (Misbehaviour::Reject, Some((400, true)), Some(Answered::Status(400))),
    ];
    for (misbehaviour, heard, kept) in cases {
        let http = Http::start();
        let sender = Sender::new();
        http.misbehave(misbehaviour);
        let patience =
            if misbehaviour == (Misbehaviour::Slow { pause: LONG }) { IMPATIENCE } else { PATIENCE };
        let answer = sender.post(&http, "k1", patience);
        assert_eq!(answer.as_ref().map(|answer| (answer.status, answer.whole)), heard, "{misbehaviour:?}");
        let retry_after = answer.and_then(|answer| answer.retry_after);
        let busy = matches!(misbehaviour, Misbehaviour::Busy { .. });
        assert_eq!(retry_after.as_deref(), busy.then_some("7"), "{misbehaviour:?}");

        let requests = http.requests();
        assert_eq!(requests.first().map(|request| request.answered), kept, "{misbehaviour:?}");
        assert!(requests.iter().all(|request| request.misbehaviour == Some(misbehaviour)));
        assert!(requests.iter().all(|request| request.body == Sender::BODY.as_bytes()));
        assert_eq!(http.misbehaved(), [misbehaviour]);
        // Once only.
        assert_eq!(sender.post(&http, "k2", PATIENCE).map(|answer| answer.status), Some(200));
        assert_eq!(http.by_key("idempotency-key").len(), 1 + usize::from(kept.is_some()), "{misbehaviour:?}");
    }
    Ok(())
}

fn refused_and_back() -> Result<(), Failed> {
    let http = Http::start();
    let sender = Sender::new();
    let listens = || TcpStream::connect(http.url().trim_start_matches("http://")).is_ok();
    http.misbehave(Misbehaviour::Refuse { pause: LONG });
    assert!(sender.post(&http, "k", PATIENCE).is_none());
    wait_until(PATIENCE, "a closed port", || if listens() { Err("open".to_owned()) } else { Ok(()) });
    assert!(http.requests().is_empty(), "{:#?}", http.requests());
    http.up();
    assert_eq!(sender.post(&http, "k", PATIENCE).map(|answer| answer.status), Some(200));

    http.misbehave(Misbehaviour::Refuse { pause: SHORT });
    assert!(sender.post(&http, "l", PATIENCE).is_none());
    wait_until(PATIENCE, "an open port", || {
        sender.post(&http, "l", PATIENCE).ok_or_else(|| "refused".to_owned()).map(drop)
    });
    Ok(())
}

fn same_seed_same_misbehaviour() -> Result<(), Failed> {
    let among = Misbehaviour::passing(Duration::from_millis(1));
    let run = |seed| {
        let http = Http::start();
        let sender = Sender::new();
        http.misbehave_from(seed, 0.5, &among);
        while http.misbehaved().len() < 40 {
            let _ = sender.post(&http, "k", PATIENCE);
        }
        http.behave();
        let count = http.misbehaved().len();
        assert_eq!(sender.post_until_taken(&http, "k"), 200);
        assert_eq!(http.misbehaved().len(), count, "it behaves");
        http.misbehaved()
    };
    let first = run(7);
    assert_eq!(run(7), first);
    assert_ne!(run(8), first);
    let missing: Vec<&Misbehaviour> = among.iter().filter(|kind| !first.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    Ok(())
}

fn nothing_is_lost() -> Result<(), Failed> {
    let http = Arc::new(Http::start());
    http.misbehave_from(3, 0.6, &Misbehaviour::passing(Duration::from_millis(5)));
    let each = |first: usize| {
        let http = Arc::clone(&http);
        move || {
            let sender = Sender::new();
            (first..40).step_by(4).for_each(|key| {
                sender.post_until_taken(&http, &format!("k{key}"));
            });
        }
    };
    let senders: Vec<_> = (0..4).map(|first| std::thread::spawn(each(first))).collect();
    for sender in senders {
        sender.join().map_err(|_| "a sender gave up")?;
    }
    let taken = http.by_key("idempotency-key");
    assert_eq!(taken.len(), 40);
    let told_once = taken.values().all(|requests| {
        let heard = |answered| matches!(answered, Answered::Status(200) | Answered::Part(200));
        requests.iter().any(|request| heard(request.answered))
    });
    assert!(told_once, "{taken:#?}");
    assert!(
        taken.values().any(|requests| requests.len() > 1),
        "nothing was sent twice, so this shows nothing"
    );
    Ok(())
}

fn trusted() -> Result<(), Failed> {
    let (http, authority, stranger) = (Http::start(), Authority::new(), Authority::new());
    let front = TlsFront::start(&authority, http.url().trim_start_matches("http://"));
    let write = |trusts: Option<&Authority>, shows: Option<&Authority>| {
        let url = front.url().parse().expect("an address");
        let client_certificate = shows.map(|authority| {
            let Identity { certificate, key } = authority.identity();
            ClientCertificate { cert_file: certificate, key_file: key }
        });
        let ca_file = trusts.map(Authority::ca_pem);
        let config =
            HttpConfig { ca_file, client_certificate, allow_private: true, ..HttpConfig::new(url, PATIENCE) };
        let sink = WebhookSink::new(WebhookConfig { http: config, signing_key: None }).expect("a sink");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(sink.write(notification()))
    };
    for (trusts, shows) in [
        (None, Some(&authority)),
        (Some(&stranger), Some(&authority)),
        (Some(&authority), None),
        (Some(&authority), Some(&stranger)),
    ] {
        let error = write(trusts, shows).expect_err("one does not know the other");
        assert!(error.retryable(), "{error}");
        assert_eq!(http.count(), 0, "{error}");
    }
    write(Some(&authority), Some(&authority))?;
    assert_eq!(http.count(), 1);
    Ok(())
}

fn each_mail() -> Result<(), Failed> {
    let reply = |text: &str| Action::Reply(text.to_owned());
    let whole = "EHLO me|MAIL FROM:<from@x.y>|RCPT TO:<a@x.y>|RCPT TO:<gone@x.y>|DATA|Subject: s||b|.|QUIT";
    // The rule, the replies from the greeting on (`-` a closed connection, `...` silence), the
    // recipients of the mail that the server has, and whether its sender knows.
    type Case = (&'static str, Option<Action>, &'static str, Option<(usize, bool)>);
    let cases: [Case; 10] = [
        ("", None, "220 250 250 250 250 354 250 221", Some((2, true))),
        ("RCPT TO:<gone@", Some(reply("550 5.1.1 gone")), "220 250 250 250 550 354 250 221", Some((1, true))),
        ("RCPT TO:<gone@", Some(reply("452 4.2.2 full")), "220 250 250 250 452 354 250 221", Some((1, true))),
        (".", Some(reply("451 4.3.0 later")), "220 250 250 250 250 354 451 221", None),
        (".", Some(Action::Drop), "220 250 250 250 250 354 -", None),
        (".", Some(Action::DropTaken), "220 250 250 250 250 354 -", Some((2, false))),
        (".", Some(Action::Silence), "220 250 250 250 250 354 ...", None),
        ("DATA", Some(Action::DropInMail(2)), "220 250 250 250 250 354 -", None),
        ("CONNECT", Some(Action::Silence), "...", None),
        ("CONNECT", Some(reply("421 4.3.2 closing")), "421 250 250 250 250 354 250 221", Some((2, true))),
    ];
    for (containing, action, replies, has) in cases {
        let smtp = Smtp::start(Security::Plain);
        let case = format!("{containing} {action:?}");
        if let Some(action) = action {
            smtp.script(containing, 1, action);
        }
        assert_eq!(talk(&smtp, whole), replies, "{case}");
        let deliveries = smtp.deliveries();
        let found = deliveries.first().map(|delivery| (delivery.to.len(), delivery.acknowledged));
        assert_eq!(found, has, "{case}");
        assert_eq!(deliveries.len(), usize::from(has.is_some()), "{case}");
    }
    Ok(())
}

/// The codes of the replies to these lines, sent one by one; lines of the mail have none.
fn talk(smtp: &Smtp, lines: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", smtp.port())).unwrap();
    socket.set_read_timeout(Some(IMPATIENCE)).unwrap();
    let mut replies = BufReader::new(socket.try_clone().unwrap());
    let mut codes = Vec::new();
    let mut in_mail = false;
    for line in [""].into_iter().chain(lines.split('|')) {
        if !codes.is_empty() && socket.write_all(format!("{line}\r\n").as_bytes()).is_err() {
            codes.push("-".to_owned());
            break;
        }
        in_mail &= line != ".";
        if in_mail {
            continue;
        }
        let code = code(&mut replies);
        in_mail = code == "354";
        let over = code == "-" || code == "...";
        codes.push(code);
        if over {
            break;
        }
    }
    codes.join(" ")
}

/// Of the next reply, all its lines.
fn code(replies: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        match replies.read_line(&mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return "...".to_owned(),
            Ok(0) | Err(_) => return "-".to_owned(),
            Ok(_) if line.as_bytes()[3] == b'-' => {}
            Ok(_) => return line[..3].to_owned(),
        }
    }
}

/// What a sender hears.
struct Heard {
    status: u16,
    retry_after: Option<String>,
    /// The body came to its end.
    whole: bool,
}

struct Sender {
    client: Client,
    runtime: Runtime,
}

impl Sender {
    const BODY: &str = "{\"version\":\"4\"}";

    fn new() -> Self {
        // Without a pool: a client that finds its connection closed sends a request again by
        // itself.
        let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { client, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// None: it heard nothing.
    fn post(&self, http: &Http, key: &str, patience: Duration) -> Option<Heard> {
        let request = self.client.post(http.url()).header("idempotency-key", key).body(Self::BODY);
        self.runtime.block_on(async {
            let response = request.timeout(patience).send().await.ok()?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get("retry-after");
            let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
            Some(Heard { status, retry_after, whole: response.bytes().await.is_ok() })
        })
    }

    fn post_until_taken(&self, http: &Http, key: &str) -> u16 {
        wait_until(PATIENCE, "an answer of 200", || match self.post(http, key, PATIENCE) {
            Some(Heard { status: 200, .. }) => Ok(200),
            other => Err(format!("{:?}", other.map(|heard| heard.status))),
        })
    }
}
