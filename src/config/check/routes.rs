//! `[[routes]]`, and the table that they compile to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::discovery;
use crate::{
    config::{
        Account, Charge, ChargeOn, Charging, Deferred, Mcp, Origin, Route, Scheme, Server, Settle,
        read::Section,
        walk::{nearest, quote},
    },
    pricing::{Field, HostPattern, RouteSpec, Site, Table},
    wire::amount::{Money, Units},
};

/// Longest description in an offer, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 500;
/// Longest MIME type, in bytes.
const MIME_BYTES_MAX: usize = 100;
/// Longest name that a route is given, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Schemes of this version, as the file names them.
const SCHEMES: [(&str, Scheme); 5] = [
    ("deferred", Scheme::Deferred),
    ("batch-settlement", Scheme::BatchSettlement),
    ("crawl", Scheme::Crawl),
    ("exact", Scheme::Exact),
    ("upto", Scheme::Upto),
];

pub(super) fn routes(root: &Section<'_>, origins: Option<&[Origin]>) -> Option<Vec<Route>> {
    let sections = root.list("routes");
    let usual = mode_of(&root.section("server"));
    let routes: Vec<Option<Route>> = sections.iter().map(|section| route(section, origins, usual)).collect();
    let mut routes: Vec<Route> = routes.into_iter().collect::<Option<_>>()?;
    name_routes(root, &sections, &mut routes);
    Some(routes)
}

