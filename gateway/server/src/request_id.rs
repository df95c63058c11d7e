//! Fresh request ids: UUIDs of version 7, which sort by time.

use http::HeaderValue;
use uuid::Builder;

use crate::clock::Clock;

/// An id made of the time in milliseconds and 74 random bits. It names a request; it is not a secret.
pub(crate) fn fresh(clock: &Clock) -> HeaderValue {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = Builder::from_unix_timestamp_millis(clock.now().as_nanos() / 1_000_000, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_seven_and_differ() {
        let clock = Clock::start();
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| fresh(&clock).to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(id.as_bytes()[14], b'7');
            assert!(b"89ab".contains(&id.as_bytes()[19]));
        }
    }
}
