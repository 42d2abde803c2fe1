//! Turns at what is owed: after the last one it has lapsed, and nobody hears of it before it is on disk.

use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, Sender, channel},
};

use tollgate::ledger::{
    faults::Faults,
    read::{Filter, State},
    store::{CaptureError, ClaimError, Delivery, Store},
};

use crate::{
    corrections::{refund, void},
    home::Home,
    settlement::*,
    support::*,
};

/// One turn that gives nothing.
fn turn(ledger: &Ledger, name: &str) {
    let turn = wait(ledger.store().take_owed(key(name))).expect("a turn");
    assert_eq!(claim(ledger, name).unwrap_err(), ClaimError::InFlight);
    ledger.store().give_back(turn);
}

/// What a claim says once the writer has done what it was told.
fn settled(ledger: &Ledger, name: &str) -> ClaimError {
    heard(ledger.store());
    claim(ledger, name).unwrap_err()
}

fn lapses(ledger: &Ledger) -> i64 {
    ledger.number("SELECT count(*) FROM entries WHERE kind = 10")
}

fn audited(ledger: &Ledger) {
    assert_eq!(ledger.audit().finding, None);
}

#[test]
fn the_third_turn_that_gives_nothing_is_the_last_in_any_process() {
    let mut ledger = Ledger::new();
    let receipt = settle(&ledger, intend(&ledger, "a"), true).unwrap();
    turn(&ledger, "a");
    turn(&ledger, "a");
    assert_eq!((settled(&ledger, "a"), lapses(&ledger)), (ClaimError::Owed, 0));
    // Turns are those of a process, but where all processes see them.
    ledger.reopen().unwrap();
    if Home::TURNS_OF_A_PROCESS {
        turn(&ledger, "a");
        turn(&ledger, "a");
    }
    assert_eq!(settled(&ledger, "a"), ClaimError::Owed);
    turn(&ledger, "a");
    let spent = ClaimError::AlreadyCaptured(Some(receipt.n));
    for _ in 0..2 {
        assert_eq!((settled(&ledger, "a"), lapses(&ledger)), (spent.clone(), 1));
        assert!(wait(ledger.store().take_owed(key("a"))).is_none());
        assert!(wait(ledger.store().find(key("a"))).unwrap().unwrap().owed);
        ledger.reopen().unwrap();
    }
    audited(&ledger);
}

#[test]
fn what_a_crash_left_unproven_lapses_too_and_is_owed_then() {
    let mut ledger = Ledger::new();
    settle(&ledger, intend(&ledger, "a"), false).unwrap();
    ledger.reopen().unwrap();
    (0..3).for_each(|_| turn(&ledger, "a"));
    assert!(matches!(settled(&ledger, "a"), ClaimError::AlreadyCaptured(_)));
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 6"), 1);
    assert!(wait(ledger.store().find(key("a"))).unwrap().unwrap().owed);
    audited(&ledger);
}

