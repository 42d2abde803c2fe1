//! Balances that are paid in beforehand: spent as credit is, never below nothing, each transfer noted once.

use std::{
    process::Command,
    sync::{Arc, Barrier},
    thread,
};

use proptest::prelude::*;
use tollgate::{
    clock::Clock,
    ledger::{
        day::BALANCE,
        ledger_store::LedgerStore,
        location::Location,
        standings::Standing,
        statements::StatementState,
        store::{Claim, ClaimError, ClaimRequest, Released, Store},
        top_up::{TopUp, TopUpError, ToppedUp, Way},
    },
    wire::amount::{Asset, Currency, Money, Prepaid},
};

use crate::{
    closing::{DAY_MS, TODAY, close, statements},
    corrections::{audited, void},
    corrections_crash::At,
    support::*,
};

fn usd(amount: i64) -> Money {
    Money { units: units(amount), currency: Currency::parse("USD").unwrap() }
}

fn order(reference: &str, amount: i64, way: Way) -> TopUp {
    let reason = "because".to_owned();
    TopUp { account: "acme".into(), money: usd(amount), way, reference: reference.to_owned(), reason }
}

pub fn pay_in(ledger: &Ledger, reference: &str, amount: i64) -> Result<ToppedUp, TopUpError> {
    wait(ledger.store().top_up(order(reference, amount, Way::In)))
}

fn pay_back(ledger: &Ledger, reference: &str, amount: i64) -> Result<ToppedUp, TopUpError> {
    wait(ledger.store().top_up(order(reference, amount, Way::Back)))
}

fn prepaid(name: &str, amount: i64) -> ClaimRequest {
    let asset = Asset::Prepaid(Prepaid::of(usd(0).currency));
    ClaimRequest { asset, limit: units(0), period: BALANCE, ..request(name, amount) }
}

fn claim(ledger: &Ledger, name: &str, amount: i64) -> Result<Claim, ClaimError> {
    wait(ledger.store().claim(prepaid(name, amount)))
}

fn is_refused(claimed: Result<Claim, ClaimError>) -> bool {
    matches!(claimed, Err(ClaimError::CreditExhausted { .. }))
}

fn standing(ledger: &Ledger) -> Standing {
    ledger.reader().standings(Some("acme")).unwrap().remove(0)
}

#[test]
fn a_balance_is_spent_to_the_last_unit_and_no_further() {
    let mut ledger = Ledger::new();
    assert!(is_refused(claim(&ledger, "early", 1)));
    let first = pay_in(&ledger, "invoice 1", 30_000).unwrap();
    assert_eq!((first.balance, first.was), (30_000, false));
    let spent = ledger.capture(claim(&ledger, "a", 10_000).unwrap()).unwrap();
    let held = claim(&ledger, "b", 20_000).unwrap();
    assert!(is_refused(claim(&ledger, "c", 1)), "what is being served counts");
    ledger.store().release(held, Released::OriginFailed);
    heard(ledger.store());
    ledger.capture(claim(&ledger, "c", 19_999).unwrap()).unwrap();
    assert!(is_refused(claim(&ledger, "d", 2)));
    ledger.reopen().unwrap();
    assert!(is_refused(claim(&ledger, "d", 2)));
    ledger.capture(claim(&ledger, "d", 1).unwrap()).unwrap();
    assert!(is_refused(claim(&ledger, "e", 1)));
    // A void gives it back, and a period without an end is never swept.
    void(&ledger, spent.n).unwrap();
    ledger.advance(400 * DAY_MS);
    ledger.reopen().unwrap();
    let late = |name| ClaimRequest { paid_at_ms: ledger.clock.now_ms(), ..prepaid(name, 10_000) };
    let last = wait(ledger.store().claim(late("f"))).unwrap();
    ledger.capture(last).unwrap();
    assert!(is_refused(wait(ledger.store().claim(late("g")))));
    let expected = Standing {
        account: "acme".into(),
        asset: "prepaid:USD".into(),
        period: BALANCE,
        used: 0,
        paid_in: 30_000,
        spent: 30_000,
    };
    assert_eq!(standing(&ledger), expected);
    audited(&ledger);
}

