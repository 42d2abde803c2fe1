//! Claims of an exchange: taken before anything else, given back by whatever ends it early.

use std::sync::Arc;

use super::{Exchange, No};
use crate::ledger::store::{
    CaptureError, Claim, ClaimError, ClaimRequest, Intent, Look, OwedTurn, Posting, Purchase, Receipt, Released,
    Settling, Store,
};
use crate::payment::permit::{Credit, Fund, Means};
use crate::payment::reason::{Reason, Refusal};

impl Exchange {
    /// Takes the key and the credit; the ledger is asked about the key only after that.
    pub(super) async fn claim(&self, store: &Arc<dyn Store>) -> Result<ClaimGuard, ClaimError> {
        let permit = &self.permit;
        let purchase = match &permit.means {
            Means::Exact(exact) if exact.proven => Some(self.purchase(permit.agent.clone())),
            _ => None,
        };
        let payer = match &permit.means {
            Means::Exact(exact) if exact.payer.is_some() => Some(permit.agent.clone()),
            _ => None,
        };
        let of = |fund: &Fund| ClaimRequest {
            key: permit.key,
            paid_at_ms: permit.paid_at_ms,
            account: fund.account.clone().unwrap_or_else(|| permit.account.clone()),
            amount: fund.amount,
            asset: fund.asset.clone(),
            limit: fund.limit,
            within: fund.within,
            period: fund.period,
            purchase: purchase.clone(),
            payer: payer.clone(),
        };
        // A claim that is refused for its credit has taken nothing, so that another may follow.
        let mut claim = None;
        for (which, fund) in permit.instead.iter().enumerate() {
            match store.claim(of(fund)).await {
                Err(ClaimError::CreditExhausted { .. }) => {}
                claimed => {
                    claim = Some(claimed?);
                    self.without_charge.set(Some(which));
                    break;
                }
            }
        }
        let claim = match claim {
            Some(claim) => claim,
            None => store.claim(of(&permit.fund)).await?,
        };
        let mut guard = ClaimGuard { store: store.clone(), claim: Some(claim), why: Released::ClientLeft };
        match store.look(permit.key).await {
            Ok(Look::Unknown) => Ok(guard),
            Ok(Look::Captured(n)) => Err(ClaimError::AlreadyCaptured(n)),
            Err(why) => {
                guard.why = Released::OriginFailed;
                Err(ClaimError::Unavailable(why))
            }
        }
    }

    /// What this payer buys: two payments for it must not both be in doubt.
    pub(super) fn purchase(&self, payer: Arc<str>) -> Purchase {
        Purchase::new(payer, &self.method, &self.target)
    }

    /// Why a payment that has bought something is refused.
    pub(super) fn used(&self) -> Reason {
        match &self.permit.means {
            // Its 402s are about prices.
            Means::Credit { by: Credit::Crawl(_) | Credit::Pass, .. } => Reason::SignatureUsed,
            Means::Credit { .. } => Reason::AlreadyUsed,
            // Never a 402: clients pay again on it.
            Means::Exact(_) => Reason::PaymentAlreadyUsed,
        }
    }

    pub(super) fn claim_refusal(&self, error: &ClaimError) -> No {
        let used = self.used();
        let mut receipt = None;
        let refusal = match error {
            ClaimError::AlreadyCaptured(n) => {
                receipt = *n;
                used.into()
            }
            ClaimError::Owed => used.into(),
            ClaimError::Burnt if matches!(self.permit.means, Means::Exact(_)) => Refusal::new(
                used,
                "the settlement of this payment failed, or three attempts with it did; nothing was charged",
            ),
            ClaimError::Burnt => Refusal::new(used, "three attempts with this payment failed; it is spent, uncharged"),
            ClaimError::Unresolved => Refusal::from(Reason::SettlementPending).retry_after(10),
            ClaimError::PayerUnresolved => Refusal::from(Reason::PaymentUnresolved).retry_after(30),
            ClaimError::BelowFloor if self.permit.quote.is_none() => {
                Refusal::new(Reason::SignatureExpired, "the books take no payment from before this time; sign again")
            }
            ClaimError::BelowFloor => Refusal::from(Reason::OfferExpired),
            ClaimError::InFlight => Refusal::from(Reason::PaymentInFlight).retry_after(1),
            ClaimError::CreditExhausted { .. } => {
                let reason = match &self.permit.means {
                    // Of two for its last request the other one was first.
                    Means::Credit { by: Credit::Pass, .. } => return Reason::PaymentRequired.into(),
                    Means::Credit { by: Credit::Batch(_) | Credit::Crawl(_), .. } => Reason::PaymentFailed,
                    _ => Reason::CreditExhausted,
                };
                let now_s = self.permit.granted_ms / 1000;
                match self.permit.fund.ends {
                    Some(ends) => Refusal::from(reason).retry_after(ends.saturating_sub(now_s).max(1)),
                    None => Refusal::new(reason, "the prepaid balance of the account does not cover this; top it up"),
                }
            }
            ClaimError::Throttled => Refusal::from(Reason::TooManyClaims).retry_after(10),
            ClaimError::Unavailable(why) => {
                tracing::warn!(%why, "a claim was refused");
                Refusal::from(Reason::LedgerUnavailable).retry_after(5)
            }
        };
        No { receipt, ..refusal.into() }
    }
}

