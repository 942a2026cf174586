//! A web server that keeps the requests it gets, and answers them by a script, or as badly as a
//! seed says: the receiver of webhooks.
//!
//! A request is kept once the whole of it was read, whatever is done with it afterwards: a receiver
//! that was given a request and did not say so has it all the same.

mod conversation;
mod misbehaviour;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::ports::{free_port, listen};
use crate::wait::wait_until;

pub use misbehaviour::Misbehaviour;
use misbehaviour::Mood;

/// A request as it came in, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub answered: Answered,
    /// What was done with it instead of answering as scripted, or 200.
    pub misbehaviour: Option<Misbehaviour>,
}

/// How much of an answer a request has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// None: not yet, or not at all, or the client had left by then.
    Nothing,
    /// The beginning of an answer with this status, and then the connection was closed.
    Part(u16),
    /// The whole answer, with this status.
    Status(u16),
}

impl Request {
    /// The body.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One answer of a script.
#[derive(Debug, Clone, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// The time from reading the request to answering it.
    after: Duration,
}

impl Answer {
    fn ok() -> Self {
        Self { status: 200, ..Self::default() }
    }
}

/// What is to be done with one request.
#[derive(Debug, Clone)]
enum Turn {
    Answer(Answer),
    Misbehave(Misbehaviour),
}

#[derive(Debug, Default)]
struct Record {
    script: VecDeque<Turn>,
    /// After the script.
    mood: Option<Mood>,
    misbehaved: Vec<Misbehaviour>,
    requests: Vec<Request>,
}

impl Record {
    /// For the request whose first byte has come.
    fn next_turn(&mut self) -> Turn {
        let scripted = self.script.pop_front();
        let drawn = || self.mood.as_mut().and_then(Mood::draw).map(Turn::Misbehave);
        let turn = scripted.or_else(drawn).unwrap_or_else(|| Turn::Answer(Answer::ok()));
        if let Turn::Misbehave(misbehaviour) = &turn {
            self.misbehaved.push(*misbehaviour);
        }
        turn
    }
}

type Shared = Arc<Mutex<Record>>;

/// The server. It answers 200 with an empty body, but for what is scripted. Dropping it closes its
/// port.
#[derive(Debug)]
pub struct Http {
    port: u16,
    record: Shared,
    /// Its own runtime, because ending that ends its connections, each of which is a task. None
    /// while it is down.
    serving: Mutex<Option<Runtime>>,
}

impl Http {
    /// A server on a free port.
    pub fn start() -> Self {
        let server = Self { port: free_port(), record: Shared::default(), serving: Mutex::new(None) };
        server.up();
        server
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers one more request with `status` and these headers (`("retry-after", "1")`), after
    /// those scripted before.
    pub fn answer(&self, status: u16, headers: &[(&str, &str)]) {
        self.answer_with(status, headers, "");
    }

    /// As [`Http::answer`], with a body.
    pub fn answer_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer { status, headers, body: body.to_owned(), after: Duration::ZERO };
        self.record.lock().unwrap().script.push_back(Turn::Answer(answer));
    }

    /// Does this with one more request, after those scripted before.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.record.lock().unwrap().script.push_back(Turn::Misbehave(misbehaviour));
    }

    /// From now on, once the script is used up, does one of `among` with this share of the requests
    /// (0 to 1) and answers the others 200, until [`Http::behave`]. What it does with the n-th
    /// request depends on the seed alone; which request is the n-th depends on who comes first.
    pub fn misbehave_from(&self, seed: u64, share: f64, among: &[Misbehaviour]) {
        self.record.lock().unwrap().mood = Some(Mood::new(seed, share, among));
    }

    /// Answers everything 200 from now on: the script and [`Http::misbehave_from`] are forgotten.
    pub fn behave(&self) {
        let mut record = self.record.lock().unwrap();
        record.script.clear();
        record.mood = None;
    }

    /// What it has done wrong so far, in order. Some of it left no request.
    pub fn misbehaved(&self) -> Vec<Misbehaviour> {
        self.record.lock().unwrap().misbehaved.clone()
    }

    /// All requests so far, in the order in which their ends were read.
    pub fn requests(&self) -> Vec<Request> {
        self.record.lock().unwrap().requests.clone()
    }

    /// How many requests there are so far.
    pub fn count(&self) -> usize {
        self.record.lock().unwrap().requests.len()
    }

    /// The requests that have this header (in lower case), by its value. With the header of an
    /// idempotency key it tells what the receiver has, once each however often it was sent.
    pub fn by_key(&self, header: &str) -> BTreeMap<String, Vec<Request>> {
        let mut by_key: BTreeMap<String, Vec<Request>> = BTreeMap::new();
        for request in self.requests() {
            if let Some(key) = request.headers.get(header) {
                by_key.entry(key.clone()).or_default().push(request);
            }
        }
        by_key
    }

    /// Waits for the requests to be at least so many, and gives all of them.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Request> {
        wait_until(timeout, &format!("{count} requests"), || {
            let requests = self.requests();
            if requests.len() >= count { Ok(requests) } else { Err(format!("{requests:#?}")) }
        })
    }

    /// Refuses connections until [`Http::up`], and closes those that are open.
    pub fn down(&self) {
        let Some(serving) = self.serving.lock().unwrap().take() else { return };
        // On a thread of its own: a runtime must not wait within another.
        thread::spawn(move || serving.shutdown_timeout(Duration::from_secs(5))).join().unwrap();
    }

    /// Listens again, on the same port.
    pub fn up(&self) {
        self.down();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listen(self.port);
        listener.set_nonblocking(true).unwrap();
        let record = Arc::clone(&self.record);
        runtime.spawn(async move {
            conversation::serve(TcpListener::from_std(listener).unwrap(), record).await;
        });
        *self.serving.lock().unwrap() = Some(runtime);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.down();
    }
}
