//! What one core works with. Everything mutable here belongs to the core alone; what is shared is read-only.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::account::Disputes;
use super::answers::Answers;
use super::gate::Opened;
use super::origin::OriginPool;
use super::prices::Prices;
use super::rates::Buckets;
use super::sales::Sales;
use super::ticker::Ticker;
use crate::clock::Clock;
use crate::config::{AgentPattern, AgentRule, Config, Route, Scheme, Then};
use crate::facilitator::Facilitators;
use crate::identity::{Keys, guard::Policy};
use crate::ledger::store::Store;
use crate::ledger::views::Views;
use crate::payment::batch::BatchTerms;
use crate::payment::catalogue::{Catalogue, Listing};
use crate::payment::gateway_key::GatewayKey;
use crate::payment::identifier::Mode;
use crate::payment::offer::{DeferredTerms, Forms, PreparedOffer, Sold, Way};
use crate::payment::quoted::RouteKey;
use crate::payment::secrets::Secrets;
use crate::payment::signed::Rules;
use crate::payment::terms::Terms;
use crate::telemetry::Telemetry;
use crate::telemetry::tally::{Gauges, RouteName, Tally};
use crate::wire::agent_url::AgentUrl;
use crate::wire::amount::Money;
use crate::wire::mcp::Kind;

/// What all cores share: one immutable snapshot, and handles to the control thread and the books.
pub struct Shared {
    /// The checked configuration, with its route table.
    pub config: Arc<Config>,
    /// The offer of each route that has a price, by the route's index.
    pub offers: Vec<Option<PreparedOffer>>,
    /// The offers of each route to those who claim to be somebody dearer: by the route's index, then by the rule's.
    pub claimed: Vec<Vec<Option<ClaimedOffer>>>,
    /// Each route without its price, by its index.
    pub route_keys: Vec<RouteKey>,
    /// Each route as it is counted, by its index.
    pub route_names: Arc<[RouteName]>,
    /// What is sold, for machines.
    pub catalogue: Catalogue,
    /// The gateway's own key, if it has one.
    pub key: Option<GatewayKey>,
    /// Keys that seal and open ids.
    pub secrets: Secrets,
    /// Terms whose offers may still be paid; empty until the books have told of earlier ones and hold ours. Exchanged when
    /// another gateway over the same books makes new ones.
    pub terms: OnceLock<RwLock<Arc<Terms>>>,
    /// Until then a priced request waits for books that are not open, Unix ms of this process: a new process takes them over
    /// from one that is ending.
    pub awaited_until_ms: u64,
    /// What signatures must fulfil.
    pub rules: Rules,
    /// Which account an agent belongs to.
    pub accounts: Accounts,
    /// Who else may open an account of its own.
    pub may_open: Policy,
    /// Those that have.
    pub opened: Arc<Opened>,
    /// The keys of agents.
    pub keys: Keys,
    /// What did not verify, by network.
    pub failures: Buckets,
    /// Requests of verified agents, by agent.
    pub agent_requests: Buckets,
    /// Prices that origins have named.
    pub prices: Prices,
    /// Who verifies and settles token payments.
    pub facilitators: Facilitators,
    /// The books.
    pub store: Arc<dyn Store>,
    /// The books, read for agents.
    pub views: Arc<Views>,
    /// What agents have contested today.
    pub disputes: Arc<Disputes>,
    /// Answers to payments that their clients have named.
    pub answers: Arc<Answers>,
    /// What the gateway says about itself.
    pub telemetry: Arc<Telemetry>,
    /// Time.
    pub clock: Clock,
}

/// An offer to those of one rule of a route.
pub struct ClaimedOffer {
    /// The offer.
    pub offer: PreparedOffer,
    /// What x402 v1 knows it by.
    pub key: RouteKey,
}

/// Agents → accounts (indexes into the configuration).
#[derive(Debug, Default)]
pub struct Accounts {
    exact: HashMap<String, usize>,
    below: Vec<(String, usize)>,
    any: Option<usize>,
}

