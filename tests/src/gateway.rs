//! A gateway in this process, started from the text of a configuration.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;

use portcullis::config::snapshot::Snapshot;
use portcullis::supervisor::{self, Options};
use portcullis::{cli, config};

use crate::client::{Client, H2};
use crate::guests;
use crate::wire::Message;

/// What every configuration gets that does not say otherwise.
const USUAL: &[(&str, &str)] = &[
    ("version", "1"),
    ("workers", "1"),
    ("access_log", "off"),
    ("drain", "{ deadline: 5s }"),
    ("admin", "{ bind: \"127.0.0.1:0\" }"),
    ("listeners", "{ main: { bind: \"127.0.0.1:0\" } }"),
];

/// An origin that can be reached over both protocols.
const SIMPLE: &str = r#"
upstreams:
  origin: { endpoints: ["{origin}"], timeouts: { connect: 1s, response: 10s } }
  h2: { endpoints: ["{origin}"], protocol: http2 }
plugins: { probe: {guest:probe} }
filters: {filters}
routes:
  - { name: all, match: { path: "/*" }, upstream: origin }
  - { name: h2, match: { path: "/h2/*" }, upstream: h2 }
"#;

/// A running gateway; it stops when dropped.
pub struct Gateway(supervisor::Gateway);

impl Gateway {
    /// Starts one.
    ///
    /// In the text, `{name}` stands for what `places` says it is, `{guest:NAME}` for the entry of a plugin built from this
    /// repository, `{file:NAME}` for its path. Keys at the top that are missing get the usual values.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(text: &str, places: &[(&str, &dyn Display)]) -> Self {
        Self::try_start(text, places).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// One that sends everything to one origin through these filters; what is under `/h2/` over HTTP/2.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn in_front_of(origin: &dyn Display, filters: &str) -> Self {
        Self::start(SIMPLE, &[("origin", origin), ("filters", &filters)])
    }

    /// One with the probe before an origin, doing what this script says.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn probed(origin: &dyn Display, script: &str) -> Self {
        Self::in_front_of(origin, &format!("[{{ plugin: probe, config: \"{script}\" }}]"))
    }

    /// Starts one, or says as an operator would read it why it does not start.
    ///
    /// # Errors
    /// The diagnostics of the configuration, or why it cannot run.
    pub fn try_start(text: &str, places: &[(&str, &dyn Display)]) -> Result<Self, String> {
        let snapshot = snapshot(text, places)?;
        let cache = guests::target().join("tmp").join("test-modules");
        let started = supervisor::start(snapshot, &Options { cache: Some(cache), ..Options::default() });
        started.map(Self).map_err(|error| error.to_string())
    }

    /// Puts another configuration into use, or says as an operator would read it why not.
    ///
    /// # Errors
    /// The diagnostics of the configuration, or why it cannot run.
    pub fn apply(&self, text: &str, places: &[(&str, &dyn Display)]) -> Result<u64, String> {
        let applied = self.0.handle().apply(snapshot(text, places)?);
        applied.map(|applied| applied.revision).map_err(|error| error.to_string())
    }

    /// The gateway itself.
    #[must_use]
    pub fn into_inner(self) -> supervisor::Gateway {
        self.0
    }

    /// Where its first listener listens.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.listeners.first().expect("a listener").1
    }

    /// Where each of its listeners listens, by name.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.0.listeners.iter().map(|(_, address)| *address).collect()
    }

    /// A new connection to it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A new HTTP/2 connection to it.
    #[must_use]
    pub fn h2(&self) -> H2 {
        H2::connect(self.address())
    }

    /// `GET` for `test` over a new connection.
    #[must_use]
    pub fn get(&self, path: &str) -> Message {
        self.client().get(path)
    }

    /// A request for `test` over a new connection.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Message {
        self.client().ask(method, path, fields, body)
    }

    /// Where its own pages are.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.0.admin.expect("an admin listener")
    }

    /// Where its rate-limit service is.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn rate_limit_service(&self) -> SocketAddr {
        self.0.rate_limit.expect("a rate-limit service")
    }

    /// One of its own pages.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn page(&self, path: &str) -> Message {
        let admin = self.admin();
        Client::connect(admin).ask("GET", path, &[("host", &admin.to_string())], "")
    }

    /// The sum of the samples of a metric whose line holds all of `with`.
    #[must_use]
    pub fn metric(&self, name: &str, with: &[&str]) -> f64 {
        let fits = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && with.iter().all(|w| line.contains(w))
        };
        let page = self.page("/metrics").text();
        page.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn snapshot(text: &str, places: &[(&str, &dyn Display)]) -> Result<Snapshot, String> {
    match config::from_text(Path::new("portcullis.yaml"), &filled_in(text, places)) {
        Ok((snapshot, _)) => Ok(snapshot),
        Err(problems) => {
            let mut out = Vec::new();
            cli::print(&problems, &mut out).map_err(|error| error.to_string())?;
            Err(String::from_utf8_lossy(&out).into_owned())
        }
    }
}

pub(crate) fn filled_in(text: &str, places: &[(&str, &dyn Display)]) -> String {
    let mut text = text.to_owned();
    for (name, place) in places {
        text = text.replace(&format!("{{{name}}}"), &place.to_string());
    }
    for (opening, shown) in
        [("{guest:", guests::entry as fn(&Path) -> String), ("{file:", |path| path.display().to_string())]
    {
        let mut done = String::new();
        while let Some((before, rest)) = text.split_once(opening) {
            done.push_str(before);
            if before.ends_with('$') {
                // The gateway's own: a secret.
                done.push_str(opening);
                text = rest.to_owned();
                continue;
            }
            let (name, after) = rest.split_once('}').expect("a closing brace");
            done.push_str(&shown(&guests::module(name)));
            text = after.to_owned();
        }
        text = done + &text;
    }
    for (key, value) in USUAL {
        if !text.lines().any(|line| line.starts_with(&format!("{key}:"))) {
            text = format!("{key}: {value}\n{text}");
        }
    }
    text
}