/// Zero is a balance, too: what is given back then is not lost until the next start.
#[test]
fn a_void_gives_back_to_a_balance_that_is_empty() {
    let ledger = Ledger::new();
    pay_in(&ledger, "invoice 1", 10_000).unwrap();
    let bought = ledger.capture(claim(&ledger, "a", 10_000).unwrap()).unwrap();
    assert!(is_refused(claim(&ledger, "b", 1)));
    void(&ledger, bought.n).unwrap();
    ledger.capture(claim(&ledger, "b", 10_000).unwrap()).unwrap();
    let bought = ledger.capture(claim(&ledger, "free", 0).unwrap()).unwrap();
    void(&ledger, bought.n).unwrap();
    assert!(is_refused(claim(&ledger, "c", 1)));
    assert_eq!(pay_in(&ledger, "invoice 2", 5).unwrap().balance, 5);
    audited(&ledger);
}

#[test]
fn a_balance_that_nobody_asks_for_is_not_forgotten() {
    let mut ledger = Ledger::new();
    pay_in(&ledger, "invoice 1", 5).unwrap();
    // An idle writer forgets periods that are past.
    for _ in 0..3 {
        ledger.advance(100 * DAY_MS);
        ledger.store().hurry();
        heard(ledger.store());
    }
    let late = |name| ClaimRequest { paid_at_ms: ledger.clock.now_ms(), ..prepaid(name, 5) };
    let claim = wait(ledger.store().claim(late("a"))).unwrap();
    ledger.capture(claim).unwrap();
    ledger.reopen().unwrap();
    audited(&ledger);
}

#[test]
fn a_reference_is_one_transfer() {
    let mut ledger = Ledger::new();
    let first = pay_in(&ledger, "invoice 1", 5_000).unwrap();
    for _ in 0..2 {
        let again = pay_in(&ledger, " invoice 1 ", 5_000).unwrap();
        assert_eq!(again, ToppedUp { was: true, ..first });
        ledger.reopen().unwrap();
    }
    let other = |n| TopUpError::Other { reference: "invoice 1".into(), is: "0.005 USD paid in".into(), n };
    assert_eq!(pay_in(&ledger, "invoice 1", 5_001), Err(other(first.n)));
    assert_eq!(pay_back(&ledger, "invoice 1", 5_000), Err(other(first.n)));
    for (wrong, error) in [
        (order("", 1, Way::In), TopUpError::Reference),
        (order(" ", 1, Way::In), TopUpError::Reference),
        (order("a\nb", 1, Way::In), TopUpError::Reference),
        (order(&"r".repeat(201), 1, Way::In), TopUpError::Reference),
        (TopUp { reason: "a\nb".into(), ..order("x", 1, Way::In) }, TopUpError::Reason),
        (
            TopUp { account: "open:a.example".into(), ..order("x", 1, Way::In) },
            TopUpError::Opened("open:a.example".into()),
        ),
        (order("x", 0, Way::In), TopUpError::Amount),
        (order("x", i64::MAX / 2, Way::In), TopUpError::Amount),
    ] {
        assert_eq!(wait(ledger.store().top_up(wrong)), Err(error));
    }
    assert_eq!((standing(&ledger).paid_in, audited(&ledger).finding), (5_000, None));
    assert_eq!(ledger.number("SELECT count(*) FROM entries"), 1);
}

#[test]
fn what_is_left_is_paid_back_and_no_more() {
    let ledger = Ledger::new();
    let too_much = |balance| Err(TopUpError::TooMuch { balance, currency: usd(0).currency });
    assert_eq!(pay_back(&ledger, "back 0", 1), too_much(0));
    pay_in(&ledger, "in", 10_000).unwrap();
    let held = claim(&ledger, "a", 4_000).unwrap();
    assert_eq!(pay_back(&ledger, "back 1", 6_001), too_much(6_000));
    assert_eq!(pay_back(&ledger, "back 1", 6_000).unwrap().balance, 0);
    // The order again, when nothing is left for a second one.
    assert!(pay_back(&ledger, "back 1", 6_000).unwrap().was);
    assert!(is_refused(claim(&ledger, "b", 1)));
    ledger.capture(held).unwrap();
    assert_eq!(pay_back(&ledger, "back 2", 1), too_much(0));
    assert_eq!(standing(&ledger).used, 0);
    audited(&ledger);
}

