//! Payments that a facilitator settles at once: from the intent to an end that is known.
//!
//! ```text
//! claim -> intend -> settled (capture) | failed (spent, nothing moved) | unknown -> adopt -> one of the three again
//! ```
//!
//! The intent is a posting and a row of `claims`; the row goes with the capture or the failure. A row that is found at start
//! is a payment of which nobody knows whether it moved money.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::store::{Claim, ClaimRequest, Posting, Purchase, Receipt};
use crate::payment::key::PaymentKey;
use crate::wire::amount::Asset;

/// What is about to be settled: enough to try again, look it up and post it in any later process.
#[derive(Clone, Debug)]
pub struct Intent {
    /// As the capture will say it; its evidence is what is known now.
    pub posting: Posting,
    /// The URL of the facilitator that alone may settle it.
    pub facilitator: Arc<str>,
    /// The body of its `/settle`, so that a second try is the same.
    pub payload: Vec<u8>,
    /// When the payment can no longer move money, Unix ms.
    pub hard_until_ms: u64,
}

/// A payment between its intent and its end; hand it back to the store exactly once.
#[derive(Debug)]
pub struct Settling {
    /// As it was claimed.
    pub claim: Claim,
    /// What was intended.
    pub intent: Arc<Intent>,
}

impl Settling {
    /// The payment.
    pub fn key(&self) -> PaymentKey {
        self.claim.request.key
    }

    /// The same settlement, for whoever takes it over should the first be dropped.
    pub(super) fn twin(&self) -> Settling {
        Settling { claim: self.claim.twin(), intent: self.intent.clone() }
    }

    /// What was intended.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }
}

/// A payment of which nobody knows whether it moved money.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// As it was claimed.
    pub request: ClaimRequest,
    /// What was intended.
    pub intent: Arc<Intent>,
}

/// A capture as the books have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bought {
    /// Number and time.
    pub receipt: Receipt,
    /// Charged, ledger units.
    pub amount: i64,
    /// Of what.
    pub asset: Asset,
    /// The request's method.
    pub method: Option<String>,
    /// What was bought; none where retention dropped it.
    pub target: Option<String>,
    /// The versioned blob; none where retention dropped it.
    pub evidence: Option<Vec<u8>>,
    /// Its answer was not given, and has not been since.
    pub owed: bool,
    /// Some of it was given back, or is on its way: the answer is not given any more.
    pub refunded: bool,
}

/// The unresolved payments of this process. There are few, or something is very wrong.
#[derive(Debug, Default)]
pub(super) struct Registry {
    table: Mutex<HashMap<PaymentKey, Unresolved>>,
    /// So that claims need not lock where there is nothing.
    count: AtomicUsize,
}

impl Registry {
    pub(super) fn insert(&self, unresolved: Unresolved) {
        let mut table = self.lock();
        table.insert(unresolved.request.key, unresolved);
        self.count.store(table.len(), Ordering::Release);
    }

    pub(super) fn remove(&self, key: &PaymentKey) -> Option<Unresolved> {
        let mut table = self.lock();
        let removed = table.remove(key);
        self.count.store(table.len(), Ordering::Release);
        removed
    }

    pub(super) fn get(&self, key: &PaymentKey) -> Option<Unresolved> {
        self.lock().get(key).cloned()
    }

    pub(super) fn all(&self) -> Vec<Unresolved> {
        self.lock().values().cloned().collect()
    }

    /// Whether a payment of this payer for the same thing is unresolved.
    pub(super) fn has(&self, purchase: &Purchase) -> bool {
        self.count.load(Ordering::Acquire) != 0
            && self.lock().values().any(|unresolved| unresolved.request.purchase.as_ref() == Some(purchase))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PaymentKey, Unresolved>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
