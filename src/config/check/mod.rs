//! Values of the right type → the checked configuration, or what they contradict.

mod accounts;
mod agreed;
mod discovery;
mod exact;
mod listen;
mod mcp;
mod open_accounts;
mod parts;
mod passes;
mod routes;
mod rules;
mod server;
mod table_hash;
mod urls;

use std::path::Path;

use super::{Config, read::Layers};

/// Checks everything, so that all problems are noted; None if any of them is needed to go on.
pub(super) fn check(layers: &Layers, base: &Path) -> Option<Config> {
    let root = layers.root();
    let server = server::server(&root.section("server"), base);
    let origins = server::origins(&root, base, server.as_ref());
    let offers = parts::offers(&root.section("offers"), base);
    let deferred = parts::deferred(&root.section("deferred"));
    let batch_settlement = parts::batch_settlement(&root.section("batch_settlement"));
    let exact = exact::exact(&root, &root.section("exact"));
    let facilitators = exact::facilitators(&root, base);
    let identity = accounts::identity(&root.section("identity"), base);
    let accounts = accounts::accounts(&root);
    let open_accounts =
        open_accounts::open_accounts(&root.section("open_accounts"), identity.as_ref(), accounts.as_deref());
    let operator = accounts::operator(&root.section("operator"));
    let ledger = parts::ledger(&root.section("ledger"), base);
    let signing = discovery::signing(&root.section("signing"), base);
    let discovery = discovery::discovery(&root.section("discovery"));
    let telemetry = parts::telemetry(&root.section("telemetry"), base);
    let admin = listen::admin(&root.section("admin"), server.as_ref(), base);
    let mut routes = routes::routes(&root, origins.as_deref());
    if let (Some(accounts), Some(routes)) = (&accounts, &mut routes) {
        agreed::fits(&root, routes, accounts);
        let open = open_accounts.flatten().map(|open| open.account("open:*"));
        routes::payable(&root, routes, &accounts.iter().cloned().chain(open).collect::<Vec<_>>());
        routes::currencies(&root, routes, accounts);
    }
    if let (Some(deferred), Some(routes)) = (&deferred, &routes) {
        routes::batch_payable(&root, routes, deferred);
    }
    if let (Some(exact), Some(facilitators), Some(routes), Some(origins), Some(offers)) =
        (&exact, &facilitators, &routes, &origins, &offers)
    {
        let heads: Vec<u64> = origins.iter().map(|origin| origin.head.as_secs()).collect();
        let parts = exact::Parts { routes, heads: &heads, ttl: offers.ttl.as_secs() };
        exact::payable(&root, exact, facilitators, &parts);
    }
    let mcp = mcp::mcp(&root, &root.section("mcp"), routes.as_deref());
    let sold = (routes.as_deref(), mcp.as_ref());
    let table = routes::table(&root, server.as_ref(), origins.as_deref(), sold);
    if let (Some(table), Some(routes)) = (&table, &routes) {
        routes::overrides(&root, table, routes);
    }
    let (origins, deferred, routes, exact) = (origins?, deferred?, routes?, exact?);
    let (batch_settlement, accounts) = (batch_settlement?, accounts?);
    let table_hash = table_hash::hash(&routes, &origins, (&deferred, &batch_settlement, &exact), &accounts);
    Some(Config {
        server: server?,
        origins,
        offers: offers?,
        deferred,
        batch_settlement,
        exact,
        facilitators: facilitators?,
        identity: identity?,
        accounts,
        open_accounts: open_accounts?,
        routes,
        operator: operator?,
        signing: signing?,
        discovery,
        mcp: mcp?,
        ledger: ledger?,
        admin: admin?,
        telemetry: telemetry?,
        table: table?,
        table_hash,
        warnings: None,
    })
}
