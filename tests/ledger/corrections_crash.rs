//! A disk that fails and a process that dies over a correction: it stands wholly or not at all, and asking again tells.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rusqlite::ffi;
use tollgate::{
    clock::Clock,
    ledger::{
        correction::State,
        faults::Faults,
        ledger_store::LedgerStore,
        location::Location,
        store::{By, ClaimError, CorrectError, Corrected, Order, Store, What},
    },
};

use crate::{corrections::audited, settlement, support::*};

/// Fails the commit that is counted down to, before or after it took place.
pub struct At {
    before: AtomicU32,
    after: AtomicU32,
    kills: bool,
}

impl At {
    /// The commit that so many come before, less one.
    pub fn commit(which: u32, after: bool, kills: bool) -> At {
        let count = |is| AtomicU32::new(if is { which } else { 0 });
        At { before: count(!after), after: count(after), kills }
    }

    fn reach(&self, countdown: &AtomicU32) -> rusqlite::Result<()> {
        if countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) != Ok(1) {
            return Ok(());
        }
        if self.kills {
            Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
            unreachable!("killed");
        }
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None))
    }
}

impl Faults for At {
    fn before_commit(&self) -> rusqlite::Result<()> {
        self.reach(&self.before)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        self.reach(&self.after)
    }
}

/// Each posting that there is, with what must stand before it.
const CASES: [&str; 9] = ["void", "sent", "done", "failed", "open", "contested", "upheld", "rejected", "lapsed"];

/// The capture that a case is about: of «token», which is owed, or of «credit».
fn number(ledger: &Ledger, case: &str) -> i64 {
    let scheme = if matches!(case, "sent" | "done" | "failed" | "lapsed") { "exact" } else { "deferred" };
    ledger.number(&format!("SELECT n FROM entries WHERE kind = 1 AND scheme = '{scheme}'"))
}

fn what(case: &str) -> What {
    let refund = |state| What::Refund { reference: "x".to_owned(), amount: None, state };
    match case {
        "void" => What::Void { unproven_since: None },
        "sent" => refund(None),
        "done" => refund(Some(State::Done)),
        "failed" => refund(Some(State::Failed)),
        "open" | "contested" => What::Dispute,
        "upheld" => What::Uphold,
        _ => What::Reject,
    }
}

fn correct(store: &LedgerStore, n: i64, case: &str) -> Option<Result<Corrected, CorrectError>> {
    let by = match case {
        "contested" => By::Agent(crate::view::signed("acme", "https://signer.example.com", "signed once")),
        _ => By::Operator,
    };
    let order = Order { n, what: what(case), reason: "because".to_owned(), by };
    wait(store.correct(vec![order])).ok().map(|mut results| results.remove(0))
}

/// Gives all turns at what is owed back.
fn lapse(store: &LedgerStore) {
    for _ in 0..3 {
        if let Some(turn) = wait(store.take_owed(key("token"))) {
            store.give_back(turn);
        }
    }
    heard(store);
}

/// A sale of each kind, and what comes before the case; how many commits that takes.
fn prepare(ledger: &Ledger, case: &str) -> u32 {
    settlement::settle(ledger, settlement::intend(ledger, "token"), true).unwrap();
    ledger.pay("credit");
    let before = match case {
        "done" | "failed" => "sent",
        "upheld" | "rejected" => "open",
        _ => return 3,
    };
    correct(ledger.store(), number(ledger, case), before).unwrap().unwrap();
    4
}