/// A core with the configuration of the moment: what a request is served by from its beginning to its end.
pub struct Core {
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// A pool for each origin.
    pub pools: Vec<Rc<OriginPool>>,
    /// The most requests that may be served at a time.
    pub in_flight_max: usize,
    /// The most connections that may be open.
    pub connections_max: usize,
    /// Counts of what is served by it.
    pub tally: Arc<Tally>,
    /// What stays, whatever the configuration.
    pub thread: Rc<Thread>,
}

/// What belongs to a core's thread.
pub struct Thread {
    /// Deadlines.
    pub ticker: Rc<Ticker>,
    /// What is open: connections, requests being served, exchanges of paid requests, of which some outlive their connection.
    pub open: Gauges,
    /// Observed requests about which the gate is being asked, and those that are not counted yet: the drain waits for them.
    pub judging: Cell<usize>,
    /// See `judging`.
    pub uncounted: Cell<usize>,
    /// What needs the books.
    pub sales: Rc<Sales>,
    /// True once the gateway drains: connections end after their answer.
    pub draining: Cell<bool>,
    /// Told when `draining` becomes true.
    pub drain: tokio::sync::Notify,
    random: RefCell<Random>,
    /// What new requests are served by; none once the core has stopped.
    current: RefCell<Option<Rc<Core>>>,
}

/// Random bytes from the system, fetched a page at a time.
struct Random {
    bytes: Vec<u8>,
    used: usize,
}

