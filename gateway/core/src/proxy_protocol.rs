//! The PROXY protocol, versions 1 and 2: who a load balancer that only passes bytes on took a connection from.
//!
//! Follows the specification in HAProxy's `doc/proxy-protocol.txt`. The header must be taken off byte for byte, since what
//! follows belongs to TLS or HTTP, so [`parse`] says how much can safely be read next. **Invariant:** every input is a header, a
//! refusal, or the beginning of one; and reading as told never takes a byte that follows a header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a version 2 header begins with; no other protocol does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a version 1 header begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// The shortest header there is: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
/// The longest version 1 header (specification §2.1), its end included.
const LONGEST_LINE: usize = 107;
/// The fixed part of a version 2 header.
const FIXED: usize = 16;
/// The longest version 2 header. The specification allows 64 KiB; addresses and the extensions that are in use fit in this.
const LONGEST: usize = FIXED + 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The proxy speaks for itself (a health check), or does not know whom it speaks for.
    Local,
    /// It passes on a connection.
    For {
        /// From here.
        source: SocketAddr,
        /// To here.
        destination: SocketAddr,
    },
}

/// What bytes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// They are the beginning of a header; at least that many bytes more belong to it.
    Partial(usize),
    /// They are a header.
    Whole(Proxied),
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They begin like neither version.
    #[error("no PROXY protocol header")]
    NoHeader,
    /// It is longer than any that is in use.
    #[error("the PROXY protocol header is too long")]
    TooLong,
    /// It says nothing that can be understood.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
}

/// Whether these first bytes of a connection could be the beginning of a header; `None` while too few are there to tell.
///
/// Three bytes are enough: `POST`, `PUT` and the HTTP/2 preface part from `PROXY` before that.
#[must_use]
pub fn is_begun(bytes: &[u8]) -> Option<bool> {
    let like = |start: &[u8]| bytes.iter().zip(start).all(|(a, b)| a == b);
    match like(WORD) || like(SIGNATURE) {
        false => Some(false),
        true => (bytes.len() >= 3).then_some(true),
    }
}

/// Reads what there is of a header.
///
/// # Errors
/// When no bytes that could follow would make it one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return binary(bytes);
    }
    if begins(WORD) { line(bytes) } else { Err(Refused::NoHeader) }
}

fn line(bytes: &[u8]) -> Result<Parsed, Refused> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() {
            0..SHORTEST => Ok(Parsed::Partial(SHORTEST - bytes.len())),
            SHORTEST..LONGEST_LINE => Ok(Parsed::Partial(if bytes.ends_with(b"\r") { 1 } else { 2 })),
            // Two bytes at a time can come one past the last that could have been right.
            _ => Err(Refused::TooLong),
        };
    };
    let text = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Refused::Malformed)?;
    let is_last = end + 1 == bytes.len() && bytes.len() <= LONGEST_LINE;
    let text = std::str::from_utf8(text).ok().filter(|text| is_last && text.is_ascii()).ok_or(Refused::Malformed)?;
    let fields = text.strip_prefix("PROXY ").ok_or(Refused::Malformed)?;
    if fields == "UNKNOWN" || fields.starts_with("UNKNOWN ") {
        return Ok(Parsed::Whole(Proxied::Local));
    }
    named(fields).map(Parsed::Whole).ok_or(Refused::Malformed)
}

