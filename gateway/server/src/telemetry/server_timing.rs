//! `server-timing`: how long a request has taken, for its client. Only for those whom the listener tells.

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderValue;
use portcullis_core::exchange::Exchange;
use portcullis_core::time::Time;

/// The field's value, in milliseconds: the whole, the wait for the upstream's head, and each part that a filter took.
pub(crate) fn server_timing(exchange: &Exchange, now: Time) -> Option<HeaderValue> {
    let ms = |length: Duration| length.as_secs_f64() * 1e3;
    let since = |then: Time| ms(then.saturating_since(exchange.started()));
    let mut text = format!("total;dur={:.3}", since(now));
    if let Some(responded) = exchange.responded() {
        _ = write!(text, ", upstream;dur={:.3}", since(responded));
    }
    for share in exchange.timings().map_or(&[][..], |timings| timings.shares()) {
        let plugin = exchange.chain().version(share.filter, share.version).map_or("", |filter| &filter.name);
        let (phase, outcome) = (share.phase.as_str(), share.outcome.as_str());
        let desc = quotable(plugin);
        _ = write!(text, ", filter-{};desc=\"{desc} {phase} {outcome}\";dur={:.3}", share.filter, ms(share.busy));
    }
    HeaderValue::try_from(text).ok()
}

/// What can stand between quotes in any field.
fn quotable(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\');
    name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect()
}
