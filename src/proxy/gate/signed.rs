//! Payments that an account owes: a message signature proves who commits to them.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;

use super::{Asker, Visit};
use crate::config::{Account, Period};
use crate::identity::{AgentKey, Lookup};
use crate::ledger::day::{self, CreditPeriod};
use crate::ledger::limits;
use crate::payment::batch;
use crate::payment::crawl::Bid;
use crate::payment::deferred::{self, Claimed};
use crate::payment::id::{Quote, SealedId};
use crate::payment::key::PaymentKey;
use crate::payment::offer::Way;
use crate::payment::permit::{Credit, Fund, Means, Permit, Proof};
use crate::payment::reason::{Reason, Refusal};
use crate::payment::signed::{self, Candidate};
use crate::payment::terms::{Term, Terms};
use crate::wire::agent_url::AgentUrl;
use crate::wire::amount::{Asset, Currency, Money, Prepaid, Units};
use crate::wire::deferred::Payment;
use crate::wire::x402::payload::Payload;

/// A request of an allowance.
pub(super) const ONE: Units = match Units::new(1) {
    Some(one) => one,
    None => Units::ZERO,
};

/// A signature that verified.
pub(super) struct Proven<'s> {
    pub(super) candidate: Candidate,
    pub(super) key: Arc<AgentKey>,
    /// Owned where no configuration has it: an open one.
    pub(super) account: Cow<'s, Account>,
}

/// What is bought.
pub(super) struct Bought {
    pub(super) amount: Units,
    /// What was offered.
    pub(super) list: Units,
    /// Its currency: `USD`.
    pub(super) currency: Currency,
    /// The id that was paid, if there is one; else the signature is what makes the payment single-use.
    pub(super) quote: Option<(Arc<Term>, SealedId)>,
    pub(super) by: Credit,
}

