//! `pass`: who has paid for something has it again without charge.

use std::time::Duration;

use serde_json::Value;

use crate::support::agent::Signed;
use crate::support::client::{Connection, get};
use crate::support::gateway::tollgate;
use crate::support::*;

fn site(origin: &Origin, agent: &Agent, terms: &str) -> Gateway {
    Gateway::start(&site_toml(origin, agent, terms))
}

/// A signed request that pays nothing.
fn signed(agent: &Agent, gateway: &Gateway, path: &str) -> Signed {
    agent.signed(&gateway.addr.to_string(), "GET", path, "").with(|r| {
        r.carrier = "X-Note";
        r.covers = ["@authority", "@method", "@path", "@query", "signature-agent;sig1"].map(String::from).to_vec();
        r.nonce = Some(format!("n{}", rand()));
    })
}

fn rand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn again(agent: &Agent, gateway: &Gateway, path: &str) -> Answer {
    exchange(gateway.addr, signed(agent, gateway, path).head())
}

/// Kind, amount and asset of every entry, oldest first, after an audit and a proof of each.
fn entries(gateway: Gateway) -> Vec<String> {
    let (_, dir) = gateway.stop();
    let (code, audit, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{audit}{err}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let mut rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.reverse();
    for row in &rows {
        let n = row["n"].as_str().unwrap();
        let (code, out, err) = tollgate(dir.path(), &["ledger", "verify", n, "--ledger", "tollgate.sqlite"]);
        assert_eq!(code, 0, "{row}: {out}{err}");
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| format!("{} {} {}", text(row, "kind"), text(row, "amount"), text(row, "asset"))).collect()
}

const BOUGHT: &str = "capture 0.01 USD";
const FREE: &str = "capture 1 requests";

#[test]
fn a_pass_for_a_time_repeats_what_was_bought_and_nothing_else() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let more =
        format!("pass = \"24h\"\n[[accounts]]\nname = \"b\"\nagents = [\"{}\"]\ncredit = \"1 USD\"\n", other.url);
    let gateway = site(&origin, &agent, &more);
    assert_eq!(again(&agent, &gateway, "/paid/a?q=1").status, 402, "nothing was bought");
    assert_eq!(get(gateway.addr, "/paid/a?q=1").json()["accepts"][0]["extras"]["pass"], "1d");
    assert_eq!(agent.buy(gateway.addr, "/paid/a?q=1").status, 200);
    for _ in 0..3 {
        let answer = again(&agent, &gateway, "/paid/a?q=1");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private")), "{}", answer.text());
        assert!(
            answer.header("payment-response").is_none() && answer.header("vary").unwrap().contains("Signature-Agent")
        );
        assert_eq!(origin.last().header("tollgate-account"), Some("acme"));
    }
    // HEAD follows GET.
    let head =
        exchange(gateway.addr, signed(&agent, &gateway, "/paid/a?q=1").with(|r| r.method = "HEAD".into()).head());
    assert_eq!(head.status, 200);
    let calls = origin.calls();
    for path in ["/paid/a?q=2", "/paid/a", "/paid/b?q=1"] {
        assert_eq!(again(&agent, &gateway, path).status, 402, "{path}");
    }
    let post = signed(&agent, &gateway, "/paid/a?q=1").with(|r| r.method = "POST".into());
    assert_eq!(exchange(gateway.addr, post.head_with("Content-Length: 0\r\n")).status, 402);
    // Nobody else has it, signed by whatever key, and without a signature it is offered as ever.
    assert_eq!(again(&other, &gateway, "/paid/a?q=1").status, 402);
    let forged = signed(&agent, &gateway, "/paid/a?q=1").with(|r| r.key = other.key.clone());
    assert_eq!(exchange(gateway.addr, forged.head()).reason(), "payment_required");
    assert_eq!(get(gateway.addr, "/paid/a?q=1").reason(), "payment_required");
    assert_eq!(origin.calls(), calls);
    // Who pays all the same is not charged.
    assert_eq!(agent.buy(gateway.addr, "/paid/a?q=1").status, 200);
    assert_eq!(entries(gateway), [BOUGHT, "pass 0 requests", FREE, FREE, FREE, FREE, FREE]);
}

#[test]
fn a_pass_by_number_is_used_up_and_bought_again() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "pass = 2\npass_for = \"route\"");
    let gateway = Gateway::start(&toml);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    assert_eq!(again(&agent, &gateway, "/paid/a").status, 200);
    // A restart forgets nothing of it.
    let gateway = Gateway::start_in(gateway.stop().1, &toml);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let over = again(&agent, &gateway, "/paid/a");
    assert_eq!((over.status, over.reason()), (402, "payment_required"), "{}", over.text());
    assert!(over.json()["accepts"].is_array());
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    assert_eq!(again(&agent, &gateway, "/paid/a").status, 200);
    let pass = "pass 2 requests";
    assert_eq!(entries(gateway), [BOUGHT, pass, FREE, FREE, BOUGHT, pass, FREE]);
}

