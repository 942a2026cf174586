//! Connections: accepted, served as HTTP/1, bounded in number.
//!
//! Some more are accepted than requests are worked on, so that probes always find a place. When
//! those are taken too, the connection on whose client the server has waited longest gives way.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::pace::Pace;
use super::request::Server;
use crate::config::HttpConfig;

/// Connections beyond `max_connections`, for requests that are answered at once.
const RESERVE: usize = 16;

/// Largest head of a request, and a connection's buffers, in bytes.
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 100;

/// How long nothing is accepted after the machine refused, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The beginning of a client that takes it for granted that the server speaks HTTP/2.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HTTP/2's own words for "not here": empty SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED.
const HTTP2_GOAWAY: [u8; 26] =
    [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13];

/// Everything that the connections of a server share.
pub(super) struct Connections {
    server: Arc<Server>,
    places: Arc<Places>,
    patience: Duration,
}

/// The connections that there are.
struct Places {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    /// Number of the next connection.
    next: u64,
    connections: BTreeMap<u64, Arc<Pace>>,
}

/// The place of one connection. Dropping it frees the place.
struct Place {
    number: u64,
    pace: Arc<Pace>,
    places: Arc<Places>,
}

impl Connections {
    pub(super) fn new(routes: Router, config: &HttpConfig) -> Self {
        let most = config.max_connections.saturating_add(RESERVE);
        let places = Places { most, taken: Mutex::default(), freed: Notify::new() };
        Self {
            server: Arc::new(Server::new(routes, config)),
            places: Arc::new(places),
            patience: config.timeout,
        }
    }

    /// Accepts until `shutdown` completes, and then waits for the answers under way.
    pub(super) async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let ending = watch::Sender::new(false);
        let mut shutdown = pin!(shutdown);
        loop {
            let next = async { (accept(&listener).await, self.places.take(self.patience).await) };
            let (stream, place) = tokio::select! {
                () = shutdown.as_mut() => break,
                next = next => next,
            };
            tokio::spawn(converse(stream, Arc::clone(&self.server), place, ending.subscribe()));
        }
        drop(listener);
        ending.send_replace(true);
        // Each connection holds a receiver for as long as it is open.
        ending.closed().await;
    }
}

/// The next connection. Errors of a single connection are no reason to stop, and one for want of
/// resources passes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => error,
        };
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            tracing::warn!(%error, "no connection can be accepted for now");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    server: Arc<Server>,
    place: Place,
    mut ending: watch::Receiver<bool>,
) {
    let pace = &place.pace;
    let wants_http2 = tokio::select! {
        wants_http2 = begins_http2(&stream) => wants_http2,
        () = pace.over() => return,
        _ = ending.wait_for(|end| *end) => return,
    };
    if wants_http2 {
        tokio::select! {
            // An error is a client that has gone.
            _ = refuse_http2(&mut stream) => {}
            () = pace.over() => {}
        }
        return;
    }
    let service = service_fn(|request| server.answer(request, pace));
    let mut connection = pin!(
        http1::Builder::new()
            // A connection's pace bounds what follows the head as well.
            .header_read_timeout(None)
            .timer(TokioTimer::new())
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut ends = false;
    loop {
        tokio::select! {
            // An error is a client that has gone, or that does not speak HTTP/1.
            _ = connection.as_mut() => return,
            () = pace.over() => return,
            _ = ending.wait_for(|end| *end), if !ends => {
                // Nothing was asked, or not to the end.
                if pace.is_waiting() {
                    return;
                }
                ends = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Whether the first bytes are those of HTTP/2. No method of HTTP/1 begins like this.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    // Fewer bytes than that cannot be told apart, and HTTP/1 waits for more.
    matches!(stream.peek(&mut first).await, Ok(read) if read > 2 && HTTP2_PREFACE.starts_with(&first))
}

/// Answers that HTTP/1 is wanted, and reads what the client has sent, so that it finds the answer and
/// not a reset.
async fn refuse_http2(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&HTTP2_GOAWAY).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1 << 10];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

impl Places {
    /// A place for one more connection, which another one may have to give up.
    async fn take(self: &Arc<Self>, patience: Duration) -> Place {
        loop {
            {
                let mut taken = self.lock();
                if taken.connections.len() < self.most {
                    let (number, pace) = (taken.next, Arc::new(Pace::new(patience)));
                    taken.next += 1;
                    taken.connections.insert(number, Arc::clone(&pace));
                    return Place { number, pace, places: Arc::clone(self) };
                }
                let waited_for = taken
                    .connections
                    .values()
                    .filter_map(|pace| Some((pace.client_has_the_word_since()?, pace)));
                if let Some((_, slowest)) = waited_for.min_by_key(|(since, _)| *since) {
                    slowest.evict();
                }
            }
            // A place that is freed before this waits leaves its notice.
            self.freed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No code panics while it holds the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.number);
        self.places.freed.notify_one();
    }
}