/// A claim that is released unless it is captured: by an early return, a cancelled origin call, a panic.
pub(super) struct ClaimGuard {
    store: Arc<dyn Store>,
    claim: Option<Claim>,
    /// What the release is put down to; the client, unless something else is known.
    pub(super) why: Released,
}

impl ClaimGuard {
    /// Who pays, as a facilitator says; whether he may.
    ///
    /// # Errors
    /// He dropped too many claims, or may have paid for this already.
    pub(super) async fn pays(&mut self, purchase: Purchase) -> Result<(), ClaimError> {
        if self.store.is_throttled(&purchase.payer) {
            return Err(ClaimError::Throttled);
        }
        if self.store.is_in_doubt(purchase.clone()).await? {
            return Err(ClaimError::PayerUnresolved);
        }
        if let Some(claim) = &mut self.claim {
            claim.request.purchase = Some(purchase);
        }
        Ok(())
    }

    pub(super) async fn capture(mut self, posting: Posting) -> Result<Receipt, CaptureError> {
        match self.claim.take() {
            Some(claim) => self.store.capture(claim, posting).await,
            None => Err(CaptureError::Lost),
        }
    }

    /// Posts the intent to settle; from then on the payment is not released any more.
    pub(super) async fn intend(mut self, intent: Intent) -> Result<SettlingGuard, CaptureError> {
        let store = self.store.clone();
        let claim = self.claim.take().ok_or(CaptureError::Lost)?;
        let settling = store.intend(claim, intent).await?;
        Ok(SettlingGuard { store, settling: Some(settling) })
    }
}

/// A turn of serving what is owed, given back unless it is served.
pub(super) struct OwedGuard {
    store: Arc<dyn Store>,
    turn: Option<OwedTurn>,
}

impl OwedGuard {
    /// Takes the turn, if there is one to take.
    pub(super) async fn take(store: &Arc<dyn Store>, key: crate::payment::key::PaymentKey) -> Option<OwedGuard> {
        Some(OwedGuard { turn: Some(store.take_owed(key).await?), store: store.clone() })
    }

    pub(super) async fn redelivered(mut self) -> Result<Receipt, CaptureError> {
        match self.turn.take() {
            Some(turn) => self.store.redelivered(turn).await,
            None => Err(CaptureError::Lost),
        }
    }
}

impl Drop for OwedGuard {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.store.give_back(turn);
        }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.store.release(claim, self.why);
        }
    }
}

/// A settlement that is unknown unless it is brought to an end: by a panic, a runtime that stops.
pub(super) struct SettlingGuard {
    store: Arc<dyn Store>,
    settling: Option<Settling>,
}

impl SettlingGuard {
    /// Takes a payment in hand whose settlement ended without a verdict.
    pub(super) async fn adopt(store: &Arc<dyn Store>, key: crate::payment::key::PaymentKey) -> Option<SettlingGuard> {
        Some(SettlingGuard { store: store.clone(), settling: Some(store.adopt(key).await?) })
    }

    /// What was intended.
    pub(super) fn intent(&self) -> Option<&Intent> {
        self.settling.as_ref().map(Settling::intent)
    }

    /// From now on no other payment of this payer for the same thing is taken, until this one has an end.
    pub(super) fn in_doubt(&self) {
        if let Some(settling) = &self.settling {
            self.store.in_doubt(settling);
        }
    }

    pub(super) async fn settled(mut self, posting: Posting, owed: bool) -> Result<Receipt, CaptureError> {
        match self.settling.take() {
            Some(settling) => self.store.settled(settling, posting, owed).await,
            None => Err(CaptureError::Lost),
        }
    }

    pub(super) async fn failed(mut self, posting: Posting) -> Result<Receipt, CaptureError> {
        match self.settling.take() {
            Some(settling) => self.store.failed(settling, posting).await,
            None => Err(CaptureError::Lost),
        }
    }
}

impl Drop for SettlingGuard {
    fn drop(&mut self) {
        if let Some(settling) = self.settling.take() {
            self.store.unknown(settling);
        }
    }
}