impl Shared {
    /// The live terms, once priced routes may be served.
    pub fn terms(&self) -> Option<Arc<Terms>> {
        self.terms.get().map(|terms| terms.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The live terms are known: priced routes may be served.
    pub fn open_with(&self, terms: Terms) {
        let terms = Arc::new(terms);
        let known = self.terms.get_or_init(|| RwLock::new(terms.clone()));
        *known.write().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    /// Whether a priced request may be served now: no lock is taken.
    pub fn is_open(&self) -> bool {
        self.terms.get().is_some() && self.store.is_open()
    }

    /// The offers that a configuration makes, by route.
    pub fn offers_of(config: &Config) -> Vec<Option<PreparedOffer>> {
        config.routes.iter().map(|route| Some(Shared::offer_of(config, route, route.price?, None))).collect()
    }

    /// The offers that it makes to those who claim to be somebody dearer.
    pub fn claimed_of(config: &Config) -> Vec<Vec<Option<ClaimedOffer>>> {
        let claimed = |route: &Route, rule: &AgentRule| {
            let Then::Price(own) = rule.then else { return None };
            let (public, class) = (route.price?, rule.class());
            (own.units > public.units).then(|| ClaimedOffer {
                offer: Shared::offer_of(config, route, own, Some(&class)),
                key: route_key(route, &class),
            })
        };
        config.routes.iter().map(|route| route.agents.iter().map(|rule| claimed(route, rule)).collect()).collect()
    }

    /// The offer of a route at a price, to everybody or to a class.
    fn offer_of(config: &Config, route: &Route, price: Money, class: Option<&str>) -> PreparedOffer {
        let terms = DeferredTerms {
            network: config.deferred.network.clone(),
            pay_to: config.deferred.pay_to.clone(),
            terms_url: config.deferred.terms_url.clone().unwrap_or_default(),
        };
        let batch = BatchTerms {
            network: config.batch_settlement.network.clone(),
            pay_to: config.batch_settlement.pay_to.clone(),
            terms_url: terms.terms_url.clone(),
            registration_url: config.deferred.registration_url.clone().unwrap_or_default(),
        };
        let ttl = config.offers.ttl.as_secs();
        let tokens = || config.exact.assets.iter().filter(|token| token.currency == price.currency);
        let ways = route.accept.iter().flat_map(|scheme| match scheme {
            Scheme::Deferred => vec![Way::Deferred(terms.clone())],
            Scheme::BatchSettlement => vec![Way::Batch(batch.clone())],
            Scheme::Crawl => vec![Way::Crawl],
            Scheme::Exact => tokens().cloned().map(Way::Exact).collect(),
            Scheme::Upto => tokens().filter(|token| token.facilitator.is_some()).cloned().map(Way::Upto).collect(),
        });
        let ways: Vec<Way> = ways.collect();
        let listing = listing(route, Vec::new());
        let pass = route.pass.as_ref().and_then(|pass| pass.offers);
        let takes_tokens = route.accept.iter().any(|scheme| scheme.is_token());
        let sold = Sold {
            description: route.description.as_deref(),
            mime_type: route.mime_type.as_deref(),
            bazaar: route.bazaar.as_ref().map(|bazaar| (bazaar, listing.asked())),
            // Calls are not looked up by name: their ids are their own.
            identifier: if takes_tokens && route.selector.is_none() { config.exact.identifier } else { Mode::Off },
            pass,
            class,
        };
        let forms = Forms { v1: config.exact.v1, signed: config.signing.offers };
        PreparedOffer::new(price, ttl, &ways, forms, sold)
    }

    /// The routes of a configuration without their prices.
    pub fn route_keys_of(config: &Config) -> Vec<RouteKey> {
        let sold = |route: &Route| route.selector.as_ref().map_or_else(String::new, ToString::to_string);
        config.routes.iter().map(|route| route_key(route, &sold(route))).collect()
    }

    /// The offers of a route to whoever asks, with what x402 v1 knows them by.
    pub fn quoted(&self) -> impl Iterator<Item = (&PreparedOffer, &RouteKey)> {
        let public = self.offers.iter().zip(&self.route_keys).filter_map(|(offer, key)| Some((offer.as_ref()?, key)));
        public.chain(self.claimed.iter().flatten().flatten().map(|claimed| (&claimed.offer, &claimed.key)))
    }

    /// The routes of a configuration as they are counted.
    pub fn route_names_of(config: &Config) -> Arc<[RouteName]> {
        let currency = |route: &Route| route.price.map(|price| Arc::from(price.currency.to_string()));
        config.routes.iter().map(|route| RouteName { name: route.name.clone(), currency: currency(route) }).collect()
    }

    /// What a configuration lists for machines, as of `now` (Unix seconds); `offers` are those that it makes.
    pub fn catalogue_of(config: &Config, offers: &[Option<PreparedOffer>], now: u64) -> Catalogue {
        // Of MCP servers, tools with a name of their own: catalogues have no other form.
        let has_form = |route: &Route| route.selector.as_ref().is_none_or(|s| s.kind == Kind::Tool && !s.prefix);
        // What is only observed costs nothing yet.
        let listed = |route: &Route| route.discoverable && !route.observes() && has_form(route);
        let routes = config.routes.iter().zip(offers).filter(|(route, _)| listed(route));
        let listings = routes.filter_map(|(route, offer)| Some(listing(route, offer.as_ref()?.accepts())));
        Catalogue::new(&listings.collect::<Vec<_>>(), now)
    }
}

/// A route without its price; `part` is what it sells of an MCP server, or to whom.
fn route_key(route: &Route, part: &str) -> RouteKey {
    RouteKey::new(route.host.as_deref(), &route.path, &route.methods, part)
}

fn listing<'r>(route: &'r Route, accepts: Vec<&'r serde_json::Value>) -> Listing<'r> {
    Listing {
        host: route.host.as_deref(),
        path: &route.path,
        methods: &route.methods,
        tool: route.selector.as_ref().map(|selector| &*selector.name),
        description: route.description.as_deref(),
        mime_type: route.mime_type.as_deref(),
        bazaar: route.bazaar.as_ref(),
        accepts,
    }
}

impl Accounts {
    /// The accounts of a configuration, which has made sure that no agent belongs to two.
    pub fn of(config: &Config) -> Accounts {
        let mut accounts = Accounts::default();
        for (i, account) in config.accounts.iter().enumerate() {
            for agent in &account.agents {
                match agent {
                    AgentPattern::Exact(origin) => _ = accounts.exact.insert(origin.clone(), i),
                    AgentPattern::Below(suffix) => accounts.below.push((suffix.clone(), i)),
                    AgentPattern::Any => accounts.any = Some(i),
                }
            }
        }
        // The longest suffix is the most specific.
        accounts.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        accounts
    }

    /// The account of an agent, if it has one.
    pub fn find(&self, agent: &AgentUrl) -> Option<usize> {
        let text = agent.to_string();
        if let Some(account) = self.exact.get(&text) {
            return Some(*account);
        }
        // Patterns admit https only, and whole hosts; plain HTTP and key sets are for accounts that list them one by one.
        let host = text.strip_prefix("https://").filter(|_| agent.key_set().is_none())?;
        let below = self.below.iter().find(|(suffix, _)| host.ends_with(suffix.as_str()));
        below.map(|(_, account)| *account).or(self.any)
    }
}

impl Core {
    /// A core over a snapshot.
    pub fn new(shared: Arc<Shared>, pools: Vec<Rc<OriginPool>>, thread: Rc<Thread>) -> Rc<Core> {
        let cores = shared.config.server.cores.max(1);
        let limits = &shared.config.server.limits;
        Rc::new(Core {
            in_flight_max: limits.requests_in_flight.div_ceil(cores),
            connections_max: limits.connections.div_ceil(cores),
            tally: shared.telemetry.tallies.add(&shared.route_names),
            shared,
            pools,
            thread,
        })
    }
}

impl Thread {
    /// A thread that serves nothing yet.
    pub fn new() -> Rc<Thread> {
        Rc::new(Thread {
            ticker: Ticker::new(),
            open: Gauges::default(),
            judging: Cell::new(0),
            uncounted: Cell::new(0),
            sales: Rc::default(),
            draining: Cell::new(false),
            drain: tokio::sync::Notify::new(),
            random: RefCell::new(Random { bytes: vec![0; 4096], used: 4096 }),
            current: RefCell::new(None),
        })
    }

    /// What a request that comes now is served by.
    pub fn core(&self) -> Option<Rc<Core>> {
        self.current.borrow().clone()
    }

    /// New requests are served by this from now on; those under way stay with what they began with.
    pub fn serve_by(&self, core: Option<Rc<Core>>) {
        // Dropped behind the borrow: it may be the last that holds its connections.
        let before = self.current.replace(core);
        drop(before);
    }

    /// Fresh random bytes; `None` if the system has none to give.
    pub fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut random = self.random.borrow_mut();
        if random.used + N > random.bytes.len() {
            getrandom::fill(&mut random.bytes).ok()?;
            random.used = 0;
        }
        let used = random.used;
        let mut out = [0; N];
        out.copy_from_slice(&random.bytes[used..used + N]);
        random.bytes[used..used + N].fill(0);
        random.used += N;
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_belongs_to_the_account_that_lists_it_alone() {
        let accounts = Accounts {
            exact: [("https://a.example.com".to_owned(), 0), ("https://a.example.com/keys".to_owned(), 1)].into(),
            below: vec![(".example.com".to_owned(), 2)],
            any: Some(3),
        };
        for (agent, account) in [
            ("https://a.example.com", Some(0)),
            ("https://a.example.com/keys", Some(1)),
            ("https://a.example.com/other", None),
            ("https://b.example.com", Some(2)),
            ("https://b.example.com/keys", None),
            ("https://elsewhere.example/b.example.com", None),
            ("https://elsewhere.example", Some(3)),
        ] {
            assert_eq!(accounts.find(&AgentUrl::parse_agent(agent).unwrap()), account, "{agent}");
        }
    }
}
