//! The payment key: what makes a payment single-use.

use std::fmt;

use sha2::{Digest, Sha256};

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
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        let mut key = [KeyKind::Signature as u8; 17];
        key[1..].copy_from_slice(&hash.finalize()[..16]);
        PaymentKey(key)
    }

    /// Takes 17 bytes as the ledger keeps them; `None` for a kind that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Option<PaymentKey> {
        let key: [u8; 17] = bytes.try_into().ok()?;
        matches!(key[0], 1..=6).then_some(PaymentKey(key))
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
