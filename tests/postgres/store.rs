//! What the port promises, kept on a server, by one gateway and by two.

use std::sync::Arc;

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::{LedgerOptions, LedgerStore},
        location::Location,
        read::LedgerReader,
        settling::Intent,
        store::{
            CaptureError, ClaimError, ClaimRequest, Delivery, Health, Outcome, Outcomes, Posting, Purchase, Released,
            Store,
        },
    },
    wire::amount::Units,
};

use crate::{
    ledger::*,
    support::{Postgres, Random},
};

/// A gateway's store over the server.
pub fn open(server: &Postgres, clock: &Clock) -> Arc<LedgerStore> {
    let place = Location::parse(&server.url(), None).unwrap();
    LedgerStore::open(options(place, clock.clone())).unwrap()
}

fn audit(server: &Postgres) -> tollgate::ledger::audit::AuditReport {
    let place = Location::parse(&server.url(), None).unwrap();
    LedgerReader::open(place).unwrap().audit(|_, _| ()).unwrap()
}

#[test]
fn a_payment_is_claimed_once_over_gateways_and_captured_once() {
    let Some(server) = Postgres::start("postgres::a_payment_is_claimed_once") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    assert_eq!(wait(b.claim(request("one", 10_000))).unwrap_err(), ClaimError::InFlight);
    a.release(claim, Released::OriginFailed);
    let claim = loop {
        match wait(b.claim(request("one", 10_000))) {
            Ok(claim) => break claim,
            // The release is on its way.
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        }
    };
    let receipt = wait(b.capture(claim, posting(units(9_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 2);
    for store in [&a, &b] {
        let again = wait(store.claim(request("one", 10_000))).unwrap_err();
        assert_eq!(again, ClaimError::AlreadyCaptured(Some(receipt.n)));
    }
    assert_eq!(server.number("SELECT used FROM account_use"), 9_000);
    b.outcome(Outcome { n: receipt.n, delivery: Delivery::OriginCut, void: true, ms: 1, bytes: 0 });
    b.close().unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), 0);
    a.close().unwrap();
    let report = audit(&server);
    assert_eq!((report.finding, report.captures, report.voids, report.unproven), (None, 1, 1, 0));
}

#[test]
fn a_claim_whose_slot_is_gone_is_not_captured() {
    let Some(server) = Postgres::start("postgres::a_claim_whose_slot_is_gone") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(a.claim(request("one", 10_000))).unwrap();
    // As if it had been frozen for longer than its lease, and its slot given to another gateway.
    server.sql("UPDATE writers SET epoch = epoch + 1 WHERE slot = 1");
    let other = loop {
        match wait(b.claim(request("one", 10_000))) {
            Ok(other) => break other,
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        }
    };
    let lost = wait(a.capture(claim, posting(units(10_000)))).unwrap_err();
    assert!(matches!(lost, CaptureError::Unavailable(_)), "{lost}");
    wait(b.capture(other, posting(units(10_000)))).unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), 10_000);
    assert_eq!(server.number("SELECT count(*) FROM entries"), 1);
    // It has a slot again, and goes on.
    let next = loop {
        match wait(a.claim(request("two", 10_000))) {
            Ok(next) => break next,
            Err(error) => assert!(matches!(error, ClaimError::Unavailable(_)), "{error}"),
        }
    };
    let receipt = wait(a.capture(next, posting(units(10_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 3);
    a.close().unwrap();
    b.close().unwrap();
    assert_eq!(audit(&server).finding, None);
}

/// Its slot is still its own, and its chain goes on: only the row of the claim tells.
#[test]
fn a_claim_that_was_freed_or_forgotten_is_not_captured() {
    let Some(server) = Postgres::start("postgres::a_claim_that_was_freed") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let freed = wait(a.claim(request("freed", 10_000))).unwrap();
    let taken = wait(a.claim(request("taken", 10_000))).unwrap();
    // As after a freeze that was longer than the lease, when nobody has taken the slot.
    server.sql("UPDATE claims SET hard_until_ms = 0");
    let other = loop {
        match wait(b.claim(request("taken", 10_000))) {
            Ok(other) => break other,
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        }
    };
    let lost = wait(a.claim(request("lost", 10_000))).unwrap();
    // As after a crash of the server, which forgets claims of its last second.
    server.sql(
        "BEGIN; DELETE FROM claims WHERE state = 'r' AND slot = 1; \
         UPDATE account_use SET used = 10000; COMMIT",
    );
    for claim in [freed, taken, lost] {
        let error = wait(a.capture(claim, posting(units(10_000)))).unwrap_err();
        assert!(error.to_string().contains("had run out"), "{error}");
    }
    assert_eq!(server.number("SELECT count(*) FROM entries"), 0);
    wait(b.capture(other, posting(units(10_000)))).unwrap();
    let again = wait(a.claim(request("freed", 10_000))).unwrap();
    let receipt = wait(a.capture(again, posting(units(10_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 1, "it is the same gateway");
    assert_eq!(server.number("SELECT used FROM account_use"), 20_000);
    a.close().unwrap();
    b.close().unwrap();
    assert_eq!(audit(&server).finding, None);
}

#[test]
fn credit_over_gateways_is_never_exceeded_and_its_last_unit_can_be_spent() {
    let Some(server) = Postgres::start("postgres::credit_over_gateways") else { return };
    let clock = Clock::manual(NOON);
    let stores = [open(&server, &clock), open(&server, &clock), open(&server, &clock)];
    let limit = 100_i64;
    let admitted = std::sync::atomic::AtomicI64::new(0);
    std::thread::scope(|scope| {
        for side in 0..9_u32 {
            let (store, admitted) = (&stores[side as usize % 3], &admitted);
            scope.spawn(move || {
                let mut random = tollgate_random(side);
                for turn in 0..40 {
                    let amount = i64::from(random() % 9 + 1);
                    let name = format!("{side}-{turn}");
                    let request = ClaimRequest { limit: units(limit), ..request(&name, amount) };
                    match wait(store.claim(request)) {
                        Ok(claim) => {
                            // Between these two the credit of this claim is taken: what all have taken is within the limit.
                            let now = admitted.fetch_add(amount, std::sync::atomic::Ordering::SeqCst) + amount;
                            assert!(now <= limit, "{now} of {limit} are taken");
                            if random().is_multiple_of(3) {
                                wait(store.capture(claim, posting(units(amount)))).unwrap();
                            } else {
                                admitted.fetch_sub(amount, std::sync::atomic::Ordering::SeqCst);
                                store.release(claim, Released::OriginFailed);
                            }
                        }
                        Err(ClaimError::CreditExhausted { used, limit: told }) => {
                            assert!(used.get() + amount > limit && told.get() == limit);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    // Everything that was released is free again, to the last unit.
    let captured = server.number("SELECT CAST(sum(amount) AS BIGINT) FROM entries");
    let left = limit - captured;
    let mut tries = 0;
    let last = loop {
        let request = ClaimRequest { limit: units(limit), ..request(&format!("last-{tries}"), left) };
        match wait(stores[tries % 3].claim(request)) {
            Ok(claim) => break claim,
            // Releases are on their way.
            Err(ClaimError::CreditExhausted { .. }) => tries += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(tries < 1000);
    };
    assert!(matches!(
        wait(stores[0].claim(ClaimRequest { limit: units(limit), ..request("one-more", 1) })),
        Err(ClaimError::CreditExhausted { .. })
    ));
    wait(stores[tries % 3].capture(last, posting(units(left)))).unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), limit);
    stores.iter().for_each(|store| store.close().unwrap());
    assert_eq!(audit(&server).finding, None);
}

/// A generator of numbers that are the same each time.
fn tollgate_random(seed: u32) -> impl FnMut() -> u32 {
    let mut random = Random::new(u64::from(seed));
    move || random.below(1 << 30) as u32
}

#[test]
fn a_settlement_of_one_gateway_is_ended_by_another_and_what_is_owed_is_served_once() {
    let Some(server) = Postgres::start("postgres::a_settlement_of_one_gateway") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let purchase = || Purchase::new("eip155:8453:0xabc".into(), "GET", "https://shop.example/a");
    let token = |name: &str| ClaimRequest {
        account: "wallets".into(),
        period: 0,
        limit: Units::MAX,
        purchase: Some(purchase()),
        ..request(name, 10_000)
    };
    let intent = || Intent {
        posting: Posting { scheme: "exact", agent_key: None, key: None, ..posting(units(10_000)) },
        facilitator: "https://facilitator.example".into(),
        payload: b"{}".to_vec(),
        hard_until_ms: NOON + 60_000,
    };
    let claim = wait(a.claim(token("one"))).unwrap();
    let settling = wait(a.intend(claim, intent())).unwrap();
    // Its payer comes to the other one meanwhile.
    assert_eq!(wait(b.claim(token("one"))).unwrap_err(), ClaimError::InFlight);
    assert!(wait(b.knows(key("one"))).unwrap());
    a.unknown(settling);
    let unresolved = loop {
        let all = wait(b.unresolved()).unwrap();
        if let Some(one) = all.first() {
            break one.clone();
        }
    };
    assert_eq!(unresolved.request.key, key("one"));
    assert_eq!(wait(b.claim(token("one"))).unwrap_err(), ClaimError::Unresolved);
    // No other payment of his for the same thing, on either.
    for store in [&a, &b] {
        assert!(wait(store.is_in_doubt(purchase())).unwrap());
        assert_eq!(wait(store.claim(token("two"))).unwrap_err(), ClaimError::PayerUnresolved);
    }
    let settling = wait(b.adopt(key("one"))).unwrap();
    assert!(wait(a.adopt(key("one"))).is_none());
    let receipt = wait(b.settled(settling, intent().posting, true)).unwrap();
    assert_eq!(wait(a.claim(token("one"))).unwrap_err(), ClaimError::Owed);
    assert!(!wait(a.is_in_doubt(purchase())).unwrap());
    let turn = wait(a.take_owed(key("one"))).unwrap();
    assert!(wait(b.take_owed(key("one"))).is_none());
    // Not given: owed again, to whoever comes first.
    a.give_back(turn);
    let turn = loop {
        if let Some(turn) = wait(b.take_owed(key("one"))) {
            break turn;
        }
    };
    assert_eq!(wait(b.redelivered(turn)).unwrap().n, receipt.n);
    for store in [&a, &b] {
        assert_eq!(wait(store.claim(token("one"))).unwrap_err(), ClaimError::AlreadyCaptured(Some(receipt.n)));
        assert!(wait(store.take_owed(key("one"))).is_none());
    }
    // A gateway that dies over a settlement leaves it to the others.
    let claim = wait(a.claim(token("three"))).unwrap();
    std::mem::forget(wait(a.intend(claim, intent())).unwrap());
    a.close().unwrap();
    let settling = loop {
        if let Some(settling) = wait(b.adopt(key("three"))) {
            break settling;
        }
    };
    wait(b.failed(settling, intent().posting)).unwrap();
    assert_eq!(wait(b.claim(token("three"))).unwrap_err(), ClaimError::Burnt);
    b.close().unwrap();
    assert_eq!(server.number("SELECT used FROM account_use"), 10_000);
    let report = audit(&server);
    assert_eq!((report.finding, report.captures), (None, 1));
}

#[test]
fn what_a_gateway_that_is_gone_had_captured_is_had_once_more_from_another() {
    let Some(server) = Postgres::start("postgres::what_a_gateway_that_is_gone") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let pay = |name: &str| {
        let claim = wait(a.claim(request(name, 10_000))).unwrap();
        wait(a.capture(claim, posting(units(10_000)))).unwrap()
    };
    let (told, untold) = (pay("told"), pay("untold"));
    a.outcome(Outcome { n: told.n, delivery: Delivery::Complete, void: false, ms: 1, bytes: 9 });
    a.hurry();
    while server.number("SELECT count(*) FROM batches WHERE outcomes IS NOT NULL") == 0 {
        std::thread::yield_now();
    }
    // While it lives, its word is waited for.
    assert_eq!(wait(b.claim(request("untold", 10_000))).unwrap_err(), ClaimError::AlreadyCaptured(Some(untold.n)));
    // As after kill -9 and the end of its lease.
    server.sql("UPDATE writers SET epoch = epoch + 1, lease_until = 0 WHERE slot = 1");
    let error = loop {
        match wait(b.claim(request("untold", 10_000))).unwrap_err() {
            ClaimError::AlreadyCaptured(_) => {}
            error => break error,
        }
    };
    assert_eq!(error, ClaimError::Owed);
    assert_eq!(wait(b.claim(request("told", 10_000))).unwrap_err(), ClaimError::AlreadyCaptured(Some(told.n)));
    let turn = wait(b.take_owed(key("untold"))).unwrap();
    assert_eq!(wait(b.redelivered(turn)).unwrap().n, untold.n);
    assert!(wait(b.take_owed(key("untold"))).is_none());
    assert_eq!(wait(b.claim(request("untold", 10_000))).unwrap_err(), ClaimError::AlreadyCaptured(Some(untold.n)));
    b.close().unwrap();
    let report = audit(&server);
    assert_eq!((report.finding, report.captures, report.unproven), (None, 2, 0));
}

#[test]
fn a_gateway_whose_clock_is_not_the_servers_sells_nothing_and_raises_no_floor() {
    let Some(server) = Postgres::start("postgres::a_gateway_whose_clock") else { return };
    let place = Location::parse(&server.url(), None).unwrap();
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let clock = Clock::manual(now_ms + 3_600_000);
    let options = LedgerOptions { apart_max_ms: Some(60_000), ..options(place, clock) };
    let ahead = LedgerStore::open(options.clone()).unwrap();
    let Health::Closed(why) = ahead.health() else { panic!("it is open") };
    assert!(why.contains("are 3600 s apart") || why.contains("are 3599 s apart"), "{why}");
    assert!(matches!(wait(ahead.claim(request("a", 1))), Err(ClaimError::Unavailable(_))));
    ahead.close().unwrap();
    assert_eq!(server.number("SELECT replay_floor_ms FROM book"), 0);
    let right = LedgerStore::open(LedgerOptions { clock: Clock::manual(now_ms), ..options }).unwrap();
    assert_eq!(right.health(), Health::Open);
    let mut request = request("a", 1);
    request.paid_at_ms = now_ms;
    wait(right.claim(request)).unwrap();
    right.close().unwrap();
}
