//! An audit that finds postings without what they build on, in books whose chain is whole: somebody has written it anew.

use tollgate::ledger::{
    audit::Place,
    correction::State,
    store::{Posting, Store, What},
};

use crate::corrections::{order, refund};
use crate::rechain::rechain;
use crate::settlement::{claim, intend, redeliver, settle, wallet_posting};
use crate::support::*;

const BASE: i64 = 1 << 48;

/// In this order: intent, capture and owed, served again, of one payment; intent and failure of another; intent and capture of a
/// third.
fn books() -> Ledger {
    let mut ledger = Ledger::new();
    let settling = intend(&ledger, "a");
    settle(&ledger, settling, true).unwrap();
    redeliver(&ledger, "a").unwrap();
    let settling = intend(&ledger, "b");
    wait(ledger.store().failed(settling, wallet_posting())).unwrap();
    let settling = intend(&ledger, "c");
    settle(&ledger, settling, false).unwrap();
    ledger.close();
    ledger
}

/// Does something to whole books, writes their chain anew, and says where the audit must find it.
fn check(change: &str, n: i64, said: &str) {
    check_in(&books(), change, n, said);
}

pub fn check_in(ledger: &Ledger, change: &str, n: i64, said: &str) {
    assert_eq!(ledger.change(change), 1, "{change}");
    rechain(ledger);
    let finding = ledger.audit().finding;
    let finding = finding.unwrap_or_else(|| panic!("not found: {change}"));
    assert_eq!(finding.place, Place::Entry(BASE + n), "{change}: {finding}");
    assert!(finding.to_string().contains(said), "{change}: {finding}");
}

#[test]
fn whole_books_whose_chain_is_written_anew_pass() {
    let ledger = books();
    rechain(&ledger);
    let report = ledger.audit();
    assert_eq!((report.finding, report.entries, report.captures), (None, 8, 2));
    let kinds: Vec<i64> =
        (1..=8).map(|n| ledger.number(&format!("SELECT kind FROM entries WHERE n & 255 = {n}"))).collect();
    assert_eq!(kinds, [4, 1, 6, 9, 4, 5, 4, 1]);
}

#[test]
fn what_was_settled_or_failed_was_intended() {
    // An intent that is another's: of a payment with a key of its own.
    let cast = |n: i64| format!("UPDATE entries SET key = x'040201010101010101010101010101010101' WHERE n & 255 = {n}");
    check(&cast(1), 2, "its intent: expected an earlier entry of its payment, found none");
    check(&cast(5), 6, "its intent");
    check(
        "UPDATE entries SET amount = amount - 1 WHERE n & 255 = 7",
        8,
        "of what was intended: expected 9999, found 10000",
    );
    check("UPDATE entries SET amount = amount + 1 WHERE n & 255 = 6", 6, "of what was intended");
}

#[test]
fn a_payment_has_one_end() {
    // The failure is said to be that of the first payment, which was captured before.
    let first = "(SELECT substr(key, 2) FROM entries WHERE n & 255 = 1)";
    let as_kind =
        |kind: &str, n: i64| format!("UPDATE entries SET key = CAST(x'{kind}' || {first} AS BLOB) WHERE n & 255 = {n}");
    check(&as_kind("05", 6), 6, "an earlier capture of what failed: expected none");
}

#[test]
fn what_is_owed_or_served_again_was_captured() {
    for n in [3, 4] {
        let at = |change: &str| format!("UPDATE entries SET {change} WHERE n & 255 = {n}");
        check(&at("ref_n = NULL"), n, "the capture that it names");
        check(&at("ref_n = ref_n + 6"), n, "the capture that it names");
        check(&at("amount = amount + 1"), n, "its amount: expected 10000, found 10001");
        check(&at("scheme = 'deferred'"), n, "its scheme");
        let kind = if n == 3 { "06" } else { "09" };
        let nobody = format!("key = x'{kind}0201010101010101010101010101010101'");
        check(&at(&nobody), n, "the capture that it is about");
    }
}

