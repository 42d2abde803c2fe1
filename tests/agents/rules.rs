//! `[[routes.agents]]`: what single agents get.

use std::time::{Duration, Instant};

use crate::charge::FIREFOX;
use crate::support::agent::{Signed, field_offer};
use crate::support::client::{PATIENCE, get};
use crate::support::gateway::tollgate;
use crate::support::*;

/// A gateway whose `/paid/*` has these rules; they may name the agent as AGENT.
fn site(origin: &Origin, agent: &Agent, rules: &str) -> Gateway {
    Gateway::start(&site_toml(origin, agent, &rules.replace("AGENT", &agent.url)))
}

/// A signed request that pays nothing.
fn signed(agent: &Agent, gateway: &Gateway, path: &str) -> Signed {
    agent.signed(&gateway.addr.to_string(), "GET", path, "").with(|r| {
        r.carrier = "X-Note";
        r.covers = ["@authority", "signature-agent;sig1"].map(String::from).to_vec();
    })
}

/// What the books say of each charge.
fn charges(gateway: Gateway) -> Vec<String> {
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let (code, audit, _) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{audit}");
    let amount = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let n =
            row["receipt"].as_str().or(row["n"].as_str()).map(str::to_owned).unwrap_or_else(|| row["n"].to_string());
        let (code, out, err) = tollgate(dir.path(), &["ledger", "verify", &n, "--ledger", "tollgate.sqlite"]);
        assert_eq!(code, 0, "{row}: {out}{err}");
        row["amount"].as_str().unwrap().to_owned()
    };
    out.lines().map(amount).collect()
}

const CHEAPER: &str = "[[routes.agents]]\nagent = \"AGENT\"\nprice = \"0.004 USD\"\n";

#[test]
fn a_verified_agent_with_a_price_of_its_own_is_charged_that() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, CHEAPER);
    // The offer is everybody's.
    assert_eq!(get(gateway.addr, "/paid/page").json()["accepts"][0]["extras"]["price"], "0.01 USD");
    assert_eq!(agent.buy(gateway.addr, "/paid/page").status, 200);
    assert_eq!(charges(gateway), ["0.004"]);
}

#[test]
fn nobody_gets_a_price_by_naming_its_agent() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let more = format!("{CHEAPER}[[accounts]]\nname = \"other\"\nagents = [\"{}\"]\ncredit = \"1 USD\"\n", other.url);
    let gateway = site(&origin, &agent, &more);
    // Another agent pays the route's price, also while it names the cheap one beside itself.
    let request = other.request(gateway.addr, "GET", "/paid/page").with(|r| {
        r.agent = format!("{}, cheap=\"{}\"", r.agent, agent.url);
    });
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    // Signed by a key that is not the agent's.
    let forged = agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.key = other.key.clone());
    assert_eq!(exchange(gateway.addr, forged.head()).reason(), "invalid_signature");
    assert_eq!(charges(gateway), ["0.01"]);
}

#[test]
fn crawls_and_batches_pay_the_agents_own_price() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let rules = "accept = [\"crawl\"]\n[[routes.agents]]\nagent = \"AGENT\"\nprice = \"0.004 USD\"\n";
    let gateway = site(&origin, &agent, rules);
    let bid = |field, money| agent.signed_in(field, gateway.addr, "/paid/page", money).head();
    let low = exchange(gateway.addr, bid("Crawler-Max-Price", "USD 0.003"));
    assert_eq!((low.status, low.reason()), (402, "price_not_acceptable"));
    assert_eq!(exchange(gateway.addr, bid("Crawler-Exact-Price", "USD 0.02")).reason(), "price_not_acceptable");
    // Its own price, or the one that all are offered.
    for money in ["USD 0.004", "USD 0.01"] {
        let paid = exchange(gateway.addr, bid("Crawler-Exact-Price", money));
        assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some("USD 0.004")), "{paid:?}");
    }
    let paid = exchange(gateway.addr, bid("Crawler-Max-Price", "USD 0.01"));
    assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some("USD 0.004")), "{paid:?}");
    assert_eq!(charges(gateway), ["0.004", "0.004", "0.004"]);
}

#[test]
fn a_verified_agent_that_is_allowed_signs_and_gets_it_free() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let rules = format!("[[routes.agents]]\nagent = \"{}\"\nallow = true\n", other.url);
    let gateway = site(&origin, &agent, &rules);
    // It has no account, and needs none.
    let request = signed(&other, &gateway, "/paid/page");
    for _ in 0..2 {
        let answer = exchange(gateway.addr, request.head());
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private")), "{}", answer.text());
        assert!(answer.header("payment-response").is_none());
    }
    let calls = origin.calls();
    for (what, request) in [
        ("another key", request.clone().with(|r| r.key = agent.key.clone())),
        ("another host", request.clone().with(|r| r.covers = vec!["signature-agent;sig1".into()])),
        ("a late one", request.clone().with(|r| (r.created, r.expires) = (r.created - 900, r.created - 600))),
        ("a long one", request.clone().with(|r| r.expires = r.created + 3600)),
    ] {
        let answer = exchange(gateway.addr, request.head());
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert!(answer.json()["accepts"].is_array(), "{what}");
    }
    // Whoever is not on the list is offered the price, signed or not.
    for head in [signed(&agent, &gateway, "/paid/page").head(), request.head().replace("Signature: ", "X-Signature: ")]
    {
        let answer = exchange(gateway.addr, head);
        assert!(matches!(answer.status, 400 | 402), "{answer:?}");
    }
    assert_eq!(origin.calls(), calls);
    assert!(charges(gateway).is_empty());
}

