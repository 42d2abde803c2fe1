//! Voids, refunds and disputes: each once, in the books, in the sums, in memory and after a restart.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate::ledger::{
    correction::{Seen, State},
    read::{Filter, State as Became},
    report::{By, Days},
    store::{By as Whose, CaptureError, ClaimError, CorrectError, Corrected, Delivery, Order, Store, What},
};

use crate::{
    closing::{DAY_MS, TODAY, buy, close, statements},
    settlement,
    support::*,
};

pub fn order(ledger: &Ledger, n: i64, what: What) -> Result<Corrected, CorrectError> {
    let order = Order { n, what, reason: "because".to_owned(), by: Whose::Operator };
    wait(ledger.store().correct(vec![order])).unwrap().remove(0)
}

pub fn void(ledger: &Ledger, n: i64) -> Result<Corrected, CorrectError> {
    order(ledger, n, What::Void { unproven_since: None })
}

pub fn refund(
    ledger: &Ledger,
    n: i64,
    reference: &str,
    amount: Option<i64>,
    state: Option<State>,
) -> Result<Corrected, CorrectError> {
    order(ledger, n, What::Refund { reference: reference.to_owned(), amount: amount.map(units), state })
}

/// A token payment of 10,000 units; with `owed`, of which nobody was given anything.
fn pay(ledger: &Ledger, name: &str, owed: bool) -> i64 {
    settlement::settle(ledger, settlement::intend(ledger, name), owed).unwrap().n
}

pub fn audited(ledger: &Ledger) -> tollgate::ledger::audit::AuditReport {
    let report = ledger.audit();
    assert_eq!(report.finding, None);
    report
}

/// Captured less voided less refunded of everything, as statements and open days have it: they must agree with the report.
fn net(ledger: &Ledger) -> i64 {
    let reader = ledger.reader();
    let lines = reader.report(By::Scheme, Days::ALL, None).unwrap();
    let net: i64 = lines.iter().map(|line| line.net()).sum();
    let stated: i64 = statements(ledger).iter().map(|statement| statement.total).sum();
    let open = ledger.number("SELECT max(open_day) FROM writers");
    let open = reader.report(By::Scheme, Days { since: open, until: i64::MAX }, None).unwrap();
    assert_eq!(net, stated + open.iter().map(|line| line.net()).sum::<i64>());
    assert_eq!(net, audited(ledger).charged.values().sum::<i64>());
    net
}

#[test]
fn refunds_are_in_sums_statements_and_listings_and_a_failed_one_is_taken_back() {
    let mut ledger = Ledger::new();
    let n = pay(&ledger, "a", false);
    ledger.outcome(n, Delivery::Complete, false);
    let first = refund(&ledger, n, "tx 1", Some(4_000), None).unwrap();
    assert_eq!((first.number, first.state, first.amount, first.was), (1, Some(State::Sent), 4_000, false));
    let again = refund(&ledger, n, "tx 1", Some(4_000), None).unwrap();
    assert_eq!(again, Corrected { was: true, ..first.clone() });
    assert!(matches!(refund(&ledger, n, "tx 2", Some(6_001), None), Err(CorrectError::TooMuch { .. })));
    assert_eq!(refund(&ledger, n, "tx 2", None, Some(State::Done)).unwrap().amount, 6_000);
    assert_eq!(net(&ledger), 0);
    assert_eq!(ledger.number("SELECT refunds * 1000000 + refunded FROM rollups"), 2_010_000);
    // Nothing of a refund changes what the account used.
    assert_eq!(ledger.number("SELECT used FROM account_use"), 10_000);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    let stated =
        |ledger: &Ledger| statements(ledger).into_iter().map(|s| (s.gross, s.corrections, s.total)).collect::<Vec<_>>();
    assert_eq!(stated(&ledger), [(10_000, 10_000, 0)]);
    let list = |ledger: &Ledger, state| {
        let filter = Filter { limit: 10, state: Some(state), ..Filter::default() };
        ledger.reader().list(&filter).unwrap().len()
    };
    assert_eq!((list(&ledger, Became::Refunded), list(&ledger, Became::Delivered)), (1, 0));
    ledger.reopen().unwrap();
    // The day after, the first one comes back.
    let failed = refund(&ledger, n, "tx 1", None, Some(State::Failed)).unwrap();
    assert_eq!((failed.number, failed.amount, failed.was), (1, 4_000, false));
    assert!(matches!(refund(&ledger, n, "tx 1", None, Some(State::Done)), Err(CorrectError::Ended { .. })));
    assert_eq!((list(&ledger, Became::Refunded), list(&ledger, Became::Delivered)), (0, 1));
    assert_eq!(net(&ledger), 4_000);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 2).unwrap();
    assert_eq!(stated(&ledger)[1], (0, -4_000, 4_000));
    assert_eq!(refund(&ledger, n, "tx 3", None, None).unwrap().amount, 4_000);
    assert_eq!(net(&ledger), 0);
    let shown = ledger.reader().show(&n.to_string()).unwrap().unwrap();
    let states: Vec<_> = shown.refunds.iter().map(|r| (r.number, r.amount, r.state, r.reference.as_deref())).collect();
    let expected = [
        (1, 4_000, State::Failed, Some("tx 1")),
        (2, 6_000, State::Done, Some("tx 2")),
        (3, 4_000, State::Sent, Some("tx 3")),
    ];
    assert_eq!(states, expected);
    assert_eq!((audited(&ledger).refunds, shown.refunds[0].reason.as_str()), (2, "because"));
}