#[test]
fn a_pass_for_the_route_repeats_all_that_the_route_sells() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "pass = \"1h\"\npass_for = \"route\"\n[[routes]]\npath = \"/other/*\"\nprice = \"0.01 USD\"\npass = 5\n";
    let gateway = site(&origin, &agent, more);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    for path in ["/paid/a", "/paid/b?c", "/paid/d/e"] {
        assert_eq!(again(&agent, &gateway, path).status, 200, "{path}");
    }
    assert_eq!(again(&agent, &gateway, "/other/a").status, 402);
    assert_eq!(entries(gateway), [BOUGHT, "pass 0 requests", FREE, FREE, FREE]);
}

/// Has a running gateway read another configuration.
fn reload(gateway: &Gateway, toml: &str, times: usize) {
    std::fs::write(gateway.dir.path().join("tollgate.toml"), toml).unwrap();
    gateway.signal("HUP");
    let start = std::time::Instant::now();
    while gateway.log().matches("was read again").count() < times {
        assert!(start.elapsed() < Duration::from_secs(30), "{}", gateway.log());
        std::thread::yield_now();
    }
}

#[test]
fn what_an_offer_promised_is_had_whatever_the_configuration_says_by_then() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let with = |pass: &str| site_toml(&origin, &agent, pass);
    let gateway = Gateway::start(&with("pass = 3"));
    let promised = agent.request(gateway.addr, "GET", "/paid/a");
    reload(&gateway, &with("pass = 1"), 1);
    let less = agent.request(gateway.addr, "GET", "/paid/b");
    reload(&gateway, &with("pass = \"sold\""), 2);
    let none = agent.request(gateway.addr, "GET", "/paid/c");
    assert!(get(gateway.addr, "/paid/c").json()["accepts"][0]["extras"]["pass"].is_null());
    for (request, path, times) in [(promised, "/paid/a", 3), (less, "/paid/b", 1), (none, "/paid/c", 0)] {
        assert_eq!(exchange(gateway.addr, request.head()).status, 200);
        for _ in 0..times {
            assert_eq!(again(&agent, &gateway, path).status, 200, "{path}");
        }
        assert_eq!(again(&agent, &gateway, path).status, 402, "{path}");
    }
    entries(gateway);
}

#[test]
fn a_pass_stays_its_agents_whatever_becomes_of_account_and_route() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = |more: &str| site_toml(&origin, &agent, &format!("name = \"page\"\n{more}"));
    let gateway = Gateway::start(&toml("pass = \"1h\""));
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let others = [
        toml("pass = \"1h\"").replace("\"acme\"", "\"renamed\""),
        toml("pass = 5\npass_for = \"route\""),
        toml("pass = \"sold\"").replace("name = \"page\"", "name = \"other\"").replace("0.01 USD", "0.07 USD"),
    ];
    for (at, toml) in others.iter().enumerate() {
        reload(&gateway, toml, at + 1);
        assert_eq!(again(&agent, &gateway, "/paid/a").status, 200, "{toml}");
    }
    // What it gives is booked where it was bought.
    assert_eq!(entries(gateway), [BOUGHT, "pass 0 requests", FREE, FREE, FREE]);
}

/// None of them has a pass yet when it is paid, so each is charged, and each has the pass that it has paid for.
#[test]
fn what_is_bought_at_once_has_a_pass_each() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "pass = 2\npass_for = \"route\"");
    let heads: Vec<String> = (0..4).map(|i| agent.request(gateway.addr, "GET", &format!("/paid/{i}")).head()).collect();
    let mut sockets: Vec<Connection> = heads.iter().map(|_| Connection::open(gateway.addr)).collect();
    for (socket, head) in sockets.iter_mut().zip(&heads) {
        socket.write(head);
    }
    assert!(sockets.iter_mut().all(|socket| socket.read(false).unwrap().status == 200));
    drop(sockets);
    let given = (0..20).take_while(|i| again(&agent, &gateway, &format!("/paid/again{i}")).status == 200).count();
    let entries = entries(gateway);
    let count = |of: &str| entries.iter().filter(|entry| *entry == of).count();
    let (bought, passes, free) = (count(BOUGHT), count("pass 2 requests"), count(FREE));
    // Of those that came later than the first capture, some may have been given by a pass.
    assert_eq!((bought, bought * 2, bought + free), (passes, free, 4 + given), "{entries:?}");
}

