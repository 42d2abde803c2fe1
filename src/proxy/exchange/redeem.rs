//! A charge on credit that a crash left unproven: nobody knows whether its answer left. The identical signed request has it once
//! more, uncharged, while it is good.
//!
//! ```text
//! state                    what is durable            the client leaves    the process dies
//! ------------------------------------------------------------------------------------------------
//! unproven                 the capture                -                    the same
//! turn taken, origin asked the same                   the turn goes back   the same: redeemed by the next process
//! redelivered              `redelivered`, before the  the charge stands    the same: redeemed no more
//!                          first byte
//! lapsed                   `lapsed`: three turns gave -                    the same; the charge stands, and is unproven still
//!                          nothing
//! ```
//!
//! Only safe methods, without a body: whoever asks for anything else twice does it twice.

use super::claim::OwedGuard;
use super::{Charged, Ear, Exchange, No, Scene};
use crate::ledger::evidence::Evidence;
use crate::ledger::store::{Bought, CaptureError, ClaimError};
use crate::payment::permit::{Fund, Means, Proof};
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::{AnswerBody, RequestBody};
use crate::proxy::forward::{self, Outbound};
use crate::wire::amount::{Asset, Money, Units};

impl Exchange {
    /// The same payment again: spent, or redeemed.
    pub(super) async fn redeem(&self, proof: &Proof, outbound: Outbound, mut scene: Scene, error: ClaimError) {
        if error != ClaimError::Owed {
            return scene.tell(Err(self.claim_refusal(&error)));
        }
        let store = scene.core.shared.store.clone();
        let bought = match store.find(self.permit.key).await {
            Ok(Some(bought)) => bought,
            Ok(None) => return scene.tell(Err(self.used().into())),
            Err(why) => return scene.tell(Err(self.claim_refusal(&ClaimError::Unavailable(why)))),
        };
        let spent = |bought: &Bought| self.claim_refusal(&ClaimError::AlreadyCaptured(Some(bought.receipt.n)));
        let is_plain = matches!(outbound.request.body(), RequestBody::Empty) && self.call.is_none();
        if !is_plain || !outbound.request.method().is_safe() || !self.is_what_was_signed(proof, &bought) {
            return scene.tell(Err(spent(&bought)));
        }
        let Some(turn) = OwedGuard::take(&store, self.permit.key).await else { return scene.tell(Err(spent(&bought))) };
        let Some(forwarded) = self.forward(outbound, &mut scene, "2").await else { return };
        let verdict = match self.charged(&scene.core, forwarded) {
            // It can be redeemed once more, for a few turns.
            Charged::No(verdict, _) => verdict,
            // Whoever is gone by now has been given nothing.
            Charged::Yes(_) if scene.ear.as_ref().is_none_or(Ear::is_closed) => return,
            Charged::Yes(mut response) => {
                // What the origin takes by now is not what it took.
                let _ = forward::price_of(&mut response, &scene.core.shared.config.routes[self.route]);
                self.named.set(self.booked(&bought));
                let is_free = |fund: &Fund| fund.asset == bought.asset && fund.asset == Asset::Requests;
                self.without_charge.set(self.permit.instead.iter().position(is_free));
                match turn.redelivered().await {
                    Ok(receipt) => {
                        let response = response.map(|body| AnswerBody::origin(body, None));
                        Ok(self.paid(&scene.core, response, receipt, None))
                    }
                    Err(CaptureError::Lost) => Err(spent(&bought)),
                    Err(CaptureError::Unavailable(why)) => {
                        tracing::error!(%why, "a redemption was not made durable; its answer is withheld");
                        Err(No::from(Refusal::from(Reason::LedgerUnavailable).retry_after(5)))
                    }
                }
            }
        };
        scene.tell(verdict);
    }

    /// Whether this is the request that was charged, byte for byte of what was signed.
    fn is_what_was_signed(&self, proof: &Proof, bought: &Bought) -> bool {
        let evidence = bought.evidence.as_deref().and_then(|bytes| Evidence::decode(bytes).ok());
        evidence.is_some_and(|evidence| {
            evidence.signature_base == proof.base.as_bytes()
                && evidence.signature == proof.signature
                && (&*evidence.method, &*evidence.target) == (&*self.method, &*self.target)
        })
    }

    /// What was charged.
    fn booked(&self, bought: &Bought) -> Option<Money> {
        let currency = bought.asset.currency().filter(|_| matches!(self.permit.means, Means::Credit { .. }))?;
        Some(Money { units: Units::new(bought.amount)?, currency })
    }
}
