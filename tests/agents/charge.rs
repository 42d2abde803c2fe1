//! `charge = "agents"`: people pass, and nothing that an agent does wrong makes a person of it.

use crate::support::*;

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const GPTBOT: &str =
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)";

const ROUTE: &str = "\n[[routes]]\npath = \"/news/*\"\nprice = \"0.01 USD\"\ncharge = \"agents\"\n";

/// A request with these header lines.
fn ask(gateway: &Gateway, method: &str, path: &str, lines: &[&str]) -> Answer {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let host = gateway.addr;
    exchange(host, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"))
}

#[test]
fn people_pass_and_agents_are_offered_a_price() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ROUTE));
    let person = format!("User-Agent: {FIREFOX}");
    let answer = ask(&gateway, "GET", "/news/today", &[&person]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "content of /news/today"), "{answer:?}");
    assert_eq!((answer.header("vary"), answer.header("payment-response")), (Some("User-Agent"), None));
    assert!(!origin.last().has("tollgate-agent"));
    let calls = origin.calls();
    let crawler = format!("User-Agent: {GPTBOT}");
    for lines in [
        vec![],
        vec!["User-Agent:"],
        vec!["User-Agent:   "],
        vec![&*crawler],
        vec!["User-Agent: CCBOT/2.0"],
        // One line of a person and one of a crawler.
        vec![&*person, &*crawler],
        // Whatever stands in a field of a payment or signature, it is not a person's.
        vec![&*person, "Signature: "],
        vec![&*person, "Signature-Input: sig1=()"],
        vec![&*person, "Signature-Agent: \"https://signer.example\""],
    ] {
        let answer = ask(&gateway, "GET", "/news/today", &lines);
        assert_eq!((answer.status, answer.reason()), (402, "payment_required"), "{lines:?}");
        let vary = answer.header("vary").unwrap();
        assert!(vary.contains("User-Agent") && vary.contains("Accept"), "{vary}");
    }
    for (line, status, reason) in [
        ("Payment: nonsense", 400, "invalid_payment"),
        ("PAYMENT-SIGNATURE: !", 400, "invalid_payment"),
        ("X-PAYMENT: e30=", 400, "invalid_payment"),
        ("crawler-max-price: nothing", 400, "invalid_payment"),
        ("crawler-exact-price: USD 0.01", 402, "unsupported_scheme"),
    ] {
        let answer = ask(&gateway, "GET", "/news/today", &[&person, line]);
        assert_eq!((answer.status, answer.reason()), (status, reason), "{line}");
    }
    assert_eq!(origin.calls(), calls, "an agent passed");
    // Elsewhere everybody pays.
    assert_eq!(ask(&gateway, "GET", "/paid/page", &[&person]).status, 402);
}

#[test]
fn an_agent_buys_there_as_anywhere() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ROUTE));
    let answer = agent.buy(gateway.addr, "/news/today");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private")), "{answer:?}");
    // A broken payment of somebody who looks like a person is refused.
    let broken = agent.request(gateway.addr, "GET", "/news/today").with(|r| {
        r.keyid = "x".repeat(43);
        r.extra = format!("User-Agent: {FIREFOX}\r\n");
    });
    let calls = origin.calls();
    let answer = exchange(gateway.addr, broken.head());
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    assert_eq!(origin.calls(), calls);
}

#[test]
fn the_list_of_crawlers_can_be_changed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = format!("{ROUTE}[identity]\ncrawlers = [\"MyReader\"]\ncrawlers_ignore = [\"ccbot\"]\n");
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    for (name, status) in [("CCBot/2.0", 200), ("GPTBot/1.2", 402), ("myreader/1 (x)", 402), ("MyReaders/1", 200)] {
        assert_eq!(ask(&gateway, "GET", "/news/x", &[&format!("User-Agent: {name}")]).status, status, "{name}");
    }
}

#[test]
fn a_preflight_for_a_payment_is_answered_here_and_any_other_by_the_origin() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ROUTE));
    let person = format!("User-Agent: {FIREFOX}");
    let preflight = |names: &str| {
        let names = format!("Access-Control-Request-Headers: {names}");
        let lines = [&*person, "Origin: https://app.example", "Access-Control-Request-Method: GET", &*names];
        ask(&gateway, "OPTIONS", "/news/x", &lines)
    };
    let ours = preflight("content-type, PAYMENT-SIGNATURE");
    assert_eq!((ours.status, origin.calls()), (204, 0), "{ours:?}");
    let theirs = preflight("content-type");
    assert_eq!((theirs.status, origin.calls()), (200, 1), "{theirs:?}");
}
