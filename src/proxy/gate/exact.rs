//! Token payments: what can be decided here, before a facilitator is asked.

use std::sync::Arc;

use super::Visit;
use crate::ledger::limits;
use crate::payment::exact::{self, Checked, ExactError};
use crate::payment::id::{IdError, SealedId};
use crate::payment::offer::Way;
use crate::payment::permit::{Exact, Fund, Means, Permit};
use crate::payment::reason::{Reason, Refusal};
use crate::payment::terms::{Template, Term};
use crate::payment::token::{OfferId, Token};
use crate::payment::upto;
use crate::wire::amount::Units;
use crate::wire::x402::facilitator;
use crate::wire::x402::payload::{Payload, PayloadKind};
use crate::wire::x402::requirements::{Requirements, ResourceInfo};

/// Whom payments that move money at once are booked under.
pub(super) const WALLETS: &str = "wallets";

/// What a settlement needs before the end of its authorisation, seconds.
const SETTLE_S: u64 = 10;

/// What a payment has to be, and what of it the books need.
struct Asked {
    token: Arc<Token>,
    units: Units,
    requirements: Requirements,
    quote: Option<(Arc<Term>, SealedId)>,
}

impl Visit<'_> {
    /// A token payment.
    pub(super) async fn exact(&self, payload: &Payload) -> Result<Permit, Refusal> {
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        let late = match self.exact_at(payload, now_ms, true) {
            // Whoever has paid already is never told to pay more.
            Ok(permit) if permit.quote.as_ref().is_some_and(|(term, _)| !self.is_for_us(&term.template.class)) => {
                return if self.knows(&permit).await? { Ok(permit) } else { Err(self.dearer()) };
            }
            // A ledger that was made since then can't know whether it was used.
            Ok(permit) if begun_ms(payload, shared.config.offers.ttl.as_secs()) < shared.store.replay_floor_ms() => {
                let known = self.knows(&permit).await?;
                return if known { Ok(permit) } else { Err(Reason::OfferExpired.into()) };
            }
            Err(refusal) if is_late(&refusal) => refusal,
            decided => return decided,
        };
        // Its time is over for a new purchase. One that is being settled, in doubt, owed or captured comes back all the
        // same: a fresh offer would make its payer pay again.
        let then_ms = signed_ms(payload, self.core.shared.config.offers.ttl.as_secs());
        match then_ms.and_then(|then_ms| self.exact_at(payload, then_ms, false).ok()) {
            Some(permit) if self.knows(&permit).await? => {
                Ok(Permit { paid_at_ms: now_ms, granted_ms: now_ms, ..permit })
            }
            _ => Err(late),
        }
    }

    /// Whether this payment has gone further than a claim.
    async fn knows(&self, permit: &Permit) -> Result<bool, Refusal> {
        let known = self.core.shared.store.knows(permit.key).await;
        known.map_err(|_| Refusal::from(Reason::LedgerUnavailable).retry_after(5))
    }

    /// As it is judged at this time; a `fresh` one must leave the origin its time.
    fn exact_at(&self, payload: &Payload, now_ms: u64, fresh: bool) -> Result<Permit, Refusal> {
        let shared = &*self.core.shared;
        let resource = self.url();
        if payload.resource_url.as_ref().is_some_and(|url| *url != resource) {
            let detail = format!("`resource.url` is not {resource}");
            return Err(Refusal::new(Reason::OtherResource, detail).error("invalid_payment_requirements"));
        }
        let asked = self.asked(payload, now_ms)?;
        let skew_s = shared.config.identity.skew.as_secs();
        let mut refusal = None;
        for Asked { token, units, requirements, quote } in asked {
            let checked = match exact::check(payload, &requirements, now_ms / 1000, skew_s) {
                Ok(checked) => checked,
                Err(error) => {
                    _ = refusal.get_or_insert(refused(&error));
                    continue;
                }
            };
            let Checked { payer, key, recovered, valid_before } = checked;
            if fresh && valid_before.is_some_and(|ends_s| ends_s < now_ms / 1000 + self.origin_s()) {
                _ = refusal.get_or_insert(refused(&ExactError::ValidBefore));
                continue;
            }
            let (description, mime_type) = self.sold();
            let info = ResourceInfo { url: &resource, description, mime_type };
            let Some(body) = facilitator::request(payload, &requirements, &info) else {
                return Err(Refusal::new(Reason::UnsupportedScheme, "x402 v1 has no name for this network"));
            };
            let body = body.to_string();
            // Before any call: what the books can't hold can't be sold.
            limits::fits_wallet(self.method.as_str(), &self.booked(), &body)
                .map_err(|detail| Refusal::new(Reason::InvalidPayment, detail).error("invalid_payload"))?;
            let ends_s = valid_before.unwrap_or(now_ms / 1000 + requirements.max_timeout_seconds);
            let payer_text = payer.map(|payer| payer.to_string().to_ascii_lowercase());
            return Ok(Permit {
                key,
                // Remembered from now for longer than the authorisation holds.
                paid_at_ms: now_ms,
                granted_ms: now_ms,
                account: Arc::from(WALLETS),
                fund: Fund {
                    account: None,
                    asset: token.book.clone(),
                    amount: units,
                    limit: Units::MAX,
                    within: None,
                    period: 0,
                    ends: None,
                },
                instead: Vec::new(),
                grant: None,
                list_amount: units,
                agent: match &payer_text {
                    Some(payer) => format!("{}:{payer}", token.network).into(),
                    None => token.network.as_str().into(),
                },
                quote,
                means: Means::Exact(Box::new(Exact {
                    version: payload.version,
                    scheme: if requirements.scheme == upto::SCHEME { upto::SCHEME } else { "exact" },
                    requirements,
                    token,
                    payer: payer_text,
                    proven: payer.is_some() && recovered,
                    body,
                    hard_until_ms: ends_s.saturating_mul(1000),
                })),
            });
        }
        Err(refusal.unwrap_or_else(|| {
            let detail = "scheme and network of the payload are not those of an offer";
            Refusal::new(Reason::UnsupportedScheme, detail).error("unsupported_scheme")
        }))
    }

    /// What the payment may be: in v2 what its id was sealed for, in v1 each token of this network that the route takes.
    fn asked(&self, payload: &Payload, now_ms: u64) -> Result<Vec<Asked>, Refusal> {
        let shared = &*self.core.shared;
        let Some(accepted) = &payload.accepted else {
            let ttl = shared.config.offers.ttl.as_secs();
            let is_sold = payload.scheme == "exact" && shared.config.exact.v1;
            let entries = self.offer.entries.iter().filter_map(|entry| match &entry.way {
                Way::Exact(token) if token.network.v1_name() == Some(&payload.network) => Some((token, entry.amount)),
                _ => None,
            });
            let asked = |(token, units): (&Arc<Token>, Units)| Asked {
                requirements: token.requirements("exact", units, ttl, None),
                token: token.clone(),
                units,
                quote: None,
            };
            if !is_sold {
                return Ok(Vec::new());
            }
            // Today's price first, then those that were quoted for as long as an offer lives.
            return Ok(entries.map(asked).chain(self.quoted_before(&payload.network, now_ms)).collect());
        };
        // A priced request does not come here before they are known.
        let terms = shared.terms().ok_or_else(|| Refusal::from(Reason::LedgerUnavailable).retry_after(5))?;
        if !terms.accepts(&accepted.scheme, &accepted.network) {
            return Err(Refusal::from(Reason::UnsupportedScheme).error("unsupported_scheme"));
        }
        let text = accepted.extra.get("id").and_then(|id| id.as_str()).unwrap_or_default();
        let unknown = || Refusal::from(Reason::UnknownOffer).error("invalid_payment_requirements");
        let id = SealedId::parse(text).ok_or_else(unknown)?;
        let quote = id.open(&shared.secrets, &terms, now_ms, &self.resource()).map_err(|e| match e {
            IdError::Unknown => unknown(),
            IdError::Expired => Refusal::from(Reason::OfferExpired),
            IdError::OtherResource => Refusal::from(Reason::OtherResource),
        })?;
        let template = &quote.term.template;
        // A token that is no longer configured can't be settled; the client gets the offers of today.
        let token = self.configured(template).ok_or_else(unknown)?;
        if template.scheme == upto::SCHEME && token.facilitator.is_none() {
            return Err(unknown());
        }
        let offer_id = OfferId { id: text, class: &template.class };
        let requirements = token.requirements(&template.scheme, quote.amount, template.ttl, Some(offer_id));
        Ok(vec![Asked { token, units: quote.amount, requirements, quote: Some((quote.term, quote.id)) }])
    }

    /// What v1 was quoted for this route on this network, under terms that are still live.
    fn quoted_before<'v>(&'v self, network: &'v str, now_ms: u64) -> impl Iterator<Item = Asked> + 'v {
        let shared = &*self.core.shared;
        let live: Vec<Arc<Term>> =
            shared.terms().map(|terms| terms.quotes(now_ms).cloned().collect()).unwrap_or_default();
        live.into_iter().filter_map(move |term| {
            let units = self.key.quoted(&term)?;
            let template = &term.template;
            let token = self.configured(template).filter(|token| token.network.v1_name() == Some(network))?;
            let requirements = token.requirements("exact", units, template.ttl, None);
            Some(Asked { token, units, requirements, quote: None })
        })
    }

    /// The token of a template, paid to whom it names; `None` where it is not configured any more and can't be settled.
    fn configured(&self, template: &Template) -> Option<Arc<Token>> {
        let same = |token: &&Arc<Token>| {
            token.network.as_str() == template.network
                && token.network.same_address(&token.address, &template.asset)
                && token.decimals == template.decimals
        };
        let token = self.core.shared.config.exact.assets.iter().find(same)?;
        if token.pay_to == template.pay_to {
            return Some(token.clone());
        }
        Some(Arc::new(Token { pay_to: template.pay_to.clone(), ..Token::clone(token) }))
    }

    /// What the origin and a settlement after it may take, seconds.
    fn origin_s(&self) -> u64 {
        let config = &*self.core.shared.config;
        let origin = config.routes.get(self.route).and_then(|route| config.origins.get(route.origin));
        origin.map_or(0, |origin| origin.head.as_secs()) + SETTLE_S
    }

    /// Description and MIME type of what the route sells.
    fn sold(&self) -> (&str, &str) {
        let route = self.core.shared.config.routes.get(self.route);
        let text = |of: fn(&crate::config::Route) -> Option<&String>| route.and_then(of).map_or("", String::as_str);
        (text(|route| route.description.as_ref()), text(|route| route.mime_type.as_ref()))
    }
}