fn route(section: &Section<'_>, origins: Option<&[Origin]>, usual: Charging) -> Option<Route> {
    let price = section.text("price").and_then(|text| price(section, text));
    let priced = matches!(price, Some(Some(_)));
    let accept = accept(section, priced);
    let agents = super::rules::rules(section, price.flatten(), accept.as_deref().unwrap_or_default());
    let pass = super::passes::pass(section, priced, accept.as_deref().unwrap_or_default());
    let description = section.text("description").filter(|text| {
        if text.len() > DESCRIPTION_BYTES_MAX {
            let message = format!("expected at most {DESCRIPTION_BYTES_MAX} bytes, found {}", text.len());
            section.complain("description", message, None);
        } else if text.chars().any(char::is_control) {
            section.complain("description", "expected one line without control characters", None);
        }
        true
    });
    let mime_type = section.text("mime_type").filter(|text| {
        if !is_mime(text) {
            let message = format!("expected a MIME type such as `text/html`, found `{}`", quote(text));
            section.complain("mime_type", message, None);
        }
        true
    });
    let origin = match (section.text("origin"), origins) {
        (None, _) => Some(0),
        (Some(_), None) => None,
        (Some(name), Some(origins)) => origins.iter().position(|origin| &*origin.name == name).or_else(|| {
            let names = origins.iter().map(|origin| &*origin.name);
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `\"{near}\"`?"),
                None => format!("there are {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            };
            section.complain("origin", format!("no origin is named `{}`", quote(name)), Some(help));
            None
        }),
    };
    let charge_on = charge_on(section);
    let selector = super::mcp::selector(section);
    let allow_method_override = section.flag("allow_method_override");
    if allow_method_override && priced {
        let help = "remove it, or put it on a route with `price = \"free\"`".to_owned();
        section.complain("allow_method_override", "another method could be had for this price", Some(help));
    }
    let host = section.text("host").map(|text| match HostPattern::parse(text) {
        Ok(HostPattern::Below(suffix)) => format!("*{suffix}"),
        Ok(HostPattern::Exact(name)) => name,
        // The table complains.
        Ok(HostPattern::Any) | Err(_) => text.to_owned(),
    });
    let path = section.text("path");
    let methods: Vec<String> = section.texts("methods").into_iter().map(|(_, text)| text.to_owned()).collect();
    let bazaar = discovery::bazaar(&section.section("bazaar"), &methods, section.has("tool"));
    Some(Route {
        name: Arc::from(section.text("name").unwrap_or_default()),
        host,
        path: path?.to_owned(),
        methods,
        selector: selector?,
        price: price?,
        origin_price: origin_price(section, priced),
        agents: agents?,
        pass: pass?,
        has_agreed_prices: false,
        accept: accept?,
        charge: charge(section, priced),
        mode: mode(section, priced, usual),
        settle: match section.text("settle") {
            Some("first") => Settle::First,
            Some("after_body") => Settle::AfterBody,
            _ => Settle::OnHead,
        },
        description: description.map(str::to_owned),
        mime_type: mime_type.map(str::to_owned),
        discoverable: section.flag("discoverable"),
        bazaar: bazaar?,
        origin: origin?,
        charge_on: charge_on?,
        allow_method_override,
    })
}

fn charge(section: &Section<'_>, priced: bool) -> Charge {
    if section.text("charge") != Some("agents") {
        return Charge::Everyone;
    }
    if !priced {
        let help = "remove it, or give the route a `price`".to_owned();
        section.complain("charge", "nobody pays for a free route", Some(help));
    } else if super::mcp::sells_part(section) {
        let help = "remove it: whoever calls pays".to_owned();
        section.complain("charge", "only agents call an MCP server", Some(help));
    }
    Charge::Agents
}

/// Whether a section says that prices are asked for.
fn mode_of(section: &Section<'_>) -> Charging {
    if section.text("mode") == Some("observe") { Charging::Observe } else { Charging::Enforce }
}

fn mode(section: &Section<'_>, priced: bool, usual: Charging) -> Charging {
    if !section.has("mode") {
        return usual;
    }
    // A price that can't be read is complained about already.
    if section.text("price") == Some("free") && !priced {
        let help = "remove it, or give the route a `price`".to_owned();
        section.complain("mode", "a free route asks for nothing", Some(help));
    }
    mode_of(section)
}

fn price(section: &Section<'_>, text: &str) -> Option<Option<Money>> {
    if text == "free" {
        return Some(None);
    }
    if text.eq_ignore_ascii_case("free") || text == "0" {
        section.complain("price", format!("found `{}`", quote(text)), Some("write `\"free\"`".to_owned()));
        return None;
    }
    match Money::parse(text) {
        Ok(money) if money.units == Units::ZERO => {
            section.complain("price", "a price of nothing", Some("write `\"free\"`".to_owned()));
            None
        }
        Ok(money) => Some(Some(money)),
        Err(error) => {
            let usd = Money::parse(&format!("{} USD", text.trim_start_matches('$')));
            let help = usd.ok().map(|_| format!("write `\"{} USD\"`", text.trim_start_matches('$')));
            section.complain("price", error.to_string(), help);
            None
        }
    }
}

/// A price that is known when the origin has answered can't be offered before, and must not cost its effects.
fn origin_price(section: &Section<'_>, priced: bool) -> bool {
    let wanted = section.flag("origin_price");
    let complain = |message: &str, help: &str| section.complain("origin_price", message, Some(help.to_owned()));
    let schemes = section.texts("accept");
    let methods = section.texts("methods");
    if wanted && !priced {
        complain("a free route has no price to name", "give it a `price`: what costs when the origin names none");
    } else if wanted && !(schemes.len() == 1 && schemes[0].1 == "crawl") {
        complain("only pay per crawl asks for the price so", "write `accept = [\"crawl\"]`");
    } else if wanted && (methods.is_empty() || methods.iter().any(|(_, method)| !matches!(*method, "GET" | "HEAD"))) {
        complain("a request without payment reaches the origin", "write `methods = [\"GET\"]`");
    }
    wanted
}

fn accept(section: &Section<'_>, priced: bool) -> Option<Vec<Scheme>> {
    let texts = section.texts("accept");
    let mut schemes = Vec::new();
    let mut whole = true;
    for (path, text) in &texts {
        if let Some((_, scheme)) = SCHEMES.iter().find(|(name, _)| name == text) {
            if schemes.contains(scheme) {
                section.layers.complain(path, "the scheme is listed twice", None);
            }
            schemes.push(*scheme);
            continue;
        }
        whole = false;
        let message = format!("no scheme is named `{}`", quote(text));
        section.layers.complain(path, message, Some(schemes_of_this_version()));
    }
    if texts.is_empty() && priced {
        let help = "leave it out for `[\"deferred\"]`, or write `price = \"free\"`".to_owned();
        section.complain("accept", "nobody could pay for this route", Some(help));
        return None;
    }
    whole.then_some(schemes)
}

fn schemes_of_this_version() -> String {
    let names = SCHEMES.map(|(name, _)| format!("`\"{name}\"`"));
    let (last, rest) = names.split_last().unwrap_or((&names[0], &[]));
    format!("this version has {} and {last}", rest.join(", "))
}

fn charge_on(section: &Section<'_>) -> Option<ChargeOn> {
    let texts = section.texts("charge_on");
    if texts.is_empty() {
        let help = "write `price = \"free\"` if nothing is to be charged".to_owned();
        section.complain("charge_on", "nothing would ever be charged", Some(help));
        return None;
    }
    let (mut success, mut these, mut whole) = (false, Vec::new(), true);
    for (path, text) in texts {
        match text.parse::<u16>() {
            _ if text == "2xx" => success = true,
            Ok(status @ 200..=299) => these.push(status),
            found => {
                whole = false;
                let reason = match found {
                    Ok(304) => "304 gives the client nothing new, so it is never charged",
                    Ok(300..=599) => "only a success is ever charged",
                    _ => "expected `\"2xx\"` or a status from 200 to 299",
                };
                section.layers.complain(&path, format!("{reason}, found `{}`", quote(text)), None);
            }
        }
    }
    these.sort_unstable();
    these.dedup();
    whole.then_some(if success { ChargeOn::Success } else { ChargeOn::These(these) })
}

fn is_mime(text: &str) -> bool {
    let token = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    text.len() <= MIME_BYTES_MAX
        && kind.split_once('/').is_some_and(|(a, b)| token(a) && token(b))
        && parameters.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// Unique names: those given, else host and path, else with the methods in front.
fn name_routes(root: &Section<'_>, sections: &[Section<'_>], routes: &mut [Route]) {
    let mut taken: HashMap<Arc<str>, String> = HashMap::new();
    for (section, route) in sections.iter().zip(&*routes).filter(|(section, _)| section.has("name")) {
        let name = &route.name;
        let at = section.at("name");
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let message = format!("expected 1 to {NAME_BYTES_MAX} bytes without control characters");
            section.complain("name", message, None);
        } else if let Some(other) = taken.insert(name.clone(), at.clone()) {
            root.layers.clash(&at, &other, format!("the name `{name}` is taken by another route"), None);
        }
    }
    for route in routes.iter_mut().filter(|route| route.name.is_empty()) {
        let sold = route.selector.as_ref().map(|selector| format!("#{selector}")).unwrap_or_default();
        let place = format!("{}{}{sold}", route.host.as_deref().unwrap_or_default(), route.path);
        let with_methods = format!("{} {place}", route.methods.join(","));
        let numbered = (2..).map(|n| format!("{place} #{n}"));
        let free =
            [place.clone(), with_methods].into_iter().chain(numbered).find(|name| !taken.contains_key(name.as_str()));
        let name: Arc<str> = free.unwrap_or(place).into();
        taken.insert(name.clone(), String::new());
        route.name = name;
    }
}

