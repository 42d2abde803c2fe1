//! Bounds and second looks of gateways that share a ledger: each is what stands between a fault elsewhere and money.

use std::{
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tollgate::{
    clock::Clock,
    ledger::{
        correction::{By, Order, What},
        read::LedgerReader,
        settling::Intent,
        store::{CaptureError, ClaimError, ClaimRequest, CorrectError, Posting, Released, Store, StoreFuture},
    },
    wire::amount::Units,
};

use crate::{ledger::*, store::open, support::Postgres};

/// Asks until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_claim_is_not_granted_before_the_database_has_it() {
    let Some(server) = Postgres::start("postgres::a_claim_is_not_granted_before") else { return };
    let store = open(&server, &Clock::manual(NOON));
    wait(store.claim(request("one", 10_000))).unwrap();
    assert_eq!(server.sql("SELECT state FROM claims"), "r");
    assert_eq!(server.number("SELECT used FROM account_use"), 10_000);
    store.close().unwrap();
}

#[test]
fn a_payment_whose_tombstone_is_gone_is_found_in_the_books() {
    let Some(server) = Postgres::start("postgres::a_payment_whose_tombstone") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    let receipt = wait(a.capture(claim, posting(units(10_000)))).unwrap();
    server.sql("DELETE FROM claims");
    assert_eq!(wait(b.claim(request("one", 10_000))).unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
    // And nothing of it is left claimed.
    assert_eq!(server.number("SELECT used FROM account_use"), 10_000);
    [a, b].iter().for_each(|store| store.close().unwrap());
}

#[test]
fn the_floor_of_another_gateway_counts() {
    let Some(server) = Postgres::start("postgres::the_floor_of_another") else { return };
    let store = open(&server, &Clock::manual(NOON));
    server.sql(&format!("UPDATE book SET replay_floor_ms = {}", NOON + 1));
    assert_eq!(wait(store.claim(request("old", 10_000))).unwrap_err(), ClaimError::BelowFloor);
    let new = ClaimRequest { paid_at_ms: NOON + 1, ..request("new", 10_000) };
    wait(store.claim(new)).unwrap();
    store.close().unwrap();
}

#[test]
fn no_claim_is_held_longer_than_any_exchange_takes() {
    let Some(server) = Postgres::start("postgres::no_claim_is_held_longer") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    assert_eq!(wait(b.claim(request("one", 10_000))).unwrap_err(), ClaimError::InFlight);
    server.sql("UPDATE claims SET hard_until_ms = 0");
    until("it is free", || server.sql("SELECT state FROM claims") == "f");
    assert_eq!(server.number("SELECT used FROM account_use"), 0);
    let other = wait(b.claim(request("one", 10_000))).unwrap();
    assert!(matches!(wait(a.capture(claim, posting(units(10_000)))), Err(CaptureError::Unavailable(_))));
    wait(b.capture(other, posting(units(10_000)))).unwrap();
    [a, b].iter().for_each(|store| store.close().unwrap());
}

#[test]
fn a_release_that_the_server_has_forgotten_is_said_again() {
    let Some(server) = Postgres::start("postgres::a_release_that_the_server") else { return };
    let store = open(&server, &Clock::manual(NOON));
    let (kept, released) =
        (wait(store.claim(request("kept", 1))).unwrap(), wait(store.claim(request("gone", 2))).unwrap());
    store.release(released, Released::OriginFailed);
    until("it is released", || server.number("SELECT count(*) FROM claims WHERE state = 'f'") == 1);
    // As a crash leaves it that lost the last second, and the connection with it.
    server.sql("UPDATE claims SET state = 'r', releases = 0; UPDATE account_use SET used = 3");
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'tollgate' AND pid <> pg_backend_pid()",
    );
    until("it is released again", || server.number("SELECT used FROM account_use") == 1);
    assert_eq!(server.number("SELECT count(*) FROM claims WHERE state = 'r'"), 1);
    until("it is open", || store.is_open());
    wait(store.capture(kept, posting(units(1)))).unwrap();
    store.close().unwrap();
}

#[test]
fn a_settlement_given_up_that_the_server_has_forgotten_is_said_again() {
    let Some(server) = Postgres::start("postgres::a_settlement_given_up") else { return };
    let store = open(&server, &Clock::manual(NOON));
    let begin = |name| {
        let claim = wait(store.claim(ClaimRequest { period: 0, ..request(name, 10_000) })).unwrap();
        let intent = Intent {
            posting: Posting { scheme: "exact", agent_key: None, key: None, ..posting(units(10_000)) },
            facilitator: "https://facilitator.example".into(),
            payload: b"{}".to_vec(),
            hard_until_ms: NOON + 60_000,
        };
        wait(store.intend(claim, intent)).unwrap()
    };
    let (in_hand, given_up) = (begin("in hand"), begin("given up"));
    store.unknown(given_up);
    let count = |state: &str| server.number(&format!("SELECT count(*) FROM claims WHERE state = '{state}'"));
    until("it is given up", || count("u") == 1);
    // As a crash leaves it that lost the last second, and the connection with it.
    server.sql("UPDATE claims SET state = 's', doubtful = 0");
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'tollgate' AND pid <> pg_backend_pid()",
    );
    until("it is given up again", || count("u") == 1);
    assert_eq!(count("s"), 1);
    until("it is open", || store.is_open());
    wait(store.settled(in_hand, posting(units(10_000)), false)).unwrap();
    store.close().unwrap();
}

