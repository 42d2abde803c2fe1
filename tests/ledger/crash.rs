//! A disk that fails, and a process that dies: whatever was answered is in the books, once.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use rusqlite::{Connection, ffi};
use tollgate::{
    clock::Clock,
    ledger::{
        entry::{Kind, PostingKey},
        faults::Faults,
        read::LedgerReader,
        sqlite::SqliteStore,
        store::{CaptureError, ClaimError, ClaimRequest, Delivery, Health, Look, Outcome, Outcomes, Released, Store},
    },
};

use crate::support::*;

/// Lets the writer try its disk again until it is well.
fn until_open(ledger: &Ledger) {
    let start = std::time::Instant::now();
    while ledger.store().health() != Health::Open {
        assert!(start.elapsed().as_secs() < 30, "{:?}", ledger.store().health());
        ledger.store().hurry();
        std::thread::yield_now();
    }
}

fn clean(ledger: &Ledger) {
    let report = LedgerReader::open(&ledger.path()).unwrap().audit(|_, _| ()).unwrap();
    assert_eq!(report.finding, None);
}

/// A disk without room for another page.
#[derive(Default)]
struct Full(AtomicBool, AtomicU32);

impl Faults for Full {
    fn opened(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if self.0.load(Ordering::Relaxed) {
            connection.pragma_update(None, "max_page_count", 1)?;
        }
        Ok(())
    }
}

#[test]
fn a_full_disk_closes_priced_routes_and_nothing_is_answered_as_captured() {
    let full = Arc::new(Full(AtomicBool::new(true), AtomicU32::new(0)));
    let ledger = Ledger::with_faults(full.clone());
    let mut answered = 0;
    let error = loop {
        let claim = ledger.claim(&answered.to_string()).unwrap();
        match ledger.capture(claim) {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CaptureError::Unavailable(_)), "{error}");
    let health = ledger.store().health();
    assert!(matches!(&health, Health::Closed(why) if why.contains("full")), "{health:?}");
    assert!(matches!(ledger.claim("other"), Err(ClaimError::Unavailable(_))));
    // A file that can be read but not written stays closed.
    let tries = full.1.load(Ordering::Relaxed);
    while full.1.load(Ordering::Relaxed) < tries + 3 {
        ledger.store().hurry();
        std::thread::yield_now();
        assert!(matches!(ledger.store().health(), Health::Closed(_)));
    }
    full.0.store(false, Ordering::Relaxed);
    until_open(&ledger);
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), answered);
    assert_eq!(ledger.store().used(&request("", 0)).get(), answered * 10_000);
    ledger.pay(&answered.to_string());
    clean(&ledger);
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
        until_open(&ledger);
        assert_eq!(ledger.store().used(&request("", 0)).get(), 10_000);
        assert_eq!(ledger.pay("b").n, (1 << 48) + 2);
        assert_eq!(ledger.store().used(&request("", 0)).get(), 20_000);
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
        until_open(&ledger);
        let n = (1 << 48) + 2;
        assert_eq!(ledger.claim("unseen").unwrap_err(), ClaimError::AlreadyCaptured(Some(n)));
        assert_eq!(ledger.number("SELECT ref_n FROM entries WHERE kind = 2"), n);
        assert_eq!(ledger.store().used(&request("", 0)).get(), 10_000);
        ledger.close();
        let report = LedgerReader::open(&ledger.path()).unwrap().audit(|_, _| ()).unwrap();
        assert_eq!((report.finding, report.captures, report.voids, report.unproven), (None, 2, 1, 0));
    }
}

#[test]
fn a_file_that_somebody_else_wrote_stays_closed() {
    let ledger = Ledger::new();
    ledger.pay("a");
    ledger.sql().execute("UPDATE writers SET seq = 7", ()).unwrap();
    assert!(ledger.capture(ledger.claim("b").unwrap()).is_err());
    ledger.store().hurry();
    assert!(matches!(ledger.store().health(), Health::Closed(_)));
    ledger.sql().execute("UPDATE writers SET seq = 1", ()).unwrap();
    until_open(&ledger);
    ledger.pay("b");
}

const CHILD: &str = "TOLLGATE_TEST_LEDGER";

/// The process that the next test kills; by itself it does nothing.
#[test]
fn child_that_pays_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let clock = Clock::system();
    let store = SqliteStore::open(options(path.into(), clock.clone())).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.sqlite");
    let (mut acks, mut floor) = (BTreeMap::new(), 0);
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_pays_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
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
        let report = LedgerReader::open(&path).unwrap().audit(|_, _| ()).unwrap();
        assert_eq!(report.finding, None);
        assert!(report.captures >= acks.len() as u64);
        let sql = Connection::open(&path).unwrap();
        for (name, (n, _)) in &acks {
            let found: Vec<i64> = sql
                .prepare_cached("SELECT n FROM entries WHERE key = ?1")
                .unwrap()
                .query_map([PostingKey::new(Kind::Capture, &key(name), 0).as_bytes()], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(found, [*n], "{name}");
        }
        let stored: u64 = sql.query_row("SELECT replay_floor_ms FROM book", (), |r| r.get::<_, i64>(0)).unwrap() as u64;
        assert!(stored >= floor);
    }
    let store = SqliteStore::open(options(path, Clock::system())).unwrap();
    for (name, (n, paid_at_ms)) in &acks {
        let again = ClaimRequest { paid_at_ms: *paid_at_ms, limit: units(i64::MAX / 4), ..request(name, 10) };
        let key = again.key;
        let refused = wait(store.claim(again)).unwrap_err();
        // Those whose outcome was not written may be fetched once more.
        assert!(matches!(refused, ClaimError::AlreadyCaptured(_) | ClaimError::Owed), "{refused}");
        assert_eq!(wait(store.look(key)), Ok(Look::Captured(Some(*n))));
    }
}
