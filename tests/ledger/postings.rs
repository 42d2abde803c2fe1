//! What a store promises while nothing fails.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Waker},
};

use tollgate::{
    clock::Clock,
    ledger::{
        faults::Faults,
        mailbox::Mailbox,
        store::{CaptureError, Claim, ClaimError, Delivery, Health, Look, Released, Store},
    },
    payment::key::PaymentKey,
};

use crate::support::*;

#[test]
fn a_capture_is_durable_and_the_next_claim_is_refused_also_after_a_restart() {
    let mut ledger = Ledger::new();
    let receipt = ledger.pay("a");
    assert_eq!((receipt.n, receipt.at_ms), ((1 << 48) | 1, NOON));
    assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
    assert_eq!(wait(ledger.store().look(key("a"))), Ok(Look::Captured(Some(receipt.n))));
    ledger.outcome(receipt.n, Delivery::Complete, false);
    ledger.reopen().unwrap();
    assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
    assert_eq!(wait(ledger.store().look(key("b"))), Ok(Look::Unknown));
    assert_eq!(ledger.used(&request("a", 0)), 10_000);
    assert_eq!(ledger.number("SELECT used FROM account_use"), 10_000);
    assert_eq!(ledger.number("SELECT count(*) FROM keys"), 1);
}

#[test]
fn below_the_floor_a_payment_is_refused_and_the_floor_never_falls() {
    let mut ledger = Ledger::new();
    ledger.pay("old");
    ledger.advance(3_600_000);
    let now = ledger.clock.now_ms();
    let fresh = tollgate::ledger::store::ClaimRequest { paid_at_ms: now, ..request("fresh", 1) };
    let claim = wait(ledger.store().claim(fresh)).unwrap();
    ledger.capture(claim).unwrap();
    let floor = ledger.store().replay_floor_ms();
    assert_eq!(floor, now - 300_000 - 60_000);
    assert_eq!(ledger.claim("old").unwrap_err(), ClaimError::BelowFloor);
    // A machine that comes up with yesterday's clock.
    ledger.clock = Clock::manual(NOON - 86_400_000);
    ledger.reopen().unwrap();
    assert_eq!(ledger.store().replay_floor_ms(), floor);
    assert!(matches!(ledger.store().health(), Health::Closed(why) if why.contains("behind the ledger")));
    assert!(matches!(ledger.claim("x"), Err(ClaimError::Unavailable(_))));
    ledger.store().accept_clock();
    assert_eq!(ledger.store().health(), Health::Open);
    assert_eq!(ledger.claim("old").unwrap_err(), ClaimError::BelowFloor);
    let later = tollgate::ledger::store::ClaimRequest { paid_at_ms: floor, ..request("later", 1) };
    let receipt = ledger.capture(wait(ledger.store().claim(later)).unwrap()).unwrap();
    assert_eq!(receipt.at_ms, now, "posting time does not fall");
    assert_eq!(ledger.store().replay_floor_ms(), floor);
    assert_eq!(ledger.number("SELECT replay_floor_ms FROM book").unsigned_abs(), floor);
}