#[test]
fn an_allowed_agent_that_pays_all_the_same_is_charged_nothing() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "[[routes.agents]]\nagent = \"AGENT\"\nallow = true\n");
    assert_eq!(agent.buy(gateway.addr, "/paid/page").status, 200);
    // A signature that only the id binds to this request proves nothing without it.
    let bare = agent.request(gateway.addr, "GET", "/paid/page").with(|r| {
        r.covers = ["payment", "signature-agent"].map(String::from).to_vec();
    });
    assert_eq!(exchange(gateway.addr, bare.head()).status, 200);
    assert!(charges(gateway).iter().all(|amount| amount.trim_matches(['0', '.']).is_empty()));
}

#[test]
fn a_claim_makes_it_dearer_and_no_cheaper_offer_is_taken_with_it() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let rules = "[[routes.agents]]\nuser_agent = \"GPTBot\"\nprice = \"0.05 USD\"\n\
                 [[routes.agents]]\naddresses = [\"10.0.0.0/8\"]\nprice = \"0.07 USD\"\n";
    let gateway = site(&origin, &agent, rules);
    let claims = |r: &mut Signed| r.extra = "User-Agent: Mozilla/5.0 (compatible; gptbot/1.2)\r\n".into();
    let host = gateway.addr;
    let offer = exchange(
        host,
        format!("GET /paid/page HTTP/1.1\r\nHost: {host}\r\nUser-Agent: GPTBot\r\nConnection: close\r\n\r\n"),
    );
    let entry = &offer.json()["accepts"][0];
    assert_eq!((&entry["extras"]["price"], &entry["extras"]["class"]), (&"0.05 USD".into(), &"claimed:GPTBot".into()));
    assert_eq!(field_offer(&offer)["accepts"][0]["amount"], "5");
    // The public offer does not buy it for whoever makes the claim.
    let refused = exchange(host, agent.request(host, "GET", "/paid/page").with(claims).head());
    assert_eq!((refused.status, refused.reason()), (402, "price_not_acceptable"));
    assert_eq!(refused.json()["accepts"][0]["extras"]["price"], "0.05 USD");
    assert_eq!(origin.calls(), 0);
    let id = entry["extras"]["id"].as_str().unwrap();
    let paid = exchange(host, agent.signed(&host.to_string(), "GET", "/paid/page", id).with(claims).head());
    assert_eq!(paid.status, 200, "{}", paid.text());
    assert_eq!(charges(gateway), ["0.05"]);
}

#[test]
fn an_agent_may_be_dearer_than_others_and_cannot_hide() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "[[routes.agents]]\nagent = \"AGENT\"\nprice = \"0.03 USD\"\n");
    let refused = exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/page").head());
    assert_eq!((refused.status, refused.reason()), (402, "price_not_acceptable"));
    let entry = &refused.json()["accepts"][0];
    assert_eq!(entry["extras"]["price"], "0.03 USD");
    let id = entry["extras"]["id"].as_str().unwrap();
    let paid = exchange(gateway.addr, agent.signed(&gateway.addr.to_string(), "GET", "/paid/page", id).head());
    assert_eq!(paid.status, 200, "{}", paid.text());
    assert_eq!(charges(gateway), ["0.03"]);
}

#[test]
fn blocks_go_before_everything() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let rules = "[[routes.agents]]\nagent = \"AGENT\"\nblock = true\n[[routes.agents]]\nuser_agent = \"Bytespider\"\n\
                 block = true\n[[routes.agents]]\naddresses = [\"127.0.0.0/8\"]\nallow = true\n[[routes]]\npath = \"/mine\"\n\
                 price = \"1 USD\"\n[[routes.agents]]\naddresses = [\"127.0.0.1\"]\nblock = true\n";
    let gateway = site(&origin, &agent, rules);
    let host = gateway.addr;
    let claimed = format!(
        "GET /paid/x HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {FIREFOX} Bytespider\r\nConnection: close\r\n\r\n"
    );
    for head in [
        claimed,
        signed(&agent, &gateway, "/paid/x").head(),
        format!("GET /mine HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    ] {
        let answer = exchange(host, head);
        assert_eq!((answer.status, answer.reason()), (403, "agent_blocked"), "{answer:?}");
    }
    assert_eq!(origin.calls(), 0);
    // Addresses that the operator vouches for have it free.
    let free = get(host, "/paid/x");
    assert_eq!((free.status, free.header("cache-control")), (200, Some("private")));
}

#[test]
fn an_address_is_the_clients_and_only_a_trusted_proxy_may_name_another() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let rules = "[[routes.agents]]\naddresses = [\"192.0.2.0/24\"]\nallow = true\n";
    let toml = site_toml(&origin, &agent, rules);
    let ask = |gateway: &Gateway| {
        let host = gateway.addr;
        exchange(
            host,
            format!("GET /paid/x HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"),
        )
    };
    assert_eq!(ask(&Gateway::start(&toml)).status, 402);
    let trusting = toml.replace("cores = 2", "cores = 2\ntrusted_proxies = [\"127.0.0.1\"]");
    assert_eq!(ask(&Gateway::start(&trusting)).status, 200);
}

#[test]
fn a_reload_lets_an_agent_in_that_was_unknown_before() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let request = signed(&other, &gateway, "/paid/page");
    assert_eq!(exchange(gateway.addr, request.head()).status, 402);
    let rules = format!("{toml}[[routes.agents]]\nagent = \"{}\"\nallow = true\n", other.url);
    std::fs::write(gateway.dir.path().join("tollgate.toml"), rules).unwrap();
    gateway.signal("HUP");
    let since = Instant::now();
    while !gateway.log().contains("the configuration was read again") {
        assert!(since.elapsed() < PATIENCE, "{}", gateway.log());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
}
