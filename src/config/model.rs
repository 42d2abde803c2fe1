//! The checked configuration: what the rest of the program reads. Every value here is valid and complete.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    Account, AgentPattern, AgentRule, Charge, ChargeOn, Charging, ConfigErrors, Identity, Listen, OpenAccounts,
    Operator, Scheme, ServerTls, Settle, Then, Trust, Who,
};
use crate::payment::pass::RoutePass;
use crate::{
    ledger::{location::Location, targets::KeepTargets},
    payment::{bazaar::Bazaar, identifier::Mode, token::Token},
    pricing::{Selector, Selectors, Table},
    telemetry::access::{Format, Sink},
    wire::amount::{Asset, Money},
};

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[origin]` (named `default`) and `[origins.NAME]`; never empty, the default one first. `[origins.default]`, or a
    /// single `[origins.NAME]`, stands for `[origin]`.
    pub origins: Vec<Origin>,
    /// `[offers]`
    pub offers: Offers,
    /// `[deferred]`
    pub deferred: Deferred,
    /// `[batch_settlement]`
    pub batch_settlement: BatchSettlement,
    /// `[exact]`
    pub exact: Exact,
    /// `[facilitators.NAME]`, in the file's order.
    pub facilitators: Vec<Facilitator>,
    /// `[identity]`
    pub identity: Identity,
    /// `[[accounts]]`
    pub accounts: Vec<Account>,
    /// `[open_accounts]`; off unless it has `credit` and `total`.
    pub open_accounts: Option<OpenAccounts>,
    /// `[[routes]]`
    pub routes: Vec<Route>,
    /// `[operator]`
    pub operator: Operator,
    /// `[signing]`
    pub signing: Signing,
    /// `[discovery]`: `serve` (`"fallback"`).
    pub discovery: Discovery,
    /// `[mcp]`
    pub mcp: Mcp,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[admin]`
    pub admin: Admin,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// The compiled routes; indices are those of [`Config::routes`].
    pub table: Arc<Table>,
    /// Digest of everything that decides a price: routes, prices, what they sell, the deferred terms.
    pub table_hash: [u8; 32],
    /// What works, but hardly as meant. None of it is fatal.
    pub warnings: Option<ConfigErrors>,
}

/// `[server]`: where and within which limits clients are served.
#[derive(Clone, Debug)]
pub struct Server {
    /// `listen`: where plain HTTP is served. Default `["127.0.0.1:8402"]`.
    pub listen: Vec<Listen>,
    /// `[server.tls]`
    pub tls: Option<ServerTls>,
    /// Who is believed about clients.
    pub trust: Trust,
    /// `public_url`: the origin (scheme and authority) that clients use, `https://example.com`.
    pub public_url: Option<PublicUrl>,
    /// `hosts`: hosts served besides those of `public_url` and of routes. None anywhere: every valid host is served.
    pub hosts: Vec<String>,
    /// `cores`: runtimes, each with its own listener; default one per available core.
    pub cores: usize,
    /// `drain_seconds` (10): how long open exchanges may take after TERM.
    pub drain: Duration,
    /// `drain_delay_seconds` (0): how long connections are still accepted after TERM, while `/readyz` says no.
    pub drain_delay: Duration,
    /// `cors` (true): answer preflights on priced routes, and put CORS fields on answers that the gateway makes.
    pub cors: bool,
    /// `[server.limits]`
    pub limits: Limits,
}

impl Server {
    /// Every place that connections are accepted at.
    pub fn places(&self) -> impl Iterator<Item = &Listen> {
        self.listen.iter().chain(self.tls.iter().flat_map(|tls| &tls.listen))
    }
}

/// Scheme and authority as clients see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// True for `https`.
    pub https: bool,
    /// Lower-case host with port unless it is the scheme's default: `example.com`, `localhost:8402`.
    pub authority: String,
}

