//! A ledger of its own for each test, wherever [`Home`] keeps it: in a file, or in a database on a server.
#![allow(dead_code)]

use std::sync::Arc;

use tollgate::{
    clock::Clock,
    ledger::{
        audit::AuditReport,
        faults::{Faults, NoFaults},
        ledger_store::{LedgerOptions, LedgerStore, OpenError},
        location::Location,
        read::LedgerReader,
        store::{CaptureError, Claim, ClaimError, ClaimRequest, Delivery, Health, Outcome, Outcomes, Receipt, Store},
    },
};

use crate::home::Home;
pub use crate::payments::*;
pub use crate::rechain::{Books, Row, bytes, literal};

pub struct Ledger {
    pub home: Home,
    pub clock: Clock,
    pub store: Option<Arc<LedgerStore>>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger::with_faults(Arc::new(NoFaults))
    }

    pub fn with_faults(faults: Arc<dyn Faults>) -> Ledger {
        Ledger::with(faults, |_| {})
    }

    pub fn with(faults: Arc<dyn Faults>, change: impl FnOnce(&mut LedgerOptions)) -> Ledger {
        let mut ledger = Ledger { home: Home::new(), clock: Clock::manual(NOON), store: None };
        let mut options = ledger.options();
        change(&mut options);
        ledger.store = Some(LedgerStore::open_with_faults(options, faults).unwrap());
        ledger
    }

    pub fn location(&self) -> Location {
        self.home.location()
    }

    pub fn options(&self) -> LedgerOptions {
        options(self.location(), self.clock.clone())
    }

    pub fn store(&self) -> &LedgerStore {
        self.store.as_ref().unwrap()
    }

    pub fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().unwrap();
        }
    }

    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.close();
        self.store = Some(LedgerStore::open(self.options())?);
        Ok(())
    }

    pub fn reader(&self) -> LedgerReader {
        LedgerReader::open(self.location()).unwrap()
    }

    pub fn audit(&self) -> AuditReport {
        self.reader().audit(|_, _| ()).unwrap()
    }

    /// Time goes on, and whoever must say that it is still there has said so.
    pub fn advance(&self, ms: u64) {
        self.clock.advance(ms);
        let Some(store) = &self.store else { return };
        // It is said after what was asked has been answered, and before the next answer.
        for _ in 0..2 {
            let _ = wait(store.recent_terms(0));
        }
    }

    /// Claimed and captured by an account in a period, once what was given back has arrived where it is counted.
    pub fn used(&self, request: &ClaimRequest) -> i64 {
        self.home.used(self.store(), request)
    }

    /// Lets the writer try its disk again until it is well.
    pub fn until_open(&self) {
        let start = std::time::Instant::now();
        while self.store().health() != Health::Open {
            assert!(start.elapsed().as_secs() < 30, "{:?}", self.store().health());
            self.store().hurry();
            std::thread::yield_now();
        }
    }

    pub fn claim(&self, name: &str) -> Result<Claim, ClaimError> {
        wait(self.store().claim(request(name, 10_000)))
    }

    pub fn capture(&self, claim: Claim) -> Result<Receipt, CaptureError> {
        let posting = posting(claim.request.amount);
        wait(self.store().capture(claim, posting))
    }

    pub fn pay(&self, name: &str) -> Receipt {
        self.capture(self.claim(name).unwrap()).unwrap()
    }

    pub fn outcome(&self, n: i64, delivery: Delivery, void: bool) {
        self.store().outcome(Outcome { n, delivery, void, ms: 12, bytes: 3456 });
    }

    /// The one number that a statement returns.
    pub fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql);
        let cell = rows.first().and_then(|row| row.first()?.as_deref());
        cell.and_then(|cell| cell.parse().ok()).unwrap_or_else(|| panic!("{sql} returns no number"))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some(store) = self.store.take()
            && !std::thread::panicking()
        {
            let _ = store.close();
        }
    }
}

impl Books for Ledger {
    fn rows(&self, sql: &str) -> Vec<Row> {
        self.home.rows(sql)
    }

    fn change(&self, sql: &str) -> u64 {
        self.home.change(sql)
    }
}

/// A property over random steps, in one case for `per` of those that other properties have: each opens books of its own.
pub fn random_cases<S: proptest::strategy::Strategy>(
    per: u32,
    steps: S,
    holds: impl Fn(S::Value) -> Result<(), proptest::test_runner::TestCaseError>,
) {
    use proptest::test_runner::{Config, TestRunner};
    let config = Config::default();
    let cases = (config.cases / per / Home::SLOWER).max(1);
    // The macro would let PROPTEST_CASES decide alone.
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..config });
    if let Err(failure) = runner.run(&steps, holds) {
        panic!("{failure}\n{runner}");
    }
}
