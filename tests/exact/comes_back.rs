//! A payment that comes back: to whom an answer is owed, and to whom not.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::Connection;
use crate::support::facilitator::{Behaviour, Facilitator, Gate};
use crate::support::wallet::{Wallet, head, receipt, send, token_shop, token_shop_toml};
use crate::support::*;

/// An origin that fails the first time.
fn fails_first() -> Origin {
    let calls = AtomicUsize::new(0);
    Origin::scripted(move |_, socket| {
        let status = if calls.fetch_add(1, Ordering::Relaxed) == 0 { "500 Oops" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    })
}

/// What was signed is public once it is on the chain; the id that was offered with it is not.
#[test]
fn only_the_very_payload_fetches_what_it_is_owed() {
    let (origin, facilitator, wallet) = (fails_first(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "settle = \"first\"\n");
    let draft = wallet.draft(gateway.addr, "/paid/a");
    let payload = wallet.sign(&draft);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 500);
    // The same transfer under another offer, and for another thing.
    let mut stolen = wallet.draft(gateway.addr, "/paid/a");
    stolen.authorization = draft.authorization.clone();
    let answer = send(gateway.addr, "GET", "/paid/a", &wallet.sign(&stolen));
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"));
    let mut other = wallet.draft(gateway.addr, "/paid/b");
    other.authorization = draft.authorization.clone();
    assert_eq!(send(gateway.addr, "GET", "/paid/b", &wallet.sign(&other)).status, 409);
    assert_eq!(origin.calls(), 1);
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 1));
}

#[test]
fn a_payer_who_was_told_to_wait_cannot_pay_again_for_the_same_thing() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\nanswer_seconds = 1\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"));
    let again = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((again.status, again.reason()), (503, "payment_unresolved"));
    gate.open();
    // The call went on to its end; what it bought is owed.
    let answer = loop {
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        if answer.status != 503 {
            break answer;
        }
        std::thread::yield_now();
    };
    assert_eq!((answer.status, receipt(&answer).unwrap()["success"] == true), (200, true), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 1);
    assert_eq!(wallet.buy(gateway.addr, "/paid/a").status, 200);
}

#[test]
fn a_crash_after_the_capture_leaves_an_answer_that_can_be_fetched_once() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage").is_ok();
        }
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npa").unwrap();
        // Until the gateway is gone.
        let _ = socket.read(&mut [0]);
        false
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let payload = wallet.sign(&wallet.draft(host, "/paid/a"));
    let request = head(host, "GET", "/paid/a", &payload);
    let reader = std::thread::spawn({
        let request = request.clone();
        move || {
            let mut connection = Connection::open(host);
            connection.write(request);
            connection.read(false)
        }
    });
    facilitator.arrived("/settle", 1);
    let captured = "SELECT count(*) FROM entries WHERE kind = 1";
    let sql = rusqlite::Connection::open(gateway.dir.path().join("tollgate.sqlite")).unwrap();
    while sql.query_row(captured, (), |row| row.get::<_, i64>(0)).unwrap() == 0 {
        std::thread::yield_now();
    }
    drop(sql);
    let gateway = Gateway::start_in(gateway.kill(), &toml);
    reader.join().unwrap();
    let answer = exchange(gateway.addr, request.clone());
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!(exchange(gateway.addr, request).status, 409);
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 1));
}

/// Whoever has seen the transfer on the chain can name the payment; that must not keep its payer out.
#[test]
fn an_impostor_does_not_stand_in_the_payers_way() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    for _ in 0..20 {
        facilitator.next("/settle", Behaviour::Reset);
        facilitator.next("/settle", Behaviour::Reset);
        let draft = wallet.draft(gateway.addr, "/paid/a");
        let payload = wallet.sign(&draft);
        assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).reason(), "settlement_pending");
        let settlements = facilitator.count("/settle");
        let mut stolen = wallet.draft(gateway.addr, "/paid/b");
        stolen.authorization = draft.authorization.clone();
        let stolen = wallet.sign(&stolen);
        let answer = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let answer = send(gateway.addr, "GET", "/paid/b", &stolen);
                        assert!(matches!(answer.status, 503 | 409), "{answer:?}");
                    }
                });
            }
            send(gateway.addr, "GET", "/paid/a", &payload)
        });
        assert_eq!((answer.status, answer.reason()), (200, ""), "{answer:?}");
        assert_eq!(facilitator.count("/settle"), settlements + 1, "no impostor had it settled");
    }
}
