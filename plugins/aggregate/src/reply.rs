//! The reply's head: status, headers, entity tag.

use std::cell::OnceCell;

use portcullis_sdk::Response;

use crate::caching::{cache_control, etag, is_known};
use crate::outcome::Outcome;
use crate::plan::Reply;
use crate::values::Values;

/// It names the calls that failed, in replies without their results.
const PARTIAL: &str = "x-partial";

impl Reply {
    /// The response with this body, whose calls `failed` came to nothing.
    pub(crate) fn response(&self, body: String, failed: &[&str], values: &Values<'_>) -> Response {
        let is_partial = !failed.is_empty();
        let has_tag = self.etag && self.status == 200 && !is_partial && is_read(values);
        let tag = has_tag.then(|| etag(&body));
        let known = tag.as_deref().zip(values.received.head.text("if-none-match"));
        let mut response = match known {
            Some((tag, known)) if is_known(known, tag) => Response::new(304).with_code("not_modified"),
            _ => {
                Response::json(self.status, body).with_code(if is_partial { "composed_partially" } else { "composed" })
            }
        };
        let mut headers = response.headers_mut();
        for (name, value) in self.headers(values) {
            if name == "set-cookie" {
                headers.append(&name, value);
            } else {
                headers.set(&name, value);
            }
        }
        if let Some(tag) = tag {
            headers.set("etag", tag);
        }
        if is_partial {
            headers.set(PARTIAL, failed.join(", "));
            // It is not what the client would get the next time.
            headers.set("cache-control", "no-store");
        }
        response
    }

    /// Those of the settings, and those of answers.
    fn headers(&self, values: &Values<'_>) -> Vec<(String, Vec<u8>)> {
        let mut headers = Vec::new();
        for (name, template) in &self.headers {
            // One that would not be a header is none.
            let value = template.render(&|path| values.text(path)).unwrap_or_default();
            if !value.is_empty() {
                headers.push((name.to_string(), value.into_bytes()));
            }
        }
        let answers = || values.outcomes.iter().filter_map(OnceCell::get).flat_map(Outcome::answers);
        for name in self.forward.iter().filter(|name| !self.headers.iter().any(|(own, _)| own == *name)) {
            match name.as_str() {
                "cache-control" => {
                    let each: Vec<Option<String>> = answers().map(|answer| answer.head.headers().text(name)).collect();
                    headers.push((name.to_string(), cache_control(&each).into_bytes()));
                }
                // Each is one cookie, of whichever service.
                "set-cookie" => {
                    let each = answers().flat_map(|answer| answer.head.headers().get_all(name));
                    headers.extend(each.map(|value| (name.to_string(), value.into_bytes())));
                }
                _ => {
                    let first = answers().find_map(|answer| answer.head.headers().get(name));
                    headers.extend(first.map(|value| (name.to_string(), value.into_bytes())));
                }
            }
        }
        headers
    }
}

/// Whether the request only reads: a reply to another is no representation that a client could have.
fn is_read(values: &Values<'_>) -> bool {
    values.received.header(":method").is_some_and(|method| method == b"GET" || method == b"HEAD")
}
