//! The digest of a price table.

use serde_json::json;

use crate::{
    config::{Account, BatchSettlement, Charge, Deferred, Exact, Origin, Route, Scheme},
    pricing::{Pattern, Table},
};

/// A digest of what routes cost, and for whom, whatever their order in the file. What an account may owe, or has without charge, is no
/// part of it: its entries say what they were taken from.
pub(super) fn hash(
    routes: &[Route],
    origins: &[Origin],
    (deferred, batch, exact): (&Deferred, &BatchSettlement, &Exact),
    accounts: &[Account],
) -> [u8; 32] {
    let line = |route: &Route| {
        let path = Pattern::parse(&route.path).map_or_else(|_| route.path.clone(), |pattern| pattern.text);
        let mut methods = route.methods.clone();
        methods.sort();
        let origin = origins.get(route.origin);
        let mut line = json!([
            "route",
            route.host,
            path,
            methods,
            route.price.map(|price| price.to_string()),
            route.accept.iter().map(|scheme| format!("{scheme:?}")).collect::<Vec<_>>(),
            format!("{:?}", route.charge_on),
            route.description,
            route.mime_type,
            origin.is_some_and(|origin| origin.case_insensitive),
        ]);
        if let (Some(selector), Some(line)) = (&route.selector, line.as_array_mut()) {
            line.push(json!(selector.to_string()));
        }
        if let (false, Some(line)) = (route.agents.is_empty(), line.as_array_mut()) {
            let mut rules: Vec<String> = route.agents.iter().map(|rule| format!("{rule:?}")).collect();
            rules.sort();
            line.push(json!({"agents": rules}));
        }
        if let (Some(pass), Some(line)) = (route.pass.and_then(|pass| pass.offers), line.as_array_mut()) {
            line.push(json!({"pass": pass.good.to_string(), "for_route": pass.whole_route}));
        }
        if let (Charge::Agents, Some(line)) = (route.charge, line.as_array_mut()) {
            line.push(json!({"charge": "agents"}));
        }
        if let (true, Some(line)) = (route.observes(), line.as_array_mut()) {
            line.push(json!({"mode": "observe"}));
        }
        line.to_string()
    };
    let mut lines: Vec<String> = routes.iter().map(line).collect();
    lines.sort();
    lines.insert(0, json!(["tollgate-table-1", origins.first().is_some_and(|o| o.case_insensitive)]).to_string());
    for token in &exact.assets {
        let transfer = format!("{:?}", token.transfer);
        lines.push(json!(["exact", token.book.as_str(), token.decimals, token.pay_to, transfer]).to_string());
    }
    if routes.iter().any(|route| route.accept.contains(&Scheme::BatchSettlement)) {
        lines.push(json!(["batch-settlement", batch.network, batch.pay_to]).to_string());
    }
    for account in accounts.iter().filter(|account| !account.prices.is_empty()) {
        let prices = account.prices.iter().map(|agreed| {
            let mut routes = agreed.routes.clone();
            routes.sort();
            json!([routes, agreed.price.to_string()]).to_string()
        });
        let mut prices: Vec<String> = prices.collect();
        prices.sort();
        lines.push(json!(["account", &*account.name, prices]).to_string());
    }
    lines.push(json!(["deferred", deferred.network, deferred.pay_to, deferred.terms_url]).to_string());
    Table::hash(lines.join("\n").as_bytes())
}
