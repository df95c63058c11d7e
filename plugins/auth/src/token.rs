//! A token's compact form (RFC 7515 §7.1): taking it apart and checking its signature.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::claims::Times;
use crate::identity::{Identity, Reading};
use crate::keys::{KeySet, Lookup};
use crate::refusal::Refusal;

/// A token that somebody stands by, and what it comes to, whenever it is used.
#[derive(Debug)]
pub(crate) struct Token {
    /// Whose it is; or why it is nobody's here.
    pub(crate) holder: Result<Rc<Identity>, Refusal>,
    pub(crate) times: Times,
}

impl Token {
    /// A token with these claims, that were judged so.
    pub(crate) fn new(judged: Result<Times, Refusal>, claims: &Map<String, Value>, reading: &Reading) -> Self {
        let times = judged.unwrap_or_default();
        Self { holder: judged.map(|_| Rc::new(reading.of(claims))), times }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// The token, if one of the keys made its signature; `judged` says what comes of its type and its claims. A longer one than allowed
/// is refused unread.
pub(crate) fn verified(
    token: &[u8],
    keys: &KeySet,
    max_bytes: usize,
    judged: impl Fn(Option<&str>, &Map<String, Value>) -> Token,
) -> Result<Rc<Token>, Refusal> {
    if token.len() > max_bytes {
        return Err(Refusal::Malformed);
    }
    if let Some(token) = keys.remembered(token) {
        return Ok(token);
    }
    let (typ, payload) = check_signature(std::str::from_utf8(token).map_err(|_| Refusal::Malformed)?, keys)?;
    let claims = serde_json::from_slice(&payload).map_err(|_| Refusal::Claims)?;
    let verified = Rc::new(judged(typ.as_deref(), &claims));
    keys.remember(token, Rc::clone(&verified));
    Ok(verified)
}

/// Whether a token has the form of a signed one: three parts, of which the first is an object.
pub(crate) fn is_signed(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let header = parts.next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    parts.count() == 2 && header.is_some_and(|header| header.trim_ascii_start().starts_with(b"{"))
}

/// The type and the payload of a token that is signed as it has to be.
///
/// Of its header nothing else is read: not `jku`, `jwk`, `x5u` or `x5c`, with which a token would bring its own key.
pub(crate) fn check_signature(token: &str, keys: &KeySet) -> Result<(Option<String>, Vec<u8>), Refusal> {
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed)?;
    let (header, payload, signature) = (decoded(header)?, decoded(payload)?, decoded(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
    // RFC 7515 §4.1.11: what is critical has to be understood, and no extension is understood here.
    if header.crit.is_some() {
        return Err(Refusal::Malformed);
    }
    match keys.find(header.kid.as_deref(), &header.alg) {
        Lookup::Unknown => Err(Refusal::UnknownKey),
        Lookup::OtherAlgorithm => Err(Refusal::Algorithm),
        Lookup::Found(found) if keys.signed(&found, message.as_bytes(), &signature) => Ok((header.typ, payload)),
        Lookup::Found(_) => Err(Refusal::Signature),
    }
}

/// Unpadded and canonical only: another spelling of the same token would be another token to everyone who compares them.
fn decoded(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}
