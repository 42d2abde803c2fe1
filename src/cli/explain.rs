//! `tollgate check --explain METHOD URL`: which route a request takes, what it costs, and why that one.

use std::fmt::Write as _;

use http::{Request, Uri};

use super::check::{accepts, pass_text, price_text};
use crate::config::{Charge, Config, Period, Route, Then, Who};
use crate::pricing::{Found, RouteSpec, Site, Table};
use crate::proxy::account;
use crate::proxy::target::Target;
use crate::wire::amount::Money;

/// What to print, and whether the request would be served at all.
pub(super) fn explain(config: &Config, method: &str, url: &str) -> Result<(String, bool), String> {
    let (target, https) = target(config, url)?;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {name:<10} {text}");
    };
    let target = match target {
        Ok(target) => target,
        Err(refusal) => {
            line("answer", format!("{} {}: {}", refusal.reason.status(), refusal.reason.code(), refusal.detail));
            return Ok((format!("{method} {url}\n{out}"), false));
        }
    };
    line("host", target.authority().to_owned());
    line("path", target.path().to_owned());
    if config.server.public_url.is_none() {
        line("seen as", format!("{}, since no server.public_url says otherwise", if https { "https" } else { "http" }));
    }
    if account::is_wanted(config, &target) {
        line("answer", "the gateway's own: what an agent has bought, and owes; signed, never the origin's".to_owned());
        return Ok((format!("{method} {url}\n{out}"), true));
    }
    let served = match config.table.find(target.host(), target.path(), method) {
        Found::UnknownHost => {
            line(
                "answer",
                "421 misdirected_host: neither server.hosts, public_url nor a route names this host".to_owned(),
            );
            false
        }
        Found::MethodNotAllowed(allow) => {
            line("answer", format!("405 method_not_allowed: the route of this path takes {allow}"));
            false
        }
        Found::AlwaysFree => {
            line("price", "free: such a path is never priced by a wildcard".to_owned());
            line("origin", origin(config, 0));
            true
        }
        Found::Free => {
            line("price", "free: no route matches".to_owned());
            line("origin", origin(config, 0));
            true
        }
        Found::Route(index) => {
            for (name, text) in route(config, &target, method, index) {
                line(name, text);
            }
            true
        }
    };
    Ok((format!("{method} {url}\n{out}"), served))
}

type Refused = crate::payment::reason::Refusal;

/// The target as the proxy reads it, and whether it came by HTTPS.
fn target(config: &Config, url: &str) -> Result<(Result<Target, Refused>, bool), String> {
    let expected = || format!("expected a URL such as `https://example.com/page?q=1`, found `{}`", url.escape_debug());
    let uri: Uri = url.parse().map_err(|e| format!("{}: {e}", expected()))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(expected()) };
    if !matches!(scheme, "http" | "https") {
        return Err(expected());
    }
    let https = config.server.public_url.as_ref().map_or(scheme == "https", |url| url.https);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("host", authority.as_str()).body(()).map_err(|e| e.to_string())?;
    let strict = |host: &str| config.table.has_priced(host);
    Ok((Target::of(&request, https, config.server.limits.url_bytes, strict), https))
}

fn route(config: &Config, target: &Target, method: &str, index: usize) -> Vec<(&'static str, String)> {
    let found = &config.routes[index];
    let mut lines = vec![("route", named(found))];
    let price = match found.price {
        Some(price) => format!("{price}{}", accepts(config, found)),
        None => "free: the route says so".to_owned(),
    };
    lines.push(("price", price));
    if found.observes() {
        let what = "OBSERVE: everybody passes free; what would have followed is counted (`tollgate ledger observed`)";
        lines.push(("mode", what.to_owned()));
    }
    if let Some(open) = config.open_accounts.filter(|_| found.accept.iter().any(|scheme| !scheme.is_token())) {
        let each = match open.period {
            Period::Day => "day",
            Period::Month => "month",
        };
        lines.push((
            "on credit",
            format!(
                "accounts of the configuration; any other agent that identity.allow admits, up to {} a {each} and {} together",
                open.credit, open.total
            ),
        ));
    }
    if found.charge == Charge::Agents {
        let who = "agents: whoever pays or signs, has a crawler's User-Agent, or none; people pass free";
        lines.push(("for", who.to_owned()));
    }
    for rule in &found.agents {
        let (whom, then) = match (&rule.who, rule.then) {
            (Who::Agent(_), Then::Price(price)) => ("proven", format!("pay {price}")),
            (_, Then::Price(price)) => ("claimed", format!("pay {price} or the price, whichever is more")),
            (who, Then::Allow) => (kind(who), "pass free".to_owned()),
            (who, Then::Block) => (kind(who), "are refused".to_owned()),
        };
        lines.push(("but", format!("{} ({whom}) {then}", rule.name())));
    }
    if let Some(pass) = &found.pass {
        lines.push(("pass", format!("{}: the agent that paid has it without charge, by a signature", pass_text(pass))));
    }
    for account in &config.accounts {
        if let Some(units) = account.price(&found.name) {
            let own = price_text(Money { units, ..account.credit });
            lines.push(("but", format!("{} (account) pays {own}", account.name)));
        }
        if let Some(requests) = account.allowance(&found.name).filter(|_| found.price.is_some()) {
            let of = format!("{} requests a {}", requests.get(), super::check::period(account.period));
            lines.push(("but", format!("{} (account) has {of} without charge", account.name)));
        }
    }
    // Alone, each of them would be the one.
    let others: Vec<String> = (0..config.routes.len())
        .filter(|other| *other != index && config.routes[*other].selector.is_none())
        .filter(|other| matches_alone(config, *other, target, method))
        .map(|other| named(&config.routes[other]))
        .collect();
    let why = if others.is_empty() {
        "no other route matches".to_owned()
    } else {
        format!("more specific than {}", others.join(", "))
    };
    lines.push(("why", why));
    if config.mcp.endpoint(index).is_some() {
        lines.push((
            "sells",
            "what the calls of an MCP server name: see the routes with `tool`, `prompt` or `resource`".to_owned(),
        ));
    }
    lines.push(("origin", origin(config, found.origin)));
    lines
}

fn kind(who: &Who) -> &'static str {
    match who {
        Who::Agent(_) => "proven",
        Who::UserAgent(_) => "claimed",
        Who::Addresses(_) => "from there",
    }
}

fn named(route: &Route) -> String {
    let methods = if route.methods.is_empty() { "any method".to_owned() } else { route.methods.join(",") };
    format!("`{}` ({methods} {}{})", route.name, route.host.as_deref().unwrap_or("any host "), route.path)
}

fn origin(config: &Config, index: usize) -> String {
    let origin = &config.origins[index];
    format!("{} = {}", origin.name, super::check::origin_url(origin))
}

/// Whether this route would be the one if there were no other.
fn matches_alone(config: &Config, index: usize, target: &Target, method: &str) -> bool {
    let route = &config.routes[index];
    let spec = RouteSpec {
        index,
        host: route.host.clone(),
        path: route.path.clone(),
        methods: route.methods.iter().map(ToString::to_string).collect(),
        priced: route.price.is_some(),
        case_insensitive: config.origins[route.origin].case_insensitive,
    };
    let table = Table::compile(&[spec], &Site { hosts: Vec::new(), case_insensitive: false });
    table.is_ok_and(|table| matches!(table.find(target.host(), target.path(), method), Found::Route(_)))
}
