//! Replies of the filter's own: problem documents, and how they are sent.

use portcullis_abi::MapType;

use crate::headers::{Fields, Headers};
use crate::{json, property, sys};

/// A reply of the filter's own.
pub(crate) struct Local {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Content,
    pub(crate) code: &'static str,
}

pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A problem document, finished when it is sent.
    Problem {
        title: Option<String>,
        /// With their JSON.
        members: Vec<(&'static str, String)>,
    },
}

impl Local {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Problem { title, members } => self.problem(title.as_deref(), members).into_bytes(),
        }
    }

    /// With a newline at its end, for those who read it in a terminal.
    fn problem(&self, title: Option<&str>, members: &[(&'static str, String)]) -> String {
        let title = title.unwrap_or_else(|| reason(self.status));
        let mut document = String::from("{\"type\":\"about:blank\",\"title\":");
        json::quote(title, &mut document);
        document.push_str(",\"status\":");
        document.push_str(&self.status.to_string());
        document.push_str(",\"code\":");
        json::quote(self.code, &mut document);
        for (name, value) in members {
            document.push(',');
            json::quote(name, &mut document);
            document.push(':');
            document.push_str(value);
        }
        if let Some(id) = request_id() {
            document.push_str(",\"request_id\":");
            json::quote(&id, &mut document);
        }
        document.push_str("}\n");
        document
    }

    pub(crate) fn send(mut self) {
        let body = self.bytes();
        if let Content::Problem { .. } = self.body {
            self.fields.insert(0, (b"content-type".to_vec(), b"application/problem+json".to_vec()));
        }
        sys::send_local_response(self.status, self.code, &body, &self.fields);
    }
}

/// The request's id, wherever it can still be read.
fn request_id() -> Option<String> {
    let headers = Headers::host(MapType::HttpRequestHeaders);
    headers.text("x-request-id").or_else(|| property::text(&["request", "id"]))
}

/// RFC 9110's words for the refusals that filters make.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "The request was refused",
    }
}
