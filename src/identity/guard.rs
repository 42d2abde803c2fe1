//! Where a key directory may be fetched from: the agents that the operator admits, and addresses that are public.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    config::{Account, AgentPattern},
    wire::agent_url::AgentUrl,
};

/// Whose directories are fetched: those that `identity.allow`, an account or a route names.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    exact: HashSet<String>,
    /// `.example.com`
    below: Vec<String>,
    any: bool,
}

/// How far an admitted agent is trusted with addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Its origin is listed as it stands: plain HTTP, any port, loopback and private addresses are meant.
    pub private_ok: bool,
}

impl Policy {
    /// Of `identity.allow`, the agents of all accounts, and those that a route names.
    pub fn new<'p>(
        allow: &'p [AgentPattern],
        accounts: &'p [Account],
        named: impl Iterator<Item = &'p AgentPattern>,
    ) -> Policy {
        let mut policy = Policy::default();
        for pattern in allow.iter().chain(accounts.iter().flat_map(|account| &account.agents)).chain(named) {
            match pattern {
                AgentPattern::Any => policy.any = true,
                AgentPattern::Exact(origin) => drop(policy.exact.insert(origin.clone())),
                AgentPattern::Below(suffix) => policy.below.push(suffix.clone()),
            }
        }
        policy
    }

    /// `None`: no connection is made for this agent. Patterns and `any` admit only `https` at port 443, and no key sets.
    pub fn admits(&self, agent: &AgentUrl) -> Option<Admission> {
        if self.exact.contains(&agent.to_string()) {
            return Some(Admission { private_ok: true });
        }
        let usual = agent.https() && agent.port() == 443 && agent.key_set().is_none();
        let listed = self.any || self.below.iter().any(|suffix| agent.host().ends_with(suffix.as_str()));
        (usual && listed).then_some(Admission { private_ok: false })
    }
}

/// Whether an address is global unicast and in no block of the IANA special-purpose registries
/// ([v4](https://www.iana.org/assignments/iana-ipv4-special-registry),
/// [v6](https://www.iana.org/assignments/iana-ipv6-special-registry)). Blocks that the registries call globally reachable
/// (AS112, AMT, anycast of PCP and TURN) are refused too: nobody publishes keys there.
///
/// A v4-mapped address is its inner address. Every other way of carrying an IPv4 address in an IPv6 one (compatible,
/// NAT64, 6to4, Teredo, ISATAP's link-local form) is refused: the gateway cannot know where it ends.
pub fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !V4_SPECIAL.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(inner) => is_global(IpAddr::V4(inner)),
            None => V6_UNICAST.contains(&ip) && !V6_SPECIAL.iter().any(|net| net.contains(&ip)),
        },
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const V4_SPECIAL: &[Ipv4Net] = &[
    v4(0, 0, 0, 0, 8),        // this network
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // shared address space (CGNAT), and 100.100.100.200: metadata
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // a cloud's wire server: metadata at a public address
    v4(169, 254, 0, 0, 16),   // link-local, and 169.254.169.254: metadata
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // IETF protocol assignments, and 192.0.0.192: metadata
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 31, 196, 0, 24),  // AS112
    v4(192, 52, 193, 0, 24),  // AMT
    v4(192, 88, 99, 0, 24),   // 6to4 relay anycast, deprecated
    v4(192, 168, 0, 0, 16),   // private
    v4(192, 175, 48, 0, 24),  // AS112, direct delegation
    v4(198, 18, 0, 0, 15),    // benchmarking
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and the limited broadcast address
];

/// What is assigned as global unicast; loopback, unique-local, link-local, multicast, NAT64, discard-only and SRv6 blocks
/// lie outside.
const V6_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

const V6_SPECIAL: &[Ipv6Net] = &[
    v6(0x2001, 0, 0, 23),         // IETF protocol assignments: Teredo, benchmarking, AMT, ORCHID, …
    v6(0x2001, 0xdb8, 0, 32),     // documentation
    v6(0x2002, 0, 0, 16),         // 6to4
    v6(0x2620, 0x4f, 0x8000, 48), // AS112, direct delegation
    v6(0x3fff, 0, 0, 20),         // documentation
];

#[cfg(test)]
mod tests {
    use super::*;

    fn global(ip: &str) -> bool {
        is_global(ip.parse().unwrap_or_else(|_| panic!("{ip}")))
    }

