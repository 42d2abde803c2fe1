//! Pay per crawl: a signed price field, charged with each crawl.

use std::io::Write as _;

use crate::support::agent::{Signed, now};
use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::*;

const ACCEPT: &str = "accept = [\"crawl\"]\n";
const EXACT: &str = "crawler-exact-price";
const MAX: &str = "crawler-max-price";

fn shop(origin: &Origin, agent: &Agent) -> Gateway {
    Gateway::start(&site_toml(origin, agent, ACCEPT))
}

fn rows(gateway: Gateway) -> Vec<serde_json::Value> {
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("crawler-error").unwrap_or(""))
}

#[test]
fn the_price_is_in_a_field_and_in_words() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = format!(
        "{ACCEPT}[[routes]]\npath = \"/both/*\"\nprice = \"0.01 USD\"\naccept = [\"deferred\", \"crawl\"]\n\
         [[routes]]\npath = \"/other\"\nprice = \"1 USD\"\n"
    );
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    let offer = get(gateway.addr, "/paid/page");
    assert_eq!((error(&offer), offer.reason()), ((402, "MissingCrawlerPrice"), "payment_required"));
    assert_eq!(offer.header("crawler-price"), Some("USD 0.01"));
    assert_eq!(offer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(offer.text().contains("USD 0.01") && offer.header("payment-required").is_none(), "{offer:?}");
    let both = get(gateway.addr, "/both/page");
    assert_eq!((both.status, both.header("crawler-price")), (402, Some("USD 0.01")));
    assert_eq!(both.json()["accepts"][0]["scheme"], "deferred");
    // The same route is still paid by its other scheme.
    assert_eq!(agent.buy(gateway.addr, "/both/page").status, 200);
    let other = get(gateway.addr, "/other");
    assert_eq!((other.header("crawler-price"), other.header("crawler-error")), (None, None));
    let answer = exchange(gateway.addr, agent.signed_in(EXACT, gateway.addr, "/other", "USD 1").head());
    assert_eq!((answer.status, answer.reason(), answer.header("crawler-error")), (402, "unsupported_scheme", None));
    assert_eq!(get(gateway.addr, "/crawlers.json").status, 200);
}

#[test]
fn a_crawl_is_charged_confirmed_and_booked() {
    let origin = Origin::scripted(|_, socket| {
        let fields = "Crawler-Charged: fake\r\nCrawler-Price: fake\r\nCrawler-Error: fake\r\n";
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok").is_ok()
    });
    let agent = Agent::start();
    let gateway = shop(&origin, &agent);
    for (i, (field, bid)) in [(EXACT, "USD 0.01"), (EXACT, "usd 0.010"), (MAX, "USD 5")].into_iter().enumerate() {
        let request = agent
            .signed_in(field, gateway.addr, &format!("/paid/{i}"), bid)
            .with(|r| r.extra = "cf-pay-per-crawl: fake\r\n".into());
        let answer = exchange(gateway.addr, request.head());
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
        assert_eq!(answer.header("crawler-charged"), Some("USD 0.01"));
        assert!(answer.headers.iter().all(|(_, value)| value != "fake"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("private"));
        let seen = origin.last();
        assert_eq!(seen.header("cf-pay-per-crawl"), Some("protocol=tollgate, pricing=zone-default"));
        assert!(!seen.has(field) && seen.header("tollgate-payment-id").is_some());
    }
    let rows = rows(gateway);
    assert!(rows.len() == 3 && rows.iter().all(|r| r["scheme"] == "crawl" && r["amount"] == "0.01"), "{rows:?}");
}

#[test]
fn a_signature_may_name_the_server_by_the_target_and_the_agent_in_the_legacy_form() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let request = agent.signed_in(EXACT, gateway.addr, "/paid/page", "USD 0.01").with(|r| {
        r.agent = r.agent.replace("sig1=", "");
        r.covers = ["@target-uri", EXACT, "signature-agent"].map(String::from).to_vec();
    });
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
}

