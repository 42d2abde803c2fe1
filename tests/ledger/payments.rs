//! Payments to put into a ledger, and how it is opened.
#![allow(dead_code)]

use std::sync::Arc;

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::{LedgerOptions, LedgerStore},
        location::Location,
        store::{ClaimRequest, KeyRecord, Posting, Store, StoreFuture},
    },
    payment::key::PaymentKey,
    wire::amount::{Currency, Units},
};

/// 24 November 2026, 12:00 UTC.
pub const NOON: u64 = 1_795_521_600_000;

pub fn options(place: Location, clock: Clock) -> LedgerOptions {
    LedgerOptions {
        place,
        zone: "UTC".to_owned(),
        keys_max: 100_000,
        queue_max: 1000,
        sync: true,
        ttl_max_ms: 300_000,
        since_ms: 0,
        skew_ms: 30_000,
        apart_max_ms: None,
        secret_prints: String::new(),
        clock,
    }
}

pub fn wait<T>(future: StoreFuture<T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Until what was said before has been heard: where claims are counted, and then where postings are made.
pub fn heard(store: &LedgerStore) {
    let _ = wait(store.unresolved());
    let _ = wait(store.recent_terms(0));
}

pub fn units(count: i64) -> Units {
    Units::new(count).unwrap()
}

pub fn key(name: &str) -> PaymentKey {
    PaymentKey::from_signature(&[name.as_bytes()])
}

/// Of the account `acme`, with a limit of 1 USD in November.
pub fn request(name: &str, amount: i64) -> ClaimRequest {
    ClaimRequest {
        within: None,
        key: key(name),
        paid_at_ms: NOON,
        account: "acme".into(),
        amount: units(amount),
        asset: Currency::parse("USD").unwrap().into(),
        limit: units(1_000_000),
        period: 202_611,
        purchase: None,
        payer: None,
    }
}

pub fn posting(amount: Units) -> Posting {
    Posting {
        grant: None,
        agent: "https://signer.example.com".into(),
        agent_key: Some("poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into()),
        route: "articles".into(),
        scheme: "deferred",
        amount,
        list_amount: amount,
        table_hash: [7; 32],
        status: 200,
        method: "GET".into(),
        target: "https://shop.example/articles/1?full".into(),
        evidence: b"\x01 evidence".to_vec(),
        key: Some(Arc::new(KeyRecord {
            thumbprint: "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into(),
            agent: "https://signer.example.com".into(),
            jwk: r#"{"crv":"Ed25519","kty":"OKP","x":"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}"#.into(),
            directory_digest: [8; 32],
        })),
    }
}
