//! Passes at the gate: who has paid for something before gets it again without charge, with a payment or without one.

use http::header::HeaderMap;

use super::Visit;
use super::rules::{COVER, claimed_urls};
use super::signed::{Bought, ONE, Proven};
use crate::ledger::store::{Held, Unavailable};
use crate::ledger::views::PATIENCE;
use crate::payment::pass::{Grant, Scope};
use crate::payment::permit::{Credit, Fund, Permit};
use crate::payment::reason::{Reason, Refusal};
use crate::payment::signed;
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
        let Some((mut funds, _)) = self.pass(&proven, now_ms).await? else { return Ok(None) };
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

    /// What passes of this agent for this request have, and the one that a purchase would buy; `None` where there are none.
    ///
    /// # Errors
    /// The books can't be asked.
    pub(super) async fn pass(&self, proven: &Proven<'_>, now_ms: u64) -> Result<Option<(Vec<Fund>, Grant)>, Refusal> {
        let shared = &*self.core.shared;
        let route = &shared.config.routes[self.route];
        let Some(terms) = &route.pass else { return Ok(None) };
        let (account, agent) = (&proven.account.name, &proven.key.record.agent);
        let scope = if terms.whole_route {
            Scope::new(account, agent, &["route", &route.name])
        } else {
            let resource = self.resource();
            let what = ["resource", resource.priced_method(), resource.authority, resource.path, resource.query];
            Scope::new(account, agent, &what)
        };
        let held = Box::pin(shared.store.held(Held { account: account.clone(), scope, at_ms: now_ms }));
        let late = || Unavailable("the books do not answer".into());
        let held = self.core.thread.ticker.timeout(PATIENCE, held).await.unwrap_or_else(|_| Err(late()));
        let held = held.map_err(|why| {
            tracing::warn!(%why, "a pass could not be looked up");
            Refusal::from(Reason::LedgerUnavailable).retry_after(5)
        })?;
        let funds = held.into_iter().map(|pass| Fund {
            asset: Asset::Requests,
            amount: ONE,
            limit: pass.requests.unwrap_or(Units::MAX),
            within: None,
            period: pass.n,
            ends: Some(pass.ends_ms / 1000),
        });
        Ok(Some((funds.collect(), Grant { scope, good: terms.good })))
    }
}