/// Holds the writer in its first batch until told, so that what queues meanwhile is one batch.
pub struct HoldFirst(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl HoldFirst {
    /// The fault, what tells that the writer is held, and what lets it go.
    pub fn new() -> (Arc<HoldFirst>, Receiver<()>, Sender<()>) {
        let ((held_tx, held), (go, go_rx)) = (channel(), channel());
        (Arc::new(HoldFirst(Mutex::new(Some((held_tx, go_rx))))), held, go)
    }
}

impl Faults for HoldFirst {
    fn before_commit(&self) -> rusqlite::Result<()> {
        if let Some((held, go)) = self.0.lock().unwrap().take() {
            held.send(()).unwrap();
            go.recv().unwrap();
        }
        Ok(())
    }
}

#[test]
fn of_two_captures_of_one_key_in_a_batch_one_loses_and_nothing_counts_it() {
    let (fault, held, go) = HoldFirst::new();
    let ledger = Ledger::with_faults(fault);
    let capture = |claim: Claim| {
        let amount = claim.request.amount;
        ledger.store().capture(claim, posting(amount))
    };
    let first = capture(ledger.claim("first").unwrap());
    held.recv().unwrap();
    let claim = ledger.claim("twin").unwrap();
    let twin = Claim { request: claim.request.clone(), token: claim.token };
    let (one, two, last) = (capture(claim), capture(twin), capture(ledger.claim("last").unwrap()));
    go.send(()).unwrap();
    wait(first).unwrap();
    let base = 1 << 48;
    assert_eq!(wait(one).unwrap().n, base + 2);
    assert_eq!(wait(two).unwrap_err(), CaptureError::Lost);
    assert_eq!(wait(last).unwrap().n, base + 3);
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), 2);
    assert_eq!(ledger.number("SELECT seq FROM writers"), 3);
    assert_eq!(ledger.number("SELECT sum(captures) FROM rollups"), 3);
    assert_eq!(ledger.number("SELECT sum(captured) FROM rollups"), 30_000);
    assert_eq!(ledger.used(&request("", 0)), 30_000);
}

#[test]
fn a_void_happens_once_gives_credit_back_and_the_key_stays_burnt() {
    let mut ledger = Ledger::new();
    let receipt = ledger.pay("a");
    ledger.outcome(receipt.n, Delivery::OriginCut, true);
    ledger.outcome(receipt.n, Delivery::OriginCut, true);
    ledger.reopen().unwrap();
    ledger.outcome(receipt.n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 2"), 1);
    assert_eq!(ledger.number("SELECT ref_n FROM entries WHERE kind = 2"), receipt.n);
    assert_eq!(ledger.number("SELECT voided - voids * 10000 FROM rollups"), 0);
    assert_eq!(ledger.number("SELECT used FROM account_use"), 0);
    assert_eq!(ledger.used(&request("a", 0)), 0);
    assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
}

#[test]
fn an_outcome_without_company_rides_in_an_empty_batch() {
    let mut ledger = Ledger::new();
    let receipt = ledger.pay("a");
    ledger.outcome(receipt.n, Delivery::Complete, false);
    // A second one says nothing new and is not written.
    ledger.outcome(receipt.n, Delivery::ClientLeft, false);
    ledger.close();
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), 2);
    let row = ledger.rows("SELECT n_first, outcomes FROM batches WHERE batch_seq = 2").remove(0);
    let n_first = &row[0];
    let records = tollgate::ledger::outcomes::decode(&bytes(&row[1])).unwrap();
    assert_eq!((n_first, records.len(), records[0].n, records[0].bytes), (&None, 1, receipt.n, 3456));
}

#[test]
fn outcomes_are_written_within_about_a_second_without_a_batch() {
    let ledger = Ledger::new();
    let receipt = ledger.pay("a");
    ledger.outcome(receipt.n, Delivery::Complete, false);
    let start = std::time::Instant::now();
    while ledger.number("SELECT count(*) FROM batches") < 2 {
        assert!(start.elapsed().as_secs() < 20);
        std::thread::yield_now();
    }
}

#[test]
fn three_releases_burn_the_payment() {
    let ledger = Ledger::new();
    for _ in 0..3 {
        let claim = ledger.claim("a").unwrap();
        assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::InFlight);
        ledger.store().release(claim, Released::ClientLeft);
    }
    assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::Burnt);
    assert_eq!(ledger.used(&request("a", 0)), 0);
}

#[test]
fn the_last_unit_of_credit_can_be_spent_and_no_more() {
    let ledger = Ledger::new();
    for i in 0..99 {
        ledger.pay(&i.to_string());
    }
    let open = ledger.claim("open").unwrap();
    let refused = ledger.claim("over").unwrap_err();
    assert_eq!(refused, ClaimError::CreditExhausted { used: units(1_000_000), limit: units(1_000_000) });
    ledger.store().release(open, Released::ClientLeft);
    ledger.pay("last");
    assert!(matches!(ledger.claim("over"), Err(ClaimError::CreditExhausted { .. })));
}

