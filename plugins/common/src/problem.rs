//! Local replies of plugins: problem documents (RFC 9457) with a stable `code` word, like the gateway's own.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;
use serde_json::{Map, Value};

/// A refusal a client can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status, 400 to 599.
    pub status: u16,
    /// The stable word for it.
    pub code: &'static str,
    /// One sentence for people; never internals.
    pub title: String,
    /// Headers beyond the content type.
    pub headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// A refusal without extra headers.
    #[must_use]
    pub fn new(status: u16, code: &'static str, title: impl Into<String>) -> Self {
        Self { status, code, title: title.into(), headers: Vec::new() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Answers the exchange with it. The callback returns `Action::Pause` afterwards.
    pub fn send(&self) {
        let mut headers = vec![("content-type", "application/problem+json")];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let body = self.body(request_id().as_deref());
        let _ok = hostcalls::send_http_response(u32::from(self.status), headers, Some(body.as_bytes()));
    }

    /// The document, with a newline for those who read it in a terminal.
    #[must_use]
    pub fn body(&self, request_id: Option<&str>) -> String {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), Value::from("about:blank"));
        fields.insert("title".to_owned(), Value::from(self.title.as_str()));
        fields.insert("status".to_owned(), Value::from(self.status));
        fields.insert("code".to_owned(), Value::from(self.code));
        if let Some(id) = request_id {
            fields.insert("request_id".to_owned(), Value::from(id));
        }
        format!("{}\n", Value::Object(fields))
    }
}

/// The request's id where the request headers can still be read.
///
/// By way of all pairs, which every phase answers; asking for the one header is refused once the headers have gone on.
fn request_id() -> Option<String> {
    let pairs = hostcalls::get_map_bytes(MapType::HttpRequestHeaders).ok()?;
    let (_, id) = pairs.into_iter().find(|(name, _)| name == "x-request-id")?;
    crate::text(&id).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_shape_of_the_gateways_own() {
        let problem = Problem::new(401, "token_missing", "A \"token\" is needed").with("www-authenticate", "Bearer");
        assert_eq!(
            problem.body(Some("id-1")),
            "{\"type\":\"about:blank\",\"title\":\"A \\\"token\\\" is needed\",\"status\":401,\
             \"code\":\"token_missing\",\"request_id\":\"id-1\"}\n"
        );
        assert!(!problem.body(None).contains("request_id"));
    }
}
