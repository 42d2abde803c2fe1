//! Payments that move money at once: every point at which the process may die, the disk may fail or the caller may leave.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rusqlite::ffi;
use tollgate::{
    ledger::{
        faults::Faults,
        settling::{Intent, Settling},
        store::{CaptureError, Claim, ClaimError, ClaimRequest, Delivery, Posting, Purchase, Receipt, Released, Store},
    },
    wire::amount::{Asset, Units},
};

use crate::support::*;

/// Settlements without a known end.
const OPEN: &str = "SELECT count(*) FROM claims WHERE state IN ('s', 'u')";

const USDC: &str = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";

fn wallet_request(name: &str) -> ClaimRequest {
    ClaimRequest {
        account: "wallets".into(),
        asset: Asset::parse(USDC).unwrap(),
        limit: Units::MAX,
        period: 0,
        purchase: Some(Purchase { payer: "eip155:84532:0xaa".into(), what: "GET https://shop.example/a".into() }),
        ..request(name, 10_000)
    }
}

pub fn wallet_posting() -> Posting {
    Posting {
        scheme: "exact",
        agent: "eip155:84532:0xaa".into(),
        agent_key: None,
        key: None,
        target: "https://shop.example/a".into(),
        ..posting(units(10_000))
    }
}

fn intent() -> Intent {
    Intent {
        posting: wallet_posting(),
        facilitator: "https://facilitator.example".into(),
        payload: br#"{"x402Version":2}"#.to_vec(),
        hard_until_ms: NOON + 120_000,
    }
}

pub fn claim(ledger: &Ledger, name: &str) -> Result<Claim, ClaimError> {
    let paid_at_ms = ledger.clock.now_ms();
    wait(ledger.store().claim(ClaimRequest { paid_at_ms, ..wallet_request(name) }))
}

pub fn intend(ledger: &Ledger, name: &str) -> Settling {
    wait(ledger.store().intend(claim(ledger, name).unwrap(), intent())).unwrap()
}

pub fn settle(ledger: &Ledger, settling: Settling, owed: bool) -> Result<Receipt, CaptureError> {
    wait(ledger.store().settled(settling, wallet_posting(), owed))
}

pub fn redeliver(ledger: &Ledger, name: &str) -> Result<Receipt, CaptureError> {
    let turn = wait(ledger.store().take_owed(key(name))).ok_or(CaptureError::Lost)?;
    wait(ledger.store().redelivered(turn))
}

/// The books hold together; captures, intents and failures that stand in them.
fn audited(ledger: &mut Ledger, captures: i64, intents: i64, failures: i64) {
    let kinds = [1, 4, 5].map(|kind| ledger.number(&format!("SELECT count(*) FROM entries WHERE kind = {kind}")));
    assert_eq!(kinds, [captures, intents, failures]);
    ledger.close();
    assert_eq!(ledger.audit().finding, None);
    assert_eq!(ledger.number("SELECT coalesce(sum(used), 0) FROM account_use"), captures * 10_000);
}

#[test]
fn an_intent_is_durable_before_anything_else_and_goes_with_its_capture() {
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "a");
    assert_eq!(ledger.number(OPEN), 1);
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::InFlight);
    // Two purchases at once are two purchases.
    ledger.store().release(claim(&ledger, "b").unwrap(), Released::OriginFailed);
    let receipt = settle(&ledger, settling, false).unwrap();
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
    assert_eq!(ledger.number(OPEN), 0);
    let bought = wait(ledger.store().find(key("a"))).unwrap().unwrap();
    assert_eq!((bought.receipt, bought.method.as_deref()), (receipt, Some("GET")));
    assert_eq!(bought.target.as_deref(), Some("https://shop.example/a"));
    assert_eq!(wait(ledger.store().find(key("b"))), Ok(None));
    audited(&mut ledger, 1, 1, 0);
}

