//! The port to the books.
//!
//! A payment's way through a store, each arrow a call of [`Store`]:
//!
//! ```text
//!             claim ──────────────► live ── capture ──► captured ── outcome ──► delivered | voided
//!               │                    │                     (durable before the first byte of the answer)
//!               └─ refused           └─ release ─► free again; the third release burns the key, uncharged
//! ```

use std::{future::Future, pin::Pin, sync::Arc};

pub use super::correcting::{CorrectResult, Corrected};
pub use super::correction::{By, CorrectError, Order, Signed, What};
pub use super::observation::Observation;
pub use super::passes::{Held, HeldResult, Pass};
pub use super::settling::{Bought, Intent, Settling, Unresolved};
pub use crate::payment::{pass::Grant, permit::KeyRecord};
use crate::{
    payment::key::PaymentKey,
    wire::amount::{Asset, Units},
};

/// What a store call resolves to.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Offer templates: bytes, and when a configuration last made them, Unix ms.
pub type Terms = Vec<(Vec<u8>, u64)>;

/// Hears what became of answers.
pub trait Outcomes: Send + Sync + 'static {
    /// What became of the answer; rides with the next batch. With `void`, the capture is reversed at most once.
    fn outcome(&self, outcome: Outcome);
}

/// The operations of a ledger that the gateway needs while it serves.
///
/// A wrong answer costs money: `claim` granting one key twice serves a payment twice, `capture` resolving before the row
/// is on disk serves without a debt, `release` after a capture would charge for nothing.
pub trait Store: Outcomes {
    /// Takes the payment key *and* the credit together, or says why not. Nothing is durable yet.
    fn claim(&self, request: ClaimRequest) -> StoreFuture<Result<Claim, ClaimError>>;

    /// Whether the key was captured: asked after the claim, never before it.
    fn look(&self, key: PaymentKey) -> StoreFuture<Result<Look, Unavailable>>;

    /// Gives key and credit back: nothing was given, nothing is charged. Does not wait and cannot fail. The third release of
    /// a payment spends it, whatever the reasons but [`Released::NotAsked`].
    fn release(&self, claim: Claim, why: Released);