/// Sent and failed on one day: nothing is left to state, and nothing is stated.
#[test]
fn a_day_whose_refund_failed_on_it_has_no_statement() {
    let ledger = Ledger::new();
    let n = pay(&ledger, "a", false);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    refund(&ledger, n, "a", None, None).unwrap();
    refund(&ledger, n, "a", None, Some(State::Failed)).unwrap();
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 2).unwrap();
    // Two of different amounts: the counts are even, the sums are not.
    refund(&ledger, n, "b", Some(3_000), None).unwrap();
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 3).unwrap();
    refund(&ledger, n, "b", None, Some(State::Failed)).unwrap();
    refund(&ledger, n, "c", Some(1_000), None).unwrap();
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 4).unwrap();
    let stated: Vec<_> = statements(&ledger).into_iter().map(|s| (s.until, s.total)).collect();
    assert_eq!(stated, [(TODAY + 1, 10_000), (TODAY + 3, -3_000), (TODAY + 4, 2_000)]);
    assert_eq!(net(&ledger), 9_000);
}

#[test]
fn what_is_refunded_is_fetched_no_more_at_once_and_after_a_restart() {
    let mut ledger = Ledger::new();
    let n = pay(&ledger, "a", true);
    let spent = ClaimError::AlreadyCaptured(Some(n));
    assert_eq!(settlement::claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    refund(&ledger, n, "x", Some(1), None).unwrap();
    for _ in 0..2 {
        assert_eq!(settlement::claim(&ledger, "a").unwrap_err(), spent);
        assert!(wait(ledger.store().take_owed(key("a"))).is_none());
        let bought = wait(ledger.store().find(key("a"))).unwrap().unwrap();
        assert!(bought.owed && bought.refunded);
        ledger.reopen().unwrap();
    }
    // It failed: owed again, and fetched.
    refund(&ledger, n, "x", None, Some(State::Failed)).unwrap();
    assert_eq!(settlement::claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    ledger.reopen().unwrap();
    assert_eq!(settlement::claim(&ledger, "a").unwrap_err(), ClaimError::Owed);
    assert!(settlement::redeliver(&ledger, "a").is_ok());
    refund(&ledger, n, "y", None, None).unwrap();
    refund(&ledger, n, "y", None, Some(State::Failed)).unwrap();
    assert_eq!(settlement::claim(&ledger, "a").unwrap_err(), spent, "it was served once");
    audited(&ledger);
}

#[test]
fn a_refund_beats_a_turn_that_is_taken_and_what_is_served_first_stays_served() {
    let mut ledger = Ledger::new();
    let n = pay(&ledger, "a", true);
    let turn = wait(ledger.store().take_owed(key("a"))).unwrap();
    refund(&ledger, n, "x", None, None).unwrap();
    assert_eq!(wait(ledger.store().redelivered(turn)), Err(CaptureError::Lost));
    // A turn given back after it is no way to more of them.
    let n = pay(&ledger, "b", true);
    let turn = wait(ledger.store().take_owed(key("b"))).unwrap();
    refund(&ledger, n, "x", None, None).unwrap();
    ledger.store().give_back(turn);
    assert!(wait(ledger.store().take_owed(key("b"))).is_none());
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind IN (9, 10)"), 0);
    // What a crash left unproven is given back as well.
    pay(&ledger, "c", false);
    ledger.reopen().unwrap();
    let n = ledger.number("SELECT max(n) FROM entries WHERE kind = 1");
    assert_eq!(settlement::claim(&ledger, "c").unwrap_err(), ClaimError::Owed);
    refund(&ledger, n, "x", None, None).unwrap();
    for _ in 0..2 {
        assert!(wait(ledger.store().take_owed(key("c"))).is_none());
        ledger.reopen().unwrap();
    }
    // And a late word that nobody got it does not make it owed again.
    let n = pay(&ledger, "d", false);
    refund(&ledger, n, "x", None, None).unwrap();
    ledger.outcome(n, Delivery::NotSent, true);
    heard(ledger.store());
    assert!(wait(ledger.store().take_owed(key("d"))).is_none());
    audited(&ledger);
}

#[test]
fn a_void_gives_credit_back_at_once_and_corrects_the_next_statement() {
    let mut ledger = Ledger::new();
    let n = buy(&ledger, "acme", "a", 10_000).n;
    buy(&ledger, "acme", "b", 7);
    ledger.outcome(n, Delivery::Complete, false);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    assert_eq!(ledger.used(&request("", 0)), 10_007);
    let voided = void(&ledger, n).unwrap();
    assert_eq!((voided.capture_n, voided.amount, voided.void_n), (n, 10_000, Some(voided.n)));
    assert_eq!(ledger.used(&request("", 0)), 7);
    assert_eq!(void(&ledger, n), Err(CorrectError::Voided { n, by: voided.n }));
    assert_eq!(void(&ledger, voided.n), Err(CorrectError::NoCapture { n: voided.n, kind: "void", of: Some(n) }));
    assert_eq!(void(&ledger, n + 100), Err(CorrectError::NoEntry(n + 100)));
    let token = pay(&ledger, "token", false);
    assert_eq!(void(&ledger, token), Err(CorrectError::Moved(token)));
    ledger.reopen().unwrap();
    assert_eq!(ledger.used(&request("", 0)), 7);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 2).unwrap();
    let sums: Vec<_> = statements(&ledger).into_iter().map(|s| (s.account, s.gross, s.corrections)).collect();
    let expected = [("acme", 10_007, 0), ("acme", 0, 10_000), ("wallets", 10_000, 0)];
    assert_eq!(sums, expected.map(|(account, gross, corrections)| (account.to_owned(), gross, corrections)));
    net(&ledger);
}

#[test]
fn many_are_voided_at_once_and_one_that_is_refused_does_not_take_the_others_with_it() {
    let ledger = Ledger::new();
    let mut numbers: Vec<i64> = (0..5).map(|i| buy(&ledger, "acme", &i.to_string(), 10).n).collect();
    numbers.insert(2, 1);
    // The same twice, too.
    numbers.push(numbers[0]);
    let order = |n: &i64| Order {
        n: *n,
        what: What::Void { unproven_since: None },
        reason: "wrong".to_owned(),
        by: Whose::Operator,
    };
    let results = wait(ledger.store().correct(numbers.iter().map(order).collect())).unwrap();
    let done: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(done, [true, true, false, true, true, true, false]);
    assert!(matches!(results[6], Err(CorrectError::Voided { .. })), "{results:?}");
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), 6);
    assert_eq!(ledger.used(&request("", 0)), 0);
    assert!(matches!(ledger.claim("0"), Err(ClaimError::AlreadyCaptured(_))), "the payment stays spent");
    audited(&ledger);
}

