//! Traces that cross the gateway: W3C Trace Context, read, judged and written.
//!
//! A trace goes on when the policy believes whoever sent the request, and begins anew otherwise; what was said of the old one is
//! then taken off, so that no stranger can join a trace or have one recorded. Whether a trace that begins here is recorded
//! follows from its id alone (OpenTelemetry's consistent probability sampling), so that gateways with the same share agree.
//! **Invariant:** what is written is version 00; a `tracestate` is passed on unchanged or not at all. Randomness is an argument.

use std::num::{NonZeroU64, NonZeroU128};

use http::header::{HeaderMap, HeaderName};

use crate::forward::Trust;

/// Says which trace a request is part of.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What those who trace have added to that.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00.
pub const LEN: usize = 55;
/// The most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// The caller records the trace.
const SAMPLED: u8 = 1;
/// The last seven bytes of the trace's id are random (level 2 of the standard).
const RANDOM: u8 = 2;
/// What is random of a trace's id: 56 bits.
const RANDOMNESS: u64 = (1 << 56) - 1;

/// A trace's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// As OTLP wants it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

/// A span's name, within its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// A new one.
    pub fn fresh(random: &mut impl FnMut() -> u64) -> Self {
        Self(NonZeroU64::new(random()).unwrap_or(NonZeroU64::MIN))
    }

    /// As OTLP wants it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

/// Whose traces are continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parents {
    /// Those of trusted proxies, who also say whether a trace is recorded.
    #[default]
    Trusted,
    /// Everyone's; but only trusted proxies say whether a trace is recorded.
    Any,
    /// Nobody's.
    None,
}

/// What is done about traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose traces are continued.
    pub parents: Parents,
    /// From which randomness on a trace is recorded.
    threshold: u64,
}

impl Policy {
    /// Records this share of the traces that begin here, from 0 to 1.
    #[must_use]
    pub fn new(parents: Parents, share: f64) -> Self {
        let all = RANDOMNESS + 1;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 2^56, which a float holds"
        )]
        let kept = (share.clamp(0.0, 1.0) * all as f64) as u64;
        Self { parents, threshold: all - kept }
    }

    fn samples(&self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = trace.to_bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.threshold
    }
}

/// A request's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The gateway's own span.
    pub span: SpanId,
    /// The caller's span; absent where the trace begins here.
    pub parent: Option<SpanId>,
    flags: u8,
}

impl Trace {
    /// Whether it is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags that are passed on.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The `traceparent` of those who are called from its span.
    #[must_use]
    pub fn text(&self) -> [u8; LEN] {
        self.text_of(self.span)
    }

    /// The `traceparent` of those who are called from a span of the same trace.
    #[must_use]
    pub fn text_of(&self, span: SpanId) -> [u8; LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put(&mut text, 3, &self.id.to_bytes());
        put(&mut text, 36, &span.to_bytes());
        put(&mut text, 53, &[self.flags]);
        text
    }
}

