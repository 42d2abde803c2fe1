//! Tokens that `exact` is paid in: a price in a currency ↔ an amount of a token.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::terms::{PUBLIC, Template, VERSION};
use super::upto;
use crate::wire::amount::{Asset, Currency, LEDGER_DECIMALS, Money, Units};
use crate::wire::x402::network::Network;
use crate::wire::x402::requirements::Requirements;

/// Most decimals of a ledger unit of a token: finer tokens count in 10⁻⁹.
pub const UNIT_DECIMALS_MAX: u32 = 9;
/// Most decimals that a token may have.
pub const DECIMALS_MAX: u32 = 24;

/// A token on a network, and who is paid in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// `eip155:8453`
    pub network: Network,
    /// Contract or mint.
    pub address: String,
    /// For people: `USDC`.
    pub symbol: String,
    /// Decimals of its smallest unit.
    pub decimals: u32,
    /// One token is worth one of it.
    pub currency: Currency,
    /// Who is paid.
    pub pay_to: String,
    /// How it moves, and what that needs in `extra`.
    pub transfer: Transfer,
    /// Its name in the books (CAIP-19).
    pub book: Asset,
    /// Who alone may settle `upto` payments in it: an address of the facilitator's. None: no `upto`.
    pub facilitator: Option<String>,
}

/// How a token moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// `transferWithAuthorization`, with the name and version of the token's EIP-712 domain.
    Eip3009 {
        /// `USD Coin`
        name: String,
        /// `2`
        version: String,
    },
    /// Through the Permit2 contract.
    Permit2 {
        /// The token's name.
        name: String,
        /// The token's version.
        version: String,
    },
    /// A transaction of Solana, whose fee the facilitator pays from this address.
    Svm {
        /// From the facilitator's `/supported`.
        fee_payer: String,
    },
}

/// An id as it stands in an entry of v2.
#[derive(Debug, Clone, Copy)]
pub struct OfferId<'a> {
    /// The sealed id.
    pub id: &'a str,
    /// The class of its terms.
    pub class: &'a str,
}

impl Token {
    /// Its name in the books: `eip155:8453/erc20:0x8335…2913`, `solana:5eykt…/token:EPjF…`.
    pub fn book_name(network: &Network, address: &str) -> Asset {
        let kind = if network.evm_chain_id().is_some() { "erc20" } else { "token" };
        let address = if kind == "erc20" { address.to_ascii_lowercase() } else { address.to_owned() };
        Asset::Token(Arc::from(format!("{network}/{kind}:{address}")))
    }

    /// A price as an amount of the token, in ledger units; `None` when the token can't express it or the books can't hold it.
    pub fn units(&self, price: Money) -> Option<Units> {
        let units = price.units.get();
        let decimals = self.decimals.min(UNIT_DECIMALS_MAX);
        let scaled = if decimals >= LEDGER_DECIMALS {
            units.checked_mul(10_i64.pow(decimals - LEDGER_DECIMALS))?
        } else {
            let step = 10_i64.pow(LEDGER_DECIMALS - decimals);
            (units % step == 0).then_some(units / step)?
        };
        Units::new(scaled)
    }

    /// Ledger units as the token's smallest unit.
    pub fn atomic(&self, units: Units) -> u128 {
        let finer = self.decimals.saturating_sub(UNIT_DECIMALS_MAX).min(DECIMALS_MAX);
        u128::from(units.get().unsigned_abs()) * 10_u128.pow(finer)
    }

    /// The most ledger units that are worth no more than so much of the token's smallest unit; `None` when the books can't
    /// hold it.
    pub fn units_below(&self, atomic: u128) -> Option<Units> {
        let finer = self.decimals.saturating_sub(UNIT_DECIMALS_MAX).min(DECIMALS_MAX);
        i64::try_from(atomic / 10_u128.pow(finer)).ok().and_then(Units::new)
    }

    /// The terms of an offer in this token.
    pub fn template(&self, scheme: &str, ttl: u64) -> Template {
        Template {
            ttl,
            class: PUBLIC.into(),
            scheme: scheme.into(),
            network: self.network.to_string(),
            asset: self.address.clone(),
            decimals: self.decimals,
            pay_to: self.pay_to.clone(),
            terms_url: String::new(),
        }
    }

    /// What a payment of `units` has to be. With an id, as v2 offers it: `extra` then carries the template's members, so
    /// that the id can be recomputed.
    pub fn requirements(&self, scheme: &str, units: Units, ttl: u64, id: Option<OfferId<'_>>) -> Requirements {
        let mut extra = Map::new();
        let is_upto = scheme == upto::SCHEME;
        match &self.transfer {
            Transfer::Eip3009 { name, version } | Transfer::Permit2 { name, version } => {
                extra.insert("name".into(), json!(name));
                extra.insert("version".into(), json!(version));
                // `upto` moves every token so.
                if is_upto || matches!(self.transfer, Transfer::Permit2 { .. }) {
                    extra.insert("assetTransferMethod".into(), json!("permit2"));
                }
            }
            Transfer::Svm { fee_payer } => _ = extra.insert("feePayer".into(), json!(fee_payer)),
        }
        if let Some(facilitator) = self.facilitator.as_ref().filter(|_| is_upto) {
            extra.insert("facilitatorAddress".into(), json!(facilitator));
        }
        if let Some(OfferId { id, class }) = id {
            let members: [(&str, Value); 5] = [
                ("id", json!(id)),
                ("idVersion", json!(VERSION)),
                ("class", json!(class)),
                ("ttl", json!(ttl)),
                ("decimals", json!(self.decimals)),
            ];
            extra.extend(members.map(|(name, value)| (name.to_owned(), value)));
        }
        Requirements {
            scheme: scheme.to_owned(),
            network: self.network.clone(),
            amount: self.atomic(units),
            asset: self.address.clone(),
            pay_to: self.pay_to.clone(),
            max_timeout_seconds: ttl,
            extra,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(decimals: u32) -> Token {
        let network = Network::parse("eip155:84532").unwrap();
        let address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        Token {
            book: Token::book_name(&network, address),
            network,
            address: address.into(),
            symbol: "USDC".into(),
            decimals,
            currency: Currency::parse("USD").unwrap(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            transfer: Transfer::Eip3009 { name: "USDC".into(), version: "2".into() },
            facilitator: None,
        }
    }

    #[test]
    fn prices_are_exact_in_tokens_of_any_precision() {
        for (price, decimals, atomic) in [
            ("0.01 USD", 6, Some(10_000)),
            ("0.000001 USD", 6, Some(1)),
            ("0.01 USD", 18, Some(10_000_000_000_000_000)),
            ("0.000001 USD", 8, Some(100)),
            ("0.01 USD", 2, Some(1)),
            ("0.001 USD", 2, None),
            ("3 USD", 0, Some(3)),
            ("2.5 USD", 0, None),
            ("4000000000000 USD", 9, None),
        ] {
            let token = token(decimals);
            let units = token.units(Money::parse(price).unwrap());
            assert_eq!(units.map(|units| token.atomic(units)), atomic, "{price} with {decimals} decimals");
            assert_eq!(atomic.and_then(|atomic| token.units_below(atomic)), units, "and back");
        }
    }

    #[test]
    fn the_books_know_a_token_by_one_spelling() {
        assert_eq!(token(6).book.as_str(), "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e");
        assert_eq!(Asset::parse(token(6).book.as_str()), Some(token(6).book));
        let solana = Network::parse("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp").unwrap();
        let name = Token::book_name(&solana, "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v");
        assert!(name.as_str().ends_with("/token:EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"));
    }
}
