//! Accounts that agents open by themselves: each has its limit, and all of them together have one.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use tollgate::ledger::{
    audit::Place,
    store::{Claim, ClaimError, ClaimRequest, Delivery, Released, Store},
};

use crate::{
    corrections::{audited, void},
    support::*,
};

fn asks(account: &str, name: &str, amount: i64) -> ClaimRequest {
    let (limit, within) = (units(100), Some(units(150)));
    ClaimRequest { account: account.into(), limit, within, ..request(name, amount) }
}

fn claim(ledger: &Ledger, account: &str, name: &str, amount: i64) -> Result<Claim, (i64, i64)> {
    wait(ledger.store().claim(asks(account, name, amount))).map_err(|error| match error {
        ClaimError::CreditExhausted { used, limit } => (used.get(), limit.get()),
        error => panic!("{error}"),
    })
}

fn used(ledger: &Ledger, account: &str) -> i64 {
    ledger.used(&asks(account, "", 0))
}

#[test]
fn what_all_of_them_use_is_within_the_total_through_every_end_of_a_payment() {
    let mut ledger = Ledger::new();
    let a = claim(&ledger, "open:a.example", "a", 90).unwrap();
    // Its own limit comes first; a limit of one's own that is larger than what is left of the total is none.
    assert_eq!(claim(&ledger, "open:a.example", "b", 11).unwrap_err(), (90, 100));
    assert_eq!(claim(&ledger, "open:b.example", "c", 61).unwrap_err(), (90, 150));
    let c = claim(&ledger, "open:b.example", "c", 60).unwrap();
    assert_eq!(claim(&ledger, "open:c.example", "d", 1).unwrap_err(), (150, 150));
    // Accounts of the configuration have no part in it.
    let own = ClaimRequest { within: None, ..asks("acme", "e", 100) };
    ledger.capture(wait(ledger.store().claim(own)).unwrap()).unwrap();
    ledger.store().release(a, Released::OriginFailed);
    let a = ledger.capture(c).unwrap();
    assert_eq!(
        [used(&ledger, "open:a.example"), used(&ledger, "open:b.example"), used(&ledger, "open:*")],
        [0, 60, 60]
    );
    // Less than was claimed is captured.
    let claimed = claim(&ledger, "open:c.example", "f", 50).unwrap();
    let part = posting(units(20));
    wait(ledger.store().capture(claimed, part)).unwrap();
    assert_eq!((used(&ledger, "open:c.example"), used(&ledger, "open:*")), (20, 80));
    void(&ledger, a.n).unwrap();
    assert_eq!((used(&ledger, "open:b.example"), used(&ledger, "open:*")), (0, 20));
    audited(&ledger);
    ledger.reopen().unwrap();
    assert_eq!((used(&ledger, "open:c.example"), used(&ledger, "open:*")), (20, 20));
    let cut = ledger.capture(claim(&ledger, "open:d.example", "g", 100).unwrap()).unwrap();
    assert_eq!(claim(&ledger, "open:b.example", "h", 31).unwrap_err(), (120, 150));
    // The gateway's own void, which rides with the next batch.
    ledger.outcome(cut.n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    let last = claim(&ledger, "open:b.example", "h", 100).unwrap();
    assert_eq!(used(&ledger, "open:*"), 120);
    ledger.capture(last).unwrap();
    assert_eq!(ledger.number("SELECT used FROM account_use WHERE account = 'open:*'"), 120);
    audited(&ledger);
}

#[test]
fn an_audit_finds_a_total_that_is_none() {
    for change in [
        "UPDATE account_use SET used = used - 1 WHERE account = 'open:*'",
        "DELETE FROM account_use WHERE account = 'open:*'",
        "UPDATE account_use SET account = 'open:other' WHERE account = 'open:*'",
    ] {
        let mut ledger = Ledger::new();
        let claimed = claim(&ledger, "open:a.example", "a", 90).unwrap();
        ledger.capture(claimed).unwrap();
        audited(&ledger);
        ledger.close();
        assert_eq!(ledger.change(change), 1);
        let finding = ledger.audit().finding.unwrap();
        assert!(matches!(&finding.place, Place::AccountUse(row) if row.starts_with("open:")), "{change}: {finding:?}");
    }
}

#[test]
fn many_at_once_take_no_more_than_the_total() {
    let ledger = Ledger::new();
    let taken = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for side in 0..4 {
            let (ledger, taken) = (&ledger, &taken);
            scope.spawn(move || {
                for turn in 0..25 {
                    let Ok(claim) = claim(ledger, &format!("open:{}.example", turn % 5), &format!("{side}-{turn}"), 7)
                    else {
                        continue;
                    };
                    // Between these two it is taken.
                    let now = taken.fetch_add(7, SeqCst) + 7;
                    assert!(now <= 150, "{now} of 150 are taken");
                    if turn % 3 == 0 && side == 0 {
                        ledger.capture(claim).unwrap();
                    } else {
                        taken.fetch_sub(7, SeqCst);
                        ledger.store().release(claim, Released::OriginFailed);
                    }
                }
            });
        }
    });
    assert_eq!(used(&ledger, "open:*"), taken.into_inner());
    audited(&ledger);
}
