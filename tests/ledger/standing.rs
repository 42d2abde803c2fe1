//! An audit that finds what was done to rows that no chain covers.

use tollgate::ledger::{
    audit::{AuditOptions, Finding, Place},
    read::LedgerReader,
    store::Store,
};

use crate::settlement::{claim, intend, wallet_posting};
use crate::support::*;

const BASE: i64 = 1 << 48;
const KEY: &str = "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U of https://signer.example.com";

/// A capture on credit, a settlement that is under way, the terms of an offer.
fn books() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.pay("a");
    std::mem::forget(intend(&ledger, "b"));
    let bytes = b"the bytes of a template".to_vec();
    let digest = tollgate::ledger::chain::evidence_digest(&bytes);
    wait(ledger.store().remember_terms(vec![(digest, bytes)])).unwrap();
    ledger.close();
    ledger
}

fn audit(ledger: &Ledger) -> Option<Finding> {
    let options = AuditOptions { now_ms: Some(ledger.clock.now_ms()), ..AuditOptions::default() };
    LedgerReader::open(&ledger.path()).unwrap().audit_from(&options, |_| ()).unwrap().0.finding
}

#[track_caller]
fn check(sql: &str, place: Place, said: &str) {
    let ledger = books();
    ledger.sql().execute_batch(sql).unwrap();
    let finding = audit(&ledger).unwrap_or_else(|| panic!("not found: {sql}"));
    assert_eq!(finding.place, place, "{sql}: {finding}");
    assert!(finding.to_string().contains(said), "{sql}: {finding}");
}

#[test]
fn whole_rows_pass() {
    assert_eq!(audit(&books()), None);
}

#[test]
fn a_changed_book_is_named() {
    check("UPDATE book SET version = 9", Place::Book, "its version");
    check("UPDATE book SET zone = 'Mars/Olympus'", Place::Book, "its zone: expected an IANA time zone");
    check("UPDATE book SET replay_floor_ms = -1", Place::Book, "its replay floor: expected at least 0");
    let late = format!("UPDATE book SET replay_floor_ms = {}", NOON + 300_001);
    check(&late, Place::Book, "its replay floor: expected at most");
    let ledger = books();
    ledger.sql().execute(&format!("UPDATE book SET replay_floor_ms = {}", NOON + 300_000), ()).unwrap();
    assert_eq!(audit(&ledger), None);
    // Without an id there is no ledger to open.
    ledger.sql().execute("UPDATE book SET ledger_id = zeroblob(15)", ()).unwrap();
    let error = LedgerReader::open(&ledger.path()).err().unwrap();
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_changed_writer_is_named() {
    let one = || Place::Writer(1);
    check("UPDATE writers SET epoch = 0", one(), "its epoch: expected 1 to 1, found 0");
    check("UPDATE writers SET at_ms = at_ms + 1", one(), "its last posting time");
    check("UPDATE writers SET lease_until = 0", one(), "the end of its lease");
    let second = "INSERT INTO writers SELECT 2, epoch, NULL, 0, 0, zeroblob(32), 0, 0, NULL FROM writers";
    check(second, Place::Writer(2), "its head");
}

#[test]
fn a_changed_key_is_named() {
    let key = || Place::Key(KEY.to_owned());
    check("UPDATE keys SET jwk = '{}'", key(), "its key: expected a usable public key");
    let other = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    check(&format!("UPDATE keys SET jwk = '{other}'"), key(), "the thumbprint of its key");
    check("UPDATE keys SET directory_digest = x'00'", key(), "readable");
    check("UPDATE keys SET seen_ms = -1", key(), "when it was seen");
    check("DELETE FROM keys", key(), "the row: expected one, for captures are signed with it");
    check("UPDATE keys SET agent = 'https://other.example'", key(), "captures are signed with it");
}

#[test]
fn changed_terms_are_named() {
    let ledger = books();
    let digest: String = ledger.sql().query_row("SELECT lower(hex(digest)) FROM terms", (), |row| row.get(0)).unwrap();
    let terms = || Place::Terms(digest.clone());
    check("UPDATE terms SET bytes = CAST(bytes || 'x' AS BLOB)", terms(), "the digest of its bytes");
    check("UPDATE terms SET loaded_ms = -1", terms(), "when it was loaded");
    check("UPDATE terms SET loaded_ms = 9000000000000", terms(), "when it was loaded: expected at most");
    check("UPDATE terms SET digest = zeroblob(32)", Place::Terms("00".repeat(32)), "the digest of its bytes");
}

#[test]
fn a_changed_observation_is_named() {
    let observed = "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, observed, would_be) \
                    VALUES (1, 'a', 'b', 'c', 'd', 'USD', 1, ";
    let place = || Place::Rollup("day 1, a, b, c, d, USD, writer 1".to_owned());
    check(&format!("{observed} -1, 0)"), place(), "what was observed: expected not negative");
    check(&format!("{observed} 1, -5)"), place(), "what it would have been: expected not negative, found -5");
    let ledger = books();
    ledger.sql().execute(&format!("{observed} 1, 5)"), ()).unwrap();
    assert_eq!(audit(&ledger), None);
}

#[test]
fn a_changed_claim_is_named() {
    let ledger = books();
    let payment: String = ledger.sql().query_row("SELECT lower(hex(key)) FROM claims", (), |row| row.get(0)).unwrap();
    let claim = || Place::Claim(payment.clone());
    check("UPDATE claims SET state = 'r'", claim(), "its state: expected s or u, found r");
    check("UPDATE claims SET slot = 2", claim(), "its writer");
    check("UPDATE claims SET key = x'07'", Place::Claim("07".to_owned()), "its payment");
    let strange = format!("02{}", "ab".repeat(16));
    check(
        &format!("UPDATE claims SET key = x'{strange}'"),
        Place::Claim(strange),
        "the intent of what is being settled",
    );
    // One that stayed behind when its payment was captured, or had failed.
    let left = "INSERT INTO claims SELECT substr(e.key, 2), 1, 1, 'u', '', 0, '', 0, 0, NULL, NULL FROM entries e WHERE e.kind = ";
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "b");
    wait(ledger.store().settled(settling, wallet_posting(), false)).unwrap();
    let settling = intend(&ledger, "c");
    wait(ledger.store().failed(settling, wallet_posting())).unwrap();
    ledger.close();
    for (kind, said) in [(1, "a capture of what is being settled: expected none"), (5, "a failure of what")] {
        ledger.sql().execute_batch(&format!("DELETE FROM claims; {left}{kind}")).unwrap();
        let finding = audit(&ledger).unwrap();
        assert!(matches!(finding.place, Place::Claim(_)) && finding.to_string().contains(said), "{finding}");
    }
}

