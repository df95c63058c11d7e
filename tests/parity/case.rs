//! What a case is made of.

/// One request through filters, and what both sides are expected to make of it: the same.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it shows, as words with hyphens: it is the host that is asked for, too.
    pub(crate) name: String,
    /// The section of the ABI reference that it is about.
    pub(crate) section: &'static str,
    /// What the guest does, for each filter, first filter first (`plugins/parity/src/script.rs`).
    pub(crate) filters: Vec<String>,
    /// A module in text format instead of the guest, with `LABEL` where its log lines begin.
    pub(crate) module: Option<String>,
    /// The request.
    pub(crate) ask: Ask,
    /// What the origin answers, by the beginning of the path; `ok` to everything else.
    pub(crate) answers: Vec<(&'static str, Reply)>,
    /// How many of its contexts are deleted in the end: fewer than there are filters where a VM fails.
    pub(crate) ends: usize,
    /// What has to be logged too before it is over: a callout's answer may come later than its exchange ends.
    pub(crate) until: Option<&'static str>,
    /// Whether chance decides if a request that was broken off had got to the origin, so that this is not compared.
    pub(crate) breaks_off: bool,
    /// Whether a headers callback that pauses holds back the headers alone.
    pub(crate) holds_headers: bool,
    /// Whether its filters have a VM that no other case has, on either side.
    pub(crate) alone: bool,
    /// The functions of the ABI that its filters may use beside those that the guest cannot do without; nothing is all.
    pub(crate) granted: Option<&'static [&'static str]>,
    /// Id and configuration of the filters' VMs, where they have any.
    pub(crate) vms: Vec<(&'static str, &'static str)>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Respect {
    /// What the client got.
    Response,
    /// What the origin got.
    Upstream,
    /// What the guest logged.
    Log,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) version: Version,
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<Part>,
    /// The client leaves when the guest has logged this.
    pub(crate) leaves: Option<&'static str>,
}

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1, with a length where there is a body.
    Http1,
    /// HTTP/1.1, with a body in chunks.
    Chunked,
    /// HTTP/2.
    Http2,
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<Part>,
    /// It begins when the guest has logged this.
    pub(crate) after: Option<&'static str>,
}

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes.
    Data(&'static str),
    /// What follows waits until the guest has logged this.
    After(&'static str),
    /// Fields behind the body.
    Trailers(&'static [(&'static str, &'static str)]),
    /// The body ends here without being complete.
    Break,
}

/// A filter's own in its case's names.
const LETTERS: [&str; 4] = ["a", "b", "c", "d"];

/// A case with one filter, asked with [`get`].
pub(crate) fn case(section: &'static str, name: impl Into<String>, script: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        section,
        filters: vec![script.into()],
        module: None,
        ask: get("/"),
        answers: Vec::new(),
        ends: 1,
        until: None,
        breaks_off: false,
        holds_headers: false,
        alone: false,
        granted: None,
        vms: Vec::new(),
    }
}

/// Cases that need nothing but a name and a script.
pub(crate) fn plain(section: &'static str, rows: &[(&'static str, &'static str)]) -> Vec<Case> {
    rows.iter().map(|(name, script)| case(section, *name, *script)).collect()
}

impl Case {
    /// With another filter behind the others.
    pub(crate) fn then(mut self, script: &str) -> Self {
        self.filters.push(script.to_owned());
        self.ends += 1;
        self
    }

    /// With this module in text format instead of the guest.
    pub(crate) fn module(self, text: String) -> Self {
        Self { module: Some(text), ..self }
    }

    pub(crate) fn ask(self, ask: Ask) -> Self {
        Self { ask, ..self }
    }

    /// With this answer to everything.
    pub(crate) fn origin(self, reply: Reply) -> Self {
        self.answer("", reply)
    }

    /// With this answer to what is asked under `path`; the first that fits counts.
    pub(crate) fn answer(mut self, path: &'static str, reply: Reply) -> Self {
        self.answers.push((path, reply));
        self
    }

    /// With that many contexts deleted in the end.
    pub(crate) fn ends(self, ends: usize) -> Self {
        Self { ends, ..self }
    }

    /// It is not over before this is logged.
    pub(crate) fn until(self, text: &'static str) -> Self {
        Self { until: Some(text), ..self }
    }

    /// Chance decides whether a request that is broken off had got to the origin.
    pub(crate) fn breaks_off(self) -> Self {
        Self { breaks_off: true, ..self }
    }

    pub(crate) fn holds_headers(self) -> Self {
        Self { holds_headers: true, ..self }
    }

    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// With no functions of the ABI but these, and those that the guest cannot do without. Envoy has the restrictions of whoever makes
    /// a VM first, so no other case may share it.
    pub(crate) fn granted(self, functions: &'static [&'static str]) -> Self {
        Self { granted: Some(functions), ..self }.alone()
    }

    /// With this id and this configuration of each filter's VM.
    pub(crate) fn vms(self, vms: &[(&'static str, &'static str)]) -> Self {
        Self { vms: vms.to_vec(), ..self }
    }

    /// Id and configuration of the `index`th filter's VM.
    pub(crate) fn vm(&self, index: usize) -> (&str, &str) {
        self.vms.get(index).copied().unwrap_or_default()
    }

    /// What the `index`th filter's log lines begin with.
    pub(crate) fn label(&self, index: usize) -> String {
        format!("{}/{}", self.name, LETTERS[index])
    }

    /// What both sides call the `index`th filter.
    pub(crate) fn plugin(&self, index: usize) -> String {
        format!("{}-{}", self.name, LETTERS[index])
    }
}

/// `GET`, without a body.
pub(crate) fn get(path: &'static str) -> Ask {
    Ask { method: "GET", path, version: Version::Http1, fields: Vec::new(), body: Vec::new(), leaves: None }
}

/// `POST`, with this body.
pub(crate) fn post(body: &'static str) -> Ask {
    Ask { method: "POST", ..get("/").body(&[Part::Data(body)]) }
}

impl Ask {
    pub(crate) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(crate) fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn body(self, parts: &[Part]) -> Self {
        Self { body: parts.to_vec(), ..self }
    }

    pub(crate) fn version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// How many bytes its body has.
    pub(crate) fn length(&self) -> usize {
        let length = |part: &Part| if let Part::Data(data) = part { data.len() } else { 0 };
        self.body.iter().map(length).sum()
    }

    pub(crate) fn leaves(self, when: &'static str) -> Self {
        Self { leaves: Some(when), ..self }
    }
}

/// A status and this body.
pub(crate) fn reply(status: u16, body: &'static str) -> Reply {
    let body = if body.is_empty() { Vec::new() } else { vec![Part::Data(body)] };
    Reply { status, fields: Vec::new(), body, after: None }
}

impl Reply {
    pub(crate) fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn parts(self, parts: &[Part]) -> Self {
        Self { body: parts.to_vec(), ..self }
    }

    pub(crate) fn after(self, text: &'static str) -> Self {
        Self { after: Some(text), ..self }
    }
}
