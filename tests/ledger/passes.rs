//! Passes: posted with what bought them or not at all, counted once, found by whoever asks, and over when they are.

use std::{process::Command, sync::Arc, time::Duration};

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::LedgerStore,
        location::Location,
        store::{
            CaptureError, Claim, ClaimError, ClaimRequest, Delivery, Held, Pass, Posting, Receipt, Released, Store,
        },
    },
    payment::pass::{Good, Grant, Scope},
    wire::amount::Asset,
};

use crate::{
    corrections::{audited, void},
    corrections_crash::At,
    rechain::rechain,
    references::check_in,
    support::*,
};

const HOUR_MS: u64 = 3_600_000;

pub fn scope() -> Scope {
    Scope::new("https://signer.example.com", &["resource", "GET /a"])
}

fn hour() -> Good {
    Good::For(Duration::from_secs(3600))
}

/// A sale that buys a pass besides.
pub fn sell(store: &LedgerStore, name: &str, good: Good, now_ms: u64) -> Result<Receipt, CaptureError> {
    let request = ClaimRequest { paid_at_ms: now_ms, ..request(name, 10_000) };
    let claim = wait(store.claim(request)).unwrap();
    let posting = Posting { grant: Some(Grant { scope: scope(), good }), ..posting(claim.request.amount) };
    wait(store.capture(claim, posting))
}

fn buy(ledger: &Ledger, name: &str, good: Good) -> i64 {
    sell(ledger.store(), name, good, ledger.clock.now_ms()).unwrap().n
}

pub fn held(ledger: &Ledger) -> Option<Pass> {
    all_held(ledger).first().cloned()
}

fn all_held(ledger: &Ledger) -> Vec<Pass> {
    let held = Held { scopes: vec![scope()], at_ms: ledger.clock.now_ms() };
    wait(ledger.store().held(held)).unwrap()
}

fn repeat(ledger: &Ledger, pass: &Pass, name: &str) -> Result<Claim, ClaimError> {
    let limit = pass.requests.unwrap_or(units(i64::MAX / 2));
    let paid_at_ms = ledger.clock.now_ms();
    let of = ClaimRequest { asset: Asset::Requests, limit, period: pass.n, paid_at_ms, ..request(name, 1) };
    wait(ledger.store().claim(of))
}

fn use_up(ledger: &Ledger, pass: &Pass, name: &str) {
    ledger.capture(repeat(ledger, pass, name).unwrap()).unwrap();
}

#[test]
fn a_pass_is_good_for_its_time_whoever_asks_and_over_after_it() {
    let mut ledger = Ledger::new();
    assert_eq!(held(&ledger), None);
    let n = buy(&ledger, "a", hour());
    let pass = held(&ledger).unwrap();
    assert_eq!((pass.n, pass.requests, pass.ends_ms), (n, None, NOON + HOUR_MS));
    let other = |agent: &str, what: &str| {
        let scopes = vec![Scope::new(agent, &["resource", what]), Scope::new(agent, &["route", what])];
        wait(ledger.store().held(Held { scopes, at_ms: NOON })).unwrap()
    };
    assert_eq!(other("https://signer.example.com", "GET /b"), []);
    assert_eq!(other("https://other.example.com", "GET /a"), []);
    assert_eq!(other("https://signer.example.com", "GET /a").len(), 1);
    for i in 0..3 {
        use_up(&ledger, &pass, &format!("r{i}"));
    }
    ledger.reopen().unwrap();
    assert_eq!(held(&ledger), Some(Pass { used: 3, ..pass }));
    ledger.advance(HOUR_MS - 1);
    assert!(held(&ledger).is_some());
    ledger.advance(1);
    assert_eq!(held(&ledger), None);
    audited(&ledger);
}