#[test]
fn a_signature_repeats_once() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "pass = \"1h\"\npass_for = \"route\"");
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let request = signed(&agent, &gateway, "/paid/a");
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    assert_eq!(exchange(gateway.addr, request.head()).reason(), "signature_used");
    // Nor for another page of the route, nor late.
    let moved = request.clone().with(|r| r.nonce = Some("other".into())).head().replace("/paid/a ", "/paid/b ");
    assert_eq!(exchange(gateway.addr, moved).reason(), "payment_required");
    let late =
        signed(&agent, &gateway, "/paid/a").with(|r| (r.created, r.expires) = (r.created - 900, r.created - 600));
    assert_eq!(exchange(gateway.addr, late.head()).reason(), "payment_required");
    assert_eq!(entries(gateway), [BOUGHT, "pass 0 requests", FREE]);
}

#[test]
fn of_many_at_once_as_many_are_served_as_the_pass_has() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "pass = 5");
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let heads: Vec<String> = (0..16).map(|_| signed(&agent, &gateway, "/paid/a").head()).collect();
    let mut sockets: Vec<Connection> = heads.iter().map(|_| Connection::open(gateway.addr)).collect();
    for (socket, head) in sockets.iter_mut().zip(&heads) {
        socket.write(head);
    }
    let statuses: Vec<u16> = sockets.iter_mut().map(|socket| socket.read(false).unwrap().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 11, "{statuses:?}");
    drop(sockets);
    let expected: Vec<&str> = [BOUGHT, "pass 5 requests"].into_iter().chain([FREE; 5]).collect();
    assert_eq!(entries(gateway), expected);
}

#[test]
fn a_purchase_that_is_voided_takes_its_pass_along() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "pass = \"1h\"");
    let bought = agent.buy(gateway.addr, "/paid/a");
    assert_eq!((bought.status, again(&agent, &gateway, "/paid/a").status), (200, 200));
    let void = ["ledger", "void", "281474976710657", "--reason", "test", "-c", "tollgate.toml"];
    let (code, _, err) = tollgate(gateway.dir.path(), &void);
    assert_eq!(code, 0, "{err}");
    assert_eq!(again(&agent, &gateway, "/paid/a").status, 402);
    // The next purchase has one of its own.
    assert_eq!((agent.buy(gateway.addr, "/paid/a").status, again(&agent, &gateway, "/paid/a").status), (200, 200));
    let expected = [BOUGHT, "pass 0 requests", FREE, "void 0.01 USD", BOUGHT, "pass 0 requests", FREE];
    assert_eq!(entries(gateway), expected);
}

#[test]
fn what_fails_at_the_origin_uses_nothing_up_and_a_free_purchase_buys_no_pass() {
    let origin = Origin::scripted(|seen, socket| {
        let status = if seen.has("x-fail") { "500 Oh" } else { "200 OK" };
        std::io::Write::write_all(socket, format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").as_bytes())
            .is_ok()
    });
    let agent = Agent::start();
    let gateway = site(&origin, &agent, "pass = 1");
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let fails = signed(&agent, &gateway, "/paid/a").with(|r| r.extra = "X-Fail: yes\r\n".into());
    assert_eq!(exchange(gateway.addr, fails.head()).status, 500);
    assert_eq!(again(&agent, &gateway, "/paid/a").status, 200);
    assert_eq!(again(&agent, &gateway, "/paid/a").status, 402);
    assert_eq!(entries(gateway), [BOUGHT, "pass 1 requests", FREE]);
}

#[test]
fn a_short_pass_is_over_when_its_time_is() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "pass = \"1s\"");
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let start = std::time::Instant::now();
    while again(&agent, &gateway, "/paid/a").status != 402 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(entries(gateway).contains(&"pass 0 requests".to_owned()));
}

/// Crawls buy passes, too; what an allowance gives costs nothing, and buys none.
#[test]
fn a_crawl_buys_a_pass_where_it_is_charged() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "accept = [\"crawl\"]\npass = \"1h\"\n")
        .replace("credit = \"1000 USD\"", "credit = \"1 USD\"\nallowance = 1");
    let gateway = Gateway::start(&toml);
    let bid = |path| agent.signed_in("Crawler-Exact-Price", gateway.addr, path, "USD 0.01").head();
    for (path, charged, repeated) in [("/paid/a", "USD 0.00", 402), ("/paid/b", "USD 0.01", 200)] {
        let paid = exchange(gateway.addr, bid(path));
        assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some(charged)));
        assert_eq!(again(&agent, &gateway, path).status, repeated);
    }
    assert_eq!(entries(gateway), [FREE, BOUGHT, "pass 0 requests", FREE]);
}