#[test]
fn a_posting_that_is_too_large_is_refused_before_it_meets_the_others() {
    let ledger = Ledger::new();
    let capture = |change: fn(&mut tollgate::ledger::store::Posting)| {
        let claim = ledger.claim("a").unwrap();
        let mut posting = posting(units(10_000));
        change(&mut posting);
        wait(ledger.store().capture(claim, posting)).unwrap_err()
    };
    assert!(capture(|p| p.evidence = vec![0; 65_537]).to_string().contains("64 KiB"));
    assert!(capture(|p| p.amount = units(10_001)).to_string().contains("more than was claimed"));
    assert!(capture(|p| p.route = "r".repeat(5000).into()).to_string().contains("too long"));
    // Each has cost an origin call, so each counts.
    assert_eq!(ledger.claim("a").unwrap_err(), ClaimError::Burnt);
    assert_eq!(ledger.used(&request("", 0)), 0);
    ledger.pay("b");
}

/// One row that the database refuses, for a reason that nobody foresaw.
struct Poison(PaymentKey);

impl Faults for Poison {
    fn insert(&self, key: &PaymentKey) -> rusqlite::Result<()> {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT);
        if *key == self.0 { Err(rusqlite::Error::SqliteFailure(code, None)) } else { Ok(()) }
    }
}

#[test]
fn a_row_that_cannot_be_written_does_not_take_the_others_with_it() {
    let ledger = Ledger::with_faults(Arc::new(Poison(key("7"))));
    let captures: Vec<_> = (0..20)
        .map(|i| ledger.store().capture(ledger.claim(&i.to_string()).unwrap(), posting(units(10_000))))
        .collect();
    for (i, capture) in captures.into_iter().enumerate() {
        let result = wait(capture);
        assert_eq!(result.is_ok(), i != 7, "{i}: {result:?}");
    }
    assert_eq!(ledger.store().health(), Health::Open);
    assert_eq!(ledger.number("SELECT seq FROM writers"), 19);
    assert_eq!(ledger.used(&request("", 0)), 190_000);
}

#[test]
fn a_full_queue_says_so_and_gives_the_claim_back() {
    let (fault, held, go) = HoldFirst::new();
    let ledger = Ledger::with(fault, |options| options.queue_max = 1);
    let capture = |name: &str| ledger.store().capture(ledger.claim(name).unwrap(), posting(units(10_000)));
    let first = capture("first");
    held.recv().unwrap();
    let second = capture("second");
    let refused = wait(capture("third")).unwrap_err();
    assert!(refused.to_string().contains("ledger.queue_max"), "{refused}");
    let again = ledger.claim("third").unwrap();
    go.send(()).unwrap();
    wait(first).unwrap();
    wait(second).unwrap();
    ledger.capture(again).unwrap();
}

#[test]
fn a_disk_that_does_not_answer_closes_priced_routes_until_it_does() {
    let (fault, held, go) = HoldFirst::new();
    let ledger = Ledger::with_faults(fault);
    let first = ledger.store().capture(ledger.claim("first").unwrap(), posting(units(10_000)));
    held.recv().unwrap();
    ledger.clock.advance(2000);
    let claim = ledger.claim("slow").unwrap();
    ledger.clock.advance(1);
    let Err(ClaimError::Unavailable(why)) = ledger.claim("stalled") else { panic!("the disk stands still") };
    assert!(why.to_string().contains("the disk does not answer"), "{why}");
    assert_eq!(ledger.store().health(), Health::Closed(why.0));
    assert!(!ledger.store().is_open());
    // What was claimed before waits in the queue and is not lost.
    let second = ledger.store().capture(claim, posting(units(10_000)));
    go.send(()).unwrap();
    wait(first).unwrap();
    wait(second).unwrap();
    assert_eq!((ledger.store().health(), ledger.store().is_open()), (Health::Open, true));
    ledger.pay("stalled");
}