#[test]
fn a_changed_reason_of_a_step_is_named_where_it_shows() {
    let mut ledger = books();
    ledger.reopen().unwrap();
    ledger.clock.advance(86_400_000);
    wait(ledger.store().close_days(20_782, None)).unwrap();
    let mark = |state| tollgate::ledger::statements::Mark { number: 1, state, reason: "by mail".to_owned() };
    wait(ledger.store().mark(mark(tollgate::ledger::statements::StatementState::Sent))).unwrap();
    ledger.close();
    assert_eq!(audit(&ledger), None);
    for (change, i) in [("NULL", 2), ("''", 2), ("'two' || char(10) || 'lines'", 2), ("'why'", 1)] {
        let set = format!("UPDATE statement_events SET reason = {change} WHERE i = {i}");
        let sql = ledger.sql();
        sql.execute_batch(&format!("BEGIN; {set}; COMMIT")).unwrap();
        let finding = audit(&ledger).unwrap_or_else(|| panic!("{set}"));
        assert_eq!((finding.place, finding.what), (Place::Statement(1), "the reason of its next event"), "{set}");
        sql.execute_batch("UPDATE statement_events SET reason = CASE i WHEN 1 THEN NULL ELSE 'by mail' END").unwrap();
    }
}

#[test]
fn the_writers_look_for_room_is_no_claim() {
    let ledger = books();
    let probe = "INSERT INTO claims (key, slot, epoch, state, account, period, asset, amount, hard_until_ms, payload) \
                 VALUES (x'00', 1, 0, 'r', '', 0, '', 0, 0, zeroblob(8))";
    ledger.sql().execute(probe, ()).unwrap();
    assert_eq!(audit(&ledger), None);
    assert!(claim(&Ledger::new(), "fresh").is_ok());
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), 2, "entries from {BASE} on");
}
