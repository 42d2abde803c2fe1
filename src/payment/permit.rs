//! The permit: what a verified payment may do. Nothing on a priced route reaches the origin without one, and nothing after
//! the gate reads the table again.

use std::sync::Arc;

use super::id::SealedId;
use super::key::PaymentKey;
use super::terms::Term;
use crate::wire::amount::{Asset, Units};
use crate::wire::deferred::Payment;

/// A payment that holds, for one request.
#[derive(Debug, Clone)]
pub struct Permit {
    /// What makes it single-use.
    pub key: PaymentKey,
    /// When the payment was made, Unix ms.
    pub paid_at_ms: u64,
    /// Who owes it.
    pub account: Arc<str>,
    /// The most that the account may owe.
    pub limit: Units,
    /// The credit period, `202611` or `20261124`.
    pub period: u32,
    /// When the period ends, Unix seconds.
    pub period_ends: u64,
    /// What is charged, in ledger units.
    pub amount: Units,
    /// Of what.
    pub asset: Asset,
    /// The terms that the id commits to.
    pub term: Arc<Term>,
    /// The id.
    pub id: SealedId,
    /// The field as presented, for the payment response.
    pub payment: Payment,
    /// What proves it.
    pub proof: Proof,
}

/// What proves a payment: kept as evidence with the capture.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The agent and its key.
    pub key: Arc<KeyRecord>,
    /// The signature base.
    pub base: String,
    /// The signature.
    pub signature: Vec<u8>,
    /// When it was verified, Unix ms.
    pub verified_ms: u64,
}

/// The public key that verified, as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// RFC 7638 thumbprint, base64url.
    pub thumbprint: Arc<str>,
    /// The agent whose directory (or pin) it came from.
    pub agent: Arc<str>,
    /// The JWK, canonical JSON of its required members.
    pub jwk: Arc<str>,
    /// SHA-256 of the directory's body; zeros for a pinned key.
    pub directory_digest: [u8; 32],
}