#[test]
fn payments_below_the_floor_leave_memory_within_seconds_of_a_busy_gateway() {
    let ledger = Ledger::with(Arc::new(tollgate::ledger::faults::NoFaults), |options| options.sync = false);
    for i in 0..90 {
        ledger.pay(&i.to_string());
    }
    ledger.advance(3_600_000);
    for i in 0..10 {
        ledger.advance(1000);
        let paid_at_ms = ledger.clock.now_ms();
        let request = tollgate::ledger::store::ClaimRequest { paid_at_ms, ..request(&format!("new {i}"), 1) };
        ledger.capture(wait(ledger.store().claim(request)).unwrap()).unwrap();
    }
    // The sweep follows the answers of its batch.
    wait(ledger.store().recent_terms(0)).unwrap();
    assert_eq!(ledger.store().keys_held(), 10);
}

#[test]
fn a_full_memory_is_not_open() {
    let ledger = Ledger::with(Arc::new(tollgate::ledger::faults::NoFaults), |options| options.keys_max = 1);
    assert!(ledger.store().is_open());
    let claim = ledger.claim("a").unwrap();
    assert!(!ledger.store().is_open());
    assert!(matches!(ledger.claim("b"), Err(ClaimError::Unavailable(why)) if why.to_string().contains("keys_max")));
    ledger.capture(claim).unwrap();
    assert!(!ledger.store().is_open());
}

/// Number of captures, of voids, and the outcomes as `(capture, code)`.
fn books(ledger: &Ledger) -> (i64, i64, Vec<(i64, u8)>) {
    let blobs = ledger.rows("SELECT outcomes FROM batches WHERE outcomes IS NOT NULL");
    let records = blobs.iter().flat_map(|row| tollgate::ledger::outcomes::decode(&bytes(&row[0])).unwrap());
    let count = |kind| ledger.number(&format!("SELECT count(*) FROM entries WHERE kind = {kind}"));
    (count(1), count(2), records.map(|record| (record.n, record.delivery as u8)).collect())
}

#[test]
fn a_capture_that_nobody_waits_for_is_voided() {
    let (fault, held, go) = HoldFirst::new();
    let mut ledger = Ledger::with_faults(fault);
    let capture = |name: &str| ledger.store().capture(ledger.claim(name).unwrap(), posting(units(10_000)));
    let mut polled = capture("polled");
    held.recv().unwrap();
    assert!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(polled);
    // Dropped before its commit began, without ever being polled.
    drop(capture("queued"));
    let unread = capture("unread");
    let read = capture("read");
    go.send(()).unwrap();
    let receipt = wait(read).unwrap();
    // In the same batch as the one that was read, so it has its answer too.
    drop(unread);
    ledger.outcome(receipt.n, Delivery::Complete, false);
    for name in ["polled", "queued", "unread", "read"] {
        assert!(matches!(ledger.claim(name), Err(ClaimError::AlreadyCaptured(_))), "{name}");
    }
    ledger.close();
    let n = |seq: i64| 1 << 48 | seq;
    let (captures, voids, mut outcomes) = books(&ledger);
    outcomes.sort_unstable();
    let (not_sent, complete) = (Delivery::NotSent as u8, Delivery::Complete as u8);
    assert_eq!((captures, voids), (4, 3));
    // «queued», «unread» and «read» are rows 2, 3 and 4; their voids come after them.
    assert_eq!(outcomes, [(n(1), not_sent), (n(2), not_sent), (n(3), not_sent), (n(4), complete)]);
    assert_eq!(ledger.number("SELECT used FROM account_use"), 10_000);
}

