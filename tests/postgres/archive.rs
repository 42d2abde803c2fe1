//! Archives of books on a server, of several writers.

use tollgate::{
    clock::Clock,
    ledger::{
        archive::{Drops, read::summary, write::Order as Make},
        audit::{AuditOptions, AuditReport},
        correction::{By, Order, What},
        ledger_store::LedgerStore,
        location::Location,
        read::{Filter, LedgerReader},
        report::Days,
        store::{ClaimRequest, Health, Receipt, Store},
    },
};

use crate::{ledger::*, store::open, support::Postgres};

const DAY_MS: u64 = 86_400_000;
const TODAY: i64 = 20_781;

fn reader(server: &Postgres) -> LedgerReader {
    LedgerReader::open(Location::parse(&server.url(), None).unwrap()).unwrap()
}

/// A clock that jumps ends a lease; it is renewed each second.
fn until_open(store: &LedgerStore) {
    while store.health() != Health::Open {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn buy(store: &LedgerStore, name: &str, now_ms: u64) -> Receipt {
    let limit = units(i64::MAX / 4);
    let claim = wait(store.claim(ClaimRequest { paid_at_ms: now_ms, limit, ..request(name, 10) })).unwrap();
    wait(store.capture(claim, posting(units(10)))).unwrap()
}

fn audit(server: &Postgres, archives: &[std::path::PathBuf]) -> AuditReport {
    let options = AuditOptions { archives, ..AuditOptions::default() };
    let report = reader(server).audit_from(&options, |_| ()).unwrap().0;
    assert_eq!(report.finding, None);
    report
}

#[test]
fn chains_of_several_writers_are_archived_dropped_and_audited_together() {
    let Some(server) = Postgres::start("postgres::chains_of_several_writers") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let sold: Vec<Receipt> =
        (0..8).map(|i| buy(if i % 2 == 0 { &a } else { &b }, &i.to_string(), clock.now_ms())).collect();
    clock.advance(DAY_MS);
    until_open(&a);
    wait(a.close_days(TODAY + 1, None)).unwrap();
    // By the other writer, the day after.
    let order = |n, what| vec![Order { n, what, reason: "why".to_owned(), by: By::Operator }];
    wait(a.correct(order(sold[1].n, What::Void { unproven_since: None }))).unwrap().remove(0).unwrap();
    clock.advance(2 * DAY_MS);
    until_open(&a);
    until_open(&b);
    wait(b.close_days(TODAY + 3, None)).unwrap();
    for i in 0..8 {
        buy(if i % 2 == 0 { &a } else { &b }, &format!("later-{i}"), clock.now_ms());
    }
    let before = audit(&server, &[]);
    let path = server.folder().join("a.jsonl");
    let make = Make { until: TODAY + 1, drops: Drops::Rows, key: None, now_ms: clock.now_ms() };
    let made = reader(&server).archive(&path, make, |_, _| ()).unwrap().summary.unwrap();
    assert_eq!((made.parts.len(), made.entries()), (2, 8));
    assert_eq!(made.parts[1].referred.len(), 1);
    wait(b.note_archive(summary(&path).unwrap(), Drops::Rows)).unwrap();
    let mut steps = 0;
    loop {
        for archives in [&[][..], std::slice::from_ref(&path)] {
            let now = audit(&server, archives);
            assert_eq!((now.entries, now.captures, now.voids, &now.charged), (16 + 1, 16, 1, &before.charged));
            assert_eq!(now.trusted, if archives.is_empty() { 8 } else { 0 });
        }
        let by = if steps % 2 == 0 { &a } else { &b };
        if wait(by.drop_archived(3)).unwrap() == 0 {
            break;
        }
        steps += 1;
    }
    assert!(steps > 4, "{steps}");
    assert_eq!(server.number("SELECT count(*) FROM entries"), 9);
    // They go on: sold, listed, counted, opened anew.
    buy(&a, "more", clock.now_ms());
    a.close().unwrap();
    b.close().unwrap();
    let rows = reader(&server).list(&Filter { limit: 100, ..Filter::default() }).unwrap();
    assert_eq!((rows.len() as u64, reader(&server).count(Days::ALL).unwrap()), (10, 10));
    let again = open(&server, &clock);
    buy(&again, "again", clock.now_ms());
    again.close().unwrap();
    assert_eq!(audit(&server, &[path]).entries, 19);
}