/// `upto`: what is taken may differ from an intent that was in doubt, but is never above the maximum; nothing needs no intent.
#[test]
fn less_than_the_maximum_may_be_taken_and_nothing_without_an_intent() {
    let upto = |amount: i64| Posting { scheme: "upto", amount: units(amount), ..wallet_posting() };
    let mut ledger = Ledger::new();
    wait(ledger.store().capture(claim(&ledger, "a").unwrap(), upto(0))).unwrap();
    let settling = intend(&ledger, "b");
    wait(ledger.store().settled(settling, upto(4000), false)).unwrap();
    ledger.close();
    let audit = |ledger: &Ledger| ledger.audit().finding;
    assert_eq!(audit(&ledger), None);
    ledger.reopen().unwrap();
    wait(ledger.store().capture(claim(&ledger, "c").unwrap(), upto(1))).unwrap();
    ledger.close();
    let finding = audit(&ledger).unwrap();
    assert!(finding.to_string().contains("its intent"), "{finding}");
}

/// Capture, dispute opened and upheld, its void; intent, capture, two refunds of which the first failed, a third that is done.
fn corrected() -> Ledger {
    let mut ledger = Ledger::new();
    let n = ledger.pay("credit").n;
    order(&ledger, n, What::Dispute).unwrap();
    order(&ledger, n, What::Uphold).unwrap();
    let n = settle(&ledger, intend(&ledger, "token"), false).unwrap().n;
    refund(&ledger, n, "a", Some(6_000), None).unwrap();
    refund(&ledger, n, "b", Some(4_000), None).unwrap();
    refund(&ledger, n, "a", None, Some(State::Failed)).unwrap();
    refund(&ledger, n, "c", Some(6_000), Some(State::Done)).unwrap();
    ledger.close();
    ledger
}

#[test]
fn corrections_are_of_what_was_charged_and_have_a_beginning() {
    let ledger = corrected();
    let kinds: Vec<i64> =
        (1..=10).map(|n| ledger.number(&format!("SELECT kind FROM entries WHERE n & 255 = {n}"))).collect();
    assert_eq!(kinds, [1, 8, 8, 2, 4, 1, 3, 3, 3, 3]);
    let check = |n: i64, change: &str, said: &str| {
        check_in(&corrected(), &format!("UPDATE entries SET {change} WHERE n & 255 = {n}"), n, said);
    };
    // More goes back than was charged, than is left, or nothing.
    check(8, "amount = 4001", "its amount: expected 1 to 4000, what is left, found 4001");
    check(10, "amount = 6001", "its amount: expected 1 to 6000");
    check(7, "amount = 0", "its amount");
    // What failed was sent, for as much.
    check(9, "amount = 5999", "its amount: expected 6000, found 5999");
    check(9, "status = 1", "its step: expected done or failed");
    check(10, "status = 3", "its step: expected sent or done");
    let done = "UPDATE entries SET status = 2 WHERE n & 255 = 7";
    check_in(&corrected(), done, 9, "what it was: expected 1, found 2");
    check(2, "status = 2", "its step: expected open");
    check(3, "amount = amount - 1", "its amount");
    for n in [2, 3, 7, 9] {
        check(n, "ref_n = ref_n + 1", "the capture that it names");
    }
    for n in [7, 9] {
        check(n, "scheme = 'deferred'", "its scheme: expected one that is settled at once");
    }
    check(4, "scheme = 'exact'", "its scheme: expected one on credit");
    // A number is left out; an end has no beginning.
    let tail = |n: i64, tail: &str| format!("key = CAST(substr(key, 1, 18) || x'{tail}' AS BLOB), status = {n}");
    check(8, &tail(1, "0400"), "the one before it");
    check(9, &tail(3, "0501"), "its beginning");
    check(3, &tail(2, "0201"), "its beginning");
}
