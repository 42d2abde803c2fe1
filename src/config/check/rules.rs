//! `[[routes.agents]]`: who may pay less must be proven, who only claims may at most pay more.

use std::collections::HashMap;

use ipnet::IpNet;

use super::urls;
use crate::{
    config::{AgentRule, Scheme, Then, Who, read::Section, walk::quote},
    pricing::crawlers,
    wire::amount::{Money, Units},
};

/// Most rules of a route: each request looks at all of them.
const RULES_MAX: usize = 64;

/// The rules of a route with this price and these schemes.
pub(super) fn rules(section: &Section<'_>, price: Option<Money>, accept: &[Scheme]) -> Option<Vec<AgentRule>> {
    let sections = section.list("agents");
    let Some(first) = sections.first() else { return Some(Vec::new()) };
    let refuse = |message: &str, help: &str| {
        section.layers.complain(&first.path, message, Some(help.to_owned()));
        None
    };
    let Some(price) = price else { return refuse("everybody has this route for free", "give it a `price`") };
    let sells_part = super::mcp::sells_part(section);
    if section.flag("origin_price") && sections.iter().any(|rule| rule.has("price")) {
        return refuse("the origin names the price of this route", "remove `origin_price`, or the section's `price`");
    }
    if sections.len() > RULES_MAX {
        return refuse(&format!("more than {RULES_MAX} sections"), "join addresses in one list, or use patterns");
    }
    let mut seen: HashMap<String, String> = HashMap::new();
    let rules: Vec<Option<AgentRule>> = sections
        .iter()
        .map(|section| {
            let rule = AgentRule { who: who(section)?, then: then(section)? };
            if let Some(other) = seen.insert(format!("{:?}", rule.who), section.path.clone()) {
                section.layers.clash(&section.path, &other, "these have a section already", None);
            }
            fits(section, &rule, price, accept);
            if sells_part {
                fits_calls(section, &rule, price);
            }
            Some(rule)
        })
        .collect();
    rules.into_iter().collect()
}

/// Calls are offered one price, whoever seems to ask; who has signed for one may be charged less, or be refused.
fn fits_calls(section: &Section<'_>, rule: &AgentRule, price: Money) {
    let help = "name a verified agent by `agent`, with `allow`, `block` or a price that is not higher";
    let complain = |key: &str, message: &str| section.complain(key, message, Some(help.to_owned()));
    match (&rule.who, rule.then) {
        (Who::UserAgent(_), _) => complain("user_agent", "calls of an MCP server are offered one price"),
        (Who::Addresses(_), _) => complain("addresses", "calls of an MCP server are offered one price"),
        (Who::Agent(_), Then::Price(own)) if own.units > price.units => {
            complain("price", "calls of an MCP server are offered one price, and this is more");
        }
        _ => {}
    }
}

/// The one selector.
fn who(section: &Section<'_>) -> Option<Who> {
    let given: Vec<&str> = ["agent", "user_agent", "addresses"].into_iter().filter(|key| section.has(key)).collect();
    let [key] = given[..] else {
        let message =
            if given.is_empty() { "whom it is for is missing" } else { "a section is for one kind of agents" };
        let help =
            "write one of `agent = \"https://…\"`, `user_agent = \"GPTBot\"` and `addresses = [\"192.0.2.0/24\"]`";
        section.layers.complain(&section.path, message, Some(help.to_owned()));
        return None;
    };
    let path = section.at(key);
    match key {
        "agent" => urls::pattern(section, &path, section.text(key)?).map(Who::Agent),
        "user_agent" => {
            let word = section.text(key)?;
            if !crawlers::is_name(word) {
                let message = format!("expected one word of letters, digits, `-` and `_`, found `{}`", quote(word));
                section.complain(key, message, Some("write `\"GPTBot\"` for `GPTBot/1.2`".to_owned()));
                return None;
            }
            Some(Who::UserAgent(word.to_owned()))
        }
        _ => {
            let texts = section.texts(key);
            if texts.is_empty() {
                section.complain(key, "nobody comes from nowhere", Some("list addresses or networks".to_owned()));
            }
            let nets = texts.iter().map(|(path, text)| super::listen::network(section, path, text, ""));
            let nets: Vec<Option<IpNet>> = nets.collect();
            Some(Who::Addresses(nets.into_iter().collect::<Option<_>>()?))
        }
    }
}

/// The one action.
fn then(section: &Section<'_>) -> Option<Then> {
    let flags = ["allow", "block"].into_iter().filter(|key| section.flag(key));
    let given: Vec<&str> = flags.chain(section.has("price").then_some("price")).collect();
    let [key] = given[..] else {
        let message = if given.is_empty() { "what they get is missing" } else { "only one of these can be" };
        let help = "write one of `price = \"0.02 USD\"`, `allow = true` and `block = true`".to_owned();
        section.layers.complain(&section.path, message, Some(help));
        return None;
    };
    match key {
        "allow" => Some(Then::Allow),
        "block" => Some(Then::Block),
        _ => section.accept(key, Money::parse(section.text(key)?)).map(Then::Price),
    }
}

/// Whether these may have that.
fn fits(section: &Section<'_>, rule: &AgentRule, price: Money, accept: &[Scheme]) {
    let complain = |key: &str, message: String, help: &str| section.complain(key, message, Some(help.to_owned()));
    match (&rule.who, rule.then) {
        (_, Then::Price(own)) if own.currency != price.currency => {
            complain("price", format!("the route counts in {}", price.currency), "write it in the same currency");
        }
        (_, Then::Price(own)) if own.units == Units::ZERO => {
            complain("price", "a price of nothing".to_owned(), "write `allow = true`");
        }
        (Who::Agent(_), Then::Price(own)) => {
            if own.wire().millionths && accept.contains(&Scheme::BatchSettlement) {
                complain("price", format!("`batch-settlement` can't express {own}"), "write it in whole cents");
            }
            if accept.iter().all(|scheme| scheme.is_token()) {
                let help = "accept a scheme that is signed: \"deferred\", \"batch-settlement\" or \"crawl\"";
                complain("price", "a wallet's payment does not say which agent it is".to_owned(), help);
            }
        }
        (Who::UserAgent(_) | Who::Addresses(_), Then::Price(own)) if own.units <= price.units => {
            let message = format!("it is not more than the route's {price}, and anybody could claim it");
            complain("price", message, "name a verified agent by `agent`, or write a higher price");
        }
        (_, Then::Price(own)) if own.wire().millionths && accept.contains(&Scheme::BatchSettlement) => {
            complain("price", format!("`batch-settlement` can't express {own}"), "write it in whole cents");
        }
        (Who::UserAgent(_), Then::Allow) => {
            let help = "name a verified agent by `agent`, or networks that you vouch for by `addresses`";
            complain("allow", "anybody can send this User-Agent".to_owned(), help);
        }
        _ => {}
    }
}
