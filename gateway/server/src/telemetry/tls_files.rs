//! What a scrape sees of TLS files: until when what they hold is good, and how reading them anew has gone.
//!
//! Those that find no room are shown as one, which expires with the first of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::Exposition;
use super::room::{Ledger, OVERFLOW, TLS_FILES};
use crate::tls::files::{Kind, Owner, Shown};

/// The lines there are of one of them, and the most bytes of one but for its names.
const LINES: usize = 3;
const LINE_BYTES: usize = 120;

pub(super) fn render(text: &mut Exposition, files: &[Arc<Shown>]) {
    let (own, rest) = by_room(files);
    let expiry = |text: &mut Exposition, name: &str, help: &str, kind: Kind| {
        text.family(name, "gauge", help);
        for shown in own.iter().filter(|shown| shown.kind == kind) {
            text.sample(name, &labels(shown), shown.until.load(Ordering::Relaxed));
        }
        let of_rest = rest.iter().filter(|shown| shown.kind == kind).map(|shown| shown.until.load(Ordering::Relaxed));
        if let Some(first) = of_rest.min() {
            text.sample(name, &[("file", OVERFLOW)], first);
        }
    };
    let help = "When a certificate expires, in seconds since the Unix epoch.";
    expiry(text, "portcullis_tls_certificate_expiry_seconds", help, Kind::Certificate);
    let help = "When a revocation list is out of date, in seconds since the Unix epoch.";
    expiry(text, "portcullis_tls_revocation_list_expiry_seconds", help, Kind::Revocations);
    let name = "portcullis_tls_reloads_total";
    text.family(name, "counter", "Changed TLS files that were taken into use, or could not be.");
    for shown in &own {
        let [owner, file] = labels(shown);
        text.sample(name, &[owner, file, ("result", "used")], shown.reloads.load(Ordering::Relaxed));
        text.sample(name, &[owner, file, ("result", "refused")], shown.failures.load(Ordering::Relaxed));
    }
    if !rest.is_empty() {
        let sum =
            |of: fn(&Shown) -> &AtomicU64| rest.iter().map(|shown| of(shown).load(Ordering::Relaxed)).sum::<u64>();
        text.sample(name, &[("file", OVERFLOW), ("result", "used")], sum(|shown| &shown.reloads));
        text.sample(name, &[("file", OVERFLOW), ("result", "refused")], sum(|shown| &shown.failures));
    }
}

/// Those with series of their own, and the others.
fn by_room(files: &[Arc<Shown>]) -> (Vec<&Shown>, Vec<&Shown>) {
    let (mut ledger, nobody) = (Ledger::of(&TLS_FILES), Arc::from(""));
    let bytes =
        |shown: &Shown| LINES * (LINE_BYTES + labels(shown).iter().map(|(_, value)| value.len()).sum::<usize>());
    files.iter().map(AsRef::as_ref).partition(|shown| ledger.take(&nobody, bytes(shown)))
}

fn labels(shown: &Shown) -> [(&str, &str); 2] {
    let owner = match &shown.owner {
        Owner::Admin => ("portcullis_listener", "admin"),
        Owner::Listener(name) => ("portcullis_listener", &**name),
        Owner::Upstream(name) => ("portcullis_upstream", &**name),
    };
    [owner, ("file", &shown.file)]
}