/// Sends one bent request; nothing may reach the origin or the books.
fn refused(status: u16, code: &str, change: impl FnOnce(&mut Signed)) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let request = agent.signed_in(EXACT, gateway.addr, "/paid/page", "USD 0.01").with(change);
    let answer = exchange(gateway.addr, request.head());
    assert_eq!(error(&answer), (status, code), "{} {}", answer.reason(), answer.text());
    assert_eq!(answer.header("crawler-price"), (status == 402).then_some("USD 0.01"));
    assert!(answer.header("crawler-charged").is_none());
    assert_eq!(origin.calls(), 0, "the origin was called");
    assert_eq!(rows(gateway), Vec::<serde_json::Value>::new(), "something was written");
}

fn bids(field: &'static str, price: &str) -> impl FnOnce(&mut Signed) {
    move |r| {
        (r.carrier, r.payment) = (field, price.to_owned());
        r.covers = ["@authority", field, "signature-agent;sig1"].map(String::from).to_vec();
    }
}

#[test]
fn prices_that_are_not_the_price() {
    refused(402, "InvalidCrawlerExactPrice", bids(EXACT, "USD 0.02"));
    refused(402, "InvalidCrawlerExactPrice", bids(EXACT, "EUR 0.01"));
    refused(402, "InvalidCrawlerMaxPrice", bids(MAX, "USD 0.009"));
    refused(400, "InvalidCrawlerPriceValue", bids(EXACT, "0.01"));
    refused(400, "InvalidCrawlerPriceValue", bids(MAX, "USD lots"));
    refused(400, "ConflictingPriceHeaders", |r| r.extra = "crawler-max-price: USD 1\r\n".into());
    refused(400, "ConflictingPriceHeaders", |r| r.extra = "crawler-exact-price: USD 0.01\r\n".into());
    refused(400, "ConflictingPriceHeaders", |r| r.extra = "X-PAYMENT: e30=\r\n".into());
}

#[test]
fn signatures_that_do_not_hold() {
    let covers = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|c| (*c).to_owned()).collect();
        move |r: &mut Signed| r.covers = list
    };
    refused(400, "InvalidSignature", covers(&["@authority", "signature-agent"]));
    refused(400, "InvalidSignature", covers(&["@authority", EXACT]));
    refused(400, "InvalidSignature", covers(&[EXACT, "signature-agent"]));
    refused(400, "InvalidSignature", |r| r.key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]));
    refused(400, "InvalidSignature", |r| r.keyid = "nobody".into());
    refused(400, "InvalidSignature", |r| r.tag = "other".into());
    refused(400, "InvalidSignature", |r| (r.created, r.expires) = (now() - 200, now() - 100));
    refused(400, "InvalidSignature", |r| r.expires = r.created + 301);
    refused(403, "CrawlerForbidden", |r| r.agent = "sig1=\"https://x.example\"".into());
}

#[test]
fn a_price_without_signature_or_with_another_than_the_signed_one() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let bare = format!("GET /paid/p HTTP/1.1\r\nHost: x\r\n{EXACT}: USD 0.01\r\nConnection: close\r\n\r\n");
    let answer = exchange(gateway.addr, bare);
    assert_eq!((error(&answer), answer.reason()), ((400, "StrongAuthRequired"), "signature_required"));
    let head = agent.signed_in(MAX, gateway.addr, "/paid/p", "USD 0.001").head();
    let answer = exchange(gateway.addr, head.replace("USD 0.001", "USD 0.01"));
    assert_eq!((error(&answer), origin.calls()), ((400, "InvalidSignature"), 0));
}

#[test]
fn who_is_blocked_or_has_used_up_its_credit() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, ACCEPT);
    let gateway = Gateway::start(&toml.replace("credit = \"1000 USD\"", "credit = \"1 USD\"\nblocked = true"));
    let buy = |gateway: &Gateway, i| {
        exchange(gateway.addr, agent.signed_in(EXACT, gateway.addr, &format!("/paid/{i}"), "USD 0.01").head())
    };
    assert_eq!((error(&buy(&gateway, 1)), agent.directory.calls()), ((403, "CrawlerForbidden"), 0));
    let gateway = Gateway::start(&toml.replace("1000 USD", "0.01 USD"));
    assert_eq!(buy(&gateway, 1).status, 200);
    let answer = buy(&gateway, 2);
    assert_eq!((error(&answer), answer.reason(), origin.calls()), ((403, "PaymentFailed"), "payment_failed", 1));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    let gateway = Gateway::start(&toml.replace("1000 USD", "1000 EUR"));
    assert_eq!((error(&buy(&gateway, 3)), origin.calls()), ((403, "PaymentFailed"), 1));
}

