//! What x402 v1 was quoted. Its payments echo no offer, so a price that has changed meanwhile must be known to whoever was
//! told the earlier one: the price of each route stands among the terms that stay live, as a template whose class is
//!
//! ```text
//! v1/ROUTE/UNITS      v1/9f86d081884c7d65/10000
//! ```
//!
//! No offer has such a class, so no sealed id names it.

use sha2::{Digest as _, Sha256};

use super::offer::{Entry, Way};
use super::terms::{Template, Term};
use crate::wire::amount::Units;

/// Whether a template is such a quote.
pub fn is_quote(template: &Template) -> bool {
    template.class.starts_with("v1/")
}

/// A route as earlier configurations may have had it: its place, without its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKey(String);

impl RouteKey {
    /// The route of this host, path, methods, and tool of an MCP server.
    pub fn new(host: Option<&str>, path: &str, methods: &[String], tool: &str) -> RouteKey {
        let mut methods: Vec<&str> = methods.iter().map(String::as_str).collect();
        methods.sort_unstable();
        let mut hash = Sha256::new();
        for member in [host.unwrap_or("*"), path, &methods.join(" "), tool] {
            hash.update((member.len() as u32).to_be_bytes());
            hash.update(member);
        }
        RouteKey(hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What v1 is quoted for the entries of an offer that lives for `ttl` seconds.
    pub fn quotes(&self, entries: &[Entry], ttl: u64) -> Vec<Template> {
        let quote = |entry: &Entry| match &entry.way {
            Way::Exact(token) if token.network.v1_name().is_some() => {
                let class = format!("v1/{}/{}", self.0, entry.amount.get());
                Some(Template { class, ..token.template("exact", ttl) })
            }
            _ => None,
        };
        entries.iter().filter_map(quote).collect()
    }

    /// The price that a term quotes for this route, if it does.
    pub fn quoted(&self, term: &Term) -> Option<Units> {
        let (route, units) = term.template.class.strip_prefix("v1/")?.split_once('/')?;
        (route == self.0).then(|| units.parse().ok().and_then(Units::new)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_for_one_route_and_says_its_price() {
        let methods = ["POST".to_owned(), "GET".to_owned()];
        let route = RouteKey::new(Some("a.example"), "/paid/*", &methods, "");
        let same = RouteKey::new(Some("a.example"), "/paid/*", &[methods[1].clone(), methods[0].clone()], "");
        assert_eq!(route, same);
        let template = |class: String| Template {
            ttl: 300,
            class,
            scheme: "exact".into(),
            network: "eip155:84532".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            decimals: 6,
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            terms_url: String::new(),
        };
        let term = |class: String| Term::new(template(class));
        assert_eq!(route.quoted(&term(format!("v1/{}/10000", route.0))), Units::new(10_000));
        for other in [
            RouteKey::new(None, "/paid/*", &methods, ""),
            RouteKey::new(Some("a.example"), "/paid", &methods, ""),
            RouteKey::new(Some("a.example"), "/paid/*", &[], ""),
            RouteKey::new(Some("a.example"), "/paid/*", &methods, "tool/add"),
        ] {
            assert_eq!(other.quoted(&term(format!("v1/{}/10000", route.0))), None);
        }
        for class in ["public".to_owned(), format!("v1/{}/-1", route.0), format!("v1/{}/", route.0), "v1/".to_owned()] {
            assert_eq!(route.quoted(&term(class.clone())), None, "{class}");
        }
    }
}