    /// Every row of both registries (2025-10), multicast, and what clouds use; with its first and last address.
    const SPECIAL: &[(&str, &str)] = &[
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.0.0", "192.0.0.7"),
        ("192.0.0.8", "192.0.0.8"),
        ("192.0.0.9", "192.0.0.9"),
        ("192.0.0.10", "192.0.0.10"),
        ("192.0.0.170", "192.0.0.171"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.31.196.0", "192.31.196.255"),
        ("192.52.193.0", "192.52.193.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.88.99.2", "192.88.99.2"),
        ("192.168.0.0", "192.168.255.255"),
        ("192.175.48.0", "192.175.48.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "239.255.255.255"),
        ("240.0.0.0", "255.255.255.255"),
        ("169.254.169.254", "169.254.169.254"),
        ("100.100.100.200", "100.100.100.200"),
        ("168.63.129.16", "168.63.129.16"),
        ("192.0.0.192", "192.0.0.192"),
        ("::", "::1"),
        ("::2", "::fffe:ffff:ffff"),
        ("::127.0.0.1", "::8.8.8.8"),
        ("::ffff:0:0:0", "::ffff:0:808:808"),
        ("::1:0:0:0", "63:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("64:ff9b::", "64:ff9b::ffff:ffff"),
        ("64:ff9b::8.8.8.8", "64:ff9b::127.0.0.1"),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
        ("100::", "100::ffff:ffff:ffff:ffff"),
        ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001::1", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:1::1", "2001:1::3"),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
        ("2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff"),
        ("2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:30::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002:7f00:1::", "2002:808:808::"),
        ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fd00:ec2::254", "fd20:ce::254"),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fe80::5efe:8.8.8.8", "fe80::5efe:127.0.0.1"),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ];

    /// Addresses beside the blocks.
    const GLOBAL: &[&str] = &[
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.1.255",
        "192.0.3.0",
        "192.31.195.255",
        "192.31.197.0",
        "192.52.192.255",
        "192.52.194.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "192.175.47.255",
        "192.175.49.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "2000::",
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:200::",
        "2001:db7:ffff::",
        "2001:db9::",
        "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2003::",
        "2606:4700::1111",
        "2620:4f:7fff:ffff::",
        "2620:4f:8001::",
        "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff:1000::",
        "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];

    #[test]
    fn no_special_purpose_address_is_global() {
        for (first, last) in SPECIAL {
            assert!(!global(first), "{first}");
            assert!(!global(last), "{last}");
        }
    }

    #[test]
    fn addresses_beside_the_blocks_are() {
        for ip in GLOBAL {
            assert!(global(ip), "{ip}");
        }
    }

    #[test]
    fn a_mapped_address_is_its_inner_one() {
        for ip in SPECIAL.iter().flat_map(|(first, last)| [first, last]).filter(|ip| !ip.contains(':')) {
            assert!(!global(&format!("::ffff:{ip}")), "{ip}");
        }
        for ip in GLOBAL.iter().filter(|ip| !ip.contains(':')) {
            assert!(global(&format!("::ffff:{ip}")), "{ip}");
        }
    }

    #[test]
    fn only_listed_origins_may_be_plain_private_or_at_another_port() {
        let admits = |patterns: &[AgentPattern], agent: &str| {
            let admission =
                Policy::new(patterns, &[], std::iter::empty()).admits(&AgentUrl::parse_agent(agent).unwrap());
            admission.map(|admission| admission.private_ok)
        };
        let any = [AgentPattern::Any];
        let below = [AgentPattern::Below(".example.com".into())];
        let exact = [
            AgentPattern::Exact("http://127.0.0.1:9000".into()),
            AgentPattern::Exact("https://signer.example.com:8443".into()),
            AgentPattern::Exact("https://www.example.com/bot/jwks.json".into()),
        ];
        for (patterns, agent, expect) in [
            (&any[..], "https://signer.example", Some(false)),
            (&any, "https://signer.example:443", Some(false)),
            (&any, "https://signer.example:8443", None),
            (&any, "https://signer.example:80", None),
            (&any, "http://signer.example", None),
            (&any, "http://signer.example:443", None),
            (&any, "https://127.0.0.1", Some(false)),
            (&below, "https://a.example.com", Some(false)),
            (&below, "https://a.b.example.com", Some(false)),
            (&below, "https://example.com", None),
            (&below, "https://badexample.com", None),
            (&below, "https://a.example.com.evil.test", None),
            (&below, "https://a.example.com:8443", None),
            (&below, "http://a.example.com", None),
            (&exact, "http://127.0.0.1:9000", Some(true)),
            (&exact, "http://127.0.0.1:9001", None),
            (&any, "https://www.example.com/bot/jwks.json", None),
            (&below, "https://www.example.com/bot/jwks.json", None),
            (&below, "https://evil.test/x.example.com", None),
            (&exact, "https://www.example.com/bot/jwks.json", Some(true)),
            (&exact, "https://www.example.com/other.json", None),
            (&exact, "https://www.example.com", None),
            (&exact, "http://127.0.0.1:9000/jwks.json", None),
            (&exact, "https://127.0.0.1:9000", None),
            (&exact, "http://127.0.0.1", None),
            (&exact, "https://signer.example.com:8443", Some(true)),
            (&exact, "https://signer.example.com", None),
            (&[], "https://signer.example.com", None),
        ] {
            assert_eq!(admits(patterns, agent), expect, "{agent} by {patterns:?}");
        }
    }
}
