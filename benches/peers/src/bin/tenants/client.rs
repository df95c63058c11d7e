//! A client of HTTP/1.1 that waits for each answer: one kept-alive connection, and a word for how an answer was.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::files::{HEADER, TOKEN};

/// Beyond this a request has failed. A gateway with ten thousand tenants may need seconds for a change.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn has(&self, name: &str, value: &str) -> bool {
        self.field(name) == Some(value)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The answer of the origin, with what the filter of that tenant puts on each: no other one's, and no refusal.
    pub(crate) fn is_of(&self, tenant: &str) -> bool {
        self.status == 200 && self.has(HEADER, tenant)
    }
}

/// A connection that stays.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { address, stream, received: Vec::with_capacity(4096) })
    }

    /// Asks a host for `path`. Where the gateway says that it closes the connection, the next request gets a new one.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Result<Answer> {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
    }

    /// Sends a request, as it stands, and waits for its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        self.received.clear();
        let end = loop {
            self.fill()?;
            // An answer's head comes in one piece nearly always, so what is searched twice is short.
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = text(self.received.get(..end));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let mut answer = Answer { status: status.context("not an answer")?, head, body: String::new() };
        let length: usize = answer.field("content-length").context("an answer without a length")?.parse()?;
        while self.received.len() < end + length {
            self.fill()?;
        }
        answer.body = text(self.received.get(end..));
        if answer.has("connection", "close") {
            *self = Self::open(self.address)?;
        }
        Ok(answer)
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer within {PATIENCE:?}"),
                read => break read?,
            }
        };
        ensure!(count > 0, "closed before the answer was whole");
        self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// The admin listener's client. Each request has a connection of its own: that listener closes idle ones.
#[derive(Clone, Copy)]
pub(crate) struct Admin(pub(crate) SocketAddr);

impl Admin {
    /// A page, whatever its status.
    pub(crate) fn get(self, path: &str) -> Result<Answer> {
        self.ask("GET", path, b"")
    }

    /// Puts a tenant, or one of its modules, below `/v1/tenants`.
    ///
    /// # Errors
    /// When it is refused, with the problem.
    pub(crate) fn put(self, path: &str, body: &[u8]) -> Result<()> {
        self.change("PUT", path, body)
    }

    /// Puts what is to be refused.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn put_in_vain(self, path: &str, body: &[u8]) -> Result<()> {
        let answer = self.ask("PUT", &format!("/v1/tenants/{path}"), body)?;
        ensure!(answer.status == 422, "PUT {path}: {} {}", answer.status, answer.body.trim());
        Ok(())
    }

    /// Takes a tenant away.
    pub(crate) fn delete(self, name: &str) -> Result<()> {
        self.change("DELETE", name, b"")
    }

    fn change(self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let answer = self.ask(method, &format!("/v1/tenants/{path}"), body)?;
        ensure!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body.trim());
        Ok(())
    }

    fn ask(self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n"
        );
        Connection::open(self.0)?.ask(&[head.as_bytes(), body].concat())
    }
}