/// `TCP4 192.0.2.7 198.51.100.1 50000 443`, with exactly one space between.
fn named(fields: &str) -> Option<Proxied> {
    let mut fields = fields.split(' ');
    let family = fields.next()?;
    let [source, destination, source_port, destination_port] =
        [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = SocketAddr::new(address(source)?, port(source_port)?);
    let destination = SocketAddr::new(address(destination)?, port(destination_port)?);
    fields.next().is_none().then_some(Proxied::For { source, destination })
}

/// A port as the specification writes it: no sign, no leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn binary(bytes: &[u8]) -> Result<Parsed, Refused> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        // The other version's header can be shorter, and fewer bytes than the signature has could still be either.
        let safe = if bytes.is_empty() { SHORTEST } else { FIXED - bytes.len() };
        return Ok(Parsed::Partial(safe));
    };
    let [.., version_and_command, family, l0, l1] = *fixed;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if version_and_command >> 4 != 2 {
        return Err(Refused::Malformed);
    }
    if FIXED + length > LONGEST {
        return Err(Refused::TooLong);
    }
    if rest.len() != length {
        let missing = length.checked_sub(rest.len()).ok_or(Refused::Malformed)?;
        return Ok(Parsed::Partial(missing));
    }
    let proxied = match (version_and_command & 0xf, family) {
        (0, _) => Proxied::Local,
        // Over TCP; what follows the addresses are extensions, which are passed over.
        (1, 0x11) => endpoints(rest, Ipv4Addr::from).ok_or(Refused::Malformed)?,
        (1, 0x21) => endpoints(rest, Ipv6Addr::from).ok_or(Refused::Malformed)?,
        // Unspecified, datagrams, Unix sockets: there is no address to take, and the specification says to go on without.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Proxied::Local,
        _ => return Err(Refused::Malformed),
    };
    Ok(Parsed::Whole(proxied))
}

