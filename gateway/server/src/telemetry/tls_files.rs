//! What a scrape sees of TLS files: until when what they hold is good, and how reading them anew has gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::exposition::Exposition;
use crate::tls::files::{Kind, Owner, Shown};

pub(super) fn render(text: &mut Exposition, files: &[Arc<Shown>]) {
    if files.is_empty() {
        return;
    }
    let expiry = |text: &mut Exposition, name: &str, help: &str, kind: Kind| {
        text.family(name, "gauge", help);
        for shown in files.iter().filter(|shown| shown.kind == kind) {
            text.sample(name, &labels(shown), shown.until.load(Ordering::Relaxed));
        }
    };
    let help = "When a certificate expires, in seconds since the Unix epoch.";
    expiry(text, "portcullis_tls_certificate_expiry_seconds", help, Kind::Certificate);
    let help = "When a revocation list is out of date, in seconds since the Unix epoch.";
    expiry(text, "portcullis_tls_revocation_list_expiry_seconds", help, Kind::Revocations);
    let name = "portcullis_tls_reloads_total";
    text.family(name, "counter", "Changed TLS files that were taken into use, or could not be.");
    for shown in files {
        let [owner, file] = labels(shown);
        text.sample(name, &[owner, file, ("result", "used")], shown.reloads.load(Ordering::Relaxed));
        text.sample(name, &[owner, file, ("result", "refused")], shown.failures.load(Ordering::Relaxed));
    }
}

fn labels(shown: &Shown) -> [(&str, &str); 2] {
    let owner = match &shown.owner {
        Owner::Listener(name) => ("portcullis_listener", &**name),
        Owner::Upstream(name) => ("portcullis_upstream", &**name),
    };
    [owner, ("file", &shown.file)]
}
