//! Messages as a test finds them, and what became of an exchange.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use portcullis_core::headers::Headers;

/// A message as it arrived: at an upstream, or at the client.
///
/// ```
/// # use portcullis_simulation::{Reply, Seen};
/// fn origin(request: &Seen) -> Reply {
///     Reply::ok(request.target())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Names in lower case, pseudo-headers first, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Whether it ended as it should.
    pub complete: bool,
}

impl Seen {
    pub(crate) fn of(headers: &Headers) -> Self {
        let text = |(name, value): (&[u8], &[u8])| (String::from_utf8_lossy(name).into_owned(), value.to_vec());
        Self { headers: headers.iter().map(text).collect(), ..Self::default() }
    }

    /// The first header of this name, as text.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// fn country(request: &Seen) -> Option<&str> {
    ///     request.header("x-country")
    /// }
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// Every header of this name, as text.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// fn cookies(reply: &Seen) -> usize {
    ///     reply.all("set-cookie").len()
    /// }
    /// ```
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect()
    }

    /// The first trailer of this name, as text.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// fn grpc_status(reply: &Seen) -> Option<&str> {
    ///     reply.trailer("grpc-status")
    /// }
    /// ```
    #[must_use]
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let (_, value) = self.trailers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The path and query of a request.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// fn is_search(request: &Seen) -> bool {
    ///     request.target().starts_with("/search?")
    /// }
    /// ```
    #[must_use]
    pub fn target(&self) -> &str {
        self.header(":path").unwrap_or_default()
    }

    /// The method of a request.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// fn is_read(request: &Seen) -> bool {
    ///     request.method() == "GET"
    /// }
    /// ```
    #[must_use]
    pub fn method(&self) -> &str {
        self.header(":method").unwrap_or_default()
    }

    /// The status of a response; 0 if there was none.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// assert_eq!(Seen::default().status(), 0);
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The body as text.
    ///
    /// ```
    /// # use portcullis_simulation::Seen;
    /// assert_eq!(Seen::default().text(), "");
    /// ```
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Head, body and trailers, a line each.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        if !self.body.is_empty() {
            writeln!(f, "\n{}", String::from_utf8_lossy(&self.body).trim_end())?;
        }
        for (name, value) in &self.trailers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        if self.complete { Ok(()) } else { writeln!(f, "(cut off)") }
    }
}

/// A line of the log.
///
/// ```
/// # use portcullis_simulation::Outcome;
/// fn warnings(outcome: &Outcome) -> usize {
///     outcome.log.iter().filter(|line| line.to_string().starts_with("warn")).count()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The filter that said it.
    pub filter: String,
    /// `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    pub level: &'static str,
    /// What it said.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.level, self.filter, self.text)
    }
}

/// What became of a request.
///
/// ```
/// # use portcullis_simulation::Outcome;
/// fn check(outcome: &Outcome) {
///     assert_eq!(outcome.status(), 200, "{:?}", outcome.log);
///     assert_eq!(outcome.at_upstream().header("x-mark"), Some("request"));
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the client got.
    pub reply: Seen,
    /// What the upstream got; nothing if the request never came so far.
    pub upstream: Option<Seen>,
    /// What the access log says about where the response came from: `via_upstream`, a filter's code word, or the gateway's.
    pub details: String,
    /// How long it took.
    pub took: Duration,
    /// What was logged meanwhile.
    pub log: Vec<Line>,
}

impl Outcome {
    /// The status that the client got; 0 if it got none.
    ///
    /// ```
    /// # use portcullis_simulation::Outcome;
    /// assert_eq!(Outcome::default().status(), 0);
    /// ```
    #[must_use]
    pub fn status(&self) -> u16 {
        self.reply.status()
    }

    /// What the upstream got.
    ///
    /// # Panics
    /// When the request never came so far: with what became of it instead.
    ///
    /// ```
    /// # use portcullis_simulation::Outcome;
    /// fn path(outcome: &Outcome) -> &str {
    ///     outcome.at_upstream().target()
    /// }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn at_upstream(&self) -> &Seen {
        let Some(seen) = &self.upstream else { panic!("the upstream got nothing; the client got\n{}", self.reply) };
        seen
    }

    /// Whether a line of the log has this text in it.
    ///
    /// ```
    /// # use portcullis_simulation::Outcome;
    /// assert!(!Outcome::default().logged("refused"));
    /// ```
    #[must_use]
    pub fn logged(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.text.contains(text))
    }
}

pub(crate) fn pairs(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}