#[test]
fn a_statement_of_a_balance_is_paid_from_the_start() {
    let ledger = Ledger::new();
    pay_in(&ledger, "in", 10_000).unwrap();
    ledger.capture(claim(&ledger, "a", 4_000).unwrap()).unwrap();
    // What it buys on credit beside it is another statement, and what its allowance gave a third.
    ledger.pay("b");
    let free = ClaimRequest { asset: Asset::Requests, limit: units(2), ..request("c", 1) };
    let free = wait(ledger.store().claim(free)).unwrap();
    ledger.capture(free).unwrap();
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    let stated: Vec<_> = statements(&ledger).into_iter().map(|s| (s.asset, s.total, s.state)).collect();
    let expected = [
        ("USD".to_owned(), 10_000, StatementState::Closed),
        ("prepaid:USD".to_owned(), 4_000, StatementState::Paid),
        ("requests".to_owned(), 1, StatementState::Paid),
    ];
    assert_eq!(stated, expected);
    audited(&ledger);
}

#[test]
fn many_at_once_never_spend_more_than_there_is() {
    let ledger = Ledger::new();
    pay_in(&ledger, "in", 50).unwrap();
    let store = ledger.store.clone().unwrap();
    let (threads, start) = (8, Arc::new(Barrier::new(8)));
    let workers = (0..threads).map(|thread| {
        let (store, start) = (store.clone(), start.clone());
        thread::spawn(move || {
            start.wait();
            let mut bought = 0;
            for i in 0..20 {
                if thread == 0 && i == 10 {
                    wait(store.top_up(order("more", 25, Way::In))).unwrap();
                }
                if thread == 1 && i == 10 {
                    _ = wait(store.top_up(order("less", 5, Way::Back)));
                }
                let Ok(claim) = wait(store.claim(prepaid(&format!("{thread}.{i}"), 1))) else { continue };
                if i % 4 == 3 {
                    store.release(claim, Released::NotAsked);
                    continue;
                }
                let posting = posting(units(1));
                wait(store.capture(claim, posting)).unwrap();
                bought += 1;
            }
            bought
        })
    });
    let workers: Vec<_> = workers.collect();
    let bought: i64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    drop(store);
    heard(ledger.store());
    let standing = standing(&ledger);
    assert_eq!((standing.spent, standing.used), (bought, bought - standing.paid_in));
    assert!(standing.used <= 0 && [70, 75].contains(&standing.paid_in), "{standing:?}");
    audited(&ledger);
}

const CASES: [&str; 2] = ["in", "back"];

fn say(store: &LedgerStore, case: &str) -> Result<ToppedUp, TopUpError> {
    let way = if case == "in" { Way::In } else { Way::Back };
    wait(store.top_up(order("the transfer", 6_000, way)))
}

/// 10,000 paid in and 3,000 of it spent; two commits.
fn prepare(ledger: &Ledger) {
    pay_in(ledger, "before", 10_000).unwrap();
    ledger.capture(claim(ledger, "a", 3_000).unwrap()).unwrap();
}

/// What memory and the books say once the case stands, or not.
fn check(ledger: &Ledger, case: &str, stands: bool) {
    let balance = match (case, stands) {
        (_, false) => 7_000,
        ("in", true) => 13_000,
        _ => 1_000,
    };
    assert_eq!(standing(ledger).used, -balance, "{case} {stands}");
    assert!(is_refused(claim(ledger, "over", balance + 1)), "{case} {stands}");
    let all = claim(ledger, "all", balance).unwrap();
    ledger.store().release(all, Released::NotAsked);
    heard(ledger.store());
}

#[test]
fn a_disk_that_fails_leaves_a_transfer_noted_or_not_and_asking_again_ends_it() {
    for case in CASES {
        for made in [false, true] {
            let ledger = Ledger::with_faults(Arc::new(At::commit(3, made, false)));
            prepare(&ledger);
            assert!(matches!(say(ledger.store(), case), Err(TopUpError::Unavailable(_))), "{case}");
            ledger.until_open();
            check(&ledger, case, made);
            assert_eq!(say(ledger.store(), case).unwrap().was, made, "{case}");
            check(&ledger, case, true);
            audited(&ledger);
        }
    }
}

const CHILD: &str = "TOLLGATE_TEST_TOP_UP";

/// The process that the next test starts; by itself it does nothing.
#[test]
fn child_that_dies_over_a_transfer() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [point, case, path] = told.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let place = options(Location::parse(path, None).unwrap(), Clock::manual(NOON));
    let store = LedgerStore::open_with_faults(place, Arc::new(At::commit(1, point == "after", true))).unwrap();
    _ = say(&store, case);
}

