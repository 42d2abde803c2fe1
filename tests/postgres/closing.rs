//! Days closed from two places at once, while two gateways sell.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use tollgate::{
    clock::Clock,
    ledger::{
        audit::Place,
        location::Location,
        read::LedgerReader,
        statements::{Mark, StatementState},
        store::{ClaimRequest, Health, Store as _},
    },
};

use crate::{
    ledger::*,
    replicas::{make_secret, toml, until_open},
    store::open,
    support::{Agent, Gateway, Origin, Postgres, gateway::tollgate},
};

#[test]
fn settling_twice_at_once_while_gateways_sell_is_one_close() {
    let Some(server) = Postgres::start("postgres::settling_twice_at_once") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    make_secret(&server);
    // An earlier gateway sold on the 24th of November.
    let earlier = open(&server, &Clock::manual(NOON));
    for name in ["a", "b", "c"] {
        let claim = wait(earlier.claim(request(name, 10_000))).unwrap();
        wait(earlier.capture(claim, posting(units(10_000)))).unwrap();
    }
    earlier.close().unwrap();
    let toml = toml(&server, &origin, &agent);
    let gateways = [Gateway::start(&toml), Gateway::start(&toml)];
    gateways.iter().for_each(|gateway| until_open(gateway.addr));
    let (sold, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let settle =
        |day: &str| tollgate(server.folder(), &["settle", "--until", day, "--json", "--ledger", &server.url()]);
    let today = httpdate::fmt_http_date(std::time::SystemTime::now());
    let today = jiff::fmt::rfc2822::parse(&today).unwrap().date().to_string();
    let outputs = std::thread::scope(|scope| {
        for gateway in &gateways {
            let (sold, stop, agent) = (&sold, &stop, &agent);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = agent.buy(gateway.addr, "/paid/a");
                    assert_eq!(answer.status, 200, "{} {}", answer.status, answer.text());
                    sold.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while sold.load(Ordering::Relaxed) < 20 {
            std::thread::yield_now();
        }
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| settle(&today))).collect();
        let outputs: Vec<(i32, String, String)> = both.into_iter().map(|both| both.join().unwrap()).collect();
        let before = sold.load(Ordering::Relaxed);
        while sold.load(Ordering::Relaxed) < before + 20 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        outputs
    });
    for (code, out, err) in &outputs {
        assert_eq!(*code, 0, "{out}{err}");
    }
    let close = |out: &str| serde_json::from_str::<Value>(out.lines().next().unwrap()).unwrap();
    assert_eq!(close(&outputs[0].1), close(&outputs[1].1));
    assert_eq!(server.number("SELECT count(*) FROM closes"), 1);
    assert_eq!(server.sql("SELECT number, account, gross, total FROM statements"), "1|acme|30000|30000");
    let (earlier, _, err) = settle("2026-01-01");
    assert!(earlier == 1 && err.contains("closed already"), "{err}");
    gateways.into_iter().for_each(|gateway| assert!(gateway.stop().0.success()));
    let (code, out, err) = tollgate(server.folder(), &["ledger", "audit", "--ledger", &server.url()]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(server.number("SELECT count(*) FROM entries"), sold.load(Ordering::Relaxed) as i64 + 3);
    let report =
        tollgate(server.folder(), &["ledger", "report", "--by", "account", "--json", "--ledger", &server.url()]);
    assert_eq!(report.0, 0, "{}", report.2);
    let line: Value = serde_json::from_str(report.1.lines().next().unwrap()).unwrap();
    assert_eq!(line["captures"], sold.load(Ordering::Relaxed) + 3, "{line}");
}

/// Each has its own chain say what it has written, and an audit looks in all of them.
#[test]
fn what_two_gateways_close_and_mark_is_in_the_chain_of_each() {
    let Some(server) = Postgres::start("postgres::what_two_gateways_close") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    for (store, name) in [(&a, "a"), (&b, "b")] {
        let claim = wait(store.claim(ClaimRequest { account: name.into(), ..request(name, 10_000) })).unwrap();
        wait(store.capture(claim, posting(units(10_000)))).unwrap();
    }
    clock.advance(86_400_000);
    for store in [&a, &b] {
        while store.health() != Health::Open {
            std::thread::yield_now();
        }
    }
    wait(a.close_days(20_782, None)).unwrap();
    assert_eq!(wait(b.close_days(20_782, None)).unwrap().heads.len(), 2);
    let mark = |number, state| Mark { number, state, reason: "why".to_owned() };
    wait(b.mark(mark(1, StatementState::Sent))).unwrap();
    wait(a.mark(mark(1, StatementState::Disputed))).unwrap();
    // At once: one is first, and the other is told; each statement has one event more.
    let both = std::thread::scope(|scope| {
        let threads = [&a, &b].map(|store| scope.spawn(|| wait(store.mark(mark(1, StatementState::Paid))).is_ok()));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(both.iter().filter(|done| **done).count(), 1);
    wait(b.mark(mark(2, StatementState::Sent))).unwrap();
    for store in [a, b] {
        store.close().unwrap();
    }
    let audit = || {
        let reader = LedgerReader::open(Location::parse(&server.url(), None).unwrap()).unwrap();
        reader.audit(|_, _| ()).unwrap().finding
    };
    assert_eq!(audit(), None);
    let said = "SELECT count(DISTINCT slot) FROM batches WHERE substr(outcomes, 1, 1) = '\\xff'";
    assert_eq!(server.number(said), 2);
    for (change, place) in [
        ("DELETE FROM statement_events WHERE number = 2 AND i = 2", Place::Statement(2)),
        ("UPDATE statement_events SET reason = 'by pigeon' WHERE number = 1 AND i = 2", Place::Statement(1)),
        ("UPDATE statement_events SET at_ms = at_ms + 1 WHERE number = 1 AND i = 4", Place::Statement(1)),
    ] {
        server.sql("CREATE TABLE kept AS TABLE statement_events");
        server.sql(change);
        assert_eq!(audit().unwrap_or_else(|| panic!("not found: {change}")).place, place);
        server.sql("DELETE FROM statement_events");
        server.sql("INSERT INTO statement_events SELECT * FROM kept");
        server.sql("DROP TABLE kept");
    }
    assert_eq!(audit(), None);
}
