//! A mail server that keeps what it is given, and misbehaves on request. SMTP, RFC 5321; STARTTLS,
//! RFC 3207; AUTH, RFC 4954.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::background;
use crate::mail::{Mail, decode_base64};
use crate::tls::Authority;
use crate::wait::wait_until;

/// When the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Never.
    Plain,
    /// After the client has asked; no mail is taken before.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// What the server does in place of obeying a command.
#[derive(Debug, Clone)]
pub enum Action {
    /// Sends this line, for example `450 4.2.1 mailbox busy`.
    Reply(String),
    /// Closes the connection.
    Drop,
    /// For `DATA`: asks for the mail, reads so many lines of it, and closes the connection.
    DropInMail(usize),
    /// For `.`: takes the mail, and closes the connection without saying so.
    DropTaken,
    /// Leaves the connection open, and never answers.
    Silence,
}

/// A mail that the server has taken.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub from: String,
    /// The recipients that were not refused, in their order.
    pub to: Vec<String>,
    pub encrypted: bool,
    /// Whether the client got the answer that its mail is taken.
    pub acknowledged: bool,
    pub taken_at: SystemTime,
    pub mail: Mail,
}

#[derive(Debug)]
struct Rule {
    containing: String,
    times: usize,
    action: Action,
}

#[derive(Debug)]
struct State {
    security: Security,
    /// User and password; None lets everybody in.
    login: Option<(String, String)>,
    /// What `EHLO` offers: `PLAIN`, `LOGIN` or both.
    mechanisms: String,
    rules: Mutex<Vec<Rule>>,
    commands: Mutex<Vec<String>>,
    deliveries: Mutex<Vec<Delivery>>,
}

/// The server. Dropping it closes its port.
#[derive(Debug)]
pub struct Smtp {
    port: u16,
    state: Arc<State>,
    authority: Authority,
    accepting: JoinHandle<()>,
}

impl Smtp {
    /// A server that takes every mail.
    pub fn start(security: Security) -> Self {
        Self::start_with(security, None, "")
    }

    /// A server that takes mail after a log-in. `mechanisms` is what it offers: `PLAIN`, `LOGIN` or
    /// `PLAIN LOGIN`.
    pub fn start_with_login(security: Security, user: &str, password: &str, mechanisms: &str) -> Self {
        Self::start_with(security, Some((user.to_owned(), password.to_owned())), mechanisms)
    }

    fn start_with(security: Security, login: Option<(String, String)>, mechanisms: &str) -> Self {
        let authority = Authority::new();
        let acceptor = authority.acceptor(false);
        let state = Arc::new(State {
            security,
            login,
            mechanisms: mechanisms.to_owned(),
            rules: Mutex::default(),
            commands: Mutex::default(),
            deliveries: Mutex::default(),
        });
        let listener = background::wait_for(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = background::handle().spawn(accept(listener, acceptor, Arc::clone(&state)));
        Self { port, state, authority, accepting }
    }

    /// On `127.0.0.1` and, by its certificate, `localhost`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that signed the server's certificate.
    pub fn ca_pem(&self) -> PathBuf {
        self.authority.ca_pem()
    }

    /// The next `times` that a line of the client contains a text, does `action` instead of what
    /// the line asks for. Lines are commands, `CONNECT` for a new connection and `.` for the end
    /// of a mail; the first rule counts. An address tells recipients apart: `RCPT TO:<gone@`.
    pub fn script(&self, containing: &str, times: usize, action: Action) {
        self.state.rules.lock().unwrap().push(Rule { containing: containing.to_owned(), times, action });
    }

    /// Every line so far that rules were looked up for, but for passwords.
    pub fn commands(&self) -> Vec<String> {
        self.state.commands.lock().unwrap().clone()
    }

    /// The mails taken so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.state.deliveries.lock().unwrap().clone()
    }

    /// Waits for the mails to be at least so many, and gives all of them.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Delivery> {
        wait_until(timeout, &format!("{count} mails"), || {
            let deliveries = self.deliveries();
            if deliveries.len() >= count { Ok(deliveries) } else { Err(format!("{:#?}", self.commands())) }
        })
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    // When this task is aborted, so are the conversations: the set is dropped with it.
    let mut conversations = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        // An error is a client that left or did not trust us: the trial sees it from the other
        // side.
        conversations.spawn(async move { Conversation::hold(socket, acceptor, state).await });
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection.
struct Conversation {
    stream: BufReader<Box<dyn Duplex>>,
    state: Arc<State>,
    encrypted: bool,
    logged_in: bool,
    from: Option<String>,
    to: Vec<String>,
}

impl Conversation {
    async fn hold(socket: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) -> io::Result<()> {
        let encrypted = state.security == Security::Implicit;
        let stream: Box<dyn Duplex> =
            if encrypted { Box::new(acceptor.accept(socket).await?) } else { Box::new(socket) };
        let stream = BufReader::new(stream);
        let logged_in = state.login.is_none();
        let mut this = Self { stream, state, encrypted, logged_in, from: None, to: Vec::new() };
        if !this.scripted("CONNECT").await? {
            this.reply("220 localhost ready").await?;
        }
        loop {
            let line = this.line().await?;
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            // A log-in carries the password.
            if this.scripted(if verb == "AUTH" { "AUTH" } else { &line }).await? {
                continue;
            }
            match verb.as_str() {
                "EHLO" | "HELO" => this.greet().await?,
                "STARTTLS" => {
                    this.reply("220 go ahead").await?;
                    // What the client sent after STARTTLS and before the handshake is dropped with
                    // the buffer.
                    this.stream = BufReader::new(Box::new(acceptor.accept(this.stream.into_inner()).await?));
                    this.encrypted = true;
                }
                "AUTH" => this.log_in(argument).await?,
                "MAIL" if this.state.security == Security::StartTls && !this.encrypted => {
                    this.reply("530 5.7.0 STARTTLS first").await?;
                }
                "MAIL" if !this.logged_in => this.reply("530 5.7.0 log in first").await?,
                "MAIL" => {
                    this.from = Some(address(argument));
                    this.to.clear();
                    this.reply("250 ok").await?;
                }
                "RCPT" if this.from.is_none() => this.reply("503 5.5.1 MAIL first").await?,
                "RCPT" => {
                    this.to.push(address(argument));
                    this.reply("250 ok").await?;
                }
                "DATA" if this.to.is_empty() => this.reply("503 5.5.1 no recipients").await?,
                "DATA" => this.take_mail().await?,
                "RSET" => {
                    this.from = None;
                    this.to.clear();
                    this.reply("250 ok").await?;
                }
                "NOOP" => this.reply("250 ok").await?,
                "QUIT" => return this.reply("221 bye").await,
                _ => this.reply("502 5.5.2 unknown command").await?,
            }
        }
    }