    /// Posts the capture. It is queued when this returns (from then on nothing may cancel it); the future resolves when the
    /// row is on disk, or when it is certain that no row will be. A future that is dropped before it has resolved reports
    /// [`Delivery::NotSent`] with a void for the row, should there be one: nobody was given the answer.
    fn capture(&self, claim: Claim, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>>;

    /// Posts, before a facilitator is asked to move money, that it will be: durable when the future resolves. From then on
    /// the payment is never free again by itself; end it with [`Store::settled`], [`Store::failed`] or [`Store::unknown`].
    fn intend(&self, claim: Claim, intent: Intent) -> StoreFuture<Result<Settling, CaptureError>>;

    /// Money moved: posts the capture. With `owed`, nobody has been given anything for it yet, and the payer may fetch it
    /// once. A posting that can't be written now is kept and written later; the answer is withheld meanwhile.
    fn settled(&self, settling: Settling, posting: Posting, owed: bool) -> StoreFuture<Result<Receipt, CaptureError>>;

    /// No money moved and none will: posts that, and spends the payment.
    fn failed(&self, settling: Settling, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>>;

    /// The payer no longer waits for the settlement, which goes on: no other payment of his for the same thing is claimed
    /// until it has an end.
    fn in_doubt(&self, settling: &Settling);

    /// Whether money of this purchase may have moved already: another payment for it must wait.
    fn is_in_doubt(&self, purchase: Purchase) -> StoreFuture<Result<bool, Unavailable>>;

    /// Whether this payer dropped too many claims lately; for one whom only the facilitator could name.
    fn is_throttled(&self, payer: &str) -> bool;

    /// Payments made before are not taken any more, Unix ms.
    fn replay_floor_ms(&self) -> u64;

    /// Whether a payment is being settled, in doubt, owed or captured, as far as memory reaches: then it has to come back
    /// even if its time is over.
    fn knows(&self, key: PaymentKey) -> StoreFuture<Result<bool, Unavailable>>;

    /// Whether money moved is not known: the payment waits for [`Store::adopt`], also in later processes. Does not wait.
    fn unknown(&self, settling: Settling);

    /// Payments whose settlement ended without a verdict.
    fn unresolved(&self) -> StoreFuture<Result<Vec<Unresolved>, Unavailable>>;

    /// Takes an unresolved payment in hand, to end it; `None` when it is not unresolved, or somebody else has it.
    fn adopt(&self, key: PaymentKey) -> StoreFuture<Option<Settling>>;

    /// The passes of an agent that are good, the latest first.
    fn held(&self, held: Held) -> StoreFuture<HeldResult>;

    /// Whether the books know this account.
    fn has_used(&self, account: Arc<str>) -> StoreFuture<Result<bool, Unavailable>>;

    /// The capture of a payment, from the books.
    fn find(&self, key: PaymentKey) -> StoreFuture<Result<Option<Bought>, Unavailable>>;

    /// The answer of a capture that was made just now will not be given: it is owed, from this moment on.
    fn owe(&self, key: PaymentKey, receipt: Receipt);

    /// Takes the turn of serving what is owed: one at a time gets it.
    fn take_owed(&self, key: PaymentKey) -> StoreFuture<Option<OwedTurn>>;

    /// The turn ends and nothing was given: the answer is owed again, for a few more turns. After the last one it has lapsed,
    /// for good, and until that is durable the payment counts as in flight: who was told to ask for a refund is not served.
    fn give_back(&self, turn: OwedTurn);

    /// What was owed is served: durable when the future resolves. A turn that ends without leaves it owed in the books, for
    /// the operator to refund. The receipt is the capture's.
    fn redelivered(&self, turn: OwedTurn) -> StoreFuture<Result<Receipt, CaptureError>>;

    /// Voids, refunds, contests: durable when the future resolves, each order once. What is refunded or voided is fetched no
    /// more, and credit is given back, before anybody is told. Whoever is not told asks again, or looks.
    fn correct(&self, orders: Vec<Order>) -> StoreFuture<CorrectResult>;

    /// Counts a request that was only observed. Does not wait and cannot fail: rows follow within seconds while the books are
    /// open, else when they are again; a process that dies loses those of its last second.
    fn observed(&self, observation: Observation);

    /// Makes offer templates durable, so that a quote outlives this process. `(digest, bytes)`.
    fn remember_terms(&self, terms: Vec<([u8; 32], Vec<u8>)>) -> StoreFuture<Result<(), Unavailable>>;

    /// Templates loaded no earlier than `since_ms`: bytes and the time at which a configuration last made them.
    fn recent_terms(&self, since_ms: u64) -> StoreFuture<Result<Terms, Unavailable>>;

    /// Whether priced routes may be served now, and else why not.
    fn health(&self) -> Health;

    /// Whether a new payment would be claimed now: the books are open and their memory has room. Takes no lock, for every
    /// request to a priced route asks; the reason is in [`Store::health`], or in the refusal of a claim.
    fn is_open(&self) -> bool;
}

/// What a claim asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The payment.
    pub key: PaymentKey,
    /// When the payment was made, Unix ms: the id's time, or `created` where there is no id. Held against the replay floor.
    pub paid_at_ms: u64,
    /// Who owes it.
    pub account: Arc<str>,
    /// How much, in ledger units of the asset.
    pub amount: Units,
    /// Of what; the limit is in it too.
    pub asset: Asset,
    /// The most that the account may owe in the period.
    pub limit: Units,
    /// The most that all open accounts together may owe in the period, where this is one of them
    /// ([`super::open_accounts`]).
    pub within: Option<Units>,
    /// The credit period that the claim falls into, fixed now: `20261124` for a day, `202611` for a month; 0 where there is
    /// no credit.
    pub period: i64,
    /// For payments that are settled at once: who pays, for what. While one of theirs is unresolved, no other is claimed.
    pub purchase: Option<Purchase>,
    /// Who pays, where the payment alone does not prove it; throttled for what he drops. Claims are dropped only after a
    /// facilitator has agreed, so nobody is throttled for what others say in his name.
    pub payer: Option<Arc<str>>,
}

/// Who pays on a chain, for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// `eip155:8453:0x857b06519e91e3a54538791bdbb0e22373e36b66` (CAIP-10), or the network alone where the payer is not known
    /// before the facilitator has looked.
    pub payer: Arc<str>,
    /// Method and target, `GET https://shop.example/a?b`; of a call, `POST https://shop.example/mcp#tool/add`.
    pub what: Arc<str>,
}

impl Purchase {
    /// Of a target as the books keep it. That of a call ends with a digest of what it is called with, as it was written
    /// (`#tool/add;sha256=…`), which is no part of this: the same arguments in another order are the same purchase.
    pub fn new(payer: Arc<str>, method: &str, target: &str) -> Purchase {
        // No URL of a request has a fragment.
        let without = target.rsplit_once(";sha256=").filter(|(what, _)| what.contains('#'));
        let target = without.map_or(target, |(what, _)| what);
        Purchase { payer, what: format!("{method} {target}").into() }
    }
}

/// A granted claim; hand it back by `release` or `capture`, exactly once.
#[derive(Debug)]
pub struct Claim {
    /// What was asked for.
    pub request: ClaimRequest,
    /// Tells this claim from an earlier one of the same key.
    pub token: u64,
}

impl Claim {
    /// The same claim, for a store that keeps one half while the payment is being settled.
    pub(super) fn twin(&self) -> Claim {
        Claim { request: self.request.clone(), token: self.token }
    }
}

