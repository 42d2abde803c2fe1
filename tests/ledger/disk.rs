//! A disk under the file: full, or with a bit that has flipped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use rusqlite::Connection;
use tollgate::ledger::{
    audit::Place,
    faults::Faults,
    store::{CaptureError, ClaimError, Health, Store},
};

use crate::{audit::books, support::*};

/// A disk without room for another page.
#[derive(Default)]
struct Full(AtomicBool, AtomicU32);

impl Faults for Full {
    fn opened(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if self.0.load(Ordering::Relaxed) {
            connection.pragma_update(None, "max_page_count", 1)?;
        }
        Ok(())
    }
}

#[test]
fn a_full_disk_closes_priced_routes_and_nothing_is_answered_as_captured() {
    let full = Arc::new(Full(AtomicBool::new(true), AtomicU32::new(0)));
    let ledger = Ledger::with_faults(full.clone());
    let mut answered = 0;
    let error = loop {
        let claim = ledger.claim(&answered.to_string()).unwrap();
        match ledger.capture(claim) {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CaptureError::Unavailable(_)), "{error}");
    let health = ledger.store().health();
    assert!(matches!(&health, Health::Closed(why) if why.contains("full")), "{health:?}");
    assert!(matches!(ledger.claim("other"), Err(ClaimError::Unavailable(_))));
    // A file that can be read but not written stays closed.
    let tries = full.1.load(Ordering::Relaxed);
    while full.1.load(Ordering::Relaxed) < tries + 3 {
        ledger.store().hurry();
        std::thread::yield_now();
        assert!(matches!(ledger.store().health(), Health::Closed(_)));
    }
    full.0.store(false, Ordering::Relaxed);
    ledger.until_open();
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), answered);
    assert_eq!(ledger.used(&request("", 0)), answered * 10_000);
    ledger.pay(&answered.to_string());
    assert_eq!(ledger.audit().finding, None);
}

#[test]
fn a_flipped_bit_in_the_file_is_found() {
    let ledger = books();
    let whole = std::fs::read(ledger.path()).unwrap();
    for text in [&b"\x01 evidence"[..], b"https://shop.example", b"articlesdeferredUSD", b"GET", &[7; 32]] {
        let at = whole.windows(text.len()).position(|window| window == text).unwrap();
        let mut flipped = whole.clone();
        flipped[at + 1] ^= 4;
        std::fs::write(ledger.path(), &flipped).unwrap();
        let finding = ledger.audit().finding.unwrap();
        assert!(matches!(finding.place, Place::Entry(_)), "{text:?}: {finding}");
    }
}
