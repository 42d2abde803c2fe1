//! Balances whose transfers are archived, and books in which somebody has changed a transfer.

use tollgate::ledger::{archive::Drops, store::Delivery, top_up::TopUpError};

use crate::{
    archive::{let_go, make_until, whole},
    balances::pay_in,
    closing::{DAY_MS, TODAY, buy, key},
    rechain::rechain,
    references::check_in,
    support::*,
};

/// A reference must stand for one transfer for ever: archived, it would be noted a second time.
#[test]
fn a_transfer_that_is_archived_is_not_noted_again_and_its_balance_stays() {
    let mut ledger = Ledger::new();
    pay_in(&ledger, "invoice 1", 10_000).unwrap();
    let sold = buy(&ledger, "other", "a", 500);
    ledger.outcome(sold.n, Delivery::Complete, false);
    ledger.reopen().unwrap();
    ledger.clock.advance(3 * DAY_MS);
    wait(ledger.store().close_days(TODAY + 3, Some(key()))).unwrap();
    buy(&ledger, "other", "b", 500);
    let (path, ..) = make_until(&ledger, "a.jsonl", TODAY + 3, Drops::Rows).unwrap();
    let_go(&ledger, &path, Drops::Rows, 10);
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), 1);
    for _ in 0..2 {
        assert!(pay_in(&ledger, "invoice 1", 10_000).unwrap().was);
        assert!(matches!(pay_in(&ledger, "invoice 1", 1), Err(TopUpError::Other { .. })));
        assert_eq!(ledger.reader().standings(Some("acme")).unwrap()[0].paid_in, 10_000);
        ledger.reopen().unwrap();
    }
    assert_eq!(pay_in(&ledger, "invoice 2", 1).unwrap().balance, 10_001);
    whole(&ledger, &[path]);
    whole(&ledger, &[]);
}

#[test]
fn a_transfer_that_somebody_has_changed_is_found() {
    for (change, said) in [
        ("status = 3", "which way it went"),
        ("status = NULL", "which way it went"),
        ("asset = 'USD'", "its asset"),
        ("asset = 'requests'", "its asset"),
        ("period = 202611", "its period"),
        ("amount = 0", "its amount"),
    ] {
        let mut ledger = Ledger::new();
        pay_in(&ledger, "invoice 1", 10_000).unwrap();
        ledger.close();
        check_in(&ledger, &format!("UPDATE entries SET {change}"), 1, said);
    }
    // Which is more than was paid in, whatever the chain says.
    for change in ["status = 2", "amount = 3"] {
        let mut ledger = Ledger::new();
        pay_in(&ledger, "invoice 1", 10_000).unwrap();
        ledger.close();
        assert_eq!(ledger.change(&format!("UPDATE entries SET {change}")), 1);
        rechain(&ledger);
        assert!(ledger.audit().finding.is_some_and(|finding| finding.what == "what is used"), "{change}");
    }
    let mut ledger = Ledger::new();
    pay_in(&ledger, "invoice 1", 10_000).unwrap();
    ledger.close();
    assert_eq!(ledger.change("UPDATE entries SET status = 2"), 1);
    ledger.change("UPDATE account_use SET used = 10000");
    rechain(&ledger);
    assert!(ledger.audit().finding.is_some_and(|finding| finding.what == "what is used of a balance"));
}
