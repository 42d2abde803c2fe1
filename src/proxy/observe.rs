//! A route that only observes: each request goes to the origin as a free one, and beside it the gate says what would have
//! followed.
//!
//! ```text
//! request ── as any free one ──────────────────► the origin's answer ──► client
//!    ├── no payment: «would have been asked» ─┐            │ status
//!    └── a payment: the gate, by a task ──────┴────────────┴──► one observation
//! ```
//!
//! Nothing of it refuses, charges, claims, or asks a facilitator; directories of agents are asked. A verdict that comes late
//! holds nobody up, and one that never comes is counted as such. What is looked at is what a request shows by itself: credit
//! that is used up, a payment that is sent twice, a wallet without money are not seen. Only an answer with a status that is
//! charged would have earned anything. Where the origin may name the price, the route's stands for it.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::body::AnswerBody;
use super::connection::Client;
use super::core::{Core, Thread};
use super::exchange::millionths;
use super::gate::rules::{self, Claim};
use super::gate::{self, Visit};
use super::mcp::Call;
use super::rescue::Refused;
use super::sales::{Chance, Sale};
use super::target::Target;
use super::{rates, stack, trace};
use crate::config::Route;
use crate::ledger::observation::{OTHER, Observation, Observed, UNKNOWN, Would};
use crate::payment::permit::{Credit, Means, Permit};
use crate::payment::presented::{Presented, Words};
use crate::payment::reason::{Reason, Refusal};
use crate::payment::{batch, crawl, deferred, upto};
use crate::pricing::Crawlers;
use crate::telemetry::tally;
use crate::wire::amount::{Asset, Money, Units};

/// Verdicts of one core that may be under way: each holds a request's head.
const VERDICTS_MAX: usize = 256;
/// How long one may take; directories are asked within less.
const VERDICT: Duration = Duration::from_secs(10);

/// An observed request whose answer is not there yet. Dropped before that, it counts as one without.
pub struct Watch {
    core: Rc<Core>,
    waits: Option<Waits>,
    _chance: Chance,
}

/// Who waits for the answer.
enum Waits {
    /// The verdict is there.
    Verdict(Verdict),
    /// The task that the verdict comes from.
    Task(oneshot::Sender<Option<StatusCode>>),
}

/// What would have become of a request.
struct Verdict {
    route: usize,
    observed: Observed,
    /// What a success of the origin would have earned.
    amount: Units,
    would: tally::Would,
}

impl Watch {
    fn new(core: Rc<Core>, waits: Waits) -> Watch {
        let chance = core.thread.sales.chance();
        Watch { core, waits: Some(waits), _chance: chance }
    }

    /// The request has its answer, or none.
    pub fn answered(
        mut self,
        mut passed: Result<Response<AnswerBody>, Refused>,
    ) -> Result<Response<AnswerBody>, Refused> {
        if let Ok(response) = &mut passed {
            response.extensions_mut().insert(trace::Observed);
        }
        self.end(passed.as_ref().ok().map(Response::status));
        passed
    }