#[test]
fn kill_9_leaves_a_transfer_noted_or_not() {
    for case in CASES {
        for made in [false, true] {
            let mut ledger = Ledger::new();
            prepare(&ledger);
            ledger.close();
            let point = if made { "after" } else { "before" };
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "balances::child_that_dies_over_a_transfer", "--nocapture", "--test-threads=1"])
                .env(CHILD, format!("{point} {case} {}", ledger.home.name()))
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            assert_eq!(signal, Some(9), "{case}: {output:?}");
            ledger.home.bury();
            ledger.reopen().unwrap();
            check(&ledger, case, made);
            assert_eq!(say(ledger.store(), case).unwrap().was, made);
            check(&ledger, case, true);
            ledger.reopen().unwrap();
            check(&ledger, case, true);
            audited(&ledger);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    In(i64),
    Back(i64),
    Claim(i64),
    Capture(usize, bool),
    Release(usize),
    Void(usize),
    Reopen,
    Day,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..50_i64).prop_map(Step::In),
        2 => (1..50_i64).prop_map(Step::Back),
        8 => (0..20_i64).prop_map(Step::Claim),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, less)| Step::Capture(which, less)),
        2 => any::<usize>().prop_map(Step::Release),
        2 => any::<usize>().prop_map(Step::Void),
        1 => Just(Step::Reopen),
        1 => Just(Step::Day),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What is left, by a count of our own, decides each claim and each transfer; and the books say the same at the end.
#[test]
fn a_balance_is_what_was_paid_in_less_what_was_bought() {
    random_cases(8, steps(), |steps| {
        let mut ledger = Ledger::new();
        let (mut balance, mut held, mut bought, mut names) = (0_i64, Vec::<Claim>::new(), Vec::new(), 0);
        for step in steps {
            names += 1;
            match step {
                Step::In(amount) => {
                    balance += amount;
                    prop_assert_eq!(pay_in(&ledger, &format!("r{names}"), amount).unwrap().balance, balance);
                }
                Step::Back(amount) => {
                    let said = pay_back(&ledger, &format!("r{names}"), amount);
                    prop_assert_eq!(said.is_ok(), amount <= balance, "{:?} of {}", said, balance);
                    balance -= if said.is_ok() { amount } else { 0 };
                }
                Step::Claim(amount) => {
                    let paid_at_ms = ledger.clock.now_ms();
                    let request = ClaimRequest { paid_at_ms, ..prepaid(&format!("p{names}"), amount) };
                    let claimed = wait(ledger.store().claim(request));
                    prop_assert_eq!(claimed.is_ok(), amount <= balance);
                    if let Ok(claim) = claimed {
                        balance -= amount;
                        held.push(claim);
                    }
                }
                Step::Capture(which, less) if !held.is_empty() => {
                    let claim = held.swap_remove(which % held.len());
                    let claimed = claim.request.amount.get();
                    let amount = if less { claimed / 2 } else { claimed };
                    let receipt = wait(ledger.store().capture(claim, posting(units(amount)))).unwrap();
                    balance += claimed - amount;
                    bought.push((receipt.n, amount));
                }
                Step::Release(which) if !held.is_empty() => {
                    let claim = held.swap_remove(which % held.len());
                    balance += claim.request.amount.get();
                    ledger.store().release(claim, Released::OriginFailed);
                    heard(ledger.store());
                }
                Step::Void(which) if !bought.is_empty() => {
                    let (n, amount) = bought.swap_remove(which % bought.len());
                    void(&ledger, n).unwrap();
                    balance += amount;
                }
                Step::Reopen => {
                    for claim in held.drain(..) {
                        balance += claim.request.amount.get();
                        ledger.store().release(claim, Released::OriginFailed);
                    }
                    ledger.reopen().unwrap();
                }
                Step::Day => ledger.advance(DAY_MS),
                _ => {}
            }
        }
        for claim in held {
            balance += claim.request.amount.get();
            ledger.store().release(claim, Released::OriginFailed);
        }
        heard(ledger.store());
        let rows = ledger.reader().standings(None).unwrap();
        prop_assert_eq!(rows.iter().map(|row| -row.used).sum::<i64>(), balance);
        prop_assert_eq!(ledger.audit().finding, None);
        Ok(())
    });
}
