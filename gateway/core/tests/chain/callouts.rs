//! Starting callouts: what is refused, how they are numbered, and what the server is handed (ABI reference §9.2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_abi::Status;
use portcullis_core::context::{CalloutResponse, Contexts, UpstreamId};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::VmIndex;
use portcullis_core::host::{GuestCallout, Host};

type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

const HEAD: [(&[u8], &[u8]); 3] = [(b":method", b"POST"), (b":path", b"/check"), (b"host", b"authz.test")];

/// A guest's root context, in a callback of its own.
struct Guest {
    exchanges: Exchanges,
    contexts: Contexts,
}

impl Guest {
    fn new() -> Self {
        let upstreams = Arc::new([(Box::from("authz"), UpstreamId(3))].into_iter().collect());
        let mut contexts = Contexts::new(VmIndex(0), 0, upstreams, Bytes::new());
        let root = contexts.add_root("plugin".into(), Bytes::new());
        contexts.enter(root);
        Self { exchanges: Exchanges::default(), contexts }
    }

    fn call(&mut self, upstream: &[u8], head: Pairs<'_>, timeout_ms: u32) -> Result<u32, Status> {
        let mut host = Host { exchanges: &mut self.exchanges, contexts: &mut self.contexts };
        let callout = GuestCallout { upstream, body: b"body", timeout_ms };
        host.http_call(callout, head.iter().copied(), [(&b"t"[..], &b"1"[..])].into_iter())
    }
}

#[test]
fn tokens_are_multiples_of_four_and_the_server_gets_the_whole_callout() {
    let mut guest = Guest::new();
    assert_eq!([(); 3].map(|()| guest.call(b"authz", &HEAD, 250)), [Ok(4), Ok(8), Ok(12)]);
    let callout = guest.exchanges.callouts.first().expect("it was recorded");
    assert_eq!((callout.token, callout.upstream, callout.timeout), (4, UpstreamId(3), Duration::from_millis(250)));
    assert_eq!(callout.headers.authority(), Some(&b"authz.test"[..]));
    assert_eq!(callout.headers.path().map(|path| path.as_str()), Some("/check"));
    assert_eq!((&callout.body[..], callout.trailers.len()), (&b"body"[..], 1));
}

#[test]
fn a_time_of_zero_or_beyond_the_limit_is_the_limit() {
    let mut guest = Guest::new();
    let limit = guest.exchanges.limits.callout_timeout;
    for timeout_ms in [0, u32::MAX >> 1] {
        guest.call(b"authz", &HEAD, timeout_ms).expect("it is started");
        assert_eq!(guest.exchanges.callouts.pop().map(|callout| callout.timeout), Some(limit));
    }
}

#[test]
fn what_cannot_be_called_is_a_bad_argument_and_starts_nothing() {
    let cases: [(&str, &[u8], Pairs<'_>, u32); 7] = [
        ("an unknown upstream", b"other", &HEAD, 1),
        ("a name that is no text", b"\xff", &HEAD, 1),
        ("a time with the sign bit set", b"authz", &HEAD, 1 << 31),
        ("no method", b"authz", &[(b":path", b"/"), (b":authority", b"a.test")], 1),
        ("no path", b"authz", &[(b":method", b"GET"), (b":authority", b"a.test")], 1),
        ("no authority", b"authz", &[(b":method", b"GET"), (b":path", b"/")], 1),
        ("nothing", b"authz", &[], 1),
    ];
    for (name, upstream, head, timeout_ms) in cases {
        let mut guest = Guest::new();
        assert_eq!(guest.call(upstream, head, timeout_ms), Err(Status::BadArgument), "{name}");
        assert!(guest.exchanges.callouts.is_empty(), "{name}");
    }
}

#[test]
fn a_vm_has_only_so_many_callouts_in_flight() {
    let mut guest = Guest::new();
    guest.exchanges.limits.callouts = 2;
    assert_eq!([(); 3].map(|()| guest.call(b"authz", &HEAD, 1)), [Ok(4), Ok(8), Err(Status::InternalFailure)]);
    guest.contexts.deliver(CalloutResponse::default());
    assert_eq!(guest.call(b"authz", &HEAD, 1), Ok(12));
}