/// `[server.limits]`: bounds on what a client may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `header_bytes` (65536, 8192..=1048576): request line and header section; more is 431.
    pub header_bytes: usize,
    /// `header_count` (100, 1..=1000): header lines; more is 431.
    pub header_count: usize,
    /// `url_bytes` (8192, 64..=65536): request target; more is 414.
    pub url_bytes: usize,
    /// `header_seconds` (10): from a request's first byte to the end of its header section.
    pub header: Duration,
    /// `keep_alive_seconds` (75): an idle connection is closed after this.
    pub keep_alive: Duration,
    /// `body_idle_seconds` (15): the longest silence inside a request body.
    pub body_idle: Duration,
    /// `body_min_rate` (500): bytes a second that a request body must average after `body_idle_seconds`; 0 for any.
    pub body_min_rate: u64,
    /// `write_stall_seconds` (30): a client that takes no byte for this long is dropped.
    pub write_stall: Duration,
    /// `tunnel_idle_seconds` (300): a connection that went over to another protocol is closed when nothing moves for this long.
    pub tunnel_idle: Duration,
    /// `tunnel_seconds` (0): and after this long in any case; 0 for never.
    pub tunnel: Duration,
    /// `connections` (16384): open client connections of the process; more are closed at once.
    pub connections: usize,
    /// `failures_per_minute` (60), `failures_burst` (120): of one network, in verifying; more are 429.
    pub failures: Rate,
    /// `agent_requests_per_minute` (0: any), `agent_requests_burst` (100): of one verified agent; more are 429.
    pub agent_requests: Rate,
    /// `requests_in_flight` (4096): requests being served by the process; more are 503.
    pub requests_in_flight: usize,
}

/// How often something may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; 0 for any number.
    pub per_minute: u64,
    /// At once.
    pub burst: u64,
}

/// `[origin]`, `[origins.NAME]`: a server that the gateway forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `default`, or NAME.
    pub name: Arc<str>,
    /// True for `https://`.
    pub https: bool,
    /// `unix:PATH` in `url`: a Unix socket, with HTTP; then `host` is `localhost`.
    pub socket: Option<PathBuf>,
    /// Host of `url`: a name or an IP address (IPv6 without brackets).
    pub host: String,
    /// Port of `url`, or the scheme's default.
    pub port: u16,
    /// `ca_file`: PEM roots that replace the built-in ones for this origin.
    pub ca_file: Option<PathBuf>,
    /// `host_header` (`"client"`): `"client"` passes the client's host on, `"origin"` sends the origin's own authority.
    pub host_header: HostHeader,
    /// `case_insensitive` (false): the origin ignores the case of paths, so routes do too.
    pub case_insensitive: bool,
    /// `connect_seconds` (5).
    pub connect: Duration,
    /// `head_seconds` (60): from the request's last forwarded byte to the origin's head.
    pub head: Duration,
    /// `body_idle_seconds` (300): the longest silence inside an answer.
    pub body_idle: Duration,
    /// `idle_connections` (256): kept open per core.
    pub idle_connections: usize,
    /// `idle_seconds` (60): a kept connection unused for this long is closed.
    pub idle: Duration,
}

/// Which Host the origin receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Client,
    /// The authority of the origin's `url`.
    Origin,
}

/// `[offers]`
#[derive(Clone, Debug)]
pub struct Offers {
    /// `secret_file` (`"tollgate-secret.json"`): made on first run, mode 0600.
    pub secret_file: PathBuf,
    /// `ttl_seconds` (300, 10..=3600): how long an offer stands.
    pub ttl: Duration,
    /// `html` (true): browsers get a page for people.
    pub html: bool,
    /// `origin_prices` (8192): prices that origins have named and that are kept; 0 for none.
    pub origin_prices: usize,
    /// `origin_price_seconds` (300): for how long; 0 for not at all.
    pub origin_price: Duration,
}

/// `[deferred]`
#[derive(Clone, Debug)]
pub struct Deferred {
    /// `network` (`"tollgate:deferred"`): the name under which payments are committed. With a colon (CAIP-2 form) x402 v2
    /// clients can read it.
    pub network: String,
    /// `pay_to` (`"merchant"`).
    pub pay_to: String,
    /// `terms_url`.
    pub terms_url: Option<String>,
    /// `registration_url`: where an unknown agent learns how to get an account.
    pub registration_url: Option<String>,
    /// `window_seconds` (86400, at most that): the longest `expires − created` with an id of ours.
    pub window: Duration,
    /// `require_authority` (false): refuse the proposal's bare `("payment" "signature-agent")`.
    pub require_authority: bool,
    /// `require_path` (false): signatures must cover `@path` or `@target-uri`, and `@method`.
    pub require_path: bool,
    /// `lenient_signature` (true): also read `Signature: sig=BASE64` as the proposal prints it.
    pub lenient_signature: bool,
}

/// `[batch_settlement]`: signed commitments as x402 v2 has them, settled later from the ledger. Terms, registration and what
/// signatures must cover are those of [`Deferred`].
#[derive(Clone, Debug)]
pub struct BatchSettlement {
    /// `network` (`"tollgate:402"`): always CAIP-2, with a colon. `"cloudflare:402"` says that Cloudflare collects the money.
    pub network: String,
    /// `pay_to` (`"merchant"`).
    pub pay_to: String,
}

