//! Balances and passes whose postings are archived, and books in which somebody has changed a transfer.

use std::time::Duration;

use tollgate::{
    ledger::{archive::Drops, store::Delivery, top_up::TopUpError},
    payment::pass::Good,
};

use crate::{
    archive::{let_go, make_until, whole},
    balances::pay_in,
    closing::{DAY_MS, TODAY, buy, key},
    passes::{held, sell},
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

/// Whoever has paid for a pass must find it, so the day on which it was bought stays until the pass is over.
#[test]
fn a_pass_that_is_good_keeps_its_day_out_of_an_archive_of_rows() {
    let mut ledger = Ledger::new();
    let sold = sell(ledger.store(), "a", Good::For(Duration::from_secs(5 * 86_400)), NOON).unwrap();
    ledger.outcome(sold.n, Delivery::Complete, false);
    ledger.reopen().unwrap();
    ledger.clock.advance(3 * DAY_MS);
    wait(ledger.store().close_days(TODAY + 3, Some(key()))).unwrap();
    buy(&ledger, "other", "b", 500);
    let until = TODAY + 3;
    let (_, made, held_back) = make_until(&ledger, "a.jsonl", until, Drops::Rows).unwrap();
    assert_eq!(made, None);
    assert!(held_back.iter().any(|why| why.contains("a pass that it bought is good")), "{held_back:?}");
    // Its evidence is not needed for it.
    let (path, made, _) = make_until(&ledger, "b.jsonl", until, Drops::Evidence).unwrap();
    assert!(made.is_some());
    let_go(&ledger, &path, Drops::Evidence, 10);
    assert!(held(&ledger).is_some());
    ledger.clock.advance(3 * DAY_MS);
    assert_eq!(held(&ledger), None);
    let (path, ..) = make_until(&ledger, "c.jsonl", until, Drops::Rows).unwrap();
    let_go(&ledger, &path, Drops::Rows, 10);
    whole(&ledger, &[]);
}
