//! What the port promises, kept on a server, by one gateway and by two.

use std::sync::Arc;

use tollgate::{
    clock::Clock,
    ledger::{
        location::Location,
        read::LedgerReader,
        sqlite::{SqliteOptions, SqliteStore},
        store::{CaptureError, ClaimError, Delivery, Outcome, Outcomes, Released, Store},
    },
};

use crate::{ledger::*, support::Postgres};

/// A gateway's store over the server.
fn open(server: &Postgres, clock: &Clock) -> Arc<SqliteStore> {
    let place = Location::parse(&server.url(), None).unwrap();
    SqliteStore::open(SqliteOptions { place, ..options("".into(), clock.clone()) }).unwrap()
}

fn audit(server: &Postgres) -> tollgate::ledger::audit::AuditReport {
    let place = Location::parse(&server.url(), None).unwrap();
    LedgerReader::open(place).unwrap().audit(|_, _| ()).unwrap()
}

#[test]
fn a_payment_is_claimed_once_over_gateways_and_captured_once() {
    let Some(server) = Postgres::start("postgres::a_payment_is_claimed_once") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    assert_eq!(wait(b.claim(request("one", 10_000))).unwrap_err(), ClaimError::InFlight);
    a.release(claim, Released::OriginFailed);
    let claim = loop {
        match wait(b.claim(request("one", 10_000))) {
            Ok(claim) => break claim,
            // The release is on its way.
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        }
    };
    let receipt = wait(b.capture(claim, posting(units(9_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 2);
    for store in [&a, &b] {
        let again = wait(store.claim(request("one", 10_000))).unwrap_err();
        assert_eq!(again, ClaimError::AlreadyCaptured(Some(receipt.n)));
    }
    assert_eq!(server.number("SELECT used FROM account_use"), 9_000);
    b.outcome(Outcome { n: receipt.n, delivery: Delivery::OriginCut, void: true, ms: 1, bytes: 0 });
    b.close().unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), 0);
    a.close().unwrap();
    let report = audit(&server);
    assert_eq!((report.finding, report.captures, report.voids, report.unproven), (None, 1, 1, 0));
}

#[test]
fn a_claim_whose_slot_is_gone_is_not_captured() {
    let Some(server) = Postgres::start("postgres::a_claim_whose_slot_is_gone") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    // As if it had been frozen for longer than its lease, and its slot given to another gateway.
    server.sql("UPDATE writers SET epoch = epoch + 1 WHERE slot = 1");
    let other = loop {
        match wait(b.claim(request("one", 10_000))) {
            Ok(other) => break other,
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        }
    };
    let lost = wait(a.capture(claim, posting(units(10_000)))).unwrap_err();
    assert!(matches!(lost, CaptureError::Unavailable(_)), "{lost}");
    wait(b.capture(other, posting(units(10_000)))).unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), 10_000);
    assert_eq!(server.number("SELECT count(*) FROM entries"), 1);
    // It has a slot again, and goes on.
    let next = loop {
        match wait(a.claim(request("two", 10_000))) {
            Ok(next) => break next,
            Err(error) => assert!(matches!(error, ClaimError::Unavailable(_)), "{error}"),
        }
    };
    let receipt = wait(a.capture(next, posting(units(10_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 3);
    a.close().unwrap();
    b.close().unwrap();
    assert_eq!(audit(&server).finding, None);
}