/// On credit no money has moved: what a crash left unproven may be had once more, and nothing is ever owed.
#[test]
fn what_a_crash_left_unproven_on_credit_is_had_once_or_lapses_unowed() {
    let mut ledger = Ledger::new();
    let (had, lapsed) = (ledger.pay("had"), ledger.pay("lapsed"));
    let (known, voided) = (ledger.pay("known"), ledger.pay("voided"));
    assert!(wait(ledger.store().take_owed(key("had"))).is_none(), "its answer is on its way");
    ledger.outcome(known.n, Delivery::ClientLeft, false);
    void(&ledger, voided.n).unwrap();
    ledger.reopen().unwrap();
    for name in ["known", "voided"] {
        assert!(matches!(ledger.claim(name), Err(ClaimError::AlreadyCaptured(_))), "{name}");
    }
    assert_eq!(redeliver(&ledger, "had"), Ok(had));
    for _ in 0..3 {
        let turn = wait(ledger.store().take_owed(key("lapsed"))).unwrap();
        ledger.store().give_back(turn);
    }
    heard(ledger.store());
    for _ in 0..2 {
        for (name, receipt) in [("had", had), ("lapsed", lapsed)] {
            assert_eq!(ledger.claim(name).unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
        }
        ledger.reopen().unwrap();
    }
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 6"), 0);
    assert_eq!((ledger.used(&request("", 0)), lapses(&ledger)), (30_000, 1));
    let report = ledger.audit();
    assert_eq!((report.finding, report.unproven), (None, 1));
}

#[test]
fn a_void_beats_a_turn_that_is_taken_on_credit_too() {
    let mut ledger = Ledger::new();
    let n = ledger.pay("a").n;
    ledger.reopen().unwrap();
    let turn = wait(ledger.store().take_owed(key("a"))).unwrap();
    void(&ledger, n).unwrap();
    assert_eq!(wait(ledger.store().redelivered(turn)), Err(CaptureError::Lost));
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 9"), 0);
    audited(&ledger);
}

/// An audit counts what a listing shows.
#[test]
fn an_audit_counts_as_unproven_what_is_listed_so() {
    let mut ledger = Ledger::new();
    for name in ["left", "redelivered", "owed", "voided", "refunded", "part"] {
        if name == "voided" {
            ledger.pay(name);
        } else {
            settle(&ledger, intend(&ledger, name), false).unwrap();
        }
    }
    ledger.reopen().unwrap();
    redeliver(&ledger, "redelivered").unwrap();
    (0..3).for_each(|_| turn(&ledger, "owed"));
    let n = |i: i64| ledger.number(&format!("SELECT n FROM entries WHERE kind = 1 ORDER BY n LIMIT 1 OFFSET {i}"));
    void(&ledger, n(3)).unwrap();
    refund(&ledger, n(4), "x", None, None).unwrap();
    refund(&ledger, n(5), "x", Some(1), None).unwrap();
    let reader = ledger.reader();
    let filter = Filter { limit: 10, state: Some(State::Unproven), ..Filter::default() };
    let listed: Vec<i64> = reader.list(&filter).unwrap().iter().map(|row| row.n).collect();
    assert_eq!(listed, [n(5), n(0)]);
    assert_eq!(reader.audit(|_, _| ()).unwrap().unproven, 2);
}

/// Holds the commit of a lapse until a test lets it go.
struct Hold(Mutex<Option<Held>>);

struct Held {
    commits: u32,
    told: Sender<()>,
    gate: Receiver<()>,
}

impl Faults for Hold {
    fn before_commit(&self) -> rusqlite::Result<()> {
        let mut hold = self.0.lock().unwrap();
        let Some(held) = &mut *hold else { return Ok(()) };
        held.commits -= 1;
        if held.commits == 0 {
            held.told.send(()).unwrap();
            held.gate.recv().unwrap();
            *hold = None;
        }
        Ok(())
    }
}

#[test]
fn until_a_lapse_is_on_disk_the_payment_is_in_flight() {
    let ((told, held), (go, gate)) = (channel(), channel());
    // The intent, the capture, the lapse.
    let ledger = Ledger::with_faults(Arc::new(Hold(Some(Held { commits: 3, told, gate }).into())));
    settle(&ledger, intend(&ledger, "a"), true).unwrap();
    (0..3).for_each(|_| turn(&ledger, "a"));
    held.recv().unwrap();
    // On a server its row is in the hand of who writes the lapse, and nobody waits for that.
    assert!(wait(ledger.store().take_owed(key("a"))).is_none());
    assert!(wait(ledger.store().knows(key("a"))).unwrap());
    assert_eq!((claim(&ledger, "a").unwrap_err(), lapses(&ledger)), (ClaimError::InFlight, 0));
    go.send(()).unwrap();
    assert!(matches!(settled(&ledger, "a"), ClaimError::AlreadyCaptured(_)));
}

#[test]
fn a_lapse_that_could_not_be_written_is_written_once_when_the_disk_is_back() {
    for (before, after) in [(3, 0), (0, 3)] {
        let mut ledger = failing(before, after);
        settle(&ledger, intend(&ledger, "a"), true).unwrap();
        (0..3).for_each(|_| turn(&ledger, "a"));
        while !matches!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(_)) {
            ledger.store().hurry();
            std::thread::yield_now();
        }
        ledger.until_open();
        assert_eq!(lapses(&ledger), 1);
        ledger.reopen().unwrap();
        assert!(matches!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(_)));
        audited(&ledger);
    }
}

#[test]
fn an_answer_that_is_served_does_not_lapse_and_what_lapsed_is_not_served() {
    let mut ledger = Ledger::new();
    settle(&ledger, intend(&ledger, "a"), true).unwrap();
    assert!(redeliver(&ledger, "a").is_ok());
    assert!(wait(ledger.store().take_owed(key("a"))).is_none());
    ledger.reopen().unwrap();
    assert!(matches!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(_)));
    // A void that comes late says that the answer is owed; it was served since.
    let n = ledger.number("SELECT n FROM entries WHERE kind = 1");
    ledger.outcome(n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    assert!(matches!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(_)));
    audited(&ledger);
}
