//! What the probe is told to do: words of the form `VERB[=ARGUMENT][@CALLBACK]`, separated by blanks.
//!
//! The configuration's script holds for every exchange, the request header `x-probe` adds to it for one.

/// Where a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    VmStart,
    Configure,
    Tick,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Callout,
    Log,
    Done,
}

impl Callback {
    const ALL: &[(&str, Self)] = &[
        ("vm_start", Self::VmStart),
        ("configure", Self::Configure),
        ("tick", Self::Tick),
        ("request_headers", Self::RequestHeaders),
        ("request_body", Self::RequestBody),
        ("request_trailers", Self::RequestTrailers),
        ("response_headers", Self::ResponseHeaders),
        ("response_body", Self::ResponseBody),
        ("response_trailers", Self::ResponseTrailers),
        ("callout", Self::Callout),
        ("log", Self::Log),
        ("done", Self::Done),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(own, _)| *own == name).map(|(_, callback)| *callback)
    }

    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, callback)| *callback == self).map_or("", |(name, _)| name)
    }
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `log`: a line for every callback, `probe: on_NAME …`.
    Log,
    /// `headers`: sets `x-probe-request: seen` and `x-probe-response: seen`.
    Headers,
    /// `reply[=STATUS]`: a local reply, 418 unless told otherwise.
    Reply(u32),
    /// `close`: closes the stream.
    Close,
    /// `pause`: pauses and never resumes.
    Pause,
    /// `callout=UPSTREAM`: pauses, calls `GET /probe-callout`, puts status and body into `x-probe-callout`, resumes.
    Callout(String),
    /// `upper`: holds the body to its end and makes it upper case.
    Upper,
    /// `chunks`: makes every chunk `[LENGTH]`.
    Chunks,
    /// `count=KEY`: counts in the shared data; the response gets `x-probe-count`.
    Count(String),
    /// `property=A.B`: the response gets its bytes as text, or `-`, as `x-probe-property`.
    Property(String),
    /// `path=PATH`: makes it the request's.
    Path(String),
    /// `reroute`: has the route chosen again.
    Reroute,
    /// `tick=MS`: ticks; with `count=KEY@tick` they are counted.
    Tick(u64),
    /// `fail`: answers false, in `vm_start` and `configure`.
    Fail,
    /// `trap`: an `unreachable`.
    Trap,
    /// `panic`: a Rust panic, which says so in the log first.
    Panic,
    /// `exit`: leaves by WASI's `proc_exit`.
    Exit,
    /// `spin=MS`: is busy for so long, pauses not counted.
    Spin(u64),
    /// `loop`: never comes back.
    Loop,
    /// `memory`: takes all memory there is.
    Memory,
}

/// One word of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) verb: Verb,
    pub(crate) at: Callback,
}

/// Reads a script.
///
/// # Errors
/// Names the word that is none.
pub(crate) fn parse(script: &str) -> Result<Vec<Step>, String> {
    script.split_whitespace().map(|word| step(word).ok_or_else(|| format!("`{word}` is no step"))).collect()
}

fn step(word: &str) -> Option<Step> {
    let (action, at) = match word.split_once('@') {
        Some((action, at)) => (action, Callback::named(at)?),
        None => (word, Callback::RequestHeaders),
    };
    let verb = match action.split_once('=') {
        Some(("reply", status)) => Verb::Reply(status.parse().ok()?),
        Some(("callout", upstream)) => Verb::Callout(upstream.to_owned()),
        Some(("count", key)) => Verb::Count(key.to_owned()),
        Some(("property", path)) => Verb::Property(path.to_owned()),
        Some(("path", path)) => Verb::Path(path.to_owned()),
        Some(("spin", ms)) => Verb::Spin(ms.parse().ok()?),
        Some(("tick", ms)) => Verb::Tick(ms.parse().ok()?),
        Some(_) => return None,
        None => plain(action)?,
    };
    Some(Step { verb, at })
}

fn plain(action: &str) -> Option<Verb> {
    Some(match action {
        "log" => Verb::Log,
        "headers" => Verb::Headers,
        "reply" => Verb::Reply(418),
        "close" => Verb::Close,
        "pause" => Verb::Pause,
        "reroute" => Verb::Reroute,
        "upper" => Verb::Upper,
        "chunks" => Verb::Chunks,
        "fail" => Verb::Fail,
        "trap" => Verb::Trap,
        "panic" => Verb::Panic,
        "exit" => Verb::Exit,
        "loop" => Verb::Loop,
        "memory" => Verb::Memory,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_a_list_of_steps() {
        let step = |verb, at| Step { verb, at };
        for (script, want) in [
            ("", Ok(vec![])),
            ("log", Ok(vec![step(Verb::Log, Callback::RequestHeaders)])),
            (
                "trap@response_body reply=403 callout=idp@response_headers",
                Ok(vec![
                    step(Verb::Trap, Callback::ResponseBody),
                    step(Verb::Reply(403), Callback::RequestHeaders),
                    step(Verb::Callout("idp".to_owned()), Callback::ResponseHeaders),
                ]),
            ),
            ("log sing", Err("`sing` is no step".to_owned())),
            ("trap@nowhere", Err("`trap@nowhere` is no step".to_owned())),
            ("tick=soon", Err("`tick=soon` is no step".to_owned())),
        ] {
            assert_eq!(parse(script), want, "{script}");
        }
    }

    #[test]
    fn every_callback_has_its_own_name() {
        for (name, callback) in Callback::ALL {
            assert_eq!(Callback::named(name), Some(*callback));
            assert_eq!(callback.name(), *name);
        }
    }
}