    /// Notes a line, and does what the script has for it, if anything.
    async fn scripted(&mut self, line: &str) -> io::Result<bool> {
        let Some(action) = self.action(line) else { return Ok(false) };
        self.obey(action).await?;
        Ok(true)
    }

    async fn obey(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Reply(reply) => self.reply(&reply).await,
            Action::Drop | Action::DropTaken => Err(ErrorKind::ConnectionAborted.into()),
            Action::DropInMail(lines) => {
                self.reply("354 end with a dot").await?;
                for _ in 0..lines {
                    self.line().await?;
                }
                Err(ErrorKind::ConnectionAborted.into())
            }
            Action::Silence => std::future::pending().await,
        }
    }

    /// Notes a line, and gives what the script has for it.
    fn action(&self, line: &str) -> Option<Action> {
        self.state.commands.lock().unwrap().push(line.to_owned());
        let mut rules = self.state.rules.lock().unwrap();
        // Every address has a dot: that of the end is the whole line.
        let matches = |text: &str| if text == "." { line == "." } else { line.contains(text) };
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && matches(&rule.containing))?;
        rule.times -= 1;
        Some(rule.action.clone())
    }

    async fn greet(&mut self) -> io::Result<()> {
        let mut offers = vec!["localhost".to_owned(), "8BITMIME".to_owned()];
        let may_encrypt = self.state.security == Security::StartTls && !self.encrypted;
        if may_encrypt {
            offers.push("STARTTLS".to_owned());
        }
        if self.state.login.is_some() && !may_encrypt {
            offers.push(format!("AUTH {}", self.state.mechanisms));
        }
        let last = offers.len() - 1;
        let lines: Vec<String> = offers
            .iter()
            .enumerate()
            .map(|(i, o)| format!("250{}{o}", if i == last { ' ' } else { '-' }))
            .collect();
        self.reply(&lines.join("\r\n")).await
    }

    async fn log_in(&mut self, argument: &str) -> io::Result<()> {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let mut given = initial.to_owned();
        let (user, password) = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                if given.is_empty() {
                    self.reply("334 ").await?;
                    given = self.line().await?;
                }
                let decoded = decode_base64(&given);
                let mut fields = decoded.split(|byte| *byte == 0).skip(1).map(String::from_utf8_lossy);
                (
                    fields.next().unwrap_or_default().into_owned(),
                    fields.next().unwrap_or_default().into_owned(),
                )
            }
            "LOGIN" => {
                if given.is_empty() {
                    // "Username:", then "Password:".
                    self.reply("334 VXNlcm5hbWU6").await?;
                    given = self.line().await?;
                }
                self.reply("334 UGFzc3dvcmQ6").await?;
                let password = self.line().await?;
                let text = |encoded: &str| String::from_utf8_lossy(&decode_base64(encoded)).into_owned();
                (text(&given), text(&password))
            }
            _ => return self.reply("504 5.5.4 unknown mechanism").await,
        };
        self.logged_in = self.state.login == Some((user, password));
        self.reply(if self.logged_in { "235 2.7.0 welcome" } else { "535 5.7.8 wrong user or password" })
            .await
    }

    async fn take_mail(&mut self) -> io::Result<()> {
        self.reply("354 end with a dot").await?;
        let mut data = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push_str("\r\n");
        }
        let from = self.from.take().unwrap_or_default();
        let to = std::mem::take(&mut self.to);
        let mail = Mail::parse(data.as_bytes());
        let action = self.action(".");
        if matches!(action, None | Some(Action::DropTaken)) {
            // Noted before the answer, so that a client that has the answer finds it.
            let (encrypted, acknowledged, taken_at) = (self.encrypted, action.is_none(), taken_at());
            let delivery = Delivery { from, to, encrypted, acknowledged, taken_at, mail };
            self.state.deliveries.lock().unwrap().push(delivery);
        }
        if let Some(action) = action {
            return self.obey(action).await;
        }
        self.reply("250 2.0.0 taken").await
    }

    async fn reply(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// The address in `FROM:<a@b> SIZE=…`.
fn address(argument: &str) -> String {
    let after = argument.split_once('<').map_or("", |(_, after)| after);
    after.split_once('>').map_or("", |(address, _)| address).to_owned()
}

#[expect(clippy::disallowed_methods, reason = "how long a mail took is measured against the time in it")]
fn taken_at() -> SystemTime {
    SystemTime::now()
}