/// Warns about prices that no account can pay.
pub(super) fn payable(root: &Section<'_>, routes: &[Route], accounts: &[Account]) {
    let mut warned = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let takes_tokens = route.accept.iter().any(|scheme| scheme.is_token());
        if accounts.is_empty() && takes_tokens && !route.accept.iter().all(|scheme| scheme.is_token()) {
            let message = "only a wallet can pay for it: there is no account for what is paid on credit";
            let help = "add an `[[accounts]]` section for each customer, or take the other schemes out of `accept`";
            root.layers.warn(&format!("routes[{index}].accept"), message, help);
        }
        let Some(price) = route.price.filter(|_| !takes_tokens) else { continue };
        let key = format!("routes[{index}].price");
        if accounts.is_empty() {
            let help = "add an `[[accounts]]` section for each customer";
            root.layers.warn(&key, "nobody can pay: there is no account", help);
            return;
        }
        if !accounts.iter().any(|account| account.credit.currency == price.currency) && warned.insert(price.currency) {
            let message = format!("nobody can pay: no account is in {}", price.currency);
            root.layers.warn(&key, message, "add an account in this currency, or change the price");
        }
        let in_currency = accounts.iter().filter(|account| account.credit.currency == price.currency);
        let in_currency: Vec<&Account> = in_currency.collect();
        // A balance may be any, and what is bought by the request needs none.
        if in_currency
            .iter()
            .any(|account| account.prepaid || account.allowance.is_some() || !account.prices.is_empty())
        {
            continue;
        }
        let credits = in_currency.iter().map(|account| account.credit);
        if let Some(most) = credits.max_by_key(|credit| credit.units).filter(|most| most.units < price.units) {
            let message = format!("nobody can pay: no account may owe more than {most}");
            root.layers.warn(&key, message, "raise the `credit` of an account, or change the price");
        }
    }
}