impl Visit<'_> {
    /// A commitment to one of our ids.
    pub(super) async fn deferred(&self, payment: Payment, headers: &HeaderMap) -> Result<Permit, Refusal> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        let terms = self.terms()?;
        let settings = (&shared.secrets, &*terms, &shared.rules);
        let Claimed { quote, candidates } =
            deferred::check(&payment, &self.resource(), &self.view(headers), settings, now_ms)?;
        let proven = self.prove(candidates, now_ms).await?;
        let currency = currency_of(&quote.term)?;
        if currency != proven.account.credit.currency {
            let asset = &quote.term.template.asset;
            let detail = format!("this account owes {}, the offer is in {asset}", proven.account.credit.currency);
            return Err(Refusal::new(Reason::UnsupportedScheme, detail));
        }
        let Quote { id, term, amount: list } = quote;
        let amount = self.due(&proven, list, &term.template.class)?;
        let by = Credit::Deferred(payment);
        let bought = Bought { amount, list, currency, quote: Some((term, id)), by };
        self.on_credit(proven, bought, now_ms).await
    }

    /// A commitment in `PAYMENT-SIGNATURE`, to one of our ids or to an offer as it stands now.
    pub(super) async fn batch(&self, payload: &Payload, headers: &HeaderMap) -> Result<Permit, Refusal> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        let terms = self.terms()?;
        let Some(accepted) = &payload.accepted else {
            return Err(Refusal::new(Reason::UnsupportedScheme, "this scheme is paid in x402 v2"));
        };
        let ours = self.offer.entries.iter().find(|entry| matches!(&entry.way, Way::Batch(_)));
        let is_ours = ours.is_some_and(|entry| entry.term.template.network == accepted.network);
        let id = batch::id_of(payload);
        let is_live = id.is_some() && terms.accepts(batch::SCHEME, &accepted.network);
        if !is_ours && !is_live {
            return Err(Refusal::new(Reason::UnsupportedScheme, "no offer is of this scheme and network"));
        }
        let candidates = signed::candidates(&self.view(headers), &batch::cover(payload), &shared.rules, now_ms)?;
        let proven = self.prove(candidates, now_ms).await?;
        let (term, amount, id) = match (id, ours) {
            (Some(id), _) => {
                let id = SealedId::parse(id).ok_or(Reason::UnknownOffer)?;
                let quote = id.open(&shared.secrets, &terms, now_ms, &self.resource()).map_err(Reason::from)?;
                (quote.term, quote.amount, Some(quote.id))
            }
            (None, Some(entry)) => (entry.term.clone(), entry.amount, None),
            (None, None) => return Err(Reason::UnsupportedScheme.into()),
        };
        let currency = currency_of(&term)?;
        // Who names no id names the price as it stands for him, or as it was offered.
        let due = self.due(&proven, amount, &term.template.class)?;
        let named = |units| Money { units, currency }.wire();
        let is_due = id.is_none() && batch::pays(payload, &named(due)).is_ok();
        let price = named(if is_due { due } else { amount });
        batch::pays(payload, &price)?;
        if id.is_none() {
            proven.candidate.is_fresh(shared.rules.skew, now_ms)?;
        }
        batch::accepts(accepted, &term.template, price.amount)?;
        let url = self.url();
        if payload.resource_url.as_ref().is_some_and(|named| *named != url) {
            return Err(Refusal::new(Reason::OtherResource, format!("`resource.url` is not {url}")));
        }
        let by = Credit::Batch(term.template.network.clone());
        let bought = Bought { amount: due, list: amount, currency, quote: id.map(|id| (term, id)), by };
        self.on_credit(proven, bought, now_ms).await
    }

    /// The price in a signed field, good for one crawl.
    pub(super) async fn crawl(&self, bid: Bid, headers: &HeaderMap) -> Result<Permit, Refusal> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        if self.offer.crawler_price().is_none() {
            return Err(Refusal::new(Reason::UnsupportedScheme, "pay per crawl is not taken for this resource"));
        }
        let signs = ["signature-agent", "signature-input", "signature"].iter().all(|name| headers.contains_key(*name));
        if !signs {
            return Err(Reason::SignatureRequired.into());
        }
        let candidates = signed::candidates(&self.view(headers), &bid.cover(), &shared.rules, now_ms)?;
        let price = self.offer.price;
        let in_band = shared.config.routes[self.route].origin_price;
        let route = &shared.config.routes[self.route];
        let has_others = !route.agents.is_empty() || route.has_agreed_prices;
        if !in_band && !has_others {
            // Before any fetch: it costs nothing to see, and says nothing that the 402 does not.
            bid.pays(price)?;
        }
        let proven = self.prove(candidates, now_ms).await.map_err(|refusal| match refusal.reason {
            Reason::KeyUnknown => Refusal::new(Reason::InvalidSignature, Reason::KeyUnknown.meaning()),
            _ => refusal,
        })?;
        let due = Money { units: self.due(&proven, price.units, &self.offer.class)?, ..price };
        if !in_band && let Err(refusal) = bid.pays(due) {
            // Who pays less may bid what everybody pays.
            let bids_the_offer = due.units < price.units && bid.pays(price).is_ok();
            bids_the_offer.then_some(()).ok_or(refusal)?;
        }
        // Where the origin names the price, the claim is for all that the crawler pays.
        let due = if in_band { bid.most() } else { due };
        let by = Credit::Crawl(in_band.then_some(bid));
        let list = if in_band { due.units } else { price.units };
        let bought = Bought { amount: due.units, list, currency: due.currency, quote: None, by };
        self.on_credit(proven, bought, now_ms).await
    }

    /// The live terms: a priced request does not come here before they are known.
    fn terms(&self) -> Result<Arc<Terms>, Refusal> {
        self.core.shared.terms().ok_or_else(|| Refusal::from(Reason::LedgerUnavailable).retry_after(5))
    }

    /// The permit of a payment that the account will owe.
    async fn on_credit(&self, proven: Proven<'_>, bought: Bought, now_ms: u64) -> Result<Permit, Refusal> {
        let account = &proven.account;
        let currency = bought.currency;
        if currency != account.credit.currency {
            let detail = format!("this account owes {}, the payment is in {currency}", account.credit.currency);
            return Err(Refusal::new(Reason::PaymentFailed, detail));
        }
        // What costs nothing takes nothing of a pass, and buys none.
        let (held, grant) = match bought.amount {
            Units::ZERO => (Vec::new(), None),
            _ => (self.held(&proven, now_ms).await?, self.grant(&proven, bought.quote.as_ref())),
        };
        let mut permit = self.permit(proven, bought, now_ms);
        permit.instead.splice(0..0, held);
        permit.grant = grant;
        Ok(permit)
    }

    /// The permit of a proven agent, without passes.
    pub(super) fn permit(&self, proven: Proven<'_>, bought: Bought, now_ms: u64) -> Permit {
        let Proven { candidate, key, account } = proven;
        let Bought { amount, list, currency, quote, by } = bought;
        let record = &key.record;
        let (single_use, paid_at_ms) = match &quote {
            Some((_, id)) => (PaymentKey::from_offer_id(id.as_bytes()), id.time_ms()),
            None => {
                let single_use = candidate.key(&record.agent, &record.thumbprint, &self.resource());
                (single_use, candidate.created_ms())
            }
        };
        let period = credit_period(account.period);
        let within = match (&account, &self.core.shared.config.open_accounts) {
            (Cow::Owned(_), Some(open)) => Some(open.total.units),
            _ => None,
        };
        let in_period = |asset, amount, limit, within| Fund {
            account: None,
            asset,
            amount,
            limit,
            within,
            period: day::credit_period(period, now_ms),
            ends: Some(day::credit_period_end_s(period, now_ms)),
        };
        let fund = if account.prepaid {
            let asset = Asset::Prepaid(Prepaid::of(currency));
            Fund { account: None, asset, amount, limit: Units::ZERO, within: None, period: day::BALANCE, ends: None }
        } else {
            in_period(currency.into(), amount, account.limit(), within)
        };
        // What costs nothing takes nothing of it.
        let allowance = account.allowance(&self.core.shared.config.routes[self.route].name);
        let allowance = allowance.filter(|_| amount > Units::ZERO);
        Permit {
            key: single_use,
            paid_at_ms,
            account: account.name.clone(),
            granted_ms: now_ms,
            fund,
            instead: allowance.map(|limit| in_period(Asset::Requests, ONE, limit, None)).into_iter().collect(),
            grant: None,
            list_amount: list,
            agent: record.agent.clone(),
            quote,
            means: Means::Credit {
                by,
                proof: Proof {
                    key: record.clone(),
                    base: candidate.base,
                    signature: candidate.signature,
                    verified_ms: now_ms,
                    content: candidate.content,
                },
            },
        }
    }

    /// Tries the signatures; the first that verifies wins, and it alone says who pays. An agent that nobody has registered opens an
    /// account by it, if it may.
    pub(super) async fn prove(&self, candidates: Vec<Candidate>, now_ms: u64) -> Result<Proven<'_>, Refusal> {
        let proven = self.prove_known(candidates, now_ms).await?;
        // What is only observed uses nothing up.
        if let Cow::Owned(open) = &proven.account
            && !self.asker().observes
        {
            self.admit(&open.name).await?;
        }
        Ok(proven)
    }

    /// The same for what costs nothing: no account is opened for it.
    pub(super) async fn prove_known(&self, candidates: Vec<Candidate>, now_ms: u64) -> Result<Proven<'_>, Refusal> {
        let mut refusal = None;
        for candidate in candidates {
            match self.prove_one(&candidate, now_ms).await {
                Ok((key, account)) => {
                    self.asker().meet(&key.record.agent)?;
                    return Ok(Proven { candidate, key, account });
                }
                Err(error) => _ = refusal.get_or_insert(error),
            }
        }
        // There is at least one candidate, so at least one refusal.
        Err(refusal.unwrap_or_else(|| Reason::InvalidSignature.into()))
    }

    async fn prove_one(
        &self,
        candidate: &Candidate,
        now_ms: u64,
    ) -> Result<(Arc<AgentKey>, Cow<'_, Account>), Refusal> {
        let invalid = |detail: String| Refusal::new(Reason::InvalidSignature, detail);
        // Before any origin call: what the books can't hold can't be sold.
        limits::fits(self.method.as_str(), &self.booked(), &candidate.base).map_err(invalid)?;
        let agent = candidate.agent.clone();
        // Before any fetch: only agents that may owe make us connect anywhere.
        let account = self.asker().account(&agent)?;
        if account.blocked {
            return Err(Reason::Blocked.into());
        }
        Ok((self.asker().key_of(candidate, agent, now_ms).await?, account))
    }
}

