//! What guests may write into a header map: what a wire can carry, and what does not frame the message or describe the connection.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use super::{Headers, Scheme, StartLine, is_hop_by_hop};
use crate::authority::is_authority;

/// Why a guest's change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The name is not a token, or a pseudo-header that does not belong here.
    #[error("the name is not a valid field name here")]
    Name,
    /// The value has bytes that cannot stand in a field, or is not what the pseudo-header takes.
    #[error("the value cannot be written on the wire")]
    Value,
    /// The field frames the message or describes the connection; that is the gateway's to say.
    #[error("the field belongs to the connection, not to the message")]
    Framing,
    /// The map has as many fields as it may.
    #[error("the map is full")]
    Full,
}

impl Headers {
    /// Appends a further entry, as a guest asks.
    ///
    /// # Errors
    /// When the entry could not be written to a wire, or is not the guest's to set.
    pub fn add(&mut self, name: &[u8], value: &[u8], max_fields: usize) -> Result<(), Refused> {
        self.put(name, value, max_fields, Put::Add)
    }

    /// Removes every entry of the name and sets one, as a guest asks.
    ///
    /// # Errors
    /// When the entry could not be written to a wire, or is not the guest's to set.
    pub fn replace(&mut self, name: &[u8], value: &[u8], max_fields: usize) -> Result<(), Refused> {
        self.put(name, value, max_fields, Put::Replace)
    }

    /// Removes every entry of the name, as a guest asks. A name that is not there is no error.
    pub fn remove(&mut self, name: &[u8]) {
        match (name, &mut self.start) {
            (b":path", StartLine::Request { path, .. }) => *path = None,
            (b":authority", StartLine::Request { .. }) => _ = self.fields.remove(header::HOST),
            _ => {
                if let Ok(name) = str::from_utf8(name) {
                    self.fields.remove(name);
                }
            }
        }
    }

    /// Removes every entry and adds these in order, as a guest asks. What cannot be written is left out and counted.
    pub fn set_all<'a>(&mut self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>, max_fields: usize) -> usize {
        // That an upgrade is asked for is not the guest's to say; one that does not want it removes the field.
        let upgrade = self.fields.get(header::UPGRADE).cloned();
        let connection = self.fields.get(header::CONNECTION).cloned();
        self.fields.clear();
        upgrade.map(|upgrade| self.fields.insert(header::UPGRADE, upgrade));
        connection.map(|connection| self.fields.insert(header::CONNECTION, connection));
        if let StartLine::Request { path, .. } = &mut self.start {
            *path = None;
        }
        pairs.filter(|(name, value)| self.add(name, value, max_fields).is_err()).count()
    }

    fn put(&mut self, name: &[u8], value: &[u8], max_fields: usize, put: Put) -> Result<(), Refused> {
        if name.first() == Some(&b':') {
            return self.put_pseudo(name, value);
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Refused::Name)?;
        if is_hop_by_hop(&name) {
            return Err(Refused::Framing);
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| Refused::Value)?;
        if name == header::TE && value.as_bytes() != b"trailers" {
            return Err(Refused::Framing);
        }
        // Two lengths, or one that is no number, are the classic ways to smuggle; a host twice is another.
        let single = name == header::CONTENT_LENGTH || name == header::HOST;
        if single && matches!(self.start, StartLine::Trailers) {
            // A trailer must not frame or route (RFC 9110 §6.5.1): whoever merges it into the head would be misled.
            return Err(Refused::Framing);
        }
        if name == header::CONTENT_LENGTH && !is_length(value.as_bytes()) {
            return Err(Refused::Value);
        }
        if name == header::HOST && self.is_request() && !is_authority(value.as_bytes()) {
            return Err(Refused::Value);
        }
        if self.fields.len() >= max_fields && !self.fields.contains_key(&name) {
            return Err(Refused::Full);
        }
        if single || put == Put::Replace {
            self.fields.insert(name, value);
        } else {
            self.fields.append(name, value);
        }
        Ok(())
    }

    fn put_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        match (name, &mut self.start) {
            (b":path", StartLine::Request { path, .. }) => {
                // A fragment would be cut off in silence, and bytes beyond ASCII sent as they are.
                if !value.is_ascii() || value.contains(&b'#') {
                    return Err(Refused::Value);
                }
                let new = PathAndQuery::try_from(value).map_err(|_| Refused::Value)?;
                if !new.as_str().starts_with('/') && new.as_str() != "*" {
                    return Err(Refused::Value);
                }
                *path = Some(new);
            }
            (b":method", StartLine::Request { method, .. }) => {
                let new = Method::from_bytes(value).map_err(|_| Refused::Value)?;
                if new == Method::CONNECT {
                    // The upstream would take what follows for a tunnel.
                    return Err(Refused::Value);
                }
                *method = new;
            }
            (b":scheme", StartLine::Request { scheme, .. }) => {
                *scheme = match value {
                    b"http" => Scheme::Http,
                    b"https" => Scheme::Https,
                    _ => return Err(Refused::Value),
                };
            }
            (b":authority", StartLine::Request { .. }) => {
                if !is_authority(value) {
                    return Err(Refused::Value);
                }
                self.fields.insert(header::HOST, HeaderValue::from_bytes(value).map_err(|_| Refused::Value)?);
            }
            (b":status", StartLine::Response { status }) => {
                let new = StatusCode::from_bytes(value).map_err(|_| Refused::Value)?;
                // An interim status as the final one would leave the client waiting.
                *status = if new.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { new };
            }
            _ => return Err(Refused::Name),
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    Add,
    Replace,
}

fn is_length(value: &[u8]) -> bool {
    !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit)
}
