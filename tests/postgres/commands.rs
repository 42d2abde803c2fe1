//! The same life of the books on a file and on a server: every command says the same of both.

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::LedgerStore,
        settling::Intent,
        store::{ClaimRequest, Delivery, Outcome, Outcomes as _, Posting, Purchase, Released, Store},
    },
    wire::amount::Units,
};

use crate::{
    ledger::*,
    store::open,
    support::{Postgres, gateway::tollgate},
};

/// Sells, gives back, settles, owes and leaves in doubt, always in the same order.
fn live(store: &LedgerStore) {
    let pay = |name: &str, account: &str, amount: i64| {
        let claim = wait(store.claim(ClaimRequest { account: account.into(), ..request(name, amount) })).unwrap();
        wait(store.capture(claim, posting(units(amount)))).unwrap()
    };
    let tell = |n: i64, delivery, void| store.outcome(Outcome { n, delivery, void, ms: 5, bytes: 77 });
    tell(pay("a", "acme", 10_000).n, Delivery::Complete, false);
    let cut = pay("b", "acme", 20_000);
    pay("c", "other", 30_000);
    let claim = wait(store.claim(request("d", 1))).unwrap();
    store.release(claim, Released::OriginFailed);
    let token = |name: &str| ClaimRequest {
        account: "wallets".into(),
        period: 0,
        limit: Units::MAX,
        purchase: Some(Purchase::new(format!("eip155:8453:0x{name}").into(), "GET", "https://shop.example/a")),
        ..request(name, 5_000)
    };
    let intent = || Intent {
        posting: Posting { scheme: "exact", agent_key: None, key: None, ..posting(units(5_000)) },
        facilitator: "https://facilitator.example".into(),
        payload: b"{}".to_vec(),
        hard_until_ms: NOON + 60_000,
    };
    let settling = |name: &str| {
        let claim = wait(store.claim(token(name))).unwrap();
        wait(store.intend(claim, intent())).unwrap()
    };
    let settled = wait(store.settled(settling("e"), intent().posting, false)).unwrap();
    tell(settled.n, Delivery::Complete, false);
    wait(store.settled(settling("f"), intent().posting, true)).unwrap();
    wait(store.failed(settling("g"), intent().posting)).unwrap();
    let unknown = settling("h");
    store.unknown(unknown);
    // Last, for a void is posted with the next batch, whichever that is.
    tell(cut.n, Delivery::OriginCut, true);
}

/// What a command prints, without what is random or of the place.
fn said(ledger: &str, args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut all = args.to_vec();
    all.extend(["--ledger", ledger]);
    let (code, out, err) = tollgate(dir.path(), &all);
    let text = format!("{code}\n{}\n{}", out.trim(), err.trim()).replace(ledger, "LEDGER");
    // Hashes: they begin with random salts.
    let mut plain = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_hexdigit() {
            digits.push(c);
            continue;
        }
        plain.push_str(if digits.len() == 64 { "HASH" } else { &digits });
        digits.clear();
        plain.push(c);
    }
    plain
}

#[test]
fn every_command_says_the_same_of_a_server_and_of_a_file() {
    let Some(server) = Postgres::start("postgres::every_command") else { return };
    let clock = Clock::manual(NOON);
    let on_server = open(&server, &clock);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.sqlite");
    let on_file = LedgerStore::open(options((&path).into(), clock)).unwrap();
    live(&on_server);
    live(&on_file);
    on_server.close().unwrap();
    on_file.close().unwrap();
    let (file, url) = (path.to_str().unwrap(), server.url());
    let commands: &[&[&str]] = &[
        &["settle", "--until", "2026-11-25", "--json"],
        &["ledger", "list", "--json", "--limit", "0"],
        &["ledger", "list"],
        &["ledger", "list", "--state", "owed", "--json"],
        &["ledger", "list", "--state", "unproven", "--json"],
        &["ledger", "list", "--state", "unresolved", "--json"],
        &["ledger", "list", "--account", "acme", "--json"],
        &["ledger", "show", "281474976710657", "--json"],
        &["ledger", "show", "281474976710658"],
        &["ledger", "report", "--json"],
        &["ledger", "report", "--by", "account"],
        &["ledger", "report", "--by", "route", "--account", "acme", "--json"],
        &["ledger", "report", "--by", "scheme", "--since", "2026-11-24", "--json"],
        &["ledger", "report", "--by", "agent", "--json"],
        &["ledger", "report", "--by", "status", "--json"],
        &["ledger", "export", "--format", "csv"],
        &["ledger", "export", "--format", "jsonl", "--since", "2026-11-24", "--until", "2026-11-25"],
        &["ledger", "statements", "--json"],
        &["ledger", "statements", "--account", "acme"],
        &["ledger", "statement", "1"],
        &["ledger", "statement", "1", "--format", "csv"],
        &["ledger", "statement", "1", "--mark", "sent", "--reason", "by mail"],
        &["ledger", "statement", "1", "--mark", "paid", "--reason", "bank"],
        &["ledger", "verify", "281474976710657", "--json"],
        &["ledger", "dispute", "281474976710657", "--reason", "never asked"],
        &["ledger", "dispute", "281474976710657", "--reject", "--reason", "was asked"],
        &["ledger", "void", "281474976710659", "--reason", "courtesy", "--json"],
        &["ledger", "void", "--unproven", "--dry-run", "--json"],
        &["ledger", "audit", "--json"],
        &["ledger", "list", "--json", "--limit", "0"],
    ];
    for command in commands {
        let (of_file, of_server) = (timeless(&said(file, command)), timeless(&said(&url, command)));
        for (file, server) in of_file.lines().zip(of_server.lines()) {
            assert_eq!(file, server, "{command:?}");
        }
        assert_eq!(of_file, of_server, "{command:?}");
        assert!(!of_file.contains("could not be read"), "{command:?}: {of_file}");
    }
    assert_eq!(server.number("SELECT count(*) FROM statement_events WHERE state = 'paid'"), 2);
}

/// Without the times of orders that were just given.
fn timeless(text: &str) -> String {
    let today = httpdate::fmt_http_date(std::time::SystemTime::now());
    let day = jiff::fmt::rfc2822::parse(&today).unwrap().date().to_string();
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&format!("{day}T")) {
        out.push_str(&rest[..at]);
        out.push_str("NOW");
        rest = rest[at..].find('Z').map_or("", |end| &rest[at + end + 1..]);
    }
    out + rest
}