impl<'s> Asker<'s> {
    /// Whoever of those that an account admits has signed, be the account blocked or not; `candidates` has at least one.
    ///
    /// # Errors
    /// What is wrong with the first of them; not yet noted.
    pub async fn signer(
        &self,
        candidates: Vec<Candidate>,
        now_ms: u64,
    ) -> Result<(Candidate, Arc<AgentKey>, Cow<'s, Account>), Refusal> {
        let mut refusal = None;
        for candidate in candidates {
            let agent = candidate.agent.clone();
            let key = match self.account(&agent) {
                Ok(account) => self.key_of(&candidate, agent, now_ms).await.map(|key| (key, account)),
                Err(refusal) => Err(refusal),
            };
            match key {
                Ok((key, account)) => {
                    self.meet(&key.record.agent)?;
                    return Ok((candidate, key, account));
                }
                Err(error) => _ = refusal.get_or_insert(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Reason::InvalidSignature.into()))
    }

    /// The key of an agent, once its signature has verified.
    pub(super) async fn key_of(
        &self,
        candidate: &Candidate,
        agent: AgentUrl,
        now_ms: u64,
    ) -> Result<Arc<AgentKey>, Refusal> {
        let found = match self.shared.keys.find(&agent, &candidate.keyid, now_ms) {
            Some(found) => found,
            None => self.shared.keys.ask(agent, candidate.keyid.clone()).await,
        };
        match found {
            Lookup::Key(key) => candidate.is_by(&key.public).map(|()| key),
            Lookup::NoSuchKey => Err(Reason::KeyUnknown.into()),
            Lookup::Unavailable { retry_after, reason } => {
                Err(Refusal::new(Reason::DirectoryUnavailable, reason).retry_after(retry_after))
            }
        }
    }

    /// The account that an agent belongs to: one of the configuration before one of its own.
    pub(super) fn account(&self, agent: &AgentUrl) -> Result<Cow<'s, Account>, Refusal> {
        let known = self.shared.accounts.find(agent).and_then(|index| self.shared.config.accounts.get(index));
        let open = || self.open_account(agent).map(Cow::Owned);
        known.map(Cow::Borrowed).or_else(open).ok_or_else(|| Reason::SignatureAgentUnknown.into())
    }
}

/// The currency that terms count in: `USD` of `USD6`.
fn currency_of(term: &Term) -> Result<Currency, Refusal> {
    let code = term.template.asset.get(..3).unwrap_or_default();
    Currency::parse(code).map_err(|_| Refusal::from(Reason::UnsupportedScheme))
}

pub(in crate::proxy) fn credit_period(period: Period) -> CreditPeriod {
    match period {
        Period::Day => CreditPeriod::Day,
        Period::Month => CreditPeriod::Month,
    }
}