#[test]
fn a_failed_settlement_spends_the_payment_and_charges_nothing() {
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "a");
    wait(ledger.store().failed(settling, wallet_posting())).unwrap();
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Burnt);
    assert_eq!(ledger.used(&wallet_request("a")), 0);
    ledger.store().release(claim(&ledger, "b").unwrap(), Released::OriginFailed);
    audited(&mut ledger, 0, 1, 1);
}

#[test]
fn what_is_unknown_blocks_the_payer_for_that_purchase_and_survives_restarts_until_it_is_resolved() {
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "a");
    ledger.store().unknown(settling);
    let refused = |ledger: &Ledger| {
        assert_eq!(claim(ledger, "a").unwrap_err(), ClaimError::Unresolved);
        assert_eq!(claim(ledger, "b").unwrap_err(), ClaimError::PayerUnresolved);
        let other = Purchase { payer: "eip155:84532:0xbb".into(), ..wallet_request("c").purchase.unwrap() };
        let other = wait(ledger.store().claim(ClaimRequest { purchase: Some(other), ..wallet_request("c") })).unwrap();
        ledger.store().release(other, Released::OriginFailed);
        assert_eq!(ledger.used(&wallet_request("a")), 10_000);
    };
    refused(&ledger);
    for _ in 0..2 {
        ledger.reopen().unwrap();
        refused(&ledger);
    }
    let [unresolved] = &wait(ledger.store().unresolved()).unwrap()[..] else { panic!("one is unresolved") };
    let (is, was) = (&unresolved.intent, intent());
    assert_eq!((&is.payload, &is.facilitator, is.hard_until_ms), (&was.payload, &was.facilitator, was.hard_until_ms));
    assert_eq!(
        (&*is.posting.agent, &*is.posting.target, is.posting.scheme),
        ("eip155:84532:0xaa", "https://shop.example/a", "exact")
    );
    assert_eq!(unresolved.request.purchase, wallet_request("a").purchase);
    // Two that want to resolve it: one does.
    let settling = wait(ledger.store().adopt(key("a"))).unwrap();
    assert!(wait(ledger.store().adopt(key("a"))).is_none());
    ledger.store().unknown(settling);
    let settling = wait(ledger.store().adopt(key("a"))).unwrap();
    let receipt = settle(&ledger, settling, true).unwrap();
    assert!(wait(ledger.store().unresolved()).unwrap().is_empty());
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    ledger.store().release(claim(&ledger, "b").unwrap(), Released::OriginFailed);
    ledger.reopen().unwrap();
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    assert_eq!(redeliver(&ledger, "a"), Ok(receipt));
    assert_eq!(redeliver(&ledger, "a"), Err(CaptureError::Lost));
    ledger.reopen().unwrap();
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
    audited(&mut ledger, 1, 1, 0);
}

#[test]
fn a_second_try_has_one_intent_and_an_ended_payment_has_none_to_come() {
    let mut ledger = Ledger::new();
    drop(intend(&ledger, "a"));
    // The process died in between: what was dropped here is found unresolved.
    ledger.reopen().unwrap();
    let settling = wait(ledger.store().adopt(key("a"))).unwrap();
    settle(&ledger, settling, false).unwrap();
    audited(&mut ledger, 1, 1, 0);
}

#[test]
fn a_caller_that_leaves_between_intent_and_end_leaves_it_unresolved() {
    let ledger = Ledger::new();
    // Dropped without being asked: nobody knows whether a facilitator was.
    drop(ledger.store().intend(claim(&ledger, "a").unwrap(), intent()));
    wait(ledger.store().find(key("a"))).unwrap();
    assert_eq!(wait(ledger.store().unresolved()).unwrap().len(), 1);
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Unresolved);
    // A capture that nobody waits for was not delivered: the answer is owed, the money stays.
    let settling = wait(ledger.store().adopt(key("a"))).unwrap();
    drop(ledger.store().settled(settling, wallet_posting(), false));
    ledger.store().hurry();
    while !matches!(claim(&ledger, "a"), Err(ClaimError::Owed)) {
        std::thread::yield_now();
    }
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 2"), 0);
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 6"), 1);
}

