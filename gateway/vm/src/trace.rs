//! What crosses the border, for authors of plugins to look at: a line of the log for each callback and each hostcall, under
//! `portcullis::abi=trace`, in a program that has asked for it. In others each costs a comparison.

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_abi::pairs::Pairs;
use portcullis_abi::{BufferType, MapType, Status, StreamType};
use portcullis_core::context::ContextId;
use portcullis_core::event::End;
use portcullis_core::filter::Callback;

use crate::guest::Call;

/// The most that is shown of one value.
const SHOWN_BYTES: usize = 200;

/// Whether this program tells of calls at all.
static TELLS: AtomicBool = AtomicBool::new(false);

/// Lets every callback and hostcall of this program be told of. What guests are given, secrets included, is then in the log, so
/// turning a log up is not enough: a gateway does not call this.
pub fn tell_of_calls() {
    TELLS.store(true, Ordering::Relaxed);
}

/// Whether anybody wants to know.
pub(crate) fn is_on() -> bool {
    TELLS.load(Ordering::Relaxed) && tracing::enabled!(target: "portcullis::abi", tracing::Level::TRACE)
}

/// A callback begins.
#[cold]
pub(crate) fn callback(function: &str, id: Option<ContextId>) {
    let of = id.map(|ContextId(id)| format!(" #{id}")).unwrap_or_default();
    tracing::trace!(target: "portcullis::abi", "-> {function}{of}");
}

/// A callback of the chain has returned.
#[cold]
pub(crate) fn answered(function: &str, ContextId(id): ContextId, callback: Callback, answer: u32) {
    let end = |end: End| if end.is_end() { ", the last" } else { "" };
    let about = match callback {
        Callback::Headers(_, count, last) => format!("{count} headers{}", end(last)),
        Callback::Body(_, size, last) => format!("{size} bytes{}", end(last)),
        Callback::Trailers(_, count) => format!("{count} trailers"),
        Callback::Data(_, size, last) => format!("{size} bytes{}", end(last)),
        Callback::NewConnection | Callback::Closed(..) | Callback::Log | Callback::Done | Callback::Delete => {
            String::new()
        }
    };
    let word = match (callback, answer) {
        (Callback::Closed(..) | Callback::Log | Callback::Done | Callback::Delete, _) => "",
        (_, 0) => " continue",
        (_, 1) => " pause",
        _ => "",
    };
    tracing::trace!(target: "portcullis::abi", "<- {function} #{id} ({about}) = {answer}{word}");
}

/// A hostcall has returned: its arguments by their names, with what addresses point to in place of the addresses.
#[cold]
pub(crate) fn hostcall(
    guest: &Call<'_>,
    (flavour, name): (&str, &str),
    arguments: &[(&'static str, i128)],
    answer: &wasmtime::Result<impl Debug>,
) {
    let mut line = format!("   {name}(");
    let mut separator = "";
    let mut rest = arguments;
    while let Some(((argument, number), after)) = rest.split_first() {
        rest = after;
        if argument.starts_with("out") {
            continue;
        }
        let len = after.first().filter(|(next, _)| next.strip_suffix("_len") == Some(argument) || *next == "len");
        let shown = match len {
            Some((_, len)) => {
                rest = after.get(1..).unwrap_or_default();
                memory(guest, argument, *number, *len)
            }
            None => word(argument, *number),
        };
        let _written = write!(line, "{separator}{argument}: {shown}");
        separator = ", ";
    }
    line.push_str(") = ");
    match answer {
        Ok(answer) if matches!(flavour, "host" | "free") => {
            let number = format!("{answer:?}");
            let status = number.parse::<u32>().ok().and_then(|number| Status::try_from(number).ok());
            line.push_str(&status.map_or(number, |status| format!("{status:?}")));
            if status == Some(Status::Ok) {
                given(guest, arguments, &mut line);
            }
        }
        Ok(answer) => _ = write!(line, "{answer:?}"),
        Err(_) => line.push_str("a trap"),
    }
    tracing::trace!(target: "portcullis::abi", "{line}");
}

/// A number that stands for something.
fn word(argument: &str, number: i128) -> String {
    let small = u32::try_from(number).ok();
    let known = match argument {
        "map" => small.and_then(|map| MapType::try_from(map).ok()).map(|map| format!("{map:?}")),
        "buffer" => small.and_then(|buffer| BufferType::try_from(buffer).ok()).map(|buffer| format!("{buffer:?}")),
        "stream" => small.and_then(|stream| StreamType::try_from(stream).ok()).map(|stream| format!("{stream:?}")),
        _ => None,
    };
    known.unwrap_or_else(|| number.to_string())
}

/// What is in the guest's memory there.
fn memory(guest: &Call<'_>, argument: &str, address: i128, len: i128) -> String {
    let place = u32::try_from(address).ok().zip(u32::try_from(len).ok());
    let Some(bytes) = place.and_then(|(address, len)| guest.read(address, len).ok()) else {
        return format!("{len} bytes at {address}, which are not in its memory");
    };
    let is_list = matches!(argument, "pairs" | "fields" | "trailers" | "metadata" | "headers");
    match Pairs::parse(bytes) {
        Ok(pairs) if is_list => {
            let pair = |(name, value): (&[u8], &[u8])| format!("{}: {}", name.escape_ascii(), text(value));
            format!("{{ {} }}", pairs.map(pair).collect::<Vec<_>>().join(", "))
        }
        _ => text(bytes),
    }
}

/// What the guest was given.
fn given(guest: &Call<'_>, arguments: &[(&'static str, i128)], line: &mut String) {
    let out = |wanted: &str| {
        let (_, place) = arguments.iter().find(|(argument, _)| *argument == wanted)?;
        guest.number(u32::try_from(*place).ok()?).ok()
    };
    if let (Some(address), Some(len)) = (out("out"), out("out_len")) {
        let _written = write!(line, " {}", guest.read(address, len).map_or_else(|_| String::new(), text));
    }
}

fn text(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    let more = if shown.len() < bytes.len() { format!("… of {} bytes", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", shown.escape_ascii())
}