#[test]
fn each_crawl_is_charged_and_a_copy_of_one_is_refused() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, ACCEPT);
    let gateway = Gateway::start(&toml);
    let first = agent.signed_in(EXACT, gateway.addr, "/paid/page", "USD 0.01");
    assert_eq!(exchange(gateway.addr, first.head()).status, 200);
    let second = first.clone().with(|r| r.nonce = Some("second".into()));
    assert_eq!(exchange(gateway.addr, second.head()).status, 200);
    let again = |gateway: &Gateway| {
        for request in [&first, &second] {
            let answer = exchange(gateway.addr, request.head());
            assert_eq!((error(&answer), answer.reason()), ((400, "InvalidSignature"), "signature_used"));
            assert!(answer.header("tollgate-receipt").is_some());
        }
    };
    again(&gateway);
    // HEAD costs what GET costs, and is the same request.
    let head = first.head().replacen("GET", "HEAD", 1);
    assert_eq!(exchange(gateway.addr, head).reason(), "signature_used");
    let other = first.head().replacen("/paid/page", "/paid/other", 1);
    assert_eq!(exchange(gateway.addr, other).status, 200, "one signature with two requests");
    let covered = first.clone().with(|r| r.covers.push("@path".into())).head();
    let moved = covered.replacen("/paid/page", "/paid/elsewhere", 1);
    assert_eq!(error(&exchange(gateway.addr, moved)), (400, "InvalidSignature"));
    let addr = gateway.addr.to_string();
    let gateway = Gateway::start_in(gateway.stop().1, &toml.replace("127.0.0.1:0", &addr));
    again(&gateway);
    assert_eq!((origin.calls(), rows(gateway).len()), (3, 3));
}

#[test]
fn head_is_charged_and_has_no_body() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let request = agent.signed_in(EXACT, gateway.addr, "/paid/p", "USD 0.01").with(|r| r.method = "HEAD".into());
    let answer = exchange(gateway.addr, request.head());
    assert_eq!((answer.status, answer.body.len(), answer.header("crawler-charged")), (200, 0, Some("USD 0.01")));
}

#[test]
fn copies_sent_at_once_are_served_once() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    for round in 0..4 {
        let head = agent.signed_in(EXACT, gateway.addr, &format!("/paid/{round}"), "USD 0.01").head();
        let barrier = std::sync::Barrier::new(16);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let send = || {
                barrier.wait();
                exchange(gateway.addr, &head)
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        let fair = |a: &Answer| a.status == 200 || matches!(a.reason(), "signature_used" | "payment_in_flight");
        assert!(answers.iter().all(fair), "{answers:?}");
    }
    assert_eq!((origin.calls(), rows(gateway).len()), (4, 4));
}

