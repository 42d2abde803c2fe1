//! The gate of a priced route: no payment → an offer; a payment → the checks, cheap and local first; then a permit.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::core::{Core, Shared};
use super::rescue::{Extra, Refused};
use super::target::Target;
use crate::config::{Account, Period};
use crate::identity::{AgentKey, Lookup};
use crate::ledger::day::{self, CreditPeriod};
use crate::ledger::limits;
use crate::payment::deferred::{self, Candidate, Claimed};
use crate::payment::id::{Resource, SealedId};
use crate::payment::key::PaymentKey;
use crate::payment::offer::PreparedOffer;
use crate::payment::permit::{Permit, Proof};
use crate::payment::reason::{Reason, Refusal};
use crate::wire::agent_url::AgentUrl;
use crate::wire::deferred::Payment;
use crate::wire::signature::RequestView;

/// A request at the gate: what offers and refusals are made from.
pub struct Visit<'a> {
    /// The core it runs on.
    pub core: &'a Rc<Core>,
    /// `http` or `https`, as the client sees us.
    pub scheme: &'static str,
    /// Its normal form.
    pub target: &'a Target,
    /// The offer of its route.
    pub offer: &'a PreparedOffer,
    /// Its method as received.
    pub method: &'a Method,
}

/// Decides about a request to a priced route that carries a payment.
///
/// # Errors
/// The refusal of the first check that failed.
pub async fn judge(visit: &Visit<'_>, payment: Payment, headers: &HeaderMap) -> Result<Permit, Refused> {
    visit.verify(payment, headers).await
}

impl Visit<'_> {
    async fn verify(&self, payment: Payment, headers: &HeaderMap) -> Result<Permit, Refused> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        // A priced request does not come here before they are known.
        let terms =
            shared.terms().ok_or_else(|| Refused::from(Refusal::from(Reason::LedgerUnavailable).retry_after(5)))?;
        let settings = (&shared.secrets, terms, &shared.rules);
        let claimed = deferred::check(&payment, &self.resource(), &self.view(headers), settings, now_ms)
            .map_err(|refusal| self.refuse(refusal))?;
        let Claimed { quote, candidates } = claimed;
        let (candidate, key, account) = self.prove(candidates, now_ms).await?;
        if account.blocked {
            return Err(self.refuse(Reason::Blocked.into()));
        }
        let asset = &quote.term.template.asset;
        if asset.get(..3) != Some(account.credit.currency.as_str()) {
            let detail = format!("this account owes {}, the offer is in {asset}", account.credit.currency);
            return Err(self.refuse(Refusal::new(Reason::UnsupportedScheme, detail)));
        }
        let period = credit_period(account.period);
        Ok(Permit {
            key: PaymentKey::from_offer_id(quote.id.as_bytes()),
            paid_at_ms: quote.id.time_ms(),
            account: account.name.clone(),
            limit: account.limit(),
            period: day::credit_period(period, now_ms),
            period_ends: day::credit_period_end_s(period, now_ms),
            amount: quote.amount,
            asset: account.credit.currency.into(),
            term: quote.term,
            id: quote.id,
            payment,
            proof: Proof {
                key: key.record.clone(),
                base: candidate.base,
                signature: candidate.signature,
                verified_ms: now_ms,
            },
        })
    }

    /// Tries the signatures; the first that verifies wins, and it alone says who pays.
    async fn prove(
        &self,
        candidates: Vec<Candidate>,
        now_ms: u64,
    ) -> Result<(Candidate, Arc<AgentKey>, &Account), Refused> {
        let mut refusal = None;
        for candidate in candidates {
            match self.prove_one(&candidate, now_ms).await {
                Ok((key, account)) => return Ok((candidate, key, account)),
                Err(error) => _ = refusal.get_or_insert(error),
            }
        }
        // There is at least one candidate, so at least one refusal.
        Err(self.refuse(refusal.unwrap_or_else(|| Reason::InvalidSignature.into())))
    }

    async fn prove_one(&self, candidate: &Candidate, now_ms: u64) -> Result<(Arc<AgentKey>, &Account), Refusal> {
        let shared = &*self.core.shared;
        let invalid = |detail: String| Refusal::new(Reason::InvalidSignature, detail);
        // Before any origin call: what the books can't hold can't be sold.
        limits::fits(self.method.as_str(), &self.target.url(self.scheme), &candidate.base).map_err(invalid)?;
        let agent = AgentUrl::parse(&candidate.agent).map_err(|e| invalid(format!("`Signature-Agent`: {e}")))?;
        // Before any fetch: only agents that may owe make us connect anywhere.
        let account = self.account(shared, &agent)?;
        let found = match shared.keys.find(&agent, &candidate.keyid, now_ms) {
            Some(found) => found,
            None => shared.keys.ask(agent, candidate.keyid.clone()).await,
        };
        match found {
            Lookup::Key(key) if key.public.verifies(candidate.base.as_bytes(), &candidate.signature) => {
                Ok((key, account))
            }
            Lookup::Key(_) => Err(invalid("the signature does not verify over the base that the request gives".into())),
            Lookup::NoSuchKey => Err(Reason::KeyUnknown.into()),
            Lookup::Unavailable { retry_after, reason } => {
                Err(Refusal::new(Reason::DirectoryUnavailable, reason).retry_after(retry_after))
            }
        }
    }

    fn account<'s>(&self, shared: &'s Shared, agent: &AgentUrl) -> Result<&'s Account, Refusal> {
        let unknown = || Refusal::from(Reason::SignatureAgentUnknown);
        let index = shared.accounts.find(agent).ok_or_else(unknown)?;
        let account = shared.config.accounts.get(index).ok_or_else(unknown)?;
        if account.blocked { Err(Reason::Blocked.into()) } else { Ok(account) }
    }

    /// The refusal with what helps the client: a fresh offer for 400 and 402, where to register for an unknown agent.
    pub fn refuse(&self, refusal: Refusal) -> Refused {
        let shared = &*self.core.shared;
        let mut extra = Extra::default();
        match refusal.reason {
            Reason::SignatureAgentUnknown => extra.registration_url = shared.config.deferred.registration_url.clone(),
            reason if matches!(reason.status(), 400 | 402) => match self.fresh_id() {
                Some(id) => {
                    let resource = self.target.url(self.scheme);
                    extra.offer_body = Some(self.offer.body(&resource, &id, reason, &refusal.detail));
                    if reason.status() == 402 {
                        extra.offer_field = self.offer.field(&resource, &id, reason);
                    }
                }
                // Without randomness or a signing key there is no offer to make.
                None => return Refusal::from(Reason::Internal).into(),
            },
            _ => {}
        }
        Refused { refusal, extra: Box::new(extra) }
    }

    fn fresh_id(&self) -> Option<String> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        let random = self.core.random()?;
        let (term, amount) = (&self.offer.term, self.offer.amount);
        SealedId::seal(&shared.secrets, now_ms, random, term, amount, &self.resource()).map(|id| id.to_text())
    }

    fn resource(&self) -> Resource<'_> {
        Resource {
            method: self.method.as_str(),
            authority: self.target.authority(),
            path: self.target.path(),
            query: self.target.query().unwrap_or(""),
        }
    }

    fn view<'h>(&'h self, headers: &'h HeaderMap) -> RequestView<'h> {
        RequestView {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.target.authority(),
            path: self.target.raw_path(),
            query: self.target.query(),
            headers,
        }
    }
}

fn credit_period(period: Period) -> CreditPeriod {
    match period {
        Period::Day => CreditPeriod::Day,
        Period::Month => CreditPeriod::Month,
    }
}
