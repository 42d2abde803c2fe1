//! A disk that fails, and a process that dies: whatever was answered is in the books, once.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rusqlite::ffi;
use tollgate::{
    clock::Clock,
    ledger::{
        entry::{Kind, PostingKey},
        faults::Faults,
        ledger_store::LedgerStore,
        location::Location,
        read::LedgerReader,
        store::{CaptureError, ClaimError, ClaimRequest, Delivery, Health, Outcome, Outcomes, Released, Store},
    },
};

use crate::{home::Home, support::*};

fn clean(ledger: &Ledger) {
    let report = ledger.audit();
    assert_eq!(report.finding, None);
}

/// Fails one commit, before or after it took place.
struct Once {
    before: AtomicU32,
    after: AtomicU32,
    panics: bool,
}

impl Once {
    fn fail(&self, countdown: &AtomicU32) -> rusqlite::Result<()> {
        if countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) != Ok(1) {
            return Ok(());
        }
        assert!(!self.panics, "on purpose");
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None))
    }
}

impl Faults for Once {
    fn before_commit(&self) -> rusqlite::Result<()> {
        self.fail(&self.before)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        self.fail(&self.after)
    }
}

fn once(before: u32, after: u32, panics: bool) -> Ledger {
    Ledger::with_faults(Arc::new(Once { before: before.into(), after: after.into(), panics }))
}

#[test]
fn a_commit_that_failed_gives_the_payment_back() {
    for panics in [false, true] {
        let ledger = once(2, 0, panics);
        ledger.pay("a");
        let error = ledger.capture(ledger.claim("b").unwrap()).unwrap_err();
        assert!(matches!(error, CaptureError::Unavailable(_)));
        ledger.until_open();
        assert_eq!(ledger.used(&request("", 0)), 10_000);
        assert_eq!(ledger.pay("b").n, (1 << 48) + 2);
        assert_eq!(ledger.used(&request("", 0)), 20_000);
        clean(&ledger);
    }
}

#[test]
fn a_commit_that_took_place_unseen_is_voided_and_its_key_stays_burnt() {
    for panics in [false, true] {
        let mut ledger = once(0, 2, panics);
        let told = ledger.pay("told");
        ledger.outcome(told.n, Delivery::Complete, false);
        let error = ledger.capture(ledger.claim("unseen").unwrap()).unwrap_err();
        assert!(matches!(error, CaptureError::Unavailable(_)));
        ledger.until_open();
        let n = (1 << 48) + 2;
        assert_eq!(ledger.claim("unseen").unwrap_err(), ClaimError::AlreadyCaptured(Some(n)));
        assert_eq!(ledger.number("SELECT ref_n FROM entries WHERE kind = 2"), n);
        assert_eq!(ledger.used(&request("", 0)), 10_000);
        ledger.close();
        let report = ledger.audit();
        assert_eq!((report.finding, report.captures, report.voids, report.unproven), (None, 2, 1, 0));
    }
}

#[test]
fn a_chain_that_somebody_else_wrote_to_stays_closed() {
    let ledger = Ledger::new();
    ledger.pay("a");
    ledger.change("UPDATE writers SET seq = 7");
    assert!(ledger.capture(ledger.claim("b").unwrap()).is_err());
    ledger.store().hurry();
    assert!(matches!(ledger.store().health(), Health::Closed(_)));
    ledger.change("UPDATE writers SET seq = 1");
    ledger.until_open();
    ledger.pay("b");
}

const CHILD: &str = "TOLLGATE_TEST_LEDGER";

/// The process that the next test kills; by itself it does nothing.
#[test]
fn child_that_pays_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let clock = Clock::system();
    let store = LedgerStore::open(options(Location::parse(&path, None).unwrap(), clock.clone())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, clock) = (&store, &clock);
            scope.spawn(move || {
                for i in 0.. {
                    let name = format!("{}/{thread}/{i}", std::process::id());
                    let limit = units(i64::MAX / 4);
                    let request = ClaimRequest { paid_at_ms: clock.now_ms(), limit, ..request(&name, 10) };
                    let paid_at_ms = request.paid_at_ms;
                    let claim = wait(store.claim(request)).unwrap();
                    if i % 5 == 0 {
                        store.release(claim, Released::ClientLeft);
                        continue;
                    }
                    let receipt = wait(store.capture(claim, posting(units(10)))).unwrap();
                    let void = i % 7 == 0;
                    store.outcome(Outcome { n: receipt.n, delivery: Delivery::Complete, void, ms: 1, bytes: 1 });
                    // One write of a whole line: the pipe's other end sees lines, or nothing.
                    let line = format!("ack {name} {} {paid_at_ms} {}\n", receipt.n, store.replay_floor_ms());
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn every_payment_that_was_answered_is_in_the_books_once_after_kill_9() {
    let home = Home::new();
    let (mut acks, mut floor) = (BTreeMap::new(), 0);
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_pays_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, home.name())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
            // libtest may have begun the line.
            let Some(at) = line.find("ack ") else { continue };
            let words: Vec<&str> = line[at..].split(' ').collect();
            let number = |i: usize| words[i].parse::<u64>().unwrap();
            assert_eq!(acks.insert(words[1].to_owned(), (number(2) as i64, number(3))), None);
            assert!(number(4) >= floor, "the floor fell");
            floor = number(4);
            if acks.len() >= 150 * round && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let report = LedgerReader::open(home.location()).unwrap().audit(|_, _| ()).unwrap();
        assert_eq!(report.finding, None);
        assert!(report.captures >= acks.len() as u64);
        let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in home.rows("SELECT key, n FROM entries") {
            found.entry(row[0].clone().unwrap()).or_default().push(row[1].as_ref().unwrap().parse().unwrap());
        }
        for (name, (n, _)) in &acks {
            let key = PostingKey::new(Kind::Capture, &key(name), 0);
            let key: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found[&key], [*n], "{name}");
        }
        let stored = home.rows("SELECT replay_floor_ms FROM book")[0][0].as_ref().unwrap().parse::<u64>().unwrap();
        assert!(stored >= floor);
        home.bury();
    }
    let store = LedgerStore::open(options(home.location(), Clock::system())).unwrap();
    for (name, (n, paid_at_ms)) in &acks {
        let again = ClaimRequest { paid_at_ms: *paid_at_ms, limit: units(i64::MAX / 4), ..request(name, 10) };
        let key = again.key;
        let refused = wait(store.claim(again)).unwrap_err();
        // Those whose outcome was not written may be fetched once more.
        assert!(matches!(refused, ClaimError::AlreadyCaptured(_) | ClaimError::Owed), "{refused}");
        assert_eq!(wait(store.find(key)).unwrap().map(|bought| bought.receipt.n), Some(*n));
    }
}
