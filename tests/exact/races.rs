//! One token payment from many sides at once, with a facilitator that takes its time and clients that do not.

use std::sync::Barrier;

use rusqlite::Connection as Sql;
use serde_json::Value;

use crate::support::books::Books;
use crate::support::client::Connection;
use crate::support::facilitator::{Behaviour, Facilitator, Gate};
use crate::support::wallet::{Wallet, head, receipt, send, token_shop};
use crate::support::*;

const SIDES: usize = 16;

/// The payment from all sides, each over a connection of its own.
fn at_once(gateway: &Gateway, path: &str, payload: &Value) -> Vec<Answer> {
    let barrier = Barrier::new(SIDES);
    let send = || {
        let mut connection = Connection::open(gateway.addr);
        barrier.wait();
        connection.send(head(gateway.addr, "GET", path, payload)).unwrap()
    };
    std::thread::scope(|scope| {
        let sides: Vec<_> = (0..SIDES).map(|_| scope.spawn(send)).collect();
        sides.into_iter().map(|side| side.join().unwrap()).collect()
    })
}

fn is_late(answer: &Answer) -> bool {
    matches!((answer.status, answer.reason()), (503, "payment_in_flight") | (409, "payment_already_used"))
}

#[test]
fn one_payment_from_sixteen_sides_is_served_once() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    for round in 0..6 {
        let path = format!("/paid/{round}");
        let draft =
            if round % 2 == 0 { wallet.draft(gateway.addr, &path) } else { wallet.draft_v1(gateway.addr, &path) };
        let answers = at_once(&gateway, &path, &wallet.sign(&draft));
        let served: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(served.len(), 1, "{answers:?}");
        assert_eq!(receipt(served[0]).unwrap()["success"], true);
        assert!(answers.iter().all(|answer| answer.status == 200 || is_late(answer)), "{answers:?}");
        let calls = (origin.calls(), facilitator.count("/verify"), facilitator.count("/settle"));
        assert_eq!(calls, (round + 1, round + 1, round + 1));
    }
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.charged(), books.intents, books.failed), (6, 6, 0));
}

/// Sixteen offers for one page, one authorisation: what the chain takes once is taken once.
#[test]
fn one_authorisation_under_sixteen_offers_is_served_once() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let first = wallet.draft(gateway.addr, "/paid/0");
    let payloads: Vec<Value> = (0..SIDES)
        .map(|i| {
            let mut draft = wallet.draft(gateway.addr, &format!("/paid/{i}"));
            draft.authorization = first.authorization.clone();
            wallet.sign(&draft)
        })
        .collect();
    let barrier = Barrier::new(SIDES);
    let (gateway, barrier) = (&gateway, &barrier);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let send = |(i, payload)| {
            scope.spawn(move || {
                barrier.wait();
                send(gateway.addr, "GET", &format!("/paid/{i}"), payload)
            })
        };
        let sides: Vec<_> = payloads.iter().enumerate().map(send).collect();
        sides.into_iter().map(|side| side.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 200 || is_late(answer)), "{answers:?}");
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}

/// The next call of `path` waits for the gate.
fn hold(facilitator: &Facilitator, path: &str) -> Gate {
    let gate = Gate::default();
    facilitator.next(path, Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    gate
}

#[test]
fn while_a_facilitator_thinks_the_others_are_told_to_wait() {
    for path in ["/verify", "/settle"] {
        let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
        let gateway = token_shop(&origin, &facilitator, "");
        let gate = hold(&facilitator, path);
        let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
        let mut first = Connection::open(gateway.addr);
        first.write(head(gateway.addr, "GET", "/paid/a", &payload));
        facilitator.arrived(path, 1);
        for answer in at_once(&gateway, "/paid/a", &payload) {
            assert_eq!((answer.status, answer.reason()), (503, "payment_in_flight"), "{path}: {answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(answer.header("payment-required").is_none(), "an offer would be paid");
        }
        gate.open();
        assert_eq!(first.read(false).map(|answer| answer.status), Some(200), "{path}");
        assert!(at_once(&gateway, "/paid/a", &payload).iter().all(|answer| answer.status == 409), "{path}");
        let calls = (origin.calls(), facilitator.count("/verify"), facilitator.count("/settle"));
        assert_eq!(calls, (1, 1, 1), "{path}");
    }
}

/// Before the intent a client that leaves takes its payment with it.
#[test]
fn a_client_that_leaves_before_the_money_moves_may_come_back() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let gate = hold(&facilitator, "/verify");
    let mut leaving = Connection::open(gateway.addr);
    leaving.write(head(gateway.addr, "GET", "/paid/a", &payload));
    facilitator.arrived("/verify", 1);
    drop(leaving);
    let answer = until_free(&gateway, &payload);
    gate.open();
    assert_eq!((answer.status, receipt(&answer).unwrap()["success"] == true), (200, true), "{answer:?}");
    assert_eq!(until_free(&gateway, &payload).status, 409);
    assert_eq!((origin.calls(), facilitator.count("/verify"), facilitator.count("/settle")), (1, 2, 1));
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).charged(), 1);
}

