//! What was only observed: counted in roll-ups, never posted, on no statement; not counted twice whatever fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use rusqlite::ffi;
use tollgate::{
    ledger::{
        faults::Faults,
        observation::{Observation, Observed, Sum, UNKNOWN, Would},
        report::{By, Days},
        store::{Delivery, Health, Store},
    },
    wire::amount::Asset,
};

use crate::{
    closing::{DAY_MS, TODAY, close, statements},
    support::*,
};

fn seen(agent: &str, would: Would<'static>, amount: i64) -> Observation {
    let observed = Observed {
        account: if matches!(would, Would::Pay(_)) { "acme".into() } else { UNKNOWN.into() },
        agent: agent.into(),
        route: "pages".into(),
        would,
        asset: Asset::parse("USD").unwrap(),
    };
    Observation { observed, amount: units(amount) }
}

/// What the books have: day, agent, what would have followed, how many, how much.
fn observed(ledger: &Ledger) -> Vec<(i64, String, String, i64, i64)> {
    let lines = ledger.reader().observed(Days::ALL, None).unwrap();
    lines.iter().map(|l| (l.book_day, l.agent.clone(), l.would().text(), l.sum.requests, l.sum.would_be)).collect()
}

/// Lets what waits go, and waits until it is written.
fn written(ledger: &Ledger) {
    ledger.store().hurry();
    heard(ledger.store());
    heard(ledger.store());
}

#[test]
fn it_is_counted_with_a_batch_or_without_one_and_outlives_the_process() {
    let mut ledger = Ledger::new();
    ledger.store().observed(seen("GPTBot", Would::Ask, 10_000));
    ledger.store().observed(seen("GPTBot", Would::Ask, 0));
    // Nothing is sold: it goes by itself.
    written(&ledger);
    assert_eq!(observed(&ledger), [(TODAY, "GPTBot".to_owned(), String::new(), 2, 10_000)]);
    let refused = Would::Refuse { scheme: "crawl", reason: "invalid_signature" };
    ledger.store().observed(seen("other", refused, 0));
    ledger.store().observed(seen("https://a.example", Would::Pay("crawl"), 7));
    ledger.pay("a");
    // The last second of a process goes with its end.
    ledger.store().observed(seen("https://a.example", Would::Pay("crawl"), 8));
    ledger.reopen().unwrap();
    ledger.store().observed(seen("GPTBot", Would::Ask, 1));
    written(&ledger);
    let rest = [
        (TODAY, "https://a.example".to_owned(), "crawl".to_owned(), 2, 15),
        (TODAY, "other".to_owned(), "crawl:invalid_signature".to_owned(), 1, 0),
    ];
    let asked = (TODAY, "GPTBot".to_owned(), String::new(), 3, 10_001);
    assert_eq!(observed(&ledger), [vec![asked], rest.to_vec()].concat());
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), 1);
    // A batch is a link of the chain; what was observed alone makes none.
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), 1);
    let report = ledger.audit();
    assert_eq!((report.finding, report.captures), (None, 1));
    let lines = ledger.reader().observed(Days { since: TODAY, until: TODAY + 1 }, Some("pages")).unwrap();
    assert_eq!(lines.len(), 3);
    assert!(ledger.reader().observed(Days::ALL, Some("elsewhere")).unwrap().is_empty());
    assert!(ledger.reader().observed(Days { since: TODAY + 1, until: TODAY + 2 }, None).unwrap().is_empty());
}

