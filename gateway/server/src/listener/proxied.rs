//! Taking the PROXY protocol's header off a new connection, byte for byte: what follows it belongs to TLS or HTTP.

use std::io;
use std::time::Duration;

use portcullis_core::proxy_protocol::{Parsed, Proxied, Refused, is_begun, parse};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Between two looks at a connection that has sent one or two bytes; whoever does that is in no hurry.
const PEEK: Duration = Duration::from_millis(10);

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The header that must be there.
///
/// # Errors
/// When the connection does not begin with one.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Proxied, ProxyError> {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes)? {
            Parsed::Whole(proxied) => return Ok(proxied),
            Parsed::Partial(more) => {
                let have = bytes.len();
                bytes.resize(have + more, 0);
                stream.read_exact(bytes.get_mut(have..).unwrap_or_default()).await?;
            }
        }
    }
}

/// The header, if there is one.
///
/// # Errors
/// When the connection begins like one that it then is not.
pub(super) async fn read_if_there(stream: &mut TcpStream) -> Result<Option<Proxied>, ProxyError> {
    let mut first = [0; 3];
    loop {
        let have = stream.peek(&mut first).await?;
        match is_begun(first.get(..have).unwrap_or_default()) {
            Some(true) => return read(stream).await.map(Some),
            Some(false) => return Ok(None),
            None if have == 0 => return Ok(None),
            None => tokio::time::sleep(PEEK).await,
        }
    }
}
