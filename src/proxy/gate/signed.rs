//! Payments that an account owes: a message signature proves who commits to them.

use std::sync::Arc;

use http::HeaderMap;

use super::Visit;
use crate::config::{Account, Period};
use crate::identity::{AgentKey, Lookup};
use crate::ledger::day::{self, CreditPeriod};
use crate::ledger::limits;
use crate::payment::deferred::{self, Candidate, Claimed};
use crate::payment::key::PaymentKey;
use crate::payment::permit::{Means, Permit, Proof};
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::core::Shared;
use crate::proxy::rescue::Refused;
use crate::wire::agent_url::AgentUrl;
use crate::wire::deferred::Payment;

impl Visit<'_> {
    /// A signed commitment.
    pub(super) async fn deferred(&self, payment: Payment, headers: &HeaderMap) -> Result<Permit, Refused> {
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
            granted_ms: now_ms,
            amount: quote.amount,
            asset: account.credit.currency.into(),
            agent: key.record.agent.clone(),
            quote: Some((quote.term, quote.id)),
            means: Means::Deferred {
                payment,
                proof: Proof {
                    key: key.record.clone(),
                    base: candidate.base,
                    signature: candidate.signature,
                    verified_ms: now_ms,
                },
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
}

fn credit_period(period: Period) -> CreditPeriod {
    match period {
        Period::Day => CreditPeriod::Day,
        Period::Month => CreditPeriod::Month,
    }
}
