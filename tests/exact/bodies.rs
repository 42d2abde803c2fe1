//! Requests with a body: what is owed is served again for the very same one.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::client::Connection;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{Wallet, receipt, token_shop, token_shop_toml};
use crate::support::*;

/// An origin that says what it got, and fails the first time.
fn echo(first: &'static str) -> Origin {
    let calls = AtomicUsize::new(0);
    Origin::scripted(move |seen, socket| {
        let status = if calls.fetch_add(1, Ordering::Relaxed) == 0 { first } else { "200 OK" };
        let body = format!("got {}", String::from_utf8_lossy(&seen.body));
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    })
}

fn offer(gateway: SocketAddr) -> Answer {
    exchange(
        gateway,
        format!("POST /paid/a HTTP/1.1\r\nHost: {gateway}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    )
}

fn request(gateway: SocketAddr, payload: &Value, framing: &str) -> String {
    let field = STANDARD.encode(payload.to_string());
    format!("POST /paid/a HTTP/1.1\r\nHost: {gateway}\r\nPAYMENT-SIGNATURE: {field}\r\nConnection: close\r\n{framing}")
}

fn post(gateway: SocketAddr, payload: &Value, body: &str) -> Answer {
    exchange(gateway, request(gateway, payload, &format!("Content-Length: {}\r\n\r\n{body}", body.len())))
}

/// Owed, and fetched by nothing but the same request.
fn fetched_by_the_same_body_only(origin: &Origin, gateway: &Gateway, payload: &Value) {
    let calls = origin.calls();
    for other in ["questiom", "question?", ""] {
        let answer = post(gateway.addr, payload, other);
        assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{other}: {answer:?}");
        assert_eq!(receipt(&answer).unwrap()["success"], true);
    }
    assert_eq!(origin.calls(), calls);
    // In chunks it is the same body.
    let chunks = "Transfer-Encoding: chunked\r\n\r\n4\r\nques\r\n4\r\ntion\r\n0\r\n\r\n";
    let answer = exchange(gateway.addr, request(gateway.addr, payload, chunks));
    assert_eq!((answer.status, answer.text().as_str()), (200, "got question"), "{answer:?}");
    assert_eq!(origin.last().header("tollgate-attempt"), Some("2"));
    assert_eq!(post(gateway.addr, payload, "question").status, 409);
    assert_eq!(origin.calls(), calls + 1);
}

#[test]
fn what_a_settlement_without_verdict_leaves_owed_is_fetched_by_the_same_body() {
    let (origin, facilitator, wallet) = (echo("200 OK"), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Pending(500));
    let payload = wallet.sign(&wallet.draft_of(&offer(gateway.addr)));
    assert_eq!(post(gateway.addr, &payload, "question").reason(), "settlement_pending");
    // It settles now, for another body: that one gets nothing.
    let answer = post(gateway.addr, &payload, "other");
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{answer:?}");
    fetched_by_the_same_body_only(&origin, &gateway, &payload);
    assert_eq!(facilitator.count("/settle"), 3);
    // The proof says what was asked.
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let capture = rows.iter().find(|row| row["kind"] == "capture").unwrap()["n"].as_str().unwrap();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "show", capture, "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    let digest: String = Sha256::digest(b"question").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&shown["evidence"]["body_sha256"], &shown["evidence"]["verifies"]), (&digest.into(), &true.into()));
}

#[test]
fn what_was_settled_first_is_fetched_by_the_same_body() {
    let (origin, facilitator, wallet) = (echo("500 Oops"), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "settle = \"first\"\n");
    let payload = wallet.sign(&wallet.draft_of(&offer(gateway.addr)));
    let answer = post(gateway.addr, &payload, "question");
    assert_eq!((answer.status, receipt(&answer).unwrap()["success"] == true), (500, true), "{answer:?}");
    fetched_by_the_same_body_only(&origin, &gateway, &payload);
    assert_eq!(facilitator.count("/settle"), 1);
}

/// What is too long to be held can't be compared: it is settled and served, and stays on the refund list if it fails.
#[test]
fn a_body_that_cannot_be_held_is_served_once_and_never_again() {
    let (origin, facilitator, wallet) = (echo("500 Oops"), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "settle = \"first\"\n")
        .replace("[[exact.assets]]", "[exact]\nbody_bytes = 7\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let payload = wallet.sign(&wallet.draft_of(&offer(gateway.addr)));
    let answer = post(gateway.addr, &payload, "question");
    assert_eq!((answer.status, answer.text().as_str()), (500, "got question"), "all of it arrived: {answer:?}");
    let answer = post(gateway.addr, &payload, "question");
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{answer:?}");
    assert!(receipt(&answer).is_some());
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}

/// An origin that answers before it has read all: whether a retry is the same request can't be told.
#[test]
fn a_body_that_had_not_ended_is_no_proof() {
    let origin = Origin::scripted_heads(|_, socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Pending(500));
    let payload = wallet.sign(&wallet.draft_of(&offer(gateway.addr)));
    let mut connection = Connection::open(gateway.addr);
    connection.write(request(gateway.addr, &payload, "Transfer-Encoding: chunked\r\n\r\n4\r\nques\r\n"));
    let answer = connection.read(false).unwrap();
    assert_eq!(answer.reason(), "settlement_pending", "{answer:?}");
    // It is settled when it comes back, and owed; but for which body?
    let answer = post(gateway.addr, &payload, "question");
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{answer:?}");
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 3));
}