fn is_late(refusal: &Refusal) -> bool {
    let late = [ExactError::ValidBefore.code(), ExactError::PermitDeadline.code()];
    refusal.reason == Reason::OfferExpired || refusal.error.as_deref().is_some_and(|error| late.contains(&error))
}

/// The earliest that a payment can have been made, Unix ms: its offer's time, or its end less the longest life.
fn begun_ms(payload: &Payload, ttl_s: u64) -> u64 {
    let ttl_s = payload.accepted.as_ref().map_or(ttl_s, |accepted| accepted.max_timeout_seconds);
    let offered = offer_id(payload).map(|id| id.time_ms());
    // Authorisations count in seconds; where an id says it to the millisecond, that decides within one.
    let rounded = if offered.is_some() { 999 } else { 0 };
    let ended = ends_s(payload).map(|ends_s| ends_s.saturating_sub(ttl_s).saturating_mul(1000) + rounded);
    [ended, offered].into_iter().flatten().min().unwrap_or(u64::MAX)
}

fn offer_id(payload: &Payload) -> Option<SealedId> {
    SealedId::parse(payload.accepted.as_ref()?.extra.get("id")?.as_str()?)
}

/// When the authorisation ends, Unix seconds.
fn ends_s(payload: &Payload) -> Option<u64> {
    let ends = match &payload.kind {
        PayloadKind::Eip3009 { authorization, .. } => authorization.valid_before,
        PayloadKind::Permit2 { authorization, .. } => authorization.deadline,
        PayloadKind::Svm { .. } | PayloadKind::Other(_) => return None,
    };
    u64::try_from(ends.as_u128()?).ok()
}

/// About when a payment was signed, Unix ms: within the life of its offer, and its own.
fn signed_ms(payload: &Payload, ttl_s: u64) -> Option<u64> {
    let ttl_s = payload.accepted.as_ref().map_or(ttl_s, |accepted| accepted.max_timeout_seconds);
    let begun_ms = ends_s(payload).and_then(|ends_s| ends_s.checked_sub(ttl_s)?.checked_mul(1000));
    let id = offer_id(payload);
    match (begun_ms, id) {
        (Some(begun_ms), Some(id)) => {
            Some(begun_ms.clamp(id.time_ms(), id.time_ms().saturating_add(ttl_s.checked_mul(1000)?)))
        }
        (Some(begun_ms), None) => Some(begun_ms),
        (None, id) => id.map(|id| id.time_ms()),
    }
}

fn refused(error: &ExactError) -> Refusal {
    let reason = match error {
        ExactError::Requirements(_) => Reason::Internal,
        _ => Reason::PaymentRefused,
    };
    Refusal::new(reason, error.to_string()).error(error.code())
}
