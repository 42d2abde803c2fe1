//! Whose signatures count, who owes what is bought, and who sells.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    pricing::Crawlers,
    wire::amount::{Money, Units},
};

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `allow`: agents whose directories may be fetched: `https://signer.example.com`, `https://*.example.com`, `any`.
    /// Agents named by accounts are allowed too.
    pub allow: Vec<AgentPattern>,
    /// `crawlers` and `crawlers_ignore`, with the shipped list: whose User-Agent makes a request an agent's.
    pub crawlers: Crawlers,
    /// `skew_seconds` (30, at most 300).
    pub skew: Duration,
    /// `allow_test_keys` (false): accept the published test keys of RFC 9421.
    pub allow_test_keys: bool,
    /// `require_signed_directories` (false): refuse directories that none of their keys has signed.
    pub require_signed_directories: bool,
    /// `ca_file`: PEM roots that replace the built-in ones for directories.
    pub ca_file: Option<PathBuf>,
    /// `fetch_seconds` (3): the whole fetch of a directory.
    pub fetch: Duration,
    /// `directory_bytes` (65536).
    pub directory_bytes: usize,
    /// `directory_keys` (32).
    pub directory_keys: usize,
    /// `directories` (1024): agents kept in memory.
    pub directories: usize,
    /// `[[identity.pins]]`: `agent`, `jwk` (inline table `{ kty = "OKP", crv = "Ed25519", x = "…" }`, or of another kind).
    pub pins: Vec<Pin>,
}

/// Agents that may be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentPattern {
    /// Every `https` agent at a public address.
    Any,
    /// Exactly this origin, normalised: `https://signer.example.com`, `http://127.0.0.1:9000`. Only this form may be plain
    /// HTTP or at a private address, or the URL of a key set: `https://www.example.com/bot/jwks.json`.
    Exact(String),
    /// `https://*.example.com`: any host below; holds `.example.com`.
    Below(String),
}

impl AgentPattern {
    /// How closely it names an agent, if it does; an origin as it stands beats any pattern, and a longer one a shorter.
    pub fn closeness(&self, agent: &str) -> Option<usize> {
        // Patterns admit https only; plain HTTP is for origins that are listed one by one.
        // Of a key set, the host that it is on: whoever blocks a host means all of it, and nobody is let in by this alone.
        let host = agent.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        match self {
            AgentPattern::Exact(origin) => (origin == agent).then_some(usize::MAX),
            AgentPattern::Below(suffix) => host.filter(|host| host.ends_with(suffix.as_str())).map(|_| suffix.len()),
            AgentPattern::Any => host.map(|_| 0),
        }
    }
}

impl fmt::Display for AgentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentPattern::Any => f.write_str("any"),
            AgentPattern::Exact(origin) => f.write_str(origin),
            AgentPattern::Below(suffix) => write!(f, "https://*{suffix}"),
        }
    }
}

/// A key that the operator vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The agent's origin, normalised.
    pub agent: String,
    /// The key: canonical JSON of a JWK that was checked to be usable.
    pub jwk: String,
}

/// `[[accounts]]`: who owes what is bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `name`, unique.
    pub name: Arc<str>,
    /// `agents`, at least one; each belongs to one account. Where patterns overlap, the most specific account wins: exact,
    /// then the longest [`AgentPattern::Below`], then any.
    pub agents: Vec<AgentPattern>,
    /// `credit`, with its currency: `"100 USD"`; nothing of the currency of `prepaid`.
    pub credit: Money,
    /// `prepaid = "USD"`: it buys from what was paid in with `ledger topup`.
    pub prepaid: bool,
    /// `period` (`"month"`).
    pub period: Period,
    /// `allowance` and `allowance_routes`: requests of a period without charge.
    pub allowance: Option<Allowance>,
    /// `[[accounts.prices]]`: what was agreed with it.
    pub prices: Vec<AgreedPrice>,
    /// `blocked` (false): refuse at once.
    pub blocked: bool,
    /// `address`: for its statements, of one or more lines.
    pub address: Option<String>,
}

/// Requests of a period that cost nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many.
    pub requests: Units,
    /// On these routes; on all where there are none.
    pub routes: Vec<Arc<str>>,
}

/// What an account pays for a route instead of its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedPrice {
    /// Names of routes, at least one.
    pub routes: Vec<Arc<str>>,
    /// At most the price of each.
    pub price: Money,
}

/// `[open_accounts]`: agents that `identity.allow` admits and no account names have one of their own, for each registrable
/// domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAccounts {
    /// `credit`: of each, with its currency: `"5 USD"`.
    pub credit: Money,
    /// `total`: of all of them together in a period, in the same currency.
    pub total: Money,
    /// `period` (`"month"`).
    pub period: Period,
    /// `new_per_day` (20): accounts that are opened in a day, UTC, by each process.
    pub new_per_day: u32,
}

impl OpenAccounts {
    /// One of them: `open:example.com`.
    pub fn account(&self, name: impl Into<Arc<str>>) -> Account {
        Account {
            name: name.into(),
            agents: Vec::new(),
            credit: self.credit,
            period: self.period,
            prepaid: false,
            allowance: None,
            prices: Vec::new(),
            blocked: false,
            address: None,
        }
    }
}

/// `[operator]`: who sells, for statements.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// `name`
    pub name: Option<String>,
    /// `address`, of one or more lines.
    pub address: Option<String>,
    /// `email`
    pub email: Option<String>,
}

/// How often credit starts anew, at midnight UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Each day.
    Day,
    /// Each month.
    Month,
}

impl Account {
    /// The limit in ledger units.
    pub fn limit(&self) -> Units {
        self.credit.units
    }

    /// What was agreed for this route, where anything was.
    pub fn price(&self, route: &str) -> Option<Units> {
        let agreed = self.prices.iter().find(|agreed| agreed.routes.iter().any(|name| &**name == route));
        agreed.map(|agreed| agreed.price.units)
    }

    /// How many requests to this route cost nothing in a period; those of other routes may count too.
    pub fn allowance(&self, route: &str) -> Option<Units> {
        let Allowance { requests, routes } = self.allowance.as_ref()?;
        (routes.is_empty() || routes.iter().any(|name| &**name == route)).then_some(*requests)
    }
}