/// `[exact]`: payments that a facilitator settles on a chain while the request is served.
#[derive(Clone, Debug)]
pub struct Exact {
    /// `[[exact.assets]]`: what it can be paid in, preferred first.
    pub assets: Vec<Arc<Token>>,
    /// `rpc_url` of those that have one: the token's name in the books, and the node.
    pub nodes: Vec<(Asset, String)>,
    /// `sandbox` (false): a built-in facilitator settles on paper; test networks only.
    pub sandbox: bool,
    /// `v1` (true): also offer to clients of x402 v1.
    pub v1: bool,
    /// `verify_seconds` (5): for a facilitator's `/verify`.
    pub verify: Duration,
    /// `settle_seconds` (90): for its `/settle`.
    pub settle: Duration,
    /// `answer_seconds` (30): a client is told to come back if a settlement takes longer.
    pub answer: Duration,
    /// `concurrency` (64): calls to one facilitator at a time.
    pub concurrency: usize,
    /// `body_bytes` (1048576): the longest answer that [`Settle::AfterBody`] waits for, and the longest request body that is
    /// held to be compared with an earlier one.
    pub body_bytes: usize,
    /// `payment_identifier` (`"optional"`): whether clients may name their payments.
    pub identifier: Mode,
    /// `answers_bytes` (16777216): memory for the answers to such payments.
    pub answers_bytes: usize,
}

/// `[facilitators.NAME]`: who verifies and settles `exact`.
#[derive(Clone, Debug)]
pub struct Facilitator {
    /// NAME.
    pub name: Arc<str>,
    /// `url`, without a slash at its end: `https://x402.org/facilitator`.
    pub url: String,
    /// `auth_file`: holds the value of `Authorization`.
    pub auth_file: Option<PathBuf>,
    /// `ca_file`: PEM roots that replace the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// `idempotent` (false): a second `/settle` of one payment is safe and says what became of the first.
    pub idempotent: bool,
}

/// `[[routes]]`
#[derive(Clone, Debug)]
pub struct Route {
    /// `name`, unique; default the host and path as written, with the methods in front where two would be equal.
    pub name: Arc<str>,
    /// `host`, lower case, without port: only requests to it. None: any host.
    pub host: Option<String>,
    /// `path`: `/a/b` (priced, also `/a/b/` unless that has a route), `/a/*` (also `/a`, `/a/`), `/users/{id}/posts`.
    pub path: String,
    /// `methods`: upper case; empty for all. GET stands for HEAD too.
    pub methods: Vec<String>,
    /// `tool`, `prompt`, `resource`: what of an MCP server it sells. None: everything at its path.
    pub selector: Option<Selector>,
    /// `price`, required: `"0.01 USD"` (never zero), or `"free"` (None).
    pub price: Option<Money>,
    /// `origin_price` (false): the origin may name another price, in `crawler-price` of its answer.
    pub origin_price: bool,
    /// `accept` (`["deferred"]`): schemes that pay for it, preferred first.
    pub accept: Vec<Scheme>,
    /// `[[routes.agents]]`: what single agents get.
    pub agents: Vec<AgentRule>,
    /// `pass` (`"24h"`, `100`, `"sold"`) and `pass_for` (`"resource"`): what a purchase is good for besides.
    pub pass: Option<RoutePass>,
    /// Some account has agreed on another price ([`AgreedPrice`](super::AgreedPrice)).
    pub has_agreed_prices: bool,
    /// `charge` (`"everyone"`): who pays.
    pub charge: Charge,
    /// `mode` (that of `[server]`, `"enforce"`): whether its price is asked for.
    pub mode: Charging,
    /// `settle` (`"on_head"`): when `exact` and `upto` are settled.
    pub settle: Settle,
    /// `description`, for offers.
    pub description: Option<String>,
    /// `mime_type`, for offers.
    pub mime_type: Option<String>,
    /// `discoverable` (true): listed in the gateway's documents.
    pub discoverable: bool,
    /// `bazaar`: how it is asked for.
    pub bazaar: Option<Bazaar>,
    /// `origin`: index into [`Config::origins`].
    pub origin: usize,
    /// `charge_on` (`[200..=299]`): statuses that are charged; written `["2xx"]`, `[200, 206]`. Never 304 or an error.
    pub charge_on: ChargeOn,
    /// `allow_method_override` (false): pass X-HTTP-Method-Override, X-HTTP-Method and X-Method-Override on. Free routes only,
    /// whose path has no price for another method; fields that override the URL are always removed.
    pub allow_method_override: bool,
}