#[test]
fn what_is_unproven_is_told_from_what_is_on_its_way_or_has_become_known() {
    let mut ledger = Ledger::new();
    let (dead, known) = (buy(&ledger, "acme", "dead", 10).n, buy(&ledger, "acme", "known", 10).n);
    ledger.outcome(known, Delivery::Complete, false);
    ledger.reopen().unwrap();
    let way = buy(&ledger, "acme", "way", 10).n;
    let seen = ledger.reader().last_batches().unwrap();
    let late = buy(&ledger, "acme", "late", 10).n;
    let unproven = |n, seen: &Seen| order(&ledger, n, What::Void { unproven_since: Some(seen.clone()) });
    assert_eq!(unproven(way, &seen), Err(CorrectError::OnItsWay(way)));
    ledger.outcome(late, Delivery::Complete, false);
    buy(&ledger, "acme", "carries", 10);
    assert_eq!(unproven(late, &seen), Err(CorrectError::Proven(late)));
    assert_eq!(unproven(known, &Seen::new()), Err(CorrectError::Proven(known)));
    assert!(unproven(dead, &seen).is_ok());
    let filter = Filter { limit: 10, state: Some(Became::Unproven), ..Filter::default() };
    let left = ledger.reader().list(&filter).unwrap();
    assert_eq!(left.len() as u64, audited(&ledger).unproven);
    // The operator's own word needs no such proof.
    assert!(void(&ledger, way).is_ok() && void(&ledger, known).is_ok());
}

