//! `[[accounts.prices]]`: a licence.

use serde_json::Value;

use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::*;

/// A site whose routes are `page` (`/paid/*`, 0.01 USD) and `archive` (`/archive/*`, 1 USD), and whose account `acme` has `agreed`.
pub fn site(origin: &Origin, agent: &Agent, agreed: &str, more: &str) -> String {
    let toml = site_toml(origin, agent, &format!("name = \"page\"\n{more}"));
    let archive =
        "[[routes]]\npath = \"/archive/*\"\nname = \"archive\"\nprice = \"1 USD\"\n[[routes]]\npath = \"/paid/*\"";
    toml.replace("credit = \"1000 USD\"", agreed).replace("[[routes]]\npath = \"/paid/*\"", archive)
}

/// Every entry as `ledger list --json` has it, oldest first, after an audit and after each was proven by itself.
pub fn entries(dir: &std::path::Path) -> Vec<Value> {
    let (code, audit, err) = tollgate(dir, &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{audit}{err}");
    let (code, out, err) = tollgate(dir, &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let mut rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.reverse();
    for row in rows.iter().filter(|row| row["kind"] == "capture") {
        let n = row["n"].as_str().unwrap();
        let (code, out, err) = tollgate(dir, &["ledger", "verify", n, "--ledger", "tollgate.sqlite"]);
        assert_eq!(code, 0, "{row}: {out}{err}");
    }
    rows
}

/// Amount and asset of each capture.
pub fn charges(gateway: Gateway) -> Vec<(String, String)> {
    let (_, dir) = gateway.stop();
    let rows = entries(dir.path());
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let captures = rows.iter().filter(|row| row["kind"] == "capture");
    captures.map(|row| (text(row, "amount"), text(row, "asset"))).collect()
}

fn usd(amounts: &[&str]) -> Vec<(String, String)> {
    amounts.iter().map(|amount| ((*amount).to_owned(), "USD".to_owned())).collect()
}

const LICENCE: &str = "credit = \"1000 USD\"\nprices = [\n  { routes = [\"page\"], price = \"0.004 USD\" },\n  \
                       { routes = [\"archive\"], price = \"free\" },\n]";

#[test]
fn a_licence_is_charged_what_was_agreed_and_offered_what_all_are() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let more = format!("[[accounts]]\nname = \"other\"\nagents = [\"{}\"]\ncredit = \"10 USD\"\n", other.url);
    let gateway = Gateway::start(&site(&origin, &agent, LICENCE, &more));
    assert_eq!(get(gateway.addr, "/paid/page").json()["accepts"][0]["extras"]["price"], "0.01 USD");
    for (who, path, charged) in [
        (&agent, "/paid/a", "0.004 USD"),
        (&agent, "/archive/a", "0.00 USD"),
        (&other, "/paid/a", "0.01 USD"),
        (&other, "/archive/a", "1.00 USD"),
    ] {
        let answer = who.buy(gateway.addr, path);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private")), "{path}");
        assert_eq!(answer.header("tollgate-charged"), Some(charged), "{path}");
    }
    assert_eq!(charges(gateway), usd(&["0.004", "0.00", "0.01", "1.00"]));
}

#[test]
fn nobody_has_a_licence_by_naming_who_has() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, LICENCE, ""));
    let forged = agent.request(gateway.addr, "GET", "/archive/a").with(|r| r.key = other.key.clone());
    assert_eq!(exchange(gateway.addr, forged.head()).reason(), "invalid_signature");
    assert_eq!(other.buy(gateway.addr, "/archive/a").reason(), "signature_agent_unknown");
    // Nor does who has one get another route for its price, with the id of the cheaper.
    let cheap = agent.request(gateway.addr, "GET", "/paid/a").with(|r| r.target = "/archive/a".into());
    assert_eq!(exchange(gateway.addr, cheap.head()).reason(), "other_resource");
    assert_eq!(origin.calls(), 0);
    assert_eq!(charges(gateway), []);
}

#[test]
fn crawls_and_batches_by_licence_pay_by_the_offer_or_by_what_was_agreed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, LICENCE, "accept = [\"crawl\"]\n"));
    let bid = |field, money| exchange(gateway.addr, agent.signed_in(field, gateway.addr, "/paid/page", money).head());
    for (field, money) in
        [("Crawler-Exact-Price", "USD 0.01"), ("Crawler-Exact-Price", "USD 0.004"), ("Crawler-Max-Price", "USD 0.02")]
    {
        let paid = bid(field, money);
        assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some("USD 0.004")), "{money}: {paid:?}");
    }
    for (field, money) in [("Crawler-Exact-Price", "USD 0.005"), ("Crawler-Max-Price", "USD 0.003")] {
        assert_eq!(bid(field, money).reason(), "price_not_acceptable", "{money}");
    }
    assert_eq!(charges(gateway), usd(&["0.004", "0.004", "0.004"]));
}

/// Has a running gateway read another configuration.
fn reload(gateway: &Gateway, toml: &str) {
    std::fs::write(gateway.dir.path().join("tollgate.toml"), toml).unwrap();
    gateway.signal("HUP");
    let start = std::time::Instant::now();
    while !gateway.log().contains("was read again") {
        assert!(start.elapsed().as_secs() < 30, "{}", gateway.log());
        std::thread::yield_now();
    }
}

#[test]
fn what_was_sealed_is_the_most_that_is_charged_whatever_is_agreed_later() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, "credit = \"1000 USD\"", ""));
    let before = agent.request(gateway.addr, "GET", "/paid/a");
    let dearer = LICENCE.replace("0.004", "0.03");
    reload(&gateway, &site(&origin, &agent, &dearer, "").replace("0.01 USD", "0.05 USD"));
    assert_eq!(exchange(gateway.addr, before.head()).status, 200);
    assert_eq!(agent.buy(gateway.addr, "/paid/b").status, 200);
    assert_eq!(charges(gateway), usd(&["0.01", "0.03"]));
}

#[test]
fn a_licence_that_ends_by_a_reload_ends_with_the_next_request() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, LICENCE, ""));
    let before = agent.request(gateway.addr, "GET", "/archive/a");
    reload(&gateway, &site(&origin, &agent, "credit = \"1000 USD\"", ""));
    // An offer is public: who holds the licence is looked up when it is paid.
    assert_eq!(exchange(gateway.addr, before.head()).status, 200);
    assert_eq!(charges(gateway), usd(&["1.00"]));
}
