//! Stablecoins that prices in a currency can be asked in: where they are and what their signatures name.
//!
//! Sources: `@x402/evm` 2.27.0 (`defaultAssets`), `x402` 1.2.0 (`shared/evm/config`, which signs all with version `2`),
//! `@x402/svm` 2.27.0. EURC is in none of them: its addresses and its domain on Base are as published wallets have them,
//! the domain on Base Sepolia is taken to be the same.

use super::network::Network;
use crate::wire::amount::Currency;

/// A token and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAsset {
    /// `eip155:8453`
    pub network: &'static str,
    /// Contract or mint: `0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913`.
    pub address: &'static str,
    /// `USDC`
    pub symbol: &'static str,
    /// Name in its EIP-712 domain, which is not always its symbol: `USD Coin`. Empty on Solana.
    pub name: &'static str,
    /// Version in its EIP-712 domain: `2`. Empty on Solana.
    pub version: &'static str,
    /// Decimals of its smallest unit.
    pub decimals: u32,
    /// The currency that one token is worth one of: `USD`.
    pub currency: &'static str,
}

impl KnownAsset {
    /// Whether it is worth `currency`.
    pub fn is_worth(&self, currency: Currency) -> bool {
        self.currency == currency.as_str()
    }
}

const fn usdc(network: &'static str, address: &'static str, name: &'static str) -> KnownAsset {
    KnownAsset { network, address, symbol: "USDC", name, version: "2", decimals: 6, currency: "USD" }
}

const fn usdc_e(network: &'static str, address: &'static str, name: &'static str) -> KnownAsset {
    KnownAsset { symbol: "USDC.e", ..usdc(network, address, name) }
}

const fn eurc(network: &'static str, address: &'static str) -> KnownAsset {
    KnownAsset { network, address, symbol: "EURC", name: "EURC", version: "2", decimals: 6, currency: "EUR" }
}

const fn mint(network: &'static str, address: &'static str) -> KnownAsset {
    KnownAsset { network, address, symbol: "USDC", name: "", version: "", decimals: 6, currency: "USD" }
}

/// The known tokens. All of them on Ethereum's chains take EIP-3009; the first of a network and currency is the default.
pub const ASSETS: &[KnownAsset] = &[
    usdc("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    usdc("eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    usdc("eip155:1", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin"),
    usdc("eip155:43114", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin"),
    usdc("eip155:43113", "0x5425890298aed601595a70AB815c96711a31Bc65", "USD Coin"),
    usdc("eip155:137", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin"),
    usdc("eip155:80002", "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582", "USDC"),
    usdc("eip155:42161", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USD Coin"),
    usdc("eip155:421614", "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", "USD Coin"),
    usdc("eip155:143", "0x754704Bc059F8C67012fEd69BC8A327a5aafb603", "USDC"),
    usdc("eip155:50", "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1", "USDC"),
    usdc("eip155:51", "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4", "USDC"),
    usdc("eip155:42220", "0xcebA9300f2b948710d2653dD7B07f33A8B32118C", "USDC"),
    usdc("eip155:11142220", "0x01C5C0122039549AD1493B8220cABEdD739BC44E", "USDC"),
    usdc("eip155:1329", "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", "USDC"),
    usdc("eip155:1328", "0x4fCF1784B31630811181f670Aea7A7bEF803eaED", "USDC"),
    usdc("eip155:3338", "0xbbA60da06c2c5424f03f7434542280FCAd453d10", "USDC"),
    usdc_e("eip155:4689", "0xcdf79194c6c285077a58da47641d4dbe51f63542", "Bridged USDC"),
    usdc_e("eip155:2741", "0x84a71ccd554cc1b02749b35d22f684cc8ec987e1", "Bridged USDC"),
    usdc_e("eip155:11124", "0xe4C7fBB0a626ed208021ccabA6Be1566905E2dFc", "Bridged USDC"),
    usdc_e("eip155:1514", "0xF1815bd50389c46847f0Bda824eC8da914045D14", "Bridged USDC"),
    usdc_e("eip155:41923", "0x12a272A581feE5577A5dFa371afEB4b2F3a8C2F8", "Bridged USDC (Stargate)"),
    usdc_e("eip155:324705682", "0x2e08028E3C4c2356572E096d8EF835cD5C6030bD", "Bridged USDC (SKALE Bridge)"),
    usdc_e("eip155:36900", "0x9cb8142aEBBcdc60AF7c97Af897A67A8f3CA71C2", "USDC.e"),
    usdc_e("eip155:190415", "0x401eCb1D350407f13ba348573E5630B83638E30D", "Bridged USDC"),
    usdc_e("eip155:181228", "0x401eCb1D350407f13ba348573E5630B83638E30D", "Bridged USDC"),
    eurc("eip155:8453", "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42"),
    eurc("eip155:84532", "0x808456652fdb597867f38412077A9182bf77359F"),
    mint("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
    mint("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"),
];

/// The token that a price in `currency` is asked in on `network`, unless the operator names another.
pub fn default_for(network: &Network, currency: Currency) -> Option<&'static KnownAsset> {
    ASSETS.iter().find(|a| a.network == network.as_str() && a.is_worth(currency))
}

/// What is known about the token at `address` on `network`.
pub fn find(network: &Network, address: &str) -> Option<&'static KnownAsset> {
    ASSETS.iter().find(|a| a.network == network.as_str() && network.same_address(a.address, address))
}

/// What is known about a token by its name in the books: `eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e`.
pub fn find_caip19(name: &str) -> Option<&'static KnownAsset> {
    let (network, asset) = name.split_once('/')?;
    let (_, address) = asset.split_once(':')?;
    find(&Network::parse(network).ok()?, address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::evm::address::Address;

    #[test]
    fn every_entry_is_on_a_known_network_and_found() {
        for asset in ASSETS {
            let network = Network::parse(asset.network).unwrap();
            assert!(network.is_testnet().is_some(), "{network}");
            assert_eq!(find(&network, asset.address), Some(asset));
            assert_eq!(find_caip19(&format!("{network}/kind:{}", asset.address)), Some(asset));
            assert!(Currency::parse(asset.currency).is_ok());
            if network.evm_chain_id().is_some() {
                let address = Address::parse(asset.address).unwrap();
                assert_eq!(find(&network, &asset.address.to_lowercase()), Some(asset));
                assert!(!asset.name.is_empty() && !asset.version.is_empty());
                // A slip of a digit would not survive this; those that are published in lower case have no checksum.
                if asset.address.bytes().any(|b| b.is_ascii_uppercase()) {
                    assert_eq!(address.to_string(), asset.address);
                }
            } else {
                assert!(network.is_svm());
                assert_eq!(find(&network, &asset.address.to_lowercase()), None);
            }
        }
        let base = Network::parse("eip155:8453").unwrap();
        let default = |code| default_for(&base, Currency::parse(code).unwrap()).map(|a| a.symbol);
        assert_eq!((default("USD"), default("EUR"), default("JPY")), (Some("USDC"), Some("EURC"), None));
    }
}
