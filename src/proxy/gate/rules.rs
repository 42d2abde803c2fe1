//! `[[routes.agents]]` at the gate. Who only claims to be somebody can be blocked or offered a higher price; who has proven it
//! may pay less than others, or nothing. A sealed offer is never charged more than it says.

use http::header::{self, HeaderMap, HeaderName};

use super::Visit;
use super::signed::Proven;
use crate::config::{AgentRule, Route, Then, Who, rules::of_agent};
use crate::payment::pass::PassTerms;
use crate::payment::reason::{Reason, Refusal};
use crate::payment::signed::{self, Cover, Server};
use crate::payment::terms::PUBLIC;
use crate::pricing::crawlers;
use crate::proxy::connection::Client;
use crate::wire::agent_url::AgentUrl;
use crate::wire::amount::Units;
use crate::wire::signature::{LabelledSignature, field};
use crate::wire::signature_agent::covered_agent;

/// What a signature must cover that buys nothing.
pub(super) const COVER: Cover =
    Cover { field: signed::AGENT_FIELD, server: Server::Either, has_id: false, whole: false };

/// What follows from who a request claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing.
    Usual,
    /// It comes from addresses that have the route free.
    Free,
    /// It is offered the price of this rule.
    Dearer(usize),
}

/// What a route's rules make of a request before anything is proven.
///
/// # Errors
/// [`Reason::AgentBlocked`].
pub fn claim(route: &Route, client: &Client, headers: &HeaderMap) -> Result<Claim, Refusal> {
    let agents = if needs_agents(route) { claimed_agents(headers) } else { Vec::new() };
    let mut claim = Claim::Usual;
    let mut dearest = route.price.map_or(Units::ZERO, |price| price.units);
    for (index, rule) in route.agents.iter().enumerate() {
        let is_meant = match &rule.who {
            // Of an agent's rules the closest counts.
            Who::Agent(_) => agents.iter().any(|agent| of_agent(&route.agents, agent) == Some(rule)),
            Who::UserAgent(word) => {
                let mut words =
                    headers.get_all(header::USER_AGENT).iter().flat_map(|line| crawlers::words(line.as_bytes()));
                words.any(|found| found.eq_ignore_ascii_case(word.as_bytes()))
            }
            Who::Addresses(nets) => client.ip.is_some_and(|ip| nets.iter().any(|net| net.contains(&ip))),
        };
        match (&rule.who, rule.then) {
            _ if !is_meant => {}
            (_, Then::Block) => return Err(Reason::AgentBlocked.into()),
            (Who::Addresses(_), Then::Allow) => claim = Claim::Free,
            (_, Then::Price(price)) if price.units > dearest && claim != Claim::Free => {
                dearest = price.units;
                claim = Claim::Dearer(index);
            }
            _ => {}
        }
    }
    Ok(claim)
}

fn needs_agents(route: &Route) -> bool {
    route.agents.iter().any(|rule| matches!(rule.who, Who::Agent(_)))
}

/// The agents that the signatures of a request name; nothing of it is proven.
pub(super) fn claimed_urls(headers: &HeaderMap) -> Vec<AgentUrl> {
    let Ok(Some(named)) = field(headers, &HeaderName::from_static("signature-agent")) else { return Vec::new() };
    let signatures = LabelledSignature::parse_all(headers, true).unwrap_or_default();
    signatures.iter().filter_map(|signature| covered_agent(signature, &named).ok()).collect()
}

fn claimed_agents(headers: &HeaderMap) -> Vec<String> {
    claimed_urls(headers).iter().map(ToString::to_string).collect()
}

impl Visit<'_> {
    fn rules(&self) -> &[AgentRule] {
        &self.core.shared.config.routes[self.route].agents
    }

    /// Whether a signature of the request proves an agent that has the route free; `None` where no such agent is named.
    pub async fn admits(&self, headers: &HeaderMap) -> Option<Result<(), Refusal>> {
        let is_free = |agent: &str| of_agent(self.rules(), agent).is_some_and(|rule| rule.then == Then::Allow);
        let route = &self.core.shared.config.routes[self.route];
        if route.admitted().next().is_none() || !claimed_agents(headers).iter().any(|agent| is_free(agent)) {
            return None;
        }
        let shared = &*self.core.shared;
        let now_ms = shared.clock.now_ms();
        if let Err(refusal) = self.has_patience() {
            return Some(Err(refusal));
        }
        let candidates = match signed::candidates(&self.view(headers), &COVER, &shared.rules, now_ms) {
            Ok(candidates) => candidates,
            Err(refusal) => return Some(Err(refusal)),
        };
        let mut refused = None;
        for candidate in candidates {
            let agent = candidate.agent.clone();
            if !is_free(&agent.to_string()) {
                continue;
            }
            let account = shared.accounts.find(&agent).and_then(|index| shared.config.accounts.get(index));
            if account.is_some_and(|account| account.blocked) {
                return Some(Err(Reason::Blocked.into()));
            }
            match self.asker().key_of(&candidate, agent, now_ms).await {
                Ok(key) => return Some(self.asker().meet(&key.record.agent)),
                Err(refusal) => _ = refused.get_or_insert(refusal),
            }
        }
        refused.map(|refusal| Err(self.noted(refusal)))
    }

    /// What a proven agent is charged where this much of this class was sealed, or stands in the offer.
    ///
    /// # Errors
    /// [`Reason::AgentBlocked`]; [`Reason::PriceNotAcceptable`] where it was sealed for somebody who pays less.
    pub(super) fn due(&self, proven: &Proven<'_>, sealed: Units, class: &str) -> Result<Units, Refusal> {
        let (class, _) = PassTerms::of_class(class);
        let rule = of_agent(self.rules(), &proven.key.record.agent);
        let agreed = proven.account.price(&self.core.shared.config.routes[self.route].name);
        match rule.map(|rule| rule.then) {
            Some(Then::Block) => Err(Reason::AgentBlocked.into()),
            Some(Then::Allow) => Ok(Units::ZERO),
            // What was agreed with the account goes before what others of the route's rules say.
            _ if agreed.is_some() => Ok(agreed.unwrap_or(sealed).min(sealed)),
            Some(Then::Price(own)) if own.units <= sealed => Ok(own.units),
            // Sealed for this rule, at the price that it had then.
            Some(Then::Price(_)) if rule.is_some_and(|rule| rule.class() == class) => Ok(sealed),
            None if self.is_for_us(class) => Ok(sealed),
            _ => Err(self.dearer()),
        }
    }

    /// Whether an offer of this class may be paid by whom the request claims to be.
    pub(super) fn is_for_us(&self, class: &str) -> bool {
        self.offer.class == PUBLIC || self.offer.class == PassTerms::of_class(class).0
    }

    pub(super) fn dearer(&self) -> Refusal {
        Refusal::new(Reason::PriceNotAcceptable, "that offer was made to others; yours is another")
    }
}
