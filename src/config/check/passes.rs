//! `pass` and `pass_for` of a route.

use crate::{
    config::{Scheme, read::Section},
    payment::pass::{Good, PassTerms, RoutePass},
    wire::amount::Units,
};

/// The passes that a route sells; `Some(None)` where it sells none.
pub(super) fn pass(section: &Section<'_>, priced: bool, accept: &[Scheme]) -> Option<Option<RoutePass>> {
    let refuse = |key: &str, message: &str, help: &str| {
        section.complain(key, message, Some(help.to_owned()));
        None
    };
    let good = match (section.text("pass"), section.count("pass")) {
        (Some("sold"), _) => Some(None),
        (Some(text), _) => Some(Some(section.accept("pass", text.parse::<Good>())?)),
        (None, Some(count)) => Units::new(i64::try_from(count).ok()?).map(Good::Times).map(Some),
        // Of a wrong type the walk has complained.
        (None, None) => None,
    };
    let Some(good) = good else {
        if section.text("pass_for") == Some("route") && !section.layers.in_file(&section.at("pass")) {
            return refuse("pass_for", "there is no pass", "write `pass = \"24h\"`, or remove it");
        }
        return Some(None);
    };
    if !priced {
        return refuse("pass", "everybody has this route for free", "give it a `price`, or remove the pass");
    }
    if super::mcp::sells_part(section) {
        return refuse("pass", "calls of an MCP server are sold one by one", "remove it");
    }
    if accept.iter().all(|scheme| scheme.is_token()) {
        let help = "accept a scheme that is signed: \"deferred\", \"batch-settlement\" or \"crawl\"";
        return refuse("pass", "a wallet's payment does not say which agent it is", help);
    }
    let whole_route = section.text("pass_for") == Some("route");
    Some(Some(RoutePass { offers: good.map(|good| PassTerms { good, whole_route }) }))
}
