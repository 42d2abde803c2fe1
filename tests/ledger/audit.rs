//! Listings, single entries, and an audit that finds whatever was done to the books.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tollgate::{
    ledger::{
        audit::Place,
        entry::Kind,
        evidence::{Evidence, Proof},
        read::{Filter, State},
        store::{ClaimRequest, Delivery, Store},
    },
    payment::key::PaymentKey,
};

use crate::support::*;

const BASE: i64 = 1 << 48;

/// Six captures in as many batches, the second voided, outcomes for three.
pub fn books() -> Ledger {
    let mut ledger = Ledger::new();
    let receipts: Vec<_> = (0..6).map(|i| ledger.pay(&i.to_string())).collect();
    ledger.outcome(receipts[0].n, Delivery::Complete, false);
    ledger.outcome(receipts[1].n, Delivery::NotSent, true);
    ledger.outcome(receipts[2].n, Delivery::ClientLeft, false);
    ledger.close();
    ledger
}

#[test]
fn whole_books_pass() {
    let report = books().audit();
    assert_eq!(report.finding, None);
    assert_eq!((report.entries, report.captures, report.voids, report.unproven), (7, 6, 1, 3));
    assert_eq!(report.charged["USD"], 50_000);
    assert_eq!((report.writers[0].entries, report.writers[0].slot), (7, 1));
}

/// Does something to whole books, and says where the audit must find it.
fn check(sql: &str, place: Place, said: &str) {
    let ledger = books();
    ledger.change(sql);
    let finding = ledger.audit().finding.unwrap_or_else(|| panic!("not found: {sql}"));
    assert_eq!(finding.place, place, "{sql}: {finding}");
    assert!(finding.to_string().contains(said), "{sql}: {finding}");
}

#[test]
fn a_changed_row_is_named() {
    let third = Place::Entry(BASE + 3);
    check("UPDATE entries SET amount = 9999 WHERE n & 255 = 3", third.clone(), "hash of its columns");
    check("UPDATE entries SET account = 'other' WHERE n & 255 = 3", third.clone(), "hash of its columns");
    check("UPDATE entries SET status = NULL WHERE n & 255 = 3", third.clone(), "hash of its columns");
    check("UPDATE entries SET wall_ms = wall_ms + 1 WHERE n & 255 = 3", third.clone(), "hash of its columns");
    check("UPDATE entries SET target = target || 'x' WHERE n & 255 = 3", third.clone(), "target's digest");
    check("UPDATE entries SET evidence = x'00' WHERE n & 255 = 3", third.clone(), "evidence's digest");
    check("UPDATE entries SET hash = zeroblob(32) WHERE n & 255 = 3", third, "hash");
    check("UPDATE entries SET amount = 5000 WHERE kind = 2", Place::Entry(BASE + 7), "hash of its columns");
}

#[test]
fn a_removed_added_or_exchanged_row_is_named() {
    check("DELETE FROM entries WHERE n & 255 = 3", Place::Entry(BASE + 3), "expected 281474976710659, found 28147");
    check("DELETE FROM entries WHERE kind = 2", Place::Entry(BASE + 7), "found none");
    check(
        "UPDATE entries SET n = 0 WHERE n & 255 = 3; UPDATE entries SET n = n - 1 WHERE n & 255 = 4; \
         UPDATE entries SET n = 281474976710660 WHERE n = 0",
        Place::Entry(BASE + 3),
        "hash of its columns",
    );
    check("UPDATE entries SET n = n + 1 WHERE kind = 2", Place::Entry(BASE + 7), "next entry's number");
    check(
        "DELETE FROM entries WHERE n & 255 > 5; DELETE FROM batches WHERE batch_seq > 5",
        Place::Writer(1),
        "its batches",
    );
    check("DELETE FROM batches WHERE batch_seq = 2", Place::Batch { slot: 1, batch_seq: 2 }, "next batch's number");
    check("UPDATE entries SET n = n + 281474976710656 WHERE kind = 2", Place::Entry(BASE + 7), "found none");
}

#[test]
fn changed_outcomes_sums_and_heads_are_named() {
    let seventh = Place::Batch { slot: 1, batch_seq: 7 };
    check("UPDATE batches SET outcomes = NULL WHERE batch_seq = 7", seventh.clone(), "its head");
    check("UPDATE batches SET head = zeroblob(32) WHERE batch_seq = 7", seventh, "its head");
    check("UPDATE writers SET head = zeroblob(32)", Place::Writer(1), "its head");
    check("UPDATE writers SET seq = 8", Place::Writer(1), "its entries");
    let key = "day 20781, acme, https://signer.example.com, articles, deferred, USD, writer 1";
    check("UPDATE rollups SET captured = captured - 1", Place::Rollup(key.into()), "captured: 60000");
    check("UPDATE rollups SET voids = 0, voided = 0", Place::Rollup(key.into()), "voids: 1");
    check("DELETE FROM rollups", Place::Rollup(key.into()), "found none");
    check("UPDATE account_use SET used = 0", Place::AccountUse("acme USD 202611".into()), "expected 50000, found 0");
    check("DELETE FROM account_use", Place::AccountUse("acme USD 202611".into()), "expected 50000, found none");
    check("UPDATE book SET ledger_id = zeroblob(16)", Place::Entry(BASE + 1), "hash of its columns");
}

