//! `payment-identifier`: the same name and request gets the same answer, another payment under it none.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::agent::field_offer;
use crate::support::client::{Connection, get};
use crate::support::facilitator::{Behaviour, Facilitator, Gate};
use crate::support::gateway::tollgate;
use crate::support::wallet::{Wallet, head, receipt, send, token_shop, token_shop_toml};
use crate::support::*;

const ID: &str = "pay_7d5d747be160e280504c099d984bcfe0";

/// A payment for a path that its client has named.
fn named(wallet: &Wallet, gateway: SocketAddr, path: &str, id: &str) -> Value {
    let mut payload = wallet.sign(&wallet.draft(gateway, path));
    payload["extensions"] = json!({"payment-identifier": {"info": {"required": false, "id": id}}});
    payload
}

fn post(gateway: SocketAddr, path: &str, payload: &Value, body: &str) -> Answer {
    let field = STANDARD.encode(payload.to_string());
    exchange(
        gateway,
        format!(
            "POST {path} HTTP/1.1\r\nHost: {gateway}\r\nPAYMENT-SIGNATURE: {field}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// All of an answer that a client can tell apart.
fn seen(answer: &Answer) -> (u16, Option<Value>, String, Vec<(String, String)>) {
    let mut headers: Vec<_> = answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    headers.sort();
    (answer.status, receipt(answer), answer.text(), headers)
}

/// An origin whose answers differ.
fn counting() -> Origin {
    let calls = AtomicUsize::new(0);
    Origin::scripted(move |seen, socket| {
        let body =
            format!("answer {} to {}", calls.fetch_add(1, Ordering::Relaxed), String::from_utf8_lossy(&seen.body));
        let length = body.len();
        write!(socket, "HTTP/1.1 201 Created\r\nX-Kept: yes\r\nContent-Length: {length}\r\n\r\n{body}").is_ok()
    })
}

#[test]
fn the_same_name_and_request_gets_the_same_answer() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let offer = field_offer(&get(gateway.addr, "/paid/a"));
    assert_eq!(offer["extensions"]["payment-identifier"], json!({"info": {"required": false}}));
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let first = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((first.status, first.header("x-kept")), (201, Some("yes")), "{first:?}");
    assert_eq!(receipt(&first).unwrap()["success"], true);
    for _ in 0..3 {
        assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&first));
    }
    assert_eq!((origin.calls(), facilitator.count("/verify"), facilitator.count("/settle")), (1, 1, 1));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.in_state("delivered")), (1, 1), "{books:?}");
}

#[test]
fn a_name_stands_for_one_request_on_one_route() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        + "[[routes]]\npath = \"/other/*\"\nprice = \"0.01 USD\"\naccept = [\"exact\"]\n";
    let gateway = Gateway::start(&toml);
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    assert_eq!(post(gateway.addr, "/paid/a", &payload, "x").status, 402, "an offer for another method");
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 201);
    let taken = |answer: Answer| {
        assert_eq!((answer.status, answer.reason()), (409, "payment_identifier_taken"), "{answer:?}");
        assert!(receipt(&answer).is_none() && !answer.text().contains("answer"));
        // Never a 402, which clients pay again.
        assert!(answer.header("payment-required").is_none());
    };
    taken(send(gateway.addr, "GET", "/paid/a", &named(&wallet, gateway.addr, "/paid/a", ID)));
    taken(send(gateway.addr, "GET", "/paid/b", &payload));
    taken(send(gateway.addr, "HEAD", "/paid/a", &payload));
    let mut changed = payload.clone();
    changed["extensions"]["other"] = json!({});
    taken(send(gateway.addr, "GET", "/paid/a", &changed));
    taken(post(gateway.addr, "/paid/a", &payload, ""));
    // Another route has other clients.
    let other = named(&wallet, gateway.addr, "/other/a", ID);
    assert_eq!(send(gateway.addr, "GET", "/other/a", &other).status, 201);
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 2));
}

#[test]
fn the_body_of_a_request_counts() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let offer = exchange(
        gateway.addr,
        format!("POST /paid/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", gateway.addr),
    );
    let mut payload = wallet.sign(&wallet.draft_of(&offer));
    payload["extensions"] = json!({"payment-identifier": {"info": {"required": false, "id": ID}}});
    let first = post(gateway.addr, "/paid/a", &payload, "question");
    assert_eq!((first.status, first.text().as_str()), (201, "answer 0 to question"), "{first:?}");
    assert_eq!(seen(&post(gateway.addr, "/paid/a", &payload, "question")), seen(&first));
    for other in ["questiom", "", "question "] {
        let answer = post(gateway.addr, "/paid/a", &payload, other);
        assert_eq!((answer.status, answer.reason()), (409, "payment_identifier_taken"), "{other}");
    }
    // In chunks it is the same body.
    let field = STANDARD.encode(payload.to_string());
    let chunked = format!(
        "POST /paid/a HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {field}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n4\r\nques\r\n4\r\ntion\r\n0\r\n\r\n",
        gateway.addr
    );
    assert_eq!(seen(&exchange(gateway.addr, chunked)), seen(&first));
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}

