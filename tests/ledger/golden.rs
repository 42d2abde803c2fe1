//! The chain's bytes, computed by another program: a change here breaks every ledger in use.

use std::collections::HashMap;

use tollgate::{
    ledger::{
        chain::{self, Batch},
        close::{Close, HeadRecord},
        entry::{Entry, Kind, PostingKey},
        outcomes,
        store::{Delivery, Outcome},
        witness::{self, Subject, Witness},
    },
    payment::key::PaymentKey,
};

use crate::support::{NOON, bytes};

fn vector() -> HashMap<&'static str, &'static str> {
    include_str!("golden/chain.txt").lines().filter_map(|line| line.split_once(": ")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn witnesses_are_what_their_golden_vector_says() {
    let vector = vector();
    let at_ms = NOON as i64 + 2000;
    let head = tollgate::ledger::chain::Hash::try_from(bytes(&Some(vector["batch_2"].to_owned()))).unwrap();
    let heads = vec![HeadRecord { slot: 1, seq: 2, batch_seq: 2, head }];
    let close = Witness::of_close(&Close { from_day: 20_781, until: 20_782, at_ms, heads, signature: None });
    assert_eq!(hex(&close.digest), vector["close"]);
    let event = Witness::of_event(1, 2, "sent", at_ms + 1000, Some("by mail"));
    assert_eq!(hex(&event.digest), vector["event"]);
    let archive = |of| Witness::of_archive(of, [1, 2, 1, 1, 2, at_ms], [&[1; 32], &[2; 32], &[3; 32]], "{}");
    let evidence = archive(Subject::Evidence { slot: 1, last_batch: 2 });
    let rows = archive(Subject::Rows { slot: 1, last_batch: 2 });
    assert_eq!(hex(&rows.digest), vector["archive"]);
    let all = [close, event, evidence, rows];
    assert_eq!(hex(&witness::encode(&all)), vector["witnesses"]);
    assert_eq!(witness::decode(&bytes(&Some(vector["witnesses"].to_owned()))).as_deref(), Some(&all[..]));
}

#[test]
fn the_chain_is_what_its_golden_vector_says() {
    let vector = vector();
    let check = |name: &str, hash: &[u8]| assert_eq!(hex(hash), vector[name], "{name}");
    let ledger_id: [u8; 16] = std::array::from_fn(|i| i as u8);
    let mut payment = [1; 17];
    payment[1..].copy_from_slice(&std::array::from_fn::<u8, 16, _>(|i| 0x20 + i as u8));
    let payment = PaymentKey::from_bytes(&payment).unwrap();
    let (base, at_ms) = (1_i64 << 48, NOON as i64);
    let (target, evidence) = ("https://shop.example/articles/1?full", b"\x01 evidence");
    let (target_digest, evidence_digest) = (chain::target_digest(&[10; 16], target), chain::evidence_digest(evidence));
    let capture = Entry {
        n: base | 1,
        key: PostingKey::new(Kind::Capture, &payment, 0),
        kind: Kind::Capture,
        at_ms,
        wall_ms: at_ms + 250,
        book_day: 20_781,
        account: "acme",
        agent: "https://signer.example.com",
        agent_key: Some("poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U"),
        route: "articles",
        scheme: "deferred",
        asset: "USD",
        amount: 10_000,
        list_amount: Some(12_000),
        period: 202_611,
        table_hash: Some(&[7; 32]),
        status: Some(200),
        ref_n: None,
        method: Some("GET"),
        target: Some(target),
        target_salt: Some(&[10; 16]),
        target_digest: Some(&target_digest),
        evidence: Some(evidence),
        evidence_digest: Some(&evidence_digest),
    };
    let void = Entry {
        n: base | 2,
        key: PostingKey::new(Kind::Void, &payment, 0),
        kind: Kind::Void,
        at_ms: at_ms + 1000,
        wall_ms: at_ms + 1000,
        list_amount: None,
        table_hash: None,
        status: None,
        ref_n: Some(base | 1),
        method: None,
        target: None,
        target_salt: None,
        target_digest: None,
        evidence: None,
        evidence_digest: None,
        ..capture.clone()
    };
    let outcome = Outcome { n: base | 1, delivery: Delivery::OriginCut, void: true, ms: 12, bytes: 3456 };
    let outcomes = outcomes::encode(&[outcome]).0.unwrap();
    let batch = |batch_seq, n: Option<i64>, outcomes| Batch {
        slot: 1,
        batch_seq,
        n_first: n,
        n_last: n,
        at_ms: at_ms + (batch_seq - 1) * 1000,
        outcomes,
    };

    check("ledger_id", &ledger_id);
    check("target_digest", &target_digest);
    check("evidence_digest", &evidence_digest);
    let hash = chain::genesis(&ledger_id, 1);
    check("genesis", &hash);
    let hash = chain::entry(&hash, &capture);
    check("entry_1", &hash);
    // What retention drops is not in the hash.
    let dropped = Entry { target: None, target_salt: None, evidence: None, ..capture.clone() };
    check("entry_1", &chain::entry(&chain::genesis(&ledger_id, 1), &dropped));
    let hash = chain::batch(&hash, &batch(1, Some(base | 1), None));
    check("batch_1", &hash);
    let hash = chain::entry(&hash, &void);
    check("entry_2", &hash);
    let hash = chain::batch(&hash, &batch(2, Some(base | 2), Some(&outcomes)));
    check("batch_2", &hash);
    check("batch_3", &chain::batch(&hash, &batch(3, None, None)));
}