#[test]
fn a_capture_whose_thread_is_gone_is_voided_too() {
    let (fault, held, go) = HoldFirst::new();
    let mut ledger = Ledger::with_faults(fault);
    let driver = Mailbox::install();
    drop(ledger.store().capture(ledger.claim("a").unwrap(), posting(units(10_000))));
    held.recv().unwrap();
    go.send(()).unwrap();
    drop(driver);
    ledger.close();
    assert_eq!(books(&ledger), (1, 1, vec![((1 << 48) | 1, Delivery::NotSent as u8)]));
}

#[test]
fn captures_of_a_core_with_a_mailbox_are_answered_through_it() {
    let ledger = Ledger::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(Mailbox::install());
        let mut tasks = Vec::new();
        for i in 0..50 {
            let claim = ledger.store().claim(request(&i.to_string(), 10_000)).await.unwrap();
            tasks.push(tokio::task::spawn_local(ledger.store().capture(claim, posting(units(10_000)))));
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    assert_eq!(ledger.number("SELECT seq FROM writers"), 50);
}

#[test]
fn templates_outlive_the_process() {
    let mut ledger = Ledger::new();
    wait(ledger.store().remember_terms(vec![([1; 32], b"one".to_vec()), ([2; 32], b"two".to_vec())])).unwrap();
    ledger.advance(1000);
    wait(ledger.store().remember_terms(vec![([2; 32], b"two".to_vec())])).unwrap();
    ledger.reopen().unwrap();
    let recent = wait(ledger.store().recent_terms(NOON)).unwrap();
    assert_eq!(recent, [(b"one".to_vec(), NOON), (b"two".to_vec(), NOON + 1000)]);
    assert_eq!(wait(ledger.store().recent_terms(NOON + 1)).unwrap(), [(b"two".to_vec(), NOON + 1000)]);
}

#[test]
fn a_closed_ledger_answers_unavailable() {
    let ledger = Ledger::new();
    let claim = ledger.claim("a").unwrap();
    ledger.store().close().unwrap();
    ledger.store().close().unwrap();
    assert!(matches!(ledger.store().health(), Health::Closed(_)));
    assert!(!ledger.store().is_open());
    assert!(matches!(ledger.capture(claim), Err(CaptureError::Unavailable(_))));
    assert!(matches!(ledger.claim("b"), Err(ClaimError::Unavailable(_))));
    assert!(wait(ledger.store().recent_terms(0)).is_err());
}

#[test]
fn a_wall_clock_that_jumps_closes_priced_routes_until_it_agrees() {
    let ledger = Ledger::new();
    ledger.clock.step_wall(400_000);
    ledger.store().check_clock();
    assert!(matches!(ledger.store().health(), Health::Closed(why) if why.contains("400 s ahead")));
    assert!(!ledger.store().is_open());
    ledger.clock.step_wall(1000);
    ledger.store().check_clock();
    assert_eq!(ledger.store().health(), Health::Open);
    ledger.pay("a");
}

/// The clock of one run was a day ahead; it posted nothing, but an idle gateway raises the floor too.
#[test]
fn a_floor_that_a_wrong_clock_pushed_ahead_closes_priced_routes_with_the_reason() {
    let mut ledger = Ledger::new();
    ledger.close();
    let pushed = NOON + 86_400_000;
    ledger.change(&format!("UPDATE book SET replay_floor_ms = {pushed}"));
    ledger.reopen().unwrap();
    let Err(ClaimError::Unavailable(why)) = ledger.claim("a") else { panic!("every offer would be too old") };
    assert!(why.to_string().contains("86400 s behind the ledger's replay floor"), "{why}");
    assert!(!ledger.store().is_open());
    // Time passes, or the operator sets the clock.
    ledger.advance(86_400_000);
    ledger.store().check_clock();
    assert!(ledger.store().is_open());
    let request = tollgate::ledger::store::ClaimRequest { paid_at_ms: pushed, ..request("a", 1) };
    ledger.capture(wait(ledger.store().claim(request)).unwrap()).unwrap();
}