/// The first answer that is not «in flight».
fn until_free(gateway: &Gateway, payload: &Value) -> Answer {
    for _ in 0..5000 {
        let answer = send(gateway.addr, "GET", "/paid/a", payload);
        if answer.reason() != "payment_in_flight" {
            return answer;
        }
        std::thread::yield_now();
    }
    panic!("the payment stays in flight");
}

/// After it, nothing is cancelled: the money moves once, and what was paid for is given once more.
#[test]
fn clients_that_leave_while_the_money_moves_are_owed_one_answer() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let gate = hold(&facilitator, "/settle");
    let mut leaving = Connection::open(gateway.addr);
    leaving.write(head(gateway.addr, "GET", "/paid/a", &payload));
    facilitator.arrived("/settle", 1);
    drop(leaving);
    for _ in 0..SIDES {
        let mut hurried = Connection::open(gateway.addr);
        hurried.write(head(gateway.addr, "GET", "/paid/a", &payload));
    }
    // Seen on both cores, and so the leaving before them.
    let answers = at_once(&gateway, "/paid/a", &payload);
    assert!(answers.iter().all(|answer| answer.reason() == "payment_in_flight"), "{answers:?}");
    gate.open();
    let served = until_free(&gateway, &payload);
    assert_eq!((served.status, receipt(&served).unwrap()["success"] == true), (200, true), "{served:?}");
    assert!(at_once(&gateway, "/paid/a", &payload).iter().all(|answer| answer.status == 409));
    let seen = origin.seen();
    let attempts: Vec<_> = seen.iter().map(|seen| seen.header("tollgate-attempt").unwrap()).collect();
    assert_eq!(attempts, ["1", "2"]);
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (1, 1));
    let (_, dir) = gateway.stop();
    let sql = Sql::open(dir.path().join("tollgate.sqlite")).unwrap();
    let count = |kind: u8| {
        sql.query_row("SELECT count(*) FROM entries WHERE kind = ?1", [kind], |row| row.get::<_, i64>(0)).unwrap()
    };
    // Captured, begun, failed, owed, given again.
    assert_eq!([1, 4, 5, 6, 9].map(count), [1, 1, 0, 1, 1]);
}

/// Whoever knows payer and nonce, but has no signature, can't spend the payment by leaving.
#[test]
fn a_payment_is_not_spent_by_a_stranger_who_names_it_and_leaves() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let mut named = payload.clone();
    named["payload"]["signature"] = format!("0x{}", "64".repeat(100)).into();
    for round in 1..=4 {
        let gate = hold(&facilitator, "/verify");
        let mut leaving = Connection::open(gateway.addr);
        leaving.write(head(gateway.addr, "GET", "/paid/a", &named));
        facilitator.arrived("/verify", 2 * round - 1);
        drop(leaving);
        // The claim is back as soon as somebody else gets through to the facilitator.
        facilitator.next("/verify", Behaviour::Invalid("invalid_exact_evm_payload_signature"));
        let answer = until_free(&gateway, &named);
        gate.open();
        assert_eq!((answer.status, answer.reason()), (402, "payment_refused"), "{round}");
    }
    assert_eq!(until_free(&gateway, &payload).status, 200);
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}