/// Two addresses of `N` bytes each, then two ports.
fn endpoints<const N: usize, A: Into<IpAddr>>(bytes: &[u8], address: fn([u8; N]) -> A) -> Option<Proxied> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (ports, _extensions) = rest.split_first_chunk::<4>()?;
    let [s0, s1, d0, d1] = *ports;
    Some(Proxied::For {
        source: SocketAddr::new(address(*source).into(), u16::from_be_bytes([s0, s1])),
        destination: SocketAddr::new(address(*destination).into(), u16::from_be_bytes([d0, d1])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn between(source: &str, destination: &str) -> Result<Parsed, Refused> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Ok(Parsed::Whole(Proxied::For { source, destination }))
    }

    const LOCAL: Result<Parsed, Refused> = Ok(Parsed::Whole(Proxied::Local));
    const MALFORMED: Result<Parsed, Refused> = Err(Refused::Malformed);

    #[test]
    fn lines_are_read_strictly() {
        for (text, want) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n", between("192.0.2.7:50000", "198.51.100.1:443")),
            ("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", between("[2001:db8::7]:1", "[::1]:65535")),
            ("PROXY UNKNOWN\r\n", LOCAL),
            ("PROXY UNKNOWN ffff:: whatever 1 2\r\n", LOCAL),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\n", MALFORMED),
            ("PROXY TCP4 192.0.2.7  198.51.100.1 50000 443\r\n", MALFORMED),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 50000 443 \r\n", MALFORMED),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 050000 443\r\n", MALFORMED),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +5000 443\r\n", MALFORMED),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", MALFORMED),
            ("PROXY TCP4 192.0.2.07 198.51.100.1 1 443\r\n", MALFORMED),
            ("PROXY TCP4 2001:db8::7 ::1 1 2\r\n", MALFORMED),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", MALFORMED),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n", MALFORMED),
            ("PROXY TCP4 localhost 198.51.100.1 1 2\r\n", MALFORMED),
            ("PROXY UNKNOWN\r\nGET", MALFORMED),
            ("PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n", MALFORMED),
            ("proxy tcp4 192.0.2.7 198.51.100.1 1 2\r\n", Err(Refused::NoHeader)),
            ("GET / HTTP/1.1\r\n", Err(Refused::NoHeader)),
            ("PROXIED", Err(Refused::NoHeader)),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{text:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        assert_eq!(parse(long.as_bytes()), MALFORMED);
        assert_eq!(parse(&long.as_bytes()[..107]), Err(Refused::TooLong));
    }

    #[test]
    fn binary_headers_are_read_strictly() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb];
        let mut six = [0; 36];
        (six[0], six[1], six[15], six[31], six[33], six[35]) = (0x20, 1, 7, 1, 9, 8);
        let with_extensions = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (what, bytes, want) in [
            ("IPv4", v2(1, 0x11, &four), between("192.0.2.7:50000", "198.51.100.1:443")),
            ("IPv6", v2(1, 0x21, &six), between("[2001::7]:9", "[::1]:8")),
            ("extensions", v2(1, 0x11, &with_extensions), between("192.0.2.7:50000", "198.51.100.1:443")),
            ("local", v2(0, 0x11, &four), LOCAL),
            ("local without addresses", v2(0, 0, &[]), LOCAL),
            ("unspecified", v2(1, 0, &[]), LOCAL),
            ("Unix socket", v2(1, 0x31, &[0; 216]), LOCAL),
            ("too short", v2(1, 0x11, &four[..11]), MALFORMED),
            ("unknown command", v2(2, 0x11, &four), MALFORMED),
            ("unknown family", v2(1, 0x41, &four), MALFORMED),
            ("too long", v2(1, 0x11, &[0; 2049]), Err(Refused::TooLong)),
            ("bytes behind it", [v2(0, 0, &[]), vec![0]].concat(), MALFORMED),
        ] {
            assert_eq!(parse(&bytes), want, "{what}");
        }
        let mut old = v2(1, 0x11, &four);
        old[12] = 0x11;
        assert_eq!(parse(&old), MALFORMED);
    }

    #[test]
    fn a_header_can_be_told_from_http_by_three_bytes() {
        for (bytes, want) in [
            (&b""[..], None),
            (b"PR", None),
            (b"PRO", Some(true)),
            (b"\r\n\r", Some(true)),
            (b"PRI * HTTP/2.0", Some(false)),
            (b"PO", Some(false)),
            (b"\x16\x03", Some(false)),
            (b"\n", Some(false)),
        ] {
            assert_eq!(is_begun(bytes), want, "{bytes:?}");
        }
    }

    /// Reads a stream as [`parse`] says, and tells what came of it and how much was taken.
    fn read_as_told(stream: &[u8]) -> (Option<Result<Proxied, Refused>>, usize) {
        let mut taken = 0;
        loop {
            match parse(&stream[..taken]) {
                Ok(Parsed::Whole(proxied)) => return (Some(Ok(proxied)), taken),
                Err(refused) => return (Some(Err(refused)), taken),
                Ok(Parsed::Partial(more)) => {
                    assert!(more > 0);
                    if taken + more > stream.len() {
                        return (None, taken);
                    }
                    taken += more;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _parsed = parse(&bytes);
            let _read = read_as_told(&[&SIGNATURE[..], &bytes].concat());
            let _read = read_as_told(&[&WORD[..], &bytes].concat());
        }

        #[test]
        fn a_header_is_taken_off_and_nothing_behind_it(
            source: SocketAddr, destination: SocketAddr, extensions in prop::collection::vec(any::<u8>(), 0..64),
            behind in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let proxied = |source: IpAddr, destination: IpAddr, ports: (u16, u16)| Proxied::For {
                source: SocketAddr::new(source, ports.0), destination: SocketAddr::new(destination, ports.1),
            };
            let (from, to, ports) = (source.ip(), destination.ip(), (source.port(), destination.port()));
            let (word, family) = match (from, to) {
                (IpAddr::V4(_), IpAddr::V4(_)) => ("TCP4", 0x11),
                (IpAddr::V6(_), IpAddr::V6(_)) => ("TCP6", 0x21),
                _ => return Ok(()),
            };
            let line = format!("PROXY {word} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes();
            let mut payload = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
                (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
                _ => Vec::new(),
            };
            payload.extend(ports.0.to_be_bytes());
            payload.extend(ports.1.to_be_bytes());
            payload.extend(&extensions);
            for header in [line, v2(1, family, &payload)] {
                let (read, taken) = read_as_told(&[&header[..], &behind].concat());
                prop_assert_eq!((read, taken), (Some(Ok(proxied(from, to, ports))), header.len()));
                for cut in 0..header.len() {
                    let (read, taken) = read_as_told(&header[..cut]);
                    prop_assert_eq!(read, None);
                    prop_assert!(taken <= cut);
                }
            }
        }
    }
}
