//! How connections of clients end before their clients end them: refused, timed out, or closed because of a flood.
//!
//! Every word that a label can be is shown from the start, so that an alert on its increase sees the first one.

use std::sync::Arc;

use portcullis_core::downstream::{Overdue, Refusal};
use portcullis_core::frames::Flood;

use super::cells::Count;
use super::exposition::Exposition;
use super::metrics::WorkerCells;

/// One worker's counts.
#[derive(Debug, Default)]
pub(super) struct ConnectionEnds {
    refused: [Count; Refusal::ALL.len()],
    timed_out: [Count; Overdue::ALL.len()],
    floods: [Count; Flood::ALL.len()],
}

impl ConnectionEnds {
    pub(super) fn all_refused(&self) -> u64 {
        self.refused.iter().map(Count::get).sum()
    }

    pub(super) fn all_timed_out(&self) -> u64 {
        self.timed_out.iter().map(Count::get).sum()
    }

    pub(super) fn all_floods(&self) -> u64 {
        self.floods.iter().map(Count::get).sum()
    }

    pub(super) fn refused(&self, reason: Refusal) {
        count(&self.refused, &Refusal::ALL, reason);
    }

    pub(super) fn timed_out(&self, kind: Overdue) {
        count(&self.timed_out, &Overdue::ALL, kind);
    }

    pub(super) fn flooded(&self, kind: Flood) {
        count(&self.floods, &Flood::ALL, kind);
    }
}

fn count<T: PartialEq>(cells: &[Count], all: &[T], which: T) {
    if let Some((_, cell)) = all.iter().zip(cells).find(|(kind, _)| **kind == which) {
        cell.add(1);
    }
}

pub(super) fn render(text: &mut Exposition, workers: &[Arc<WorkerCells>]) {
    family(
        text,
        ("portcullis_connections_refused_total", "Connections closed before anything was said on them."),
        ("reason", Refusal::ALL.map(Refusal::word)),
        |which| workers.iter().filter_map(|cells| Some(cells.ends.refused.get(which)?.get())).sum(),
    );
    family(
        text,
        ("portcullis_connections_timed_out_total", "Connections, or HTTP/2 streams, whose client took too long."),
        ("kind", Overdue::ALL.map(Overdue::word)),
        |which| workers.iter().filter_map(|cells| Some(cells.ends.timed_out.get(which)?.get())).sum(),
    );
    family(
        text,
        ("portcullis_http2_floods_total", "HTTP/2 connections ended because of too many frames of a kind."),
        ("kind", Flood::ALL.map(Flood::word)),
        |which| workers.iter().filter_map(|cells| Some(cells.ends.floods.get(which)?.get())).sum(),
    );
}

fn family<const N: usize>(
    text: &mut Exposition,
    (name, help): (&str, &str),
    (label, words): (&str, [&str; N]),
    sum: impl Fn(usize) -> u64,
) {
    text.family(name, "counter", help);
    for (which, word) in words.into_iter().enumerate() {
        text.sample(name, &[(label, word)], sum(which));
    }
}