/// Why a claim is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The origin gave no success. The account has no part in that: it is not throttled for it.
    OriginFailed,
    /// The origin was not asked: nothing was spent on it, so it does not count at all.
    NotAsked,
    /// The client went away, asked for what cannot be recorded, or paid with what ends before the answer, so that an origin
    /// call was made for nothing; too many of them throttle the account.
    ClientLeft,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// This payment has bought something before. Carries the entry's number where it is known.
    #[error("the payment was already captured")]
    AlreadyCaptured(Option<i64>),
    /// Another request is being served for this payment right now.
    #[error("the payment is in flight")]
    InFlight,
    /// Whether this payment moved money is not known yet.
    #[error("the outcome of the payment is not known yet")]
    Unresolved,
    /// Whether another payment of this payer for the same thing moved money is not known yet.
    #[error("an earlier payment for this is not resolved yet")]
    PayerUnresolved,
    /// Captured, and its answer is still owed, or a crash left unknown whether it left: [`Store::take_owed`] is the turn to serve
    /// it.
    #[error("the payment was captured and its answer is owed")]
    Owed,
    /// Released three times, or its settlement failed: spent, uncharged.
    #[error("the payment was released too often")]
    Burnt,
    /// The account would owe more than its limit.
    #[error("{used:?} of {limit:?} ledger units are used in this period")]
    CreditExhausted {
        /// Claimed and captured in this period.
        used: Units,
        /// The limit: the account's, or that of all open accounts together.
        limit: Units,
    },
    /// Older than the replay floor: whether it was used can no longer be told.
    #[error("the payment is older than the replay floor")]
    BelowFloor,
    /// Too many claims of this account were dropped lately ([`Released::ClientLeft`]).
    #[error("too many claims of this account ended without an answer")]
    Throttled,
    /// The books are closed, or their memory is full.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The books cannot be asked or written now; priced routes answer 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable: {0}")]
pub struct Unavailable(pub Arc<str>);

/// Why a capture did not happen. In each case no row stands for the payment, or a voided one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Another posting of this key was first.
    #[error("another request captured this payment first")]
    Lost,
    /// The row could not be made durable.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What the ledger knows of a payment key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// No capture.
    Unknown,
    /// Captured by the entry of this number, where it is known.
    Captured(Option<i64>),
}

/// Everything that a capture writes, except what the writer adds (number, times, book day, chain).
#[derive(Clone, Debug)]
pub struct Posting {
    /// The signature agent, `https://signer.example.com`, or a wallet, `eip155:8453:0x857b…` (CAIP-10).
    pub agent: Arc<str>,
    /// The JWK thumbprint of the key that signed, base64url; none for wallets.
    pub agent_key: Option<Arc<str>>,
    /// The route's name.
    pub route: Arc<str>,
    /// `deferred`, `exact`.
    pub scheme: &'static str,
    /// Charged, in ledger units of `ClaimRequest::asset`; at most what was claimed.
    pub amount: Units,
    /// The public price at the time.
    pub list_amount: Units,
    /// SHA-256 of the table that decided.
    pub table_hash: [u8; 32],
    /// The origin's status.
    pub status: u16,
    /// The request's method.
    pub method: Arc<str>,
    /// Scheme, authority, path and query as they were bought.
    pub target: Arc<str>,
    /// The versioned evidence blob; at most 64 KiB.
    pub evidence: Vec<u8>,
    /// The public key behind `agent_key`, written once per (thumbprint, agent).
    pub key: Option<Arc<KeyRecord>>,
    /// The pass that it buys besides.
    pub grant: Option<Grant>,
}

/// The turn of serving what is owed.
#[derive(Debug)]
pub struct OwedTurn {
    /// The payment.
    pub key: PaymentKey,
    /// The capture.
    pub n: i64,
}

/// A durable capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entry's number, `slot << 48 | seq`.
    pub n: i64,
    /// The posting time, Unix ms.
    pub at_ms: u64,
}

/// How the delivery of a captured answer ended; the number is what the ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// The last byte was handed to the client's socket.
    Complete = 1,
    /// The client went away.
    ClientLeft = 2,
    /// The client stopped reading for longer than the write stall deadline.
    ClientStalled = 3,
    /// The origin broke off or stalled.
    OriginCut = 4,
    /// Captured, but no byte of the answer was written.
    NotSent = 5,
}

/// The delivery of one captured answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The capture's number.
    pub n: i64,
    /// How it ended.
    pub delivery: Delivery,
    /// Reverse the charge; where money has moved already: the answer is owed.
    pub void: bool,
    /// From capture to the end of the delivery.
    pub ms: u32,
    /// Body bytes handed on, below 2⁵⁶.
    pub bytes: u64,
}

/// Whether the books are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Claims and captures are taken.
    Open,
    /// Priced routes answer 503; the text is for the operator.
    Closed(Arc<str>),
}