#[test]
fn a_gateway_that_could_not_renew_its_lease_sells_nothing() {
    let Some(server) = Postgres::start("postgres::a_gateway_that_could_not_renew") else { return };
    let clock = Clock::manual(NOON);
    let store = open(&server, &clock);
    assert!(store.is_open());
    // Its writer waits for its own row, so that only time tells.
    let held = std::thread::spawn({
        let mut psql = server.psql();
        move || {
            psql.args(["-c", "BEGIN; SELECT 1 FROM writers FOR UPDATE; SELECT pg_sleep(1.5); COMMIT"]).output().unwrap()
        }
    });
    until("the row is locked", || server.number("SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock'") > 0);
    clock.advance(5_001);
    assert!(!store.is_open());
    assert!(matches!(wait(store.claim(request("one", 1))), Err(ClaimError::Unavailable(_))));
    held.join().unwrap();
    until("it is open again", || store.is_open());
    wait(store.claim(request("two", 1))).unwrap();
    store.close().unwrap();
}

#[test]
fn what_may_be_on_its_way_from_another_gateway_is_not_voided_as_unproven() {
    let Some(server) = Postgres::start("postgres::what_may_be_on_its_way") else { return };
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let clock = Clock::manual(now_ms);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(ClaimRequest { paid_at_ms: now_ms, ..request("one", 10_000) })).unwrap();
    let n = wait(a.capture(claim, posting(units(10_000)))).unwrap().n;
    let place = tollgate::ledger::location::Location::parse(&server.url(), None).unwrap();
    let seen = LedgerReader::open(place).unwrap().last_batches().unwrap();
    let void = || {
        let what = What::Void { unproven_since: Some(seen.clone()) };
        let order = Order { n, what, reason: "unproven".to_owned(), by: By::Operator };
        wait(b.correct(vec![order])).unwrap().pop().unwrap()
    };
    assert_eq!(void().unwrap_err(), CorrectError::OnItsWay(n));
    // Gone, and its word with it.
    std::mem::forget(a);
    server.sql("UPDATE writers SET epoch = epoch + 1, lease_until = 0 WHERE slot = 1");
    assert!(void().is_ok());
    assert_eq!(server.number("SELECT used FROM account_use"), 0);
    b.close().unwrap();
}

#[test]
fn claims_do_not_pile_up_before_a_server_that_hangs() {
    let Some(server) = Postgres::start("postgres::claims_do_not_pile_up") else { return };
    let store = open(&server, &Clock::manual(NOON));
    server.freeze();
    let claim = |n: usize| {
        let limit = Units::MAX;
        store.claim(ClaimRequest { limit, ..request(&n.to_string(), 1) })
    };
    // What is under way when the server stops answering, and as many again as may wait; of these each is told at once.
    let mut waiting: Vec<_> = (0..2 * 8192 + 1).map(claim).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let refused = |claim: &mut StoreFuture<_>| match claim.as_mut().poll(&mut cx) {
        Poll::Ready(Err(ClaimError::Unavailable(why))) => why.to_string().contains("too many claims wait"),
        _ => false,
    };
    assert!(waiting.iter_mut().any(refused));
    server.thaw();
    drop(waiting);
    until("what nobody waited for is given back", || {
        server.sql("SELECT coalesce(sum(used), 0) FROM account_use") == "0" && store.is_open()
    });
    store.close().unwrap();
}

/// As a capture holds its row whose commit waits for a standby that is gone.
#[test]
fn a_claim_whose_row_another_has_in_hand_holds_up_no_other() {
    let Some(server) = Postgres::start("postgres::a_claim_whose_row") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    wait(a.claim(request("one", 10_000))).unwrap();
    server.sql("UPDATE claims SET state = 'f'");
    let hanging = std::thread::spawn({
        let mut psql = server.psql();
        let held = "BEGIN; UPDATE claims SET state = 'c', n = 1; SELECT pg_sleep(60); COMMIT";
        move || psql.args(["-c", held]).output().unwrap()
    });
    until("the rows are locked", || {
        server.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
    });
    let begun = Instant::now();
    let held = b.claim(request("one", 10_000));
    let free = b.claim(request("two", 10_000));
    assert_eq!(wait(held).unwrap_err(), ClaimError::InFlight);
    wait(free).unwrap();
    // Less than one statement waits for a lock.
    assert!(!hanging.is_finished() && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.number("SELECT used FROM account_use"), 20_000);
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    hanging.join().unwrap();
    // It came to nothing: the payment is as good as before.
    wait(b.claim(request("one", 10_000))).unwrap();
    [a, b].iter().for_each(|store| store.close().unwrap());
}
