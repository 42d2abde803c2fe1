//! The permit: what a verified payment may do. Nothing on a priced route reaches the origin without one, and nothing after
//! the gate reads the table again.

use std::sync::Arc;

use super::crawl::Bid;
use super::id::SealedId;
use super::key::PaymentKey;
use super::pass::Grant;
use super::terms::Term;
use super::token::Token;
use super::{batch, crawl, deferred};
use crate::wire::amount::{Asset, Money, Units};
use crate::wire::content_digest::ContentDigest;
use crate::wire::deferred::Payment;
use crate::wire::x402::Version;
use crate::wire::x402::requirements::Requirements;

/// A payment that holds, for one request.
#[derive(Debug, Clone)]
pub struct Permit {
    /// What makes it single-use.
    pub key: PaymentKey,
    /// When the payment was made, Unix ms.
    pub paid_at_ms: u64,
    /// Who owes it; `wallets` for payments that move money at once.
    pub account: Arc<str>,
    /// When it was granted, Unix ms.
    pub granted_ms: u64,
    /// What is charged.
    pub fund: Fund,
    /// What it is taken from instead while there is some of it: a pass, an allowance, in this order.
    pub instead: Vec<Fund>,
    /// The pass that it buys besides.
    pub grant: Option<Grant>,
    /// The price that was offered, in ledger units of its currency or token.
    pub list_amount: Units,
    /// Who pays: `https://signer.example.com`, `eip155:8453:0x857b…` (CAIP-10).
    pub agent: Arc<str>,
    /// The terms and the id that it commits to; none in x402 v1, which echoes no offer.
    pub quote: Option<(Arc<Term>, SealedId)>,
    /// How it is paid.
    pub means: Means,
}

/// What a charge is of, and how much of it there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fund {
    /// Whose it is, where that is another account than the one that pays: one that bought a pass.
    pub account: Option<Arc<str>>,
    /// `USD`, `prepaid:USD`, `requests`, a token.
    pub asset: Asset,
    /// How much is charged, in ledger units.
    pub amount: Units,
    /// The most that the account may have used of it; nothing where it is paid in beforehand, which counts below zero.
    pub limit: Units,
    /// The most that all open accounts together may have used of it, where it is one of them that pays.
    pub within: Option<Units>,
    /// The period in which it counts: `202611`, `20261124`, [`BALANCE`](crate::ledger::day::BALANCE); 0 where nothing does.
    pub period: i64,
    /// When the period ends and there is more of it, Unix seconds.
    pub ends: Option<u64>,
}

/// How a permitted request is paid.
#[derive(Debug, Clone)]
pub enum Means {
    /// From an account's credit: the signature proves it, settled later.
    Credit {
        /// In which scheme.
        by: Credit,
        /// What proves it.
        proof: Proof,
    },
    /// By a facilitator, at once.
    Exact(Box<Exact>),
}

/// A scheme that is paid from credit, with what its answer repeats.
#[derive(Debug, Clone)]
pub enum Credit {
    /// `deferred`: the field as presented.
    Deferred(Payment),
    /// `batch-settlement`, on this network.
    Batch(String),
    /// Pay per crawl; with the bid where the origin names the price.
    Crawl(Option<Bid>),
    /// Nothing is paid: a pass was bought before.
    Pass,
}

/// As the books name what a pass gives without a payment.
pub const PASS: &str = "pass";

impl Credit {
    /// As the books name it.
    pub fn scheme(&self) -> &'static str {
        match self {
            Credit::Deferred(_) => deferred::SCHEME,
            Credit::Batch(_) => batch::SCHEME,
            Credit::Crawl(_) => crawl::SCHEME,
            Credit::Pass => PASS,
        }
    }
}

/// A token payment that holds up locally.
#[derive(Debug, Clone)]
pub struct Exact {
    /// Of the payload, so of the answer.
    pub version: Version,
    /// `exact` or `upto`.
    pub scheme: &'static str,
    /// What is asked: in `upto` the most.
    pub requirements: Requirements,
    /// What it is paid in.
    pub token: Arc<Token>,
    /// The payer's address, where it is known.
    pub payer: Option<String>,
    /// Whether the payer is proven: two of his payments for one thing must not both be in doubt.
    pub proven: bool,
    /// The body of `/verify`, and of `/settle` where all of it is settled.
    pub body: String,
    /// When it can no longer move money, Unix ms.
    pub hard_until_ms: u64,
}

impl Permit {
    /// The price, where that is money of a currency.
    pub fn price(&self) -> Option<Money> {
        let Fund { amount, asset, .. } = &self.fund;
        asset.currency().map(|currency| Money { units: *amount, currency })
    }

    /// What the origin is told as the payment's id: the offer's, or the payment key in hex.
    pub fn reference(&self) -> String {
        match &self.quote {
            Some((_, id)) => id.to_text(),
            None => self.key.to_string(),
        }
    }
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
    /// The digests of the body that it covers, to be checked before anything is charged.
    pub content: Option<Box<ContentDigest>>,
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