#[test]
fn a_paid_answer_that_was_not_given_is_owed_and_not_voided() {
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "a");
    let receipt = settle(&ledger, settling, false).unwrap();
    ledger.outcome(receipt.n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 2"), 0);
    assert_eq!(redeliver(&ledger, "a"), Ok(receipt));
    audited(&mut ledger, 1, 1, 0);
}

/// Fails one commit, before or after it took place.
struct Fail {
    before: AtomicU32,
    after: AtomicU32,
}

fn fail(countdown: &AtomicU32) -> rusqlite::Result<()> {
    if countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) == Ok(1) {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None));
    }
    Ok(())
}

impl Faults for Fail {
    fn before_commit(&self) -> rusqlite::Result<()> {
        fail(&self.before)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        fail(&self.after)
    }
}

pub fn failing(before: u32, after: u32) -> Ledger {
    Ledger::with_faults(Arc::new(Fail { before: before.into(), after: after.into() }))
}

#[test]
fn an_intent_that_could_not_be_written_leaves_the_payment_free_whether_or_not_it_is_there() {
    for (before, after) in [(1, 0), (0, 1)] {
        let mut ledger = failing(before, after);
        let error = wait(ledger.store().intend(claim(&ledger, "a").unwrap(), intent())).unwrap_err();
        assert!(matches!(error, CaptureError::Unavailable(_)));
        ledger.until_open();
        assert_eq!(ledger.number(OPEN), 0);
        assert!(wait(ledger.store().unresolved()).unwrap().is_empty());
        let settling = intend(&ledger, "a");
        settle(&ledger, settling, false).unwrap();
        audited(&mut ledger, 1, 1, 0);
    }
}

/// Every commit takes place, and the first two of them unseen.
struct Unseen(AtomicU32);

impl Faults for Unseen {
    fn after_commit(&self) -> rusqlite::Result<()> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_ok() {
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None))
        } else {
            Ok(())
        }
    }
}

#[test]
fn a_second_try_whose_intent_was_not_seen_either_is_not_left_in_doubt() {
    let mut ledger = Ledger::with_faults(Arc::new(Unseen(2.into())));
    for _ in 0..2 {
        assert!(wait(ledger.store().intend(claim(&ledger, "a").unwrap(), intent())).is_err());
        ledger.until_open();
        assert_eq!(ledger.number(OPEN), 0);
    }
    ledger.reopen().unwrap();
    assert!(wait(ledger.store().unresolved()).unwrap().is_empty());
    let settling = intend(&ledger, "a");
    settle(&ledger, settling, false).unwrap();
    audited(&mut ledger, 1, 1, 0);
}

#[test]
fn money_that_moved_is_posted_once_the_disk_is_back_and_the_answer_is_owed() {
    for (before, after) in [(2, 0), (0, 2)] {
        let mut ledger = failing(before, after);
        let settling = intend(&ledger, "a");
        assert!(matches!(settle(&ledger, settling, false), Err(CaptureError::Unavailable(_))));
        ledger.until_open();
        while claim(&ledger, "a").unwrap_err() != ClaimError::Owed {
            ledger.store().hurry();
            std::thread::yield_now();
        }
        ledger.reopen().unwrap();
        assert!(redeliver(&ledger, "a").is_ok());
        audited(&mut ledger, 1, 1, 0);
    }
}

#[test]
fn a_failure_that_could_not_be_written_is_written_later() {
    for (before, after) in [(2, 0), (0, 2)] {
        let mut ledger = failing(before, after);
        let settling = intend(&ledger, "a");
        assert!(wait(ledger.store().failed(settling, wallet_posting())).is_err());
        ledger.until_open();
        assert_eq!(claim(&ledger, "a").unwrap_err(), ClaimError::Burnt);
        audited(&mut ledger, 0, 1, 1);
    }
}