#[test]
fn a_malformed_name_and_a_missing_one_are_400() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\npayment_identifier = \"required\"\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let offer = field_offer(&get(gateway.addr, "/paid/a"));
    assert_eq!(offer["extensions"]["payment-identifier"]["info"]["required"], true);
    for id in ["fifteen-letters", "a b c d e f g h i j", &"a".repeat(129)] {
        let payload = named(&wallet, gateway.addr, "/paid/a", id);
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((answer.status, answer.reason()), (400, "invalid_payment_identifier"), "{id}: {answer:?}");
    }
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, answer.reason()), (400, "invalid_payment_identifier"), "{answer:?}");
    assert!(answer.text().contains("required here"), "{answer:?}");
    assert_eq!((facilitator.count("/verify"), origin.calls()), (0, 0));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &named(&wallet, gateway.addr, "/paid/a", ID)).status, 200);
    // Version 1 has no extensions.
    let payload = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/a"));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 200);
}

#[test]
fn switched_off_a_name_says_nothing() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\npayment_identifier = \"off\"\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    assert!(field_offer(&get(gateway.addr, "/paid/a")).get("extensions").is_none());
    let payload = named(&wallet, gateway.addr, "/paid/a", "short");
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 200);
    let again = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((again.status, again.reason()), (409, "payment_already_used"));
}

#[test]
fn a_twin_waits_for_the_first_and_gets_the_same() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| send(gateway.addr, "GET", "/paid/a", &payload));
        let first = ask();
        facilitator.arrived("/settle", 1);
        let twins: Vec<_> = (0..4).map(|_| ask()).collect();
        // Another payment under the name need not wait.
        let other = named(&wallet, gateway.addr, "/paid/a", ID);
        assert_eq!(send(gateway.addr, "GET", "/paid/a", &other).status, 409);
        gate.open();
        std::iter::once(first).chain(twins).map(|thread| thread.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answers:?}");
        assert_eq!(seen(answer), seen(&answers[0]));
    }
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}

#[test]
fn a_twin_does_not_wait_for_ever() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\nanswer_seconds = 1\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let told =
        |answer: Answer| assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| send(gateway.addr, "GET", "/paid/a", &payload));
        facilitator.arrived("/settle", 1);
        told(send(gateway.addr, "GET", "/paid/a", &payload));
        told(first.join().unwrap());
        gate.open();
    });
    let mut answer = send(gateway.addr, "GET", "/paid/a", &payload);
    while answer.status == 503 {
        answer = send(gateway.addr, "GET", "/paid/a", &payload);
    }
    assert_eq!((answer.status, facilitator.count("/settle")), (201, 1), "{answer:?}");
    assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&answer), "what was owed is stored too");
}

/// Clients keep the name and sign anew.
#[test]
fn a_name_under_which_nothing_was_paid_is_free_again() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let status = if calls.fetch_add(1, Ordering::Relaxed) == 0 { "500 Oops" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let buy = || send(gateway.addr, "GET", "/paid/a", &named(&wallet, gateway.addr, "/paid/a", ID));
    facilitator.next("/verify", Behaviour::Invalid("insufficient_funds"));
    assert_eq!(buy().status, 402, "refused");
    assert_eq!(buy().status, 500, "the origin fails");
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    assert_eq!(buy().status, 402, "not settled");
    assert_eq!(buy().status, 200);
    assert_eq!(buy().reason(), "payment_identifier_taken");
}

#[test]
fn while_money_may_have_moved_no_other_payment_takes_the_name() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Pending(500));
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).reason(), "settlement_pending");
    // Of whomever.
    let other = named(&Wallet::new(), gateway.addr, "/paid/a", ID);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &other).reason(), "payment_identifier_taken");
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (201, Some("2")), "{answer:?}");
    assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&answer));
    assert_eq!(origin.calls(), 2);
}

