//! What came of a case on one side, as lines that can be compared, and the verdict on both.

use portcullis_tests::client::H2Answer;
use portcullis_tests::origin::Seen;
use portcullis_tests::wire::Message;

use crate::case::{Case, Respect};
use crate::differences;
use crate::log::Line;

/// Fields whose values are a host's own, or that say how a connection rather than a message is.
const OWN: [&str; 14] = [
    "connection",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-internal",
    "x-envoy-upstream-service-time",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// What a client got.
#[derive(Debug)]
pub(crate) struct Response(Vec<String>);

/// What came of a case, in each respect.
#[derive(Debug)]
pub(crate) struct Observed {
    response: Vec<String>,
    upstream: Vec<String>,
    log: Vec<String>,
}

fn field(name: &str, value: &[u8]) -> Option<String> {
    (!OWN.contains(&name)).then(|| format!("{name}: {}", value.escape_ascii()))
}

/// A message: its fields in the order of their names, those of one name in the order they came.
fn lines<'a>(
    start: String,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    trailers: impl Iterator<Item = (&'a str, &'a [u8])>,
    complete: bool,
) -> Vec<String> {
    let mut named: Vec<String> = fields.filter_map(|(name, value)| field(name, value)).collect();
    named.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    let mut lines = vec![start];
    lines.append(&mut named);
    lines.push(format!("'{}'", body.escape_ascii()));
    lines.extend(trailers.map(|(name, value)| format!("trailer {name}: {}", value.escape_ascii())));
    if !complete {
        lines.push("(cut off)".to_owned());
    }
    lines
}

fn map(fields: &http::HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

impl Response {
    pub(crate) fn of_h1(message: &Message) -> Self {
        let head = &message.head.fields;
        let named: Vec<(String, &str)> =
            head.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
        Self(lines(
            message.status().to_string(),
            named.iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
            &message.body,
            message.trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
            message.complete,
        ))
    }

    pub(crate) fn of_h2(answer: &H2Answer) -> Self {
        let none = http::HeaderMap::new();
        let trailers = answer.trailers.as_ref().unwrap_or(&none);
        Self(lines(answer.status.to_string(), map(&answer.headers), &answer.body, map(trailers), answer.complete))
    }
}

impl Observed {
    pub(crate) fn new(response: Option<Response>, upstream: &[Seen], log: &[Line]) -> Self {
        // Which of two requests comes first at an origin is for their connections to say.
        let mut requests: Vec<Vec<String>> = upstream.iter().map(seen).collect();
        requests.sort();
        // How many VMs are configured is a host's own.
        let mut lines: Vec<String> = Vec::new();
        for line in log.iter().map(said) {
            if !line.contains("|configure: ") || !lines.contains(&line) {
                lines.push(line);
            }
        }
        Self {
            response: response.map_or_else(|| vec!["(nothing)".to_owned()], |response| response.0),
            upstream: requests.concat(),
            log: lines,
        }
    }

    fn respect(&self, respect: Respect) -> &[String] {
        match respect {
            Respect::Response => &self.response,
            Respect::Upstream => &self.upstream,
            Respect::Log => &self.log,
        }
    }
}

fn seen(seen: &Seen) -> Vec<String> {
    let none = http::HeaderMap::new();
    let trailers = seen.trailers.as_ref().unwrap_or(&none);
    // What HTTP/2 has in its pseudo-header, HTTP/1.1 has in a field.
    let host = seen.uri.authority().map(|authority| ("host", authority.as_str().as_bytes()));
    let start = format!("{} {}", seen.method, seen.target());
    lines(start, host.into_iter().chain(map(&seen.headers)), &seen.body, map(trailers), seen.complete)
}

/// A line, without the entries of header maps that are a host's own.
fn said(line: &Line) -> String {
    let filter = line.label.rsplit('/').next().unwrap_or_default();
    let text = match line.text.split_once(" {").and_then(|(before, rest)| Some((before, rest.strip_suffix('}')?))) {
        Some((before, entries)) if before.contains(" = ") => {
            let kept = |entry: &&str| !OWN.contains(&entry.split('=').next().unwrap_or_default());
            format!("{before} {{{}}}", entries.split(" | ").filter(kept).collect::<Vec<_>>().join(" | "))
        }
        _ => line.text.clone(),
    };
    format!("{} {filter}|{text}", line.level)
}

/// What is wrong with a case: it differs where it does not say so, or does not where it does.
pub(crate) fn verdict(case: &Case, ours: &Observed, theirs: &Observed) -> Option<String> {
    let mut wrong = String::new();
    for respect in [Respect::Response, Respect::Upstream, Respect::Log] {
        let (ours, theirs) = (ours.respect(respect), theirs.respect(respect));
        let documented = differences::of(&case.name).filter(|(_, respects)| respects.contains(&respect));
        match (ours == theirs, documented) {
            (true, None) | (false, Some(_)) => {}
            (true, Some((why, _))) => wrong += &format!("  {respect:?} is the same, though `{why}` says it differs\n"),
            (false, None) => wrong += &format!("  {respect:?}:\n{}", difference(ours, theirs)),
        }
    }
    let Case { name, section, filters, .. } = case;
    (!wrong.is_empty()).then(|| format!("{section} {name}: {}\n{wrong}", filters.join("\n  then ")))
}

/// Lines of both, Envoy's own with `-`, ours with `+`.
fn difference(ours: &[String], theirs: &[String]) -> String {
    let same = std::iter::zip(ours, theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let ends = std::iter::zip(ours[same..].iter().rev(), theirs[same..].iter().rev());
    let end = ends.take_while(|(ours, theirs)| ours == theirs).count();
    let mut text = String::new();
    for (sign, lines) in [
        (' ', &ours[..same]),
        ('-', &theirs[same..theirs.len() - end]),
        ('+', &ours[same..ours.len() - end]),
        (' ', &ours[ours.len() - end..]),
    ] {
        lines.iter().for_each(|line| text += &format!("    {sign} {line}\n"));
    }
    text
}