/// Writes bytes as hexadecimal digits.
fn put(text: &mut [u8], at: usize, bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    let places = text.get_mut(at..).unwrap_or_default().chunks_exact_mut(2);
    for (place, byte) in places.zip(bytes) {
        place.copy_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
}

/// Gives a request its place in a trace: the one its fields name, if the policy believes them, or a new one.
///
/// Takes off what is said of a trace that does not go on, and a `tracestate` that cannot be read. The request's own
/// `traceparent` is for the caller to write.
pub fn join(fields: &mut HeaderMap, policy: &Policy, trust: Trust, mut random: impl FnMut() -> u64) -> Trace {
    let believed = match policy.parents {
        Parents::Any => true,
        Parents::Trusted => trust == Trust::Trusted,
        Parents::None => false,
    };
    let parent = if believed { parent(fields) } else { None };
    if parent.is_none() || !is_tracestate(fields) {
        fields.remove(TRACESTATE);
    }
    let (id, caller, flags) = parent.unwrap_or_else(|| (fresh_trace(&mut random), None, RANDOM));
    let sampled = match caller {
        Some(_) if trust == Trust::Trusted => flags & SAMPLED != 0,
        Some(_) | None => policy.samples(id),
    };
    Trace {
        id,
        span: SpanId::fresh(&mut random),
        parent: caller,
        flags: flags & RANDOM | if sampled { SAMPLED } else { 0 },
    }
}

fn fresh_trace(random: &mut impl FnMut() -> u64) -> TraceId {
    let id = u128::from(random()) << 64 | u128::from(random());
    TraceId(NonZeroU128::new(id).unwrap_or(NonZeroU128::MIN))
}

/// A trace, the caller's span in it, and its flags.
type Named = (TraceId, Option<SpanId>, u8);

/// What the request's `traceparent` names, if there is one and only one, and it can be read.
fn parent(fields: &HeaderMap) -> Option<Named> {
    let mut all = fields.get_all(TRACEPARENT).iter();
    let text = all.next().filter(|_| all.next().is_none())?;
    parse(text.as_bytes())
}

/// Reads a `traceparent`. One of a later version is read as far as version 00 goes, as the standard demands.
fn parse(text: &[u8]) -> Option<Named> {
    let (known, rest) = text.split_at_checked(LEN)?;
    if [2, 35, 52].iter().any(|at| known.get(*at) != Some(&b'-')) {
        return None;
    }
    let version = hex(known.get(..2)?)?;
    let sound = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest, [] | [b'-', ..]),
    };
    let trace = NonZeroU128::new(hex(known.get(3..35)?)?).map(TraceId)?;
    let span = u64::try_from(hex(known.get(36..52)?)?).ok().and_then(NonZeroU64::new).map(SpanId)?;
    let flags = u8::try_from(hex(known.get(53..)?)?).ok()?;
    sound.then_some((trace, Some(span), flags))
}

/// A number in lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Whether the request's `tracestate` can be passed on. None at all can.
fn is_tracestate(fields: &HeaderMap) -> bool {
    let mut keys: [&[u8]; MAX_MEMBERS] = [&[]; MAX_MEMBERS];
    let values = fields.get_all(TRACESTATE).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    for (count, member) in members.enumerate() {
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
        let (key, value) = member.split_at(equals);
        let known = keys.iter().take(count).any(|known| *known == key);
        let Some(place) = keys.get_mut(count) else { return false };
        if known || !is_key(key) || !is_value(value.get(1..).unwrap_or_default()) {
            return false;
        }
        *place = key;
    }
    true
}

fn is_key(key: &[u8]) -> bool {
    let may_follow = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins && key.len() <= 256 && key.iter().all(may_follow)
}

fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len()) && value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn fields(given: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        given.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn counting() -> impl FnMut() -> u64 {
        let mut next = 0;
        move || {
            next += 0x1111_1111_1111_1111;
            next
        }
    }

    fn joined(parents: Parents, share: f64, trust: Trust, given: &[(&'static str, &str)]) -> (Trace, HeaderMap) {
        let mut fields = fields(given);
        let trace = join(&mut fields, &Policy::new(parents, share), trust, counting());
        (trace, fields)
    }

    fn text(trace: &Trace) -> String {
        String::from_utf8(trace.text().to_vec()).unwrap()
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_our_own() {
        let (trace, _) = joined(Parents::Trusted, 0.0, Trust::Trusted, &[("traceparent", PARENT)]);
        assert_eq!(text(&trace), "00-0af7651916cd43dd8448eb211c80319c-1111111111111111-01");
        assert_eq!(trace.parent.unwrap().to_bytes(), 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert!(trace.is_sampled(), "as the caller says");
        let unsampled = PARENT.replace("-01", "-00");
        let (trace, _) = joined(Parents::Trusted, 1.0, Trust::Trusted, &[("traceparent", &unsampled)]);
        assert!(!trace.is_sampled(), "as the caller says");
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace_and_drops_the_old_ones_state() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "\u{e9}0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            let given = [("traceparent", bad), ("tracestate", "a=1")];
            let (trace, fields) = joined(Parents::Any, 0.0, Trust::Trusted, &given);
            assert_eq!(text(&trace), "00-11111111111111112222222222222222-3333333333333333-02", "{bad:?}");
            assert_eq!((trace.parent, fields.get(TRACESTATE)), (None, None), "{bad:?}");
        }
        let twice = [("traceparent", PARENT), ("traceparent", PARENT)];
        assert_eq!(joined(Parents::Any, 0.0, Trust::Trusted, &twice).0.parent, None, "nobody knows which is meant");
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for (later, want) in [
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "01"),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings", "01"),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-", "00"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", "03"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", "03"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fc", "00"),
        ] {
            let (trace, _) = joined(Parents::Trusted, 0.0, Trust::Trusted, &[("traceparent", later)]);
            assert_eq!(text(&trace), format!("00-0af7651916cd43dd8448eb211c80319c-1111111111111111-{want}"), "{later}");
        }
    }

    #[test]
    fn strangers_neither_join_nor_have_recorded() {
        let given = [("traceparent", PARENT), ("tracestate", "a=1")];
        let (trace, fields) = joined(Parents::Trusted, 0.0, Trust::Stranger, &given);
        assert_eq!((trace.parent, trace.is_sampled(), fields.get(TRACESTATE)), (None, false, None));
        let (trace, fields) = joined(Parents::Any, 0.0, Trust::Stranger, &given);
        assert!(trace.parent.is_some() && fields.contains_key(TRACESTATE), "it goes on");
        assert!(!trace.is_sampled(), "but is not recorded because a stranger says so");
        let (trace, _) = joined(Parents::None, 0.0, Trust::Trusted, &given);
        assert_eq!((trace.parent, trace.is_sampled()), (None, false));
    }

    #[test]
    fn tracestate_is_passed_on_whole_or_not_at_all() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = "x".repeat(256);
        for (state, sound) in [
            ("a=1", true),
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true),
            ("a=1, b=2 ,\t,c=3", true),
            ("", true),
            ("fw529a3039@dt=FfD0", true),
            ("0vendor/x*_-=~!", true),
            (&format!("{long}={long}"), true),
            (&many(32), true),
            (&many(33), false),
            (&format!("{long}x=1"), false),
            (&format!("a={long}x"), false),
            ("a=1,a=2", false),
            ("A=1", false),
            ("a", false),
            ("=1", false),
            ("a=", false),
            ("a=b=c", false),
            ("a =1", false),
            ("a=\u{e9}", false),
        ] {
            let given = [("traceparent", PARENT), ("tracestate", state)];
            let (trace, fields) = joined(Parents::Trusted, 0.0, Trust::Trusted, &given);
            assert!(trace.parent.is_some(), "the trace goes on in any case");
            assert_eq!(fields.contains_key(TRACESTATE), sound, "{state:?}");
        }
        let split = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "a=2")];
        assert!(!joined(Parents::Trusted, 0.0, Trust::Trusted, &split).1.contains_key(TRACESTATE), "one list in all");
    }

    #[test]
    fn the_share_that_is_recorded_is_the_share_asked_for_and_follows_from_the_id() {
        let mut state = 7_u64;
        let mut random = || {
            // Knuth's; its upper bits are good enough to count by.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.rotate_left(32) ^ state
        };
        for (share, low, high) in [(0.0, 0, 0), (0.1, 900, 1100), (0.5, 4800, 5200), (1.0, 10_000, 10_000)] {
            let policy = Policy::new(Parents::Trusted, share);
            let mut sampled = 0;
            for _ in 0..10_000 {
                let trace = join(&mut HeaderMap::new(), &policy, Trust::Stranger, &mut random);
                assert_eq!(trace.is_sampled(), policy.samples(trace.id));
                sampled += u32::from(trace.is_sampled());
            }
            assert!((low..=high).contains(&sampled), "{share}: {sampled}");
        }
    }
}