    fn end(&mut self, status: Option<StatusCode>) {
        match self.waits.take() {
            Some(Waits::Verdict(verdict)) => verdict.count(&self.core, status),
            // A task that is not there any more has nothing to count.
            Some(Waits::Task(task)) => _ = task.send(status),
            None => {}
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// A request for a page. `None` where it is free in any mode.
pub fn page<B>(
    core: &Rc<Core>,
    client: &Client,
    (target, route): (&Target, usize),
    request: &Request<B>,
) -> Option<Watch> {
    let config = &*core.shared.config;
    let headers = request.headers();
    let mut seen = Seen::new(core, route, headers)?;
    let claim = match rules::claim(&config.routes[route], client, headers) {
        Ok(claim) => claim,
        Err(refusal) => return Some(seen.known(Ok(Presented::Nothing), Err(refusal))),
    };
    if claim == Claim::Free || (claim == Claim::Usual && !stack::pays(config, &config.routes[route], headers)) {
        return None;
    }
    seen.price = stack::offer_to(core, route, claim)?.0.price;
    let presented = gate::read(core, rates::network(client.ip).as_ref(), headers);
    if let (Ok(Presented::Nothing), false) = (&presented, may_be_admitted(&config.routes[route], headers)) {
        return Some(seen.known(presented, Ok(None)));
    }
    let page = Page {
        claim,
        scheme: client.scheme(core),
        target: target.clone(),
        method: request.method().clone(),
        network: rates::network(client.ip),
    };
    Some(seen.judged(Of::Page(Box::new(page)), presented, headers))
}

/// Whether a request may have proven to be of an agent that has the route free.
fn may_be_admitted(route: &Route, headers: &HeaderMap) -> bool {
    headers.contains_key("signature") && route.admitted().next().is_some()
}

/// A call of an MCP server.
pub fn call(
    core: &Rc<Core>,
    client: &Client,
    call: Rc<Call>,
    presented: Result<Presented, Refusal>,
    headers: &HeaderMap,
) -> Option<Watch> {
    let seen = Seen::new(core, call.route, headers)?;
    let route = &core.shared.config.routes[call.route];
    if let Err(refusal) = rules::claim(route, client, headers) {
        return Some(seen.known(Ok(Presented::Nothing), Err(refusal)));
    }
    Some(match presented {
        Ok(Presented::Nothing) if !may_be_admitted(route, headers) => seen.known(presented, Ok(None)),
        presented => seen.judged(Of::Call(call), presented, headers),
    })
}

/// A call that would have been refused by its form alone.
pub fn refused_call(core: &Rc<Core>, route: usize, reason: Reason, headers: &HeaderMap) -> Option<Watch> {
    Some(Seen::new(core, route, headers)?.known(Ok(Presented::Nothing), Err(reason.into())))
}

/// A request as far as its head tells.
struct Seen {
    core: Rc<Core>,
    sale: Sale,
    route: usize,
    /// The name that it goes by, which proves nothing.
    name: Arc<str>,
    /// What it would have been offered at: the public price, or a dearer one.
    price: Money,
}

/// What the gate is asked about.
enum Of {
    Page(Box<Page>),
    Call(Rc<Call>),
}

struct Page {
    claim: Claim,
    scheme: &'static str,
    target: Target,
    method: Method,
    network: Option<IpAddr>,
}

impl Seen {
    fn new(core: &Rc<Core>, route: usize, headers: &HeaderMap) -> Option<Seen> {
        let name = name_of(&core.shared.config.identity.crawlers, headers);
        let price = core.shared.config.routes.get(route)?.price?;
        let sale = core.thread.sales.begin()?;
        Some(Seen { core: core.clone(), sale, route, name, price })
    }

    /// The verdict is there without a look at anything else: the refusal, the permit, or none for «no payment».
    fn known(self, presented: Result<Presented, Refusal>, judged: Result<Option<Permit>, Refusal>) -> Watch {
        let verdict = self.verdict(scheme_of(&presented), judged);
        Watch::new(self.core, Waits::Verdict(verdict))
    }

    /// The gate is asked beside the request.
    fn judged(self, of: Of, presented: Result<Presented, Refusal>, headers: &HeaderMap) -> Watch {
        let core = self.core.clone();
        let scheme = scheme_of(&presented);
        let Some(turn) = Turn::take(&core, VERDICTS_MAX, |thread| &thread.judging) else {
            return Watch::new(core, Waits::Verdict(self.unjudged(scheme)));
        };
        let uncounted = Turn::take(&core, usize::MAX, |thread| &thread.uncounted);
        let (answered, status) = oneshot::channel();
        let headers = headers.clone();
        tokio::task::spawn_local(async move {
            // What is ready goes first: the request that this one is about.
            tokio::task::yield_now().await;
            let judged = tokio::time::timeout(VERDICT, ask(&self.core, self.route, &of, presented, &headers)).await;
            drop((turn, headers));
            let verdict = match judged {
                Ok(Judged::Free) => return,
                Ok(Judged::Not(refusal)) => self.verdict(scheme, Err(refusal)),
                Ok(Judged::Asked) => self.verdict(scheme, Ok(None)),
                Ok(Judged::Permitted(permit)) => self.verdict(scheme, Ok(Some(*permit))),
                Err(_) => self.unjudged(scheme),
            };
            let chance = self.core.thread.sales.chance();
            drop(self.sale);
            verdict.count(&self.core, status.await.ok().flatten());
            drop((uncounted, chance));
        });
        Watch::new(core, Waits::Task(answered))
    }

    fn verdict(&self, scheme: &'static str, judged: Result<Option<Permit>, Refusal>) -> Verdict {
        let Money { units, currency } = self.price;
        let unknown = |would, asset| self.observed(UNKNOWN.into(), self.name.clone(), would, asset);
        let (observed, amount, would) = match judged {
            Ok(None) => (unknown(Would::Ask, currency.into()), units, tally::Would::Ask),
            Err(Refusal { reason, .. }) => {
                let would = Would::Refuse { scheme, reason: reason.code() };
                (unknown(would, currency.into()), Units::ZERO, tally::Would::Refuse(reason))
            }
            Ok(Some(permit)) => {
                let (scheme, agent, amount) = match &permit.means {
                    Means::Credit { by: by @ Credit::Crawl(Some(_)), .. } => (by.scheme(), permit.agent.clone(), units),
                    Means::Credit { by, .. } => (by.scheme(), permit.agent.clone(), permit.fund.amount),
                    // Anybody can make wallets, as many as he likes.
                    Means::Exact(exact) => (exact.scheme, exact.token.network.as_str().into(), permit.fund.amount),
                };
                let observed =
                    self.observed(permit.account.clone(), agent, Would::Pay(scheme), permit.fund.asset.clone());
                (observed, amount, tally::Would::Pay)
            }
        };
        Verdict { route: self.route, observed, amount, would }
    }

    fn unjudged(&self, scheme: &'static str) -> Verdict {
        let (unknown, asset) = (Would::Unjudged(scheme), self.price.currency.into());
        Verdict {
            route: self.route,
            observed: self.observed(UNKNOWN.into(), self.name.clone(), unknown, asset),
            amount: Units::ZERO,
            would: tally::Would::Unjudged,
        }
    }

    fn observed(&self, account: Arc<str>, agent: Arc<str>, would: Would<'static>, asset: Asset) -> Observed {
        let route = self.core.shared.config.routes[self.route].name.clone();
        Observed { account, agent, route, would, asset }
    }
}

impl Verdict {
    /// Counts the request, whose answer has this status; none where there is no answer.
    fn count(self, core: &Core, status: Option<StatusCode>) {
        let Verdict { route, observed, amount, would } = self;
        let shared = &*core.shared;
        let is_charged = status.is_some_and(|status| shared.config.routes[route].charge_on.charges(status.as_u16()));
        let amount = if is_charged { amount } else { Units::ZERO };
        core.tally.observed(route, would, millionths(core, &observed.asset, amount));
        shared.store.observed(Observation { observed, amount });
    }
}

/// What the gate says.
enum Judged {
    /// It would be free in any mode.
    Free,
    Asked,
    Permitted(Box<Permit>),
    Not(Refusal),
}

/// Asks the gate as a request to a route that enforces does.
async fn ask(
    core: &Rc<Core>,
    route: usize,
    of: &Of,
    presented: Result<Presented, Refusal>,
    headers: &HeaderMap,
) -> Judged {
    let config = &*core.shared.config;
    let visit = match of {
        Of::Call(call) => call.visit(core),
        Of::Page(page) => stack::offer_to(core, route, page.claim).map(|(offer, key)| Visit {
            core,
            scheme: page.scheme,
            target: &page.target,
            route,
            offer,
            key,
            method: &page.method,
            network: page.network,
            signs: false,
            words: Words::Ours,
            is_browser: false,
            is_long: gate::is_long(headers),
            call: None,
        }),
    };
    let Some(visit) = visit else { return Judged::Not(Reason::Internal.into()) };
    if let Some(admitted) = visit.admits(headers).await {
        match admitted {
            Ok(()) => return Judged::Free,
            Err(refusal) if matches!(presented, Ok(Presented::Nothing)) => return Judged::Not(refusal),
            Err(_) => {}
        }
    }
    let presented = match presented {
        Ok(Presented::Nothing) => return Judged::Asked,
        Ok(presented) => presented,
        Err(refusal) => return Judged::Not(visit.noted(refusal)),
    };
    if let (Of::Page(_), Presented::X402(payload)) = (of, &presented)
        && let Err(refusal) = config.exact.identifier.named(payload)
    {
        return Judged::Not(refusal);
    }
    match gate::verdict(&visit, presented, headers).await {
        Err(refusal) => Judged::Not(refusal),
        Ok(permit) => match in_band(&permit, config.routes[route].price) {
            Err(refusal) => Judged::Not(refusal),
            Ok(()) => Judged::Permitted(Box::new(permit)),
        },
    }
}

/// Whether a bid pays the route's price, which stands for the one that the origin would have named.
fn in_band(permit: &Permit, price: Option<Money>) -> Result<(), Refusal> {
    match (&permit.means, price) {
        (Means::Credit { by: Credit::Crawl(Some(bid)), .. }, Some(price)) => bid.pays(price),
        _ => Ok(()),
    }
}

/// What is presented, in a word that no client chooses.
fn scheme_of(presented: &Result<Presented, Refusal>) -> &'static str {
    match presented {
        Ok(Presented::Payment(_)) => deferred::SCHEME,
        Ok(Presented::Crawl(_)) => crawl::SCHEME,
        Ok(Presented::X402(payload)) => match &*payload.scheme {
            batch::SCHEME => batch::SCHEME,
            upto::SCHEME => upto::SCHEME,
            "exact" => "exact",
            _ => "",
        },
        Ok(Presented::Nothing) | Err(_) => "",
    }
}

fn name_of(crawlers: &Crawlers, headers: &HeaderMap) -> Arc<str> {
    let mut lines = headers.get_all(header::USER_AGENT).iter();
    lines.find_map(|line| crawlers.name_in(line.as_bytes())).unwrap_or(OTHER).into()
}

/// Counts itself in a cell of its thread while it lives.
struct Turn(Rc<Core>, fn(&Thread) -> &Cell<usize>);

impl Turn {
    /// `None` where there are so many already.
    fn take(core: &Rc<Core>, most: usize, of: fn(&Thread) -> &Cell<usize>) -> Option<Turn> {
        let count = of(&core.thread);
        if count.get() >= most {
            return None;
        }
        count.set(count.get() + 1);
        Some(Turn(core.clone(), of))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let count = (self.1)(&self.0.thread);
        count.set(count.get().saturating_sub(1));
    }
}
