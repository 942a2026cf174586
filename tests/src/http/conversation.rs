//! HTTP/1.1 on a socket, RFC 9112, as far as clients of webhooks use it. By hand, because a server
//! that is made to work cannot be made to fail at a given byte.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Answer, Answered, Misbehaviour, Request, Shared, Turn};

/// Has no end, but that of its runtime.
pub(super) async fn serve(mut listener: TcpListener, record: Shared) {
    let address = listener.local_addr().unwrap();
    let (refuse, mut refusals) = unbounded_channel();
    loop {
        let mut conversations = JoinSet::new();
        let pause = loop {
            tokio::select! {
                Some(pause) = refusals.recv() => break pause,
                Ok((socket, _)) = listener.accept() => {
                    let conversation = Conversation {
                        stream: BufReader::new(socket),
                        record: Shared::clone(&record),
                        refuse: refuse.clone(),
                    };
                    // An error is a client that left or spoke another language: the trial sees it
                    // from the other side.
                    conversations.spawn(async move { conversation.hold().await });
                }
            }
        };
        // First, so that nobody connects in between.
        drop(listener);
        conversations.shutdown().await;
        // Another conversation may have asked for the same.
        while refusals.try_recv().is_ok() {}
        sleep(pause).await;
        // It may be taken still, as `ports::listen` says.
        listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
    }
}

/// One connection.
struct Conversation {
    stream: BufReader<TcpStream>,
    record: Shared,
    refuse: UnboundedSender<Duration>,
}

impl Conversation {
    async fn hold(mut self) -> io::Result<()> {
        while self.request_begins().await? {
            let turn = self.record.lock().unwrap().next_turn();
            let misbehaviour =
                if let Turn::Misbehave(misbehaviour) = &turn { Some(*misbehaviour) } else { None };
            match misbehaviour {
                Some(Misbehaviour::CutBeforeReading) => return Ok(()),
                Some(Misbehaviour::Refuse { pause }) => {
                    // Ends with this conversation.
                    let _ = self.refuse.send(pause);
                    return pending().await;
                }
                _ => {}
            }
            let request = self.read(misbehaviour).await?;
            let (bodiless, close) = (request.method == "HEAD", closes(&request.headers));
            let index = {
                let mut record = self.record.lock().unwrap();
                record.requests.push(request);
                record.requests.len() - 1
            };
            let answer = match turn {
                Turn::Answer(answer) => answer,
                Turn::Misbehave(Misbehaviour::CutBeforeAnswer) => return Ok(()),
                Turn::Misbehave(misbehaviour) => answer_of(misbehaviour),
            };
            let mut bytes = head(&answer).into_bytes();
            if misbehaviour == Some(Misbehaviour::CutInHeaders) {
                // The status line stays whole: only the rest is missing.
                bytes.truncate(bytes.len() - 4);
            } else if !bodiless {
                bytes.extend_from_slice(answer.body.as_bytes());
            }
            if misbehaviour == Some(Misbehaviour::CutInBody) {
                bytes.truncate(bytes.len() - answer.body.len() / 2);
            }
            let cut = matches!(misbehaviour, Some(Misbehaviour::CutInHeaders | Misbehaviour::CutInBody));
            if self.client_leaves_within(answer.after).await {
                return Ok(());
            }
            // Noted before the answer, so that a client that has the answer finds it.
            let status = answer.status;
            let answered = if cut { Answered::Part(status) } else { Answered::Status(status) };
            self.record.lock().unwrap().requests[index].answered = answered;
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await?;
            if cut || close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether there is a byte more, which stays unread.
    async fn request_begins(&self) -> io::Result<bool> {
        Ok(!self.stream.buffer().is_empty() || self.stream.get_ref().peek(&mut [0]).await? > 0)
    }

    /// Waits, and tells whether the client has closed the connection meanwhile.
    async fn client_leaves_within(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            return false;
        }
        tokio::select! {
            begins = self.request_begins() => match begins {
                // It sends the next request already.
                Ok(true) => { sleep(pause).await; false }
                Ok(false) | Err(_) => true,
            },
            () = sleep(pause) => false,
        }
    }

    async fn read(&mut self, misbehaviour: Option<Misbehaviour>) -> io::Result<Request> {
        let line = self.line().await?;
        let mut words = line.split(' ');
        let (Some(method), Some(path), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let headers = self.headers().await?;
        if headers.get("expect").is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = self.body(&headers).await?;
        Ok(Request { method, path, headers, body, answered: Answered::Nothing, misbehaviour })
    }

    /// Up to and with the empty line. Values of the same name are joined by a comma.
    async fn headers(&mut self) -> io::Result<BTreeMap<String, String>> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|values| values.push_str(&format!(", {}", value.trim())))
                .or_insert_with(|| value.trim().to_owned());
        }
    }

    async fn body(&mut self, headers: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line().await?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let length = u64::from_str_radix(digits, 16).map_err(|_| ErrorKind::InvalidData)?;
                if length == 0 {
                    // What may follow are headers once more.
                    self.headers().await?;
                    return Ok(body);
                }
                self.take(length, &mut body).await?;
                self.line().await?;
            }
        }
        if let Some(length) = headers.get("content-length") {
            let length = length.parse().map_err(|_| ErrorKind::InvalidData)?;
            self.take(length, &mut body).await?;
        }
        Ok(body)
    }

    async fn take(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let taken = (&mut self.stream).take(length).read_to_end(body).await?;
        if taken as u64 == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }
}

fn closes(headers: &BTreeMap<String, String>) -> bool {
    headers.get("connection").is_some_and(|connection| connection.eq_ignore_ascii_case("close"))
}

/// The answer of one that reads the request and does not keep quiet.
fn answer_of(misbehaviour: Misbehaviour) -> Answer {
    let with = |status| Answer { status, ..Answer::default() };
    match misbehaviour {
        Misbehaviour::Slow { pause } => Answer { after: pause, ..Answer::ok() },
        Misbehaviour::Busy { retry_after } => {
            Answer { headers: vec![("retry-after".to_owned(), retry_after.to_string())], ..with(429) }
        }
        Misbehaviour::Unavailable => with(503),
        Misbehaviour::Reject => with(400),
        Misbehaviour::CutInBody => Answer { body: "this answer has an end\n".to_owned(), ..Answer::ok() },
        Misbehaviour::CutInHeaders
        | Misbehaviour::CutBeforeAnswer
        | Misbehaviour::CutBeforeReading
        | Misbehaviour::Refuse { .. } => Answer::ok(),
    }
}

/// Status line and headers, with the empty line.
fn head(answer: &Answer) -> String {
    let reason = StatusCode::from_u16(answer.status).unwrap().canonical_reason().unwrap_or("");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        head.push_str("content-type: text/plain; charset=utf-8\r\n");
    }
    // An answer of 204 has no body, and must not have a length.
    if answer.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    head
}