#[test]
fn a_dispute_waits_for_its_end_and_upheld_it_voids() {
    let mut ledger = Ledger::new();
    let (n, m) = (buy(&ledger, "acme", "a", 10).n, buy(&ledger, "acme", "b", 10).n);
    let open = order(&ledger, n, What::Dispute).unwrap();
    assert_eq!((open.number, open.state), (1, Some(State::Open)));
    assert_eq!(order(&ledger, n, What::Dispute), Err(CorrectError::Disputed { n, by: open.n }));
    order(&ledger, m, What::Dispute).unwrap();
    let disputed = |ledger: &Ledger| {
        let filter = Filter { limit: 10, state: Some(Became::Disputed), ..Filter::default() };
        let rows = ledger.reader().list(&filter).unwrap();
        rows.iter().map(|row| row.n).collect::<Vec<_>>()
    };
    assert_eq!(disputed(&ledger), [m, n]);
    ledger.reopen().unwrap();
    assert_eq!(ledger.used(&request("", 0)), 20, "a dispute changes no sum");
    let upheld = order(&ledger, n, What::Uphold).unwrap();
    assert_eq!((upheld.state, upheld.void_n), (Some(State::Upheld), Some(upheld.n + 1)));
    assert_eq!(order(&ledger, n, What::Uphold), Err(CorrectError::NotDisputed(n)));
    order(&ledger, m, What::Reject).unwrap();
    assert_eq!((ledger.used(&request("", 0)), disputed(&ledger)), (10, vec![]));
    // An agent may contest it again; what it signed is kept.
    let signed = crate::view::signed("acme", "https://signer.example.com", "what an agent signs");
    let by = Order { n: m, what: What::Dispute, reason: "still".to_owned(), by: Whose::Agent(signed.clone()) };
    let again = wait(ledger.store().correct(vec![by])).unwrap().remove(0).unwrap();
    let shown = ledger.reader().show(&again.n.to_string()).unwrap().unwrap();
    let Some(Ok(tollgate::ledger::evidence::Proof::Noted(note))) = shown.evidence else { panic!("{shown:?}") };
    assert_eq!((note.by.as_str(), note.number, note.proof), ("agent", 2, Some(signed.proof())));
    ledger.advance(30 * DAY_MS);
    let late = order(&ledger, buy(&ledger, "acme", "c", 1).n, What::Dispute);
    assert!(late.is_ok());
    order(&ledger, m, What::Reject).unwrap();
    let over = order(&ledger, m, What::Dispute).unwrap_err();
    assert!(over.to_string().ends_with("until 2026-12-24T12:00:00.000Z"), "{over}");
    audited(&ledger);
}

#[derive(Clone, Debug)]
enum Step {
    Buy(i64),
    Pay,
    Void(u8),
    Refund(u8, u8, i64),
    End(u8, u8, bool),
    Dispute(u8),
    Judge(u8, bool),
    Turn(u8),
    Wait,
    Close,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_i64..100).prop_map(Step::Buy),
        3 => Just(Step::Pay),
        3 => any::<u8>().prop_map(Step::Void),
        4 => (any::<u8>(), 0_u8..4, 1_i64..10_000).prop_map(|(which, name, amount)| Step::Refund(which, name, amount)),
        4 => (any::<u8>(), 0_u8..4, any::<bool>()).prop_map(|(which, name, done)| Step::End(which, name, done)),
        2 => any::<u8>().prop_map(Step::Dispute),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, upheld)| Step::Judge(which, upheld)),
        2 => any::<u8>().prop_map(Step::Turn),
        2 => Just(Step::Wait),
        1 => Just(Step::Close),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Whatever is ordered in whatever order: the books hold together, and what was charged is what is left of it.