/// Where an archive was noted, it may be: `ledger/archive.rs`.
#[test]
fn what_is_personal_is_not_dropped_by_hand() {
    let third = || Place::Entry(BASE + 3);
    check(
        "UPDATE entries SET evidence = NULL WHERE n & 255 = 3",
        third(),
        "its evidence: expected one, for no archive",
    );
    let drop = "UPDATE entries SET target = NULL, target_salt = NULL WHERE n & 255 >= 3";
    check(drop, third(), "its target's salt: expected one, for no archive");
}

#[test]
fn an_audit_runs_beside_the_gateway() {
    let ledger = Ledger::new();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| (0..90).for_each(|i| _ = ledger.pay(&i.to_string())));
        let mut last = 0;
        while !writing.is_finished() {
            let report = ledger.audit();
            assert_eq!(report.finding, None);
            assert!(report.entries >= last);
            last = report.entries;
        }
    });
    assert_eq!(ledger.audit().entries, 90);
}

#[test]
fn listings_go_backwards_and_filter() {
    let ledger = books();
    let list = |filter| ledger.reader().list(&filter).unwrap();
    let all = list(Filter { limit: 100, ..Filter::default() });
    let shown: Vec<_> = all.iter().map(|row| (row.n - BASE, row.kind, row.fate.map(|f| f.state()))).collect();
    assert_eq!(
        shown,
        [
            (7, Kind::Void, None),
            (6, Kind::Capture, Some(State::Unproven)),
            (5, Kind::Capture, Some(State::Unproven)),
            (4, Kind::Capture, Some(State::Unproven)),
            (3, Kind::Capture, Some(State::Delivered)),
            (2, Kind::Capture, Some(State::Voided)),
            (1, Kind::Capture, Some(State::Delivered)),
        ]
    );
    assert_eq!(list(Filter { limit: 2, ..Filter::default() }), all[..2]);
    assert_eq!(list(Filter { limit: 9, state: Some(State::Delivered), ..Filter::default() }).len(), 2);
    assert_eq!(list(Filter { limit: 9, account: Some("nobody".into()), ..Filter::default() }), []);
    assert_eq!(list(Filter { limit: 9, since_ms: Some(NOON + 1), ..Filter::default() }), []);
}

/// Pages of a listing end between any two entries, batches and outcomes.
#[test]
fn a_long_listing_is_whole() {
    let mut ledger =
        Ledger::with(std::sync::Arc::new(tollgate::ledger::faults::NoFaults), |options| options.sync = false);
    for i in 0..600_i64 {
        let claim = wait(ledger.store().claim(request(&i.to_string(), 1))).unwrap();
        let n = ledger.capture(claim).unwrap().n;
        ledger.outcome(n, if i % 5 == 0 { Delivery::NotSent } else { Delivery::Complete }, i % 5 == 0);
    }
    ledger.close();
    let reader = ledger.reader();
    let rows = reader.list(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap();
    let last = BASE + 720;
    assert!(rows.iter().map(|row| row.n).eq((BASE + 1..=last).rev()), "{}", rows.len());
    let in_state = |state| Filter { limit: usize::MAX, state: Some(state), ..Filter::default() };
    let count = |state| reader.list(&in_state(state)).unwrap().len();
    assert_eq!((count(State::Voided), count(State::Delivered), count(State::Unproven)), (120, 480, 0));
}

#[test]
fn an_entry_is_shown_by_number_key_or_id_with_its_evidence() {
    let ledger = Ledger::new();
    let mut id = [0x5a; 48];
    id[..6].copy_from_slice(&NOON.to_be_bytes()[2..]);
    let evidence = Evidence {
        sealed_id: Some(id),
        template_digest: Some([3; 32]),
        signature_base: b"\"@authority\": shop.example".to_vec(),
        signature: vec![9; 64],
        thumbprint: "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into(),
        directory_digest: [8; 32],
        verified_ms: NOON,
        method: "GET".into(),
        target: "https://shop.example/articles/1?full".into(),
        origin_status: 200,
    };
    let claim = ClaimRequest { key: PaymentKey::from_offer_id(&id), ..request("", 10_000) };
    let claim = wait(ledger.store().claim(claim)).unwrap();
    let mut posting = posting(units(9_000));
    posting.evidence = evidence.encode();
    let receipt = wait(ledger.store().capture(claim, posting)).unwrap();
    let reader = ledger.reader();
    let shown = reader.show(&receipt.n.to_string()).unwrap().unwrap();
    assert_eq!(shown.evidence, Some(Ok(Proof::Signed(evidence))));
    assert_eq!((shown.listed.amount, shown.listed.fate.unwrap().state()), (9_000, State::Unproven));
    assert!(shown.jwk.as_ref().unwrap().contains("Ed25519"));
    assert_eq!(reader.show(&URL_SAFE_NO_PAD.encode(id)).unwrap(), Some(shown.clone()));
    assert_eq!(reader.show(&PaymentKey::from_offer_id(&id).to_string()).unwrap(), Some(shown));
    assert_eq!(reader.show("77").unwrap(), None);
    assert!(reader.show("no id").is_err());
    ledger.outcome(receipt.n, Delivery::ClientLeft, true);
    ledger.store().close().unwrap();
    let fate = reader.show(&receipt.n.to_string()).unwrap().unwrap().listed.fate.unwrap();
    assert_eq!((fate.state(), fate.outcome.unwrap().delivery), (State::Voided, Delivery::ClientLeft));
}
