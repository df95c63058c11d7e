//! A token's compact form (RFC 7515 §7.1): taking it apart and checking its signature.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::keys::{KeySet, Lookup};
use crate::policy::Refusal;

/// Longer tokens are refused unread.
const MAX_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// The payload of a token whose signature one of the keys made.
pub(crate) fn verified_payload(token: &str, keys: &KeySet) -> Result<Rc<[u8]>, Refusal> {
    if token.len() > MAX_BYTES {
        return Err(Refusal::Malformed);
    }
    if let Some(payload) = keys.remembered(token) {
        return Ok(payload);
    }
    let payload = check_signature(token, keys)?;
    keys.remember(token, Rc::clone(&payload));
    Ok(payload)
}

fn check_signature(token: &str, keys: &KeySet) -> Result<Rc<[u8]>, Refusal> {
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
        Lookup::Found(keys) if keys.iter().any(|key| key.verifies(message.as_bytes(), &signature)) => {
            Ok(payload.into())
        }
        Lookup::Found(_) => Err(Refusal::Signature),
    }
}

/// Unpadded and canonical only: another spelling of the same token would be another token to everyone who compares them.
fn decoded(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}
