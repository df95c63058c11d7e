//! How a call ended: gRPC's codes, what HTTP calls them, and the words that come with them.

use portcullis_sdk::Response;

use plugin_common::percent;

/// Code, name, and the HTTP status that `google/rpc/code.proto` gives it.
const CODES: [(&str, u16); 17] = [
    ("ok", 200),
    ("cancelled", 499),
    ("unknown", 500),
    ("invalid_argument", 400),
    ("deadline_exceeded", 504),
    ("not_found", 404),
    ("already_exists", 409),
    ("permission_denied", 403),
    ("resource_exhausted", 429),
    ("failed_precondition", 400),
    ("aborted", 409),
    ("out_of_range", 400),
    ("unimplemented", 501),
    ("internal", 500),
    ("unavailable", 503),
    ("data_loss", 500),
    ("unauthenticated", 401),
];

/// What a service says of a call at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: usize,
    pub(crate) message: String,
}

impl Status {
    /// From `grpc-status` and `grpc-message`; a status that is no number is `unknown`, as the protocol says.
    pub(crate) fn of(code: &str, message: Option<&[u8]>) -> Self {
        let code = code.parse().ok().filter(|code| *code < CODES.len()).unwrap_or(2);
        Self { code, message: unescaped(message.unwrap_or_default()) }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.code == 0
    }

    fn row(&self) -> (&'static str, u16) {
        CODES.get(self.code).copied().unwrap_or(("unknown", 500))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.row().0
    }

    pub(crate) fn http(&self) -> u16 {
        self.row().1
    }

    /// For a client of HTTP: the service's own words are the title, as they are meant for the caller.
    pub(crate) fn problem(&self) -> Response {
        let problem = Response::problem(self.http(), self.name());
        if self.message.is_empty() { problem } else { problem.title(self.message.as_str()) }
    }

    /// For a client whose stream has begun.
    pub(crate) fn json(&self) -> String {
        let Self { code, message } = self;
        serde_json::json!({ "error": { "code": code, "status": self.name(), "message": message } }).to_string()
    }
}

/// `grpc-message` is percent-encoded; what is no UTF-8 is replaced.
fn unescaped(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&percent::decoded(bytes, false)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_the_protocol_says() {
        for (code, message, want) in [
            ("5", "no shelf %E2%82%AC", ("not_found", 404, "no shelf €")),
            ("7", "100% not % you%2", ("permission_denied", 403, "100% not % you%2")),
            ("14", "", ("unavailable", 503, "")),
            ("16", "%ff", ("unauthenticated", 401, "\u{fffd}")),
            ("17", "new", ("unknown", 500, "new")),
            ("-1", "x", ("unknown", 500, "x")),
            ("five", "x", ("unknown", 500, "x")),
        ] {
            let status = Status::of(code, Some(message.as_bytes()));
            assert_eq!((status.name(), status.http(), status.message.as_str()), want, "{code}");
        }
    }
}
