//! Passes at the gate: who has paid for something before gets it again without charge, with a payment or without one.

use std::sync::Arc;

use http::header::HeaderMap;

use super::Visit;
use super::rules::{COVER, claimed_urls};
use super::signed::{Bought, ONE, Proven};
use crate::ledger::store::{Held, Pass, Unavailable};
use crate::ledger::views::PATIENCE;
use crate::payment::id::SealedId;
use crate::payment::pass::{Grant, PassTerms, Scope};
use crate::payment::permit::{Credit, Fund, Permit};
use crate::payment::reason::{Reason, Refusal};
use crate::payment::signed;
use crate::payment::terms::Term;
use crate::wire::amount::{Asset, Units};

impl Visit<'_> {
    /// The permit of a signed request without a payment, if its agent has a pass. A signature that does not hold proves no pass,
    /// and is no reason to refuse what others are offered.
    ///
    /// # Errors
    /// [`Reason::RateLimited`], or the books can't be asked.
    pub async fn repeats(&self, headers: &HeaderMap) -> Result<Option<Permit>, Refusal> {
        let shared = &*self.core.shared;
        if !claimed_urls(headers).iter().any(|agent| self.asker().account(agent).is_ok()) {
            return Ok(None);
        }
        let now_ms = shared.clock.now_ms();
        self.has_patience()?;
        let Ok(candidates) = signed::candidates(&self.view(headers), &COVER, &shared.rules, now_ms) else {
            return Ok(None);
        };
        let proven = match self.prove_known(candidates, now_ms).await {
            Ok(proven) => proven,
            Err(refusal) if refusal.reason == Reason::RateLimited => return Err(refusal),
            Err(refusal) => {
                self.noted(refusal);
                return Ok(None);
            }
        };
        let mut funds = self.held(&proven, now_ms).await?;
        let Some(last) = funds.pop() else { return Ok(None) };
        let bought = Bought {
            amount: Units::ZERO,
            list: self.offer.price.units,
            currency: proven.account.credit.currency,
            quote: None,
            by: Credit::Pass,
        };
        let permit = self.permit(proven, bought, now_ms);
        Ok(Some(Permit { fund: last, instead: funds, ..permit }))
    }

    /// What the passes of this agent for this request have, those for the resource first.
    ///
    /// # Errors
    /// The books can't be asked.
    pub(super) async fn held(&self, proven: &Proven<'_>, now_ms: u64) -> Result<Vec<Fund>, Refusal> {
        let shared = &*self.core.shared;
        if shared.config.routes[self.route].pass.is_none() {
            return Ok(Vec::new());
        }
        let scopes = [false, true].map(|whole_route| self.scope(proven, whole_route)).to_vec();
        let held = Box::pin(shared.store.held(Held { scopes, at_ms: now_ms }));
        let late = || Unavailable("the books do not answer".into());
        let held = self.core.thread.ticker.timeout(PATIENCE, held).await.unwrap_or_else(|_| Err(late()));
        let held = held.map_err(|why| {
            tracing::warn!(%why, "a pass could not be looked up");
            Refusal::from(Reason::LedgerUnavailable).retry_after(5)
        })?;
        let fund = |pass: Pass| Fund {
            account: Some(pass.account),
            asset: Asset::Requests,
            amount: ONE,
            limit: pass.requests.unwrap_or(Units::MAX),
            within: None,
            period: pass.n,
            ends: Some(pass.ends_ms / 1000),
        };
        Ok(held.into_iter().map(fund).collect())
    }

    /// The pass that a purchase buys: the one that its offer promised, or, without an id, that of the offer as it stands.
    pub(super) fn grant(&self, proven: &Proven<'_>, quote: Option<&(Arc<Term>, SealedId)>) -> Option<Grant> {
        let route = &self.core.shared.config.routes[self.route];
        let terms = match quote {
            Some((term, _)) => PassTerms::of_class(&term.template.class).1,
            None => route.pass.and_then(|pass| pass.offers),
        }?;
        Some(Grant { scope: self.scope(proven, terms.whole_route), good: terms.good })
    }

    fn scope(&self, proven: &Proven<'_>, whole_route: bool) -> Scope {
        let agent = &proven.key.record.agent;
        if whole_route {
            return Scope::new(agent, &["route", &self.core.shared.config.routes[self.route].name]);
        }
        let resource = self.resource();
        let what = ["resource", resource.priced_method(), resource.authority, resource.path, resource.query];
        Scope::new(agent, &what)
    }
}