#[test]
fn no_order_of_corrections_breaks_the_books() {
    random_cases(10, steps(), |steps| {
        let mut ledger = Ledger::new();
        // Number, name, charged, on credit.
        let mut charges: Vec<(i64, String, i64, bool)> = Vec::new();
        let mut left: BTreeMap<i64, i64> = BTreeMap::new();
        for step in steps {
            let pick = |which: u8| charges.get(usize::from(which) % charges.len().max(1)).cloned();
            match step {
                Step::Buy(amount) => {
                    let name = charges.len().to_string();
                    let n = buy(&ledger, "acme", &name, amount).n;
                    charges.push((n, name, amount, true));
                    left.insert(n, amount);
                }
                Step::Pay => {
                    let name = charges.len().to_string();
                    let n = pay(&ledger, &name, true);
                    charges.push((n, name, 10_000, false));
                    left.insert(n, 10_000);
                }
                Step::Void(which) => {
                    let Some((n, _, _, on_credit)) = pick(which) else { continue };
                    if void(&ledger, n).is_ok() {
                        prop_assert!(on_credit);
                        left.insert(n, 0);
                    }
                }
                Step::Refund(which, name, amount) => {
                    let Some((n, ..)) = pick(which) else { continue };
                    if let Ok(done) = refund(&ledger, n, &name.to_string(), Some(amount), None)
                        && !done.was
                    {
                        *left.get_mut(&n).unwrap() -= done.amount;
                    }
                }
                Step::End(which, name, done) => {
                    let Some((n, ..)) = pick(which) else { continue };
                    let state = if done { State::Done } else { State::Failed };
                    let result = refund(&ledger, n, &name.to_string(), None, Some(state));
                    let Ok(corrected) = result else { continue };
                    match (corrected.was, done, corrected.n > n) {
                        (false, false, _) => *left.get_mut(&n).unwrap() += corrected.amount,
                        // «done» of a reference that is new begins one.
                        (false, true, _) if ledger.number(&format!(
                            "SELECT count(*) FROM entries WHERE length(key) = 20 AND substr(key, 20) = x'00' AND n = {}",
                            corrected.n
                        )) == 1 => *left.get_mut(&n).unwrap() -= corrected.amount,
                        _ => {}
                    }
                }
                Step::Dispute(which) => {
                    if let Some((n, ..)) = pick(which) {
                        let _ = order(&ledger, n, What::Dispute);
                    }
                }
                Step::Judge(which, upheld) => {
                    let Some((n, ..)) = pick(which) else { continue };
                    let what = if upheld { What::Uphold } else { What::Reject };
                    if let Ok(done) = order(&ledger, n, what)
                        && done.void_n.is_some()
                    {
                        left.insert(n, 0);
                    }
                }
                Step::Turn(which) => {
                    let Some((n, name, charged, _)) = pick(which) else { continue };
                    if let Some(turn) = wait(ledger.store().take_owed(key(&name))) {
                        prop_assert_eq!(left[&n], charged, "fetched although something was given back");
                        if n % 2 == 0 {
                            ledger.store().give_back(turn);
                        } else {
                            prop_assert!(wait(ledger.store().redelivered(turn)).is_ok());
                        }
                    }
                }
                Step::Wait => ledger.advance(DAY_MS / 2),
                Step::Close => {
                    let today = (ledger.clock.now_ms() / DAY_MS) as i64;
                    let _ = close(&ledger, today);
                }
                Step::Restart => ledger.reopen().unwrap(),
            }
            prop_assert!(left.values().all(|left| *left >= 0));
        }
        prop_assert_eq!(net(&ledger), left.values().sum::<i64>());
        let credit: i64 = charges.iter().filter(|charge| charge.3).map(|charge| left[&charge.0]).sum();
        prop_assert_eq!(ledger.used(&request("", 0)), credit);
        Ok(())
    });
}
