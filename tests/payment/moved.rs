//! A ledger that is moved, removed or new: no payment buys twice, and none goes into a file that nobody finds.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::client::{PATIENCE, exchange, get};
use crate::support::*;

const AUTHORITY: &str = "shop.example";

/// A signed request for a fresh offer, for a host that stays the same whatever the port.
fn signed(gateway: &Gateway, agent: &Agent, path: &str) -> String {
    let offer = exchange(gateway.addr, format!("GET {path} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n"));
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    agent.signed(AUTHORITY, "GET", path, &id).head()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_ledger_that_is_gone_closes_priced_routes_until_it_is_back() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/1").status, 200);
    let elsewhere = gateway.dir.path().join("elsewhere");
    let closed = || get(gateway.addr, "/paid/a").reason() == "ledger_unavailable";

    fs::rename(gateway.ledger(), &elsewhere).unwrap();
    until("the closing", closed);
    assert_eq!(get(gateway.addr, "/free").status, 200);
    assert!(gateway.log().contains("is gone"), "{}", gateway.log());
    // Another file in its place is not the ledger.
    fs::copy(&elsewhere, gateway.ledger()).unwrap();
    until("the second reason", || gateway.log().contains("another file"));
    assert!(closed());

    fs::rename(&elsewhere, gateway.ledger()).unwrap();
    until("the opening", || !closed());
    assert_eq!(agent.buy(gateway.addr, "/paid/2").status, 200);
    let (status, dir) = gateway.stop();
    assert!(status.success());
    assert_eq!(Books::read(dir.path()).charged(), 2);
}

#[test]
fn a_new_ledger_takes_no_payment_from_before_it_was_made() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let (bought, unused) = (signed(&gateway, &agent, "/paid/1"), signed(&gateway, &agent, "/paid/2"));
    assert_eq!(exchange(gateway.addr, &bought).status, 200);
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
    let (_, dir) = gateway.stop();
    fs::remove_file(dir.path().join("tollgate.sqlite")).unwrap();

    let gateway = Gateway::start_in(dir, &site_toml(&origin, &agent, ""));
    for old in [&bought, &unused] {
        let answer = exchange(gateway.addr, old);
        assert_eq!((answer.status, answer.reason()), (402, "offer_expired"));
    }
    assert!(gateway.log().contains("WARN") && gateway.log().contains("new ledger"), "{}", gateway.log());
    assert_eq!(agent.buy(gateway.addr, "/paid/1").status, 200);
    assert_eq!(origin.calls(), 2);

    // The next start finds it, and says nothing.
    let taken = signed(&gateway, &agent, "/paid/3");
    let (_, dir) = gateway.stop();
    let gateway = Gateway::start_in(dir, &site_toml(&origin, &agent, ""));
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
    assert_eq!(exchange(gateway.addr, taken).status, 200);
}