#[test]
fn an_origin_that_fails_is_not_charged() {
    let origin =
        Origin::scripted(|_, socket| socket.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").is_ok());
    let agent = Agent::start();
    let gateway = shop(&origin, &agent);
    let answer = exchange(gateway.addr, agent.signed_in(EXACT, gateway.addr, "/paid/p", "USD 0.01").head());
    assert_eq!((answer.status, answer.header("crawler-charged")), (404, None));
    assert_eq!(rows(gateway).len(), 0);
}

/// An origin that names a price for each path, and a gateway that lets it.
fn in_band() -> (Origin, Agent, Gateway) {
    let origin = Origin::scripted(|seen, socket| {
        let (status, price) = match seen.path() {
            "/paid/dear" => ("200 OK", "Crawler-Price: USD 0.05\r\n"),
            "/paid/free" => ("200 OK", "Crawler-Price: USD 0\r\n"),
            "/paid/wrong" => ("200 OK", "Crawler-Price: 0.05\r\n"),
            "/paid/euro" => ("200 OK", "Crawler-Price: EUR 0.05\r\n"),
            "/paid/twice" => ("200 OK", "Crawler-Price: USD 0.05\r\nCrawler-Price: USD 0.05\r\n"),
            "/paid/gone" => ("404 Not Found", "Crawler-Price: USD 0.05\r\n"),
            _ => ("200 OK", ""),
        };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n{price}\r\npage").is_ok()
    });
    let agent = Agent::start();
    let route = "price = \"0.01 USD\"\naccept = [\"crawl\"]\norigin_price = true\nmethods = [\"GET\"]\n";
    let toml = site_toml(&origin, &agent, "").replace("price = \"0.01 USD\"\n", route);
    let gateway = Gateway::start(&toml.replace("credit = \"1000 USD\"", "credit = \"0.20 USD\""));
    (origin, agent, gateway)
}

#[test]
fn an_origin_names_its_price_and_nothing_of_the_page_is_given_before_it_is_paid() {
    let (origin, agent, gateway) = in_band();
    let ask = |path: &str| {
        exchange(gateway.addr, format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.addr))
    };
    for (path, price) in [("/paid/dear", "USD 0.05"), ("/paid/page", "USD 0.01")] {
        let answer = ask(path);
        assert_eq!(error(&answer), (402, "MissingCrawlerPrice"), "{answer:?}");
        assert_eq!(answer.header("crawler-price"), Some(price), "{path}");
        assert!(answer.text().contains(&format!("Price: {price}")) && !answer.text().contains("page"), "{answer:?}");
        assert_eq!(origin.last().header("cf-pay-per-crawl"), Some("protocol=tollgate, pricing=in-band"));
    }
    // What costs nothing, and what is no success, passes.
    assert_eq!((ask("/paid/free").status, ask("/paid/free").text().as_str()), (200, "page"));
    assert_eq!((ask("/paid/gone").status, ask("/paid/gone").header("crawler-price")), (404, None));
    for path in ["/paid/wrong", "/paid/euro", "/paid/twice"] {
        let answer = ask(path);
        assert_eq!((answer.status, answer.reason()), (502, "origin_price_invalid"), "{answer:?}");
        assert!(!answer.text().contains("page"));
    }

    let nonce = std::cell::Cell::new(0);
    let bid = |field, path: &str, bid: &str| {
        // Another signature each time, or it would be a payment that was used.
        nonce.set(nonce.get() + 1);
        let nonce = Some(format!("nonce-{}", nonce.get()));
        exchange(gateway.addr, agent.signed_in(field, gateway.addr, path, bid).with(|r| r.nonce = nonce).head())
    };
    for (field, text, code) in
        [(EXACT, "USD 0.01", "InvalidCrawlerExactPrice"), (MAX, "USD 0.049", "InvalidCrawlerMaxPrice")]
    {
        let answer = bid(field, "/paid/dear", text);
        assert_eq!(error(&answer), (402, code), "{answer:?}");
        assert_eq!(answer.header("crawler-price"), Some("USD 0.05"));
        assert!(!answer.text().contains("page"));
    }
    let answer = bid(MAX, "/paid/wrong", "USD 0.1");
    assert_eq!(error(&answer), (502, "InvalidContentPrice"), "{answer:?}");
    // Nothing is charged for what is free, and never more than the price: four times 0.05 is all that the account may owe.
    let free = bid(MAX, "/paid/free", "USD 0.2");
    assert_eq!((free.status, free.header("crawler-charged")), (200, None), "{free:?}");
    for i in 0..4 {
        let most = if i == 3 { "USD 0.05" } else { "USD 0.051" };
        let paid = bid(MAX, "/paid/dear", most);
        assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some("USD 0.05")), "{paid:?}");
    }
    assert_eq!(error(&bid(MAX, "/paid/dear", "USD 0.05")), (403, "PaymentFailed"));
    let rows = rows(gateway);
    assert!(rows.len() == 4 && rows.iter().all(|row| row["amount"] == "0.05"), "{rows:?}");
}