#[test]
fn it_is_in_no_sum_of_money_and_on_no_statement() {
    let ledger = Ledger::new();
    ledger.store().observed(seen("https://a.example", Would::Pay("deferred"), 500));
    ledger.store().observed(seen("other", Would::Ask, 500));
    written(&ledger);
    assert_eq!(ledger.used(&request("", 0)), 0);
    for by in [By::Day, By::Account, By::Agent, By::Route, By::Scheme, By::Status] {
        assert_eq!(ledger.reader().report(by, Days::ALL, None).unwrap(), [], "{by:?}");
    }
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    assert_eq!(statements(&ledger), []);
    // Of a closed day nothing is counted any more.
    ledger.store().observed(seen("other", Would::Ask, 1));
    written(&ledger);
    let days: Vec<i64> = observed(&ledger).iter().map(|row| row.0).collect();
    assert_eq!(days, [TODAY, TODAY, TODAY + 1]);
    assert_eq!(ledger.audit().finding, None);
}

/// Fails as it is told.
#[derive(Default)]
struct Disk {
    down: AtomicBool,
    before: AtomicU32,
    after: AtomicU32,
}

fn io() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)
}

fn due(countdown: &AtomicU32) -> rusqlite::Result<()> {
    let is_due = countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) == Ok(1);
    if is_due { Err(io()) } else { Ok(()) }
}

impl Faults for Disk {
    fn insert(&self, _: &tollgate::payment::key::PaymentKey) -> rusqlite::Result<()> {
        if self.down.load(Ordering::Relaxed) { Err(io()) } else { Ok(()) }
    }

    fn before_commit(&self) -> rusqlite::Result<()> {
        due(&self.before)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        due(&self.after)
    }
}

#[test]
fn what_rode_on_a_batch_that_failed_is_counted_once() {
    let disk = Arc::new(Disk::default());
    let ledger = Ledger::with_faults(disk.clone());
    let mut expect = 0;
    let mut fail = |name: &str, arm: fn(&Disk)| {
        ledger.store().observed(seen("other", Would::Ask, 1));
        arm(&disk);
        assert!(ledger.capture(ledger.claim(name).unwrap()).is_err(), "{name}");
        disk.down.store(false, Ordering::Relaxed);
        ledger.until_open();
        // Counted while it was closed, too.
        ledger.store().observed(seen("other", Would::Ask, 1));
        written(&ledger);
        expect += 2;
        let rows = observed(&ledger);
        assert_eq!(rows.iter().map(|row| (row.3, row.4)).collect::<Vec<_>>(), [(expect, expect)], "{name}");
    };
    fail("nothing was tried", |disk| disk.down.store(true, Ordering::Relaxed));
    fail("the commit failed", |disk| disk.before.store(1, Ordering::Relaxed));
    fail("the commit took place unseen", |disk| disk.after.store(1, Ordering::Relaxed));
    assert_eq!(ledger.store().health(), Health::Open);
    assert_eq!(ledger.audit().finding, None);
}

#[test]
fn a_commit_of_nothing_else_whose_end_is_unknown_is_never_counted_twice() {
    let disk = Arc::new(Disk::default());
    let ledger = Ledger::with_faults(disk.clone());
    let sold = ledger.pay("a");
    ledger.outcome(sold.n, Delivery::Complete, false);
    written(&ledger);
    for (arm, expect) in [(&disk.after, 1), (&disk.before, 1)] {
        arm.store(1, Ordering::Relaxed);
        ledger.store().observed(seen("other", Would::Ask, 1));
        ledger.store().hurry();
        while arm.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        ledger.until_open();
        written(&ledger);
        assert_eq!(observed(&ledger).iter().map(|row| row.3).sum::<i64>(), expect);
    }
    assert_eq!(ledger.audit().finding, None);
}

#[test]
fn lines_are_sums_over_all_writers() {
    let ledger = Ledger::new();
    ledger.pay("a");
    for slot in 1..=2 {
        ledger.change(&format!(
            "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, observed, would_be) \
             VALUES ({TODAY}, 'unknown', 'other', 'pages', '', 'USD', {slot}, {slot}, 10)"
        ));
    }
    let lines = ledger.reader().observed(Days::ALL, None).unwrap();
    assert_eq!(lines.iter().map(|line| line.sum).collect::<Vec<_>>(), [Sum { requests: 3, would_be: 20 }]);
}
