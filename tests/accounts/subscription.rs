//! `allowance`: requests of a period without charge, and a price beyond them.

use crate::licence::{charges, site};
use crate::support::client::Connection;
use crate::support::*;

fn of(what: &[&str]) -> Vec<(String, String)> {
    let one = |word: &str| match word {
        "free" => ("1".to_owned(), "requests".to_owned()),
        amount => (amount.to_owned(), "USD".to_owned()),
    };
    what.iter().map(|word| one(word)).collect()
}

#[test]
fn requests_within_the_allowance_cost_nothing_and_those_beyond_it_their_price() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let agreed = "credit = \"1000 USD\"\nallowance = 2\nallowance_routes = [\"page\"]";
    let gateway = Gateway::start(&site(&origin, &agent, agreed, ""));
    // Another route has no part in it.
    for path in ["/paid/a", "/archive/a", "/paid/b", "/paid/c"] {
        let answer = agent.buy(gateway.addr, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.header("payment-response").is_some());
    }
    assert_eq!(origin.last().header("tollgate-account"), Some("acme"));
    let gateway = Gateway::start_in(gateway.stop().1, &site(&origin, &agent, agreed, ""));
    // It is used up for this period, whatever is started anew.
    assert_eq!(agent.buy(gateway.addr, "/paid/d").status, 200);
    assert_eq!(charges(gateway), of(&["free", "1.00", "free", "0.01", "0.01"]));
}

#[test]
fn with_no_credit_beyond_it_the_answer_says_when_there_is_more() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let agreed = "credit = \"0 USD\"\nallowance = 1\nperiod = \"day\"";
    let gateway = Gateway::start(&site(&origin, &agent, agreed, ""));
    assert_eq!(agent.buy(gateway.addr, "/archive/a").status, 200);
    let refused = agent.buy(gateway.addr, "/paid/b");
    assert_eq!((refused.status, refused.reason()), (402, "credit_exhausted"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert_eq!(charges(gateway), of(&["free"]));
}

#[test]
fn what_was_not_given_does_not_count() {
    let origin = Origin::scripted(|seen, socket| {
        let status = if seen.path().ends_with("missing") { "404 Not Found" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        std::io::Write::write_all(socket, answer.as_bytes()).is_ok()
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site(&origin, &agent, "credit = \"0 USD\"\nallowance = 1", ""));
    assert_eq!(agent.buy(gateway.addr, "/paid/missing").status, 404);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    // A replay is what it is without an allowance.
    let request = agent.request(gateway.addr, "GET", "/paid/b");
    assert_eq!(exchange(gateway.addr, request.head()).reason(), "credit_exhausted");
    assert_eq!(charges(gateway), of(&["free"]));
}

#[test]
fn the_last_one_is_had_by_one_of_two() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent, "credit = \"0 USD\"\nallowance = 5", ""));
    let heads: Vec<String> =
        (0..12).map(|i| agent.request(gateway.addr, "GET", &format!("/paid/{i}")).head()).collect();
    let mut sockets: Vec<Connection> = heads.iter().map(|_| Connection::open(gateway.addr)).collect();
    for (socket, head) in sockets.iter_mut().zip(&heads) {
        socket.write(head);
    }
    let statuses = sockets.iter_mut().map(|socket| socket.read(false).unwrap().status);
    assert_eq!(statuses.filter(|status| *status == 200).count(), 5);
    drop(sockets);
    assert_eq!(charges(gateway), of(&["free"; 5]));
}

#[test]
fn a_crawl_within_the_allowance_is_told_that_it_was_charged_nothing() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let agreed = "credit = \"1 USD\"\nallowance = 1";
    let gateway = Gateway::start(&site(&origin, &agent, agreed, "accept = [\"crawl\"]\n"));
    for charged in ["USD 0.00", "USD 0.01"] {
        let bid = agent.signed_in("Crawler-Exact-Price", gateway.addr, "/paid/page", "USD 0.01").with(|r| {
            r.nonce = Some(format!("nonce-{charged}"));
        });
        let paid = exchange(gateway.addr, bid.head());
        assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some(charged)), "{paid:?}");
    }
    assert_eq!(charges(gateway), of(&["free", "0.01"]));
}