/// What memory and the books say once the case stands, or not.
fn check(ledger: &Ledger, case: &str, stands: bool) {
    let used = if stands && ["void", "upheld"].contains(&case) { 0 } else { 10_000 };
    assert_eq!(ledger.used(&request("", 0)), used, "{case}");
    let fetched = match case {
        "sent" | "lapsed" => !stands,
        "failed" => stands,
        "done" => false,
        _ => true,
    };
    let error = settlement::claim(ledger, "token").unwrap_err();
    assert_eq!(error == ClaimError::Owed, fetched, "{case} {stands}: {error}");
    let (kind, status) = match case {
        "void" => (2, ""),
        "sent" => (3, "AND status = 1"),
        "done" => (3, "AND status = 2"),
        "failed" => (3, "AND status = 3"),
        "open" | "contested" => (8, "AND status = 1"),
        "upheld" => (8, "AND status = 2"),
        "rejected" => (8, "AND status = 3"),
        _ => (10, ""),
    };
    let count = ledger.number(&format!("SELECT count(*) FROM entries WHERE kind = {kind} {status}"));
    assert_eq!(count, i64::from(stands), "{case}");
}

/// Whoever was not told asks again: it is made now, or it was so, or it is refused because it is so.
fn again(ledger: &Ledger, case: &str, stood: bool) {
    if case == "lapsed" {
        return lapse(ledger.store());
    }
    let said = correct(ledger.store(), number(ledger, case), case).unwrap();
    match (case, stood) {
        (_, false) => assert!(!said.unwrap().was),
        ("sent" | "done" | "failed" | "contested", true) => assert!(said.unwrap().was),
        ("void", true) => assert!(matches!(said, Err(CorrectError::Voided { .. }))),
        ("open", true) => assert!(matches!(said, Err(CorrectError::Disputed { .. }))),
        (_, true) => assert!(matches!(said, Err(CorrectError::NotDisputed(_)))),
    }
}

#[test]
fn a_disk_that_fails_leaves_a_correction_made_or_not_and_asking_again_ends_it() {
    for case in CASES {
        for made in [false, true] {
            let commits = if matches!(case, "done" | "failed" | "upheld" | "rejected") { 5 } else { 4 };
            let count = |is| AtomicU32::new(if is { commits } else { 0 });
            let at = At { before: count(!made), after: count(made), kills: false };
            let ledger = Ledger::with_faults(Arc::new(at));
            assert_eq!(prepare(&ledger, case) + 1, commits);
            let n = number(&ledger, case);
            if case == "lapsed" {
                lapse(ledger.store());
            } else {
                assert_eq!(correct(ledger.store(), n, case), None, "{case}");
            }
            ledger.until_open();
            // A lapse is made up for by itself.
            let stands = made || case == "lapsed";
            check(&ledger, case, stands);
            again(&ledger, case, stands);
            check(&ledger, case, true);
            audited(&ledger);
        }
    }
}

const CHILD: &str = "TOLLGATE_TEST_CORRECTION";

/// The process that the next test starts; by itself it does nothing.
#[test]
fn child_that_dies_over_a_correction() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [point, case, n, path] = told.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let count = |name| AtomicU32::new(u32::from(name == point));
    let at = At { before: count("before"), after: count("after"), kills: true };
    let store =
        LedgerStore::open_with_faults(options(Location::parse(path, None).unwrap(), Clock::manual(NOON)), Arc::new(at))
            .unwrap();
    match case {
        "lapsed" => lapse(&store),
        _ => _ = correct(&store, n.parse().unwrap(), case),
    }
}

#[test]
fn kill_9_leaves_a_correction_made_or_not() {
    for case in CASES {
        for made in [false, true] {
            let mut ledger = Ledger::new();
            prepare(&ledger, case);
            let n = number(&ledger, case);
            ledger.close();
            let point = if made { "after" } else { "before" };
            let output = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "corrections_crash::child_that_dies_over_a_correction",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env(CHILD, format!("{point} {case} {n} {}", ledger.home.name()))
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            assert_eq!(signal, Some(9), "{case}: {output:?}");
            ledger.home.bury();
            ledger.reopen().unwrap();
            check(&ledger, case, made);
            again(&ledger, case, made);
            check(&ledger, case, true);
            ledger.reopen().unwrap();
            check(&ledger, case, true);
            audited(&ledger);
        }
    }
}
