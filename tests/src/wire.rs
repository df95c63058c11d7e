//! HTTP/1.1 as bytes on a socket, encrypted or not, read without forgiveness. Both the raw client and the raw origin speak through it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustls::ClientConnection;

use crate::PATIENCE;

/// A socket with what was read from it too early.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    read: Vec<u8>,
}

/// The start line and the fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub start: String,
    /// The fields in the order they came in; names as they were written.
    pub fields: Vec<(String, String)>,
}

/// A message that was read.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Its body, without its framing.
    pub body: Vec<u8>,
    /// The sizes of its chunks; empty when it was not chunked.
    pub chunks: Vec<usize>,
    /// Its trailers.
    pub trailers: Vec<(String, String)>,
    /// It ended as its framing says; otherwise the connection broke.
    pub complete: bool,
}

impl Head {
    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The status of a response.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl Message {
    /// The status of a response.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl Wire {
    /// # Panics
    /// When the socket cannot be set up.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, tls: None, read: Vec::new() }
    }

    /// A socket over which a session has begun.
    #[must_use]
    pub fn over_tls(stream: TcpStream, tls: ClientConnection) -> Self {
        Self { tls: Some(Box::new(tls)), ..Self::new(stream) }
    }

    /// The session.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn tls(&self) -> &ClientConnection {
        self.tls.as_ref().expect("a connection with TLS")
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side no longer takes any.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).write_all(bytes.as_ref()),
            None => self.stream.write_all(bytes.as_ref()),
        }
    }

    /// Sends one chunk of a chunked body; an empty one is not sent, since it would be the last.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_chunk(&mut self, data: impl AsRef<[u8]>) -> io::Result<()> {
        let data = data.as_ref();
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        if data.is_empty() { Ok(()) } else { self.write(bytes) }
    }

    /// Reads more; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 << 10];
        let size = match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).read(&mut piece)?,
            None => self.stream.read(&mut piece)?,
        };
        self.read.extend_from_slice(&piece[..size]);
        Ok(size > 0)
    }

    /// Whether there is not a byte more, because the other side has closed. Waits until that is known.
    pub fn is_closed(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        match self.more() {
            Ok(more) => !more,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Everything until the other side closes or breaks off.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().unwrap_or(false) {}
        std::mem::take(&mut self.read)
    }

    /// Closes the side that sends.
    pub fn finish_sending(&mut self) {
        let _already_gone = self.stream.shutdown(Shutdown::Write);
    }

    /// A line, without its end.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn line(&mut self) -> io::Result<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.read[searched..].windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..searched + at]).into_owned();
                self.read.drain(..searched + at + 2);
                return Ok(line);
            }
            searched = self.read.len().saturating_sub(1);
            if !self.more()? {
                return Err(closed());
            }
        }
    }

    /// That many bytes.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn exactly(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < size {
            if !self.more()? {
                return Err(closed());
            }
        }
        let rest = self.read.split_off(size);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    /// Some bytes of a body, as soon as there are any.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.read.is_empty() && !self.more()? {
            return Err(closed());
        }
        Ok(std::mem::take(&mut self.read))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The head of a message.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn head(&mut self) -> io::Result<Head> {
        Ok(Head { start: self.line()?, fields: self.fields()? })
    }

    /// One chunk of a chunked body; empty: the last one, after which [`Self::trailers`] follow.
    ///
    /// # Errors
    /// When the connection ends first, or the framing is wrong.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let data = self.exactly(size)?;
        if size > 0 && !self.line()?.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(data)
    }

    /// The fields after a last chunk.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        self.fields()
    }

    /// The body that follows this head. A message that breaks off is not complete; one without framing ends with the connection.
    #[must_use]
    pub fn body(&mut self, head: Head) -> Message {
        let is_request = !head.start.starts_with("HTTP/");
        let mut message = Message { head, ..Message::default() };
        let length = message.get("content-length").map(|length| length.parse().unwrap_or(0));
        let bodiless = !is_request && matches!(message.status(), 204 | 304);
        if message.get("transfer-encoding") == Some("chunked") {
            message.complete = self.chunked(&mut message).is_ok();
        } else if let Some(length) = length.filter(|_| !bodiless) {
            while self.read.len() < length && self.more().unwrap_or(false) {}
            let rest = self.read.split_off(length.min(self.read.len()));
            message.body = std::mem::replace(&mut self.read, rest);
            message.complete = message.body.len() == length;
        } else {
            message.complete = true;
            if !is_request && !bodiless {
                message.body = self.rest();
            }
        }
        message
    }

    fn chunked(&mut self, message: &mut Message) -> io::Result<()> {
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                message.trailers = self.trailers()?;
                return Ok(());
            }
            message.chunks.push(chunk.len());
            message.body.extend_from_slice(&chunk);
        }
    }

    /// A whole message.
    ///
    /// # Errors
    /// When the connection ends before its head did.
    pub fn message(&mut self) -> io::Result<Message> {
        let head = self.head()?;
        Ok(self.body(head))
    }
}