impl Route {
    /// Whether it has a price that nobody pays yet: what would have followed is counted.
    pub fn observes(&self) -> bool {
        self.price.is_some() && self.mode == Charging::Observe
    }

    /// The agents that have it free, once they have proven who they are.
    pub fn admitted(&self) -> impl Iterator<Item = &AgentPattern> {
        let free = self.agents.iter().filter(|rule| rule.then == Then::Allow);
        free.filter_map(|rule| match &rule.who {
            Who::Agent(pattern) => Some(pattern),
            _ => None,
        })
    }
}

/// `[mcp]`, and the paths at which MCP servers sell.
#[derive(Clone, Debug)]
pub struct Mcp {
    /// `signal` (`"tool_result"`): how a payment is asked for.
    pub signal: Signal,
    /// `structured` (true): offers stand in `structuredContent`, too.
    pub structured: bool,
    /// `request_bytes` (1048576): of a POST's body; more is 413.
    pub request_bytes: usize,
    /// `answer_bytes` (4194304): of a JSON answer or an event that is held.
    pub answer_bytes: usize,
    /// What is sold at each of these paths.
    pub endpoints: Vec<Selectors>,
    /// The path of each route, by the route's index; an index into `endpoints`.
    pub endpoint_of: Vec<Option<usize>>,
}

/// How an MCP client is asked for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// By the result of its call.
    ToolResult,
    /// By HTTP's 402, as on any route.
    Http402,
}

impl Mcp {
    /// What is sold at the path of a route, if it is an MCP server's.
    pub fn endpoint(&self, route: usize) -> Option<&Selectors> {
        self.endpoints.get((*self.endpoint_of.get(route)?)?)
    }
}

/// `[signing]`: the gateway's own key, and what it signs.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// `key_file`: a private JWK, made on the first run. None: nothing is signed.
    pub key_file: Option<PathBuf>,
    /// `offers` (false): each entry of an offer.
    pub offers: bool,
    /// `receipts` (true): a receipt for each payment of x402.
    pub receipts: bool,
    /// `transaction` (false): receipts name it.
    pub transaction: bool,
}

/// Who answers at the paths of the gateway's documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The origin; the gateway where the origin has nothing.
    #[default]
    Fallback,
    /// The gateway.
    Always,
    /// The origin.
    Off,
}

/// `[ledger]`
#[derive(Clone, Debug)]
pub struct Ledger {
    /// `url` (`"sqlite:tollgate.sqlite"`), with `password_file` and `ca_file`: where it is.
    pub location: Location,
    /// `zone` (`"UTC"`): the IANA zone of book days; fixed when the ledger is made.
    pub zone: String,
    /// `keys_max` (8000000): payments remembered above the replay floor; a full memory answers 503.
    pub keys_max: usize,
    /// `queue_max` (8192): captures waiting for the disk; more answer 503.
    pub queue_max: usize,
    /// `dispute_days` (30): for so long after a charge it may be disputed.
    pub dispute_days: u32,
    /// `voids_per_day` (1000): charges of an account that the gateway reverses by itself on one book day.
    pub voids_per_day: u32,
    /// `disputes_per_day` (100): charges of an account that its agents may contest by themselves in a day, UTC; 0: none.
    pub disputes_per_day: u32,
    /// `keep_targets` (`"full"`): what of the URL that was bought stands beside its digest.
    pub keep_targets: KeepTargets,
    /// `sync` (true). False loses the last payments with the machine's power: for measurements only.
    pub sync: bool,
}

/// `[telemetry]`
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// `log` (`"info"`): a `tracing` filter.
    pub log: String,
    /// `format` (`"text"`).
    pub json: bool,
    /// `access_log`, `access_format`: a line for each request.
    pub access: Option<Access>,
}

/// A line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `access_log`: `stdout`, `stderr` or a file.
    pub sink: Sink,
    /// `access_format` (`"json"`).
    pub format: Format,
}

/// `[admin]`: where the gateway tells how it is. Not for clients.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// `listen`: as `server.listen`; nowhere by default.
    pub listen: Vec<Listen>,
    /// `token_file`: holds the token that reads the counts.
    pub token_file: Option<PathBuf>,
}