/// Refuses routes that take `batch-settlement` and can't be offered so.
pub(super) fn batch_payable(root: &Section<'_>, routes: &[Route], deferred: &Deferred) {
    for (index, route) in routes.iter().enumerate() {
        let Some(price) = route.price.filter(|_| route.accept.contains(&Scheme::BatchSettlement)) else { continue };
        if price.wire().millionths {
            let message = format!("`batch-settlement` can't express {price}");
            let help = format!(
                "it counts in {} decimals of {}: change the price, or take the scheme out of `accept`",
                price.currency.minor_decimals(),
                price.currency
            );
            root.layers.complain(&format!("routes[{index}].price"), message, Some(help));
        }
        if deferred.registration_url.is_none() {
            let message = "`batch-settlement` offers say where agents register, and there is no address";
            let help = "set `deferred.registration_url`".to_owned();
            root.layers.complain(&format!("routes[{index}].accept"), message, Some(help));
        }
    }
}

/// Warns about currencies that do not exist: a slip of the pen would be booked as it is written.
pub(super) fn currencies(root: &Section<'_>, routes: &[Route], accounts: &[Account]) {
    let credits = accounts.iter().enumerate().map(|(i, account)| (format!("accounts[{i}].credit"), account.credit));
    let prices = routes.iter().enumerate().filter_map(|(i, route)| Some((format!("routes[{i}].price"), route.price?)));
    let mut warned = HashSet::new();
    for (key, Money { currency, .. }) in credits.chain(prices) {
        if !currency.is_active() && warned.insert(currency) {
            let message = format!("`{currency}` is no currency in use (ISO 4217)");
            root.layers.warn(&key, message, "look whether the code is right: it is booked as it is written");
        }
    }
}

/// Refuses a free route on which a field could name the method that another route sells.
pub(super) fn overrides(root: &Section<'_>, table: &Table, routes: &[Route]) {
    for (index, _) in routes.iter().enumerate().filter(|(_, r)| r.allow_method_override && r.price.is_none()) {
        let Some(priced) = table.same_pattern(index).find(|other| routes[*other].price.is_some()) else { continue };
        let message = format!(
            "the route `{}` sells another method of this path, which could be had for free",
            routes[priced].name
        );
        let help = "remove it, or give the two different paths".to_owned();
        root.layers.complain(&format!("routes[{index}].allow_method_override"), message, Some(help));
    }
}

/// Compiles the routes. Without `routes`, those that can be read are compiled for the sake of their problems.
pub(super) fn table(
    root: &Section<'_>,
    server: Option<&Server>,
    origins: Option<&[Origin]>,
    (routes, mcp): (Option<&[Route]>, Option<&Mcp>),
) -> Option<Arc<Table>> {
    let sections = root.list("routes");
    let ignores_case = |index: usize| origins.and_then(|all| all.get(index)).is_some_and(|o| o.case_insensitive);
    let standing = routes.zip(mcp).map(|(routes, mcp)| super::mcp::standing(routes, mcp));
    let specs: Vec<RouteSpec> = sections
        .iter()
        .enumerate()
        .filter_map(|(index, section)| {
            let checked = routes.and_then(|routes| routes.get(index));
            let stands = match &standing {
                Some(standing) => standing.get(index).copied().unwrap_or(true),
                None => !super::mcp::sells_part(section),
            };
            if !stands {
                return None;
            }
            let sells_parts = mcp.is_some_and(|mcp| mcp.endpoint(index).is_some());
            Some(RouteSpec {
                index,
                host: section.text("host").map(str::to_owned),
                path: section.text("path")?.to_owned(),
                methods: section.texts("methods").into_iter().map(|(_, text)| text.to_owned()).collect(),
                priced: sells_parts || checked.is_none_or(|route| route.price.is_some()),
                // Express, on which many MCP servers stand, ignores the case of paths.
                case_insensitive: sells_parts || checked.is_some_and(|route| ignores_case(route.origin)),
            })
        })
        .collect();
    let mut site = Site { hosts: Vec::new(), case_insensitive: ignores_case(0) };
    if let Some(server) = server {
        site.hosts.clone_from(&server.hosts);
        let public = server.public_url.as_ref().map(|url| url.authority.as_str());
        // `[::1]:8402` has colons before the one of the port.
        site.hosts.extend(public.map(|authority| match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host.to_owned(),
            _ => authority.to_owned(),
        }));
    }
    match Table::compile(&specs, &site) {
        Ok(table) => Some(Arc::new(table)),
        Err(problems) => {
            for problem in problems {
                let section = &sections[problem.route];
                let key = section.at(match problem.field {
                    Field::Host => "host",
                    Field::Path => "path",
                    Field::Methods => "methods",
                });
                match problem.other {
                    Some(other) => {
                        let message = format!("{}, see routes[{other}]", problem.reason);
                        root.layers.clash(&key, &sections[other].at("path"), message, problem.hint);
                    }
                    None => root.layers.complain(&key, problem.reason, problem.hint),
                }
            }
            None
        }
    }
}