#[test]
fn a_counted_pass_has_so_many_requests_over_restarts_and_idle_hours() {
    let mut ledger = Ledger::new();
    buy(&ledger, "a", Good::Times(units(3)));
    let pass = held(&ledger).unwrap();
    use_up(&ledger, &pass, "r1");
    let held_back = repeat(&ledger, &pass, "r2").unwrap();
    use_up(&ledger, &pass, "r3");
    assert!(matches!(repeat(&ledger, &pass, "r4"), Err(ClaimError::CreditExhausted { .. })));
    ledger.store().release(held_back, Released::OriginFailed);
    heard(ledger.store());
    ledger.reopen().unwrap();
    // Nothing of it is in memory before it is asked for.
    let pass = held(&ledger).unwrap();
    assert_eq!(pass.used, 2);
    for _ in 0..3 {
        ledger.advance(2 * HOUR_MS);
        ledger.store().hurry();
        heard(ledger.store());
    }
    use_up(&ledger, &pass, "r5");
    assert!(matches!(repeat(&ledger, &pass, "r6"), Err(ClaimError::CreditExhausted { .. })));
    audited(&ledger);
}

#[test]
fn what_was_given_back_is_had_again_and_a_void_of_the_purchase_ends_it() {
    let ledger = Ledger::new();
    let bought = buy(&ledger, "a", Good::Times(units(1)));
    let pass = held(&ledger).unwrap();
    let n = ledger.capture(repeat(&ledger, &pass, "r1").unwrap()).unwrap().n;
    ledger.outcome(n, Delivery::NotSent, true);
    ledger.store().hurry();
    while ledger.number("SELECT count(*) FROM entries WHERE kind = 2") == 0 {
        std::thread::yield_now();
    }
    heard(ledger.store());
    use_up(&ledger, &pass, "r2");
    void(&ledger, bought).unwrap();
    assert_eq!(held(&ledger), None);
    // Each purchase has its own, and one that is voided leaves the others.
    let first = buy(&ledger, "b", Good::Times(units(7)));
    assert_eq!(held(&ledger).map(|pass| (pass.n, pass.used)), Some((first, 0)));
    let second = buy(&ledger, "c", hour());
    assert_eq!(all_held(&ledger).iter().map(|pass| pass.n).collect::<Vec<_>>(), [second, first]);
    void(&ledger, second).unwrap();
    assert_eq!(held(&ledger).map(|pass| (pass.n, pass.requests)), Some((first, Some(units(7)))));
    audited(&ledger);
}

/// Its agent has it again by its pass; voided, it would have what it pays for twice over.
#[test]
fn a_purchase_with_a_pass_is_not_reversed_because_its_answer_was_not_sent() {
    let ledger = Ledger::new();
    let bought = buy(&ledger, "a", hour());
    let other = ledger.pay("b").n;
    for n in [bought, other] {
        ledger.outcome(n, Delivery::NotSent, true);
    }
    ledger.store().hurry();
    while ledger.number("SELECT count(*) FROM entries WHERE kind = 2") == 0 {
        std::thread::yield_now();
    }
    heard(ledger.store());
    assert_eq!(ledger.number("SELECT ref_n FROM entries WHERE kind = 2"), other);
    assert_eq!(held(&ledger).map(|pass| pass.n), Some(bought));
    // The operator's word is another matter.
    void(&ledger, bought).unwrap();
    assert_eq!(held(&ledger), None);
    audited(&ledger);
}

#[test]
fn purchases_at_once_have_a_pass_each() {
    let ledger = Ledger::new();
    let store = ledger.store.clone().unwrap();
    let now_ms = ledger.clock.now_ms();
    let sellers: Vec<_> = (0..8)
        .map(|i| {
            let store = store.clone();
            std::thread::spawn(move || sell(&store, &format!("a{i}"), Good::Times(units(5)), now_ms).unwrap().n)
        })
        .collect();
    let sold: Vec<i64> = sellers.into_iter().map(|seller| seller.join().unwrap()).collect();
    drop(store);
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE kind = 11"), 8);
    // One after the other gives all that was paid for.
    let mut given = 0;
    while let Some(pass) = held(&ledger) {
        assert!(sold.contains(&pass.n));
        use_up(&ledger, &pass, &format!("r{given}"));
        given += 1;
    }
    assert_eq!(given, 40);
    audited(&ledger);
}

