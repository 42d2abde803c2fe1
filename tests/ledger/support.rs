//! A ledger in a temporary directory, and payments to put into it.
#![allow(dead_code)]

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use rusqlite::Connection;
use tempfile::TempDir;
use tollgate::{
    clock::Clock,
    ledger::{
        faults::{Faults, NoFaults},
        location::Location,
        sqlite::{OpenError, SqliteOptions, SqliteStore},
        store::{
            CaptureError, Claim, ClaimError, ClaimRequest, Delivery, KeyRecord, Outcome, Outcomes, Posting, Receipt,
            Store, StoreFuture,
        },
    },
    payment::key::PaymentKey,
    wire::amount::{Currency, Units},
};

/// 24 November 2026, 12:00 UTC.
pub const NOON: u64 = 1_795_521_600_000;

pub struct Ledger {
    pub dir: TempDir,
    pub clock: Clock,
    pub store: Option<Arc<SqliteStore>>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger::with_faults(Arc::new(NoFaults))
    }

    pub fn with_faults(faults: Arc<dyn Faults>) -> Ledger {
        Ledger::with(faults, |_| {})
    }

    pub fn with(faults: Arc<dyn Faults>, change: impl FnOnce(&mut SqliteOptions)) -> Ledger {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOON));
        let mut ledger = Ledger { dir, clock, store: None };
        let mut options = ledger.options();
        change(&mut options);
        ledger.store = Some(SqliteStore::open_with_faults(options, faults).unwrap());
        ledger
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("books.sqlite")
    }

    pub fn options(&self) -> SqliteOptions {
        options(self.path(), self.clock.clone())
    }

    pub fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    pub fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().unwrap();
        }
    }

    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.close();
        self.store = Some(SqliteStore::open(self.options())?);
        Ok(())
    }

    pub fn claim(&self, name: &str) -> Result<Claim, ClaimError> {
        wait(self.store().claim(request(name, 10_000)))
    }

    pub fn capture(&self, claim: Claim) -> Result<Receipt, CaptureError> {
        let posting = posting(claim.request.amount);
        wait(self.store().capture(claim, posting))
    }

    /// A claim, from inside a runtime.
    pub fn claim_now(&self, name: &str) -> Claim {
        let mut claim = self.store().claim(request(name, 10_000));
        match claim.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(claim) => claim.unwrap(),
            Poll::Pending => panic!("a claim does not wait"),
        }
    }

    pub fn pay(&self, name: &str) -> Receipt {
        self.capture(self.claim(name).unwrap()).unwrap()
    }

    pub fn outcome(&self, n: i64, delivery: Delivery, void: bool) {
        self.store().outcome(Outcome { n, delivery, void, ms: 12, bytes: 3456 });
    }

    /// Another connection, as an administrator would open it.
    pub fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.sql().query_row(sql, (), |row| row.get(0)).unwrap()
    }
}

pub fn options(path: PathBuf, clock: Clock) -> SqliteOptions {
    SqliteOptions {
        place: Location::File(path),
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

pub fn units(count: i64) -> Units {
    Units::new(count).unwrap()
}

pub fn key(name: &str) -> PaymentKey {
    PaymentKey::from_signature(&[name.as_bytes()])
}

/// Of the account `acme`, with a limit of 1 USD in November.
pub fn request(name: &str, amount: i64) -> ClaimRequest {
    ClaimRequest {
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
