//! Which requests the access log is about, and which of their fields it has.
//!
//! **Invariant:** what holds credentials is never written, whoever asks for it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{ConnectionRecord, Record};
use crate::config::snapshot::AccessLog;

/// What stands for what is secret; OpenTelemetry's word for `url.query`.
pub(super) const REDACTED: &str = "REDACTED";

/// What operators have chosen.
#[derive(Debug)]
pub(super) struct Choice {
    /// Of 2^32 requests, how many are written.
    share: u64,
    pub(super) request: Box<[HeaderName]>,
    pub(super) response: Box<[HeaderName]>,
    /// The properties that filters leave, by their names.
    pub(super) properties: Box<[String]>,
    pub(super) filters: bool,
    pub(super) otlp: bool,
}

/// All of them.
const ALL: u64 = 1 << 32;

impl Choice {
    pub(super) fn of(settings: &AccessLog) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 2^32"
        )]
        let share = (settings.sample.clamp(0.0, 1.0) * ALL as f64) as u64;
        let (request, response) = (settings.request_headers.clone(), settings.response_headers.clone());
        Self {
            share,
            request: request.into(),
            response: response.into(),
            properties: settings.properties.clone().into(),
            filters: settings.filters,
            otlp: settings.otlp,
        }
    }

    /// Those of the properties that were chosen and that there are, with their values.
    pub(super) fn properties<'s>(&'s self, left: &'s [(Bytes, Bytes)]) -> impl Iterator<Item = (&'s str, &'s [u8])> {
        self.properties.iter().filter_map(|name| {
            let (_, value) = left.iter().find(|(own, _)| own == name.as_bytes())?;
            Some((name.as_str(), &value[..]))
        })
    }

    /// Whether a request is written. One that failed always is.
    pub(super) fn keeps(&self, record: &Record<'_>) -> bool {
        record.status >= 500 || record.status == 0 || self.keeps_by_chance()
    }

    /// The same of a TCP connection.
    pub(super) fn keeps_connection(&self, record: &ConnectionRecord<'_>) -> bool {
        record.failure.is_some() || self.keeps_by_chance()
    }

    fn keeps_by_chance(&self) -> bool {
        self.share == ALL || u64::from(fastrand::u32(..)) < self.share
    }
}

/// The fields of a message that are to be logged, by the places of their names among those chosen. None are none allocated.
#[derive(Clone, Debug, Default)]
pub struct Chosen(Vec<(usize, HeaderValue)>);

impl Chosen {
    pub(super) fn of(names: &[HeaderName], fields: &HeaderMap) -> Self {
        let values = |(place, name)| fields.get_all(name).iter().map(move |value| (place, value.clone()));
        Self(names.iter().enumerate().flat_map(values).collect())
    }

    /// Each name that there is something of, with its values.
    pub(super) fn by_name<'s>(
        &'s self,
        names: &'s [HeaderName],
    ) -> impl Iterator<Item = (&'s HeaderName, impl Iterator<Item = &'s HeaderValue>)> {
        self.0.chunk_by(|(one, _), (other, _)| one == other).filter_map(move |values| {
            let name = names.get(values.first()?.0)?;
            Some((name, values.iter().map(|(_, value)| value)))
        })
    }
}

/// What must not be written of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Nothing of it is secret.
    None,
    /// It is an address: the values of its query's parameters.
    Address,
    /// Its whole value.
    Credential,
}

impl Secrecy {
    pub(super) fn of(name: &HeaderName) -> Self {
        const CREDENTIALS: [&str; 9] = [
            "authorization",
            "proxy-authorization",
            "authentication-info",
            "proxy-authentication-info",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
            "x-amz-security-token",
        ];
        if CREDENTIALS.contains(&name.as_str()) {
            Self::Credential
        } else if [header::REFERER, header::LOCATION, header::CONTENT_LOCATION].contains(name) {
            Self::Address
        } else {
            Self::None
        }
    }
}

/// A request's target without the values of its query's parameters.
pub(super) fn shown_target(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let shown = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) => format!("{name}={REDACTED}"),
        None if parameter.is_empty() => String::new(),
        None => REDACTED.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(shown).collect();
    format!("{path}?{}", query.join("&"))
}

/// A field's value without what is secret.
pub(super) fn shown_value(name: &HeaderName, value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    match Secrecy::of(name) {
        Secrecy::None => text.into_owned(),
        Secrecy::Address => shown_target(&text),
        Secrecy::Credential => REDACTED.to_owned(),
    }
}
