//! `settle = "after_body"`: the whole answer first, then the money.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};

use crate::support::client::Connection;
use crate::support::facilitator::Facilitator;
use crate::support::gateway::tollgate;
use crate::support::wallet::{Wallet, head, receipt, send, token_shop, token_shop_toml};
use crate::support::*;

const AFTER_BODY: &str = "settle = \"after_body\"\n";

/// A shop that holds answers of at most `bytes`.
fn small_shop(origin: &Origin, facilitator: &Facilitator, bytes: usize) -> Gateway {
    let exact = format!("[exact]\nbody_bytes = {bytes}\n[[exact.assets]]");
    Gateway::start(&token_shop_toml(origin, facilitator, AFTER_BODY).replace("[[exact.assets]]", &exact))
}

#[test]
fn an_answer_arrives_as_the_origin_gave_it() {
    let bodies = [
        "Content-Length: 4\r\n\r\npage",
        "Content-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\npa\r\n2\r\nge\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\npage\r\n0\r\nX-Sum: 7\r\nPAYMENT-RESPONSE: fake\r\n\r\n",
    ];
    let next = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let body = bodies[next.fetch_add(1, Ordering::Relaxed) % bodies.len()];
        write!(socket, "HTTP/1.1 200 OK\r\n{body}").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, AFTER_BODY);
    for (i, text) in ["page", "", "page", "page"].into_iter().enumerate() {
        let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
        let request = head(gateway.addr, "GET", "/paid/a", &payload).replace("\r\n\r\n", "\r\nTE: trailers\r\n\r\n");
        let answer = exchange(gateway.addr, request);
        assert_eq!((answer.status, answer.text().as_str(), answer.truncated), (200, text, false), "{i}: {answer:?}");
        assert_eq!(receipt(&answer).unwrap()["success"], true, "{i}");
        let length = answer.header("content-length").map(str::to_owned);
        assert_eq!(length, (i < 3).then(|| text.len().to_string()), "{i}: its length is known by then");
        let trailers = if i == 3 { vec![("x-sum".to_owned(), "7".to_owned())] } else { Vec::new() };
        assert_eq!(answer.trailers, trailers, "{i}");
    }
    assert_eq!(facilitator.count("/settle"), bodies.len());
}

#[test]
fn an_answer_that_is_cut_costs_nothing_and_the_payment_stays_good() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let whole = calls.fetch_add(1, Ordering::Relaxed) > 0;
        let body = if whole { "page" } else { "pa" };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}").is_ok() && whole
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, AFTER_BODY);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason(), receipt(&answer)), (502, "origin_invalid", None), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 0);
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"), "{answer:?}");
    let (_, dir) = gateway.stop();
    let (code, rows, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!((code, rows.lines().count()), (0, 2), "an intent and its capture\n{rows}{err}");
}

#[test]
fn a_client_that_leaves_while_the_body_comes_has_paid_nothing() {
    let (told, gone) = channel::<usize>();
    let (told, calls) = (Mutex::new(told), AtomicUsize::new(0));
    let origin = Origin::scripted(move |_, socket| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage").is_ok();
        }
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npa");
        told.lock().unwrap().send(1).unwrap();
        // Until the gateway gives the call up.
        let read = socket.read(&mut [0; 1]).unwrap_or(0);
        told.lock().unwrap().send(read).unwrap();
        false
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, AFTER_BODY);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "GET", "/paid/a", &payload));
    assert_eq!(gone.recv().unwrap(), 1);
    drop(connection);
    assert_eq!(gone.recv().unwrap(), 0, "the origin's call is cancelled");
    assert_eq!(facilitator.count("/settle"), 0);
    let mut answer = send(gateway.addr, "GET", "/paid/a", &payload);
    while answer.reason() == "payment_in_flight" {
        answer = send(gateway.addr, "GET", "/paid/a", &payload);
    }
    assert_eq!((answer.status, facilitator.count("/settle")), (200, 1), "{answer:?}");
}

/// Whether its length is known before or not.
#[test]
fn an_answer_over_the_cap_is_settled_then_and_streams_on() {
    for known in [false, true] {
        let facilitator = Arc::new(Facilitator::start());
        let wallet = Wallet::new();
        let (settled, wait) = sync_channel::<()>(1);
        let wait = Mutex::new(wait);
        let origin = Origin::scripted(move |_, socket| {
            let first = if known {
                write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n12345")
            } else {
                write!(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n")
            };
            // The rest comes only once it has been settled.
            first.unwrap();
            wait.lock().unwrap().recv().unwrap();
            if known { socket.write_all(b"6789end") } else { socket.write_all(b"3\r\nend\r\n0\r\n\r\n") }.is_ok()
        });
        let gateway = small_shop(&origin, &facilitator, 8);
        let watched = facilitator.clone();
        let watch = std::thread::spawn(move || {
            watched.arrived("/settle", 1);
            settled.send(()).unwrap();
        });
        let answer = wallet.buy(gateway.addr, "/paid/a");
        watch.join().unwrap();
        let got = (answer.status, answer.text(), answer.truncated);
        assert_eq!(got, (200, "123456789end".to_owned(), false), "known: {known}");
        assert_eq!(receipt(&answer).unwrap()["success"], true);
    }
}

/// It is settled before its end is known, so what it breaks off later is paid.
#[test]
fn an_answer_over_the_cap_that_is_cut_is_paid() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n123456789");
        false
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = small_shop(&origin, &facilitator, 8);
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, answer.truncated, facilitator.count("/settle")), (200, true, 1), "{answer:?}");
}

/// Nothing of the answer is given while whether it was paid is not known.
#[test]
fn a_settlement_that_fails_withholds_the_whole_answer() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, AFTER_BODY);
    facilitator.next("/settle", facilitator::Behaviour::Refused("insufficient_funds"));
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, answer.reason()), (402, "settlement_failed"));
    assert!(!answer.text().contains("content of"), "{answer:?}");
}
