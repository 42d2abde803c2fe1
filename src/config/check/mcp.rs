//! `[mcp]`, and the routes that sell tools, prompts and resources.

use std::collections::BTreeMap;

use crate::{
    config::{ChargeOn, Mcp, Route, Scheme, Settle, Signal, read::Section},
    pricing::{Pattern, Selector, Selectors},
    wire::mcp::Kind,
};

/// What a route sells of an MCP server; `None` when it is wrong.
pub(super) fn selector(section: &Section<'_>) -> Option<Option<Selector>> {
    let keys = [("tool", Kind::Tool), ("prompt", Kind::Prompt), ("resource", Kind::Resource)];
    let given = keys.map(|(key, kind)| section.text(key).map(|text| (key, kind, text)));
    let mut given = given.into_iter().flatten();
    let Some((key, kind, text)) = given.next() else { return Some(None) };
    if let Some((other, ..)) = given.next() {
        let message = format!("a route sells one thing, and `{key}` is here too");
        section.complain(other, message, Some("give each a section of its own".to_owned()));
        return None;
    }
    match Selector::parse(kind, text) {
        Ok(selector) => Some(Some(selector)),
        Err(reason) => {
            section.complain(key, reason, None);
            None
        }
    }
}

/// The key of a selector.
fn key(selector: &Selector) -> &'static str {
    selector.kind.word()
}

/// Host and path of a route, in the form that decides whether two are the same.
fn place(route: &Route) -> (Option<String>, String) {
    let path = Pattern::parse(&route.path).map_or_else(|_| route.path.clone(), |pattern| pattern.text);
    (route.host.clone(), path)
}

pub(super) fn mcp(root: &Section<'_>, section: &Section<'_>, routes: Option<&[Route]>) -> Option<Mcp> {
    let signal = match section.text("signal") {
        Some("http_402") => Signal::Http402,
        _ => Signal::ToolResult,
    };
    let mut mcp = Mcp {
        signal,
        structured: section.flag("structured"),
        request_bytes: section.number("request_bytes"),
        answer_bytes: section.number("answer_bytes"),
        endpoints: Vec::new(),
        endpoint_of: Vec::new(),
    };
    let routes = routes?;
    let sections = root.list("routes");
    mcp.endpoint_of = vec![None; routes.len()];
    let mut places: BTreeMap<(Option<String>, String), usize> = BTreeMap::new();
    for (index, (section, route)) in sections.iter().zip(routes).enumerate() {
        let Some(selector) = &route.selector else { continue };
        complete(section, route);
        let endpoint = *places.entry(place(route)).or_insert_with(|| {
            mcp.endpoints.push(Selectors::default());
            mcp.endpoints.len() - 1
        });
        mcp.endpoint_of[index] = Some(endpoint);
        if let Err(other) = mcp.endpoints[endpoint].insert(selector, index) {
            let message = format!("the same path has this already, see routes[{other}]");
            root.layers.clash(&section.at(key(selector)), &sections[other].at(key(selector)), message, None);
        }
    }
    for (index, (section, route)) in sections.iter().zip(routes).enumerate() {
        let Some(endpoint) = places.get(&place(route)).copied() else { continue };
        let first = mcp.endpoint_of.iter().position(|of| *of == Some(endpoint)).unwrap_or(index);
        if route.selector.is_none() {
            rest(section, route, first);
        }
        mcp.endpoint_of[index] = Some(endpoint);
        if route.origin != routes[first].origin {
            let message = format!("an MCP server has one origin, and routes[{first}] of the same path has another");
            section.complain(if section.has("origin") { "origin" } else { "path" }, message, None);
        }
    }
    Some(mcp)
}

/// What a route with a selector can't have.
fn complete(section: &Section<'_>, route: &Route) {
    let remove = |key: &str, message: &str| section.complain(key, message, Some("remove it".to_owned()));
    if !route.methods.is_empty() {
        remove("methods", "calls of an MCP server are always POST");
    }
    if route.settle != Settle::OnHead {
        remove("settle", "a call is settled when its result is there, since many fail with a status of success");
    }
    if route.charge_on != ChargeOn::Success {
        remove("charge_on", "a call is charged by its result");
    }
    if route.allow_method_override {
        remove("allow_method_override", "a call could be sent by another method, for free");
    }
    if route.accept.contains(&Scheme::Crawl) {
        let help =
            "take `crawl` out: \"deferred\", \"batch-settlement\", \"exact\" and \"upto\" pay for calls".to_owned();
        section.complain("accept", "pay per crawl is for pages", Some(help));
    }
}

/// What a route without a selector can't have where others have one.
fn rest(section: &Section<'_>, route: &Route, other: usize) {
    if route.price.is_some() {
        let message = format!("routes[{other}] sells parts of this path, so the rest of it must be free");
        let help = "write `price = \"free\"`, or sell all tools with `tool = \"*\"`".to_owned();
        section.complain("price", message, Some(help));
    }
    if !route.methods.is_empty() {
        let message = format!("routes[{other}] sells calls of this path, which has one route for all methods");
        section.complain("methods", message, Some("remove it".to_owned()));
    }
    if route.allow_method_override {
        let message = format!("a call that routes[{other}] sells could be sent by another method, for free");
        section.complain("allow_method_override", message, Some("remove it".to_owned()));
    }
}

/// Whether each route stands in the table: of those at an MCP server's path one does, and answers for all.
pub(super) fn standing(routes: &[Route], mcp: &Mcp) -> Vec<bool> {
    let mut answered = vec![false; mcp.endpoints.len()];
    let of = |index: usize| mcp.endpoint_of.get(index).copied().flatten();
    let whole = |index: usize| routes[index].selector.is_none();
    for index in (0..routes.len()).filter(|index| whole(*index)) {
        if let Some(endpoint) = of(index) {
            answered[endpoint] = true;
        }
    }
    let stands = |index: usize| match of(index) {
        Some(endpoint) if !whole(index) => !std::mem::replace(&mut answered[endpoint], true),
        _ => true,
    };
    (0..routes.len()).map(stands).collect()
}

/// Whether a section sells a part of a path, as far as it can be read.
pub(super) fn sells_part(section: &Section<'_>) -> bool {
    ["tool", "prompt", "resource"].iter().any(|key| section.has(key))
}
