//! A ledger that is out of reach when the gateway starts: free routes are served at once, priced ones when it is there,
//! and nothing that it knows is forgotten.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::{PATIENCE, get};
use crate::support::*;

/// Two gateways are asked for the same site, so that a payment means the same to both.
const SITE: &str = "site.example";

/// A site whose ledger and secret file are elsewhere.
fn elsewhere(origin: &Origin, agent: &Agent, ledger: &Path, secrets: &Path) -> String {
    let more = format!(
        "[ledger]\nurl = \"sqlite:{}\"\n[offers]\nsecret_file = \"{}\"\n",
        ledger.display(),
        secrets.join("secret.json").display()
    );
    site_toml(origin, agent, &more)
}

fn ask(gateway: &Gateway, path: &str) -> Answer {
    exchange(gateway.addr, format!("GET {path} HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n"))
}

/// A signed request for what the gateway offers now.
fn signed(gateway: &Gateway, agent: &Agent, path: &str) -> String {
    let offer = ask(gateway, path);
    assert_eq!(offer.status, 402, "{offer:?}");
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    agent.signed(SITE, "GET", path, &id).head()
}

#[track_caller]
fn closed(answer: &Answer) {
    assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{answer:?}");
    assert!(answer.header("payment-required").is_none() && !answer.text().contains("accepts"), "{answer:?}");
}

/// Asks until the priced route is no longer closed.
fn opened(gateway: &Gateway, path: &str) -> Answer {
    let start = Instant::now();
    loop {
        let answer = ask(gateway, path);
        if answer.status != 503 {
            return answer;
        }
        closed(&answer);
        assert!(start.elapsed() < PATIENCE, "priced routes stay closed: {}", gateway.log());
    }
}

#[test]
fn a_directory_that_appears_later_opens_priced_routes_without_restart() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let disk = dir.path().join("disk");
    let gateway = Gateway::start(&elsewhere(&origin, &agent, &disk.join("tollgate.sqlite"), dir.path()));
    assert_eq!(ask(&gateway, "/free").text(), "content of /free");
    closed(&ask(&gateway, "/paid/page"));
    // A payment is not looked at either.
    closed(&exchange(gateway.addr, agent.signed(SITE, "GET", "/paid/page", &"A".repeat(64)).head()));
    assert_eq!(ask(&gateway, "/free").text(), "content of /free");
    fs::create_dir(&disk).unwrap();
    assert_eq!(opened(&gateway, "/paid/page").status, 402);
    assert_eq!(exchange(gateway.addr, signed(&gateway, &agent, "/paid/page")).status, 200);
    let log = gateway.log();
    assert_eq!(log.matches("directory exists").count(), 1, "said once, not with each attempt: {log}");
    assert!(log.contains("the ledger is open"), "{log}");
    let (status, _own) = gateway.stop();
    assert!(status.success(), "{status}");
    assert_eq!(Books::read(&disk).charged(), 1);
}

#[test]
fn a_gateway_that_never_reached_its_ledger_stops_cleanly() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start(&elsewhere(&origin, &agent, &dir.path().join("no/books.sqlite"), dir.path()));
    assert_eq!(get(gateway.addr, "/free").status, 200);
    let start = Instant::now();
    let (status, _own) = gateway.stop();
    assert!(status.success() && start.elapsed() < Duration::from_secs(5), "{status} after {:?}", start.elapsed());
}

#[test]
fn a_second_gateway_takes_the_ledger_over_with_all_that_it_knows() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let ledger = dir.path().join("tollgate.sqlite");
    let toml = elsewhere(&origin, &agent, &ledger, dir.path());
    let first = Gateway::start(&toml);
    let used = signed(&first, &agent, "/paid/page");
    assert_eq!(exchange(first.addr, &used).status, 200);
    let unused = signed(&first, &agent, "/paid/page");

    // Its own offers are made under other terms.
    let second = Gateway::start(&toml.replace("example.com/terms", "example.com/new-terms"));
    assert_eq!(ask(&second, "/free").text(), "content of /free");
    closed(&ask(&second, "/paid/page"));
    closed(&exchange(second.addr, &used));
    closed(&exchange(second.addr, &unused));
    assert_eq!(second.log().matches("which another process has still open").count(), 1, "{}", second.log());
    assert_eq!(exchange(first.addr, signed(&first, &agent, "/paid/other")).status, 200, "the owner is not disturbed");

    let (status, _own) = first.stop();
    assert!(status.success(), "{status}");
    assert_eq!(opened(&second, "/paid/page").status, 402);
    let replay = exchange(second.addr, &used);
    assert_eq!((replay.status, replay.reason()), (402, "already_used"), "{}", replay.text());
    assert!(replay.header("tollgate-receipt").is_some());
    let answer = exchange(second.addr, &unused);
    assert_eq!(answer.status, 200, "an offer of the first gateway holds: {}", answer.text());
    let (status, _own) = second.stop();
    assert!(status.success(), "{status}");
    assert_eq!(Books::read(dir.path()).charged(), 3);
}

#[test]
fn a_request_during_the_hand_over_waits_for_it() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let toml = elsewhere(&origin, &agent, &dir.path().join("tollgate.sqlite"), dir.path());
    let first = Gateway::start(&toml);
    let used = signed(&first, &agent, "/paid/page");
    assert_eq!(exchange(first.addr, &used).status, 200);
    let second = Gateway::start(&toml);
    std::thread::scope(|scope| {
        let waits = [scope.spawn(|| exchange(second.addr, &used)), scope.spawn(|| ask(&second, "/paid/page"))];
        assert!(first.stop().0.success());
        let [replay, offer] = waits.map(|w| w.join().unwrap());
        assert_eq!((replay.status, replay.reason()), (402, "already_used"), "{}", replay.text());
        assert_eq!(offer.status, 402, "{}", offer.text());
    });
}

#[test]
fn a_ledger_that_turns_out_to_be_unusable_keeps_priced_routes_closed_loudly() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let [disk, prepared] = ["disk", "prepared"].map(|name| dir.path().join(name));
    fs::create_dir(&prepared).unwrap();
    let letter = "This is a letter to a friend, not a database. ".repeat(100);
    fs::write(prepared.join("books.sqlite"), &letter).unwrap();
    let gateway = Gateway::start(&elsewhere(&origin, &agent, &disk.join("books.sqlite"), dir.path()));
    fs::rename(&prepared, &disk).unwrap();
    let start = Instant::now();
    while !gateway.log().contains("is not a ledger") {
        closed(&ask(&gateway, "/paid/page"));
        assert!(start.elapsed() < PATIENCE, "{}", gateway.log());
    }
    assert!(gateway.log().contains("until the gateway is restarted"), "{}", gateway.log());
    closed(&ask(&gateway, "/paid/page"));
    assert_eq!(ask(&gateway, "/free").text(), "content of /free");
    assert!(gateway.stop().0.success());
    assert_eq!(fs::read_to_string(disk.join("books.sqlite")).unwrap(), letter);
}
