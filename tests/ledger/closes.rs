//! An audit that finds whatever was done to closed days.

use tollgate::{
    ledger::{
        audit::{AuditReport, Place},
        statements::{Mark, StatementState},
        store::Delivery,
    },
    wire::jwk::PublicKey,
};

use crate::{
    closing::{DAY_MS, TODAY, buy, key},
    settlement,
    support::*,
};

const BASE: i64 = 1 << 48;

/// Two closes, the first signed; statements 1 of acme, 2 of wallets, 3 of acme with the void of something in 1; a sale after.
pub fn books() -> Ledger {
    let mut ledger = Ledger::new();
    let first = buy(&ledger, "acme", "a", 10_000);
    settlement::settle(&ledger, settlement::intend(&ledger, "token"), false).unwrap();
    ledger.advance(DAY_MS);
    wait(ledger.store().close_days(TODAY + 1, Some(key()))).unwrap();
    ledger.outcome(first.n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    buy(&ledger, "acme", "b", 500);
    ledger.advance(DAY_MS);
    wait(ledger.store().close_days(TODAY + 2, None)).unwrap();
    let mark = |state| Mark { number: 1, state, reason: "why".to_owned() };
    wait(ledger.store().mark(mark(StatementState::Sent))).unwrap();
    buy(&ledger, "acme", "c", 7);
    ledger.close();
    ledger
}

fn public() -> PublicKey {
    key().public_jwk().public_key(false).unwrap()
}

fn audit(ledger: &Ledger, keys: &[PublicKey]) -> AuditReport {
    ledger.reader().audit_with_keys(keys, |_, _| ()).unwrap()
}

/// Does something to whole books, and says where the audit must find it.
#[track_caller]
fn check(sql: &str, place: Place, said: &str) {
    let ledger = books();
    ledger.change(sql);
    let finding = audit(&ledger, &[public()]).finding.unwrap_or_else(|| panic!("not found: {sql}"));
    assert_eq!(finding.place, place, "{sql}: {finding}");
    assert!(finding.to_string().contains(said), "{sql}: {finding}");
}

#[test]
fn whole_closes_pass_and_their_signatures_are_checked_where_a_key_is_known() {
    let ledger = books();
    let report = audit(&ledger, &[public()]);
    assert_eq!(report.finding, None);
    assert_eq!((report.closes, report.signed, report.verified, report.statements), (2, 1, 1, 3));
    let report = audit(&ledger, &[]);
    assert_eq!((report.finding, report.signed, report.verified), (None, 1, 0));
}

#[test]
fn a_changed_close_is_named() {
    let first = || Place::Close(TODAY + 1);
    let second = || Place::Close(TODAY + 2);
    check("UPDATE closes SET from_day = from_day + 1 WHERE signature IS NULL", second(), "its first day");
    check("UPDATE closes SET from_day = until + 1 WHERE signature IS NOT NULL", first(), "its first day");
    check("UPDATE closes SET at_ms = at_ms + 1 WHERE signature IS NOT NULL", first(), "its signature");
    check("UPDATE closes SET at_ms = 0 WHERE signature IS NULL", second(), "its time");
    check("UPDATE closes SET signature = zeroblob(96) WHERE signature IS NOT NULL", first(), "the key that signed it");
    check("UPDATE closes SET signature = zeroblob(95) WHERE signature IS NOT NULL", first(), "96 bytes");
    check("UPDATE closes SET heads = zeroblob(56) WHERE signature IS NULL", second(), "the writers of its heads");
    check("UPDATE closes SET heads = x'' WHERE signature IS NULL", second(), "the writers of its heads");
    check("UPDATE closes SET heads = x'00' WHERE signature IS NULL", second(), "56 bytes");
    // slot 8, seq 8, batch_seq 8, head 32
    check_head(15, second(), "the entries before it");
    check_head(23, second(), "the batches before it: expected at most");
    check_head(40, second(), "its head");
    check("DELETE FROM closes WHERE signature IS NULL", Place::Writer(1), "its first open day");
    check("DELETE FROM closes WHERE signature IS NOT NULL", Place::Close(TODAY + 2), "its first day");
    check("UPDATE writers SET open_day = 0", Place::Writer(1), "its first open day");
    // A stranger's signature over the same bytes.
    let ledger = books();
    let stranger = tollgate::payment::gateway_key::GatewayKey::new(ed25519_dalek::SigningKey::from_bytes(&[8; 32]));
    let finding = audit(&ledger, &[stranger.public_jwk().public_key(false).unwrap()]).finding.unwrap();
    assert_eq!((finding.place, finding.what), (first(), "the key that signed it"));
}

/// Changes a byte of what the second close says of the chain.
#[track_caller]
fn check_head(byte: usize, place: Place, said: &str) {
    let ledger = books();
    let heads = "SELECT heads FROM closes WHERE signature IS NULL";
    let mut heads = bytes(&ledger.rows(heads)[0][0]);
    heads[byte] ^= 0x40;
    ledger.change(&format!("UPDATE closes SET heads = {} WHERE signature IS NULL", literal(&heads)));
    let finding = audit(&ledger, &[]).finding.unwrap();
    assert_eq!(finding.place, place, "byte {byte}: {finding}");
    assert!(finding.to_string().contains(said), "byte {byte}: {finding}");
}

#[test]
fn a_changed_statement_is_named() {
    let one = || Place::Statement(1);
    check("UPDATE statements SET gross = gross - 1 WHERE number = 1", one(), "its gross: expected 10000");
    check("UPDATE statements SET total = 0 WHERE number = 3", Place::Statement(3), "its total: expected -9500");
    check(
        "UPDATE statements SET corrections = 0 WHERE number = 3",
        Place::Statement(3),
        "its corrections: expected 10000",
    );
    check("UPDATE statements SET account = 'other' WHERE number = 1", one(), "whose it is");
    check("UPDATE statements SET head = zeroblob(32) WHERE number = 2", Place::Statement(2), "its head");
    check("UPDATE statements SET number = 9 WHERE number = 3", Place::Statement(3), "its number");
    check(
        "DELETE FROM statements WHERE number = 3",
        Place::Statement(3),
        "expected acme, USD, before 2026-11-26, found none",
    );
    check("DELETE FROM statements WHERE number = 1", one(), "its number");
    let more = "INSERT INTO statements SELECT 4, 'x', asset, until, 0, 0, 0, head FROM statements WHERE number = 1";
    check(more, Place::Statement(4), "expected none");
}

#[test]
fn a_changed_event_is_named() {
    let one = || Place::Statement(1);
    check("DELETE FROM statement_events WHERE number = 1", one(), "its first event");
    check("DELETE FROM statement_events WHERE number = 1 AND i = 1", one(), "its next event's number");
    check("UPDATE statement_events SET state = 'paid' WHERE number = 1 AND i = 2", one(), "expected sent, found paid");
    check("UPDATE statement_events SET state = 'lost' WHERE number = 1 AND i = 2", one(), "found lost");
    check("UPDATE statement_events SET at_ms = 1 WHERE number = 1 AND i = 2", one(), "the time of its next event");
    check("DELETE FROM statement_events WHERE number = 2 AND i = 2", Place::Statement(2), "expected paid, found none");
    check("INSERT INTO statement_events VALUES (9, 1, 'closed', 0, NULL)", Place::Statement(9), "no statement");
}

#[test]
fn a_posting_in_a_closed_day_is_named_though_its_chain_holds() {
    // The last sale is one of the day after the second close: one that had closed that day, too, would not have let it in.
    check(
        "UPDATE closes SET until = until + 1 WHERE signature IS NULL; UPDATE writers SET open_day = open_day + 1; \
         UPDATE statements SET until = until + 1 WHERE number = 3",
        Place::Entry(BASE + 6),
        "its book day: expected 2026-11-27 or later",
    );
}
