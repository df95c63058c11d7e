//! Which addresses an upstream may have: what a tenant names must lead nowhere that the tenant has no business.
//!
//! Asked of addresses as they are connected to, whatever name they were found under.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// Where clouds keep a machine's credentials, beside the link-local address that most use.
const METADATA: [IpAddr; 4] = [
    // Amazon over IPv6; Alibaba; Azure's agent; Oracle.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Which addresses an upstream may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any.
    Anywhere,
    /// Any but this machine, its link, multicast, and where clouds keep a machine's credentials.
    Outside,
    /// Those of these networks.
    Networks(Arc<[IpNet]>),
}

impl Reach {
    /// Whether an endpoint may have this address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = meant(address);
        match self {
            Self::Anywhere => true,
            Self::Outside => !is_inside(address) && !METADATA.contains(&address),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// The IPv4 address where an IPv6 address stands for one: mapped (RFC 4291 §2.5.5.2), or translated (RFC 6052 §2.1).
fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.octets() {
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => six.to_canonical(),
        },
        IpAddr::V4(_) => address,
    }
}

fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let this_host = four.octets().first() == Some(&0);
            this_host || four.is_loopback() || four.is_link_local() || four.is_multicast() || four.is_broadcast()
        }
        IpAddr::V6(six) => {
            six.is_loopback() || six.is_unspecified() || six.is_unicast_link_local() || six.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_is_neither_this_machine_nor_where_it_keeps_credentials() {
        for text in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
        ] {
            let address = text.parse().unwrap();
            assert!(!Reach::Outside.allows(address) && Reach::Anywhere.allows(address), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "203.0.113.9", "fd00::1", "2001:db8::1", "64:ff9b::a00:1"] {
            assert!(Reach::Outside.allows(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_are_all_there_is() {
        let reach = Reach::Networks(["10.0.0.0/8", "127.0.0.1/32"].map(|text| text.parse().unwrap()).into());
        for (text, allowed) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("127.0.0.1", true), ("127.0.0.2", false), ("::1", false)]
        {
            assert_eq!(reach.allows(text.parse().unwrap()), allowed, "{text}");
        }
    }
}
