//! An older copy that is put back: what it does not know is sold twice, unless the ledger is told.

use std::fs;

use tollgate::ledger::{
    audit::AuditReport,
    backup::{BackupError, Copy},
    location::Location,
    read::{Filter, LedgerReader},
    restored::{RestoredError, restored},
    store::{ClaimError, ClaimRequest, Delivery, Receipt, Store},
};

use crate::support::*;

const DAY_MS: u64 = 86_400_000;

fn copy(ledger: &Ledger, name: &str) {
    Copy::make(&ledger.path(), &ledger.dir().join(name)).unwrap().name().unwrap();
}

/// As an operator puts a copy back: the files that are open belong to the ledger that is gone.
fn put_back(ledger: &mut Ledger, name: &str) {
    ledger.close();
    for beside in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(ledger.dir().join(format!("books.sqlite{beside}")));
    }
    fs::copy(ledger.dir().join(name), ledger.path()).unwrap();
}

fn tell(ledger: &Ledger) -> Result<u64, RestoredError> {
    restored(&Location::File(ledger.path()), "UTC", ledger.clock.now_ms()).map(|done| done.retired)
}

fn audit(ledger: &Ledger) -> AuditReport {
    LedgerReader::open(&ledger.path()).unwrap().audit(|_, _| ()).unwrap()
}

fn made_at(name: &str, paid_at_ms: u64) -> ClaimRequest {
    ClaimRequest { paid_at_ms, ..request(name, 10_000) }
}

fn buy(ledger: &Ledger, name: &str, paid_at_ms: u64) -> Result<Receipt, ClaimError> {
    let claim = wait(ledger.store().claim(made_at(name, paid_at_ms)))?;
    Ok(ledger.capture(claim).unwrap())
}

#[test]
fn a_payment_that_the_copy_does_not_know_is_refused_once_the_ledger_is_told() {
    for is_told in [false, true] {
        let mut ledger = Ledger::new();
        ledger.pay("before");
        copy(&ledger, "copy.sqlite");
        ledger.clock.advance(1000);
        let lost = ledger.clock.now_ms();
        let given = buy(&ledger, "after", lost).unwrap();
        ledger.clock.advance(1000);
        put_back(&mut ledger, "copy.sqlite");
        if is_told {
            assert_eq!(tell(&ledger).unwrap(), 1);
        }
        ledger.reopen().unwrap();
        match (is_told, buy(&ledger, "after", lost)) {
            (false, Ok(again)) => assert_eq!(again.n, given.n, "sold twice, under the number that was given"),
            (true, Err(ClaimError::BelowFloor)) => {}
            (_, other) => panic!("told: {is_told}, {other:?}"),
        }
        // What is made from now on is sold, under numbers that nobody has.
        let fresh = buy(&ledger, "fresh", ledger.clock.now_ms()).unwrap();
        assert_eq!(fresh.n >> 48, if is_told { 2 } else { 1 });
        ledger.close();
        let report = audit(&ledger);
        assert_eq!((report.finding, report.writers.len()), (None, if is_told { 2 } else { 1 }));
    }
}

#[test]
fn the_books_go_on_over_the_writers_of_several_restored_copies() {
    let mut ledger = Ledger::new();
    let first = ledger.pay("0");
    for i in 1..4_u64 {
        ledger.clock.advance(1000);
        ledger.reopen().unwrap();
        copy(&ledger, &format!("{i}.sqlite"));
        put_back(&mut ledger, &format!("{i}.sqlite"));
        assert_eq!(tell(&ledger).unwrap(), 1);
        // Twice is once: the new one has given no number.
        assert_eq!(tell(&ledger).unwrap(), 0);
        ledger.reopen().unwrap();
        let receipt = buy(&ledger, &i.to_string(), ledger.clock.now_ms()).unwrap();
        assert_eq!(receipt.n >> 48, 1 + i as i64);
        if i == 2 {
            // A day is closed over all of them, and what the first sold is voided by a later one.
            ledger.outcome(first.n, Delivery::NotSent, true);
            ledger.reopen().unwrap();
            ledger.clock.advance(DAY_MS);
            let close = wait(ledger.store().close_days(20_782, None)).unwrap();
            assert_eq!(close.heads.iter().map(|head| head.slot).collect::<Vec<_>>(), [1, 2, 3]);
        }
        ledger.close();
        let report = audit(&ledger);
        assert_eq!((report.finding, report.captures), (None, i + 1));
    }
    let rows = LedgerReader::open(&ledger.path()).unwrap().list(&Filter { limit: 9, ..Filter::default() }).unwrap();
    assert_eq!(rows.iter().map(|row| row.n >> 48).collect::<Vec<_>>(), [4, 3, 3, 2, 1]);
    assert!(rows.last().unwrap().fate.unwrap().void_n.is_some());
}

#[test]
fn the_ledger_of_a_gateway_that_runs_or_of_a_wrong_clock_is_left_as_it_is() {
    let mut ledger = Ledger::new();
    ledger.pay("a");
    assert!(matches!(tell(&ledger), Err(RestoredError::Running)));
    ledger.close();
    let early = restored(&Location::File(ledger.path()), "UTC", NOON - 1);
    assert!(matches!(early, Err(RestoredError::Clock { .. })), "{early:?}");
    assert_eq!(ledger.number("SELECT count(*) FROM writers"), 1);
    assert!(ledger.number("SELECT replay_floor_ms FROM book") < NOON as i64);
}

#[test]
fn a_copy_is_whole_while_the_gateway_sells() {
    let ledger = Ledger::new();
    std::thread::scope(|scope| {
        let selling = scope.spawn(|| (0..90).for_each(|i| _ = ledger.pay(&i.to_string())));
        let (mut i, mut last) = (0, 0);
        while !selling.is_finished() {
            copy(&ledger, &format!("{i}.sqlite"));
            let report =
                LedgerReader::open(&ledger.dir().join(format!("{i}.sqlite"))).unwrap().audit(|_, _| ()).unwrap();
            assert_eq!(report.finding, None);
            assert!(report.entries >= last);
            (i, last) = (i + 1, report.entries);
        }
        assert!(i > 1);
    });
}

#[test]
fn a_copy_replaces_nothing_and_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt as _;
    let ledger = Ledger::new();
    ledger.pay("a");
    copy(&ledger, "copy.sqlite");
    let path = ledger.dir().join("copy.sqlite");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    assert!(matches!(Copy::make(&ledger.path(), &path), Err(BackupError::Exists(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
    let new = ledger.dir().join("other.sqlite.new");
    // What an earlier one left when it was interrupted.
    fs::write(&new, "a part").unwrap();
    drop(Copy::make(&ledger.path(), &ledger.dir().join("other.sqlite")).unwrap());
    assert!(!new.exists() && !ledger.dir().join("other.sqlite").exists());
    let nowhere = Copy::make(&ledger.path(), &ledger.dir().join("no/copy.sqlite"));
    assert!(matches!(nowhere, Err(BackupError::Copy { .. })));
}
