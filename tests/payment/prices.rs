//! Prices that the origin names, kept for a while.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::exchange;
use crate::support::gateway::tollgate;
use crate::support::*;

/// An origin whose pages cost as many cents as it is told; `/paid/vary` says that it depends on who asks.
fn shop(more: &str) -> (Origin, Arc<AtomicUsize>, Agent, Gateway) {
    let cents = Arc::new(AtomicUsize::new(5));
    let price = cents.clone();
    let origin = Origin::scripted(move |seen, socket| {
        let vary = if seen.path() == "/paid/vary" { "Vary: User-Agent\r\n" } else { "" };
        let price = price.load(Ordering::Relaxed);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{vary}Crawler-Price: USD 0.0{price}\r\n\r\n");
        write!(socket, "{head}{}", if seen.line.starts_with("HEAD") { "" } else { "page" }).is_ok()
    });
    let agent = Agent::start();
    let route = "accept = [\"crawl\"]\norigin_price = true\nmethods = [\"GET\"]\n";
    let gateway = Gateway::start(&site_toml(&origin, &agent, &format!("{route}{more}")));
    (origin, cents, agent, gateway)
}

/// Asks without a payment: the price, and whether the origin was asked.
fn ask(gateway: &Gateway, origin: &Origin, method: &str, path: &str, lines: &str) -> (String, bool) {
    let (calls, host) = (origin.calls(), gateway.addr);
    let answer =
        exchange(host, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"));
    assert!(answer.status == 402 && !answer.text().contains("page"), "{answer:?}");
    assert_eq!(answer.header("crawler-error"), Some("MissingCrawlerPrice"));
    (answer.header("crawler-price").unwrap().to_owned(), origin.calls() > calls)
}

#[test]
fn a_known_price_is_offered_without_asking_and_never_charged_over_the_bid() {
    let (origin, cents, agent, gateway) = shop("");
    let ask = |method: &str, path: &str, lines: &str| ask(&gateway, &origin, method, path, lines);
    let said = |price: &str, asked: bool| (format!("USD {price}"), asked);
    assert_eq!(ask("GET", "/paid/a?b=1", ""), said("0.05", true));
    assert_eq!(ask("GET", "/paid/a?b=1", ""), said("0.05", false));
    assert_eq!(ask("HEAD", "/paid/%61?b=1", ""), said("0.05", false));
    assert_eq!(ask("GET", "/paid/a?b=2", ""), said("0.05", true));
    // Whoever says who he is may pay less, and what varies with who asks is asked.
    for line in ["Cookie: a=1\r\n", "Authorization: Basic eDp5\r\n"] {
        assert_eq!(ask("GET", "/paid/a?b=1", line), said("0.05", true));
        assert_eq!(ask("GET", "/paid/c", line), said("0.05", true));
    }
    assert_eq!(ask("GET", "/paid/vary", ""), said("0.05", true));
    assert_eq!(ask("GET", "/paid/vary", ""), said("0.05", true));
    // It gets dearer: the known price is told, its bid buys nothing, and from then on the new one is told.
    cents.store(7, Ordering::Relaxed);
    assert_eq!(ask("GET", "/paid/a?b=1", ""), said("0.05", false));
    let bid = |text: &str| {
        exchange(gateway.addr, agent.signed_in("crawler-exact-price", gateway.addr, "/paid/a?b=1", text).head())
    };
    let refused = bid("USD 0.05");
    assert_eq!((refused.status, refused.header("crawler-price")), (402, Some("USD 0.07")), "{refused:?}");
    assert_eq!(ask("GET", "/paid/a?b=1", ""), said("0.07", true));
    assert_eq!(ask("GET", "/paid/a?b=1", ""), said("0.07", false));
    let paid = bid("USD 0.07");
    assert_eq!((paid.status, paid.header("crawler-charged")), (200, Some("USD 0.07")));
    // It gets cheaper: who bids what was told pays the price of the moment.
    cents.store(2, Ordering::Relaxed);
    let most = agent.signed_in("crawler-max-price", gateway.addr, "/paid/a?b=1", "USD 0.07");
    assert_eq!(exchange(gateway.addr, most.head()).header("crawler-charged"), Some("USD 0.02"));
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "report", "--by", "scheme", "--json"]);
    assert!(code == 0 && out.contains("\"net\":\"0.09\""), "{out}{err}");
}

#[test]
fn it_can_be_switched_off() {
    for off in ["[offers]\norigin_price_seconds = 0\n", "[offers]\norigin_prices = 0\n"] {
        let (origin, _, _, gateway) = shop(off);
        for _ in 0..2 {
            assert_eq!(ask(&gateway, &origin, "GET", "/paid/a", ""), ("USD 0.05".to_owned(), true));
        }
    }
}
