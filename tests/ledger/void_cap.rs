//! The gateway's own voids of an account are capped on a book day; the operator's are not, and those of answers that were
//! withheld neither.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::ffi;
use tollgate::ledger::{
    correction::Rules,
    faults::Faults,
    read::{Filter, State},
    store::{CaptureError, Delivery, Store},
};

use crate::{
    closing::{DAY_MS, buy},
    corrections::{audited, void},
    postings::HoldFirst,
    support::*,
};

fn capped(most: u32) -> Ledger {
    let ledger = Ledger::new();
    rules(&ledger, most);
    ledger
}

fn rules(ledger: &Ledger, most: u32) {
    ledger.store().set_rules(Rules { voids_per_day: most, ..Rules::default() });
}

/// Sells, and has the answers cut; how many voids there are.
fn cut(ledger: &Ledger, account: &str, names: &[&str]) -> i64 {
    for name in names {
        let n = buy(ledger, account, name, 10).n;
        ledger.outcome(n, Delivery::OriginCut, true);
    }
    ledger.store().hurry();
    let batches = || ledger.number("SELECT count(*) FROM batches WHERE outcomes IS NOT NULL");
    let start = std::time::Instant::now();
    while listed(ledger, State::Unproven) > 0 {
        assert!(start.elapsed().as_secs() < 20, "{} batches with outcomes", batches());
        std::thread::yield_now();
    }
    ledger.number("SELECT count(*) FROM entries WHERE kind = 2")
}

fn listed(ledger: &Ledger, state: State) -> usize {
    let filter = Filter { limit: 1000, state: Some(state), ..Filter::default() };
    ledger.reader().list(&filter).unwrap().len()
}

fn used(ledger: &Ledger) -> i64 {
    ledger.used(&request("", 0))
}

#[test]
fn above_the_cap_the_charge_stands_and_is_listed_until_the_next_day() {
    let mut ledger = capped(3);
    assert_eq!(cut(&ledger, "acme", &["a", "b", "c", "d", "e"]), 3);
    assert_eq!((used(&ledger), listed(&ledger, State::Cut), listed(&ledger, State::Voided)), (20, 2, 3));
    // Each account has its own, and a restart forgets nothing.
    assert_eq!(cut(&ledger, "other", &["f"]), 4);
    ledger.reopen().unwrap();
    rules(&ledger, 3);
    assert_eq!(cut(&ledger, "acme", &["g"]), 4);
    assert_eq!(cut(&ledger, "other", &["h"]), 5);
    ledger.advance(DAY_MS);
    assert_eq!(cut(&ledger, "acme", &["i", "j", "k", "l"]), 8);
    // None at all: nothing is reversed without the operator.
    rules(&ledger, 0);
    ledger.advance(DAY_MS);
    assert_eq!(cut(&ledger, "acme", &["m"]), 8);
    audited(&ledger);
}

#[test]
fn voids_of_one_batch_are_counted_too() {
    let (fault, held, go) = HoldFirst::new();
    let mut ledger = Ledger::with_faults(fault);
    rules(&ledger, 2);
    let capture = |name: &str| ledger.store().capture(ledger.claim(name).unwrap(), posting(units(10_000)));
    let first = capture("first");
    held.recv().unwrap();
    // Nobody waits for these: they are voided together.
    for name in ["a", "b", "c", "d"] {
        drop(capture(name));
    }
    go.send(()).unwrap();
    wait(first).unwrap();
    ledger.close();
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 1"), 5);
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 2"), 2);
    audited(&ledger);
}

#[test]
fn what_the_operator_voids_is_not_counted_before_or_after_a_restart() {
    let mut ledger = capped(2);
    let voids = |ledger: &Ledger, from: u32| {
        for i in from..from + 3 {
            void(ledger, buy(ledger, "acme", &format!("operator {i}"), 10).n).unwrap();
        }
    };
    voids(&ledger, 0);
    assert_eq!(cut(&ledger, "acme", &["a"]), 4);
    voids(&ledger, 3);
    ledger.reopen().unwrap();
    rules(&ledger, 2);
    assert_eq!(cut(&ledger, "acme", &["b"]), 8, "one of two is left");
    assert_eq!(cut(&ledger, "acme", &["c"]), 8);
    // Past the cap the operator still may.
    let cuts = ledger.reader();
    let cuts = cuts.list(&Filter { limit: 9, state: Some(State::Cut), ..Filter::default() }).unwrap();
    void(&ledger, cuts[0].n).unwrap();
    assert_eq!((used(&ledger), listed(&ledger, State::Cut)), (0, 0));
    audited(&ledger);
}

/// Fails the next commit after it took place, when it is told to.
struct Unseen(AtomicBool);

impl Faults for Unseen {
    fn after_commit(&self) -> rusqlite::Result<()> {
        if self.0.swap(false, Ordering::Relaxed) {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None));
        }
        Ok(())
    }
}

#[test]
fn what_the_gateway_withheld_is_voided_whatever_the_cap() {
    let unseen = Arc::new(Unseen(AtomicBool::new(false)));
    let mut ledger = Ledger::with_faults(unseen.clone());
    rules(&ledger, 1);
    assert_eq!(cut(&ledger, "acme", &["a", "b"]), 1);
    unseen.0.store(true, Ordering::Relaxed);
    let refused = ledger.capture(ledger.claim("withheld").unwrap());
    assert!(matches!(refused, Err(CaptureError::Unavailable(_))));
    ledger.until_open();
    ledger.close();
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 2"), 2);
    assert_eq!(ledger.number("SELECT sum(used) FROM account_use"), 10);
    audited(&ledger);
}
