//! Networks: CAIP-2 in x402 v2 and in the books, short names in v1.

use std::fmt;

/// Networks that x402 names: CAIP-2, the name in v1 (where it has one), whether its money is for tests.
///
/// Source: x402 `specs/x402-specification-v1.md`; `@x402/evm` 2.27.0.
const KNOWN: &[(&str, Option<&str>, bool)] = &[
    ("eip155:1", None, false),
    ("eip155:14", None, false),
    ("eip155:50", None, false),
    ("eip155:51", None, true),
    ("eip155:137", Some("polygon"), false),
    ("eip155:143", None, false),
    ("eip155:988", None, false),
    ("eip155:1328", Some("sei-testnet"), true),
    ("eip155:1329", Some("sei"), false),
    ("eip155:1514", Some("story"), false),
    ("eip155:2201", None, true),
    ("eip155:2741", Some("abstract"), false),
    ("eip155:3338", Some("peaq"), false),
    ("eip155:4326", None, false),
    ("eip155:4689", Some("iotex"), false),
    ("eip155:8453", Some("base"), false),
    ("eip155:11124", Some("abstract-testnet"), true),
    ("eip155:31611", None, true),
    ("eip155:31612", None, false),
    ("eip155:31337", None, true),
    ("eip155:36900", None, false),
    ("eip155:38833", None, false),
    ("eip155:41923", Some("educhain"), false),
    ("eip155:42161", None, false),
    ("eip155:42220", None, false),
    ("eip155:43113", Some("avalanche-fuji"), true),
    ("eip155:43114", Some("avalanche"), false),
    ("eip155:72344", None, true),
    ("eip155:80002", Some("polygon-amoy"), true),
    ("eip155:84532", Some("base-sepolia"), true),
    ("eip155:181228", None, true),
    ("eip155:190415", None, false),
    ("eip155:421614", None, true),
    ("eip155:723487", None, false),
    ("eip155:11142220", None, true),
    ("eip155:11155111", None, true),
    ("eip155:324705682", Some("skale-base-sepolia"), true),
    ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", Some("solana"), false),
    ("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", Some("solana-devnet"), true),
    ("solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z", None, true),
];

/// A network by its CAIP-2 name: `eip155:84532`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(String);

/// The names that v1 has: `base`, `base-sepolia`.
pub fn v1_names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter_map(|(_, v1, _)| *v1)
}

impl Network {
    /// Reads a CAIP-2 name: a namespace of 3 to 8 `a-z0-9-`, a colon, a reference of 1 to 32 `A-Za-z0-9_-`. A chain of
    /// Ethereum is a number without leading zero, below 2⁶⁴, so that it has one spelling.
    ///
    /// # Errors
    /// [`NetworkError`] for anything else, also for a v1 name.
    pub fn parse(text: &str) -> Result<Network, NetworkError> {
        let (namespace, reference) = text.split_once(':').ok_or(NetworkError)?;
        let in_namespace = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let in_reference = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fits = (3..=8).contains(&namespace.len())
            && (1..=32).contains(&reference.len())
            && namespace.bytes().all(in_namespace)
            && reference.bytes().all(in_reference);
        let network = Network(text.to_owned());
        if !fits || (namespace == "eip155" && network.evm_chain_id().is_none()) {
            return Err(NetworkError);
        }
        Ok(network)
    }

    /// Reads the name that a client of `v1` writes: `base-sepolia` is `eip155:84532`.
    ///
    /// # Errors
    /// [`NetworkError`] for a name that v1 does not have, also for a CAIP-2 one.
    pub fn from_v1_name(name: &str) -> Result<Network, NetworkError> {
        let known = KNOWN.iter().find(|(_, v1, _)| *v1 == Some(name));
        known.map(|(caip2, ..)| Network((*caip2).to_owned())).ok_or(NetworkError)
    }

    /// The name in v1: `base-sepolia`; `None` where v1 has none.
    pub fn v1_name(&self) -> Option<&'static str> {
        self.known().and_then(|(_, v1, _)| *v1)
    }

    /// `eip155:84532`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `84532` of `eip155:84532`; `None` for networks that are no chains of Ethereum.
    pub fn evm_chain_id(&self) -> Option<u64> {
        let digits = self.0.strip_prefix("eip155:")?;
        let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if canonical { digits.parse().ok() } else { None }
    }

    /// Whether it is a cluster of Solana.
    pub fn is_svm(&self) -> bool {
        self.0.starts_with("solana:")
    }

    /// Whether its money is for tests; `None` for a network that is not known here.
    pub fn is_testnet(&self) -> Option<bool> {
        self.known().map(|(_, _, testnet)| *testnet)
    }

    /// Whether two addresses on this network are the same: Ethereum's whatever their case, others byte by byte.
    pub fn same_address(&self, a: &str, b: &str) -> bool {
        if self.evm_chain_id().is_some() { a.eq_ignore_ascii_case(b) } else { a == b }
    }

    fn known(&self) -> Option<&'static (&'static str, Option<&'static str>, bool)> {
        KNOWN.iter().find(|(caip2, ..)| *caip2 == self.0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text names no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as `eip155:8453`")]
pub struct NetworkError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_versions_lead_to_the_same_network() {
        for (caip2, v1, testnet) in KNOWN {
            let network = Network::parse(caip2).unwrap();
            assert_eq!((network.to_string().as_str(), network.is_testnet()), (*caip2, Some(*testnet)));
            assert_eq!(network.v1_name(), *v1);
            if let Some(v1) = v1 {
                assert_eq!(Network::from_v1_name(v1), Ok(network));
                assert!(Network::parse(v1).is_err());
            }
        }
        assert_eq!(Network::from_v1_name("base-sepolia").unwrap().evm_chain_id(), Some(84532));
        assert!(Network::from_v1_name("eip155:8453").is_err());
        assert!(Network::from_v1_name("solana").unwrap().is_svm());
        let unknown = Network::parse("tollgate:deferred").unwrap();
        assert_eq!((unknown.evm_chain_id(), unknown.v1_name(), unknown.is_testnet()), (None, None, None));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":",
            "base",
            "eip155:",
            "eip155:08453",
            "eip155:0",
            "eip155:x",
            "eip155:18446744073709551616",
            "eip155:+1",
            "eip155:1:2",
            "EIP155:1",
            "ab:1",
            "solana:a b",
            "solana:012345678901234567890123456789012",
            "eip155: 1",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError), "{text:?}");
        }
    }
}