/// Keys of postings that an archive has taken are not given again.
#[test]
fn passes_are_numbered_by_their_time() {
    let mut ledger = Ledger::new();
    buy(&ledger, "a", hour());
    buy(&ledger, "b", hour());
    ledger.advance(5000);
    buy(&ledger, "c", hour());
    ledger.reopen().unwrap();
    let keys = ledger.rows("SELECT key FROM entries WHERE kind = 11 ORDER BY n");
    let which = |row: &Row| u32::from_str_radix(&row[0].as_deref().unwrap()[28..36], 16).unwrap();
    let seconds = (NOON / 1000) as u32;
    assert_eq!(keys.iter().map(which).collect::<Vec<_>>(), [seconds, seconds + 1, seconds + 5]);
}

#[test]
fn a_disk_that_fails_leaves_the_purchase_with_its_pass_or_neither() {
    for made in [false, true] {
        let ledger = Ledger::with_faults(Arc::new(At::commit(1, made, false)));
        let sold = sell(ledger.store(), "a", hour(), NOON);
        assert!(matches!(sold, Err(CaptureError::Unavailable(_))));
        ledger.until_open();
        ledger.store().hurry();
        heard(ledger.store());
        let both = ledger.number("SELECT count(*) FROM entries WHERE kind IN (1, 11)");
        assert_eq!(both, if made { 2 } else { 0 });
        // Nobody was given the answer: what is written is voided, so its pass is over.
        while made && ledger.number("SELECT count(*) FROM entries WHERE kind = 2") == 0 {
            ledger.store().hurry();
            heard(ledger.store());
        }
        assert_eq!(held(&ledger), None);
        audited(&ledger);
    }
}

const CHILD: &str = "TOLLGATE_TEST_PASS";

/// The process that the next test starts; by itself it does nothing.
#[test]
fn child_that_dies_over_a_pass() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (point, path) = told.split_once(' ').unwrap();
    let place = options(Location::parse(path, None).unwrap(), Clock::manual(NOON));
    let store = LedgerStore::open_with_faults(place, Arc::new(At::commit(1, point == "after", true))).unwrap();
    _ = sell(&store, "a", hour(), NOON);
}

#[test]
fn kill_9_leaves_the_purchase_with_its_pass_or_neither() {
    for made in [false, true] {
        let mut ledger = Ledger::new();
        ledger.close();
        let point = if made { "after" } else { "before" };
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "passes::child_that_dies_over_a_pass", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{point} {}", ledger.home.name()))
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
        ledger.home.bury();
        ledger.reopen().unwrap();
        assert_eq!(held(&ledger).is_some(), made);
        assert_eq!(ledger.number("SELECT count(*) FROM entries"), if made { 2 } else { 0 });
        audited(&ledger);
    }
}

#[test]
fn a_pass_that_somebody_has_changed_is_found() {
    let books = || {
        let mut ledger = Ledger::new();
        buy(&ledger, "a", Good::Times(units(2)));
        let pass = held(&ledger).unwrap();
        use_up(&ledger, &pass, "r1");
        use_up(&ledger, &pass, "r2");
        ledger.close();
        ledger
    };
    for (change, at, said) in [
        ("asset = 'USD' WHERE kind = 11", 2, "its asset"),
        ("period = 0 WHERE kind = 11", 2, "its seconds"),
        ("amount = -1 WHERE kind = 11", 2, "its amount"),
        ("ref_n = n WHERE kind = 11", 2, "what bought it"),
        ("ref_n = NULL WHERE kind = 11", 2, "what bought it"),
    ] {
        check_in(&books(), &format!("UPDATE entries SET {change}"), at, said);
    }
    let ledger = books();
    assert_eq!(ledger.change("UPDATE entries SET amount = 1 WHERE kind = 11"), 1);
    rechain(&ledger);
    assert!(ledger.audit().finding.is_some_and(|finding| finding.what == "what is used of a pass"));
}
