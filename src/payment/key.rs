//! The payment key: what makes a payment single-use.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::wire::evm::address::Address;
use crate::wire::evm::u256::U256;
use crate::wire::x402::network::Network;

/// 17 raw bytes: a kind byte and 16 bytes that name the payment; never text.
///
/// Keys of offer ids begin with the id's time, so they are near-append in the ledger's index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentKey([u8; 17]);

/// What a payment key was made from; the number is its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// The first 16 bytes of one of our sealed ids.
    OfferId = 1,
    /// A digest over agent, key and signature base.
    Signature = 2,
    /// A digest over chain, token, payer and nonce of an EIP-3009 authorisation.
    Eip3009 = 3,
    /// A digest over chain, Permit2 contract, payer and nonce.
    Permit2 = 4,
    /// A digest over cluster and message of a Solana transaction.
    Svm = 5,
    /// A digest over account, asset and reference of what was paid in beforehand.
    TopUp = 6,
    /// Whose pass, for what, and which of them.
    Pass = 7,
}

impl PaymentKey {
    /// The key of a sealed offer id, from its 48 raw bytes.
    pub fn from_offer_id(id: &[u8; 48]) -> PaymentKey {
        let mut key = [KeyKind::OfferId as u8; 17];
        key[1..].copy_from_slice(&id[..16]);
        PaymentKey(key)
    }

    /// The key of a signed request without an id: a SHA-256 over the parts, each with its length, cut to 16 bytes.
    pub fn from_signature(parts: &[&[u8]]) -> PaymentKey {
        PaymentKey::from_parts(KeyKind::Signature, parts)
    }

    /// The key of an EIP-3009 authorisation: what the token itself takes once. The signature is no part of it, so a
    /// second spelling of one is the same payment.
    pub fn from_eip3009(network: &Network, asset: &Address, from: &Address, nonce: &[u8; 32]) -> PaymentKey {
        let parts: [&[u8]; 4] = [network.as_str().as_bytes(), asset.as_bytes(), from.as_bytes(), nonce];
        PaymentKey::from_parts(KeyKind::Eip3009, &parts)
    }

    /// The key of a Permit2 authorisation: what the contract itself takes once, whichever the token.
    pub fn from_permit2(network: &Network, contract: &Address, owner: &Address, nonce: U256) -> PaymentKey {
        let nonce = nonce.to_be_bytes();
        let parts: [&[u8]; 4] = [network.as_str().as_bytes(), contract.as_bytes(), owner.as_bytes(), &nonce];
        PaymentKey::from_parts(KeyKind::Permit2, &parts)
    }

    /// The key of a Solana transaction, from its message (the bytes without signatures).
    pub fn from_svm_message(network: &Network, message: &[u8]) -> PaymentKey {
        let digest: [u8; 32] = Sha256::digest(message).into();
        PaymentKey::from_parts(KeyKind::Svm, &[network.as_str().as_bytes(), &digest])
    }

    /// The key of a top-up: one reference of an account is one payment.
    pub fn from_top_up(account: &str, asset: &str, reference: &str) -> PaymentKey {
        PaymentKey::from_parts(KeyKind::TopUp, &[account, asset, reference].map(str::as_bytes))
    }

    /// The key of a pass: whose and for what, and which of these, so that the latest is the last.
    pub fn from_pass(scope: &[u8; 12], which: u32) -> PaymentKey {
        let mut key = [KeyKind::Pass as u8; 17];
        key[1..13].copy_from_slice(scope);
        key[13..].copy_from_slice(&which.to_be_bytes());
        PaymentKey(key)
    }

    /// The last four bytes: of a pass, which it is.
    pub fn which(&self) -> u32 {
        u32::from_be_bytes([self.0[13], self.0[14], self.0[15], self.0[16]])
    }

    /// A SHA-256 over the parts, each with its length before it (4 bytes, big-endian), cut to 16 bytes.
    fn from_parts(kind: KeyKind, parts: &[&[u8]]) -> PaymentKey {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        let mut key = [kind as u8; 17];
        key[1..].copy_from_slice(&hash.finalize()[..16]);
        PaymentKey(key)
    }

    /// Reads 34 digits of hex, as listings print it.
    pub fn from_hex(text: &str) -> Option<PaymentKey> {
        if text.len() != 34 || !text.is_ascii() {
            return None;
        }
        let byte = |i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
        let bytes: Vec<u8> = (0..34).step_by(2).map(byte).collect::<Option<_>>()?;
        PaymentKey::from_bytes(&bytes)
    }

    /// Takes 17 bytes as the ledger keeps them; `None` for a kind that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Option<PaymentKey> {
        let key: [u8; 17] = bytes.try_into().ok()?;
        matches!(key[0], 1..=7).then_some(PaymentKey(key))
    }

    /// The bytes as the ledger keeps them.
    pub fn as_bytes(&self) -> &[u8; 17] {
        &self.0
    }
}

impl fmt::Display for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ledger keeps these keys: a change of one byte would let a spent payment through.
    #[test]
    fn keys_that_ledgers_keep_are_golden() {
        let network = Network::parse("eip155:84532").unwrap();
        let asset = Address::parse("0x036CbD53842c5426634e7929541eC2318f3dCF7e").unwrap();
        let from = Address::parse("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266").unwrap();
        let solana = Network::from_v1_name("solana-devnet").unwrap();
        let check = |key: PaymentKey, golden: &str| {
            assert_eq!(key.to_string(), golden);
            assert_eq!(PaymentKey::from_bytes(key.as_bytes()), Some(key));
        };
        check(PaymentKey::from_eip3009(&network, &asset, &from, &[1; 32]), "032cd2778d8b6c164d44fd85aad48c8324");
        check(
            PaymentKey::from_permit2(&network, &asset, &from, U256::from(7_u64)),
            "049ba6c9ccfddb16d673dba38ea99d889c",
        );
        check(PaymentKey::from_svm_message(&solana, b"message"), "05c7b9bb108f338d37872adc3924e68003");
        check(PaymentKey::from_top_up("acme", "prepaid:USD", "invoice 17"), "06166e6b81cbed5dd9823c5965e3b4c144");
    }
}