#[test]
fn what_is_not_kept_is_spent_with_its_receipt() {
    // Over 64 KiB, then a stream, then what had to make room.
    let origin = Origin::scripted(|seen, socket| {
        let (kind, body) = match seen.path() {
            "/paid/long" => ("text/plain", "x".repeat(64 * 1024 + 1)),
            "/paid/stream" => ("text/event-stream", "data: x\n\n".to_owned()),
            _ => ("text/plain", "y".repeat(40_000)),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        write!(socket, "{head}{body}").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\nanswers_bytes = 70000\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let ask = |gateway: &Gateway, path: &str, payload: &Value| exchange(gateway.addr, head(host, "GET", path, payload));
    let spent = |gateway: &Gateway, path: &str, payload: &Value, first: &Answer| {
        let again = ask(gateway, path, payload);
        assert_eq!((again.status, again.reason()), (409, "payment_already_used"), "{path}");
        assert_eq!(receipt(&again), receipt(first), "{path}");
    };
    for path in ["/paid/long", "/paid/stream"] {
        let id = format!("{path}-0123456789").replace('/', "_");
        let payload = named(&wallet, host, path, &id);
        let first = ask(&gateway, path, &payload);
        assert_eq!((first.status, first.truncated), (200, false));
        spent(&gateway, path, &payload, &first);
        let other = ask(&gateway, path, &named(&wallet, host, path, &id));
        assert_eq!(other.reason(), "payment_identifier_taken", "its name stays taken");
    }
    let paid: Vec<(Value, Answer)> = ["first-0123456789", "other-0123456789"]
        .iter()
        .map(|id| {
            let payload = named(&wallet, host, "/paid/a", id);
            let first = ask(&gateway, "/paid/a", &payload);
            assert_eq!(seen(&ask(&gateway, "/paid/a", &payload)), seen(&first));
            (payload, first)
        })
        .collect();
    spent(&gateway, "/paid/a", &paid[0].0, &paid[0].1);
    assert_eq!(seen(&ask(&gateway, "/paid/a", &paid[1].0)), seen(&paid[1].1));
    // The next process remembers the payments, not the answers.
    let gateway = Gateway::start_in(gateway.stop().1, &toml);
    paid.iter().for_each(|(payload, first)| spent(&gateway, "/paid/a", payload, first));
    assert_eq!(facilitator.count("/settle"), 4);
}

/// The answer is whole before a byte of it is given, so its client need not have read any.
#[test]
fn a_client_that_lost_its_answer_gets_it() {
    let (origin, facilitator, wallet) = (counting(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "GET", "/paid/a", &payload));
    facilitator.arrived("/settle", 1);
    drop(connection);
    gate.open();
    let mut answer = send(gateway.addr, "GET", "/paid/a", &payload);
    while answer.status == 503 {
        answer = send(gateway.addr, "GET", "/paid/a", &payload);
    }
    assert_eq!((answer.status, facilitator.count("/settle")), (201, 1), "{answer:?}");
    assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&answer));
}

#[test]
fn a_paid_answer_that_is_cut_before_a_byte_of_it_was_given_is_owed() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let whole = calls.fetch_add(1, Ordering::Relaxed) > 0;
        let body = if whole { "page" } else { "pa" };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}").is_ok() && whole
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, receipt(&answer).unwrap()["success"] == true), (502, true), "{answer:?}");
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&answer));
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 1));
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// What it fetches later from memory it is not owed any more.
#[test]
fn a_client_that_fetched_what_it_lost_is_not_on_the_refund_list() {
    let (told, asked) = std::sync::mpsc::channel::<()>();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (told, wait) = (std::sync::Mutex::new(told), std::sync::Mutex::new(wait));
    let origin = Origin::scripted(move |_, socket| {
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npa").unwrap();
        told.lock().unwrap().send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        socket.write_all(b"ge").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = named(&wallet, gateway.addr, "/paid/a", ID);
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "GET", "/paid/a", &payload));
    asked.recv().unwrap();
    facilitator.arrived("/settle", 1);
    let sql = rusqlite::Connection::open(gateway.ledger()).unwrap();
    let captured = "SELECT count(*) FROM entries WHERE kind = 1";
    while sql.query_row(captured, (), |row| row.get::<_, i64>(0)).unwrap() == 0 {
        std::thread::yield_now();
    }
    drop((sql, connection));
    go.send(()).unwrap();
    let mut answer = send(gateway.addr, "GET", "/paid/a", &payload);
    while answer.status == 503 {
        answer = send(gateway.addr, "GET", "/paid/a", &payload);
    }
    assert_eq!((answer.status, answer.text().as_str(), origin.calls()), (200, "page", 1), "{answer:?}");
    // Until what became of the first is written.
    let sql = rusqlite::Connection::open(gateway.ledger()).unwrap();
    let outcomes = "SELECT count(*) FROM batches WHERE outcomes IS NOT NULL";
    while sql.query_row(outcomes, (), |row| row.get::<_, i64>(0)).unwrap() == 0 {
        std::thread::yield_now();
    }
    drop(sql);
    assert_eq!(seen(&send(gateway.addr, "GET", "/paid/a", &payload)), seen(&answer));
    let (_, dir) = gateway.stop();
    let (code, out, err) =
        tollgate(dir.path(), &["ledger", "list", "--state", "owed", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
}

#[test]
fn a_named_answer_that_was_taken_before_it_was_paid_arrives_whole() {
    for (size, chunked) in [(100_000_usize, false), (100_000, true), (3_000_000, false), (3_000_000, true)] {
        let origin = Origin::scripted(move |_, socket| {
            let body = "x".repeat(size);
            let framed = if chunked {
                format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
            } else {
                format!("Content-Length: {size}\r\n\r\n{body}")
            };
            write!(socket, "HTTP/1.1 200 OK\r\n{framed}").is_ok()
        });
        let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
        let gateway = token_shop(&origin, &facilitator, "settle = \"after_body\"\n");
        let mut payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
        let info = json!({"required": false, "id": format!("payment-of-a-long-answer-{size}")});
        payload["extensions"] = json!({"payment-identifier": {"info": info}});
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((answer.status, answer.body.len(), answer.truncated), (200, size, false), "chunked {chunked}");
        assert_eq!(receipt(&answer).unwrap()["success"], true);
    }
}
